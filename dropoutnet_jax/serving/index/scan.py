# SPDX-License-Identifier: Apache-2.0
"""The best items of each user, exactly: every item is scored.

Items are scored in blocks small enough for the cache. Of a block only those
scores matter that beat a user's k-th best so far, her floor, and these are few
after the first blocks: for k of J items about k log(J) each. They are looked
for among maxima of 16 items, so that a score costs little more than its product
and one comparison. What is kept is a little more than k, and then scored again
in double precision, so that rounding within a block decides nothing.

These products are those of NumPy's BLAS, to which SciPy adds the sparse ones;
for a single user they run at four times the rate of XLA's. A large batch over a
large catalogue without a sparse part goes through XLA first, see `maxima`.
"""

import dataclasses

import numpy as np
import scipy.sparse

from dropoutnet_jax.serving.index import maxima
from dropoutnet_jax.serving.index import pair_scores
from dropoutnet_jax.serving.index import vectors
from dropoutnet_jax.serving.index import workers

_USERS = 256  # at a time; at most 512, see _order
_SCORES = 1 << 20  # of a block: 4 MB, within a cache that all cores share
_PART = 1 << 17  # of them made at a time: 512 KB, within a cache of one core
_MOST_ITEMS = 1 << 14  # of a block
_GROUP = 16  # items of one maximum
_MANY = 32  # users from which on maxima are worth it
_WIDE = 1 << 24  # entries of the users' sparse parts as a table
_SLACK = 16  # kept beyond k
_MOST_BY_MAXIMA = 1024  # items asked for, and banned ones
_PENDING = 1 << 22  # entries that are kept at a time, at most


@dataclasses.dataclass(frozen=True, eq=False)
class Banned:
  """Pairs that must not be found, by ascending row.

  Attributes:
    row: int64 [P], of items.
    user: int64 [P].
  """

  row: np.ndarray
  user: np.ndarray

  def of_users(self, begin: int, end: int) -> 'Banned':
    """The pairs of users [begin, end), who count from 0 then."""
    mine = (self.user >= begin) & (self.user < end)
    return Banned(self.row[mine], self.user[mine] - begin)

  def of_rows(self, begin: int, end: int) -> 'Banned':
    """The pairs of items [begin, end), which count from 0 then."""
    part = slice(*np.searchsorted(self.row, [begin, end]))
    return Banned(self.row[part] - begin, self.user[part])

  def among(self, rows: np.ndarray) -> 'Banned':
    """The pairs of ascending rows [C], which count from 0 then."""
    place = np.searchsorted(rows, self.row)
    there = (
        rows[np.minimum(place, len(rows) - 1)] == self.row
        if len(rows)
        else np.zeros(len(place), bool)
    )
    return Banned(place[there], self.user[there])

  def most(self) -> int:
    """The largest number of pairs of a user."""
    return int(np.bincount(self.user).max(initial=0))

  def holds(self, rows: np.ndarray, num_rows: int) -> np.ndarray:
    """bool [N, C], whether rows [N, C] of users are among the pairs."""
    pair = self.user * num_rows + self.row
    asked = np.arange(len(rows))[:, None] * num_rows + rows
    return np.isin(asked, pair) & (rows >= 0)


def make_banned(row: np.ndarray, user: np.ndarray) -> Banned:
  """Pairs in any order."""
  order = np.argsort(row, kind='stable')
  return Banned(row[order], user[order])


