# SPDX-License-Identifier: Apache-2.0
"""The few scores of blocks that can be among a user's best.

Of a block only those scores matter that beat a user's k-th best so far, her
floor, and these are few after the first blocks: for k of J items about
k log(J) each. They are looked for among the maxima of 16 items.
"""

import numpy as np

GROUP = 16  # items of one maximum
MANY = 32  # users from which on maxima are worth it
_PENDING = 1 << 22  # entries that are kept at a time, at most


def maxima(score: np.ndarray) -> np.ndarray:
  """The highest of each whole group of rows [B, N]: [G, N].

  For few users G is 0: a maximum over groups of short rows costs more than it
  saves.
  """
  num_items, num_users = score.shape
  number = num_items // GROUP if num_users >= MANY else 0
  groups = score[: number * GROUP].reshape(number, GROUP, num_users)
  return np.maximum.reduce(groups, axis=1)


def no_floors(num_users: int) -> np.ndarray:
  """For a single thread, see `Kept`."""
  return np.full((1, num_users), -np.inf, np.float32)


class Kept:
  """The best so far of N users, among rows that come in ascending order.

  Several threads have one each. If each of W of them has wanted / W scores
  above some value, then that is a floor for all.
  """

  def __init__(self, shared: np.ndarray, number: int, wanted: int):
    """Is one of several.

    Args:
      shared: float32 [W, N], of each thread the score of its place wanted / W;
        at first -inf, or what `wanted` of other rows reach.
      number: of this one, which writes a row of it.
      wanted: to keep of each user.
    """
    num_users = shared.shape[1]
    self.wanted = wanted
    self.user = np.empty(0, np.int64)
    self.row = np.empty(0, np.int64)
    self.score = np.empty(0, np.float32)
    self._floor = np.full(num_users, -np.inf, np.float32)
    self._shared, self._mine = shared, shared[number]
    self._pending: list[tuple[np.ndarray, ...]] = []
    self._number = 0
    self._limit = min(num_users * wanted, _PENDING)
    self._is_first = bool(np.isneginf(shared).any())

  def add(self, score: np.ndarray, highest: np.ndarray, first: int) -> None:
    """Takes what beats the floors from a block of scores.

    Args:
      score: float32 [B, N].
      highest: of them, see `maxima`.
      first: row of the first.
    """
    # Of equal scores the first row counts: later ones of this thread do not,
    # but those of another may lie before it.
    others = np.nextafter(self._shared.min(axis=0), np.float32(-np.inf))
    floor = np.maximum(self._floor, others)
    is_first, self._is_first = self._is_first, False
    if is_first and len(score) > self.wanted:
      # All of a first block beat no floor; its own best make one.
      place = len(score) - self.wanted
      least = np.partition(score, place, axis=0)[place]
      floor = np.maximum(floor, np.nextafter(least, np.float32(-np.inf)))
    row, user, value = _above(score, highest, floor)
    self._pending.append((user, row + first, value))
    self._number += len(row)
    if is_first or self._number > self._limit:
      self.prune()

  def prune(self) -> None:
    """Cuts to the `wanted` best of each user, and lifts the floors."""
    pending = [(self.user, self.row, self.score), *self._pending]
    self._pending, self._number = [], 0
    user, row, score = (np.concatenate(part) for part in zip(*pending))
    order = _order(user, score)
    sorted_user = user[order]
    begin = np.searchsorted(sorted_user, np.arange(len(self._floor)))
    rank = np.arange(len(order)) - begin[sorted_user]
    of_all = -(-self.wanted // len(self._shared))
    for place, floor in ((self.wanted, self._floor), (of_all, self._mine)):
      last = order[rank == place - 1]
      floor[user[last]] = score[last]
    # In the order of rows again: those that come are higher.
    order = np.sort(order[rank < self.wanted])
    self.user, self.row, self.score = user[order], row[order], score[order]


def _above(
    score: np.ndarray, highest: np.ndarray, floor: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Scores [B, N] above floors [N]: rows, those of a user ascending; users;
  and the scores.
  """
  num_items, num_users = score.shape
  flat = score.reshape(-1)
  whole = len(highest) * GROUP
  hit = np.flatnonzero(highest > floor)
  group, user = np.divmod(hit, num_users)
  # Places of the scores of each group that was hit, in the flat block.
  place = (group * (GROUP * num_users) + user)[:, None] + (
      np.arange(GROUP) * num_users
  )
  place = place[flat.take(place) > floor[user][:, None]]
  if whole < num_items:
    rest = np.flatnonzero(score[whole:] > floor) + whole * num_users
    place = np.concatenate([place, rest])
  row, user = np.divmod(place, num_users)
  return row, user, flat.take(place)


def _order(user: np.ndarray, score: np.ndarray) -> np.ndarray:
  """Places by user, then by descending score; the first of equals first.

  One sort of whole numbers, which is the fastest there is: user (9 bits),
  score (32) and place (23).
  """
  if len(user) >= 1 << 23:
    return np.lexsort((-score, user))
  key = user.astype(np.uint64) << np.uint64(55)
  key |= _descending(score).astype(np.uint64) << np.uint64(23)
  key |= np.arange(len(key), dtype=np.uint64)
  key.sort()
  return (key & np.uint64((1 << 23) - 1)).astype(np.int64)


def _descending(score: np.ndarray) -> np.ndarray:
  """uint32, smaller the higher the score; -0 and 0 are one."""
  bits = (score + np.float32(0)).view(np.uint32)
  return np.where(bits >> 31, bits, ~(bits | np.uint32(1 << 31)))


def joined(parts: list[Kept], num_users: int, wanted: int) -> np.ndarray:
  """Rows int64 [N, C] of the best of all parts; -1 fills up."""
  whole = Kept(no_floors(num_users), 0, wanted)
  user, row, score = (
      np.concatenate([getattr(part, name) for part in parts])
      for name in ('user', 'row', 'score')
  )
  order = np.argsort(row, kind='stable')
  whole.user, whole.row, whole.score = user[order], row[order], score[order]
  whole.prune()
  order = np.argsort(whole.user, kind='stable')
  user = whole.user[order]
  place = np.arange(len(user)) - np.searchsorted(user, user)
  rows = np.full((num_users, place.max(initial=-1) + 1), -1, np.int64)
  rows[user, place] = whole.row[order]
  return rows
