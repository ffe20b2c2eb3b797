# SPDX-License-Identifier: Apache-2.0
"""Slates and the chances that they come with, against enumeration."""

import dataclasses
import itertools

import numpy as np
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.exploring import policies

Policy = policies.Policy
_CASES = {
    'greedy': Policy('greedy'),
    'epsilon': Policy('epsilon'),
    'epsilon of 0.4': Policy('epsilon', 0.4),
    'ucb': Policy('ucb', width=2.0),
    'ucb with a floor': Policy('ucb', 0.2, width=0.5),
    'thompson': Policy('thompson'),
    'thompson with a floor': Policy('thompson', 0.3),
    'thompson of half the width': Policy('thompson', width=0.5),
    'greedy with a quota': Policy('greedy', new_share=0.5),
    'decayed quota': Policy('greedy', new_share=0.7, half_life=5.0),
    'boost': Policy('thompson', boost=1.5, half_life=5.0),
    'everything': Policy(
        'thompson', 0.2, new_share=0.6, boost=0.7, half_life=4.0
    ),
}
_IS_NEW = np.array([False, True, True, False, True, True])
_IMPRESSIONS = np.array([50, 0, 3, 0, 9, 0])
_ALLOWED = np.array([True, True, True, True, True, False])
_GIVEN = {
    'is_new': _IS_NEW,
    'impressions': _IMPRESSIONS,
    'allowed': _ALLOWED,
}


def _passes(num_passes=3, users=1, seed=0):
  draw = np.random.default_rng(seed).normal(size=(num_passes, users, 6))
  return draw.astype(np.float32)


def _place(policy, passes, left):
  """Chances of all items at a place by going through all that may happen.

  Args:
    policy: how it is filled.
    passes: [T, J], of one user, with no boost in them.
    left: the items that may come.
  """
  fresh = np.where(_IS_NEW, 0.5 ** (_IMPRESSIONS / policy.half_life), 0)
  deviation = passes.mean(axis=0)[_ALLOWED].std()
  if policy.kind == 'thompson':
    mean = passes.mean(axis=0)
    orders = mean + policy.width * (passes - mean)
  elif policy.kind == 'ucb':
    orders = [passes.mean(axis=0) + policy.width * passes.std(axis=0)]
  else:
    orders = [passes.mean(axis=0)]
  epsilon = policy.epsilon
  if epsilon is None:
    epsilon = 0.1 if policy.kind == 'epsilon' else 0.0
  chance = np.zeros(passes.shape[1])
  chance[left] += epsilon / len(left)
  new = [item for item in left if _IS_NEW[item]]
  for order in orders:
    value = order + policy.boost * fresh * deviation
    share = (1 - epsilon) / len(orders)
    best = max(left, key=lambda item: value[item])
    chance[best] += share * (1 - policy.new_share)
    for takes_part in itertools.product([False, True], repeat=len(new)):
      happens = share * policy.new_share
      among = []
      for item, is_in in zip(new, takes_part):
        happens *= fresh[item] if is_in else 1 - fresh[item]
        among += [item] * is_in
      chance[max(among or left, key=lambda item: value[item])] += happens
  return chance


def _reference(policy, passes, slate):
  """Chances of a slate's places; -1 once nothing is left."""
  left, found = list(np.flatnonzero(_ALLOWED)), []
  for item in slate:
    found.append(_place(policy, passes, left)[item])
    left.remove(item)
  return found


@pytest.mark.parametrize('name', _CASES)
def test_chances_of_all_slates_are_those_of_enumeration(name):
  policy, passes = _CASES[name], _passes()
  slates = np.array(list(itertools.permutations(range(5), 3)))
  found = policies.judge(
      policy,
      np.repeat(passes, len(slates), axis=1),
      slates,
      1,
      np.random.default_rng(0),
      **_GIVEN,
  ).propensity
  want = [_reference(policy, passes[:, 0], slate) for slate in slates]
  np.testing.assert_allclose(found, want, atol=1e-6)
  assert found.prod(axis=1).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize('name', _CASES)
