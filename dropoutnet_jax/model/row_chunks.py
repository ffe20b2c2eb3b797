# SPDX-License-Identifier: Apache-2.0
"""Sums over all pairs of rows of a batch without an array of all pairs.

A batch of B rows has B x B pairs. A large batch goes through in chunks of
rows, and the gradient of a chunk is taken where its value is: nothing of size
B x B outlives its chunk, and nothing is computed a second time for the backward
pass. Where rows are split over devices, each of them chunks its own. No loss is
known here.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp

# Pairs of a chunk: 4 MiB in float32, which a processor's caches hold.
MOST_PAIRS = 2**20
# Fewer rows would leave most of an accelerator idle.
LEAST_ROWS = 128

# (shared, rows, fixed, fixed_rows) -> float32 [].
ChunkSum = Callable[[Any, Any, Any, Any], jax.Array]
# Makes a function of (what is whole, rows), which returns rows, one that each
# device applies to the rows that it has.
OverRows = Callable[[Callable[[Any, Any], Any]], Callable[[Any, Any], Any]]


def on_one_device(function: Callable[[Any, Any], Any]) -> Any:
  """All rows are on each device: the function as it is."""
  return function


def sum_over_rows(
    function: ChunkSum,
    shared: Any,
    rows: Any,
    fixed: Any,
    fixed_rows: Any,
    least_chunks: int = 1,
    num_columns: int = 0,
    over_rows: OverRows = on_one_device,
) -> jax.Array:
  """Sum of a function over chunks of rows: float32 [].

  The gradient goes to `shared` and `rows`; what is `fixed` is data. Like every
  function with a gradient of its own in JAX, a sum in several chunks has no
  forward-mode and no second derivatives.

  Args:
    function: of what chunks share and of one chunk of rows; a sum over these
      rows to which a row of zeros adds nothing.
    shared: pytree of float32 arrays, whole in every chunk.
    rows: pytree of float32 arrays [B, ...].
    fixed: pytree of any arrays, whole in every chunk.
    fixed_rows: pytree of any arrays [B, ...].
    least_chunks: the fewest to make; from two on, what a chunk gets are arrays
      in memory, not expressions that the compiler may round in another way.
    num_columns: of what a row is paired with; 0 is as many as there are rows.
    over_rows: how rows are split over devices, whose sums are added last: what
      is shared travels once, and so does its gradient.
  """
  fixed, fixed_rows = jax.lax.stop_gradient((fixed, fixed_rows))
  num_columns = num_columns or _num_rows((rows, fixed_rows))

  def part(whole: Any, own: Any) -> jax.Array:
    (shared, fixed), (rows, fixed_rows) = whole, own
    chunks = max(_num_chunks(_num_rows(own), num_columns), least_chunks)
    if chunks == 1:
      return function(shared, rows, fixed, fixed_rows)[None]
    rows, fixed_rows = jax.tree.map(lambda x: _split(x, chunks), own)
    return _scanned(function, shared, rows, fixed, fixed_rows)[None]

  return jnp.sum(over_rows(part)((shared, fixed), (rows, fixed_rows)))


def map_rows(
    function: Callable[[Any, Any], jax.Array],
    fixed: Any,
    fixed_rows: Any,
    num_columns: int = 0,
    over_rows: OverRows = on_one_device,
) -> jax.Array:
  """What a function makes of each row, by chunks of rows: [B, ...].

  Args:
    function: (fixed, C rows) -> [C, ...]; its values have no gradient.
    fixed: pytree of arrays, whole in every chunk.
    fixed_rows: pytree of arrays [B, ...].
    num_columns: as in `sum_over_rows`.
    over_rows: as there.
  """
  fixed, fixed_rows = jax.lax.stop_gradient((fixed, fixed_rows))
  num_columns = num_columns or _num_rows(fixed_rows)

  def part(whole: Any, own: Any) -> jax.Array:
    size = _num_rows(own)
    num_chunks = _num_chunks(size, num_columns)
    if num_chunks <= 1:
      return function(whole, own)
    chunks = jax.tree.map(lambda array: _split(array, num_chunks), own)
    made = jax.lax.map(functools.partial(function, whole), chunks)
    return made.swapaxes(0, 1).reshape(-1, *made.shape[2:])[:size]

  return over_rows(part)(fixed, fixed_rows)


def _num_rows(rows: Any) -> int:
  return int(jax.tree.leaves(rows)[0].shape[0])


def _num_chunks(num_rows: int, num_columns: int) -> int:
  size = max(LEAST_ROWS, MOST_PAIRS // max(num_columns, 1))
  return -(-num_rows // size)


def _split(array: jax.Array, num_chunks: int) -> jax.Array:
  """[B, ...] as [num_chunks, C, ...], zero rows added.

  Chunk k has rows k, k + num_chunks, ...: where a batch is split over devices,
  every device has its part of every chunk.
  """
  size = -(-array.shape[0] // num_chunks)
  padding = [(0, num_chunks * size - array.shape[0])]
  padded = jnp.pad(array, padding + [(0, 0)] * (array.ndim - 1))
  return padded.reshape(size, num_chunks, *array.shape[1:]).swapaxes(0, 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scanned(
    function: ChunkSum, shared: Any, rows: Any, fixed: Any, fixed_rows: Any
) -> jax.Array:
  def add(total: jax.Array, chunk: tuple[Any, Any]) -> tuple[jax.Array, None]:
    return total + function(shared, chunk[0], fixed, chunk[1]), None

  return jax.lax.scan(add, jnp.zeros(()), (rows, fixed_rows))[0]


def _scanned_forward(
    function: ChunkSum, shared: Any, rows: Any, fixed: Any, fixed_rows: Any
) -> tuple[jax.Array, tuple[Any, Any]]:
  """Value, and as residuals the gradients by `shared` and `rows`."""
  value_and_grad = jax.value_and_grad(function, argnums=(0, 1))

  def add(carry: tuple[jax.Array, Any], chunk: tuple[Any, Any]) -> Any:
    value, (by_shared, by_rows) = value_and_grad(
        shared, chunk[0], fixed, chunk[1]
    )
    return jax.tree.map(jnp.add, carry, (value, by_shared)), by_rows

  start = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, shared))
  (value, by_shared), by_rows = jax.lax.scan(add, start, (rows, fixed_rows))
  return value, (by_shared, by_rows)


def _scanned_backward(
    function: ChunkSum, gradients: tuple[Any, Any], cotangent: jax.Array
) -> tuple[Any, Any, None, None]:
  del function
  by_shared, by_rows = jax.tree.map(lambda x: cotangent * x, gradients)
  return by_shared, by_rows, None, None


_scanned.defvjp(_scanned_forward, _scanned_backward)
