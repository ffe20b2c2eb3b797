# SPDX-License-Identifier: Apache-2.0
"""The planted world: what was promised about it, and that its truth is true."""

import dataclasses

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import synthetic

SMALL = config.SyntheticConfig(num_users=150, num_items=400, likes_per_user=20)


@pytest.fixture(scope='module', name='world')
def _world():
  return synthetic.make_world(config.SyntheticConfig(seed=3))


def _all_scores(world):
  return world.true_scores(
      np.arange(len(world.dataset.users)), np.arange(len(world.dataset.items))
  )


def _likes(world):
  """bool [U, I]"""
  return (
      world.dataset.interactions.matrix(
          len(world.dataset.users), len(world.dataset.items)
      ).toarray()
      > 0
  )


def _precision(scores, likes, k=20):
  """Share of each user's k best that she likes, by plain sorting; mean."""
  best = np.argsort(-scores, axis=1, kind='stable')[:, :k]
  return np.mean([likes[user, row].mean() for user, row in enumerate(best)])


def _one_hot(column):
  return (column[:, None] == np.unique(column)).astype(float)


def _dense_content(entities):
  """All columns as numbers, each standardised: what a linear map can see."""
  parts = [np.ones((len(entities), 1))]
  for column in entities.columns.values():
    if isinstance(column, schema.Tags):
      parts.append(column.matrix.toarray())
    elif column.dtype == object:
      parts.append(_one_hot(column))
    else:
      value = column[:, None].astype(float)
      parts.append((value - value.mean()) / value.std())
  return np.concatenate(parts, axis=1)


def _ridge_r2(content, target, strength=10.0):
  """Share of the variance of held-out target rows that a ridge explains."""
  half = len(content) // 2
  seen, new = content[:half], content[half:]
  gram = seen.T @ seen + strength * np.eye(content.shape[1])
  weights = np.linalg.solve(
      gram, seen.T @ (target[:half] - target[:half].mean(0))
  )
  residual = target[half:] - target[:half].mean(0) - new @ weights
  return 1 - np.sum(residual**2) / np.sum(
      (target[half:] - target[half:].mean(0)) ** 2
  )


def _equal(a, b):
  if isinstance(a, schema.Tags):
    return (a.matrix != b.matrix).nnz == 0 and np.array_equal(a.names, b.names)
  return np.array_equal(a, b)


def test_same_seed_same_world_other_seed_another():
  one, two = synthetic.make_world(SMALL), synthetic.make_world(SMALL)
  other = synthetic.make_world(dataclasses.replace(SMALL, seed=1))
  np.testing.assert_array_equal(_all_scores(one), _all_scores(two))
  for pick in (lambda w: w.dataset.users, lambda w: w.dataset.items):
    for name, column in pick(one).columns.items():
      assert _equal(column, pick(two).columns[name])
      assert not _equal(column, pick(other).columns[name])
  np.testing.assert_array_equal(_likes(one), _likes(two))
  assert (_likes(one) != _likes(other)).any()


def test_columns_of_every_kind(world):
  users, items = world.dataset.users, world.dataset.items
  assert (len(users), len(items)) == (2000, 3000)
  assert set(users.columns) == {'region', 'age', 'interests'}
  assert set(items.columns) == {'genre', 'year', 'quality', 'tags'}
  for side, name, num_tags in ((users, 'interests', 60), (items, 'tags', 300)):
    tags = side.columns[name]
    assert tags.matrix.shape == (len(side), num_tags)
    assert tags.matrix.dtype == np.float32
    assert len(set(tags.names)) == num_tags
    np.testing.assert_array_equal(tags.matrix.data, 1)
    assert np.diff(tags.matrix.indptr).min() >= 2
  for side, name, values in (
      (users, 'region', synthetic.REGIONS),
      (items, 'genre', synthetic.GENRES),
  ):
    assert side.columns[name].dtype == object
    assert set(side.columns[name]) == set(values)
  for column in (
      users.columns['age'],
      *map(items.columns.get, ('year', 'quality')),
  ):
    assert column.dtype == np.float32 and np.isfinite(column).all()
  assert users.columns['age'].min() == 16 and users.columns['age'].max() == 80
  assert items.columns['year'].min() == 1950
  assert items.columns['year'].max() == 2024


def test_ids_are_distinct_and_those_of_any_larger_world():
  small = synthetic.make_world(SMALL).dataset
  large = synthetic.make_world(
      config.SyntheticConfig(num_users=160, num_items=450, likes_per_user=5)
  ).dataset
  for one, two in ((small.users, large.users), (small.items, large.items)):
    assert len(set(one.ids)) == len(one)
    np.testing.assert_array_equal(one.ids, two.ids[: len(one)])
  assert small.users.ids[7] == 'user-00007'
  assert small.items.ids[399] == 'item-00399'


def test_pairs_are_distinct_and_of_the_promised_number(world):
  pairs = world.dataset.interactions
  assert pairs.user.dtype == pairs.item.dtype == np.int32
  codes = pairs.user.astype(np.int64) * 3000 + pairs.item
  assert len(np.unique(codes)) == len(codes)
  count = np.bincount(pairs.user, minlength=2000)
  wanted = config.SyntheticConfig().likes_per_user
  assert abs(count.mean() - wanted) < 0.02 * wanted
  assert count.min() >= 3
  # Some like much more than others: the spread of log counts is planted.
  assert 0.45 < np.log(count).std() < 0.55
  assert np.percentile(count, 95) > 2 * np.median(count)


