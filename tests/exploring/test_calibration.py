# SPDX-License-Identifier: Apache-2.0
"""The map and the scale, found again where they were planted."""

import numpy as np
import pytest
from scipy import special

from dropoutnet_jax.exploring import calibration
from dropoutnet_jax.exploring import uncertainty

_PASSES = 12


def _planted(
    scale, slope=1.5, items=160, users=250, seed=0, num_passes=_PASSES
):
  """Likes of items that are off by `scale` times what passes tell of them."""
  rng = np.random.default_rng(seed)
  mean = rng.normal(size=(users, items)).astype(np.float32)
  spread = rng.uniform(0.2, 0.6, items)
  own = rng.normal(size=(num_passes, 1, items)) * spread
  # What differs from user to user tells nothing of an item as a whole.
  noise = 0.1 * rng.normal(size=(num_passes, users, items))
  off = scale * spread * rng.normal(size=items)
  odds = -2 + slope * (mean + off)
  liked = rng.random(odds.shape) < special.expit(odds)
  passes = (mean + own + noise).astype(np.float32)
  return calibration.Pairs(mean, passes, liked), special.expit(
      -2 + slope * mean
  )


@pytest.mark.parametrize('scale', [0.0, 0.5, 1.0, 2.5])
def test_the_scale_is_found_again(scale):
  found = np.mean(
      [calibration.fit(_planted(scale, seed=n)[0], n).scale for n in range(2)]
  )
  assert found == pytest.approx(scale, rel=0.3, abs=0.15)


def test_the_map_is_that_of_the_likes_and_never_falls():
  pairs, chance = _planted(0.0)
  fitted = calibration.fit(pairs, 0)
  assert (np.diff(fitted.chance) >= 0).all()
  assert (np.diff(fitted.score) >= 0).all()
  assert fitted.slope == pytest.approx(1.5, rel=0.05)
  found = fitted.chance_of(pairs.mean)
  assert np.abs(found - chance).mean() < 0.02
  assert found.mean() == pytest.approx(pairs.liked.mean(), rel=0.03)


def test_scores_that_say_nothing_have_no_spread_either():
  pairs, _ = _planted(1.0)
  wrong = calibration.Pairs(-pairs.mean, -pairs.passes, pairs.liked)
  fitted = calibration.fit(wrong, 0)
  assert (fitted.slope, fitted.scale) == (0, 0)
  assert np.ptp(fitted.chance) < 0.05


def test_the_tables_hold_on_items_that_were_not_fitted_on():
  pairs, _ = _planted(1.5)
  table = calibration.table(pairs, 0)
  assert sum(one['pairs'] for one in table.bins) == pairs.liked.size
  predicted = [one['predicted'] for one in table.bins]
  assert predicted == sorted(predicted) and len(predicted) > 6
  inside = [
      one['low'] - 0.02 <= one['predicted'] <= one['high'] + 0.02
      for one in table.bins
  ]
  assert np.mean(inside) >= 0.8
  for one in table.bins:
    assert 0 <= one['low'] <= one['observed'] <= one['high'] <= 1
  assert sum(one['items'] for one in table.spread_bins) == 160
  for one in table.spread_bins:
    assert one['observed'] == pytest.approx(one['predicted'], rel=0.6)
  # What masks say is much, is more.
  low, *_, high = table.spread_bins
  assert high['observed'] > low['observed']


@pytest.mark.parametrize('items', [2, 9])
def test_few_items_are_no_table(items):
  pairs, _ = _planted(1.0, items=items)
  assert not pairs.can_be_fitted
  assert calibration.table(pairs, 0) == calibration.Table([], [])


def test_draws_are_around_the_mean_with_the_variance_that_is_asked_for():
  rng = np.random.default_rng(0)
  mean = rng.normal(size=(3, 4)).astype(np.float32)
  passes = rng.normal(size=(5, 3, 4)).astype(np.float32)
  found = uncertainty.centred(mean, passes, 2.0)
  np.testing.assert_allclose(found.mean(axis=0), mean, atol=1e-6)
  want = 4 * passes.var(axis=0, ddof=1)
  np.testing.assert_allclose(found.var(axis=0), want, rtol=1e-4)
  one = uncertainty.centred(mean, passes[:1], 2.0)
  np.testing.assert_array_equal(one, mean[None])
