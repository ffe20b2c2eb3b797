# SPDX-License-Identifier: Apache-2.0
"""Random and time-based splits against plain Python sets."""

import collections
import itertools
import tracemalloc

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.data import audit
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import splits
from tests.data import toy_splits


@st.composite
def random_cases(draw):
  """A dataset and the fields of a random split."""
  dataset = toy_splits.dense_dataset(
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
@toy_splits.SETTINGS
def test_random_split_matches_python_sets(case):
  dataset, fields = case
  split = toy_splits.try_split(dataset, toy_splits.make_config(**fields))
  every = toy_splits.as_set(dataset.interactions)
  found = {
      name: toy_splits.as_set(rows) for name, rows in split.evaluation.items()
  }
  train = toy_splits.as_set(split.train)
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


@hypothesis.given(
    random_cases(), st.sampled_from(toy_splits.KEEP_OUT_AND_RETURN)
)
@toy_splits.SETTINGS
def test_random_split_is_honest(case, validation):
  dataset, fields = case
  split = toy_splits.try_split(
      dataset, toy_splits.make_config(validation=validation, **fields)
  )
  users, items = split.train_rows()
  seen = toy_splits.as_set(split.train)
  for name, rows in split.evaluation.items():
    pairs = toy_splits.as_set(rows)
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
@toy_splits.SETTINGS
def test_warm_draws_have_their_size_and_leave_every_row_a_pair(case):
  dataset, fields = case
  split = toy_splits.try_split(dataset, toy_splits.make_config(**fields))
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
  dataset = toy_splits.dense_dataset(40, 40, 0.6, lonely=10)
  fields = dict(split=split, cold_user_share=0.2, warm_share=0.1)
  keep = splits.make_split(dataset, toy_splits.make_config(**fields))
  back = splits.make_split(
      dataset, toy_splits.make_config(validation='return', **fields)
  )
  tests = [name for name in keep.evaluation if name in schema.QUADRANTS]
  assert list(back.evaluation) == tests
  for name in tests:
    toy_splits.assert_same_set(keep.evaluation[name], back.evaluation[name])
  returned = toy_splits.as_set(back.train) - toy_splits.as_set(keep.train)
  assert toy_splits.as_set(keep.train) <= toy_splits.as_set(back.train)
  for name, rows in keep.evaluation.items():
    assert not toy_splits.as_set(rows) - returned or name in tests
    assert not toy_splits.as_set(rows) & returned or name not in tests


@pytest.mark.parametrize('validation', toy_splits.KEEP_OUT_AND_RETURN)
@pytest.mark.parametrize('split', ['random', 'time', 'published-cold'])
def test_split_is_a_function_of_the_data_seed(split, validation):
  dataset = (
      toy_splits.published()
      if 'published' in split
      else toy_splits.dense_dataset(40, 40, 0.6)
  )
  fields = dict(split=split, validation=validation)
  make = lambda seed: splits.make_split(
      dataset, toy_splits.make_config(seed=seed, **fields)
  )
  toy_splits.assert_same_split(make(3), make(3))
  depends = split == 'random' or (split, validation) == (
      'published-cold',
      'keep_out',
  )
  same = toy_splits.as_set(make(3).train) == toy_splits.as_set(make(4).train)
  assert same != depends


def test_draws_are_the_same_on_every_platform():
  """May be edited only together with a word on it in the release notes."""
  pairs = list(itertools.product(range(10), range(10)))
  config = toy_splits.make_config(cold_user_share=0.2, warm_share=0.05)
  split = splits.make_split(toy_splits.make_dataset(pairs, 10, 10), config)
  sets = split.evaluation
  assert sets['cold_item'].candidates.tolist() == [1, 9]
  assert sets['cold_item_validation'].candidates.tolist() == [3, 8]
  assert np.unique(sets['cold_user'].user).tolist() == [4, 6]
  assert toy_splits.as_set(sets['warm']) == {(9, 0), (9, 6)}


def test_weights_and_times_stay_with_their_pairs():
  dataset = toy_splits.dense_dataset(20, 20)
  pairs = dataset.interactions
  values = dict(
      zip(
          zip(pairs.user.tolist(), pairs.item.tolist()),
          zip(pairs.weight.tolist(), pairs.time.tolist()),
      )
  )
  train = splits.make_split(dataset, toy_splits.make_config()).train
  for row, pair in enumerate(zip(train.user.tolist(), train.item.tolist())):
    assert values[pair] == (train.weight[row], train.time[row])


def test_items_without_pairs_are_candidates_in_proportion():
  dataset = toy_splits.dense_dataset(20, 20, 0.6, lonely=10)
  split = splits.make_split(
      dataset, toy_splits.make_config(cold_item_share=0.2)
  )
  lonely = [
      {item for item in split.evaluation[name].candidates if item >= 20}
      for name in ('cold_item', 'cold_item_validation')
  ]
  assert [len(items) for items in lonely] == [2, 2]
  assert not lonely[0] & lonely[1]
  assert '10 items have no pairs at all; 2 of them are' in split.notes[0]
  assert not split.train.item[split.train.item >= 20].size


def test_shares_of_zero_hold_nothing_out():
  dataset = toy_splits.dense_dataset()
  config = toy_splits.make_config(
      cold_item_share=0.0, cold_user_share=0.0, warm_share=0.0
  )
  split = splits.make_split(dataset, config)
  assert not split.evaluation
  assert toy_splits.as_set(split.train) == toy_splits.as_set(
      dataset.interactions
  )


# Time.


@hypothesis.given(
    st.integers(0, 99),
    st.sampled_from([0.1, 0.2, 0.4]),
    st.sampled_from([3, 30, 3000]),
    st.sampled_from(toy_splits.KEEP_OUT_AND_RETURN),
)
@toy_splits.SETTINGS
def test_time_split_matches_loops(seed, share, span, validation):
  rng = np.random.default_rng(seed)
  pairs = rng.permutation(np.argwhere(rng.random((20, 15)) < 0.3))
  # Rows arrive over time, so that some are cold in every period.
  times = np.sort(rng.integers(0, span, len(pairs)))
  pairs = pairs[np.argsort(pairs[:, 0] + rng.normal(0, 5, len(pairs)))]
  dataset = toy_splits.make_dataset(pairs, 20, 15, times)
  config = toy_splits.make_config(
      split='time', warm_share=share, validation=validation
  )
  split = toy_splits.try_split(dataset, config)

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
  found = {
      name: toy_splits.as_set(rows) for name, rows in split.evaluation.items()
  }
  assert found == expected
  assert toy_splits.as_set(split.train) == train
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
  dataset = toy_splits.make_dataset(pairs, 4, 5, np.repeat([10, 20, 30, 40], 5))
  config = toy_splits.make_config(split='time', warm_share=0.1)
  # The last 2 and the last 4 of 20 pairs: both cuts fall into second 40.
  with pytest.raises(errors.UserError, match='no pair for validation'):
    splits.make_split(dataset, config)
  config = toy_splits.make_config(split='time', warm_share=0.3)
  split = splits.make_split(dataset, config)
  # 6 of 20 asked for; seconds 30 and 40 are the test, 20 the validation.
  assert toy_splits.as_set(split.evaluation['cold_user']) == set(pairs[10:])
  assert toy_splits.as_set(split.evaluation['cold_user_validation']) == set(
      pairs[5:10]
  )
  assert toy_splits.as_set(split.train) == set(pairs[:5])


def test_memory_grows_with_the_pairs_alone():
  """No table of users times items, of which there are 85 million cells."""
  rng = np.random.default_rng(0)
  code = np.unique(rng.integers(0, 5000 * 17000, 200_000))
  dataset = toy_splits.make_dataset(
      np.stack(np.divmod(code, 17000), 1), 5000, 17000
  )
  config = toy_splits.make_config(cold_user_share=0.2, warm_share=0.05)
  tracemalloc.start()
  split = splits.make_split(dataset, config)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 20_000_000  # bytes; 100 per pair
  assert 0 < len(split.train) < len(code)
