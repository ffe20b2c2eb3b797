# SPDX-License-Identifier: Apache-2.0
"""Histories: what each user liked, or who liked each item, as padded rows.

They are made from training pairs alone; whoever calls sees to that. Weights
are not part of a history: a like counts once. Leaving the pair being trained
on out of a mean is up to the user of the history.
"""

import dataclasses

import numpy as np
import scipy.sparse

from dropoutnet_jax.data import schema


@dataclasses.dataclass(frozen=True)
class History:
  """Padded histories of the N rows of one side.

  Attributes:
    index: int32 [N, L], rows of the other side, ascending, then -1.
    count: int32 [N], how many of them there are.
  """

  index: np.ndarray
  count: np.ndarray


def make_history(
    interactions: schema.Interactions,
    num_users: int,
    num_items: int,
    side: str,
    max_length: int | None = None,
) -> History:
  """Collects the partners of every row of one side.

  Args:
    interactions: training pairs; a pair occurs once.
    num_users: rows of the user table.
    num_items: rows of the item table.
    side: 'user' (liked items of each user) or 'item' (users of each item).
    max_length: keeps this many partners per row: the latest where pairs have
      times, else (and among equal times) a random subset that is the same in
      every run. None keeps all.

  Returns:
    N is the rows of `side`; L the longest history, at least 1.

  Raises:
    ValueError: an unknown side, or max_length below 1.
  """
  if side not in ('user', 'item'):
    raise ValueError(f"side must be 'user' or 'item': {side!r}")
  if max_length is not None and max_length < 1:
    raise ValueError(f'max_length must be at least 1: {max_length}')
  row, partner = interactions.user, interactions.item
  num_rows = num_users
  if side == 'item':
    row, partner, num_rows = partner, row, num_items
  if max_length is not None:
    # Sorted by row, then by age, then by chance: the first ones are kept.
    chance = np.random.default_rng(0).permutation(row.size)
    age = chance if interactions.time is None else -interactions.time
    order = np.lexsort((chance, age, row))
    of_row = row[order]
    rank = np.arange(row.size) - np.searchsorted(of_row, of_row)
    order = order[rank < max_length]
    row, partner = row[order], partner[order]

  order = np.lexsort((partner, row))
  row, partner = row[order], partner[order]
  count = np.bincount(row, minlength=num_rows).astype(np.int32)
  index = np.full((num_rows, max(count.max(initial=0), 1)), -1, np.int32)
  index[row, np.arange(row.size) - np.searchsorted(row, row)] = partner
  return History(index, count)


def mean_of_history(history: History, values: np.ndarray) -> np.ndarray:
  """Mean of the values of each row's partners; 0 for an empty history.

  Args:
    history: of N rows.
    values: float32 [M, D], one row per row of the other side.

  Returns:
    float32 [N, D].
  """
  partner = history.index[history.index >= 0]  # row by row, without padding
  start = np.concatenate([[0], np.cumsum(history.count)])
  members = scipy.sparse.csr_array(
      (np.ones(partner.size, np.float32), partner, start),
      shape=(len(history.count), len(values)),
  )
  count = np.maximum(history.count, 1).astype(np.float32)
  return members @ values / count[:, None]
