# SPDX-License-Identifier: Apache-2.0
"""Scores that lie on many devices, and what is asked of them.

Users are split over one axis of the mesh, candidates over the other. Ranks of
held-out pairs, the best of each user and the scores of single pairs are found
where the scores are; between devices travel a few numbers for each user and
pair, and k candidates of each user, never a row of scores.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropoutnet_jax import parallel
from dropoutnet_jax import table_shards as shards
from dropoutnet_jax.evaluation import metrics
from dropoutnet_jax.evaluation import rank_counts


@dataclasses.dataclass(frozen=True, eq=False)
class SplitScores:
  """Scores of a chunk of users, on all processes of a run.

  All of them must ask the same in the same order, and all get the answer.

  Attributes:
    values: float32 [C + padding, I + padding], laid out as `shards.SCORES`.
    shape: (C, I).
    mesh: of the devices.
  """

  values: jax.Array
  shape: tuple[int, int]
  mesh: parallel.Mesh

  def rank_intervals(
      self,
      row: np.ndarray,
      column: np.ndarray,
      allowed: np.ndarray | None = None,
      tolerance: float = 1e-6,
  ) -> metrics.RankIntervals:
    """As `metrics.rank_intervals` of the whole."""
    row, column = np.asarray(row), np.asarray(column)
    metrics.check_pairs(self.shape, row, column, allowed)
    pairs = self._pairs(row, column)
    counts, num_not_finite = _rank(
        self.values,
        pairs.placed,
        self._allowed(allowed),
        (pairs.longest, self.shape[1], tolerance),
        self.mesh,
    )
    greater, tied = pairs.take(counts)
    return metrics.RankIntervals(greater, tied, int(num_not_finite))

  def best(self, allowed: np.ndarray | None, k: int) -> np.ndarray:
    """Columns int32 [C, k] of the highest scores, -1 for none.

    Equal ones in the order of the columns.
    """
    found = _best(
        self.values, self._allowed(allowed), self.shape[1], k, self.mesh
    )
    return np.asarray(found)[: self.shape[0]]

  def at(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Scores float32 [N] of pairs."""
    metrics.check_pairs(self.shape, row, column, None)
    pairs = self._pairs(row, column)
    return pairs.take(_at(self.values, pairs.placed, self.mesh))[0]

  def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
    """All of them, on every process: where they are few."""
    del copy
    whole = np.asarray(parallel.local(self.values), dtype)
    return whole[: self.shape[0], : self.shape[1]]

  def _pairs(self, row: np.ndarray, column: np.ndarray) -> '_Pairs':
    num_parts = parallel.num_parts(self.mesh)
    return _Pairs(row, column, len(self.values) // num_parts, self.mesh)

  def _allowed(self, allowed: np.ndarray | None) -> jax.Array | None:
    """bool like the values; what padding has does not matter."""
    if allowed is None:
      return None
    widths = [(0, a - b) for a, b in zip(self.values.shape, allowed.shape)]
    return shards.put_parts(np.pad(allowed, widths), shards.SCORES, self.mesh)


class _Pairs:
  """Pairs [N] of a chunk, sorted by the devices that have their users.

  Attributes:
    placed: int32 [parts, 2, P], row among those of the part, and column.
    longest: the most real pairs of a part.
  """

  def __init__(
      self,
      row: np.ndarray,
      column: np.ndarray,
      rows_of_part: int,
      mesh: parallel.Mesh,
  ):
    self._part, num_parts = row // rows_of_part, parallel.num_parts(mesh)
    count = np.bincount(self._part, minlength=num_parts)
    order = np.argsort(self._part, kind='stable')
    self._place = np.empty(len(row), np.int64)
    first = np.repeat(np.cumsum(count) - count, count)
    self._place[order] = np.arange(len(row)) - first
    self.longest = int(count.max(initial=0))
    size = rank_counts.padded_size(self.longest)
    pairs = np.zeros((num_parts, 2, size), np.int32)
    pairs[self._part, 0, self._place] = row - self._part * rows_of_part
    pairs[self._part, 1, self._place] = column
    self.placed = shards.put_parts(pairs, shards.USERS, mesh)

  def take(self, found: jax.Array) -> np.ndarray:
    """[parts, M, P] that was found of them, in their own order: [M, N]."""
    return np.asarray(found)[self._part, :, self._place].T


def _whole_rows(x: jax.Array) -> jax.Array:
  """What each device has of its users, of all users on every device."""
  return jax.lax.all_gather(x, shards.USER_AXIS, axis=0, tiled=True)


def _allowed_candidates(
    scores: jax.Array, allowed: jax.Array | None, num_candidates: jax.Array
) -> jax.Array:
  """bool [C or 1, I'], without the padding, of one device's columns."""
  size = scores.shape[1]
  column = jax.lax.axis_index(shards.CANDIDATE_AXIS) * size + jnp.arange(size)
  is_candidate = (column < num_candidates)[None, :]
  return is_candidate if allowed is None else allowed & is_candidate


@functools.partial(jax.jit, static_argnames='mesh')
def _rank(
    scores: jax.Array,
    pairs: jax.Array,
    allowed: jax.Array | None,
    numbers: tuple[jax.Array, ...],
    mesh: parallel.Mesh,
) -> tuple[jax.Array, jax.Array]:
  """Counts int32 [parts, 2, P] and the number of scores that are not finite."""

  def own(
      scores: jax.Array,
      pairs: jax.Array,
      allowed: jax.Array | None,
      numbers: tuple[jax.Array, ...],
  ) -> tuple[jax.Array, jax.Array]:
    num_pairs, num_candidates, tolerance = numbers
    counts, num_wrong = rank_counts.count(
        scores,
        pairs[0],
        num_pairs,
        _allowed_candidates(scores, allowed, num_candidates),
        tolerance,
        shards.CANDIDATE_AXIS,
    )
    num_wrong = jax.lax.psum(num_wrong, shards.USER_AXIS)
    return _whole_rows(counts[None]), num_wrong

  return shards.on_parts(
      own,
      mesh,
      (shards.SCORES, shards.USERS, shards.SCORES, shards.WHOLE),
      shards.WHOLE,
  )(scores, pairs, allowed, numbers)


@functools.partial(jax.jit, static_argnames=('k', 'mesh'))
def _best(
    scores: jax.Array,
    allowed: jax.Array | None,
    num_candidates: jax.Array,
    k: int,
    mesh: parallel.Mesh,
) -> jax.Array:
  def own(
      scores: jax.Array, allowed: jax.Array | None, num_candidates: jax.Array
  ) -> jax.Array:
    is_allowed = _allowed_candidates(scores, allowed, num_candidates)
    scores = jnp.where(is_allowed, scores, -jnp.inf)
    value, column = jax.lax.top_k(scores, min(k, scores.shape[1]))
    column += jax.lax.axis_index(shards.CANDIDATE_AXIS) * scores.shape[1]
    value, column = (
        jax.lax.all_gather(x, shards.CANDIDATE_AXIS, axis=1, tiled=True)
        for x in (value, column)
    )
    # The first of equals is that of the lowest column.
    value, place = jax.lax.top_k(value, k)
    column = jnp.take_along_axis(column, place, axis=1)
    return _whole_rows(jnp.where(jnp.isfinite(value), column, -1))

  return shards.on_parts(
      own, mesh, (shards.SCORES, shards.SCORES, shards.WHOLE), shards.WHOLE
  )(scores, allowed, num_candidates)


@functools.partial(jax.jit, static_argnames='mesh')
def _at(scores: jax.Array, pairs: jax.Array, mesh: parallel.Mesh) -> jax.Array:
  """float32 [parts, 1, P]."""

  def own(scores: jax.Array, pairs: jax.Array) -> jax.Array:
    row, column = pairs[0]
    size = scores.shape[1]
    place = column - jax.lax.axis_index(shards.CANDIDATE_AXIS) * size
    is_here = (place >= 0) & (place < size)
    found = scores[row, jnp.clip(place, 0, size - 1)]
    found = jax.lax.psum(jnp.where(is_here, found, 0), shards.CANDIDATE_AXIS)
    return _whole_rows(found[None, None])

  return shards.on_parts(
      own, mesh, (shards.SCORES, shards.USERS), shards.WHOLE
  )(scores, pairs)
