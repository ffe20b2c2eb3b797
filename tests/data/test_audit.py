# SPDX-License-Identifier: Apache-2.0
"""The audit of splits: leaks are found, told, and mended."""

import dataclasses
import re
import tracemalloc

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dropoutnet_jax import config as config_lib
from dropoutnet_jax import errors
from dropoutnet_jax.data import audit
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import splits
from tests.data import planted_leaks


@pytest.mark.parametrize('drop', [False, True])
def test_clean_split_passes_as_it_is(drop):
  split = planted_leaks.clean_split()
  found, sentences = audit.check_split(planted_leaks.DATASET, split, drop)
  assert found is split
  assert sentences == []
  factors = planted_leaks.factors_of(split)
  found, sentences = audit.check_factors(
      planted_leaks.DATASET, split, factors, drop
  )
  assert found is factors
  assert sentences == []


@pytest.mark.parametrize('name', planted_leaks.LEAKS)
def test_leak_is_told_with_counts_and_examples(name):
  plant, lines, _ = planted_leaks.LEAKS[name]
  first, *found, last = planted_leaks.message_of(
      plant(planted_leaks.clean_split())
  ).split('\n')
  assert first == (
      "The split of 'toy' leaks, so results would come out wrong, mostly too "
      'high:'
  )
  assert found == [f'  {line};' for line in lines]
  assert '--config.data.drop_leaks=true, which drops' in last


@pytest.mark.parametrize('name', planted_leaks.LEAKS)
def test_leak_is_mended(name):
  plant, lines, is_restored = planted_leaks.LEAKS[name]
  mended, sentences = audit.check_split(
      planted_leaks.DATASET, plant(planted_leaks.clean_split()), drop=True
  )
  assert len(sentences) == len(lines)
  for sentence, line in zip(sentences, lines):
    assert re.match(r'Dropped \d+ pairs? from \w+: ', sentence)
    assert sentence.endswith(f': {line}.')
  assert audit.check_split(planted_leaks.DATASET, mended) == (mended, [])
  if is_restored:
    planted_leaks.assert_same_split(mended, planted_leaks.clean_split())


def test_all_leaks_are_told_at_once():
  split, expected = planted_leaks.clean_split(), set()
  for plant in (
      planted_leaks.with_train((3, 6), (6, 3), (1, 1), (4, 5), weight=-1.0),
      planted_leaks.with_pair('warm_validation', (0, 0)),
      planted_leaks.with_pair('cold_user', (5, 9)),
  ):
    split = plant(split)
  message = planted_leaks.message_of(split)
  for words in (
      'training has 4 pairs',
      'training repeats 1 pair',
      'warm: 1 pair',
      'cold_item: 1 item',
      'cold_user: 1 user',
      'cold_both: 1 item',
      'cold_both: 1 user',
      'warm_validation: 1 pair',
      'cold_user: 1 item (509) in 1 held-out pair are not among',
  ):
    assert words in message
    expected.add(words)
  mended, sentences = audit.check_split(planted_leaks.DATASET, split, drop=True)
  assert len(sentences) == len(expected) == message.count(';')
  planted_leaks.assert_same_split(mended, planted_leaks.clean_split())


def test_leaks_are_told_with_the_ids_and_paths_of_the_files():
  ids = schema.Entities(np.arange(10))
  dataset = dataclasses.replace(
      planted_leaks.DATASET,
      users=ids,
      items=ids,
      origin=schema.Origin(('x/train.csv', 'x/test.csv'), 1),
  )
  split = planted_leaks.with_train((3, 6), (1, 1))(planted_leaks.clean_split())
  with pytest.raises(errors.UserError) as caught:
    audit.check_split(dataset, split)
  message = str(caught.value)
  assert 'cold_item: 1 item (6, in the files 7) of 2 cold ones' in message
  assert 'warm: 1 pair (user 1 with item 1, in the files 2 with 2) of' in (
      message
  )
  assert 'Its pairs are in x/train.csv, x/test.csv. Mend the files' in message
  many = planted_leaks.with_candidates('cold_item', *range(8))(
      planted_leaks.clean_split()
  )
  with pytest.raises(errors.UserError) as caught:
    audit.check_split(dataset, many)
  assert '6 items (0, 1, 2, ..., in the files 1, 2, 3, ...) of 8' in str(
      caught.value
  )
  # Factors are in files of their own, numbered in their own way.
  factors = dataclasses.replace(
      planted_leaks.factors_of(planted_leaks.clean_split()),
      item=np.ones((10, 2), np.float32),
  )
  with pytest.raises(errors.UserError) as caught:
    audit.check_factors(dataset, planted_leaks.clean_split(), factors)
  assert '4 items (6, 7, 8, ...) without' in str(caught.value)
  assert 'files 7' not in str(caught.value)


