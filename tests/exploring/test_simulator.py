# SPDX-License-Identifier: Apache-2.0
"""Rounds of a toy world: what is shown, clicked, counted and logged."""

import dataclasses

import numpy as np
import pytest

from dropoutnet_jax.exploring import measures
from dropoutnet_jax.exploring import off_policy
from dropoutnet_jax.exploring import policies
from dropoutnet_jax.exploring import simulator

USERS, ITEMS, PLACES = 12, 10, 2
ROUNDS = simulator.Rounds(number=9, users=4, places=PLACES, look_every=3)
GREEDY = policies.Policy('greedy')


class Fixed:
  """Knows scores from the beginning and learns nothing."""

  def __init__(self, scores):
    self.scores, self.told = scores, []

  def passes(self, users, number, rng):
    del rng
    return np.repeat(self.scores[None, users], max(number, 1), axis=0)

  def learn(self, user, item, click):
    self.told.append((user, item, click))


def make_world(once=False, seed=0):
  rng = np.random.default_rng(seed)
  chance = rng.random((USERS, ITEMS))
  allowed = rng.random((USERS, ITEMS)) < 0.8
  wanted = (chance > 0.6) & allowed
  is_new = np.arange(ITEMS) >= 6
  return simulator.World(
      chance, is_new, allowed, wanted, np.arange(1, USERS), once
  )


def play(world, policy=GREEDY, seed=0, rounds=ROUNDS, scores=None):
  scores = world.chance.astype(np.float32) if scores is None else scores
  learner = Fixed(scores)
  return simulator.simulate(world, learner, policy, rounds, seed), learner


def test_who_knows_the_truth_loses_nothing():
  course, learner = play(make_world())
  np.testing.assert_allclose(course.value, course.best, rtol=1e-6)
  # Lists as long as what is wanted hold exactly that.
  world = make_world()
  has = world.audience() > 0
  np.testing.assert_allclose(course.listed[:, has], 1)
  assert list(course.looks) == [0, 24, 48, 72]
  told = np.concatenate([item for _, item, _ in learner.told])
  np.testing.assert_array_equal(
      course.shown, np.bincount(told, minlength=ITEMS)
  )
  assert course.impressions[-1] == len(told) == 9 * 4 * PLACES
  assert course.clicks.sum() == sum(click.sum() for *_, click in learner.told)


def test_who_shows_the_worst_loses_the_most():
  world = make_world()
  worst, _ = play(world, scores=-world.chance.astype(np.float32))
  best, _ = play(world)
  assert worst.value.sum() < 0.5 * best.value.sum()
  assert np.all(worst.value <= worst.best)


@pytest.mark.parametrize('once', [True, False])
def test_nothing_is_shown_against_the_rules(once):
  world = make_world(once)
  course, _ = play(world, policies.Policy('epsilon', epsilon=1.0))
  user, item, rank, propensity, click = course.log
  assert world.allowed[user, item].all()
  gone = set()
  for row in zip(user, item, rank, propensity, click):
    assert row[:2] not in gone
    if once or row[4]:
      gone.add(row[:2])
  assert set(rank) == {1, 2}
  assert np.all((propensity > 0) & (propensity <= 1))
  assert set(user) <= set(world.visitors)
  new = world.is_new[item]
  assert course.new_places.sum() == new.sum() and new.any()


def test_the_same_again_and_visits_that_no_policy_changes():
  world = make_world()
  one, _ = play(world, policies.Policy('epsilon'))
  two, _ = play(world, policies.Policy('epsilon'))
  for field in dataclasses.fields(one):
    a, b = getattr(one, field.name), getattr(two, field.name)
    np.testing.assert_array_equal(np.array(a), np.array(b))
  other, _ = play(world)
  visits = lambda course: np.isfinite(course.user_value)
  np.testing.assert_array_equal(visits(one), visits(other))
  # Eleven visitors, four a round: two rounds of eight take three from none.
  assert visits(one).sum() == 36
  assert not np.array_equal(one.clicks, play(world, seed=1)[0].clicks)


def test_users_who_have_had_all_get_less():
  """Ten items, each once: the sixth visit of two places finds none."""
  world = make_world(once=True)
  rounds = dataclasses.replace(ROUNDS, number=40)
  course, _ = play(world, rounds=rounds)
  user, item, *_ = course.log
  assert len(set(zip(user, item))) == len(user)
  assert course.impressions[-1] == world.allowed[world.visitors].sum()
  assert course.value[-1] == course.best[-1] == 0


def test_clicks_are_timed_in_impressions_of_all_items():
  world = make_world()
  course, _ = play(world)
  _, item, _, _, click = course.log
  for one in range(ITEMS):
    at = np.flatnonzero((item == one) & (click > 0)) + 1
    expected = np.full(course.clicked_at.shape[1], -1)
    expected[: len(at)] = at[: len(expected)]
    np.testing.assert_array_equal(course.clicked_at[one], expected)


