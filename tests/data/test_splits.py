# SPDX-License-Identifier: Apache-2.0
"""Splits against plain Python sets, and what a user is told when one fails."""

import collections
import dataclasses
import itertools
import re
import time

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dropoutnet_jax import config as config_lib
from dropoutnet_jax import errors
from dropoutnet_jax.data import audit
from dropoutnet_jax.data import roles
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import splits

SETTINGS = hypothesis.settings(max_examples=60, deadline=None)
KEEP_OUT_AND_RETURN = ('keep_out', 'return')


def make_config(**fields):
  config = config_lib.DataConfig(**fields)
  config.validate()
  return config


def make_dataset(pairs, num_users, num_items, times=None, held_out=None):
  user, item = np.array(pairs, np.int32).reshape(-1, 2).T
  weight = (1 + np.arange(len(user))).astype(np.float32)
  return schema.Dataset(
      'toy',
      schema.Entities(np.array([f'u{row}' for row in range(num_users)])),
      schema.Entities(100 + np.arange(num_items)),
      schema.Interactions(user, item, weight, times),
      held_out or {},
  )


def dense_dataset(num_users=20, num_items=25, density=0.5, seed=0, lonely=0):
  """A random world, with `lonely` items without pairs at the end."""
  rng = np.random.default_rng(seed)
  likes = rng.random((num_users, num_items)) < density
  pairs = rng.permutation(np.argwhere(likes))
  times = rng.integers(0, 10 * len(pairs), len(pairs))
  return make_dataset(pairs, num_users, num_items + lonely, times)


def as_set(rows):
  pairs = set(zip(rows.user.tolist(), rows.item.tolist()))
  assert len(pairs) == len(rows)
  return pairs


def assert_same_set(left, right):
  assert left.exclude_train == right.exclude_train
  for field in ('user', 'item', 'candidates'):
    a, b = getattr(left, field), getattr(right, field)
    assert a.dtype == b.dtype == np.int32
    np.testing.assert_array_equal(a, b)


def assert_same_split(left, right):
  for field in ('user', 'item', 'weight', 'time'):
    np.testing.assert_array_equal(
        getattr(left.train, field), getattr(right.train, field)
    )
  assert list(left.evaluation) == list(right.evaluation)
  for name, rows in left.evaluation.items():
    assert_same_set(rows, right.evaluation[name])
  assert left.notes == right.notes


def try_split(dataset, config):
  """The split, or a rejected example where a share is too large for it."""
  try:
    return splits.make_split(dataset, config)
  except errors.UserError as error:
    assert re.search('Lower|Raise|Change|set it', str(error))
    hypothesis.reject()


@st.composite
def random_cases(draw):
  """A dataset and the fields of a random split."""
  dataset = dense_dataset(
      draw(st.integers(12, 30)),
      draw(st.integers(12, 30)),
      draw(st.sampled_from([0.3, 0.6, 0.9])),
      draw(st.integers(0, 99)),
      lonely=draw(st.sampled_from([0, 7])),
  )
  shares = st.sampled_from([0.0, 0.1, 0.2, 0.25])
  fields = {
      'cold_item_share': draw(shares),
      'cold_user_share': draw(shares),
      'warm_share': draw(st.sampled_from([0.0, 0.05, 0.1])),
      'seed': draw(st.integers(0, 2**31 - 1)),
  }
  return dataset, fields


def drawn(rows, share, seed):
  """Test and validation rows, by the documented draw."""
  with_pairs = sorted(set(rows.tolist()))
  count = round(share * len(with_pairs))
  order = np.random.default_rng(seed).permutation(with_pairs).tolist()
  return set(order[:count]), set(order[count : 2 * count])


def expected_quadrants(pairs, cold, warm):
  """The cold quadrants of both periods by loops over Python sets.

  Args:
    pairs: set of (user, item).
    cold: {'user': (test rows, validation rows), 'item': ...}.
    warm: held-out pairs between warm rows.

  Returns:
    Quadrants by name, and the pairs that stay with training rows.
  """
  users, items = cold['user'], cold['item']
  block = {
      (u, i)
      for u, i in pairs
      if u not in users[0] | users[1] and i not in items[0] | items[1]
  }
  warm_users, warm_items = ({pair[n] for pair in block} for n in (0, 1))
  quadrants = collections.defaultdict(set)
  for (u, i), period in itertools.product(pairs, (0, 1)):
    suffix = ('', '_validation')[period]
    if i in items[period]:
      if u in warm_users:
        quadrants['cold_item' + suffix].add((u, i))
      if u in users[period]:
        quadrants['cold_both' + suffix].add((u, i))
    elif u in users[period] and i in warm_items:
      quadrants['cold_user' + suffix].add((u, i))
  return quadrants, block - warm