def test_weights_are_optional_and_zero_is_one():
  split = planted_leaks.clean_split()
  assert split.train.weight[0] == 0
  train = dataclasses.replace(split.train, weight=None)
  split = dataclasses.replace(split, train=train)
  assert audit.check_split(planted_leaks.DATASET, split) == (split, [])


def test_validation_alone_is_checked_as_well():
  split = planted_leaks.clean_split()
  twins = {n: s for n, s in split.evaluation.items() if '_validation' in n}
  split = dataclasses.replace(split, evaluation=twins)
  assert audit.check_split(planted_leaks.DATASET, split) == (split, [])
  assert 'cold_item_validation: 1 item (508)' in planted_leaks.message_of(
      planted_leaks.with_train((1, 8))(split)
  )


def test_set_that_becomes_empty_goes():
  split = planted_leaks.clean_split()
  rows = planted_leaks.make_set([(0, 0)], range(6), True)
  sets = {**split.evaluation, 'warm_validation': rows}
  split = dataclasses.replace(split, evaluation=sets)
  mended, sentences = audit.check_split(planted_leaks.DATASET, split, drop=True)
  assert 'warm_validation' not in mended.evaluation
  assert sentences[-1] == 'Left without pairs and gone: warm_validation.'


def test_mending_that_leaves_no_training_pair_is_refused():
  split = planted_leaks.clean_split()
  rows = planted_leaks.with_candidates('cold_item', *range(8))(split)
  with pytest.raises(errors.UserError) as caught:
    audit.check_split(planted_leaks.DATASET, rows, drop=True)
  assert 'cold_item: 6 items (500, 501, 502, ...) of 8 cold' in str(
      caught.value
  )
  assert str(caught.value).endswith(
      'drop_leaks would leave no training pair: mend the files.'
  )


# Against a slow audit, and at size.


@hypothesis.given(st.integers(0, 10_000))
@hypothesis.settings(max_examples=60, deadline=None)
def test_mended_chaos_is_clean_by_python_sets(seed):
  """Random training and evaluation pairs, with every kind of leak at once."""
  rng = np.random.default_rng(seed)
  pairs = lambda count: np.stack(
      [rng.integers(0, 9, count), rng.integers(0, 10, count)], 1
  )
  evaluation = {}
  for name in planted_leaks.clean_split().evaluation:
    if rng.random() < 0.6:
      rows = np.unique(pairs(3), axis=0)
      chosen = rng.permutation(10)[: rng.integers(1, 4)]
      evaluation[name] = planted_leaks.make_set(
          rows, np.union1d(rows[1:, 1], chosen)
      )
  user, item = planted_leaks.int32(*pairs(60)).T
  weight = rng.choice([1, 0, -1, np.nan], 60, p=[0.8, 0.1, 0.05, 0.05])
  train = schema.Interactions(user, item, weight.astype(np.float32))
  split = schema.Split(train, evaluation)
  try:
    mended, _ = audit.check_split(planted_leaks.DATASET, split, drop=True)
  except errors.UserError as error:
    assert 'no training pair' in str(error)
    return

  cold_items, cold_users, held_out = set(), set(), set()
  for name, rows in evaluation.items():
    held_out |= set(zip(rows.user.tolist(), rows.item.tolist()))
    if 'cold_item' in name or 'cold_both' in name:
      cold_items |= set(rows.item.tolist()) | set(rows.candidates.tolist())
    if 'cold_user' in name or 'cold_both' in name:
      cold_users |= set(rows.user.tolist())
  expected, seen = [], set()
  for u, i, w in zip(user.tolist(), item.tolist(), weight.tolist()):
    is_first = (u, i) not in seen
    seen.add((u, i))
    if is_first and w >= 0 and (u, i) not in held_out:
      if i not in cold_items and u not in cold_users:
        expected.append((u, i))
  found = list(zip(mended.train.user.tolist(), mended.train.item.tolist()))
  assert found == expected
  assert audit.check_split(planted_leaks.DATASET, mended) == (mended, [])


def test_memory_grows_with_the_pairs_alone():
  """No table of users times items, of which there are 85 million cells."""
  rng = np.random.default_rng(0)
  code = np.unique(rng.integers(0, 5000 * 17000, 200_000))
  user, item = np.divmod(code, 17000)
  dataset = schema.Dataset(
      'large',
      schema.Entities(np.arange(5000)),
      schema.Entities(np.arange(17000)),
      schema.Interactions(user.astype(np.int32), item.astype(np.int32)),
  )
  split = splits.make_split(dataset, config_lib.DataConfig())
  tracemalloc.start()
  assert audit.check_split(dataset, split) == (split, [])
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 20_000_000  # bytes; 100 per pair
