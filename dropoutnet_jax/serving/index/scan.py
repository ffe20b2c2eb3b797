# SPDX-License-Identifier: Apache-2.0
"""The best items of each user, exactly: every item is scored.

Items are scored in blocks small enough for the cache, of which little is looked
at twice, see `kept`. What is left is a little more than k, and scored again in
double precision, so that rounding within a block decides nothing: but for the
end of a list where more items than that are closer than single precision can
tell, as where large terms cancel.

These products are those of NumPy's BLAS, to which SciPy adds the sparse ones;
for a single user they run at four times the rate of XLA's. A large batch over a
large catalogue without a sparse part goes through XLA first, see `maxima`.
"""

import numpy as np
import scipy.sparse

from dropoutnet_jax.serving.index import banned as banned_lib
from dropoutnet_jax.serving.index import kept as kept_lib
from dropoutnet_jax.serving.index import maxima
from dropoutnet_jax.serving.index import pair_scores
from dropoutnet_jax.serving.index import vectors
from dropoutnet_jax.serving.index import workers

_USERS = 256  # at a time; at most 512, see kept.py
_SCORES = 1 << 20  # of a block: 4 MB, within a cache that all cores share
_PART = 1 << 17  # of them made at a time: 512 KB, within a cache of one core
_MOST_ITEMS = 1 << 14  # of a block, but
_OF_ONE = 1 << 16  # of a single user, whose scores are few
_WIDE = 1 << 24  # entries of the users' sparse parts as a table
_SLACK = 16  # kept beyond k
_MOST_BY_MAXIMA = 1024  # items asked for, and banned ones


def best(
    users: vectors.Vectors,
    items: vectors.Vectors,
    k: int,
    allowed: np.ndarray | None = None,
    banned: banned_lib.Banned | None = None,
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
    order of the rows; -1 and -inf fill up. Of more equal ones at the end of a
    list than `_SLACK`, single precision says which are in it.
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
    banned: banned_lib.Banned | None,
) -> np.ndarray:
  """Rows int64 [N, C] of the `wanted` best or fewer, in no order; -1 fills."""
  is_large = len(items) >= maxima.LEAST and len(users) >= kept_lib.MANY
  if is_large and users.sparse is None:
    found = _by_maxima(users, items, wanted, allowed, banned)
    if found is not None:
      return found
  return kept_lib.joined(
      _scanned(users, items, wanted, allowed, banned), len(users), wanted
  )


def _by_maxima(
    users: vectors.Vectors,
    items: vectors.Vectors,
    wanted: int,
    allowed: np.ndarray | None,
    banned: banned_lib.Banned | None,
) -> np.ndarray | None:
  """`_nearest` for many users and items without a sparse part.

  Whole chunks by their maxima, the rest in blocks; None where that is no way.
  """
  end = len(items) // maxima.CHUNK * maxima.CHUNK
  more = 0 if banned is None else banned.of_rows(0, end).most()
  if wanted + more > _MOST_BY_MAXIMA:
    return None
  inside = None if allowed is None else allowed[:end]
  made = maxima.candidates(
      users.dense, items.dense[:end], wanted + more, inside
  )
  if made is None:
    return None
  *found, floor = made
  kept = kept_lib.Kept(kept_lib.no_floors(len(users)), 0, wanted)
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
    others = items.select(rest)
    for part in _scanned(users, others, wanted, hidden, pairs, floor):
      part.row += end
      parts.append(part)
  return kept_lib.joined(parts, len(users), wanted)


def _scanned(
    users: vectors.Vectors,
    items: vectors.Vectors,
    wanted: int,
    allowed: np.ndarray | None,
    banned: banned_lib.Banned | None,
    floor: np.ndarray | float = -np.inf,
) -> list[kept_lib.Kept]:
  """What each of several threads keeps of its blocks.

  Above floors, where `wanted` of other rows are known to reach these.
  """
  most = max(_MOST_ITEMS, _OF_ONE // len(users))
  size = max(
      kept_lib.GROUP,
      min(_SCORES // len(users) // kept_lib.GROUP * kept_lib.GROUP, most),
  )
  across = np.ascontiguousarray(users.dense.T)
  wide = None
  if users.sparse is not None:
    wide = np.ascontiguousarray(users.sparse.T.toarray())

  num_blocks = -(-len(items) // size)
  shared = np.empty((workers.number(num_blocks), len(users)), np.float32)
  shared[:] = floor

  # Threads take from it in turns, each what is next, in ascending order: one
  # that waits for another program delays none.
  blocks = iter(range(0, len(items), size))

  def scan(number: int) -> kept_lib.Kept:
    kept = kept_lib.Kept(shared, number, wanted)
    buffer = np.empty((min(size, len(items)), len(users)), np.float32)
    for begin in blocks:
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
      kept.add(score, kept_lib.maxima(score) if is_changed else highest, begin)
    kept.prune()
    return kept

  return workers.share(scan, len(shared))


def _products(
    items: np.ndarray, across: np.ndarray, score: np.ndarray
) -> np.ndarray:
  """Writes the products of items [B, R] and users [R, N] into score [B, N].

  Returns:
    As `kept.maxima`, found while the products are in the nearest cache.
  """
  num_items, num_users = score.shape
  size = max(_PART // num_users // kept_lib.GROUP, 1) * kept_lib.GROUP
  parts = []
  for begin in range(0, num_items, size):
    part = score[begin : begin + size]
    np.matmul(items[begin : begin + size], across, out=part)
    parts.append(kept_lib.maxima(part))
  return np.concatenate(parts)


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