@hypothesis.given(random_cases())
@SETTINGS
def test_random_split_matches_python_sets(case):
  dataset, fields = case
  split = try_split(dataset, make_config(**fields))
  every = as_set(dataset.interactions)
  found = {name: as_set(rows) for name, rows in split.evaluation.items()}
  train = as_set(split.train)
  cold = {
      side: drawn(
          getattr(dataset.interactions, side),
          fields[f'cold_{side}_share'],
          [fields['seed'], word],
      )
      for side, word in (('user', 0), ('item', 1))
  }
  warm = {name: found.pop(name) for name in list(found) if 'warm' in name}
  held_out = set().union(*warm.values())
  expected, block = expected_quadrants(every, cold, held_out)
  assert found == {name: rows for name, rows in expected.items() if rows}
  assert train == block

  # Pairs in no set: both periods, or a row that has no training pair.
  dropped = every - train - held_out - set().union(*found.values())
  users, items = ({pair[n] for pair in block} for n in (0, 1))
  for u, i in dropped:
    periods = {
        period
        for period in (0, 1)
        if u in cold['user'][period] or i in cold['item'][period]
    }
    lost = (
        u not in users | cold['user'][0] | cold['user'][1]
        or i not in items | cold['item'][0] | cold['item'][1]
    )
    assert len(periods) == 2 or lost
  note = [note for note in split.notes if 'in no set' in note]
  assert [f'{len(dropped):,} held-out pairs'] * bool(dropped) == [
      text.split(' are')[0] for text in note
  ]


@hypothesis.given(random_cases(), st.sampled_from(KEEP_OUT_AND_RETURN))
@SETTINGS
def test_random_split_is_honest(case, validation):
  dataset, fields = case
  split = try_split(dataset, make_config(validation=validation, **fields))
  users, items = split.train_rows()
  seen = as_set(split.train)
  for name, rows in split.evaluation.items():
    pairs = as_set(rows)
    assert pairs and not pairs & seen
    seen |= pairs
    quadrant = name.removesuffix('_validation')
    assert validation == 'keep_out' or quadrant == name
    assert rows.exclude_train == (quadrant == 'warm')
    assert (np.diff(rows.candidates) > 0).all()
    assert set(rows.item) <= set(rows.candidates)
    is_cold_item = quadrant in ('cold_item', 'cold_both')
    assert np.isin(rows.candidates, items).all() == (not is_cold_item)
    assert np.isin(rows.candidates, items).any() == (not is_cold_item)
    is_cold_user = quadrant in ('cold_user', 'cold_both')
    assert np.isin(rows.user, users).all() == (not is_cold_user)
    assert np.isin(rows.user, users).any() == (not is_cold_user)
    if validation == 'keep_out' and not is_cold_item:
      np.testing.assert_array_equal(rows.candidates, items)
  assert audit.check_split(dataset, split) == (split, [])


@hypothesis.given(random_cases())
@SETTINGS
def test_warm_draws_have_their_size_and_leave_every_row_a_pair(case):
  dataset, fields = case
  split = try_split(dataset, make_config(**fields))
  warm = [
      split.evaluation[name]
      for name in ('warm', 'warm_validation')
      if name in split.evaluation
  ]
  block = len(split.train) + sum(map(len, warm))
  sizes = [round(fields['warm_share'] * block)] * 2
  assert [len(rows) for rows in warm] == (sizes if sizes[0] else [])
  users, items = split.train_rows()
  for rows in warm:
    assert set(rows.user) <= set(users)
    assert set(rows.item) <= set(items)


@pytest.mark.parametrize('split', ['random', 'time'])
def test_return_has_the_same_test_sets_and_trains_on_validation(split):
  dataset = dense_dataset(40, 40, 0.6, lonely=10)
  fields = dict(split=split, cold_user_share=0.2, warm_share=0.1)
  keep = splits.make_split(dataset, make_config(**fields))
  back = splits.make_split(dataset, make_config(validation='return', **fields))
  tests = [name for name in keep.evaluation if name in schema.QUADRANTS]
  assert list(back.evaluation) == tests
  for name in tests:
    assert_same_set(keep.evaluation[name], back.evaluation[name])
  returned = as_set(back.train) - as_set(keep.train)
  assert as_set(keep.train) <= as_set(back.train)
  for name, rows in keep.evaluation.items():
    assert not as_set(rows) - returned or name in tests
    assert not as_set(rows) & returned or name not in tests


