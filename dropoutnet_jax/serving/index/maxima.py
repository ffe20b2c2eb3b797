# SPDX-License-Identifier: Apache-2.0
"""Rows that may be among a user's best, by the maxima of groups of rows.

The best `wanted` items of a user lie in the `wanted` groups of the highest
maxima. So one compiled pass makes products, maxima of groups and maxima of
groups of these, while all is in the cache; the highest of the latter say which
of the former are looked at, and only the groups that matter are scored a second
time: for a large batch the fewest instructions there are.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropoutnet_jax.model import embeddings
from dropoutnet_jax.serving.index import workers

CHUNK = 1 << 14  # rows of one call, or
_LONG = 4  # times as many, where there are: one call has less to begin
LEAST = 1 << 16  # rows that are worth the compilation
_BLOCK = 1 << 11  # rows of a product: what it gives stays in the cache
GROUP = 16  # rows, and groups of a second level
_AT_ONCE = 96  # groups scored again at a time: 768 KB of 128 columns
_ENOUGH = 8  # maxima per item asked for: few hide another item
_MANY_TIMES = 4  # groups, and rows, per item asked for: more of them are ties
_ROUNDING = 1e-5  # of the largest score
_ALIGNED = 64  # bytes, where XLA reads NumPy's memory in place


def candidates(
    users: np.ndarray,
    items: np.ndarray,
    wanted: int,
    allowed: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
  """All rows of whole chunks that are as good as a user's `wanted` best.

  Args:
    users: float32 [N, R].
    items: float32 [J, R], whole chunks.
    wanted: of each user.
    allowed: bool [J], rows that may be found; None: all.

  Returns:
    Users and rows int64 [C], rows ascending, and float32 scores [C]; and of
    each user a score that `wanted` of them are above, float32 [N]. None where
    far too many are equally good.
  """
  width = max(1 << (len(users) - 1).bit_length(), 1)  # few programs
  padded = np.zeros((width, users.shape[1]), np.float32)
  padded[: len(users)] = users
  asked = jnp.asarray(padded)
  starts = list(_starts(len(items)))
  chunks = [slice(*ends) for ends in zip(starts, [*starts[1:], len(items)])]
  left = iter(range(len(chunks)))
  levels: list[Any] = [None] * len(chunks)

  # XLA splits products over all cores but not the maxima, during which another
  # thread's product has the others.
  def work(_: int) -> None:
    for number in left:
      part, hidden = chunks[number], None
      if allowed is not None and not allowed[part].all():
        hidden = jnp.where(jnp.asarray(allowed[part]), 0.0, -jnp.inf)
      made = _group_maxima(asked, _on_device(items[part]), hidden)
      levels[number] = [np.asarray(level)[:, : len(users)] for level in made]

  workers.share(work, workers.number(len(chunks)))
  floor = np.nextafter(_floor(levels, wanted), np.float32(-np.inf))
  hits = workers.each(lambda level: _above(level[0], level[1], floor), levels)
  most = _MANY_TIMES * wanted * len(users)
  if sum(len(group) for group, _ in hits) > most:
    return None
  first = np.asarray(starts) // GROUP
  group = np.concatenate([n + part[0] for n, part in zip(first, hits)])
  user = np.concatenate([part[1] for part in hits])
  scored = _scored(users, items, group, user, floor, allowed, most)
  if scored is None:
    return None
  number, place, score = scored
  row = group[number] * GROUP + place
  user = user[number]
  order = np.argsort(row, kind='stable')
  return user[order], row[order], score[order], floor


def _starts(number: int) -> Iterator[int]:
  """First rows of the calls for so many rows, whole chunks."""
  begin = 0
  while begin < number:
    yield begin
    is_long = number - begin >= _LONG * CHUNK
    begin += _LONG * CHUNK if is_long else CHUNK


def _on_device(items: np.ndarray) -> jax.Array:
  """The same memory where XLA can read it, else a copy."""
  is_aligned = not items.ctypes.data % _ALIGNED
  if is_aligned and items.flags.writeable and jax.default_backend() == 'cpu':
    return jnp.from_dlpack(items)
  return jnp.asarray(items)


@jax.jit
def _group_maxima(
    users: jax.Array, items: jax.Array, hidden: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
  """Highest scores of groups of rows of a chunk, and of groups of these.

  Args:
    users: [N, R].
    items: [CHUNK, R].
    hidden: [CHUNK], 0 or -inf, added to the scores of a row; or None.

  Returns:
    float32 [CHUNK / G, N] and [CHUNK / G / G, N].
  """
  size = min(_BLOCK, len(items))

  def of_block(
      _: None, block: tuple[jax.Array, jax.Array | None]
  ) -> tuple[None, jax.Array]:
    rows, less = block
    score = embeddings.dense_scores(rows, users)
    if less is not None:
      score = score + less[:, None]
    return None, _highest(score)

  blocks = items.reshape(-1, size, items.shape[1])
  less = None if hidden is None else hidden.reshape(-1, size)
  _, highest = jax.lax.scan(of_block, None, (blocks, less))
  highest = highest.reshape(-1, len(users))
  # Not within a block: XLA would go over all its scores once more for it.
  return highest, _highest(highest)


def _highest(score: jax.Array) -> jax.Array:
  """Of groups of rows: [B, N] to [B / G, N]."""
  grouped = score.reshape(-1, GROUP, score.shape[1])
  found = grouped[:, 0]
  # XLA's own reduction takes twice as long, and its maximum looks for NaNs.
  for place in range(1, GROUP):
    other = grouped[:, place]
    found = jnp.where(found >= other, found, other)
  return found


def _floor(levels: list[Any], wanted: int) -> np.ndarray:
  """float32 [N], at most the `wanted`-th highest of all maxima.

  It is that of the second level where these are many, and of the highest of
  several of these where they are very many: each is the score of an item of its
  own.
  """
  number = sum(len(second) for _, second in levels)
  is_enough = number >= _ENOUGH * wanted
  whole = np.concatenate([part[int(is_enough)] for part in levels])
  fold = len(whole) // (_ENOUGH * wanted)
  if fold > 1:
    end = len(whole) // fold * fold
    folded = whole[:end].reshape(-1, fold, whole.shape[1]).max(axis=1)
    whole = np.concatenate([folded, whole[end:]])
  place = len(whole) - wanted
  if place < 0:
    return np.full(whole.shape[1], -np.inf, np.float32)
  return np.partition(whole.T, place, axis=1)[:, place]


def _above(
    maxima: np.ndarray, second: np.ndarray, floor: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Groups and users, int64 [H] each, whose maxima [M, N] are above floors."""
  outer, user = np.divmod(np.flatnonzero(second > floor), len(floor))
  inside = maxima.reshape(len(second), GROUP, -1)[outer, :, user]
  number, place = np.nonzero(inside > floor[user][:, None])
  return outer[number] * GROUP + place, user[number]


