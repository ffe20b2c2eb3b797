# SPDX-License-Identifier: Apache-2.0
"""The sparse part of items as an inverted list per tag or word.

A query adds up the lists of its strongest terms alone: the others, of many
items and little weight, cost most and decide least. What is found is scored
again, whole, by whoever asks.
"""

import dataclasses

import numpy as np
import scipy.sparse

_MOST = 1 << 24  # entries of lists that are added up at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Postings:
  """Inverted lists of J items over T terms.

  Attributes:
    lists: csr_array float32 [T, J].
    strongest: float32 [T], the largest absolute value of each list.
  """

  lists: scipy.sparse.csr_array
  strongest: np.ndarray

  def candidates(
      self,
      users: scipy.sparse.csr_array,
      terms: int,
      number: int,
      allowed: np.ndarray | None,
  ) -> np.ndarray:
    """Items of the largest sums over each user's strongest terms.

    Args:
      users: csr_array float32 [N, T].
      terms: of each user that count: those that can add most.
      number: of candidates.
      allowed: bool [J], items that may be found; None: all.

    Returns:
      int64 [N, number]; -1 fills up.
    """
    found = np.full((users.shape[0], number), -1, np.int64)
    lengths = np.diff(self.lists.indptr)
    for user in range(users.shape[0]):
      part = slice(*users.indptr[user : user + 2])
      column, value = users.indices[part], users.data[part]
      gain = np.abs(value) * self.strongest[column]
      order = np.argsort(-gain, kind='stable')[:terms]
      # Terms that all items have may be long; the strongest come first.
      order = order[np.cumsum(lengths[column[order]]) <= _MOST]
      some = scipy.sparse.csr_array(
          (value[order], column[order], [0, len(order)]),
          shape=(1, users.shape[1]),
      )
      score = some @ self.lists
      row, total = score.indices, score.data
      if allowed is not None:
        kept = allowed[row]
        row, total = row[kept], total[kept]
      if len(row) > number:
        best = np.argpartition(-total, number - 1)[:number]
        row = row[best]
      found[user, : len(row)] = row
    return found


def make(items: scipy.sparse.csr_array) -> Postings:
  """Of items [J, T]."""
  lists = scipy.sparse.csr_array(items.T.tocsr())
  largest = abs(lists).max(axis=1).toarray() if items.shape[0] else 0
  strongest = np.broadcast_to(np.ravel(largest), lists.shape[:1])
  return Postings(lists, np.asarray(strongest, np.float32))