@pytest.mark.parametrize('validation', KEEP_OUT_AND_RETURN)
@pytest.mark.parametrize('split', ['random', 'time', 'published-cold'])
def test_split_is_a_function_of_the_data_seed(split, validation):
  dataset = published() if 'published' in split else dense_dataset(40, 40, 0.6)
  fields = dict(split=split, validation=validation)
  make = lambda seed: splits.make_split(
      dataset, make_config(seed=seed, **fields)
  )
  assert_same_split(make(3), make(3))
  depends = split == 'random' or (split, validation) == (
      'published-cold',
      'keep_out',
  )
  same = as_set(make(3).train) == as_set(make(4).train)
  assert same != depends


def test_draws_are_the_same_on_every_platform():
  """May be edited only together with a word on it in the release notes."""
  pairs = list(itertools.product(range(10), range(10)))
  config = make_config(cold_user_share=0.2, warm_share=0.05)
  split = splits.make_split(make_dataset(pairs, 10, 10), config)
  sets = split.evaluation
  assert sets['cold_item'].candidates.tolist() == [1, 9]
  assert sets['cold_item_validation'].candidates.tolist() == [3, 8]
  assert np.unique(sets['cold_user'].user).tolist() == [4, 6]
  assert as_set(sets['warm']) == {(9, 0), (9, 6)}


def test_weights_and_times_stay_with_their_pairs():
  dataset = dense_dataset(20, 20)
  pairs = dataset.interactions
  values = dict(
      zip(
          zip(pairs.user.tolist(), pairs.item.tolist()),
          zip(pairs.weight.tolist(), pairs.time.tolist()),
      )
  )
  train = splits.make_split(dataset, make_config()).train
  for row, pair in enumerate(zip(train.user.tolist(), train.item.tolist())):
    assert values[pair] == (train.weight[row], train.time[row])


def test_items_without_pairs_are_candidates_in_proportion():
  dataset = dense_dataset(20, 20, 0.6, lonely=10)
  split = splits.make_split(dataset, make_config(cold_item_share=0.2))
  lonely = [
      {item for item in split.evaluation[name].candidates if item >= 20}
      for name in ('cold_item', 'cold_item_validation')
  ]
  assert [len(items) for items in lonely] == [2, 2]
  assert not lonely[0] & lonely[1]
  assert '10 items have no pairs at all; 2 of them are' in split.notes[0]
  assert not split.train.item[split.train.item >= 20].size


def test_shares_of_zero_hold_nothing_out():
  dataset = dense_dataset()
  config = make_config(cold_item_share=0.0, cold_user_share=0.0, warm_share=0.0)
  split = splits.make_split(dataset, config)
  assert not split.evaluation
  assert as_set(split.train) == as_set(dataset.interactions)


# Time.


