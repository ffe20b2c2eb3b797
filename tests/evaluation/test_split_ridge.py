# SPDX-License-Identifier: Apache-2.0
"""Content ridge by conjugate gradients is the exact one, on any devices."""

import jax
import numpy as np
import pytest
import scipy.sparse

from benchmarks import collectives
from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax import table_shards
from dropoutnet_jax.evaluation import content_ridge
from dropoutnet_jax.evaluation import split_ridge

pytestmark = pytest.mark.usefixtures('quick_compilation')

ROWS, COLUMNS, NEW = 45, 30, 9  # 8 divides none of them
SOLVER = content_ridge.Solver(max_gram=1, tolerance=1e-6)


def content_of(num_rows, seed):
  """Rows of norm 1, some of them empty."""
  rng = np.random.default_rng(seed)
  dense = rng.random((num_rows, COLUMNS)) * (
      rng.random((num_rows, COLUMNS)) < 0.2
  )
  dense[::7] = 0
  norm = np.linalg.norm(dense, axis=1, keepdims=True)
  dense = dense / np.where(norm > 0, norm, 1)
  return scipy.sparse.csr_array(dense.astype(np.float32))


def make_mesh(num_devices):
  return parallel.make_mesh(config.MeshConfig(), num_devices)


@pytest.mark.parametrize('num_devices', [1, 8])
@pytest.mark.parametrize('regularization', [0.1, 10.0])
def test_it_solves_the_system(num_devices, regularization, monkeypatch):
  monkeypatch.setattr(split_ridge, '_PIECE_FLOATS', 64)  # many pieces
  content = content_of(ROWS, 0)
  right = np.random.default_rng(1).normal(size=(ROWS, 3)).astype(np.float32)
  right[:, 1] = 0
  mesh = make_mesh(num_devices)
  found = split_ridge.System(content, mesh).solve(right, regularization, 1e-6)
  gram = (content @ content.T).toarray().astype(np.float64)
  expected = np.linalg.solve(gram + regularization * np.eye(ROWS), right)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_beyond_a_cholesky_it_is_what_the_cholesky_gives():
  """Where both fit: scores and predicted histories."""
  content, candidates = content_of(ROWS, 0), content_of(NEW, 2)
  likes = np.float32(np.random.default_rng(3).random((12, ROWS)) < 0.2)
  for regularization in (0.5, 5.0):
    exact = content_ridge.fit(content, candidates, regularization)
    found = content_ridge.fit(content, candidates, regularization, SOLVER)
    assert isinstance(found, split_ridge.ConjugateRidge)
    for histories in (likes, scipy.sparse.csr_array(likes)):
      np.testing.assert_allclose(
          found.scores(histories), exact.scores(histories), rtol=1e-4, atol=1e-5
      )
    by_rows = scipy.sparse.csr_array(likes.T)
    for part in (slice(0, NEW), slice(2, 5)):
      np.testing.assert_allclose(
          found.histories(by_rows, part),
          exact.histories(by_rows, part),
          rtol=1e-4,
          atol=1e-5,
      )


def test_lambda_is_chosen_as_by_the_exact_form():
  content = content_of(ROWS, 0)
  likes = scipy.sparse.csr_array(
      np.float32(np.random.default_rng(4).random((30, ROWS)) < 0.2)
  )
  search = content_ridge.Search(smoothings=(0.0,))
  exact = content_ridge.choose_for_items(content, likes, search)
  found = content_ridge.choose_for_items(content, likes, search, SOLVER)
  assert found.regularization == exact.regularization
  assert found.ndcg == pytest.approx(exact.ndcg, rel=1e-5)


def test_what_travels_is_columns_and_not_rows():
  mesh, sent = make_mesh(8), []
  for num_rows in (64, 640):
    content = content_of(num_rows, 0)
    put = lambda x: table_shards.put_parts(x, table_shards.USERS, mesh)
    nonzeros = split_ridge._nonzeros(content, num_rows // 8, 8)
    program = split_ridge._conjugate_gradients.lower(
        tuple(put(x) for x in nonzeros),
        put(np.zeros((8, num_rows // 8 * 4), np.float32)),
        np.float32(1),
        np.float32(1e-3),
        4,
        COLUMNS,
        mesh,
    ).compile()
    sent.append(collectives.bytes_by_kind(program.as_text()))
  assert sent[0] == sent[1] and set(sent[0]) == {'all-reduce'}
  # C' z of 4 vectors in a step; what they square to; and the first squares.
  assert sent[0]['all-reduce'] < 2 * 4 * COLUMNS * 4
  assert len(jax.devices()) == 8


def test_who_does_not_get_there_is_told(monkeypatch):
  split_ridge._conjugate_gradients.clear_cache()
  monkeypatch.setattr(split_ridge, '_MOST_STEPS', 1)
  right = np.random.default_rng(1).normal(size=(ROWS, 2)).astype(np.float32)
  system = split_ridge.System(content_of(ROWS, 0), make_mesh(1))
  with pytest.raises(errors.UserError, match='after 1 steps.*ridge_tolerance'):
    system.solve(right, 1e-3, 1e-6)
  split_ridge._conjugate_gradients.clear_cache()
