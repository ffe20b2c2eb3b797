# SPDX-License-Identifier: Apache-2.0
"""Published splits: validation comes from training alone."""

import dataclasses
import itertools

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dropoutnet_jax.data import audit
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import splits
from tests.data import toy_splits

QUADRANT_SETS = [
    names
    for size in range(1, 5)
    for names in itertools.combinations(schema.QUADRANTS, size)
]


@pytest.mark.parametrize('quadrants', QUADRANT_SETS, ids='+'.join)
def test_published_split_draws_validation_from_training_alone(quadrants):
  dataset = toy_splits.published(quadrants)
  config = toy_splits.make_config(split='published-cold', seed=5)
  split = splits.make_split(dataset, config)
  twins = [f'{name}_validation' for name in quadrants]
  assert list(split.evaluation) == [*quadrants, *twins]
  for name in quadrants:
    assert split.evaluation[name] is dataset.held_out[name]
  every = toy_splits.as_set(dataset.interactions)
  train = toy_splits.as_set(split.train)
  held_out = [toy_splits.as_set(split.evaluation[name]) for name in twins]
  assert train < every and set().union(*held_out) <= every - train
  assert sum(map(len, held_out)) == len(set().union(*held_out))
  missing = len(every) - len(train) - sum(map(len, held_out))
  noted = [note.split()[0] for note in split.notes if 'in no set' in note]
  assert noted == [str(missing)] * bool(missing)
  assert audit.check_split(dataset, split) == (split, [])
  users, items = split.train_rows()
  draws_items = {'cold_item', 'cold_both'} & set(quadrants)
  draws_users = {'cold_user', 'cold_both'} & set(quadrants)
  assert (len(users), len(items)) == (
      24 if draws_users else 30,
      24 if draws_items else 30,
  )
  for name in twins:
    rows, quadrant = split.evaluation[name], name.removesuffix('_validation')
    cold_item = quadrant in ('cold_item', 'cold_both')
    cold_user = quadrant in ('cold_user', 'cold_both')
    assert np.isin(rows.item, items).any() == (not cold_item)
    assert np.isin(rows.user, users).any() == (not cold_user)
    expected = np.setdiff1d(np.arange(30), items)
    if not cold_item:
      expected = dataset.held_out[quadrant].candidates
    np.testing.assert_array_equal(rows.candidates, expected)
    assert rows.exclude_train == (quadrant == 'warm')


@pytest.mark.parametrize('quadrants', [('warm',), ('cold_item', 'warm')])
def test_published_split_returns_validation_by_not_drawing_it(quadrants):
  dataset = toy_splits.published(quadrants)
  config = toy_splits.make_config(split='published-warm', validation='return')
  split = splits.make_split(dataset, config)
  toy_splits.assert_same_split(
      split, dataclasses.replace(split, train=dataset.interactions)
  )
  assert split.evaluation == dataset.held_out


def test_share_of_zero_draws_no_validation():
  dataset = toy_splits.published()
  config = toy_splits.make_config(split='published-cold', validation_share=0.0)
  split = splits.make_split(dataset, config)
  assert list(split.evaluation) == ['cold_item']
  assert len(split.train) == len(dataset.interactions)
  assert 'No pairs for cold_item_validation.' in split.notes


@hypothesis.given(st.integers(0, 99), st.sampled_from([0.1, 0.2, 0.5, 1.0]))
@toy_splits.SETTINGS
def test_warm_validation_is_a_share_of_each_user(seed, share):
  rng = np.random.default_rng(seed)
  pairs = rng.permutation(np.argwhere(rng.random((12, 15)) < 0.5))
  dataset = toy_splits.make_dataset(pairs, 12, 15)
  test = schema.EvaluationSet(
      *np.zeros((2, 1), np.int32), np.arange(15, dtype=np.int32), True
  )
  dataset = dataclasses.replace(dataset, held_out={'warm': test})
  config = toy_splits.make_config(
      split='published-warm', seed=seed, validation_share=share
  )
  split = toy_splits.try_split(dataset, config)
  np.testing.assert_array_equal(
      split.train_rows()[0], np.unique(dataset.interactions.user)
  )
  np.testing.assert_array_equal(
      split.train_rows()[1], np.unique(dataset.interactions.item)
  )
  total = np.bincount(dataset.interactions.user, minlength=12)
  rows = split.evaluation['warm_validation']
  drawn_of = np.bincount(rows.user, minlength=12)
  assert (drawn_of <= np.rint(share * total)).all()
  if share <= 0.2:  # enough pairs can leave
    assert drawn_of.sum() >= 0.8 * np.rint(share * total).sum()


def test_warm_validation_keeps_to_the_candidates_of_the_test():
  dataset = toy_splits.published(('warm',))
  candidates = np.arange(20, dtype=np.int32)
  test = dataset.held_out['warm']
  known = np.isin(test.item, candidates)
  test = schema.EvaluationSet(
      test.user[known], test.item[known], candidates, True
  )
  dataset = dataclasses.replace(dataset, held_out={'warm': test})
  split = splits.make_split(
      dataset, toy_splits.make_config(split='published-warm')
  )
  assert split.evaluation['warm_validation'].item.max() < 20
  assert 'in no set' in split.notes[-3]
  assert audit.check_split(dataset, split) == (split, [])


def test_users_who_lose_all_training_pairs_are_not_evaluated():
  # User 0 likes item 0 alone; other users like every item.
  pairs = [(0, 0)] + list(itertools.product(range(1, 6), range(5)))
  held_out = {
      'cold_item': schema.EvaluationSet(
          np.array([1], np.int32),
          np.array([5], np.int32),
          np.array([5], np.int32),
      )
  }
  dataset = toy_splits.make_dataset(pairs, 6, 6, held_out=held_out)
  found = set()
  for seed in range(20):
    config = toy_splits.make_config(split='published-cold', seed=seed)
    split = splits.make_split(dataset, config)
    rows = split.evaluation['cold_item_validation']
    lost = 0 in rows.candidates
    assert 0 not in rows.user
    assert len(rows) == 5
    noted = any(
        '1 held-out pairs are in no set' in note for note in split.notes
    )
    assert noted == lost
    found.add(lost)
  assert found == {True, False}
