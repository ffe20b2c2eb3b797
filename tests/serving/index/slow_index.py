# SPDX-License-Identifier: Apache-2.0
"""An index of plain dictionaries and loops, to compare with."""

import numpy as np
import scipy.sparse

from dropoutnet_jax.model import embeddings

RANK, TERMS = 3, 5


def embedding(dense, sparse=None) -> embeddings.Embedding:
  """Of rows [N, R], and [N, T] or None."""
  if sparse is not None:
    sparse = embeddings.sparse_rows(
        scipy.sparse.csr_array(np.asarray(sparse, np.float32))
    )
  return embeddings.Embedding(np.asarray(dense, np.float32), sparse)


def draw(rng, number, is_sparse=True) -> embeddings.Embedding:
  """Small whole numbers: many scores are equal, and all of them exact."""
  dense = rng.integers(-2, 3, (number, RANK))
  sparse = rng.integers(0, 3, (number, TERMS)) * (
      rng.random((number, TERMS)) < 0.4
  )
  return embedding(dense, sparse if is_sparse else None)


def rows(found: embeddings.Embedding) -> np.ndarray:
  """Both parts beside each other: float64 [N, R + T]."""
  parts = [np.asarray(found.dense, np.float64)]
  if found.sparse is not None:
    wide = np.zeros((len(parts[0]), found.sparse.num_columns))
    sparse = found.sparse
    row, column, value = map(
        np.asarray, (sparse.row, sparse.column, sparse.value)
    )
    there = value != 0  # an empty table has padding too
    np.add.at(wide, (row[there], column[there]), value[there])
    parts.append(wide)
  return np.hstack(parts)


class SlowIndex:
  """`protocol.Index` in a dozen lines."""

  def __init__(self, ids, items):
    self.items = {}
    self.upsert(ids, items)

  def upsert(self, ids, items):
    for name, row in zip(ids, rows(items), strict=True):
      self.items.pop(name, None)
      self.items[name] = row

  def delete(self, ids):
    return sum(self.items.pop(name, None) is not None for name in set(ids))

  def search(self, users, k, *, exclude=None, allow=None):
    """Lists of (id, score)."""
    lists = []
    for number, user in enumerate(rows(users)):
      scored = [
          (name, float(user @ row))
          for name, row in self.items.items()
          if (allow is None or name in allow)
          and (exclude is None or name not in exclude[number])
      ]
      scored.sort(key=lambda pair: -pair[1])
      lists.append(scored[:k])
    return lists
