# SPDX-License-Identifier: Apache-2.0
"""Who is served well: metrics by kinds of users and of items.

A mean hides who is served badly. Slices of users take all of their pairs; of
items those held-out pairs alone whose item is in the slice, of the users who
have some, among the same candidates: other relevant items above them count as
if they were not relevant.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.evaluation import metrics
from dropoutnet_jax.evaluation import protocol

_EDGES = (0, 1, 2, 5, 10, 20, 50, 100)


def kinds(
    problem: problem_lib.Problem, ranks: protocol.Ranks
) -> dict[str, np.ndarray]:
  """A number for each pair of a set by what it is sliced by: int64 [N] each.

  'user_history' counts training interactions of the user, 'user_content' and
  'item_content' values of the row's content (tags, words, or dense columns that
  are not 0), 'item_popularity' the held-out pairs of the item in this set. Left
  out where all pairs are of one slice.
  """
  user = ranks.users[ranks.group]
  _, place, count = np.unique(
      ranks.item, return_inverse=True, return_counts=True
  )
  found = {
      'user_history': problem.like_counts()[0][user],
      'user_content': _amount(problem.user)[user],
      'item_content': _amount(problem.item)[ranks.item],
      'item_popularity': count[place],
  }
  return {
      name: number
      for name, number in found.items()
      if len(np.unique(_slice_of(number))) > 1
  }


def evaluate(
    ranks: Mapping[str, protocol.Ranks],
    numbers: Mapping[str, np.ndarray],
    settings: config.EvaluationConfig,
) -> dict[str, Any]:
  """Metrics of all methods by slice.

  Args:
    ranks: by method, of one set.
    numbers: what `kinds` returns for it.
    settings: cut-offs.

  Returns:
    {kind: {slice: {'users', 'pairs', 'methods': {method: {metric: mean}}}}}.
  """
  table: dict[str, Any] = {}
  for kind, number in numbers.items():
    place = _slice_of(number)
    table[kind] = {}
    for value in np.unique(place).tolist():
      parts = {m: one.select(place == value) for m, one in ranks.items()}
      first = next(iter(parts.values()))
      table[kind][_name(value)] = {
          'users': len(first.users),
          'pairs': len(first.item),
          'methods': {
              method: metrics.summary(part.user_metrics(settings))
              for method, part in parts.items()
          },
      }
  return table


def _amount(side: problem_lib.Side) -> np.ndarray:
  """Values in the content of each row: int64 [N]."""
  sparse = scipy.sparse.csr_array(side.sparse)
  if sparse.nnz:
    return np.diff(sparse.indptr).astype(np.int64)
  amount = np.count_nonzero(side.dense, axis=1)
  if side.tokens.features:
    amount = amount + np.count_nonzero(side.tokens.weight, axis=1)
  return amount.astype(np.int64)


def _slice_of(number: np.ndarray) -> np.ndarray:
  return np.searchsorted(_EDGES, number, side='right') - 1


def _name(place: int) -> str:
  """'0', '2-4', '100+'."""
  low = _EDGES[place]
  if place + 1 == len(_EDGES):
    return f'{low}+'
  high = _EDGES[place + 1] - 1
  return f'{low}' if low == high else f'{low}-{high}'