def best(
    users: vectors.Vectors,
    items: vectors.Vectors,
    k: int,
    allowed: np.ndarray | None = None,
    banned: Banned | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Ranks all items for each user.

  Args:
    users: N.
    items: J, of the same widths.
    k: items per user; may exceed J.
    allowed: bool [J], items that may be found; None: all.
    banned: pairs that may not.

  Returns:
    Rows int64 [N, k] and scores float32 [N, k], descending, equal ones in the
    order of the rows; -1 and -inf fill up.
  """
  rows = np.full((len(users), k), -1, np.int64)
  score = np.full((len(users), k), -np.inf, np.float32)
  wanted = min(k, len(items))
  if not wanted:
    return rows, score
  size = _USERS
  if users.sparse is not None:
    size = max(min(size, _WIDE // max(users.sparse.shape[1], 1)), 1)
  for begin in range(0, len(users), size):
    part = slice(begin, min(begin + size, len(users)))
    mine = None if banned is None else banned.of_users(part.start, part.stop)
    some = users.select(part)
    near = _nearest(some, items, wanted + _SLACK, allowed, mine)
    rows[part], score[part] = pair_scores.best(
        near, pair_scores.pair_scores(some, items, near), k
    )
  return rows, score


def _nearest(
    users: vectors.Vectors,
    items: vectors.Vectors,
    wanted: int,
    allowed: np.ndarray | None,
    banned: Banned | None,
) -> np.ndarray:
  """Rows int64 [N, C] of the `wanted` best or fewer, in no order; -1 fills."""
  is_large = len(items) >= maxima.LEAST and len(users) >= _MANY
  if is_large and users.sparse is None:
    found = _by_maxima(users, items, wanted, allowed, banned)
    if found is not None:
      return found
  return _joined(
      _scanned(users, items, wanted, allowed, banned), len(users), wanted
  )


def _by_maxima(
    users: vectors.Vectors,
    items: vectors.Vectors,
    wanted: int,
    allowed: np.ndarray | None,
    banned: Banned | None,
) -> np.ndarray | None:
  """`_nearest` for many users and items without a sparse part.

  Whole chunks by their maxima, the rest in blocks; None where that is no way.
  """
  end = len(items) // maxima.CHUNK * maxima.CHUNK
  more = 0 if banned is None else banned.of_rows(0, end).most()
  if wanted + more > _MOST_BY_MAXIMA:
    return None
  inside = None if allowed is None else allowed[:end]
  found = maxima.candidates(
      users.dense, items.dense[:end], wanted + more, inside
  )
  if found is None:
    return None
  kept = _Kept(_no_floors(len(users)), 0, wanted)
  kept.user, kept.row, kept.score = found
  if banned is not None:
    pair = banned.user * len(items) + banned.row
    good = ~np.isin(kept.user * len(items) + kept.row, pair)
    kept.user, kept.row, kept.score = (part[good] for part in found)
  parts = [kept]
  if end < len(items):
    rest = slice(end, len(items))
    pairs = None if banned is None else banned.of_rows(end, len(items))
    hidden = None if allowed is None else allowed[rest]
    for part in _scanned(users, items.select(rest), wanted, hidden, pairs):
      part.row += end
      parts.append(part)
  return _joined(parts, len(users), wanted)


def _scanned(
    users: vectors.Vectors,
    items: vectors.Vectors,
    wanted: int,
    allowed: np.ndarray | None,
    banned: Banned | None,
) -> list['_Kept']:
  """What each of several threads keeps of its blocks."""
  size = max(_GROUP, min(_SCORES // len(users) // _GROUP * _GROUP, _MOST_ITEMS))
  across = np.ascontiguousarray(users.dense.T)
  wide = None
  if users.sparse is not None:
    wide = np.ascontiguousarray(users.sparse.T.toarray())

  num_blocks = -(-len(items) // size)
  shared = np.full(
      (workers.number(num_blocks), len(users)), -np.inf, np.float32
  )

  def scan(number: int) -> '_Kept':
    kept = _Kept(shared, number, wanted)
    buffer = np.empty((min(size, len(items)), len(users)), np.float32)
    for begin in range(number * size, len(items), len(shared) * size):
      end = min(begin + size, len(items))
      score = buffer[: end - begin]
      highest = _products(items.dense[begin:end], across, score)
      is_changed = wide is not None
      if wide is not None:
        score += _sparse_rows(items, begin, end) @ wide
      if allowed is not None:
        hidden = ~allowed[begin:end]
        is_changed |= bool(hidden.any())
        score[hidden] = -np.inf
      if banned is not None:
        pairs = banned.of_rows(begin, end)
        is_changed |= len(pairs.row) > 0
        score[pairs.row, pairs.user] = -np.inf
      kept.add(score, _maxima(score) if is_changed else highest, begin)
    kept.prune()
    return kept

  return workers.share(scan, len(shared))


def _products(
    items: np.ndarray, across: np.ndarray, score: np.ndarray
) -> np.ndarray:
  """Writes the products of items [B, R] and users [R, N] into score [B, N].

  Returns:
    As `_maxima`, found while the products are in the nearest cache.
  """
  num_items, num_users = score.shape
  size = max(_PART // num_users // _GROUP, 1) * _GROUP
  parts = []
  for begin in range(0, num_items, size):
    part = score[begin : begin + size]
    np.matmul(items[begin : begin + size], across, out=part)
    parts.append(_maxima(part))
  return np.concatenate(parts)


def _maxima(score: np.ndarray) -> np.ndarray:
  """The highest of each whole group of rows [B, N]: [G, N].

  For few users G is 0: a maximum over groups of short rows costs more than it
  saves.
  """
  num_items, num_users = score.shape
  number = num_items // _GROUP if num_users >= _MANY else 0
  groups = score[: number * _GROUP].reshape(number, _GROUP, num_users)
  return np.maximum.reduce(groups, axis=1)


def _sparse_rows(
    items: vectors.Vectors, begin: int, end: int
) -> scipy.sparse.csr_array:
  """Rows [begin, end) without a copy of them."""
  assert items.sparse is not None
  sparse = items.sparse
  indptr = sparse.indptr[begin : end + 1]
  stored = slice(indptr[0], indptr[-1])
  return scipy.sparse.csr_array(
      (sparse.data[stored], sparse.indices[stored], indptr - indptr[0]),
      shape=(end - begin, sparse.shape[1]),
  )


def _no_floors(num_users: int) -> np.ndarray:
  """For a single thread, see `_Kept`."""
  return np.full((1, num_users), -np.inf, np.float32)


class _Kept:
  """The best so far of N users, among rows that come in ascending order.

  Several threads have one each. If each of W of them has wanted / W scores
  above some value, then that is a floor for all.
  """

  def __init__(self, shared: np.ndarray, number: int, wanted: int):
    """Is one of several.

    Args:
      shared: float32 [W, N], of each thread the score of its place wanted / W.
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
    self._is_first = True

  def add(self, score: np.ndarray, highest: np.ndarray, first: int) -> None:
    """Takes what beats the floors from a block of scores.

    Args:
      score: float32 [B, N].
      highest: of them, see `_maxima`.
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
  whole = len(highest) * _GROUP
  hit = np.flatnonzero(highest > floor)
  group, user = np.divmod(hit, num_users)
  # Places of the scores of each group that was hit, in the flat block.
  place = (group * (_GROUP * num_users) + user)[:, None] + (
      np.arange(_GROUP) * num_users
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


def _joined(parts: list[_Kept], num_users: int, wanted: int) -> np.ndarray:
  """Rows int64 [N, C] of the best of all parts; -1 fills up."""
  whole = _Kept(_no_floors(num_users), 0, wanted)
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