@hypothesis.given(
    st.integers(0, 99),
    st.sampled_from([0.1, 0.2, 0.4]),
    st.sampled_from([3, 30, 3000]),
    st.sampled_from(KEEP_OUT_AND_RETURN),
)
@SETTINGS
def test_time_split_matches_loops(seed, share, span, validation):
  rng = np.random.default_rng(seed)
  pairs = rng.permutation(np.argwhere(rng.random((20, 15)) < 0.3))
  # Rows arrive over time, so that some are cold in every period.
  times = np.sort(rng.integers(0, span, len(pairs)))
  pairs = pairs[np.argsort(pairs[:, 0] + rng.normal(0, 5, len(pairs)))]
  dataset = make_dataset(pairs, 20, 15, times)
  config = make_config(split='time', warm_share=share, validation=validation)
  split = try_split(dataset, config)

  count = round(share * len(pairs))
  test, start = sorted(times)[-count], sorted(times)[-2 * count]
  period = ['test' if t >= test else 'val' if t >= start else '' for t in times]
  first = collections.defaultdict(lambda: 'never')
  assert period == sorted(period, key=['', 'val', 'test'].index)
  for (u, i), when in zip(pairs.tolist(), period):
    first.setdefault(('user', u), when)
    first.setdefault(('item', i), when)
  names = {
      ('', ''): 'warm',
      ('', 'cold'): 'cold_item',
      ('cold', ''): 'cold_user',
      ('cold', 'cold'): 'cold_both',
  }
  expected, train = collections.defaultdict(set), set()
  for (u, i), when in zip(pairs.tolist(), period):
    if not when or (when == 'val' and validation == 'return'):
      train.add((u, i))
      continue
    cold = [first['user', u], first['item', i]]
    if set(cold) <= {'', when}:
      name = names[tuple('cold' if role else '' for role in cold)]
      expected[name + ('_validation' if when == 'val' else '')].add((u, i))
  found = {name: as_set(rows) for name, rows in split.evaluation.items()}
  assert found == expected
  assert as_set(split.train) == train
  for name, rows in split.evaluation.items():
    when = 'val' if name.endswith('_validation') else 'test'
    role = when if 'cold_item' in name or 'cold_both' in name else ''
    assert rows.candidates.tolist() == [
        i for i in range(15) if first['item', i] == role
    ]
    assert rows.exclude_train == name.startswith('warm')
  assert audit.check_split(dataset, split) == (split, [])


def test_pairs_of_one_second_are_of_one_period():
  pairs = list(itertools.product(range(4), range(5)))
  dataset = make_dataset(pairs, 4, 5, np.repeat([10, 20, 30, 40], 5))
  config = make_config(split='time', warm_share=0.1)
  # The last 2 and the last 4 of 20 pairs: both cuts fall into second 40.
  with pytest.raises(errors.UserError, match='no pair for validation'):
    splits.make_split(dataset, config)
  config = make_config(split='time', warm_share=0.3)
  split = splits.make_split(dataset, config)
  # 6 of 20 asked for; seconds 30 and 40 are the test, 20 the validation.
  assert as_set(split.evaluation['cold_user']) == set(pairs[10:])
  assert as_set(split.evaluation['cold_user_validation']) == set(pairs[5:10])
  assert as_set(split.train) == set(pairs[:5])


# Published.


def published(quadrants=('cold_item',), seed=0):
  """Users 0-29 and items 0-29 in training; 5 more of each, cold."""
  rng = np.random.default_rng(seed)
  likes = rng.random((35, 35)) < 0.5
  is_warm = rng.random((35, 35)) < 0.1
  cold = np.arange(35) >= 30
  blocks = {
      'warm': likes & is_warm & ~cold[:, None] & ~cold,
      'cold_item': likes & ~cold[:, None] & cold,
      'cold_user': likes & cold[:, None] & ~cold,
      'cold_both': likes & cold[:, None] & cold,
  }
  candidates = {
      'warm': np.arange(35),
      'cold_item': np.arange(30, 35),
      'cold_user': np.arange(30),
      'cold_both': np.arange(30, 35),
  }
  held_out = {}
  for name in quadrants:
    user, item = np.argwhere(blocks[name]).T.astype(np.int32)
    rows = candidates[name].astype(np.int32)
    held_out[name] = schema.EvaluationSet(user, item, rows, name == 'warm')
  train = likes & ~blocks['warm'] & ~cold[:, None] & ~cold
  pairs = rng.permutation(np.argwhere(train))
  return make_dataset(pairs, 35, 35, held_out=held_out)


QUADRANT_SETS = [
    names
    for size in range(1, 5)
    for names in itertools.combinations(schema.QUADRANTS, size)
]


@pytest.mark.parametrize('quadrants', QUADRANT_SETS, ids='+'.join)
def test_published_split_draws_validation_from_training_alone(quadrants):
  dataset = published(quadrants)
  config = make_config(split='published-cold', seed=5)
  split = splits.make_split(dataset, config)
  twins = [f'{name}_validation' for name in quadrants]
  assert list(split.evaluation) == [*quadrants, *twins]
  for name in quadrants:
    assert split.evaluation[name] is dataset.held_out[name]
  every = as_set(dataset.interactions)
  train = as_set(split.train)
  held_out = [as_set(split.evaluation[name]) for name in twins]
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
  dataset = published(quadrants)
  config = make_config(split='published-warm', validation='return')
  split = splits.make_split(dataset, config)
  assert_same_split(
      split, dataclasses.replace(split, train=dataset.interactions)
  )
  assert split.evaluation == dataset.held_out


