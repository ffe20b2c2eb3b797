# SPDX-License-Identifier: Apache-2.0
"""Mesh and shardings: with `processes`, `joint`, `table_shards` all of devices.

Losses, batch norm and masks are written for the global batch; here is decided
where its rows live. Parameters are replicated, the rows of a batch are split
over the axis 'data', the rows of tables over the axis 'model'.
"""

from collections.abc import Callable
import contextlib
import dataclasses
import math
import os
import tempfile
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import joint

_Result = TypeVar('_Result')
_DETERMINISM = (
    'xla_gpu_deterministic_ops',
    'xla_gpu_exclude_nondeterministic_ops',
)


def make_deterministic() -> None:
  """Lets GPUs add in a fixed order, so that equal runs are equal bit for bit.

  Gradients of looked-up rows, such as embeddings, are sums of many that atomic
  operations add in any order, and which algorithm multiplies matrices is
  decided by a race at every start. XLA has fixed ones. It reads its flags with
  the first use of a device: call this before. A user's own flag stays.
  """
  given = os.environ.get('XLA_FLAGS', '')
  if not any(name in given for name in _DETERMINISM):
    os.environ['XLA_FLAGS'] = f'{given} --{_DETERMINISM[0]}=true'.strip()


def set_compile_cache(folder: str) -> str:
  """Keeps compiled programs in a folder, for the next start; '' is off.

  Returns:
    Why there is no cache, in one sentence, where the folder can't be written;
    a run only starts more slowly without it. Otherwise ''.
  """
  if not folder:
    return ''
  try:
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass  # a folder that exists may still be read-only
  except OSError as error:
    return (
        f'Compiled programs are not kept: {folder} cannot be written '
        f'({error.strerror}). Name another folder with --compile_cache.'
    )
  jax.config.update('jax_compilation_cache_dir', folder)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)
  return ''


def is_writer() -> bool:
  """Whether this process writes files; one of all processes does."""
  return jax.process_index() == 0


def on_writer(work: Callable[[], _Result]) -> _Result | None:
  """Lets the writing process work while the others wait for it.

  Every process must call this, in the same order.

  Args:
    work: reads and writes files, and computes on this process alone, but for
      what it has the others do too; see `joint.Joint`.

  Returns:
    What `work` returns; None on the processes that waited.

  Raises:
    UserError: on all processes, if `work` raised one.
  """
  if jax.process_count() == 1:
    return work()
  if is_writer():
    return joint.lead(work)
  if joint.follow():
    raise errors.UserError('Process 0 has stopped; its message says why.')
  return None


def from_writer(text: str | None) -> str:
  """Text of the writing process on all of them; the others pass None.

  Every process must call this, in the same order.
  """
  data = np.frombuffer((text or '').encode(), np.uint8)
  if jax.process_count() > 1:
    share = multihost_utils.broadcast_one_to_all
    size = int(share(np.int32(len(data))))
    data = share(data if is_writer() else np.zeros(size, np.uint8))
  return np.asarray(data, np.uint8).tobytes().decode()


def anywhere(flag: bool) -> bool:
  """Whether any process says so; all must ask at the same point."""
  return bool(total(int(flag)))


def anywhere_each(flags: np.ndarray) -> np.ndarray:
  """Which flags, bool [N], any process has set; as `anywhere`."""
  if jax.process_count() == 1:
    return flags
  return multihost_utils.process_allgather(flags).any(axis=0)


def total(number: int) -> int:
  """The sum of a number over all processes; all must ask at the same point."""
  if jax.process_count() == 1:
    return number
  return int(multihost_utils.process_allgather(np.asarray(number)).sum())


def which_process() -> tuple[int, int]:
  """Number of this process, and how many there are."""
  return jax.process_index(), jax.process_count()


def agree(is_well: bool = True) -> None:
  """Waits for all processes, until each has said whether all is well.

  Raises:
    UserError: on those where all is well, if it is not on another one.
  """
  on_writer(lambda: None)  # which may take hours
  if anywhere(not is_well) and is_well:
    raise errors.UserError('Another process has stopped; its message says why.')


