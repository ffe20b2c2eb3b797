# SPDX-License-Identifier: Apache-2.0
"""Beliefs in few directions: against the whole Gaussian, and their draws."""

import numpy as np
import pytest

from dropoutnet_jax.exploring import belief as belief_lib
from dropoutnet_jax.exploring import belief_fit
from dropoutnet_jax.exploring import posterior
from dropoutnet_jax.exploring import reward_model

USERS, ITEMS, RANK = 300, 40, 3
LINK = reward_model.RewardModel(2.0, -1.5, True)


def _residual(seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(50, RANK)) * [1.0, 0.5, 0.1] @ _rotation(rng)


def _rotation(rng):
  return np.linalg.qr(rng.normal(size=(RANK, RANK)))[0]


def _prior(number=RANK, share=0.7, level=0.4):
  directions = belief_lib.directions_of(_residual(), number)
  return belief_lib.Prior(directions, share, level, LINK)


def test_directions_are_the_principal_ones():
  residual = _residual()
  moment = residual.T @ residual / len(residual)
  whole = belief_lib.directions_of(residual, RANK)
  np.testing.assert_allclose(whole @ whole.T, moment)
  first = belief_lib.directions_of(residual, 1)
  np.testing.assert_array_equal(first, whole[:, :1])
  value = np.linalg.eigvalsh(moment)
  assert np.sum(first**2) == pytest.approx(value[-1])
  assert belief_lib.directions_of(residual, 9).shape == (RANK, RANK)


def test_with_all_directions_it_is_the_belief_of_the_whole_embedding():
  """Which posterior.py keeps as it is, with a covariance that is not white."""
  rng, prior = np.random.default_rng(1), _prior()
  users = rng.normal(size=(200, RANK))
  item, click = rng.integers(0, 4, 200), (rng.random(200) < 0.3) * 1.0
  score = rng.normal(size=200)
  found = posterior.update(
      prior.start(4),
      item,
      prior.seen(prior.inputs(users)),
      LINK.slope * score + LINK.offset,
      click,
  )
  residual = _residual()
  covariance = np.zeros((RANK + 1, RANK + 1))
  covariance[:RANK, :RANK] = prior.share * residual.T @ residual / 50
  covariance[RANK, RANK] = prior.level
  inputs = np.hstack([LINK.slope * users, np.ones((200, 1))])
  whole = posterior.update(
      posterior.start(np.zeros((4, RANK + 1)), covariance),
      item,
      inputs,
      LINK.slope * score + LINK.offset,
      click,
  )
  someone = rng.normal(size=(5, RANK))
  whole_inputs = np.hstack([LINK.slope * someone, np.ones((5, 1))])
  seen = prior.seen(prior.inputs(someone))
  np.testing.assert_allclose(
      seen @ found.mean.T, whole_inputs @ whole.mean.T, atol=1e-5
  )
  np.testing.assert_allclose(
      posterior.deviation(found, seen),
      posterior.deviation(whole, whole_inputs),
      atol=1e-6,
  )


def _of_items(prior, seed=2):
  """Beliefs after some impressions."""
  rng = np.random.default_rng(seed)
  seen = prior.seen(prior.inputs(rng.normal(size=(60, RANK))))
  click = (rng.random(60) < 0.5) * 1.0
  return posterior.update(
      prior.start(3), rng.integers(0, 3, 60), seen, -1.0, click
  )


def test_draws_have_the_mean_and_the_deviation():
  rng, prior = np.random.default_rng(3), _prior(2)
  items = _of_items(prior)
  users = prior.inputs(rng.normal(size=(4, RANK)))
  place = np.array([[0, -1, 2], [1, 2, -1], [2, 2, 0], [-1, -1, -1]])
  mean = rng.normal(size=place.shape).astype(np.float32)
  call = lambda number: belief_lib.passes(
      prior, items, users, place, mean, number, np.random.default_rng(4)
  )
  drawn = call(4000)
  assert drawn.dtype == np.float32 and drawn.shape == (4000, 4, 3)
  seen = prior.seen(users)
  row = np.arange(4)[:, None]
  moved = (seen @ items.mean.T / LINK.slope)[row, place]
  expected = np.where(place >= 0, mean + moved, mean)
  # Centred, whatever the number of draws.
  np.testing.assert_allclose(drawn.mean(axis=0), expected, atol=1e-4)
  np.testing.assert_allclose(call(3).mean(axis=0), expected, atol=1e-5)
  np.testing.assert_allclose(call(0)[0], expected, atol=1e-6)
  deviation = (posterior.deviation(items, seen) / LINK.slope)[row, place]
  np.testing.assert_allclose(
      drawn.astype(float).std(axis=0),
      np.where(place >= 0, deviation, 0),
      rtol=0.05,
      atol=1e-6,
  )
  # An item is the same in both places of a user.
  both = (drawn[:, 2] - mean[2])[:, :2]
  np.testing.assert_allclose(both[:, 0], both[:, 1], atol=1e-5)


@pytest.mark.parametrize('slope', [0.0, 2.0])
def test_where_nothing_is_believed_scores_are_as_they_are(slope):
  link = reward_model.RewardModel(slope, -1.0, True)
  directions = belief_lib.directions_of(_residual(), 2)
  prior = belief_lib.Prior(directions, 0.0, 0.0, link)
  mean = np.ones((2, 3), np.float32)
  place = np.zeros((2, 3), int)
  drawn = belief_lib.passes(
      prior,
      prior.start(1),
      np.ones((2, 2)),
      place,
      mean,
      4,
      np.random.default_rng(0),
  )
  np.testing.assert_array_equal(drawn, np.ones((4, 2, 3)))


def test_share_and_level_are_those_that_impressions_were_made_with(monkeypatch):
  monkeypatch.setattr(belief_fit, 'SHARES', (0.03, 3.0))
  monkeypatch.setattr(belief_fit, 'LEVELS', (0.01, 1.0))
  for share, level in ((3.0, 0.01), (0.03, 1.0)):
    rng, prior = np.random.default_rng(5), _prior(RANK, share, level)
    users = rng.normal(size=(USERS, RANK))
    taste = rng.normal(size=(ITEMS, RANK + 1))
    score = rng.normal(size=(USERS, ITEMS))
    seen = prior.seen(prior.inputs(users))
    logit = LINK.slope * score + LINK.offset + seen @ taste.T
    click = rng.random(logit.shape) < reward_model.sigmoid(logit)
    order = rng.permutation(click.size)[:6000]
    user, item = np.divmod(order, ITEMS)
    pairs = belief_fit.Pairs(
        item, users[user], score[user, item], click[user, item] * 1.0
    )
    found = belief_fit.fit(prior.directions, LINK, pairs)
    assert (found.share, found.level) == (share, level)


def test_the_first_part_is_predicted_by_the_prior_alone():
  """Of impressions all of which are in one part: a flattened chance."""
  prior = _prior(2)
  rng = np.random.default_rng(6)
  users = rng.normal(size=(5, RANK))
  pairs = belief_fit.Pairs(
      np.arange(5), users, rng.normal(size=5), np.array([1.0, 0, 0, 1, 0])
  )
  inputs = prior.inputs(users)
  found = belief_fit.likelihood(prior, inputs, pairs)  # each of another item
  variance = np.sum(prior.seen(inputs) ** 2, axis=1)
  logit = LINK.slope * pairs.score + LINK.offset
  chance = reward_model.sigmoid(logit / np.sqrt(1 + np.pi / 8 * variance))
  of_click = np.where(pairs.click > 0, chance, 1 - chance)
  assert found == pytest.approx(np.log(of_click).sum())
