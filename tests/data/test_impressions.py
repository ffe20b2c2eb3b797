# SPDX-License-Identifier: Apache-2.0
"""Labelled rows follow the split of the likes; nothing is used twice."""

import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.data import impressions
from dropoutnet_jax.data import own_pairs
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import splits

USERS, ITEMS = 40, 50


def _pairs(rows):
  return set(zip(rows.user.tolist(), rows.item.tolist()))


@pytest.fixture(name='world', scope='module')
def fixture_world():
  """Every pair was shown once; a fifth was liked."""
  user, item = np.divmod(np.arange(USERS * ITEMS), ITEMS)
  label = np.random.default_rng(0).random(len(user)) < 0.2
  shown = schema.Interactions(
      user.astype(np.int32),
      item.astype(np.int32),
      label=label.astype(np.float32),
  )
  likes = schema.Interactions(shown.user[label], shown.item[label])
  ids = lambda number: schema.Entities(np.arange(number))
  dataset = schema.Dataset('shown', ids(USERS), ids(ITEMS), likes)
  split = splits.make_split(
      dataset,
      config.DataConfig(
          split='random',
          cold_item_share=0.15,
          cold_user_share=0.15,
          warm_share=0.1,
      ),
  )
  return shown, split, impressions.split(shown, split, seed=0)


def test_every_row_is_used_once(world):
  shown, split, labelled = world
  parts = [labelled.train, *labelled.evaluation.values()]
  total = sum(len(part) for part in parts)
  assert len(set.union(*map(_pairs, parts))) == total
  # What is left out is between rows of different roles alone.
  assert 0.8 * len(shown) < total <= len(shown)
  assert labelled.evaluation.keys() == split.evaluation.keys()


def test_likes_go_where_the_split_put_them(world):
  _, split, labelled = world
  liked = labelled.train.select(labelled.train.label > 0)
  assert _pairs(liked) == _pairs(split.train)
  for name, held_out in split.evaluation.items():
    rows = labelled.evaluation[name]
    assert _pairs(rows.select(rows.label > 0)) == _pairs(held_out)


def test_rows_without_a_reaction_are_of_the_roles_of_their_set(world):
  _, split, labelled = world
  users, items = (set(rows.tolist()) for rows in split.train_rows())
  for name, rows in labelled.evaluation.items():
    shown = rows.select(rows.label == 0)
    assert len(shown)
    cold_user = name.startswith(('cold_user', 'cold_both'))
    cold_item = name.startswith(('cold_item', 'cold_both'))
    assert users.isdisjoint(shown.user.tolist()) == cold_user
    assert items.isdisjoint(shown.item.tolist()) == cold_item


def test_warm_sets_have_the_share_of_the_likes(world):
  _, split, labelled = world
  rows = labelled.evaluation['warm']
  share = np.mean(rows.label == 0)
  train = np.mean(labelled.train.label == 0)
  assert share == pytest.approx(train, abs=0.06)
  assert len(rows) < 0.3 * len(labelled.train)


def test_the_draw_is_the_seeds(world):
  shown, split, labelled = world
  same = impressions.split(shown, split, seed=0)
  other = impressions.split(shown, split, seed=1)
  assert _pairs(same.train) == _pairs(labelled.train) != _pairs(other.train)


def test_rows_without_training_pairs_are_left_out():
  pairs = lambda *rows: schema.Interactions(*np.array(rows, np.int32).T)
  held = schema.EvaluationSet(
      np.int32([0]), np.int32([2]), np.arange(3, dtype=np.int32)
  )
  split = schema.Split(pairs((0, 0), (1, 1), (1, 0)), {'cold_item': held})
  shown = pairs((0, 1), (0, 2), (2, 0), (1, 1), (0, 1), (0, 0), (3, 1))
  found = impressions.split(shown, split, seed=0)
  # (0, 2) is held out, users 2 and 3 have no training pair.
  assert list(zip(found.train.user.tolist(), found.train.item.tolist())) == [
      (0, 1),
      (1, 1),
      (0, 1),
      (0, 0),
  ]
  assert _pairs(found.evaluation['cold_item']) == {(0, 2)}