def make_mesh(
    settings: config.MeshConfig,
    num_devices: int | None = None,
    devices: list[jax.Device] | None = None,
) -> Mesh:
  """Axes 'data' and 'model' over all devices, or the first of this process.

  Or over those that are given, which need not be here.

  Raises:
    UserError: if mesh.model does not divide the number of devices.
  """
  devices = devices or jax.devices()
  if num_devices is not None:
    devices = jax.local_devices()[:num_devices]
  if len(devices) % settings.model:
    raise errors.UserError(
        f'config.mesh.model is {settings.model}, but there are {len(devices)} '
        'devices; it must divide their number.'
    )
  return _mesh_of(devices, settings.model)


def fitting(settings: config.MeshConfig) -> config.MeshConfig:
  """The same for the devices that are there, where they are fewer."""
  model = math.gcd(settings.model, jax.device_count())
  return dataclasses.replace(settings, model=model)


def local_mesh() -> Mesh:
  """All devices of this process along 'data', for what it does alone."""
  return _mesh_of(jax.local_devices(), 1)


def joint_mesh() -> Mesh:
  """The same of all processes while they work together; see `joint.py`."""
  devices = jax.devices() if joint.is_open() else jax.local_devices()
  return _mesh_of(devices, 1)


def _mesh_of(devices: list[jax.Device], model: int) -> Mesh:
  # Auto: the default, Explicit, bars a gather from a replicated table.
  return jax.make_mesh(
      (len(devices) // model, model),
      ('data', 'model'),
      (AxisType.Auto, AxisType.Auto),
      devices=devices,
  )


def num_parts(mesh: Mesh | None) -> int:
  """In how many parts rows are split over 'data'; no mesh is one device."""
  return 1 if mesh is None else mesh.shape['data']


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def by_row(mesh: Mesh) -> NamedSharding:
  """Rows are split over the axis 'data'."""
  return NamedSharding(mesh, PartitionSpec('data'))


def put(x: Any, sharding: jax.sharding.Sharding) -> jax.Array:
  """Puts an array of the host on devices; each process places its own parts.

  `jax.device_put` would gather it from all processes, whole on every device.
  """
  if sharding.is_fully_addressable:
    return jax.device_put(x, sharding)
  x = np.asarray(x)
  return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def place(tree: Any, mesh: Mesh) -> Any:
  """Puts host arrays on all devices of the mesh, replicated."""
  return jax.tree.map(lambda x: put(x, replicated(mesh)), tree)


def on_host(function: Callable[..., Any]) -> Callable[..., Any]:
  """Compiles a function of NumPy values for the CPU, with NumPy results.

  For threads beside the training, which leave other devices alone; where JAX
  was told to know no CPU, it is the first device.
  """
  try:
    device = jax.local_devices(backend='cpu')[0]
  except RuntimeError:
    device = jax.local_devices()[0]
  compiled = jax.jit(function)

  def call(*given: Any) -> Any:
    with jax.default_device(device):
      return jax.device_get(compiled(*given))

  return call


def _of_batch(size: int, mesh: Mesh) -> tuple[str, ...]:
  """How the rows of a batch are split, as `split_rows` does it."""
  return () if size % num_parts(mesh) else ('data',)


def rows_of_process(size: int, mesh: Mesh) -> slice:
  """Rows of a batch of this size that devices of this process hold."""
  sharding = NamedSharding(mesh, PartitionSpec(*_of_batch(size, mesh)))
  parts = sharding.addressable_devices_indices_map((size,)).values()
  ranges = [part[0].indices(size) for part in parts if part is not None]
  return slice(min(x[0] for x in ranges), max(x[1] for x in ranges))


def place_batches(tree: Any, size: int, mesh: Mesh) -> Any:
  """Puts batches on the devices, their rows split over 'data'.

  Args:
    tree: arrays [K, rows of this process], see `rows_of_process`.
    size: rows of a batch on all processes.
    mesh: of the devices.

  Returns:
    Arrays [K, size].
  """
  sharding = NamedSharding(mesh, PartitionSpec(None, *_of_batch(size, mesh)))
  first = rows_of_process(size, mesh).start

  def put(x: np.ndarray) -> jax.Array:
    def own(index: tuple[slice, ...] | None) -> np.ndarray:
      assert index is not None  # of a device of this process
      begin, end, _ = index[1].indices(size)
      return x[:, begin - first : end - first]

    return jax.make_array_from_callback((len(x), size), sharding, own)

  return jax.tree.map(put, tree)


def place_tables(tree: Any, mesh: Mesh) -> Any:
  """Puts tables on the devices: matrices by row over 'model', vectors whole.

  Zero rows at the end make the axis divide them; nothing looks them up.
  """
  size = mesh.shape['model']

  def put_table(x: np.ndarray) -> jax.Array:
    if size == 1 or np.ndim(x) < 2 or not np.size(x):
      return put(x, replicated(mesh))
    padded = np.pad(x, ((0, -len(x) % size), (0, 0)))
    return put(padded, NamedSharding(mesh, PartitionSpec('model')))

  return jax.tree.map(put_table, tree)


def local(tree: Any) -> Any:
  """This process's copy of arrays, on its first device.

  For work that needs no other device and that each process does for itself:
  on eight devices it would otherwise be done eight times. Arrays that are
  split over the devices are gathered, for which all processes must call this.
  """

  def own(x: jax.Array) -> jax.Array:
    if not x.is_fully_replicated and isinstance(x.sharding, NamedSharding):
      whole = NamedSharding(x.sharding.mesh, PartitionSpec())
      x = jax.jit(jnp.copy, out_shardings=whole)(x)
    return x.addressable_data(0)

  return jax.tree.map(own, tree)


def over_rows(function: Callable[..., Any], mesh: Mesh | None) -> Any:
  """Makes function(whole, rows) work on each device's own rows alone.

  `whole` is on all devices, `rows` and what is returned are split over 'data'.
  For what the compiler cannot split by itself, such as calls of LAPACK.
  """
  if num_parts(mesh) == 1:
    return function
  rows = PartitionSpec('data')
  return jax.shard_map(
      function,
      mesh=mesh,
      in_specs=(PartitionSpec(), rows),
      out_specs=rows,
      axis_names={'data'},  # along 'model' the compiler may split as it likes
      check_vma=False,  # else a scan could not start from a constant
  )


def split_rows(tree: Any, mesh: Mesh | None) -> Any:
  """Asks the compiler to split the rows of arrays over 'data' inside jit.

  Rows that the axis does not divide stay replicated: a small batch on many
  devices is legal, and `unsplit_note` tells of it.
  """

  def constrain(x: jax.Array) -> jax.Array:
    if mesh is None or num_parts(mesh) == 1 or not _of_batch(len(x), mesh):
      return x
    return jax.lax.with_sharding_constraint(x, by_row(mesh))

  return jax.tree.map(constrain, tree)


def gather_rows(tree: Any, mesh: Mesh | None) -> Any:
  """Asks the compiler for all rows on every device inside jit.

  The gradient is split as `split_rows` does it: where each device adds to that
  of all rows, it gets the sum of its own.
  """
  if mesh is None or num_parts(mesh) == 1:
    return tree
  whole = replicated(mesh)

  @jax.custom_vjp
  def gather(x: jax.Array) -> jax.Array:
    return jax.lax.with_sharding_constraint(x, whole)

  gather.defvjp(
      lambda x: (gather(x), None), lambda _, x: (split_rows(x, mesh),)
  )

  def constrain(x: jax.Array) -> jax.Array:
    if jnp.issubdtype(x.dtype, jnp.floating):
      return gather(x)
    return jax.lax.with_sharding_constraint(x, whole)

  return jax.tree.map(constrain, tree)


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
