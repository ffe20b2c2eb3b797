# SPDX-License-Identifier: Apache-2.0
"""Mesh, shardings and process start-up: the only file that names devices.

Losses, batch norm and masks are written for the global batch; here is decided
where its rows live. Tables and parameters are replicated, the rows of a batch
are split over the axis 'data'.
"""

from collections.abc import Callable
import contextlib
import itertools
import os
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils
from jax.sharding import AxisType
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np
from orbax.checkpoint import multihost

from dropoutnet_jax import config
from dropoutnet_jax import errors

_Result = TypeVar('_Result')
# Collectives on CPUs give up after 30 s; preparing a large data set takes
# longer, so it is waited for at a barrier of the coordinator.
_BARRIER_MS = 24 * 3600 * 1000
_barrier_numbers = itertools.count()


def initialize(
    coordinator: str = '', num_processes: int = 0, process_id: int = -1
) -> None:
  """Joins the processes of one run; does nothing for a single process.

  Args:
    coordinator: 'host:port' of process 0.
    num_processes: how many take part.
    process_id: number of this one.

  Raises:
    UserError: if only some of the three are given.
  """
  given = (bool(coordinator), num_processes > 0, process_id >= 0)
  if not any(given):
    return
  if not all(given):
    raise errors.UserError(
        '--coordinator, --num_processes and --process_id belong together; '
        'give all three or none.'
    )
  jax.distributed.initialize(coordinator, num_processes, process_id)


def set_compile_cache(folder: str) -> None:
  """Keeps compiled programs in a folder, for the next start; '' is off."""
  if folder:
    os.makedirs(folder, exist_ok=True)
    jax.config.update('jax_compilation_cache_dir', folder)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)


def is_writer() -> bool:
  """Whether this process writes files; one of all processes does."""
  return jax.process_index() == 0


def on_writer(work: Callable[[], _Result]) -> _Result | None:
  """Lets the writing process work while the others wait for it.

  Every process must call this, in the same order.

  Args:
    work: reads and writes files, and computes on this process alone.

  Returns:
    What `work` returns; None on the processes that waited.

  Raises:
    UserError: on all processes, if `work` raised one.
  """
  if jax.process_count() == 1:
    return work()
  result, problem = None, None
  if is_writer():
    try:
      result = work()
    except errors.UserError as error:
      problem = error
  key = f'dropoutnet_jax_{next(_barrier_numbers)}'
  multihost.get_barrier_sync_fn()(key=key, timeout_ms=_BARRIER_MS)
  failed = multihost_utils.broadcast_one_to_all(np.int32(problem is not None))
  if problem is not None:
    raise problem
  if failed:
    raise errors.UserError('Process 0 has stopped; its message says why.')
  return result


def anywhere(flag: bool) -> bool:
  """Whether any process says so; all must ask at the same point."""
  if jax.process_count() == 1:
    return flag
  return bool(multihost_utils.process_allgather(np.asarray(flag)).any())


def make_mesh(
    settings: config.MeshConfig, num_devices: int | None = None
) -> Mesh:
  """Axes 'data' and 'model' over the first num_devices devices (or all).

  Raises:
    UserError: if mesh.model does not divide the number of devices.
  """
  devices = jax.devices()[:num_devices]
  if len(devices) % settings.model:
    raise errors.UserError(
        f'config.mesh.model is {settings.model}, but there are {len(devices)} '
        'devices; it must divide their number.'
    )
  # Auto: the default, Explicit, bars a gather from a replicated table.
  return jax.make_mesh(
      (len(devices) // settings.model, settings.model),
      ('data', 'model'),
      (AxisType.Auto, AxisType.Auto),
      devices=devices,
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def by_row(mesh: Mesh) -> NamedSharding:
  """Rows are split over the axis 'data'."""
  return NamedSharding(mesh, PartitionSpec('data'))


def place(tree: Any, mesh: Mesh) -> Any:
  """Puts host arrays on all devices of the mesh, replicated."""
  sharding = replicated(mesh)
  return jax.tree.map(lambda x: jax.device_put(x, sharding), tree)


def local(tree: Any) -> Any:
  """This process's copy of replicated arrays, on its first device.

  For work that needs no other device and that each process does for itself:
  on eight devices it would otherwise be done eight times.
  """
  return jax.tree.map(lambda x: x.addressable_data(0), tree)


def split_rows(tree: Any, mesh: Mesh) -> Any:
  """Asks the compiler to split the rows of arrays over 'data' inside jit.

  Rows that the axis does not divide stay replicated: a small batch on many
  devices is legal.
  """
  size = mesh.shape['data']

  def constrain(x: jax.Array) -> jax.Array:
    if size == 1 or x.shape[0] % size:
      return x
    return jax.lax.with_sharding_constraint(x, by_row(mesh))

  return jax.tree.map(constrain, tree)


def gather_rows(tree: Any, mesh: Mesh) -> Any:
  """Asks the compiler for all rows on every device inside jit."""
  if mesh.shape['data'] == 1:
    return tree
  sharding = replicated(mesh)
  return jax.tree.map(
      lambda x: jax.lax.with_sharding_constraint(x, sharding), tree
  )


def describe_devices() -> str:
  """As in results.json: platform and number, such as 'cpu:1'."""
  return f'{jax.devices()[0].platform}:{jax.device_count()}'


def device_memory() -> int | None:
  """Peak bytes in use on the first device, or None where it does not tell."""
  with contextlib.suppress(Exception):
    stats = jax.local_devices()[0].memory_stats()
    if stats:
      return int(stats['peak_bytes_in_use'])
  return None