def test_draws_of_each_place_have_the_chances_of_enumeration(name):
  """Given what the log has shown before, which another policy chose."""
  policy, passes, draws = _CASES[name], _passes(), 1000
  slates = np.array([[1, 4, 0], [3, -1, 2], [0, 1, 2]])
  found = policies.judge(
      policy,
      np.repeat(passes, 3, axis=1),
      slates,
      draws,
      np.random.default_rng(0),
      **_GIVEN,
  ).drawn
  for slate, drawn in zip(slates, found):
    left = [0, 1, 2, 3, 4]
    for item, places in zip(slate.tolist(), drawn):
      often = np.bincount(places, minlength=6) / draws
      want = _place(policy, passes[:, 0], left)
      np.testing.assert_allclose(often, want, atol=1.01 / draws)
      if item >= 0:
        left.remove(item)


def test_nobody_draws_where_nothing_is_left():
  found = policies.judge(
      Policy('thompson', 0.5),
      _passes(2, users=2),
      np.array([[0, 1], [2, 3]]),
      3,
      np.random.default_rng(0),
      allowed=np.array([[True] + [False] * 5, [False] * 6]),
  )
  assert found.drawn.tolist() == [[[0] * 3, [-1] * 3], [[-1] * 3, [-1] * 3]]
  assert found.propensity.tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize('name', _CASES)
def test_slates_come_as_often_as_their_chances_say(name):
  policy, count = _CASES[name], 40_000
  shown = policies.choose(
      policy,
      np.repeat(_passes(), count, axis=1),
      2,
      np.random.default_rng(1),
      **_GIVEN,
  )
  kinds, first, often = np.unique(
      shown.item, axis=0, return_index=True, return_counts=True
  )
  chance = shown.propensity[first].prod(axis=1)
  want = [_reference(policy, _passes()[:, 0], slate) for slate in kinds]
  np.testing.assert_allclose(shown.propensity[first], want, atol=1e-6)
  # The slates that were seen have nearly all of the chance.
  assert chance.sum() == pytest.approx(1, abs=1e-3)
  deviation = np.sqrt(chance * (1 - chance) / count)
  assert (np.abs(often / count - chance) <= 4.5 * deviation + 1e-6).all()


def test_many_seeds_of_one_user_show_items_by_their_chances():
  """The generator alone makes the difference, as from request to request."""
  policy, passes = _CASES['everything'], _passes(4)
  seen = np.zeros(6)
  for seed in range(1000):
    shown = policies.choose(
        policy,
        passes,
        1,
        np.random.default_rng(seed),
        **_GIVEN,
    )
    seen[shown.item[0, 0]] += 1
  chance = _place(policy, passes[:, 0], [0, 1, 2, 3, 4])
  deviation = np.sqrt(chance * (1 - chance) / 1000)
  assert (np.abs(seen / 1000 - chance) <= 4.5 * deviation).all()


def test_slates_have_no_repeats_and_nothing_that_is_not_allowed():
  rng = np.random.default_rng(0)
  passes = rng.normal(size=(4, 60, 30)).astype(np.float32)
  allowed = rng.random((60, 30)) < 0.5
  is_new = rng.random((60, 30)) < 0.3
  policy = Policy('thompson', 0.3, new_share=0.5)
  shown = policies.choose(
      policy, passes, 20, rng, is_new=is_new, allowed=allowed
  )
  for item, chance, score, may in zip(
      shown.item, shown.propensity, shown.score, allowed
  ):
    real = item[item >= 0]
    assert len(real) == min(20, may.sum()) and may[real].all()
    assert len(set(real.tolist())) == len(real)
    assert (item[len(real) :] == -1).all()
    assert (chance[: len(real)] > 0).all() and (chance <= 1).all()
    assert not chance[len(real) :].any()
    assert np.isneginf(score[len(real) :]).all()


def test_greedy_is_the_order_of_the_mean_scores():
  passes = _passes(3, users=4)
  shown = policies.choose(Policy('greedy'), passes, 6, np.random.default_rng(0))
  order = np.argsort(-passes.mean(axis=0), axis=1)
  np.testing.assert_array_equal(shown.item, order)
  want = np.take_along_axis(passes.mean(axis=0), order, axis=1)
  np.testing.assert_allclose(shown.score, want, atol=1e-6)
  assert (shown.propensity == 1).all()


