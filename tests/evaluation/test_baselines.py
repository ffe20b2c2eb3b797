# SPDX-License-Identifier: Apache-2.0
"""Baselines against dense formulas written out per quadrant."""

import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import baselines
from dropoutnet_jax.evaluation import ridge_method

_SETTINGS = config.EvaluationConfig(
    cutoffs=(3,), ridge_lambdas=(1.0,), ridge_smoothings=(0.0,)
)


def _scores(method, problem, quadrant):
  held_out = problem.split.evaluation[quadrant]
  rows = np.unique(held_out.user)
  found = np.asarray(method(quadrant, held_out)(rows))
  assert found.shape == (len(rows), len(held_out.candidates))
  return found, rows, held_out.candidates


def _parts(problem):
  likes = problem.likes().toarray()
  return likes, problem.user.sparse.toarray(), problem.item.sparse.toarray()


@pytest.mark.parametrize('quadrant', schema.QUADRANTS)
def test_content_knn(problem, quadrant):
  method = baselines.ContentKnn(problem, _SETTINGS)
  found, rows, candidates = _scores(method, problem, quadrant)
  likes, user, item = _parts(problem)
  if method.chosen()['power'] == 2:
    item = item**2 / np.linalg.norm(item**2, axis=1, keepdims=True)
  if quadrant in ('cold_user', 'cold_both'):
    history = user[rows] @ user.T @ likes
  else:
    history = likes[rows]
  expected = history @ item @ item[candidates].T
  if quadrant == 'cold_user':
    expected = history[:, candidates]
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('quadrant', schema.QUADRANTS)
def test_ideal_popularity(problem, quadrant):
  found, _, candidates = _scores(baselines.ideal_popularity, problem, quadrant)
  pairs = problem.split.evaluation[quadrant].item.tolist()
  for row in found:
    assert row.tolist() == [pairs.count(item) for item in candidates]


@pytest.mark.parametrize('quadrant', schema.QUADRANTS)
def test_ease(problem, quadrant):
  method = baselines.Ease(problem, 5.0)
  found, rows, candidates = _scores(method, problem, quadrant)
  likes, _, _ = _parts(problem)
  inverse = np.linalg.inv(likes[:, :30].T @ likes[:, :30] + 5.0 * np.eye(30))
  weights = np.zeros((30, 40))
  weights[:, :30] = np.eye(30) - inverse / np.diag(inverse)
  expected = likes[rows][:, :30] @ weights[:, candidates]
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
  assert expected.any() == (quadrant == 'warm')
  if quadrant == 'warm':
    return
  told = np.zeros((len(rows), 40), np.float32)
  told[:, [3, 35]] = 1  # one that training knows, one that it does not
  told = method.told(rows, scipy.sparse.csr_array(told))
  found, _, _ = _scores(told, problem, quadrant)
  expected = np.tile(weights[3, candidates], (len(rows), 1))
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('quadrant', schema.QUADRANTS)
def test_content_ridge(problem, quadrant):
  method = ridge_method.ContentRidge(problem, _SETTINGS)
  found, rows, candidates = _scores(method, problem, quadrant)
  likes, user, item = _parts(problem)
  users, items = np.arange(24), np.arange(30)
  inverse = lambda c: np.linalg.inv(c @ c.T + np.eye(len(c)))
  history = likes[np.ix_(rows, items)]
  if quadrant in ('cold_user', 'cold_both'):
    kernel = user[rows] @ user[users].T
    history = kernel @ inverse(user[users]) @ likes[np.ix_(users, items)]
  if quadrant == 'cold_user':
    expected = history[:, candidates]
  else:
    new = item[items] @ item[candidates].T
    expected = history @ inverse(item[items]) @ new
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_ridge_says_what_it_chose(problem):
  method = ridge_method.ContentRidge(problem, _SETTINGS)
  _scores(method, problem, 'cold_item')
  chosen = method.chosen()['item']
  assert chosen['lambda'] == 1.0 and chosen['smoothing'] == 0.0
  assert list(chosen['ndcg']) == ['lambda 1, smoothing 0']


