# SPDX-License-Identifier: Apache-2.0
"""One half-step of ALS against the formula, row by row."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import normal_equations
from tests import toy_likes

pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.fixture
def tiny_chunks(monkeypatch):
  """Makes rows of 50 likes long ones; traces must not outlive the constant."""
  normal_equations._solve_chunk.clear_cache()
  monkeypatch.setattr(normal_equations, '_CHUNK_FLOATS', 128)
  yield
  normal_equations._solve_chunk.clear_cache()


# Lengths around the borders: none, one, the shortest padded length (8), a power
# of two (64), three quarters of one (96). Lengths from the rank on are solved
# by the other of the two systems.
LENGTHS = [0, 1, 7, 8, 64, 0, 65, 96, 97, 128]


@pytest.mark.parametrize('rank', [1, 100])
def test_solve_matches_the_formula_row_by_row(rank):
  likes = toy_likes.likes_of(LENGTHS, 150, seed=rank)
  factors = toy_likes.draw_factors(150, rank, seed=1)
  expected = toy_likes.slow_solve(factors, likes, 10.0, 1.0)
  found = toy_likes.fast_solve(factors, likes, 10.0, 1.0)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize('rank', [1, 100])
def test_conjugate_gradients_approach_the_exact_solution(rank):
  likes = toy_likes.likes_of(LENGTHS, 150, seed=rank)
  factors = jnp.asarray(toy_likes.draw_factors(150, rank, seed=1))
  plan = normal_equations.make_plan(likes, 1.0, rank)
  fixed = normal_equations.whiten(factors, 1.0)
  exact = np.asarray(normal_equations.solve(fixed, plan))
  gaps = []
  for cg_steps in (1, 3, 40):
    found = np.asarray(normal_equations.solve(fixed, plan, cg_steps))
    np.testing.assert_array_equal(found[[0, 5]], np.zeros((2, rank)))
    gaps.append(np.linalg.norm(found - exact) / np.linalg.norm(exact))
  if rank == 1:  # there is one direction, and so one step
    assert max(gaps) < 1e-4
  else:
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[1] < 0.3 and gaps[2] < 1e-4


@pytest.mark.parametrize('cg_steps', [4, 5, 200])
def test_far_more_steps_than_needed_stay_at_the_solution(cg_steps):
  likes = toy_likes.some_likes()
  likes.data += 0.1
  factors = toy_likes.draw_factors(toy_likes.ITEMS, toy_likes.RANK, seed=1)
  plan = normal_equations.make_plan(likes, 10.0, toy_likes.RANK)
  fixed = normal_equations.whiten(jnp.asarray(factors), 1.0)
  found = np.asarray(normal_equations.solve(fixed, plan, cg_steps))
  assert np.isfinite(found).all()
  if (
      cg_steps > toy_likes.RANK
  ):  # then conjugate gradients are exact, up to rounding
    expected = toy_likes.slow_solve(factors, likes, 10.0, 1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_rows_too_long_to_gather_at_once_are_solved_exactly(tiny_chunks):
  likes = toy_likes.likes_of([50, 3, 60], 150, seed=3)
  factors = jnp.asarray(toy_likes.draw_factors(150, 16, seed=4))
  plan = normal_equations.make_plan(likes, 10.0, 16)
  fixed = normal_equations.whiten(factors, 1.0)
  exact = np.asarray(normal_equations.solve(fixed, plan))
  found = np.asarray(normal_equations.solve(fixed, plan, cg_steps=1))
  np.testing.assert_array_equal(found[[0, 2]], exact[[0, 2]])
  assert not np.allclose(found[1], exact[1], rtol=1e-4)


def test_chunks_and_pieces_do_not_change_the_solution(tiny_chunks):
  rank = 16
  likes = toy_likes.likes_of([5] * 7 + [50, 0, 60, 30], 150, seed=3)
  factors = toy_likes.draw_factors(150, rank, seed=4)
  plan = normal_equations.make_plan(likes, 10.0, rank)
  assert len(plan.chunks) == 10
  longest = max(chunk.liked.shape[1] for chunk in plan.chunks)
  assert longest > 128 // rank  # so that some rows are gathered in pieces
  expected = toy_likes.slow_solve(factors, likes, 10.0, 1.0)
  found = toy_likes.fast_solve(factors, likes, 10.0, 1.0)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)


def test_a_row_by_hand():
  # One factor column: x = sum of c y over the likes / (sum of c y^2 + lambda),
  # where what is not liked has c = 1 in the denominator alone.
  factors = np.array([[1.0], [2.0], [3.0]], np.float32)
  likes = scipy.sparse.csr_array(np.array([[2.0, 0.0, 1.0]], np.float32))
  # confidence 10: c = 21, 1, 11.
  expected = (21 * 1 + 11 * 3) / (21 * 1 + 1 * 4 + 11 * 9 + 0.5)
  found = toy_likes.fast_solve(factors, likes, 10.0, 0.5)
  np.testing.assert_allclose(found, [[expected]], rtol=1e-6)


def test_a_like_of_weight_0_is_a_preference_that_counts_1():
  stored = toy_likes.some_likes()
  stored.data[:] = 0
  factors = toy_likes.draw_factors(toy_likes.ITEMS, toy_likes.RANK, seed=1)
  found = toy_likes.fast_solve(factors, stored, 10.0, 1.0)
  np.testing.assert_allclose(
      found,
      toy_likes.slow_solve(factors, stored, 10.0, 1.0),
      rtol=1e-5,
      atol=1e-6,
  )
  is_zero = np.all(found == 0, axis=1)
  np.testing.assert_array_equal(np.flatnonzero(is_zero), [1, 4])


@pytest.mark.parametrize('confidence', [1e-6, 1e3, 1e5])
def test_extreme_confidence(confidence):
  likes = toy_likes.likes_of([3, 40], 60, seed=2, weighted=False)
  factors = toy_likes.draw_factors(60, 16, seed=3)
  expected = toy_likes.slow_solve(factors, likes, confidence, 1.0)
  found = toy_likes.fast_solve(factors, likes, confidence, 1.0)
  np.testing.assert_allclose(found, expected, rtol=2e-2, atol=1e-3)


def test_other_rows_and_padding_rows_do_not_matter():
  likes = toy_likes.some_likes()
  factors = toy_likes.draw_factors(toy_likes.ITEMS, toy_likes.RANK, seed=6)
  together = toy_likes.fast_solve(factors, likes, 10.0, 1.0, num_rows=50)
  alone = [
      toy_likes.fast_solve(factors, likes[[row]], 10.0, 1.0)
      for row in range(likes.shape[0])
  ]
  np.testing.assert_allclose(
      together, np.concatenate(alone), rtol=1e-5, atol=1e-6
  )


def test_plan_pads_little_and_compiles_little():
  lengths = np.random.default_rng(0).zipf(1.5, 3000).clip(0, 400).tolist()
  plan = normal_equations.make_plan(
      toy_likes.likes_of(lengths, 400, seed=0), 10.0, 200
  )
  slots = sum(chunk.liked.size for chunk in plan.chunks)
  assert slots < 6 * sum(lengths)
  assert len({chunk.liked.shape for chunk in plan.chunks}) <= 12
  real = sum(int(np.sum(chunk.extra > 0)) for chunk in plan.chunks)
  assert real == sum(lengths)
  liked = [length > 0 for length in lengths]
  assert len(np.unique(plan.position[np.array(liked)])) == sum(liked)


@pytest.mark.parametrize('length', [8, 16, 32, 64, 96, 256])
def test_no_batch_of_lapack_calls_is_shared_out(length):
  """What XLA's CPU client shares out to its threads can wait forever."""
  plan = normal_equations.make_plan(
      toy_likes.likes_of([length] * 700, 300, seed=0), 10.0, 200
  )
  rows = jnp.zeros((300, 200))
  text = normal_equations._solve_chunk.lower(rows, plan.chunks[0], 0).as_text()
  shapes = re.findall(r'@lapack_spotrf_ffi\(.*-> \(tensor<([\dx]+)xf32>', text)
  assert shapes, 'no Cholesky found: has its name changed?'
  for shape in shapes:
    batch, num_rows, _ = map(int, shape.split('x'))
    assert batch == 1 or batch * num_rows**3 / 3 < 200_000, shape


def test_both_ways_of_solving_agree():
  rng = np.random.default_rng(0)
  root = rng.normal(size=(16, 40, 40)).astype(np.float32)
  matrix = root @ root.swapaxes(1, 2) / 40 + np.eye(40, dtype=np.float32)
  right = rng.normal(size=(16, 40)).astype(np.float32)
  expected = np.linalg.solve(matrix.astype(np.float64), right[..., None])
  for solve in (
      normal_equations._solve_all,
      jax.vmap(normal_equations._cholesky_solve),
  ):
    found = solve(jnp.asarray(matrix), jnp.asarray(right))
    np.testing.assert_allclose(found, expected[..., 0], rtol=1e-4, atol=1e-5)
