# SPDX-License-Identifier: Apache-2.0
"""Ids as callers give them, and what can be wrong with a call."""

import collections
from collections.abc import Iterable, Sequence
import operator
from typing import Any

import numpy as np

from dropoutnet_jax import errors
from dropoutnet_jax.serving.index import protocol

_SHOWN = 3


def listed(ids: Iterable[Any]) -> list[protocol.Id]:
  """Ids as Python ints and strings."""
  if isinstance(ids, str):
    raise errors.UserError(
        f'Ids must be a list; {ids!r} is a single string. Write [{ids!r}].'
    )
  return ids.tolist() if isinstance(ids, np.ndarray) else list(ids)


def array(ids: Iterable[Any], like: np.ndarray | None = None) -> np.ndarray:
  """Ids as an array: int64, or object of strings.

  Args:
    ids: N, distinct.
    like: ids of the same kind; None, or no ids at all: any.

  Raises:
    UserError: if they are neither all whole numbers nor all strings, of
      another kind than `like`, or repeated.
  """
  names = listed(ids)
  is_text = [isinstance(name, str) for name in names]
  if all(is_text) and names:
    made = np.empty(len(names), object)
    made[:] = [str(name) for name in names]  # not of NumPy
  else:
    made = _whole_numbers(names)
  if like is not None and not len(like):
    like = None
  if like is not None and not names:
    return like[:0]
  if like is not None and made.dtype != like.dtype:
    kinds = {True: 'strings', False: 'whole numbers'}
    raise errors.UserError(
        f'The ids of the index are {kinds[like.dtype == object]}, and these '
        f'are {kinds[made.dtype == object]}: {_some(names)}.'
    )
  if len(set(names)) < len(names):
    counts = collections.Counter(names)
    again = [name for name, count in counts.items() if count > 1]
    raise errors.UserError(
        f'Ids of items are repeated: {_some(again)}. Give each of them once.'
    )
  return made


def _whole_numbers(names: list[Any]) -> np.ndarray:
  try:
    if any(isinstance(name, bool) for name in names):
      raise TypeError
    return np.asarray([operator.index(name) for name in names], np.int64)
  except (TypeError, OverflowError) as error:
    raise errors.UserError(
        'Ids must be all strings or all whole numbers of 64 bits, and among '
        f'these are others: {_some(names)}.'
    ) from error


def check_number(names: np.ndarray, rows: int) -> None:
  """Raises UserError unless there is a row for each id."""
  if len(names) != rows:
    raise errors.UserError(
        f'There are {len(names)} ids and embeddings of {rows} items; give one '
        'for each.'
    )


def check_k(k: int) -> None:
  """Raises UserError unless k is a number of items."""
  if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
    raise errors.UserError(f'k={k!r}: it must be a whole number from 1 on.')


def exclusions(
    exclude: Sequence[Iterable[Any]] | None, num_users: int
) -> list[list[protocol.Id]] | None:
  """A list of ids for each user, or None."""
  if exclude is None:
    return None
  lists = [listed(names) for names in exclude]
  if len(lists) != num_users:
    raise errors.UserError(
        f'exclude has {len(lists)} lists for {num_users} users; give one for '
        'each, empty where nothing is excluded.'
    )
  return lists


def _some(names: Sequence[Any]) -> str:
  return errors.listed([repr(name) for name in names], _SHOWN)