def test_of_equal_scores_the_first_candidate_is_the_best():
  passes = np.zeros((2, 1, 9), np.float32)
  passes[:, :, 7] = 1
  for kind in policies.KINDS:
    shown = policies.choose(Policy(kind, 0), passes, 4, np.random.default_rng())
    assert shown.item.tolist() == [[7, 0, 1, 2]]


def test_a_seed_gives_the_same_slates_and_another_one_others():
  passes = _passes(8, users=50)
  draw = lambda seed: policies.choose(
      Policy('thompson', 0.2), passes, 3, np.random.default_rng(seed)
  )
  for one, two in zip(draw(3), draw(3)):
    np.testing.assert_array_equal(one, two)
  assert (draw(3).item != draw(4).item).any()


def test_impressions_take_the_quota_from_an_item_and_give_it_to_the_next():
  passes = np.array([[[3.0, 2.0, 1.0]]], np.float32)  # best, seen, fresh
  is_new = np.array([False, True, True])
  first = lambda impressions: [
      policies.judge(
          Policy('greedy', new_share=0.4, half_life=10.0),
          passes,
          np.array([[item]]),
          1,
          np.random.default_rng(0),
          is_new=is_new,
          impressions=np.array([0, impressions, 0]),
      ).propensity.item()
      for item in range(3)
  ]
  np.testing.assert_allclose(first(0), [0.6, 0.4, 0.0], rtol=1e-6)
  np.testing.assert_allclose(first(10), [0.6, 0.2, 0.2], rtol=1e-6)
  np.testing.assert_allclose(first(30), [0.6, 0.05, 0.35], rtol=1e-6)


def test_a_boost_is_in_deviations_of_the_scores_of_the_user():
  passes = np.array([[[0.0, 4.0, 8.0], [0.0, 0.4, 0.8]]], np.float32)
  shown = lambda boost: policies.choose(
      Policy('greedy', boost=boost),
      passes,
      1,
      np.random.default_rng(0),
      is_new=np.array([True, False, False]),
  )
  need = 8 / np.std([0, 4, 8])  # the same for both users
  assert shown(need * 0.99).item.tolist() == [[2], [2]]
  assert shown(need * 1.01).item.tolist() == [[0], [0]]
  assert shown(need * 1.01).score.tolist() == [[0], [0]]  # without the boost


def test_without_candidates_slates_are_empty():
  shown = policies.choose(
      Policy('thompson'),
      np.zeros((2, 3, 0), np.float32),
      2,
      np.random.default_rng(0),
  )
  assert (shown.item == -1).all() and not shown.propensity.any()


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'kind': 'tompson'}, "'tompson' is no policy; .*'thompson'"),
        ({'epsilon': 1.5}, 'epsilon of the policy is 1.5; it is a chance'),
        ({'epsilon': float('nan')}, 'epsilon of the policy is nan'),
        ({'new_share': -0.1}, 'new_share of the policy is -0.1'),
        ({'width': -1.0}, 'width of the policy is -1.0; .* from 0 to'),
        ({'boost': float('inf')}, 'boost of the policy is inf'),
        ({'width': 1e300}, r'width .* is 1e\+300; .* to 1,000,000'),
        ({'half_life': 0.0}, 'half_life of the policy is 0.0; .* above 0'),
    ],
)
def test_what_no_policy_can_be(changes, message):
  with pytest.raises(errors.UserError, match=message):
    dataclasses.replace(Policy('thompson'), **changes)


@pytest.mark.parametrize(
    'passes, k',
    [
        (np.zeros((0, 2, 3)), 1),
        (np.zeros((2, 3)), 1),
        (np.full((1, 2, 3), np.nan), 1),
        (np.zeros((1, 2, 3)), 0),
    ],
)
def test_what_cannot_be_chosen_from(passes, k):
  with pytest.raises(ValueError):
    policies.choose(Policy('greedy'), passes, k, np.random.default_rng(0))
