# SPDX-License-Identifier: Apache-2.0
"""Planted and replayed worlds, and a learner that is told of clicks."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax.data import impressions
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import statistics
from dropoutnet_jax.exploring import learner
from dropoutnet_jax.exploring import mask_learner
from dropoutnet_jax.exploring import planted
from dropoutnet_jax.exploring import policies
from dropoutnet_jax.exploring import posterior
from dropoutnet_jax.exploring import replay
from dropoutnet_jax.exploring import reward_model
from dropoutnet_jax.exploring import simulator
from dropoutnet_jax.exploring import told_towers
from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import runtime as runtime_lib
from tests import tiny_run

pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.fixture(name='run', scope='module')
def fixture_run(quick_compilation):
  """Problem and scorer of the tiny experiment, before the first step."""
  del quick_compilation
  cfg = tiny_run.changed(data={'cold_user_share': 0.2})
  problem = prepare.prepare(cfg, None, None)
  runtime = runtime_lib.build(cfg, problem, num_devices=1)
  return problem, runtime.scorer(runtime.fresh_state())


@pytest.fixture(name='world', scope='module')
def fixture_world(run):
  return planted.make(run[0])


@pytest.fixture(name='known', scope='module')
def fixture_known(run, world):
  _, scorer = run
  rng = np.random.default_rng(0)
  before = planted.impressions_before(
      world, 20, rng.normal(size=world.chance.shape), 0
  )
  found = learner.prepare(scorer, before)
  # Scores of towers that have learnt nothing say nothing.
  link = reward_model.RewardModel(2.0, -3.0, True)
  prior = dataclasses.replace(found.prior, link=link)
  return dataclasses.replace(found, prior=prior)


def test_the_planted_world_is_its_truth(run, world):
  problem, _ = run
  assert world.chance.mean() == pytest.approx(0.05, rel=1e-6)
  odds = np.log(world.chance / (1 - world.chance)) - problem.truth
  np.testing.assert_allclose(odds, odds[0, 0], atol=1e-4)
  likes = problem.likes().toarray() > 0
  np.testing.assert_array_equal(world.is_new, likes.sum(axis=0) == 0)
  assert not np.any(world.allowed & likes)
  assert np.all(world.wanted.sum(axis=1) == 20)
  assert not np.any(world.wanted & ~world.allowed)
  worst = np.where(world.wanted, world.chance, 1).min(axis=1)
  others = np.where(world.wanted | ~world.allowed, 0, world.chance)
  assert np.all(worst >= others.max(axis=1))


def test_before_the_first_round_known_items_alone_were_shown(world):
  scores = np.arange(world.chance.size).reshape(world.chance.shape)
  before = planted.impressions_before(world, 40, scores, 0)
  assert not world.is_new[before.item].any()
  assert world.allowed[before.user, before.item].all()
  assert np.all(np.bincount(before.user) == 40)
  # Half are of the best fifth: the last columns.
  assert np.median(before.item) > 0.6 * len(world.is_new)


def test_what_is_known_before_the_first_round(run, known):
  _, scorer = run
  present = np.asarray(scorer.tables.item.present)
  np.testing.assert_array_equal(known.is_new, ~present)
  rank = known.items.shape[1]
  assert known.prior.directions.shape == (rank, min(rank, 8))
  assert known.prior.share > 0 and known.prior.level > 0
  bare = told_towers.without_preference(
      scorer.tables.item.select(np.arange(80))
  )
  dropped = told_towers.embed(scorer, bare, 'item')
  expected = scorer.all_embeddings()
  for side in ('user', 'item'):
    found = getattr(known, f'{side}s')
    np.testing.assert_allclose(found, expected[side], atol=1e-6)
  same = np.all(np.isclose(dropped, known.items, atol=1e-6), axis=1)
  np.testing.assert_array_equal(same, known.is_new)


def test_a_learner_scores_as_the_towers_do_until_it_is_told(run, known):
  _, scorer = run
  one = learner.Learner(known, scorer)
  users, rng = np.array([3, 5]), np.random.default_rng(0)
  (mean,) = one.passes(users, 0, rng)
  expected = known.users[users] @ known.items.T
  np.testing.assert_allclose(mean, expected, atol=1e-5)
  drawn = one.passes(users, 4000, rng)
  assert np.all(drawn[:, :, ~known.is_new] == mean[:, ~known.is_new])
  seen = known.prior.seen(known.prior.inputs(known.users[users]))
  new = known.is_new.sum()
  deviation = posterior.deviation(known.prior.start(new), seen)
  spread = drawn[:, :, known.is_new]
  np.testing.assert_allclose(
      spread.std(axis=0), deviation / known.prior.link.slope, rtol=0.1
  )


def test_statistics_of_new_rows_alone_grow(run, monkeypatch):
  """And those of known rows are dropped with their preference."""
  problem, scorer = run
  likes = problem.split.train
  windows = statistics.window_bits(None, (0.0,), len(likes))
  number = len(problem.item.ids)
  counts = statistics.count(likes.item, likes, windows, number, 1, 20.0)
  item = dataclasses.replace(scorer.tables.item, counts=counts)
  scorer = dataclasses.replace(
      scorer, tables=dataclasses.replace(scorer.tables, item=item)
  )
  bare = told_towers.without_preference(item.select(np.arange(number)))
  assert counts.shown.any() and not bare.counts.shown.any()
  seen = []

  def embed(scorer, table, side):
    del scorer
    if side == 'item':
      seen.append(table.counts.shown[:, 0])
    return np.zeros((len(table.present), 4))

  monkeypatch.setattr(told_towers, 'embed', embed)
  towers = told_towers.ToldTowers(scorer)
  new = int(np.flatnonzero(~np.asarray(item.present))[0])
  old = int(np.flatnonzero(np.asarray(item.present))[0])
  users = np.flatnonzero(np.asarray(scorer.tables.user.present))[:3]
  for user, clicks in zip(users, (1, 2, 3)):
    towers.tell(np.array([user, user]), np.array([new, old]))
    usual = counts.shown[counts.shown[:, 0] > 0, 0].mean()
    assert seen[-1].tolist() == [round(usual * (1 + clicks / 20))]
  assert len(seen) == 4  # the known one stands still


def test_clicks_reach_the_towers_through_the_transform(run, known):
  problem, scorer = run
  one = learner.Learner(known, scorer)
  new = int(np.flatnonzero(known.is_new)[0])
  users = np.flatnonzero(np.asarray(scorer.tables.user.present))[:4]
  one.learn(users, np.full(4, new), np.array([1.0, 1.0, 0.0, 0.0]))
  met = np.zeros((1, len(problem.user.ids)), np.float32)
  met[0, users[:2]] = 1
  rows = np.array([new])
  means = scorer.tables.item.history_means(
      scipy.sparse.csr_array(met), np.asarray(scorer.tables.user.factors)
  )
  with_history = scorer.with_told('item', rows, means)
  expected = with_history.all_embeddings()['item'][new]
  rng = np.random.default_rng(0)
  (mean,) = one.passes(users, 0, rng)
  level = one.observed.of([new]).mean[0, -1] * np.sqrt(known.prior.level)
  np.testing.assert_allclose(
      mean[:, new],
      known.users[users] @ expected + level / known.prior.link.slope,
      atol=1e-4,
  )
  assert np.any(np.abs(expected - known.items[new]) > 1e-6) and level != 0
  gain = one.observed.of([new]).precision[0] - np.eye(known.prior.width)
  assert np.trace(gain) > 0  # by all four
  # A known item stands still, and so do the other new ones.
  old = int(np.flatnonzero(~known.is_new)[0])
  two = learner.Learner(known, scorer)
  before = two.passes(users, 0, rng)
  two.learn(users, np.full(4, old), np.ones(4))
  np.testing.assert_array_equal(two.passes(users, 0, rng), before)
  others = np.arange(len(known.is_new)) != new
  np.testing.assert_array_equal(mean[:, others], before[0][:, others])


def test_histories_of_new_users_grow(run, known):
  _, scorer = run
  one = learner.Learner(known, scorer)
  user = int(np.flatnonzero(~np.asarray(scorer.tables.user.present))[0])
  items = np.flatnonzero(~known.is_new)[:3]
  rng = np.random.default_rng(0)
  before = one.passes(np.array([user]), 0, rng)
  one.learn(np.full(3, user), items, np.zeros(3))
  np.testing.assert_array_equal(one.passes(np.array([user]), 0, rng), before)
  one.learn(np.full(3, user), items, np.ones(3))
  assert np.any(one.passes(np.array([user]), 0, rng) != before)


def test_masks_move_scores_until_there_are_clicks(run, known):
  """A new item is masked in content; one of many clicks hardly at all."""
  problem, scorer = run
  cfg = tiny_run.changed(data={'cold_user_share': 0.2})
  one = mask_learner.MaskLearner(cfg, problem, scorer)
  users, rng = np.arange(6), np.random.default_rng(0)
  (mean,) = one.passes(users, 0, rng)
  np.testing.assert_allclose(mean, known.users[:6] @ known.items.T, atol=1e-5)
  drawn = one.passes(users, 24, rng)
  np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=1e-4)
  assert np.all(drawn.std(axis=0)[:, known.is_new].max(axis=0) > 0)
  new = int(np.flatnonzero(known.is_new)[0])
  fans = np.flatnonzero(np.asarray(scorer.tables.user.present))
  one.learn(fans, np.full(len(fans), new), np.zeros(len(fans)))
  np.testing.assert_array_equal(one.passes(users, 0, rng)[0], mean)
  one.learn(fans, np.full(len(fans), new), np.ones(len(fans)))
  changed = np.any(one.passes(users, 0, rng)[0] != mean, axis=0)
  assert changed[new] and changed.sum() == 1


def test_thompson_in_a_planted_world_shows_more_of_what_is_new(world, known):
  rounds = simulator.Rounds(12, 20, 4, look_every=12)
  play = lambda kind: simulator.simulate(
      world, learner.Learner(known), policies.Policy(kind), rounds, 0
  )
  greedy, thompson = play('greedy'), play('thompson')
  new = lambda course: np.count_nonzero(course.shown[world.is_new])
  assert new(thompson) > new(greedy)
  assert thompson.impressions[-1] == greedy.impressions[-1] == 12 * 20 * 4


def _with_ratings(problem, seed=0):
  """The problem with labelled rows of new users."""
  rng = np.random.default_rng(seed)
  trained = np.unique(problem.split.train.user)
  new_users = np.setdiff1d(np.arange(len(problem.user.ids)), trained)
  known = problem.likes().sum(axis=0) > 0
  sets = {}
  for name, items in (
      ('cold_user', np.flatnonzero(known)),
      ('cold_both', np.flatnonzero(~known)),
  ):
    user, item = np.nonzero(rng.random((len(new_users), len(items))) < 0.7)
    label = (rng.random(len(user)) < 0.5).astype(np.float32)
    sets[name] = schema.Interactions(
        new_users[user].astype(np.int32),
        items[item].astype(np.int32),
        label=label,
    )
  nothing = problem.split.train.select(np.zeros(0, int))
  labelled = impressions.Labelled(nothing, sets)
  return dataclasses.replace(problem, labelled=labelled), sets


def test_ratings_of_new_users_are_a_world(run):
  problem, sets = _with_ratings(run[0])
  world, before = replay.make(problem, least=40, seed=0)
  assert world.once
  user = np.concatenate([one.user for one in sets.values()])
  item = np.concatenate([one.item for one in sets.values()])
  label = np.concatenate([one.label for one in sets.values()])
  np.testing.assert_array_equal(world.chance[user, item], label)
  assert world.allowed.sum() == len(user)
  np.testing.assert_array_equal(world.wanted, world.chance == 1)
  assert np.all(world.allowed[world.visitors].sum(axis=1) >= 40)
  assert not set(before.user) & set(world.visitors)
  assert not world.is_new[before.item].any()
  np.testing.assert_array_equal(
      world.chance[before.user, before.item], before.click
  )


def test_what_cannot_be_replayed(run):
  problem, sets = _with_ratings(run[0])
  with pytest.raises(errors.UserError, match='No new user has 500 candidates'):
    replay.make(problem, least=500, seed=0)
  sets['cold_both'] = sets['cold_both'].select(np.zeros(0, int))
  with pytest.raises(errors.UserError, match='needs held-out impressions'):
    replay.make(problem, least=1, seed=0)
  with pytest.raises(ValueError, match='knows its truth'):
    planted.make(dataclasses.replace(problem, truth=None))
