# SPDX-License-Identifier: Apache-2.0
"""Rows of tables that are split over the mesh: taken out, and put back.

What is written here for single devices costs as much as the rows that are
asked for, whatever the size of the table: of a table of which a step needs a
few rows, nothing is moved, copied or looked through as a whole.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from dropoutnet_jax import parallel
from dropoutnet_jax.data import tokens

# Smaller tables are everywhere: to split them saves nothing.
_SMALL = tokens.EVEN_ROWS
_ALL = ('data', 'model')


def split_rows(shape: tuple[int, ...], mesh: parallel.Mesh) -> NamedSharding:
  """Where a learnt table of this shape lies: its rows split over 'model'.

  Replicated are tables of up to 128 rows, and those that the axis does not
  divide; that of `tokens.TokenFeature` any power of 2 up to 128 does.
  """
  size = mesh.shape['model']
  if size == 1 or shape[0] <= _SMALL or shape[0] % size:
    return parallel.replicated(mesh)
  return NamedSharding(mesh, PartitionSpec('model'))


def are_here(mesh: parallel.Mesh) -> bool:
  """Whether tables are split, and all their parts lie in this process."""
  return mesh.shape['model'] > 1 and not mesh.is_multi_process


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
    return jax.device_put(rows, parallel.replicated(mesh))
  return jax.device_put(rows, NamedSharding(mesh, PartitionSpec(_ALL)))


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