def test_share_of_zero_draws_no_validation():
  dataset = published()
  config = make_config(split='published-cold', validation_share=0.0)
  split = splits.make_split(dataset, config)
  assert list(split.evaluation) == ['cold_item']
  assert len(split.train) == len(dataset.interactions)
  assert 'No pairs for cold_item_validation.' in split.notes


@hypothesis.given(st.integers(0, 99), st.sampled_from([0.1, 0.2, 0.5, 1.0]))
@SETTINGS
def test_warm_validation_is_a_share_of_each_user(seed, share):
  rng = np.random.default_rng(seed)
  pairs = rng.permutation(np.argwhere(rng.random((12, 15)) < 0.5))
  dataset = make_dataset(pairs, 12, 15)
  test = schema.EvaluationSet(
      *np.zeros((2, 1), np.int32), np.arange(15, dtype=np.int32), True
  )
  dataset = dataclasses.replace(dataset, held_out={'warm': test})
  config = make_config(
      split='published-warm', seed=seed, validation_share=share
  )
  split = try_split(dataset, config)
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
  dataset = published(('warm',))
  candidates = np.arange(20, dtype=np.int32)
  test = dataset.held_out['warm']
  known = np.isin(test.item, candidates)
  test = schema.EvaluationSet(
      test.user[known], test.item[known], candidates, True
  )
  dataset = dataclasses.replace(dataset, held_out={'warm': test})
  split = splits.make_split(dataset, make_config(split='published-warm'))
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
  dataset = make_dataset(pairs, 6, 6, held_out=held_out)
  found = set()
  for seed in range(20):
    config = make_config(split='published-cold', seed=seed)
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


# Messages.

LINE = [(row, row) for row in range(10)]  # every row has one pair
SQUARE = list(itertools.product(range(4), range(4)))
PUBLISHED = published()

ERRORS = {
    'no pairs': (
        make_dataset([], 3, 3),
        dict(),
        "Data set 'toy' has no training pairs",
    ),
    'published without test sets': (
        make_dataset(SQUARE, 4, 4),
        dict(split='published-cold'),
        "'toy' has no published test sets. Set it to random",
    ),
    'random with test sets': (
        PUBLISHED,
        dict(split='random'),
        r"split is 'random', but .* own test sets \(cold_item\). Set it to pub",
    ),
    'time with test sets': (PUBLISHED, dict(split='time'), 'own test sets'),
    'time without times': (
        make_dataset(SQUARE, 4, 4),
        dict(split='time'),
        "pairs of 'toy' have no times. Set it to random",
    ),
    'time with a share of zero': (
        make_dataset(SQUARE, 4, 4, np.arange(16)),
        dict(split='time', warm_share=0.0),
        'warm_share is 0.0: the test period has none of 16 pairs. Raise it',
    ),
    'one time for all': (
        make_dataset(SQUARE, 4, 4, np.full(16, 77)),
        dict(split='time'),
        'no pair for training: validation starts at 77 .* first pair is at 77',
    ),
    'two times': (
        make_dataset(SQUARE, 4, 4, np.repeat([1, 2], 8)),
        dict(split='time'),
        'no pair for validation: validation starts at 2 and test at 2',
    ),
    'only rows first seen during validation': (
        make_dataset([(0, 0), (1, 1), (1, 2)], 2, 3, np.array([1, 2, 3])),
        dict(split='time', warm_share=0.34),
        "Every test pair of 'toy' has a user or an item first seen during val",
    ),
    'no cold item': (
        make_dataset(SQUARE, 4, 4),
        dict(cold_item_share=0.1),
        r'cold_item_share \(of the items with pairs\) of 4 is 0.1: this holds '
        'out 0 for each of test and validation, .* Raise it, or set it to 0',
    ),
    'no warm item': (
        make_dataset(SQUARE, 4, 4),
        dict(cold_item_share=0.45),
        'of 4 is 0.45: this holds out 2 for each .* Lower it',
    ),
    'no cold user': (
        make_dataset(SQUARE, 4, 4),
        dict(cold_item_share=0.25, cold_user_share=0.1),
        'cold_user_share .* of 4 is 0.1: this holds out 0',
    ),
    'no warm pair': (
        make_dataset(SQUARE, 4, 4),
        dict(cold_item_share=0.25, warm_share=0.05),
        'warm_share is 0.05: this holds out none of 8 pairs .* Raise it',
    ),
    'too many warm pairs': (
        make_dataset(SQUARE, 4, 4),
        dict(cold_item_share=0.0, warm_share=0.45),
        'holds out 7 for each of test and validation of 16 pairs .* only '
        r'(8|9|10|11|12) can leave so that .* Lower it to 0\.[23]\d*\.',
    ),
    'no pair can leave': (
        make_dataset(LINE, 10, 10),
        dict(cold_item_share=0.0, warm_share=0.2),
        'only 0 can leave .* Lower it to 0.',
    ),
    'cold items liked by nobody who stays': (
        make_dataset(LINE, 10, 10),
        dict(warm_share=0.0),
        'cold_item_share is 0.2, but no pair .* there is no cold_item test set',
    ),
    'cold users like nothing that stays': (
        make_dataset(LINE, 10, 10),
        dict(cold_item_share=0.0, cold_user_share=0.2, warm_share=0.0),
        'cold_user_share is 0.2, but .* there is no cold_user test set',
    ),
    'all items for validation': (
        PUBLISHED,
        dict(split='published-cold', validation_share=1.0),
        r'validation_share \(of the training items\) of 30 is 1.0: this holds '
        'out 30, but some .* Lower it',
    ),
    'no item for validation': (
        PUBLISHED,
        dict(split='published-cold', validation_share=0.01),
        r'\(of the training items\) of 30 is 0.01: this holds out 0, .* Raise',
    ),
    'no user for validation': (
        published(('cold_user',)),
        dict(split='published-cold', validation_share=0.01),
        r'\(of the training users\) of 30 is 0.01: this holds out 0, .* Raise',
    ),
    'no pair for validation': (
        dataclasses.replace(
            make_dataset(LINE, 10, 10),
            held_out=published(('warm',)).held_out,
        ),
        dict(split='published-warm'),
        'validation_share is 0.2: this holds out none of 10 training pairs',
    ),
}