def test_the_log_of_one_policy_tells_what_another_would_get():
  """Off-policy estimates of a simulation, against the truth at each place."""
  rng = np.random.default_rng(5)
  shape = 400, 20
  world = simulator.World(
      0.4 * rng.random(shape),
      np.zeros(shape[1], bool),
      np.ones(shape, bool),
      rng.random(shape) < 0.1,
      np.arange(shape[0]),
  )
  scores = rng.normal(size=shape).astype(np.float32)
  rounds = simulator.Rounds(100, 40, PLACES, look_every=100)
  policy = policies.Policy('epsilon', epsilon=0.6)
  course, _ = play(world, policy, rounds=rounds, scores=scores)
  user, item, rank, propensity, click = course.log
  left = world.allowed.copy()
  best, shown = np.empty(len(user), int), []
  for n, (who, what, place) in enumerate(zip(user, item, rank)):
    shown = [] if place == 1 else shown
    free = np.where(left[who], scores[who], -np.inf)
    free[shown] = -np.inf
    best[n] = free.argmax()
    shown.append(what)
    if place == PLACES:
      for number, one in enumerate(reversed(shown)):
        left[who, one] &= click[n - number] == 0
  log = off_policy.Log(
      user=user,
      slate=np.cumsum(rank == 1) - 1,
      rank=rank,
      propensity=propensity.astype(np.float64),
      reward=click,
      target=(best == item) * 1.0,
      predicted=np.full(len(user), 0.2),
      expected=np.full(len(user), 0.2),
  )
  found = off_policy.estimate(log, 'place', 200)
  truth = world.chance[user, best].mean()
  for name in off_policy.NAMES:
    width = found[name]['high'] - found[name]['low']
    assert abs(found[name]['value'] - truth) < width < 0.1
  assert found['mean_weight']['low'] < 1 < found['mean_weight']['high']


def test_measures_of_a_course_by_hand():
  """Two good items of eight new ones: one found, one never."""
  num_items = 9
  wanted = np.zeros((4, num_items), bool)
  wanted[:3, 0], wanted[:2, 1] = True, True
  world = simulator.World(
      np.zeros((4, num_items)),
      np.arange(num_items) < 8,
      np.ones((4, num_items), bool),
      wanted,
      np.arange(4),
  )
  assert set(world.good()) >= {0, 1}
  world = dataclasses.replace(world, is_new=np.arange(num_items) < 2)
  np.testing.assert_array_equal(world.good(), [0])
  clicked_at = np.full((num_items, 10), -1)
  clicked_at[0, :2] = 30, 70
  listed = np.zeros((3, num_items))
  listed[2, 0] = 0.5
  course = simulator.Course(
      impressions=np.array([100, 200]),
      value=np.array([10.0, 30.0]),
      best=np.array([40.0, 40.0]),
      clicks=np.zeros(2),
      new_places=np.array([30, 20]),
      shown=np.array([200] + [0] * 8),
      clicked_at=clicked_at,
      listed=listed,
      looks=np.array([0, 100, 200]),
      user_value=np.array([[1.0, 2.0, 5.0], [3.0, np.nan, np.nan]]),
      user_best=np.array([[4.0, 4.0, 9.0], [5.0, np.nan, np.nan]]),
      log=(),
  )
  found = measures.measure(world, course, places=50, num_clicks=2)
  assert set(found) == set(measures.NAMES)
  # Two visits of fifty places are a hundred impressions.
  assert found['clicks'] == 3 and found['lost'] == 6.5 - 3
  assert (found['early'], found['late']) == (30, 10)
  assert (found['found'], found['unfound']) == (0.07, 0)
  assert (found['listed'], found['unlisted']) == (0.2, 0)
  assert found['new'] == 0.25 and found['gini'] == pytest.approx(8 / 9)
  never = measures.measure(world, course, places=50, num_clicks=3)
  assert (never['found'], never['unfound']) == (0.2, 1)


def _values(clicks, found):
  return [{'clicks': c, 'found': f} for c, f in zip(clicks, found)]


def test_sooner_is_read_off_the_curve_at_equal_clicks():
  family = [
      _values([10, 12], [80, 120]),  # means 11 and 100
      _values([8, 10], [60, 100]),  # means 9 and 80
  ]
  policy = _values([10, 10], [40, 50])  # midway: 90
  value, low, high = measures.sooner(family, policy, 'found', 50)
  assert value == pytest.approx(1 - 45 / 90) and low <= value <= high
  # Beyond the ends of the curve that of the end counts.
  more = measures.sooner(family, _values([14, 14], [40, 50]), 'found', 2)[0]
  assert more == pytest.approx(1 - 45 / 100)
  assert measures.summarize(policy, 50)['found'][0] == 45
