# SPDX-License-Identifier: Apache-2.0
"""Meshes, shardings, and what a single process need not wait for.

Two real processes are in training/test_processes.py.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.training import runtime as runtime_lib

pytestmark = pytest.mark.usefixtures('quick_compilation')


def make_mesh(num_devices=None, model=1):
  return parallel.make_mesh(config.MeshConfig(model=model), num_devices)


@pytest.mark.parametrize(
    'num_devices, model, shape',
    [(None, 1, (8, 1)), (1, 1, (1, 1)), (6, 2, (3, 2)), (8, 8, (1, 8))],
)
def test_mesh_has_two_axes(num_devices, model, shape):
  mesh = make_mesh(num_devices, model)
  assert mesh.axis_names == ('data', 'model')
  assert mesh.devices.shape == shape


def test_axes_that_do_not_fit_the_devices_are_told():
  with pytest.raises(errors.UserError) as caught:
    make_mesh(8, 3)
  assert 'config.mesh.model is 3, but there are 8 devices' in str(caught.value)


def test_a_gather_from_a_replicated_table_by_split_rows_works():
  """Under explicit axes, the default of JAX, it is an error."""
  mesh = make_mesh()
  table = parallel.place(np.arange(20.0).reshape(10, 2), mesh)
  rows = jax.device_put(np.arange(8), parallel.by_row(mesh))
  got = jax.jit(lambda table, rows: table[rows])(table, rows)
  np.testing.assert_array_equal(got, np.arange(16.0).reshape(8, 2))


def test_placed_arrays_are_everywhere_and_local_ones_are_here():
  mesh = make_mesh()
  tree = {'x': np.arange(3.0), 'empty': {}}
  placed = parallel.place(tree, mesh)
  assert placed['x'].is_fully_replicated
  assert len(placed['x'].sharding.device_set) == 8
  here = parallel.local(placed)
  assert here['x'].sharding.device_set == {jax.local_devices()[0]}
  np.testing.assert_array_equal(here['x'], tree['x'])


@pytest.mark.parametrize('rows, split', [(16, True), (12, False), (3, False)])
def test_rows_are_split_where_they_can_be(rows, split):
  mesh = make_mesh()
  double = jax.jit(lambda x: parallel.split_rows(2 * x, mesh))
  got = double(jnp.arange(rows * 2.0).reshape(rows, 2))
  np.testing.assert_array_equal(got.ravel(), 2 * np.arange(rows * 2.0))
  assert (got.sharding.shard_shape(got.shape)[0] == rows // 8) == split
  back = jax.jit(lambda x: parallel.gather_rows(x, mesh))(got)
  assert back.is_fully_replicated


@pytest.mark.parametrize('mesh', [make_mesh(1), None])
def test_one_device_is_left_alone(mesh):
  x = jnp.ones((4, 2))
  assert parallel.num_parts(mesh) == 1
  assert parallel.split_rows(x, mesh) is x
  assert parallel.gather_rows(x, mesh) is x
  assert parallel.over_rows(jnp.add, mesh) is jnp.add


def test_rows_that_are_not_split_are_told():
  mesh = make_mesh(8)
  assert runtime_lib.unsplit_note((1024, 512), mesh) == ''
  assert runtime_lib.unsplit_note((1000, 12, 500), mesh) == (
      '12 and 500 rows of a batch cannot be split over 8 devices, so that each '
      'of them computes all of them. Choose config.train.batch_size so that 8 '
      'divides the rows.'
  )
  assert runtime_lib.unsplit_note((3,), make_mesh(1)) == ''


def test_each_device_works_on_its_own_rows():
  """The function sees an eighth; the compiler has nothing left to split."""
  mesh, seen = parallel.local_mesh(), []
  assert mesh.devices.shape == (8, 1)

  def work(whole, rows):
    seen.append((whole.shape, rows['x'].shape))
    return rows['x'] + whole.sum()

  x = np.arange(32.0).reshape(16, 2)
  rows = {'x': jax.device_put(x, parallel.by_row(mesh))}
  got = jax.jit(parallel.over_rows(work, mesh))(jnp.ones(3), rows)
  assert set(seen) == {((3,), (2, 2))}
  np.testing.assert_array_equal(got, np.arange(32.0).reshape(16, 2) + 3)
  assert got.sharding.shard_shape(got.shape) == (2, 2)


@pytest.mark.parametrize('rows', [12, 13, 2])
def test_tables_are_split_over_the_axis_model(rows):
  mesh = make_mesh(8, 4)
  tree = {
      'matrix': np.arange(rows * 3.0, dtype=np.float32).reshape(rows, 3) + 1,
      'vector': np.arange(rows),
      'empty': np.zeros((0, 0), np.int32),
  }
  placed = parallel.place_tables(tree, mesh)
  part = placed['matrix'].sharding.shard_shape(placed['matrix'].shape)
  assert part == (-(-rows // 4), 3)
  assert placed['vector'].is_fully_replicated
  here = parallel.local(placed)
  assert here['matrix'].sharding.device_set == {jax.local_devices()[0]}
  np.testing.assert_array_equal(here['matrix'][:rows], tree['matrix'])
  np.testing.assert_array_equal(here['matrix'][rows:], 0)
  for name in ('vector', 'empty'):
    np.testing.assert_array_equal(here[name], tree[name])
  # A gather by rows that are split over the other axis finds them.
  pick = np.array([rows - 1, 0, 1, 0])
  by_row = jax.device_put(pick, parallel.by_row(mesh))
  got = jax.jit(lambda table, pick: table[pick])(placed['matrix'], by_row)
  np.testing.assert_array_equal(got, tree['matrix'][pick])


def test_a_single_process_needs_no_others():
  assert parallel.is_writer()
  assert parallel.on_writer(lambda: 5) == 5
  assert parallel.anywhere(True) and not parallel.anywhere(False)
  assert parallel.from_writer('"ä"') == '"ä"' and parallel.from_writer('') == ''

  def refuse():
    raise errors.UserError('Full disk.')

  with pytest.raises(errors.UserError, match='Full disk.'):
    parallel.on_writer(refuse)


@pytest.mark.parametrize(
    'given, expected',
    [
        (None, '--xla_gpu_deterministic_ops=true'),
        ('--xla_foo=1', '--xla_foo=1 --xla_gpu_deterministic_ops=true'),
        (
            '--xla_gpu_deterministic_ops=false',
            '--xla_gpu_deterministic_ops=false',
        ),
        (
            '--xla_gpu_exclude_nondeterministic_ops=true',
            '--xla_gpu_exclude_nondeterministic_ops=true',
        ),
    ],
)
def test_gpus_are_deterministic_unless_told_otherwise(
    monkeypatch, given, expected
):
  monkeypatch.delenv('XLA_FLAGS')
  if given is not None:
    monkeypatch.setenv('XLA_FLAGS', given)
  for _ in range(2):
    parallel.make_deterministic()
    assert os.environ['XLA_FLAGS'] == expected