@pytest.mark.parametrize('name', ERRORS)
def test_what_cannot_be_split_is_said(name):
  dataset, fields, message = ERRORS[name]
  with pytest.raises(errors.UserError) as caught:
    splits.make_split(dataset, make_config(**fields))
  assert re.search(message, str(caught.value)), str(caught.value)
  assert '\n' not in str(caught.value)


def test_no_training_pair_left_is_said():
  pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2)]
  dataset = make_dataset(pairs, 2, 3)
  user = np.array([roles.TEST, roles.VALIDATION], np.int8)
  item = np.full(3, roles.TRAIN, np.int8)
  with pytest.raises(errors.UserError, match='No training pair is left of 5'):
    roles.make_roles(dataset.interactions, user, item)


def test_warm_share_named_by_the_message_works():
  dataset = make_dataset(SQUARE, 4, 4)
  fields = dict(cold_item_share=0.0)
  with pytest.raises(errors.UserError) as caught:
    splits.make_split(dataset, make_config(warm_share=0.45, **fields))
  most = float(re.search(r'Lower it to (\S+)\.$', str(caught.value)).group(1))
  split = splits.make_split(dataset, make_config(warm_share=most, **fields))
  assert len(split.evaluation['warm']) == round(16 * most)


def test_notes_count_what_is_there():
  dataset = dense_dataset(30, 30, 0.6)
  split = splits.make_split(dataset, make_config(seed=11))
  train = split.train
  users, items = (len(rows) for rows in split.train_rows())
  assert split.notes[0] == (
      f'Training: {len(train)} pairs of {users} users and {items} items.'
  )
  for name, rows in split.evaluation.items():
    assert (
        f'{name}: {len(rows)} pairs of {len(set(rows.user))} users; '
        f'{len(rows.candidates)} candidates.'
    ) in split.notes
  assert split.notes[-1] == 'Drawn with data.seed 11.'


def test_two_hundred_thousand_pairs_take_less_than_seconds():
  rng = np.random.default_rng(0)
  code = np.unique(rng.integers(0, 5000 * 17000, 200_000))
  dataset = make_dataset(np.stack(np.divmod(code, 17000), 1), 5000, 17000)
  config = make_config(cold_user_share=0.2, warm_share=0.05)
  start = time.perf_counter()
  splits.make_split(dataset, config)
  assert time.perf_counter() - start < 5  # 0.3 s on a free core
