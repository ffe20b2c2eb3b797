# SPDX-License-Identifier: Apache-2.0
"""Beliefs against the maximum that a general optimiser finds."""

import numpy as np
import pytest
from scipy import optimize

from dropoutnet_jax.exploring import posterior

ITEMS, WIDTH, ROWS = 4, 3, 200
OFFSET = -0.7


def _impressions(seed=0):
  rng = np.random.default_rng(seed)
  item = rng.integers(0, ITEMS - 1, ROWS)  # the last one is never shown
  inputs = rng.normal(size=(ROWS, WIDTH))
  click = (rng.random(ROWS) < 0.3) * 1.0
  return item, inputs, OFFSET, click


def _prior(seed=1):
  rng = np.random.default_rng(seed)
  root = rng.normal(size=(WIDTH, WIDTH))
  return posterior.start(
      rng.normal(size=(ITEMS, WIDTH)), root @ root.T + 0.1 * np.eye(WIDTH)
  )


def _slow(mean, precision, inputs, click, free):
  """The mode of one item, over the numbers that are free."""

  def cost(x):
    whole = mean.copy()
    whole[free] = x
    logit = inputs @ whole + OFFSET
    gap = whole - mean
    loss = np.sum(np.logaddexp(0, logit) - click * logit)
    return loss + 0.5 * gap @ precision @ gap

  found = mean.copy()
  found[free] = optimize.minimize(cost, mean[free], tol=1e-10).x
  return found


@pytest.mark.parametrize('free', [slice(None), slice(2, None)])
def test_the_mode_and_the_curve_there(free):
  before, (item, inputs, offset, click) = _prior(), _impressions()
  after = posterior.update(before, item, inputs, offset, click, free)
  for one in range(ITEMS):
    own = item == one
    expected = _slow(
        before.mean[one], before.precision[one], inputs[own], click[own], free
    )
    np.testing.assert_allclose(after.mean[one], expected, atol=2e-3)
    chance = 1 / (1 + np.exp(-(inputs[own] @ after.mean[one] + offset)))
    curve = (inputs[own] * (chance * (1 - chance))[:, None]).T @ inputs[own]
    np.testing.assert_allclose(
        after.precision[one], before.precision[one] + curve, atol=2e-3
    )
  np.testing.assert_array_equal(after.mean[-1], before.mean[-1])
  np.testing.assert_array_equal(after.precision[-1], before.precision[-1])


def test_the_order_is_of_no_matter_and_nothing_is_changed_in_place():
  before, (item, inputs, offset, click) = _prior(), _impressions()
  kept = before.mean.copy(), before.precision.copy()
  one = posterior.update(before, item, inputs, offset, click)
  order = np.random.default_rng(2).permutation(ROWS)
  other = posterior.update(
      before, item[order], inputs[order], offset, click[order]
  )
  for a, b, c, d in zip(one, other, before, kept):
    np.testing.assert_allclose(a, b)
    np.testing.assert_array_equal(c, d)
  none = slice(0)
  assert (
      posterior.update(before, item[none], inputs[none], offset, click[none])
      is before
  )


def test_impressions_narrow_along_what_was_seen():
  before = posterior.start(np.zeros((1, 2)), np.eye(2))
  seen, other = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
  after = before
  widths = []
  for _ in range(5):
    after = posterior.update(
        after, np.zeros(10, int), np.repeat(seen, 10, 0), 0.0, np.zeros(10)
    )
    widths.append(posterior.deviation(after, seen)[0, 0])
  assert np.all(np.diff([1.0, *widths]) < 0)
  assert posterior.deviation(after, other)[0, 0] == pytest.approx(1)
  assert after.mean[0, 0] < -1 and after.mean[0, 1] == pytest.approx(0)


def test_a_strange_start_does_not_run_away():
  """Clicks that were held for impossible: steps are short, and get there."""
  before = posterior.start(np.full((1, 1), -30.0), np.full((1, 1), 400.0))
  after = before
  for _ in range(20):
    after = posterior.update(
        after, np.zeros(5, int), np.ones((5, 1)), 0.0, np.ones(5)
    )
  assert -5 < after.mean[0, 0] < 40


def test_draws_have_the_mean_and_the_covariance():
  belief = _prior()
  drawn = posterior.draw(np.random.default_rng(0), belief, 40_000)
  for one in range(ITEMS):
    expected = np.linalg.inv(belief.precision[one])
    np.testing.assert_allclose(
        drawn[:, one].mean(axis=0), belief.mean[one], atol=0.05
    )
    np.testing.assert_allclose(
        np.cov(drawn[:, one].T), expected, atol=0.05 * np.trace(expected)
    )
