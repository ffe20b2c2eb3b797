# SPDX-License-Identifier: Apache-2.0
"""Rows of tables that are split over the mesh: taken out, and put back.

What is written here for single devices costs as much as the rows that are
asked for, whatever the size of the table: of a table of which a step needs a
few rows, nothing is moved, copied or looked through as a whole.
"""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from dropoutnet_jax import parallel

# Smaller tables are everywhere: to split them saves nothing.
_SMALL = 128


def split_rows(shape: tuple[int, ...], mesh: parallel.Mesh) -> NamedSharding:
  """Where a learnt table of this shape lies: its rows split over 'model'.

  Replicated are tables of up to 128 rows, and those that the axis does not
  divide; that of `tokens.TokenFeature` any power of 2 up to 128 does.
  """
  size = mesh.shape['model']
  if size == 1 or shape[0] <= _SMALL or shape[0] % size:
    return parallel.replicated(mesh)
  return NamedSharding(mesh, PartitionSpec('model'))


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