def _scored(
    users: np.ndarray,
    items: np.ndarray,
    group: np.ndarray,
    user: np.ndarray,
    floor: np.ndarray,
    allowed: np.ndarray | None,
    most: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
  """Rows of groups [H] of users [H] that are above their floors.

  And the best of each group in any case: it was above by a sum in another
  order, and where large terms cancel, what that changes has no bound. So each
  user has as many rows as groups, however scores were rounded.

  Returns:
    For each of C rows: which of H, its place in the group, its score. None
    where a thread has more than its share of `most`.
  """
  grouped = items.reshape(-1, GROUP, items.shape[1])
  hidden = None if allowed is None else ~allowed.reshape(-1, GROUP)
  starts = range(0, len(group), _AT_ONCE)
  threads = workers.number(len(starts))

  def work(thread: int) -> list[tuple[np.ndarray, ...]] | None:
    found: list[tuple[np.ndarray, ...]] = []
    left = most // threads
    for begin in starts[thread::threads]:
      if left < 0:
        return None
      part = slice(begin, begin + _AT_ONCE)
      rows, mine = grouped[group[part]], users[user[part]]
      score = np.matmul(rows, mine[:, :, None])[:, :, 0]
      least = floor[user[part]] - _ROUNDING * np.abs(score).max(initial=0)
      if hidden is not None:
        score[hidden[group[part]]] = -np.inf
      least = np.minimum(least, score.max(axis=1))[:, None]
      number, place = np.nonzero((score >= least) & (score > -np.inf))
      found.append((number + begin, place, score[number, place]))
      left -= len(number)
    return found

  parts: list[tuple[np.ndarray, ...]] = []
  for found in workers.share(work, threads):
    if found is None:
      return None
    parts += found
  empty = (
      np.empty(0, np.int64),
      np.empty(0, np.int64),
      np.empty(0, np.float32),
  )
  number, place, score = (np.concatenate(part) for part in zip(empty, *parts))
  return number, place, score
