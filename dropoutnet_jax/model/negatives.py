# SPDX-License-Identifier: Apache-2.0
"""Negatives: which items a pair's item must beat, and which of them count.

Rolled negatives are the items of other rows of the batch: that of row b - shift
for row b. Mixed ones add a sample of the catalogue. Every mask is True where a
negative counts. No loss, config or device is known here.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

_CHUNK = 2**20  # numbers in its largest array: they fit a CPU's cache
# Share M / B from which one matrix product is faster than gathered rows: on
# CPUs as measured, on accelerators by the bytes and operations of both.
_MATRIX_SHARE_CPU = 1 / 8
_MATRIX_SHARE = 1 / 64
_METHODS = ('auto', 'gather', 'matrix')
_ABSENT = np.iinfo(np.int32).max  # above every item row
_Kernel = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
_Inputs = tuple[jax.Array, jax.Array, jax.Array]  # of rolled scores


def roll_shifts(
    key: jax.Array, batch_size: int, num_negatives: int
) -> jax.Array:
  """Draws by how many rows to roll the items: int32 [M], in [1, B - 1].

  Uniformly and without repeats: a shift drawn twice would count its negatives
  twice. Shift 0 is the row's own item.

  Raises:
    ValueError: unless 0 <= num_negatives (M) < batch_size (B).
  """
  if not 0 <= num_negatives < batch_size:
    raise ValueError(
        f'num_negatives must be in [0, {batch_size - 1}]: {num_negatives}'
    )
  order = jax.random.permutation(key, batch_size - 1)
  return order[:num_negatives].astype(jnp.int32) + 1


def rolled(values: jax.Array, shifts: jax.Array) -> jax.Array:
  """[B, M] of values [B]: column m is jnp.roll(values, shifts[m])."""
  row = jnp.arange(values.shape[0], dtype=jnp.int32)
  return _take(values, _partner(row, shifts, values.shape[0]))


def rolled_scores(
    user_emb: jax.Array,
    item_emb: jax.Array,
    shifts: jax.Array,
    *,
    method: str = 'auto',
) -> jax.Array:
  """Dot products of each user with the items of rolled rows.

  Neither a [B, M, D] nor a large [B, B] array exists, backwards included: rows
  are taken in chunks.

  Args:
    user_emb: [B, D].
    item_emb: [B, D], row b is the positive of user b.
    shifts: int32 [M], any whole numbers.
    method: 'gather' (rows of the negatives, cost grows with M), 'matrix' (all
      B x B products, of which diagonals are kept, cost hardly depends on M) or
      'auto', the faster one. Results are the same up to rounding.

  Returns:
    float32 [B, M]: [b, m] is <user_emb[b], item_emb[(b - shifts[m]) mod B]>,
    as with jnp.roll(item_emb, shifts[m], axis=0).

  Raises:
    ValueError: if shapes do not fit, or on an unknown method.
  """
  if user_emb.ndim != 2 or user_emb.shape != item_emb.shape:
    raise ValueError(f'Shapes differ: {user_emb.shape}, {item_emb.shape}.')
  if shifts.ndim != 1:
    raise ValueError(f'shifts {shifts.shape} must be [M].')
  if method not in _METHODS:
    raise ValueError(f'method is {method!r}; it must be one of {_METHODS}.')
  return _rolled_scores(user_emb, item_emb, shifts, method)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _rolled_scores(
    user_emb: jax.Array, item_emb: jax.Array, shifts: jax.Array, method: str
) -> jax.Array:
  kernels = (_dots_of_gathered, _dots_of_products)
  return _fastest(kernels, method, user_emb, item_emb, shifts)


def _scores_forward(
    user_emb: jax.Array, item_emb: jax.Array, shifts: jax.Array, method: str
) -> tuple[jax.Array, _Inputs]:
  inputs = (user_emb, item_emb, shifts)
  return _rolled_scores(*inputs, method), inputs


def _scores_backward(
    method: str, inputs: _Inputs, gradient: jax.Array
) -> tuple[jax.Array, jax.Array, None]:
  user_emb, item_emb, shifts = inputs
  # The item of row j is a negative of row j + shifts[m]: the gradient of items
  # is that of users with shifts turned round, and nothing scatters embeddings.
  row = jnp.arange(gradient.shape[0], dtype=jnp.int32)
  anchor = _partner(row, -shifts, gradient.shape[0])
  received = jnp.take_along_axis(gradient, anchor, axis=0)
  sums = functools.partial(
      _fastest, (_sums_of_gathered, _sums_of_products), method
  )
  user_grad = sums(gradient, item_emb, shifts).astype(user_emb.dtype)
  item_grad = sums(received, user_emb, -shifts).astype(item_emb.dtype)
  return user_grad, item_grad, None


_rolled_scores.defvjp(_scores_forward, _scores_backward)


def _fastest(
    kernels: tuple[_Kernel, _Kernel],
    method: str,
    rows: jax.Array,
    table: jax.Array,
    shifts: jax.Array,
) -> jax.Array:
  """Runs the kernel (gather, matrix) that suits the sizes and the platform."""
  widths = (shifts.size * table.shape[1], table.shape[0])
  gather, matrix = (
      functools.partial(_over_chunks, kernel, width)
      for kernel, width in zip(kernels, widths)
  )
  share = shifts.size / table.shape[0]
  if method == 'gather' or (method == 'auto' and share < _MATRIX_SHARE):
    return gather(rows, table, shifts)
  if method == 'matrix' or share >= _MATRIX_SHARE_CPU:
    return matrix(rows, table, shifts)
  return jax.lax.platform_dependent(
      rows, table, shifts, cpu=gather, default=matrix
  )


def _over_chunks(
    kernel: _Kernel,
    width: int,
    rows: jax.Array,
    table: jax.Array,
    shifts: jax.Array,
) -> jax.Array:
  """Applies a kernel that makes `width` numbers of each of rows [B, X].

  A chunk takes every n-th row: where rows are split over devices, each device
  has a part of every chunk.
  """
  size = rows.shape[0]
  more = max(0, size * width - 1) // _CHUNK
  num_chunks = min(1 << more.bit_length(), size)  # a power of two divides best
  length = -(-size // num_chunks)
  padded = jnp.pad(rows, ((0, length * num_chunks - size), (0, 0)))
  parts = padded.reshape(length, num_chunks, rows.shape[1]).swapaxes(0, 1)
  first = jnp.arange(num_chunks, dtype=jnp.int32)
  step = jnp.arange(length, dtype=jnp.int32) * num_chunks

  def chunk(inputs: tuple[jax.Array, jax.Array]) -> jax.Array:
    part, start = inputs
    return kernel(part, _partner(start + step, shifts, size), table)

  made = jax.lax.map(chunk, (parts, first))
  return made.swapaxes(0, 1).reshape(len(padded), made.shape[2])[:size]


# Kernels: part [C, D] or [C, M], partner int32 [C, M], table [B, D]. Dots are
# [C, M], part times the partners; sums are [C, D], of the partners under part.
def _gathered(
    formula: str, part: jax.Array, partner: jax.Array, table: jax.Array
) -> jax.Array:
  return _einsum(formula, part, _take(table, partner))


_dots_of_gathered = functools.partial(_gathered, 'cd,cmd->cm')
_sums_of_gathered = functools.partial(_gathered, 'cm,cmd->cd')


def _dots_of_products(
    part: jax.Array, partner: jax.Array, table: jax.Array
) -> jax.Array:
  score = _einsum('cd,bd->cb', part, table)
  return jnp.take_along_axis(score, partner, axis=1)


def _sums_of_products(
    part: jax.Array, partner: jax.Array, table: jax.Array
) -> jax.Array:
  # Added, as a shift may occur twice; by row, which splits over devices.
  empty = jnp.zeros(table.shape[0], part.dtype)
  row_of = jax.vmap(lambda place, value: empty.at[place].add(value))
  return _einsum('cb,bd->cd', row_of(partner, part), table)


def _partner(row: jax.Array, shifts: jax.Array, size: int) -> jax.Array:
  """(row [C] - shifts [M]) mod size: int32 [C, M]."""
  return (row[:, None] - shifts[None]) % size


def _take(table: jax.Array, index: jax.Array) -> jax.Array:
  return jnp.asarray(table).at[index].get(mode='promise_in_bounds')


def _einsum(formula: str, one: jax.Array, two: jax.Array) -> jax.Array:
  return jnp.einsum(formula, one, two, preferred_element_type=jnp.float32)


def mixed_scores(user_emb: jax.Array, item_emb: jax.Array) -> jax.Array:
  """Dot products of users [B, D] with sampled items [S, D]: float32 [B, S]."""
  return _einsum('bd,sd->bs', user_emb, item_emb)


def not_in_history(candidate: jax.Array, user_history: jax.Array) -> jax.Array:
  """Where candidates int32 [B, M] are none that the user liked: bool [B, M].

  A history, int32 [B, L], has the items that the row's user liked in training:
  ascending, then -1, as `History.padded` makes them.
  """
  length = user_history.shape[1]
  if not length:
    return jnp.ones(candidate.shape, bool)
  ordered = jnp.where(user_history < 0, _ABSENT, user_history)
  place = jax.vmap(jnp.searchsorted)(ordered, candidate)
  nearest = jnp.minimum(place, length - 1)
  return jnp.take_along_axis(ordered, nearest, axis=1) != candidate


def valid_candidates(
    candidate: jax.Array,
    item_id: jax.Array,
    user_history: jax.Array | None = None,
    row_mask: jax.Array | None = None,
) -> jax.Array:
  """Which candidates count as negatives: bool [B, M].

  Not the row's own item, nothing that the row's user is known to like, and
  nothing for a row of padding.

  Args:
    candidate: int32 [B, M], or [M] where all rows share a sample.
    item_id: int32 [B], the item of each row.
    user_history: int32 [B, L], see `not_in_history`; None counts the user's
      other positives as negatives.
    row_mask: bool [B], False for padding; None has no padding.
  """
  shape = (item_id.shape[0], candidate.shape[-1])
  candidate = jnp.broadcast_to(jnp.atleast_2d(candidate), shape)
  valid = candidate != item_id[:, None]
  if user_history is not None:
    valid &= not_in_history(candidate, user_history)
  return valid if row_mask is None else valid & row_mask[:, None]


def valid_negatives(
    item_id: jax.Array,
    shifts: jax.Array,
    user_history: jax.Array | None = None,
    row_mask: jax.Array | None = None,
) -> jax.Array:
  """Which rolled negatives count: bool [B, M].

  `valid_candidates` among the items of rolled rows, which may not be padding
  either. A row of weight 0 is no padding: it supplies negatives like any other.
  """
  candidate = rolled(item_id, shifts)
  valid = valid_candidates(candidate, item_id, user_history, row_mask)
  return valid if row_mask is None else valid & rolled(row_mask, shifts)


def hardest(
    scores: jax.Array, mask: jax.Array, k: int
) -> tuple[jax.Array, jax.Array]:
  """The k negatives of each row that score most among those that count.

  Returns:
    Of scores [B, M] and mask bool [B, M] the scores [B, k], descending, and
    their mask. Where a row has fewer than k, the rest is 0 and does not count.

  Raises:
    ValueError: if shapes differ or unless 1 <= k <= M.
  """
  if scores.shape != mask.shape:
    raise ValueError(f'Shapes differ: {scores.shape} and {mask.shape}.')
  if not 1 <= k <= scores.shape[1]:
    raise ValueError(f'k must be in [1, {scores.shape[1]}]: {k}')
  counted = jnp.where(mask, jax.lax.stop_gradient(scores), -jnp.inf)
  _, place = jax.lax.top_k(counted, k)
  chosen = jnp.take_along_axis(mask, place, axis=1)
  # Not -inf: a later product with a mask of 0 would be NaN.
  taken = jnp.take_along_axis(scores, place, axis=1)
  return jnp.where(chosen, taken, 0.0), chosen


class PopularityTable(NamedTuple):
  """Which items are sampled, and how often.

  Attributes:
    item: int32 [J], rows of the items that can be drawn.
    start: uint32 [J], where each one's share of all 2**32 numbers begins;
      float32 would lose the rare items of a large catalogue.
    log_probability: float32 [I] of one draw, for the correction of sampling
      bias; -inf for items that are never drawn.
  """

  item: np.ndarray
  start: np.ndarray
  log_probability: np.ndarray


def popularity_table(count: np.ndarray, power: float) -> PopularityTable:
  """Prepares draws with probability proportional to count ** power.

  The count [I] is of training interactions. Items without any are never drawn,
  even uniformly (power 0): they are cold, and taught as negatives they would
  be pushed away from everybody.

  Raises:
    ValueError: if counts are negative or not finite, or none is positive.
  """
  count = _checked_count(count)
  item = np.flatnonzero(count)
  log_share = special.log_softmax(power * np.log(count[item]))
  share = np.exp(log_share)
  before = np.concatenate([[0.0], np.cumsum(share)[:-1]])
  start = np.minimum(np.floor(before * 2.0**32), 2.0**32 - 1)
  log_probability = np.full(len(count), -np.inf, np.float32)
  log_probability[item] = log_share
  return PopularityTable(
      item.astype(np.int32), start.astype(np.uint32), log_probability
  )


def sample_items(
    key: jax.Array, table: PopularityTable, shape: tuple[int, ...]
) -> jax.Array:
  """Draws item rows independently, with repeats: int32 of this shape."""
  draw = jax.random.bits(key, shape, jnp.uint32)
  place = jnp.searchsorted(jnp.asarray(table.start), draw, side='right') - 1
  return jnp.asarray(table.item)[place]


def log_frequency(count: np.ndarray, batch_size: int) -> np.ndarray:
  """Log of the probability that an item is in a batch: float32 [I].

  In-batch negatives are corrected by it (Yi et al., RecSys 2019, who estimate
  it from a stream). It is 1 - (1 - p) ** batch_size for interactions that are
  drawn with repeats, p being the item's share of count [I]. An item without
  any is taken for the rarest one, so that a correction stays finite.

  Raises:
    ValueError: on wrong counts, see `popularity_table`, or an empty batch.
  """
  count = _checked_count(count)
  if batch_size < 1:
    raise ValueError(f'batch_size must be at least 1: {batch_size}')
  share = np.maximum(count, count[count > 0].min()) / count.sum()
  with np.errstate(divide='ignore'):  # the only item is in every batch
    log_missed = batch_size * np.log1p(-share)
  return np.log(-np.expm1(log_missed)).astype(np.float32)


def _checked_count(count: np.ndarray) -> np.ndarray:
  count = np.asarray(count, np.float64)
  wrong = ~(np.isfinite(count) & (count >= 0))
  if wrong.any():
    item = int(np.flatnonzero(wrong)[0])
    raise ValueError(f'count[{item}] is {count[item]}: not finite and >= 0.')
  if not count.any():
    raise ValueError('No item has interactions to be drawn by.')
  return count


def pad_batch(
    values: np.ndarray, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Fills up the last, shorter batch, so that one program serves all.

  Returns:
    values [N, ...] with zeros behind, [batch_size, ...] (row 0 exists, so row
    numbers stay valid), and bool [batch_size], False for padding.

  Raises:
    ValueError: if there are more rows than fit.
  """
  size = len(values)
  if size > batch_size:
    raise ValueError(f'{size} rows are more than a batch: {batch_size}')
  padding = [(0, batch_size - size)] + [(0, 0)] * (np.ndim(values) - 1)
  return np.pad(values, padding), np.arange(batch_size) < size
