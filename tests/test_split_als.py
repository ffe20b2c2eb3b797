# SPDX-License-Identifier: Apache-2.0
"""The teacher on eight devices: factors of one, and who holds what."""

import jax
import numpy as np
import pytest

from dropoutnet_jax import config as config_lib
from dropoutnet_jax import parallel
from dropoutnet_jax import split_als
from dropoutnet_jax import teacher
from dropoutnet_jax.data import schema
from benchmarks import collectives
from tests import toy_likes

pytestmark = pytest.mark.usefixtures('quick_compilation')

MESHES = {'8x1': (8, 1), '2x4': (8, 4), '1x8': (8, 8), '1x1': (1, 1)}


def make_mesh(name):
  num_devices, model = MESHES[name]
  return parallel.make_mesh(config_lib.MeshConfig(model=model), num_devices)


def settings(**fields):
  small = dict(
      rank=toy_likes.RANK, regularization=0.5, confidence=4.0, num_iterations=5
  )
  return config_lib.TeacherConfig(**{**small, **fields})


def train(likes, mesh, **fields):
  pairs = likes.tocoo()
  rows = schema.Interactions(
      pairs.row.astype(np.int32), pairs.col.astype(np.int32), pairs.data
  )
  return teacher.train(rows, *likes.shape, settings(**fields), 0, mesh)


@pytest.mark.parametrize(
    'mesh, weighted, cg_steps',
    [('8x1', True, 0), ('2x4', False, 0), ('2x4', True, 3), ('1x8', True, 0)],
)
def test_factors_are_those_of_one_device(mesh, weighted, cg_steps):
  likes = toy_likes.some_likes(weighted=weighted)
  one, many = (
      train(likes, make_mesh(name), cg_steps=cg_steps) for name in ('1x1', mesh)
  )
  for name in ('user', 'item'):
    expected, found = getattr(one, name), getattr(many, name)
    assert np.abs(expected).max() > 0.1
    # Steps cut short keep what rounding does to their directions.
    atol = 1e-4 if cg_steps else 1e-5
    np.testing.assert_allclose(found, expected, atol=atol)
    nothing = ~getattr(one, f'{name}_present')
    np.testing.assert_array_equal(found[nothing], 0)


# Around the borders of what is padded to one length; see test_normal_equations.
LENGTHS = [0, 1, 7, 8, 64, 0, 65, 96, 97, 128]


@pytest.mark.parametrize('mesh', ['8x1', '2x4'])
@pytest.mark.parametrize('rank', [1, 100])
def test_a_half_step_of_all_lengths_is_the_formula(mesh, rank):
  """Both systems; more devices than rows of a length."""
  likes = toy_likes.likes_of(LENGTHS, 150, seed=rank)
  factors = toy_likes.draw_factors(150, rank, seed=1)
  is_liked = np.zeros(150, bool)
  is_liked[likes.indices] = True
  factors *= is_liked[:, None]  # as a half-step before would leave them
  config = settings(rank=rank, confidence=10.0, regularization=1.0)
  mesh = make_mesh(mesh)
  by_user, by_item = split_als.lay_out(likes, likes.T.tocsr(), config, mesh)
  found = by_user.to_host(by_user.solve(by_item.place(factors)))
  expected = toy_likes.slow_solve(factors, likes, 10.0, 1.0)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)


def test_no_device_holds_the_tables_of_both_sides():
  """Nor one of them whole; read from the arrays and from the programs."""
  likes = toy_likes.likes_of([6] * 900, 700, seed=0)
  mesh = make_mesh('2x4')
  by_user, by_item = split_als.lay_out(likes, likes.T.tocsr(), settings(), mesh)
  item = by_item.place(np.ones((700, toy_likes.RANK), np.float32))
  user = by_user.solve(item)
  own, whole = {x.shape[0] for x in (user, item)}, by_user.share * 8
  assert own == {whole}
  for table in (user, item):
    assert table.addressable_data(0).shape[0] == whole // 8
  rows, inverse = split_als._whiten(item, 0.5, mesh)
  assert rows.addressable_data(0).shape[0] == whole // 4
  chunk = by_user.chunks[0]
  assert chunk.liked.addressable_data(0).shape[0] == len(chunk.liked) // 8
  for program, given in (
      (split_als._whiten, (item, 0.5, mesh)),
      (split_als._solve_chunk, (rows, chunk, 0, mesh)),
      (split_als._join, ([user], inverse, by_user.share, mesh)),
  ):
    text = program.lower(*given).compile().as_text()
    for one in collectives.operations(text):
      for array in one.arrays:
        assert whole not in array.shape, one.text
    if program is split_als._join:
      assert not collectives.collectives(text)


def test_without_a_mesh_all_devices_of_the_process_take_part(monkeypatch):
  meshes, lay_out = [], split_als.lay_out

  def tell(*args):
    meshes.append(args[-1])
    return lay_out(*args)

  monkeypatch.setattr(split_als, 'lay_out', tell)
  train(toy_likes.some_likes(), None, num_iterations=1)
  assert [mesh.shape for mesh in meshes] == [{'data': 8, 'model': 1}]
  assert len(jax.devices()) == 8
