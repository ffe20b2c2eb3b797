# SPDX-License-Identifier: Apache-2.0
"""How many candidates score more than a held-out pair, and how many the same.

The counting behind `metrics.rank_intervals`, which says what is counted. Scores
may be all of a chunk of users or one device's columns of them: what is asked of
all candidates is a largest or smallest number or a sum over devices, and of no
more than a number for each user or pair.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_SMALLEST_PADDING = 2**14  # pairs; padding costs memory, not time
_BLOCK_SCORES = 2**18  # scores compared at once: they should fit a cache
_LOWEST, _HIGHEST = np.iinfo(np.int32).min, np.iinfo(np.int32).max
_ALL_BUT_SIGN = 0x7FFFFFFF  # of the bits of a float32
_INFINITE = 0x7F800000  # its bits; NaNs are above
_Fold = tuple[Callable[[Any, Any], jax.Array], int]  # operation, start
_MAX: _Fold = (jax.lax.max, _LOWEST)
_MIN: _Fold = (jax.lax.min, _HIGHEST)
_SUM: _Fold = (jax.lax.add, 0)
# From the numbers of one device to those of all that share the candidates.
_Across = Callable[[jax.Array], jax.Array]


def padded_size(num_pairs: int) -> int:
  """Pairs are padded to one of few sizes: each is compiled for."""
  size = _SMALLEST_PADDING
  while size < num_pairs:
    size *= 4
  return size


def count(
    scores: jax.Array,
    pairs: jax.Array,
    num_pairs: jax.Array,
    allowed: jax.Array | None,
    tolerance: jax.Array,
    axis: str | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Greater and tied, int32 [2, N], of the first num_pairs of pairs [2, N].

  Args:
    scores: [C, I]; of a mesh, the columns of one device.
    pairs: int32 [2, N], row and column; the column is that among all columns.
    num_pairs: how many are real.
    allowed: bool [C, I] as the scores, or None.
    tolerance: relative to the largest magnitude of a row.
    axis: of a mesh whose devices have the columns, in order; None for one.

  Returns:
    The counts, over all columns; and how many allowed scores are not finite.
  """
  scores = jnp.asarray(scores, jnp.float32)
  magnitude = _bits(scores) & _ALL_BUT_SIGN  # in the order of the magnitudes
  finite = magnitude < _INFINITE
  ranked = finite if allowed is None else finite & allowed
  wrong = ~finite if allowed is None else ~finite & allowed
  largest, num_wrong = _reduce_rows(
      (jnp.where(ranked, magnitude, 0), wrong), (_MAX, _SUM)
  )
  largest = _over(jax.lax.pmax, axis)(largest)
  reach = jax.lax.bitcast_convert_type(largest, jnp.float32) * tolerance
  top = jnp.where(ranked, _order_keys(scores + reach[:, None]), _LOWEST)
  own = jnp.where(ranked, _order_keys(scores), _LOWEST)
  own_top = _of_pairs(top, pairs, axis)
  # Pairs are taken in blocks: one [block, I] is all that exists beside the
  # chunk, and the loop ends after the last real pair.
  fitting = max(1, _BLOCK_SCORES // max(1, scores.shape[1]))
  size = min(_SMALLEST_PADDING, 2 ** (fitting.bit_length() - 1))
  blocks = _Blocks(size, (num_pairs + size - 1) // size, pairs.shape[1])
  highest, above = blocks.map(
      lambda row, limit: _around(own[row], limit), pairs[0], own_top
  )
  highest = _over(jax.lax.pmax, axis)(highest)
  above = _over(jax.lax.pmin, axis)(above)
  counts = blocks.map(
      lambda row, *ends: _reach(top[row], *ends), pairs[0], highest, above
  )
  greater, level = _over(jax.lax.psum, axis)(counts)
  tied = jnp.where(own_top > _LOWEST, level - greater, 0)
  total = _over(jax.lax.psum, axis)(jnp.sum(num_wrong))
  return jnp.stack([greater, tied]), total


def _over(operation: Callable[..., Any], axis: str | None) -> _Across:
  return lambda x: x if axis is None else operation(x, axis)


def _of_pairs(
    values: jax.Array, pairs: jax.Array, axis: str | None
) -> jax.Array:
  """int32 [N], what values [C, I] have at pairs [2, N]."""
  row, column = pairs
  if axis is None:
    return values[row, column]
  place = column - jax.lax.axis_index(axis) * values.shape[1]
  is_here = (place >= 0) & (place < values.shape[1])
  own = values[row, jnp.clip(place, 0, values.shape[1] - 1)]
  return jax.lax.pmax(jnp.where(is_here, own, _LOWEST), axis)


class _Blocks:
  """A loop over N numbers, `size` at a time, that ends after some blocks."""

  def __init__(self, size: int, num_blocks: jax.Array, total: int):
    self._size, self._num_blocks, self._total = size, num_blocks, total

  def map(
      self, function: Callable[..., jax.Array], *given: jax.Array
  ) -> jax.Array:
    """int32 [2, N] of a function of int32 [size] each to [2, size]."""

    def add(number: jax.Array, found: jax.Array) -> jax.Array:
      start = number * self._size
      part = [jax.lax.dynamic_slice(x, (start,), (self._size,)) for x in given]
      block = function(*part)
      return jax.lax.dynamic_update_slice(found, block, (0, start))

    nothing = jnp.zeros((2, self._total), jnp.int32)
    return jax.lax.fori_loop(0, self._num_blocks, add, nothing)


def _around(own: jax.Array, limit: jax.Array) -> jax.Array:
  """int32 [2, B]: the highest key up to a limit [B], and the next above it.

  Args:
    own: int32 [B, I], keys of the scores of each pair's user.
    limit: of each pair: the end of the reach of its own score.
  """
  within = own <= limit[:, None]
  return jnp.stack(
      _reduce_rows(
          (jnp.where(within, own, _LOWEST), jnp.where(within, _HIGHEST, own)),
          (_MAX, _MIN),
      )
  )


def _reach(top: jax.Array, highest: jax.Array, above: jax.Array) -> jax.Array:
  """int32 [2, B]: how many reach up to `above`, and how many to `highest`.

  Top, int32 [B, I], are keys of the end of each score's reach. With a(y) the
  highest score within reach of y, the candidates tied with x are those y with
  a(y) = a(x). As a() never falls when y grows, they are those whose reach goes
  up to a(x) at least, but not to the next score above a(x).
  """
  return jnp.stack(
      _reduce_rows(
          (top >= above[:, None], top >= highest[:, None]), (_SUM, _SUM)
      )
  )


def _bits(scores: jax.Array) -> jax.Array:
  return jax.lax.bitcast_convert_type(scores, jnp.int32)


def _order_keys(scores: jax.Array) -> jax.Array:
  """int32 in the order of the float32 scores; 0 and -0 are equal."""
  bits = _bits(jnp.where(scores == 0.0, 0.0, scores))
  return jnp.where(bits < 0, bits ^ _ALL_BUT_SIGN, bits)


def _reduce_rows(
    values: tuple[jax.Array, jax.Array], folds: tuple[_Fold, _Fold]
) -> tuple[jax.Array, jax.Array]:
  """Reduces two arrays [N, I] to int32 [N], each with its own fold.

  On CPUs XLA vectorises two reductions of integers in one pass, and not those
  of floats or single ones: this takes a fifth of the time of jnp.max, jnp.min
  and jnp.sum over scores.
  """
  combine = lambda one, two: tuple(
      operation(x, y) for (operation, _), x, y in zip(folds, one, two)
  )
  return jax.lax.reduce(
      tuple(jnp.asarray(x, jnp.int32) for x in values),
      tuple(jnp.int32(start) for _, start in folds),
      combine,
      (1,),
  )