def test_rows_of_a_pair_go_one_way(world):
  """A click log shows the same thing to the same user again and again."""
  shown, split, _ = world
  again = shown.select(np.tile(np.arange(len(shown)), 3))
  found = impressions.split(again, split, seed=0)
  parts = [found.train, *found.evaluation.values()]
  used = [pair for part in parts for pair in _pairs(part)]
  assert len(used) == len(set(used))
  assert sum(map(len, parts)) == 3 * len(used)
  assert np.any(found.evaluation['warm'].label == 0)


def test_by_time_rows_without_a_reaction_are_as_late_as_the_likes():
  rng = np.random.default_rng(3)
  size = 4000
  shown = schema.Interactions(
      rng.integers(0, USERS, size).astype(np.int32),
      rng.integers(0, ITEMS, size).astype(np.int32),
      time=np.sort(rng.integers(0, 10**6, size)),
      label=(rng.random(size) < 0.3).astype(np.float32),
  )
  liked = shown.select(shown.label > 0)
  _, first = np.unique(
      np.stack([liked.user, liked.item]), axis=1, return_index=True
  )
  likes = schema.Interactions(
      liked.user[first], liked.item[first], time=liked.time[first]
  )
  ids = lambda number: schema.Entities(np.arange(number))
  split = splits.make_split(
      schema.Dataset('shown', ids(USERS), ids(ITEMS), likes),
      config.DataConfig(split='time', cold_item_share=0, warm_share=0.2),
  )
  found = impressions.split(shown, split, seed=0, by_time=True)
  vain = {
      name: rows.time[rows.label == 0]
      for name, rows in {'train': found.train, **found.evaluation}.items()
  }
  last = split.train.time.max()
  assert vain['train'].max() <= last < vain['warm_validation'].min()
  assert vain['warm_validation'].max() < vain['warm'].min()
  assert all(len(times) for times in vain.values())
  for rows in found.evaluation.values():
    assert _pairs(rows).isdisjoint(_pairs(found.train))


@pytest.mark.parametrize('kind', ['random', 'time'])
def test_rows_of_training_are_found_again(kind):
  rng = np.random.default_rng(3)
  size = 4000
  shown = schema.Interactions(
      rng.integers(0, USERS, size).astype(np.int32),
      rng.integers(0, ITEMS, size).astype(np.int32),
      time=rng.integers(0, 10**6, size),
      label=(rng.random(size) < 0.3).astype(np.float32),
  )
  likes, _ = own_pairs.merge_likes(shown, ITEMS, 'shown')
  ids = lambda number: schema.Entities(np.arange(number))
  split = splits.make_split(
      schema.Dataset('shown', ids(USERS), ids(ITEMS), likes),
      config.DataConfig(split=kind, cold_item_share=0.2, warm_share=0.2),
  )
  found = impressions.split(shown, split, 0, kind == 'time').train
  mask = impressions.of_training(shown, found)
  assert 0 < mask.sum() < size
  for field in ('user', 'item', 'time', 'label'):
    np.testing.assert_array_equal(
        getattr(shown.select(mask), field), getattr(found, field)
    )
  # Of likes alone, merged.
  liked = shown.select(shown.label > 0)
  mask = impressions.of_training(liked, split.train)
  np.testing.assert_array_equal(
      mask, np.isin(schema.pair_numbers(liked), schema.pair_numbers(found))
  )


def test_rows_without_times_are_not_split_by_time(world):
  shown, split, _ = world
  with pytest.raises(ValueError, match='not split by time'):
    impressions.split(shown, split, seed=0, by_time=True)