@pytest.mark.parametrize('quadrant', schema.QUADRANTS)
def test_methods_without_content_are_constant(make_problem, quadrant):
  problem = make_problem(user_content=False, item_content=False)
  for method in (
      baselines.ContentKnn(problem, _SETTINGS),
      ridge_method.ContentRidge(problem, _SETTINGS),
  ):
    found, _, _ = _scores(method, problem, quadrant)
    assert not np.any(found)


def test_popularity_counts_training_pairs(problem):
  method = baselines.make_popularity(problem)
  found, _, candidates = _scores(method, problem, 'warm')
  expected = problem.likes().toarray().sum(axis=0)[candidates]
  np.testing.assert_array_equal(found, np.tile(expected, (len(found), 1)))


def test_teacher_is_the_dot_of_factors_and_chance_for_cold(problem):
  method = baselines.make_teacher(problem)
  found, rows, candidates = _scores(method, problem, 'warm')
  factors = problem.factors
  expected = factors.user[rows] @ factors.item[candidates].T
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  assert not np.any(_scores(method, problem, 'cold_item')[0])


def test_random_is_a_function_of_user_and_seed_alone(problem):
  held_out = problem.split.evaluation['cold_item']
  score = baselines.make_random(3)('cold_item', held_out)
  whole = np.asarray(score(np.arange(10)))
  np.testing.assert_array_equal(
      np.asarray(score(np.array([7, 2]))), whole[[7, 2]]
  )
  other = baselines.make_random(4)('cold_item', held_out)
  assert not np.array_equal(other(np.arange(10)), whole)
  assert len(np.unique(whole)) == whole.size


def test_oracle_is_the_truth(problem):
  truth = np.random.default_rng(0).random((30, 40))
  found, rows, candidates = _scores(
      baselines.make_oracle(truth), problem, 'cold_both'
  )
  np.testing.assert_array_equal(found, truth[np.ix_(rows, candidates)])


def test_predict_factors_recovers_a_linear_map():
  rng = np.random.default_rng(0)
  content = rng.normal(size=(200, 6)).astype(np.float32)
  factors = (content @ rng.normal(size=(6, 3)) + 2.0).astype(np.float32)
  train = np.arange(150)
  found = baselines.predict_factors(content, factors, train)
  np.testing.assert_allclose(found[150:], factors[150:], atol=0.01)


def test_predict_factors_takes_the_best_lambda_by_leave_one_out():
  rng = np.random.default_rng(1)
  content = rng.normal(size=(20, 15)).astype(np.float32)
  factors = rng.normal(size=(20, 2)).astype(np.float32)  # nothing to learn
  found = baselines.predict_factors(content, factors, np.arange(20))
  x = np.hstack([content, np.ones((20, 1))]).astype(np.float64)
  errors = {}
  for strength in 10.0 ** np.arange(-2, 5):
    total = 0.0
    for row in range(20):
      keep = np.arange(20) != row
      gram = x[keep].T @ x[keep] + strength * np.eye(16)
      weights = np.linalg.solve(gram, x[keep].T @ factors[keep])
      total += np.sum((factors[row] - x[row] @ weights) ** 2)
    errors[strength] = total
  best = min(errors, key=errors.get)
  gram = x.T @ x + best * np.eye(16)
  expected = x @ np.linalg.solve(gram, x.T @ factors)
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_without_content_the_mean_factor_is_predicted():
  factors = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
  found = baselines.predict_factors(
      np.zeros((9, 0), np.float32), factors, np.arange(9)
  )
  assert np.ptp(found, axis=0).max() == 0


@pytest.mark.parametrize(
    'make', [baselines.make_linear_content, baselines.make_teacher]
)
def test_scores_of_factors_are_exact_products(problem, exact_products, make):
  """All through the one product that accelerators may not round."""
  _, rows, candidates = _scores(make(problem), problem, 'cold_item')
  width = problem.factors.user.shape[1]
  assert exact_products == [((len(rows), width), (len(candidates), width))]
