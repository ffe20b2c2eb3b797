# SPDX-License-Identifier: Apache-2.0
"""Estimates from logs: by hand, by enumeration, and on a bandit."""

import itertools

import numpy as np
import pytest

from dropoutnet_jax.exploring import off_policy

NAMES = off_policy.NAMES


def make_log(**columns):
  """A log of places of slates of one place each, unless told otherwise."""
  count = len(columns['reward'])
  values = {
      'user': np.arange(count),
      'slate': np.arange(count),
      'rank': np.ones(count, int),
      'predicted': np.zeros(count),
      'expected': np.zeros(count),
  } | {name: np.asarray(value) for name, value in columns.items()}
  return off_policy.Log(**values)


def value_of(log, view, clip=0.0):
  found = off_policy.estimate(log, view, 2, clip)
  return {name: found[name]['value'] for name in ('logged', *NAMES)}


def test_three_places_by_hand():
  """Weights 2, 0 and 4; the model expects 0.5 of all that is shown."""
  log = make_log(
      propensity=[0.5, 0.5, 0.25],
      reward=[1.0, 0.0, 0.5],
      target=[1.0, 0.0, 1.0],
      predicted=[0.5] * 3,
      expected=[0.5] * 3,
  )
  found = value_of(log, 'place')
  assert found == pytest.approx(
      {
          'logged': 0.5,
          'ips': (2 * 1.0 + 4 * 0.5) / 3,
          'snips': (2 * 1.0 + 4 * 0.5) / 6,
          'dr': 0.5 + (2 * 0.5 + 4 * 0.0) / 3,
      }
  )
  assert off_policy.estimate(log, 'place', 2)['effective'] == 36 / 20
  assert value_of(log, 'slate') == pytest.approx(found)
  clipped = off_policy.estimate(log, 'place', 2, clip=2.0)
  assert clipped['ips']['value'] == pytest.approx((2 + 2 * 0.5) / 3)
  assert clipped['clipped'] == pytest.approx(1 / 3)


# A world of two places and three items: rewards by what is shown, and before.
_LOGGED = {0: [0, 2, 3], 1: [1, 0, 3], 2: [2, 2, 0]}  # after the first: ratios
_REWARD = np.random.default_rng(0).random((3, 4))  # item, one before or none


def _every_slate():
  """Each possible slate with its chances."""
  first = np.array([2, 1, 1]) / 4
  second = {i: np.array(row) / sum(row) for i, row in _LOGGED.items()}
  for one, two in itertools.permutations(range(3), 2):
    chance = first[one] * second[one][two]
    yield one, two, first[one], second[one][two], chance


def _target(before):
  """Chances of the target: it is not greedy, and shows all that is left."""
  if before is None:
    return np.array([0.2, 0.5, 0.3])
  left = np.array([0.1, 0.6, 0.3])
  left[before] = 0
  return left / left.sum()


def _enumerated(model):
  """The log of all slates, with a reward model: 480 of them."""
  columns = {name: [] for name in ('slate', 'rank', 'propensity', 'reward')}
  columns |= {name: [] for name in ('target', 'predicted', 'expected')}
  slate = 0
  for one, two, first, second, chance in _every_slate():
    for _ in range(round(480 * chance)):
      for rank, item, before, logged in (
          (1, one, None, first),
          (2, two, one, second),
      ):
        place = 3 if before is None else before
        target = _target(before)
        row = (slate, rank, logged, _REWARD[item, place], target[item])
        row += (model[item, place], target @ model[:, place])
        for values, value in zip(columns.values(), row):
          values.append(value)
      slate += 1
  arrays = {name: np.array(values) for name, values in columns.items()}
  return off_policy.Log(user=arrays['slate'], **arrays)


@pytest.mark.parametrize('is_right', [True, False])
def test_all_slates_as_often_as_they_come(is_right):
  """ips and dr are then the value of the target, whatever the model says."""
  model = _REWARD if is_right else np.random.default_rng(1).normal(size=(3, 4))
  log = _enumerated(model)
  assert len(log) == 960
  first = _target(None) @ _REWARD[:, 3]
  slate = first + sum(
      _target(None)[before] * _target(before) @ _REWARD[:, before]
      for before in range(3)
  )
  found = off_policy.estimate(log, 'slate', 2)
  for name in ('ips', 'dr', 'snips'):  # weights add up exactly as well
    assert found[name]['value'] == pytest.approx(slate)
  assert found['mean_weight']['value'] == pytest.approx(1)
  logged_first = np.array([2, 1, 1]) / 4
  second = sum(
      logged_first[before] * _target(before) @ _REWARD[:, before]
      for before in range(3)
  )
  found = value_of(log, 'place')
  for name in NAMES:
    assert found[name] == pytest.approx((first + second) / 2)


