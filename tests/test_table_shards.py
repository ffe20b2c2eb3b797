# SPDX-License-Identifier: Apache-2.0
"""Rows taken out of split tables and put back, at the edges of the shards."""

import jax
import numpy as np
import pytest

from benchmarks import collectives
from dropoutnet_jax import config
from dropoutnet_jax import parallel
from dropoutnet_jax import table_shards

pytestmark = pytest.mark.usefixtures('quick_compilation')

ROWS = np.array([0, 31, 32, 63, 64, 100, 255, 256, 256], np.int32)  # of 256
NUM = 7  # of them that are rows
MESHES = {'1x1': (1, 1), '8x1': (8, 1), '2x4': (8, 4), '1x8': (8, 8)}


def make_mesh(name):
  num_devices, model = MESHES[name]
  return parallel.make_mesh(config.MeshConfig(model=model), num_devices)


def make_table(mesh, shape):
  values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  return values, jax.device_put(values, table_shards.split_rows(shape, mesh))


@pytest.mark.parametrize('shape', [(256, 3), (256,)])
@pytest.mark.parametrize('name', MESHES)
def test_rows_are_taken_and_put_back(name, shape):
  mesh = make_mesh(name)
  values, table = make_table(mesh, shape)
  taken = jax.jit(lambda t, r: table_shards.take(t, r, mesh))(table, ROWS)
  assert taken.is_fully_replicated
  np.testing.assert_array_equal(taken[:NUM], values[ROWS[:NUM]])
  put = jax.jit(
      lambda t, r, v: table_shards.put(t, r, v, mesh), donate_argnums=0
  )
  compiled = put.lower(table, ROWS, 2 * taken).compile()
  # In place, and nothing travels.
  assert compiled.memory_analysis().alias_size_in_bytes == (
      table.addressable_data(0).nbytes
  )
  assert 'all-' not in compiled.as_text()
  found = put(table, ROWS, 2 * taken)
  values[ROWS[:NUM]] *= 2
  np.testing.assert_array_equal(found, values)
  assert found.sharding.is_equivalent_to(
      table_shards.split_rows(shape, mesh), len(shape)
  )


def test_no_mesh_is_one_device():
  values = np.arange(12.0).reshape(6, 2)
  table, rows = jax.numpy.asarray(values), np.array([1, 5, 6])
  np.testing.assert_array_equal(
      table_shards.take(table, rows[:2], None), values[[1, 5]]
  )
  found = table_shards.put(table, rows, np.zeros((3, 2)), None)
  values[[1, 5]] = 0
  np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize(
    'name, rows, is_split',
    [
        ('2x4', 256, True),
        ('1x8', 256, True),
        ('2x4', 250, False),  # four devices do not divide it
        ('2x4', 128, False),  # small
        ('8x1', 256, False),
    ],
)
def test_large_tables_are_split_where_they_can_be(name, rows, is_split):
  mesh = make_mesh(name)
  sharding = table_shards.split_rows((rows, 3), mesh)
  parts = mesh.shape['model'] if is_split else 1
  assert sharding.shard_shape((rows, 3)) == (rows // parts, 3)


@pytest.mark.parametrize('name', ['1x1', '2x4', '1x8'])
def test_other_rows_lie_where_the_table_does(name):
  """And nothing travels for them."""
  mesh = make_mesh(name)
  values = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
  table = table_shards.put_parts(values, table_shards.CANDIDATES, mesh)
  rows, new = np.array([63, 0, 17]), np.ones((3, 3), np.float32)
  found = table_shards.with_rows(table, rows, new)
  assert found.sharding == table.sharding
  values[rows] = 1
  np.testing.assert_array_equal(found, values)
  program = table_shards._set_rows.lower(table, rows, new, table.sharding)
  assert not collectives.collectives(program.compile().as_text())


def test_rows_of_numpy_tables_are_changed_too():
  found = table_shards.with_rows(
      np.zeros(3, bool), np.array([1]), np.ones(1, bool)
  )
  np.testing.assert_array_equal(found, [False, True, False])
