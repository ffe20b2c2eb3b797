# SPDX-License-Identifier: Apache-2.0
"""Rolled negatives: row b is scored with the items of rows b - shift.

Every other row of the batch is one shift away, so that a few shifts give all
rows as many negatives without a table of them. No loss or config is known here.
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp

_CHUNK = 2**20  # numbers in its largest array: they fit a CPU's cache
# Share M / B from which one matrix product is faster than gathered rows: on
# CPUs as measured, on accelerators by the bytes and operations of both.
_MATRIX_SHARE_CPU = 1 / 8
_MATRIX_SHARE = 1 / 64
_METHODS = ('auto', 'gather', 'matrix')
_Kernel = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
_Inputs = tuple[jax.Array, jax.Array, jax.Array]  # of rolled scores


def roll_shifts(
    key: jax.Array,
    batch_size: int,
    num_negatives: int,
    with_replacement: bool = False,
) -> jax.Array:
  """Draws by how many rows to roll the items: int32 [M], in [1, B - 1].

  Uniformly, and without repeats unless asked for: a shift drawn twice counts
  its negatives twice. Shift 0 is the row's own item.

  Raises:
    ValueError: unless 0 <= num_negatives (M) < batch_size (B).
  """
  if not 0 <= num_negatives < batch_size:
    raise ValueError(
        f'num_negatives must be in [0, {batch_size - 1}]: {num_negatives}'
    )
  if with_replacement:
    return jax.random.randint(key, (num_negatives,), 1, max(batch_size, 2))
  order = jax.random.permutation(key, batch_size - 1)
  return order[:num_negatives].astype(jnp.int32) + 1


def roll(
    values: jax.Array, shifts: jax.Array, row: jax.Array | None = None
) -> jax.Array:
  """[B, M] of values [B]: column m is jnp.roll(values, shifts[m]).

  Or, with numbers of rows int32 [C], these rows of it alone.
  """
  if row is None:
    row = jnp.arange(values.shape[0], dtype=jnp.int32)
  return _take(values, _partner(row, shifts, values.shape[0]))


def rolled_scores(
    user_emb: jax.Array,
    item_emb: jax.Array,
    shifts: jax.Array,
    first_row: jax.Array | int = 0,
    *,
    method: str = 'auto',
) -> jax.Array:
  """Dot products of each user with the items of rolled rows.

  Neither a [B, M, D] nor a large [B, B] array exists, backwards included: rows
  are taken in chunks.

  Args:
    user_emb: [B, D], or [C, D], C of the B rows that follow each other.
    item_emb: [B, D], row b is the positive of user b.
    shifts: int32 [M], any whole numbers.
    first_row: int32 [], the number of the first of C rows.
    method: 'gather' (rows of the negatives, cost grows with M), 'matrix' (all
      B x B products, of which diagonals are kept, cost hardly depends on M) or
      'auto', the faster one. Results are the same up to rounding.

  Returns:
    float32 [B, M]: [b, m] is <user_emb[b], item_emb[(b - shifts[m]) mod B]>,
    as with jnp.roll(item_emb, shifts[m], axis=0).

  Raises:
    ValueError: if shapes do not fit, or on an unknown method.
  """
  check_shapes(user_emb, item_emb)
  if shifts.ndim != 1:
    raise ValueError(f'shifts {shifts.shape} must be [M].')
  if method not in _METHODS:
    raise ValueError(f'method is {method!r}; it must be one of {_METHODS}.')
  # From the first row on the shifts are as good as these from row 0 on.
  return _rolled_scores(user_emb, item_emb, shifts - first_row, method)


def check_shapes(user_emb: jax.Array, item_emb: jax.Array) -> None:
  """Raises ValueError unless they are [C, D] and [B, D], C at most B."""
  fit = user_emb.ndim == item_emb.ndim == 2
  fit = fit and user_emb.shape[1] == item_emb.shape[1]
  if not fit or len(user_emb) > len(item_emb):
    raise ValueError(f'Shapes differ: {user_emb.shape}, {item_emb.shape}.')


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
  sums = functools.partial(
      _fastest, (_sums_of_gathered, _sums_of_products), method
  )
  user_grad = sums(gradient, item_emb, shifts).astype(user_emb.dtype)
  if len(user_emb) < len(item_emb):
    item_grad = _sums_of_runs(gradient, user_emb, shifts, len(item_emb))
    return user_grad, item_grad.astype(item_emb.dtype), None
  # The item of row j is a negative of row j + shifts[m]: the gradient of items
  # is that of users with shifts turned round, and nothing scatters embeddings.
  row = jnp.arange(gradient.shape[0], dtype=jnp.int32)
  anchor = _partner(row, -shifts, gradient.shape[0])
  received = jnp.take_along_axis(gradient, anchor, axis=0)
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
    return kernel(part, _partner(start + step, shifts, len(table)), table)

  made = jax.lax.map(chunk, (parts, first))
  return made.swapaxes(0, 1).reshape(len(padded), made.shape[2])[:size]


def _sums_of_runs(
    gradient: jax.Array, rows: jax.Array, shifts: jax.Array, size: int
) -> jax.Array:
  """Sum over c and m of gradient[c, m] rows[c] at (c - shifts[m]) mod size.

  Fewer rows than there are of the table, as a device has them: by each shift
  they meet a run of the table's rows, so that no row is sought.

  Args:
    gradient: [C, M].
    rows: [C, D].
    shifts: int32 [M].
    size: B, rows of the table.

  Returns:
    float32 [B, D].
  """
  length, width = rows.shape
  rows = rows.astype(jnp.float32)

  def add(number: jax.Array, total: jax.Array) -> jax.Array:
    # Runs may reach past the end, into what is added to the beginning after.
    place = (-shifts[number] % size, jnp.int32(0))
    weight = jax.lax.dynamic_slice(gradient, (0, number), (length, 1))
    run = jax.lax.dynamic_slice(total, place, (length, width))
    return jax.lax.dynamic_update_slice(total, run + weight * rows, place)

  empty = jnp.zeros((size + length, width), jnp.float32)
  total = jax.lax.fori_loop(0, len(shifts), add, empty)
  return total[:size].at[:length].add(total[size:])


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
