# SPDX-License-Identifier: Apache-2.0
"""Rows of tables that are split over the mesh: taken out, and put back.

What is written here for single devices costs as much as the rows that are
asked for, whatever the size of the table: of a table of which a step needs a
few rows, nothing is moved, copied or looked through as a whole.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from dropoutnet_jax import parallel
from dropoutnet_jax.data import tokens

# Smaller tables are everywhere: to split them saves nothing.
_SMALL = tokens.EVEN_ROWS
_ALL = ('data', 'model')
_BLOCK = 1 << 16  # rows of each device that go to the host together
# How a table of scores [users, candidates] lies on the devices, and how rows of
# users and of candidates do: each device scores its users for its candidates.
USER_AXIS, CANDIDATE_AXIS = _ALL
USERS, CANDIDATES = PartitionSpec(USER_AXIS), PartitionSpec(CANDIDATE_AXIS)
SCORES, WHOLE = PartitionSpec(*_ALL), PartitionSpec()
# Rows that all devices share; what 'data' gathers of them lies as CANDIDATES.
SHARED = PartitionSpec((CANDIDATE_AXIS, USER_AXIS))


def split_rows(shape: tuple[int, ...], mesh: parallel.Mesh) -> NamedSharding:
  """Where a learnt table of this shape lies: its rows split over 'model'.

  Replicated are tables of up to 128 rows, and those that the axis does not
  divide; that of `tokens.TokenFeature` any power of 2 up to 128 does.
  """
  size = mesh.shape['model']
  if size == 1 or shape[0] <= _SMALL or shape[0] % size:
    return parallel.replicated(mesh)
  return NamedSharding(mesh, PartitionSpec('model'))


def are_split(mesh: parallel.Mesh) -> bool:
  """Whether tables are split, and no device has all of their rows."""
  return mesh.shape['model'] > 1


def take(
    table: jax.Array, rows: jax.Array, mesh: parallel.Mesh | None
) -> jax.Array:
  """Rows of a table on every device: float32 [n, ...], inside jit.

  Each device finds those that it has; their sum over 'model' is all of them.

  Args:
    table: [N, ...], laid out as `split_rows` says.
    rows: int32 [n]; of those from N on the result is zero or anything.
    mesh: of the devices; None for one.
  """
  if mesh is None or mesh.size == 1:
    return table[rows]
  split = split_rows(table.shape, mesh).spec

  def own(part: jax.Array, rows: jax.Array) -> jax.Array:
    if not split:
      return part[rows]
    place = rows - jax.lax.axis_index('model') * len(part)
    is_here = (place >= 0) & (place < len(part))
    found = part[jnp.clip(place, 0, len(part) - 1)]
    is_here = is_here.reshape(-1, *[1] * (found.ndim - 1))
    found = jnp.where(is_here, found, jnp.zeros((), found.dtype))
    return jax.lax.psum(found, 'model')

  return jax.shard_map(
      own,
      mesh=mesh,
      in_specs=(split, PartitionSpec()),
      out_specs=PartitionSpec(),
      check_vma=False,
  )(table, rows)


def put(
    table: jax.Array,
    rows: jax.Array,
    values: jax.Array,
    mesh: parallel.Mesh | None,
) -> jax.Array:
  """The table with other rows, written in place where it is donated.

  Args:
    table: [N, ...], laid out as `split_rows` says.
    rows: int32 [n], distinct; those from N on are left out.
    values: [n, ...], on every device.
    mesh: of the devices; None for one.
  """
  if mesh is None or mesh.size == 1:
    return table.at[rows].set(values, mode='drop', unique_indices=True)
  split = split_rows(table.shape, mesh).spec

  def own(part: jax.Array, rows: jax.Array, values: jax.Array) -> jax.Array:
    place = rows
    if split:
      place = rows - jax.lax.axis_index('model') * len(part)
      # A negative place would count from the end.
      is_here = (place >= 0) & (place < len(part))
      place = jnp.where(is_here, place, len(part))
    return part.at[place].set(values, mode='drop', unique_indices=True)

  return jax.shard_map(
      own,
      mesh=mesh,
      in_specs=(split, PartitionSpec(), PartitionSpec()),
      out_specs=split,
      check_vma=False,
  )(table, rows, values)


def spread(rows: Any, mesh: parallel.Mesh | None) -> jax.Array:
  """Puts rows on the devices, split over all of them if these divide them."""
  if mesh is None:
    return jnp.asarray(rows)
  if len(rows) % mesh.size:
    return parallel.put(rows, parallel.replicated(mesh))
  return parallel.put(rows, NamedSharding(mesh, PartitionSpec(_ALL)))


def put_parts(
    x: np.ndarray, spec: PartitionSpec, mesh: parallel.Mesh
) -> jax.Array:
  """Puts a host array on the devices; each process places its own parts."""
  return parallel.put(x, NamedSharding(mesh, spec))


def from_writer(
    x: np.ndarray | None, size: int, dtype: Any, mesh: parallel.Mesh
) -> jax.Array:
  """Puts an array of process 0 on the devices of all, a row on each.

  Of several processes a block of each row at a time is on every device; all of
  them must call this.

  Args:
    x: [devices, size]; the other processes have None.
    size: of a row.
    dtype: of x, the same everywhere.
    mesh: of the devices, along 'data'.

  Returns:
    [devices, size], which lies as USERS.
  """
  if not mesh.is_multi_process:
    assert x is not None
    return put_parts(x, USERS, mesh)
  block = min(_BLOCK, size)
  where = NamedSharding(mesh, USERS)
  rows = jnp.zeros((mesh.size, size), dtype, device=where)
  nothing = jnp.zeros((mesh.size, mesh.size, block), dtype, device=where)
  shards = [shard.data for shard in nothing.addressable_shards]
  for begin in range(0, size, block):
    start = min(begin, size - block)
    if x is not None:
      part = np.ascontiguousarray(x[None, :, start : start + block])
      shards[0] = jax.device_put(part, shards[0].sharding)
    parts = jax.make_array_from_single_device_arrays(
        nothing.shape, where, shards
    )
    # One by one: of many at once Gloo loses track, and all would be in memory.
    rows = jax.block_until_ready(_with_block(rows, parts, start, mesh))
  return rows


@functools.partial(jax.jit, static_argnames='mesh', donate_argnames='rows')
def _with_block(
    rows: jax.Array, parts: jax.Array, start: jax.Array, mesh: parallel.Mesh
) -> jax.Array:
  """Rows [D, n] with a block that one device has: parts [D, D, b], else 0."""

  def own(rows: jax.Array, parts: jax.Array, start: jax.Array) -> jax.Array:
    block = jax.lax.psum_scatter(parts[0], USER_AXIS, tiled=True)
    return jax.lax.dynamic_update_slice_in_dim(rows, block, start, axis=1)

  return on_parts(own, mesh, (USERS, USERS, WHOLE), USERS)(rows, parts, start)


def laid_out(
    function: Callable[..., jax.Array],
    spec: PartitionSpec,
    mesh: parallel.Mesh,
) -> Callable[..., jax.Array]:
  """Compiles a function whose result lies so."""
  return jax.jit(function, out_shardings=NamedSharding(mesh, spec))


def on_parts(
    function: Callable[..., Any],
    mesh: parallel.Mesh,
    inputs: tuple[PartitionSpec, ...],
    outputs: Any,
) -> Callable[..., Any]:
  """Makes a function work on what each device has, inside jit."""
  return jax.shard_map(
      function,
      mesh=mesh,
      in_specs=inputs,
      out_specs=outputs,
      check_vma=False,
  )


def num_parts(spec: PartitionSpec, mesh: parallel.Mesh) -> int:
  """In how many parts rows are that lie so."""
  return mesh.shape[spec[0]]


def embed_candidates(
    embed: Callable[..., jax.Array], mesh: parallel.Mesh
) -> Callable[..., jax.Array]:
  """From embed(variables, table, rows [n]) to the same of many candidates.

  Returns:
    Compiled (variables, table, rows [chunks, devices along 'model', size]) ->
    embeddings, split over these devices, each of its own rows in order. All
    devices share the rows of a chunk, whose size the axis 'data' divides.
  """
  shared = NamedSharding(mesh, SHARED)
  split = NamedSharding(mesh, CANDIDATES)

  def embed_all(variables: Any, table: Any, rows: jax.Array) -> jax.Array:
    def embed_chunk(chunk: jax.Array) -> jax.Array:
      flat = jax.lax.with_sharding_constraint(chunk.reshape(-1), shared)
      dense = embed(variables, table, flat)
      return jax.lax.with_sharding_constraint(
          dense.reshape(*chunk.shape, -1), split
      )

    found = jax.lax.map(embed_chunk, rows).swapaxes(0, 1)
    return found.reshape(rows.size, -1)

  return jax.jit(embed_all, out_shardings=split)


def with_rows(table: Any, rows: np.ndarray, values: np.ndarray) -> jax.Array:
  """A table with other rows [C]; it lies where the table does."""
  table = jnp.asarray(table)
  return _set_rows(table, rows, values, table.sharding)


@functools.partial(jax.jit, static_argnames='where')
def _set_rows(
    table: jax.Array, rows: jax.Array, values: jax.Array, where: Any
) -> jax.Array:
  changed = table.at[rows].set(values)
  return jax.lax.with_sharding_constraint(changed, where)


def look_up(part: jax.Array, rows: jax.Array) -> jax.Array:
  """Rows [b, n] of a table that lies as CANDIDATES: [b, n, P], in `on_parts`.

  The devices along 'model' tell each other which rows they want, and each sends
  those that it has (as in ALX: Mehta et al., 2021).
  """
  wanted = jax.lax.all_gather(rows, CANDIDATE_AXIS, axis=0, tiled=True)
  place = wanted - jax.lax.axis_index(CANDIDATE_AXIS) * len(part)
  is_here = (place >= 0) & (place < len(part))
  found = jnp.take(part, place, axis=0, mode='clip')
  found = jnp.where(is_here[..., None], found, jnp.zeros((), part.dtype))
  return jax.lax.psum_scatter(
      found, CANDIDATE_AXIS, scatter_dimension=0, tiled=True
  )


def to_host(x: jax.Array, mesh: parallel.Mesh) -> np.ndarray:
  """A table that lies as SHARED, in the memory of each process.

  Of several processes a block of each part at a time is on every device; all
  of them must call this.
  """
  if not mesh.is_multi_process:
    return np.asarray(x)
  share = len(x) // mesh.size
  found = np.empty((mesh.size, share, *x.shape[1:]), x.dtype)
  for start in range(0, share, _BLOCK):
    size = min(_BLOCK, share - start)
    block = _block(x, start, size, mesh).addressable_data(0)
    found[:, start : start + size] = np.asarray(block)
  return found.reshape(x.shape)


@functools.partial(jax.jit, static_argnames=('size', 'mesh'))
def _block(
    x: jax.Array, start: jax.Array, size: int, mesh: parallel.Mesh
) -> jax.Array:
  """Rows [start, start + size) of each part on every device."""

  def own(x: jax.Array, start: jax.Array) -> jax.Array:
    block = jax.lax.dynamic_slice_in_dim(x, start, size)
    return jax.lax.all_gather(block, (CANDIDATE_AXIS, USER_AXIS))

  return on_parts(own, mesh, (SHARED, WHOLE), WHOLE)(x, start)


def side_by_side(
    function: Callable[..., Any], mesh: parallel.Mesh | None
) -> Callable[..., Any]:
  """Makes function(rows, first, *whole) work on each device's rows alone.

  Args:
    function: of the rows of one device, of rows that are laid out by `spread`;
      of the number of the first of them; and of what all devices have. It
      returns arrays [C, k].
    mesh: of the devices; None for one.

  Returns:
    (rows, *whole) -> arrays [C, devices * k], in the order of the rows: no more
    than these k columns of each device travel.
  """
  if mesh is None:
    return lambda rows, *whole: function(rows, 0, *whole)

  def own(rows: jax.Array, *whole: Any) -> Any:
    found = function(rows, jax.lax.axis_index(_ALL) * len(rows), *whole)
    return jax.tree.map(
        lambda x: jax.lax.all_gather(x, _ALL, axis=1, tiled=True), found
    )

  def call(rows: jax.Array, *whole: Any) -> Any:
    specs = (PartitionSpec(_ALL), *[PartitionSpec()] * len(whole))
    return jax.shard_map(
        own,
        mesh=mesh,
        in_specs=specs,
        out_specs=PartitionSpec(),
        check_vma=False,
    )(rows, *whole)

  return call
