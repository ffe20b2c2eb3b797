# SPDX-License-Identifier: Apache-2.0
"""Ids of values: by a vocabulary, by hashing, or as the numbers that they are.

Id 0 stands for missing and unknown alike; what is known has ids from 1 on.
Values are str, or None where missing; whole numbers come as their decimal
digits, as `columns.read` gives them. Every function is pure, so that one-hot
columns, embeddings and a model that serves new rows agree.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import hashlib
import re

import numpy as np

_WHOLE = re.compile(r'\d{1,18}', re.ASCII)


def hashed_ids(values: Iterable[str | None], num_buckets: int) -> np.ndarray:
  """Hashes values to buckets: the same ones on every machine, in every run.

  The first 64 bits of BLAKE2b of the UTF-8 text, modulo the number of buckets.

  Args:
    values: N strings, None where missing.
    num_buckets: at least 1.

  Returns:
    int64 [N], from 1 to num_buckets; 0 where missing.

  Raises:
    ValueError: there is no bucket.
  """
  _check_buckets(num_buckets)
  return _map_distinct(values, lambda value: 1 + _hash(value) % num_buckets)


def bucket_ids(values: Iterable[str | None], num_buckets: int) -> np.ndarray:
  """The whole number v in [0, num_buckets) has the id v + 1.

  Args:
    values: N strings of decimal digits, None where missing.
    num_buckets: at least 1.

  Returns:
    int64 [N], from 1 to num_buckets; 0 where missing, out of range or no whole
    number.

  Raises:
    ValueError: there is no bucket.
  """
  _check_buckets(num_buckets)

  def bucket(value: str) -> int:
    number = int(value) if _WHOLE.fullmatch(value) else num_buckets
    return number + 1 if number < num_buckets else 0

  return _map_distinct(values, bucket)


def vocabulary_ids(
    values: Iterable[str | None], vocabulary: Sequence[str] | Mapping[str, int]
) -> np.ndarray:
  """The value at position p of a vocabulary has the id p + 1.

  Args:
    values: N strings, None where missing.
    vocabulary: distinct values, or their ids where many calls share them.

  Returns:
    int64 [N], from 1 on; 0 where missing or not in the vocabulary.

  Raises:
    ValueError: a value is twice in the vocabulary.
  """
  id_of = vocabulary if isinstance(vocabulary, Mapping) else number(vocabulary)
  return _map_distinct(values, lambda value: id_of.get(value, 0))


def number(vocabulary: Sequence[str]) -> dict[str, int]:
  """Ids of the values of a vocabulary, from 1 on, in its order.

  Raises:
    ValueError: a value is in it twice.
  """
  id_of = {value: position + 1 for position, value in enumerate(vocabulary)}
  if len(id_of) < len(vocabulary):
    raise ValueError('A value is in the vocabulary twice.')
  return id_of


def _map_distinct(
    values: Iterable[str | None], to_id: Callable[[str], int]
) -> np.ndarray:
  """Looks every distinct value up once; missing ones are 0."""
  known: dict[str | None, int] = {None: 0}
  ids = []
  for value in values:
    found = known.get(value)
    if found is None:
      found = known[value] = to_id(value)  # type: ignore[arg-type]
    ids.append(found)
  return np.array(ids, np.int64)


def _hash(value: str) -> int:
  text = value.encode('utf-8', 'surrogatepass')
  return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), 'little')


def _check_buckets(num_buckets: int) -> None:
  if num_buckets < 1:
    raise ValueError(f'There are {num_buckets} buckets, but one is needed.')