def _bandit(seed, num_users=300):
  """Contexts, five items, logged by a soft policy; the target is greedy."""
  rng = np.random.default_rng(seed)
  context = rng.normal(size=(num_users, 2))
  truth = 1 / (1 + np.exp(1.0 - context @ _TASTE))
  score = context @ _TASTE + 0.3
  logged = np.exp(0.7 * rng.permuted(score, axis=1))
  logged = 0.8 * logged / logged.sum(1, keepdims=True) + 0.2 / 5
  best = score.argmax(axis=1)
  users = np.arange(num_users)
  shown = (rng.random((num_users, 1)) > logged.cumsum(1)).sum(axis=1)
  model = 1 / (1 + np.exp(0.8 - 0.9 * score))  # about right
  log = make_log(
      propensity=logged[users, shown],
      reward=(rng.random(num_users) < truth[users, shown]) * 1.0,
      target=(shown == best) * 1.0,
      predicted=model[users, shown],
      expected=model[users, best],
  )
  return log, truth[users, best].mean()


_TASTE = np.random.default_rng(7).normal(size=(2, 5))


def test_a_bandit_over_seeds():
  """Unbiased, covered by the intervals, and dr varies less than ips."""
  gaps = {name: [] for name in NAMES}
  covered = dict.fromkeys(NAMES, 0)
  num_seeds = 100
  for seed in range(num_seeds):
    log, truth = _bandit(seed)
    found = off_policy.estimate(log, 'place', 200, seed=seed)
    for name in NAMES:
      one = found[name]
      gaps[name].append(one['value'] - truth)
      covered[name] += one['low'] <= truth <= one['high']
  spread = {name: np.std(gap) for name, gap in gaps.items()}
  for name in NAMES:
    assert abs(np.mean(gaps[name])) < 3 * spread[name] / np.sqrt(num_seeds)
    # Large weights are rare, and a bootstrap misses those that did not come.
    assert 0.87 < covered[name] / num_seeds < 1
  assert spread['dr'] < 0.8 * spread['ips']
  assert spread['snips'] < spread['ips']


def test_only_whole_slates_count_as_slates():
  """The second lacks rank 2; the third comes in another order."""
  log = make_log(
      slate=[0, 0, 1, 1, 2, 2],
      rank=[1, 2, 1, 3, 2, 1],
      user=[0, 0, 0, 0, 1, 1],
      propensity=[0.5] * 6,
      reward=[1.0, 0.0, 1.0, 1.0, 1.0, 0.0],
      target=[1.0, 1.0, 1.0, 1.0, 0.0, 1.0],
  )
  whole = log.whole_slates()
  assert list(zip(whole.slate, whole.rank)) == [(0, 1), (0, 2), (2, 1), (2, 2)]
  found = off_policy.estimate(log, 'slate', 2)
  assert (found['slates'], found['places'], found['users']) == (2, 4, 2)
  # Weights 2 and 4 in the one slate, 2 and 0 in the other.
  assert found['ips']['value'] == pytest.approx((2 * 1 + 4 * 0 + 0) / 2)
  assert off_policy.estimate(log, 'place', 2)['places'] == 6


def test_warnings_of_a_small_sample_and_of_wrong_propensities():
  count = 4000
  rng = np.random.default_rng(0)
  target = (rng.random(count) < 0.5) * 1.0
  right = make_log(
      propensity=np.full(count, 0.5), reward=np.ones(count), target=target
  )
  tell = lambda log, clip=0.0: off_policy.warnings(
      off_policy.estimate(log, 'place', 200, clip), 'place'
  )
  assert not tell(right)
  (small,) = tell(right.select(np.arange(80)))
  assert 'place: the effective sample is 39.0 of' in small and 'of 80' in small
  wrong = make_log(
      propensity=np.full(count, 0.25), reward=np.ones(count), target=target
  )
  (message,) = tell(wrong)
  assert 'the mean weight is 2.0' in message and 'should be 1' in message
  assert not tell(wrong, clip=1.0)


def test_the_best_that_is_left_against_a_slow_reference():
  rng = np.random.default_rng(3)
  scores = rng.normal(size=(700, 6))
  scores[rng.random(scores.shape) < 0.3] = -np.inf
  slates = np.array([rng.permutation(6)[:4] for _ in scores])
  slates[rng.random(slates.shape) < 0.2] = -1
  item, value = off_policy.best_left(scores, slates)
  for row, slate in enumerate(slates):
    left = {n: s for n, s in enumerate(scores[row]) if np.isfinite(s)}
    for place, shown in enumerate(slate):
      best = max(left, key=left.get) if left else -1
      assert item[row, place] == best
      assert not left or value[row, place] == left[best]
      assert bool(left) == np.isfinite(value[row, place])
      left.pop(shown, None)


def test_what_cannot_be_estimated():
  log = make_log(propensity=[0.5], reward=[1.0], target=[1.0])
  with pytest.raises(ValueError, match='is no view'):
    off_policy.estimate(log, 'list', 2)
  with pytest.raises(ValueError, match='no place'):
    off_policy.estimate(log.select(np.zeros(0, int)), 'place', 2)
