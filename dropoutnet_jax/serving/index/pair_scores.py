# SPDX-License-Identifier: Apache-2.0
"""Scores of chosen pairs, and the best of them.

Every kind of index ends here, so that all agree on the score of an item to the
last digit: sums in double precision, then rounded. Two items of the same
embedding have the same score, wherever they lie.
"""

import numpy as np

from dropoutnet_jax.serving.index import vectors
from dropoutnet_jax.serving.index import workers

_ENTRIES = 1 << 19  # of gathered items at a time: 4 MB in double precision


def pair_scores(
    users: vectors.Vectors, items: vectors.Vectors, rows: np.ndarray
) -> np.ndarray:
  """Scores of users [N] with items at rows [N, C] each: float32 [N, C].

  Args:
    users: N.
    items: J.
    rows: int [N, C]; -1 is no item and has -inf.
  """
  score = np.empty(rows.shape, np.float32)
  width = max(rows.shape[1] * items.dense.shape[1], 1)
  size = max(_ENTRIES // width, 1)

  def work(begin: int) -> None:
    part = slice(begin, begin + size)
    place = np.maximum(rows[part], 0)
    gathered = items.dense[place].astype(np.float64)
    user = users.dense[part].astype(np.float64)
    total = np.matmul(gathered, user[:, :, None])[:, :, 0]
    if users.sparse is not None and items.sparse is not None:
      total += _sparse(users, items, begin, place)
    # Adding 0 makes 0 of -0, which would come after it.
    score[part] = np.where(rows[part] >= 0, total + 0.0, -np.inf)

  workers.each(work, range(0, len(rows), size))
  return score


def _sparse(
    users: vectors.Vectors,
    items: vectors.Vectors,
    begin: int,
    place: np.ndarray,
) -> np.ndarray:
  """Sparse dot products of users from begin on with items [C, L]: float64."""
  assert users.sparse is not None and items.sparse is not None
  total = np.zeros(place.shape)
  wide = np.zeros(users.sparse.shape[1])
  sparse = items.sparse
  for number, rows in enumerate(place):
    mine = slice(*users.sparse.indptr[begin + number : begin + number + 2])
    column = users.sparse.indices[mine]
    if not len(column) or not len(rows):
      continue
    wide[column] = users.sparse.data[mine]
    first = sparse.indptr[rows].astype(np.int64)
    length = sparse.indptr[rows + 1] - first
    end = np.cumsum(length)
    at = np.arange(end[-1]) + np.repeat(first - (end - length), length)
    terms = sparse.data[at] * wide[sparse.indices[at]]
    owner = np.repeat(np.arange(len(rows)), length)
    total[number] = np.bincount(owner, terms, len(rows))
    wide[column] = 0
  return total


def best(
    rows: np.ndarray, score: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
  """The k best of candidates, each once.

  Args:
    rows: int [N, C], candidates, -1 for none; repeated ones are harmless.
    score: float32 [N, C].
    k: to keep.

  Returns:
    Rows int64 [N, k] and scores float32 [N, k], descending, equal ones in the
    order of rows; -1 and -inf fill up.
  """
  order = np.argsort(rows, axis=1, kind='stable')
  rows = np.take_along_axis(rows, order, 1)
  score = np.take_along_axis(score, order, 1)
  again = np.zeros(rows.shape, bool)
  again[:, 1:] = rows[:, 1:] == rows[:, :-1]
  score = np.where(again | (rows < 0), np.float32(-np.inf), score)
  order = np.argsort(-score, axis=1, kind='stable')[:, :k]
  found = np.full((len(rows), k), -1, np.int64)
  top = np.full((len(rows), k), -np.inf, np.float32)
  top[:, : order.shape[1]] = np.take_along_axis(score, order, 1)
  found[:, : order.shape[1]] = np.take_along_axis(rows, order, 1)
  found[np.isneginf(top)] = -1
  return found, top