def test_by_time_a_test_pair_shown_before_does_not_move_the_border():
  # One user likes an item each second; the last like of all was shown, in
  # vain, when validation began.
  time = np.arange(10)
  seen = np.append(time, [6, 8])
  item = np.append(time, [9, 1])
  shown = schema.Interactions(
      np.zeros(12, np.int32),
      item.astype(np.int32),
      time=seen,
      label=np.repeat([1, 0], [10, 2]).astype(np.float32),
  )
  pairs = lambda rows: schema.EvaluationSet(
      np.zeros(len(rows), np.int32), np.int32(rows), np.arange(10)
  )
  likes = shown.select(shown.label > 0)
  by = schema.Split(
      likes.select(likes.time < 6),
      {'warm': pairs([8, 9]), 'warm_validation': pairs([6, 7])},
  )
  # pylint: disable-next=protected-access
  period = impressions._periods(shown, by)
  np.testing.assert_array_equal(period, [0] * 6 + [1, 1, 2, 2] + [1, 2])


def _noise(users, rows_per_user, share, time=False):
  """Labels by chance; most users and items never react to anything."""
  rng = np.random.default_rng(users)
  size = users * rows_per_user
  shown = schema.Interactions(
      np.repeat(np.arange(users), rows_per_user).astype(np.int32),
      rng.integers(0, 60, size).astype(np.int32),
      time=rng.integers(0, 10**6, size) if time else None,
      label=(rng.random(size) < share).astype(np.float32),
  )
  likes, _ = own_pairs.merge_likes(shown, 60, 'shown')
  ids = lambda number: schema.Entities(np.arange(number))
  return shown, schema.Dataset('shown', ids(users), ids(60), likes)


@pytest.mark.parametrize('kind, rows_per_user', [('random', 5), ('time', 3)])
def test_who_never_reacts_is_trained_on_and_tested_on(kind, rows_per_user):
  shown, dataset = _noise(3000, rows_per_user, 0.1, kind == 'time')
  split = splits.make_split(
      dataset,
      config.DataConfig(
          split=kind,
          cold_item_share=0,
          cold_user_share=0.2,
          warm_share=0.1 * (kind == 'time'),
      ),
  )
  found = impressions.split(shown, split, 0, kind == 'time')
  never = np.setdiff1d(shown.user, shown.user[shown.label > 0])
  assert len(never) > 600
  trained = np.isin(never, found.train.user)
  tested = np.isin(never, found.evaluation['cold_user'].user)
  if kind == 'random':
    # In the shares of the others.
    assert tested.mean() == pytest.approx(0.2, abs=0.04)
    assert trained.mean() == pytest.approx(0.6, abs=0.05)
  assert tested.any() and trained.mean() > 0.5
  assert not np.any(trained & tested)
  assert found.train.label.mean() == pytest.approx(0.1, abs=0.02)
  if kind == 'random':
    mean = found.evaluation['cold_user'].label.mean()
    assert mean == pytest.approx(0.1, abs=0.03)
  text = found.describe(len(shown))
  held = sum(map(len, found.evaluation.values()))
  left = len(shown) - held - len(found.train)
  assert f'{held:,} are held out, and {left:,} are in no set' in text


@pytest.mark.parametrize('rows_per_user', [5, 20])
def test_counts_without_the_row_say_nothing_of_noise(rows_per_user):
  """Unless warm likes are held out, of which every user keeps one."""
  shown, dataset = _noise(6000 // rows_per_user, rows_per_user, 0.1)
  settings = config.DataConfig(cold_item_share=0.1, warm_share=0)
  split = splits.make_split(dataset, settings)
  rows = impressions.split(shown, split, 0).train
  total = np.bincount(rows.user, rows.label)[rows.user] - rows.label
  none = total == 0
  expected = rows.label.mean()
  deviation = np.sqrt(expected * (1 - expected) / none.sum())
  assert abs(rows.label[none].mean() - expected) < 4 * deviation