def test_popular_items_and_rare_tags(world):
  likes = np.bincount(world.dataset.interactions.item, minlength=3000)
  top = np.sort(likes)[::-1]
  assert top[:300].sum() > 0.17 * top.sum()  # a tenth of the items
  assert top[-300:].sum() < 0.05 * top.sum()
  log_likes = np.log(likes + 1.0)
  assert np.corrcoef(log_likes, world.popularity)[0, 1] > 0.7
  quality = world.dataset.items.columns['quality']
  assert 0.5 < np.corrcoef(log_likes, quality)[0, 1] < 0.9
  uses = world.dataset.items.columns['tags'].matrix.sum(axis=0)
  assert np.max(uses) > 0.15 * 3000
  assert np.sum(uses < 0.01 * 3000) > 60  # of 300


@settings(max_examples=25, deadline=None)
@given(
    num_users=st.integers(20, 60),
    num_items=st.integers(20, 60),
    likes_per_user=st.floats(1, 200),
    content_strength=st.floats(0, 1),
    seed=st.integers(0, 2**31 - 1),
)
def test_any_valid_settings_give_a_world(**fields):
  wanted = config.SyntheticConfig(**fields)
  wanted.validate()
  world = synthetic.make_world(wanted)
  count = _likes(world).sum(axis=1)
  assert len(world.dataset.interactions) == count.sum()
  assert count.min() >= 3
  assert count.max() <= wanted.num_items // 2
  assert np.isfinite(_all_scores(world)).all()


def test_true_scores_of_a_part_are_part_of_all_scores(world):
  rng = np.random.default_rng(0)
  users, items = rng.integers(2000, size=37), rng.integers(3000, size=53)
  part = world.true_scores(users, items)
  assert part.shape == (37, 53) and part.dtype == np.float32
  whole = _all_scores(world)[np.ix_(users, items)]
  np.testing.assert_allclose(part, whole, rtol=1e-5, atol=1e-5)


def test_likes_have_the_odds_of_the_true_scores():
  """First draws of one user in many: odds exp(score), by counting."""
  rng = np.random.default_rng(5)
  score = np.log([0.1, 0.2, 0.3, 0.4])
  _, drawn = synthetic._gumbel_top(
      rng, np.tile(score, (40_000, 1)), np.ones(40_000, int)
  )
  np.testing.assert_allclose(
      np.bincount(drawn) / 40_000, [0.1, 0.2, 0.3, 0.4], atol=0.01
  )
  # Two without replacement: P(1 left out) = sum over orders of the others.
  rows, drawn = synthetic._gumbel_top(
      rng, np.tile(score, (40_000, 1)), np.full(40_000, 2)
  )
  np.testing.assert_array_equal(rows, np.repeat(np.arange(40_000), 2))
  p = np.array([0.1, 0.2, 0.3, 0.4])
  expected = [
      p[i] + sum(p[j] * p[i] / (1 - p[j]) for j in range(4) if j != i)
      for i in range(4)
  ]
  np.testing.assert_allclose(np.bincount(drawn) / 40_000, expected, atol=0.01)


def test_nothing_beats_the_oracle(world):
  likes = _likes(world)[:400]
  truth = world.true_scores(np.arange(400), np.arange(3000))
  oracle = _precision(truth, likes)
  noise = np.random.default_rng(0).normal(size=truth.shape)
  rivals = {
      'random': noise,
      'popularity, counted on the answers': np.tile(likes.sum(0), (400, 1)),
      'taste alone': truth - world.popularity,
      'truth with noise': truth + noise,
      'coarser truth': np.round(truth),
  }
  for name, scores in rivals.items():
    assert _precision(scores, likes) < oracle, name
  assert oracle > 5 * _precision(noise, likes)


def test_truth_is_learnable_but_not_linear_in_content(world):
  for side, taste in (
      (world.dataset.users, world.user_taste),
      (world.dataset.items, world.item_taste),
  ):
    linear = _ridge_r2(_dense_content(side), taste, strength=100.0)
    assert 0.05 < linear < 0.4
  # The same ridge on products of columns: the interaction is what is missing.
  users = world.dataset.users.columns
  turn = 2 * np.pi * (users['age'][:, None] - 16) / 65
  waves = np.concatenate([np.cos(0.75 * turn), np.sin(0.75 * turn)], axis=1)
  region = _one_hot(users['region'])
  product = (region[:, :, None] * waves[:, None, :]).reshape(len(region), -1)
  rings = world.user_taste[:, :4]
  assert _ridge_r2(product, rings) > 0.9
  assert _ridge_r2(_dense_content(world.dataset.users), rings) < 0.35


@pytest.mark.parametrize('strength, least', [(0.0, -1.0), (1.0, 0.1)])
def test_content_strength_decides_what_content_tells(strength, least):
  world = synthetic.make_world(
      config.SyntheticConfig(likes_per_user=5, content_strength=strength)
  )
  for side, taste in (
      (world.dataset.users, world.user_taste),
      (
          world.dataset.items,
          np.concatenate([world.item_taste, world.popularity[:, None]], axis=1),
      ),
  ):
    explained = _ridge_r2(_dense_content(side), taste)
    assert explained > least
    if strength == 0:
      assert explained < 0.02


def test_private_taste_has_the_planted_share():
  """With strength 0.75, content taste explains 75 % of the variance."""
  make = lambda strength: synthetic.make_world(
      config.SyntheticConfig(likes_per_user=5, content_strength=strength)
  )
  content, mixed = make(1.0).item_taste, make(0.75).item_taste
  private = mixed - np.sqrt(0.75) * content
  share = np.mean(private**2, axis=0) / np.mean(mixed**2, axis=0)
  np.testing.assert_allclose(share, 0.25, atol=0.05)
