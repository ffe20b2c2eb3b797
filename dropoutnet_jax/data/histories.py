# SPDX-License-Identifier: Apache-2.0
"""Histories: what each user liked, or who liked each item.

They are made from training pairs alone; whoever calls sees to that. Weights
are not part of a history: a like counts once. Leaving the pair being trained
on out of a mean is up to the user of the history. Histories are kept as rows
of different lengths: padded to the longest one, a popular item alone would
cost as much as if all items were popular.
"""

import dataclasses

import numpy as np
import scipy.sparse

from dropoutnet_jax.data import schema


@dataclasses.dataclass(frozen=True)
class History:
  """Histories of the N rows of one side.

  Attributes:
    partner: int32 [E], rows of the other side: those of the first row,
      ascending, then those of the second, and so on.
    count: int32 [N], how many of them each row has.
  """

  partner: np.ndarray
  count: np.ndarray

  def total(self, values: np.ndarray) -> np.ndarray:
    """Sum of the values [M, D] of each row's partners: float32 [N, D]."""
    members = scipy.sparse.csr_array(
        (np.ones(len(self.partner), np.float32), self.partner, self._starts()),
        shape=(len(self.count), len(values)),
    )
    return np.asarray(members @ values.astype(np.float32), np.float32)

  def padded(self) -> np.ndarray:
    """int32 [N, L]: each row's partners, then -1; L >= 1 is the longest."""
    longest = max(self.count.max(initial=0), 1)
    index = np.full((len(self.count), longest), -1, np.int32)
    row = np.repeat(np.arange(len(self.count)), self.count)
    index[row, np.arange(len(row)) - self._starts()[row]] = self.partner
    return index

  def bits(self, num_partners: int) -> np.ndarray:
    """uint32 [N, W]: bit p of a row says whether it has partner p."""
    words = np.zeros((len(self.count), -(-num_partners // 32)), np.uint32)
    row = np.repeat(np.arange(len(self.count)), self.count)
    bit = np.uint32(1) << (self.partner % 32).astype(np.uint32)
    np.bitwise_or.at(words, (row, self.partner // 32), bit)
    return words

  def _starts(self) -> np.ndarray:
    """int64 [N + 1], where each row's partners begin and the last ones end."""
    return np.concatenate([[0], np.cumsum(self.count, dtype=np.int64)])


def make_history(
    interactions: schema.Interactions,
    num_users: int,
    num_items: int,
    side: str,
) -> History:
  """Collects the partners of every row of one side.

  Args:
    interactions: training pairs; a pair occurs once.
    num_users: rows of the user table.
    num_items: rows of the item table.
    side: 'user' (liked items of each user) or 'item' (users of each item).

  Raises:
    ValueError: an unknown side.
  """
  if side not in ('user', 'item'):
    raise ValueError(f"side must be 'user' or 'item': {side!r}")
  row, partner = interactions.user, interactions.item
  num_rows = num_users
  if side == 'item':
    row, partner, num_rows = partner, row, num_items
  order = np.lexsort((partner, row))
  count = np.bincount(row, minlength=num_rows).astype(np.int32)
  return History(partner[order].astype(np.int32), count)


def latest(
    interactions: schema.Interactions, max_length: int
) -> schema.Interactions:
  """At most so many pairs of each user, in their order.

  The latest where pairs have times, else (and among equal times) a random
  subset that is the same in every run. Means over histories of both sides must
  come from the same pairs, or a pair could be left out of a mean that it is no
  part of.

  Args:
    interactions: pairs; a pair occurs once.
    max_length: pairs that a user keeps.

  Raises:
    ValueError: max_length below 1.
  """
  if max_length < 1:
    raise ValueError(f'max_length must be at least 1: {max_length}')
  user = interactions.user
  # Sorted by user, then by age, then by chance: the first ones are kept.
  chance = np.random.default_rng(0).permutation(user.size)
  age = chance if interactions.time is None else -interactions.time
  order = np.lexsort((chance, age, user))
  rank = np.arange(user.size) - np.searchsorted(user[order], user[order])
  return interactions.select(np.sort(order[rank < max_length]))
