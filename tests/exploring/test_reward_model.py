# SPDX-License-Identifier: Apache-2.0
"""Rewards of scores: known curves are found, and nobody predicts herself."""

import numpy as np
import pytest
from sklearn import linear_model

from dropoutnet_jax.exploring import reward_model


def _clicks(count=4000, slope=1.7, offset=-2.0):
  rng = np.random.default_rng(0)
  score = rng.normal(3.0, 2.0, count)
  chance = 1 / (1 + np.exp(-(slope * (score - 3) + offset)))
  return score, (rng.random(count) < chance) * 1.0


def test_a_logistic_curve_as_another_library_fits_it():
  score, reward = _clicks()
  model = reward_model.fit(score, reward)
  other = linear_model.LogisticRegression(C=np.inf, tol=1e-10)
  other.fit(score[:, None], reward)
  # A little ridge of our own.
  assert model.slope == pytest.approx(other.coef_[0, 0], rel=0.03)
  assert model.is_logistic
  expected = other.predict_proba(score[:, None])[:, 1]
  np.testing.assert_allclose(model(score), expected, atol=0.01)


def test_a_line_and_constants():
  score = np.linspace(-1, 1, 9)
  model = reward_model.fit(score, 3 * score - 2)
  np.testing.assert_allclose(model(score), 3 * score - 2, atol=1e-12)
  assert reward_model.fit(score, np.full(9, 0.25))(5.0) == 0.25
  assert reward_model.fit(np.ones(9), score**2)(5.0) == np.mean(score**2)
  assert reward_model.fit(np.zeros(0), np.zeros(0))(1.0) == 0.0


def test_separable_clicks_stay_finite():
  score = np.linspace(-1, 1, 20)
  model = reward_model.fit(score, (score > 0) * 1.0)
  assert np.isfinite([model.slope, model.offset]).all()
  assert model(1.0) > 0.95 and model(-1.0) < 0.05


def test_nobody_is_predicted_by_a_fit_of_her_own_rows():
  score, reward = _clicks(400)
  user = np.arange(400) // 4
  before = reward_model.cross_fit(user, score, reward, score[:, None] + 1)
  changed = reward.copy()
  changed[:4] = 1 - changed[:4]
  after = reward_model.cross_fit(user, score, changed, score[:, None] + 1)
  for one, other in zip(before, after):
    np.testing.assert_array_equal(one[:4], other[:4])
    assert np.any(one[4:] != other[4:])
  assert np.all(before[1][:, 0] > before[0])  # a higher score promises more


def test_one_user_alone_is_predicted_by_herself():
  found, _ = reward_model.cross_fit(
      np.zeros(3, int),
      np.arange(3.0),
      np.array([0.0, 2.0, 4.0]),
      np.ones((3, 1)),
  )
  np.testing.assert_allclose(found, [0, 2, 4], atol=1e-12)


def test_rows_that_do_not_count_are_predicted_and_not_fitted():
  user, score = np.repeat(np.arange(10), 2), np.tile([0.0, 1.0], 10)
  reward, counts = 3 * score, np.arange(20) != 5
  reward[5] = 1000.0
  found, others = reward_model.cross_fit(
      user, score, reward, np.stack([score, score + 1], axis=1), counts
  )
  np.testing.assert_allclose(found, 3 * score, atol=1e-9)
  np.testing.assert_allclose(others[:, 1], 3 * score + 3, atol=1e-9)
