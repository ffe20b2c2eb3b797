# SPDX-License-Identifier: Apache-2.0
"""Every kind of leak, planted into a clean split, is found, told and mended."""

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
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import splits


def int32(*rows):
  return np.array(rows, np.int32)


def make_set(pairs, candidates, exclude_train=False):
  user, item = int32(*pairs).reshape(-1, 2).T
  return schema.EvaluationSet(user, item, int32(*candidates), exclude_train)


DATASET = schema.Dataset(
    'toy',
    schema.Entities(np.array([f'u{row}' for row in range(9)])),
    schema.Entities(np.arange(10) + 500),
    schema.Interactions(int32(), int32()),
)


def clean_split():
  """Users 0-4, items 0-5 warm; 5, 6 and 6, 7 test; 7, 8 and 8, 9 validation.

  The test has two pairs in each quadrant, validation one.
  """
  held_out = {(0, 0), (1, 1), (2, 2)}
  block = itertools.product(range(5), range(6))
  user, item = int32(*(pair for pair in block if pair not in held_out)).T
  warm, test, validation = range(6), (6, 7), (8, 9)
  evaluation = {
      'warm': make_set([(0, 0), (1, 1)], warm, True),
      'cold_item': make_set([(0, 6), (1, 7)], test),
      'cold_user': make_set([(5, 0), (6, 1)], warm),
      'cold_both': make_set([(5, 6), (6, 7)], test),
      'warm_validation': make_set([(2, 2)], warm, True),
      'cold_item_validation': make_set([(0, 8)], validation),
      'cold_user_validation': make_set([(7, 3)], warm),
      'cold_both_validation': make_set([(8, 9)], validation),
  }
  weight = np.linspace(0, 2, len(user), dtype=np.float32)
  train = schema.Interactions(user, item, weight)
  return schema.Split(train, evaluation, ('A note.',))


def factors_of(split):
  users, items = split.train_rows()
  present = np.isin(np.arange(9), users), np.isin(np.arange(10), items)
  value = [np.outer(rows, [1, -2]).astype(np.float32) for rows in present]
  return schema.Factors(*value, *present)


def with_train(*pairs, weight=1.0):
  """A plant that appends training pairs."""

  def plant(split):
    user, item = int32(*pairs).T
    train = schema.Interactions(
        np.append(split.train.user, user),
        np.append(split.train.item, item),
        np.append(split.train.weight, np.full(len(user), weight, np.float32)),
    )
    return dataclasses.replace(split, train=train)

  return plant


def with_pair(name, *pairs):
  """A plant that appends pairs to an evaluation set."""

  def plant(split):
    rows = split.evaluation[name]
    user, item = int32(*pairs).T
    rows = dataclasses.replace(
        rows, user=np.append(rows.user, user), item=np.append(rows.item, item)
    )
    return dataclasses.replace(
        split, evaluation={**split.evaluation, name: rows}
    )

  return plant


def with_candidates(name, *candidates):
  def plant(split):
    rows = dataclasses.replace(
        split.evaluation[name], candidates=int32(*candidates)
    )
    return dataclasses.replace(
        split, evaluation={**split.evaluation, name: rows}
    )

  return plant


# Name: (what is planted, lines of the message, whether mending gives the clean
# split back).
LEAKS = {
    'cold item': (
        with_train((3, 6)),
        [
            'cold_item: 1 item (506) of 2 cold ones occur in 1 training pair',
            'cold_both: 1 item (506) of 2 cold ones occur in 1 training pair',
        ],
        True,
    ),
    'cold items, many pairs': (
        with_train((2, 6), (3, 6), (3, 7), (4, 7)),
        [
            'cold_item: 2 items (506, 507) of 2 cold ones occur in 4 training'
            ' pairs',
            'cold_both: 2 items (506, 507) of 2 cold ones occur in 4 training'
            ' pairs',
        ],
        True,
    ),
    'cold validation item': (
        with_train((3, 9)),
        [
            f'{name}_validation: 1 item (509) of 2 cold ones occur in 1'
            ' training pair'
            for name in ('cold_item', 'cold_both')
        ],
        True,
    ),
    'cold user': (
        with_train((6, 3), (6, 4)),
        [
            f"{name}: 1 user ('u6') of 2 cold ones occur in 2 training pairs"
            for name in ('cold_user', 'cold_both')
        ],
        True,
    ),
    'cold validation user': (
        with_train((8, 3)),
        [
            "cold_both_validation: 1 user ('u8') of 1 cold ones occur in 1"
            ' training pair'
        ],
        True,
    ),
    'warm test pair': (
        with_train((1, 1)),
        [
            "warm: 1 pair (user 'u1' with item 501) of 2 held out are in"
            ' training, and so in the histories'
        ],
        True,
    ),
    'warm validation pair': (
        with_train((2, 2)),
        [
            "warm_validation: 1 pair (user 'u2' with item 502) of 1 held out"
            ' are in training, and so in the histories'
        ],
        True,
    ),
    'cold test pair': (
        with_train((0, 6)),
        [
            'cold_item: 1 item (506) of 2 cold ones occur in 1 training pair',
            "cold_item: 1 pair (user 'u0' with item 506) of 2 held out are in"
            ' training, and so in the histories',
            'cold_both: 1 item (506) of 2 cold ones occur in 1 training pair',
        ],
        True,
    ),
    'doubled pair': (
        with_train((4, 5), (4, 5)),
        [
            "training repeats 2 pairs (user 'u4' with item 505, user 'u4' with"
            ' item 505) it already has'
        ],
        True,
    ),
    'cold users of test and validation': (
        with_train((5, 2), (6, 2), (7, 4)),
        [
            "cold_user: 2 users ('u5', 'u6') of 2 cold ones occur in 2 training"
            ' pairs',
            "cold_both: 2 users ('u5', 'u6') of 2 cold ones occur in 2 training"
            ' pairs',
            "cold_user_validation: 1 user ('u7') of 1 cold ones occur in 1"
            ' training pair',
        ],
        True,
    ),
    'exactly three candidates missing': (
        with_pair('warm', (0, 6), (1, 7), (1, 8)),
        [
            'warm: 3 items (506, 507, 508) in 3 held-out pairs are not among'
            ' the 6 candidates'
        ],
        True,
    ),
    'more than three doubled pairs': (
        with_train((4, 2), (4, 3), (4, 4), (4, 5)),
        [
            "training repeats 4 pairs (user 'u4' with item 502, user 'u4' with"
            " item 503, user 'u4' with item 504, ...) it already has"
        ],
        True,
    ),
    'negative weight': (
        with_train((0, 0), weight=-1.5),
        [
            "training has 1 pair (user 'u0' with item 500) whose weight is"
            ' negative or not finite (the first: -1.5)',
            "warm: 1 pair (user 'u0' with item 500) of 2 held out are in"
            ' training, and so in the histories',
        ],
        True,
    ),
    'weight that is not a number': (
        with_train((3, 3), weight=np.nan),
        [
            "training has 1 pair (user 'u3' with item 503) whose weight is"
            ' negative or not finite (the first: nan)',
            "training repeats 1 pair (user 'u3' with item 503) it already has",
        ],
        True,
    ),
    'infinite weight': (
        with_train((3, 3), weight=np.inf),
        [
            "training has 1 pair (user 'u3' with item 503) whose weight is"
            ' negative or not finite (the first: inf)',
            "training repeats 1 pair (user 'u3' with item 503) it already has",
        ],
        True,
    ),
    'test pair in validation': (
        with_pair('warm_validation', (1, 1)),
        [
            "warm_validation: 1 pair (user 'u1' with item 501) are in the test"
            ' too'
        ],
        True,
    ),
    'test pair in another quadrant of validation': (
        with_pair('cold_user_validation', (0, 0)),
        [
            "cold_user_validation: 1 user ('u0') of 2 cold ones occur in 5"
            ' training pairs',
            "cold_user_validation: 1 pair (user 'u0' with item 500) are in the"
            ' test too',
        ],
        False,  # mending drops the history of user 0
    ),
    'cold test item in validation': (
        lambda split: with_candidates('cold_item_validation', 7, 8, 9)(
            with_pair('cold_item_validation', (2, 7), (3, 7))(split)
        ),
        [
            'cold_item_validation: 1 item (507) in 2 pairs are cold in the'
            ' test too'
        ],
        False,  # the candidate stays
    ),
    'cold test user in validation': (
        with_pair('cold_user_validation', (5, 4)),
        [
            "cold_user_validation: 1 user ('u5') in 1 pair are cold in the"
            ' test too'
        ],
        True,
    ),
    'held-out item that is no candidate': (
        with_pair('cold_user', (5, 9), (6, 9), (6, 8)),
        [
            'cold_user: 2 items (508, 509) in 3 held-out pairs are not among'
            ' the 6 candidates'
        ],
        True,
    ),
    'warm candidate among cold ones': (
        with_candidates('cold_item', 2, 6, 7),
        ['cold_item: 1 item (502) of 3 cold ones occur in 4 training pairs'],
        False,  # item 2 leaves training
    ),
}


def message_of(split):
  with pytest.raises(errors.UserError) as caught:
    audit.check_split(DATASET, split)
  return str(caught.value)


def assert_same_split(left, right):
  for field in ('user', 'item', 'weight'):
    np.testing.assert_array_equal(
        getattr(left.train, field), getattr(right.train, field)
    )
  assert list(left.evaluation) == list(right.evaluation)
  for name, rows in left.evaluation.items():
    for field in ('user', 'item', 'candidates', 'exclude_train'):
      np.testing.assert_array_equal(
          getattr(rows, field), getattr(right.evaluation[name], field)
      )
  assert left.notes == right.notes


@pytest.mark.parametrize('drop', [False, True])
def test_clean_split_passes_as_it_is(drop):
  split = clean_split()
  found, sentences = audit.check_split(DATASET, split, drop)
  assert found is split
  assert sentences == []
  factors = factors_of(split)
  found, sentences = audit.check_factors(DATASET, split, factors, drop)
  assert found is factors
  assert sentences == []


@pytest.mark.parametrize('name', LEAKS)
def test_leak_is_told_with_counts_and_examples(name):
  plant, lines, _ = LEAKS[name]
  first, *found, last = message_of(plant(clean_split())).split('\n')
  assert first == (
      "The split of 'toy' leaks, so results would come out wrong, mostly too "
      'high:'
  )
  assert found == [f'  {line};' for line in lines]
  assert '--config.data.drop_leaks=true, which drops' in last


@pytest.mark.parametrize('name', LEAKS)
def test_leak_is_mended(name):
  plant, lines, is_restored = LEAKS[name]
  mended, sentences = audit.check_split(
      DATASET, plant(clean_split()), drop=True
  )
  assert len(sentences) == len(lines)
  for sentence, line in zip(sentences, lines):
    assert re.match(r'Dropped \d+ pairs? from \w+: ', sentence)
    assert sentence.endswith(f': {line}.')
  assert audit.check_split(DATASET, mended) == (mended, [])
  if is_restored:
    assert_same_split(mended, clean_split())


def test_all_leaks_are_told_at_once():
  split, expected = clean_split(), set()
  for plant in (
      with_train((3, 6), (6, 3), (1, 1), (4, 5), weight=-1.0),
      with_pair('warm_validation', (0, 0)),
      with_pair('cold_user', (5, 9)),
  ):
    split = plant(split)
  message = message_of(split)
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
  mended, sentences = audit.check_split(DATASET, split, drop=True)
  assert len(sentences) == len(expected) == message.count(';')
  assert_same_split(mended, clean_split())


def test_leaks_are_told_with_the_ids_and_paths_of_the_files():
  ids = schema.Entities(np.arange(10))
  dataset = dataclasses.replace(
      DATASET,
      users=ids,
      items=ids,
      origin=schema.Origin(('x/train.csv', 'x/test.csv'), 1),
  )
  split = with_train((3, 6), (1, 1))(clean_split())
  with pytest.raises(errors.UserError) as caught:
    audit.check_split(dataset, split)
  message = str(caught.value)
  assert 'cold_item: 1 item (6, in the files 7) of 2 cold ones' in message
  assert 'warm: 1 pair (user 1 with item 1, in the files 2 with 2) of' in (
      message
  )
  assert 'Its pairs are in x/train.csv, x/test.csv. Mend the files' in message
  many = with_candidates('cold_item', *range(8))(clean_split())
  with pytest.raises(errors.UserError) as caught:
    audit.check_split(dataset, many)
  assert '6 items (0, 1, 2, ..., in the files 1, 2, 3, ...) of 8' in str(
      caught.value
  )
  # Factors are in files of their own, numbered in their own way.
  factors = dataclasses.replace(
      factors_of(clean_split()), item=np.ones((10, 2), np.float32)
  )
  with pytest.raises(errors.UserError) as caught:
    audit.check_factors(dataset, clean_split(), factors)
  assert '4 items (6, 7, 8, ...) without' in str(caught.value)
  assert 'files 7' not in str(caught.value)


def test_weights_are_optional_and_zero_is_one():
  split = clean_split()
  assert split.train.weight[0] == 0
  train = dataclasses.replace(split.train, weight=None)
  split = dataclasses.replace(split, train=train)
  assert audit.check_split(DATASET, split) == (split, [])


def test_validation_alone_is_checked_as_well():
  split = clean_split()
  twins = {n: s for n, s in split.evaluation.items() if '_validation' in n}
  split = dataclasses.replace(split, evaluation=twins)
  assert audit.check_split(DATASET, split) == (split, [])
  assert 'cold_item_validation: 1 item (508)' in message_of(
      with_train((1, 8))(split)
  )


def test_set_that_becomes_empty_goes():
  split = clean_split()
  rows = make_set([(0, 0)], range(6), True)
  sets = {**split.evaluation, 'warm_validation': rows}
  split = dataclasses.replace(split, evaluation=sets)
  mended, sentences = audit.check_split(DATASET, split, drop=True)
  assert 'warm_validation' not in mended.evaluation
  assert sentences[-1] == 'Left without pairs and gone: warm_validation.'


def test_mending_that_leaves_no_training_pair_is_refused():
  split = clean_split()
  rows = with_candidates('cold_item', *range(8))(split)
  with pytest.raises(errors.UserError) as caught:
    audit.check_split(DATASET, rows, drop=True)
  assert 'cold_item: 6 items (500, 501, 502, ...) of 8 cold' in str(
      caught.value
  )
  assert str(caught.value).endswith(
      'drop_leaks would leave no training pair: mend the files.'
  )


# Factors.


FACTOR_LEAKS = {
    'value': ('item', 7, 'value', '1 item (507)'),
    'presence': ('item', 9, 'present', '1 item (509)'),
    'not a number': ('item', 6, 'nan', '1 item (506)'),
    'user': ('user', 5, 'value', "1 user ('u5')"),
    'user presence': ('user', 8, 'present', "1 user ('u8')"),
}


@pytest.mark.parametrize('name', FACTOR_LEAKS)
def test_factors_of_cold_rows_are_found_and_blanked(name):
  side, row, kind, found = FACTOR_LEAKS[name]
  split = clean_split()
  clean, leaky = factors_of(split), factors_of(split)
  if kind == 'present':
    getattr(leaky, f'{side}_present')[row] = True
  else:
    getattr(leaky, side)[row, 1] = np.nan if kind == 'nan' else 0.25
  line = f'teacher: factors of {found} without a training pair'
  with pytest.raises(errors.UserError) as caught:
    audit.check_factors(DATASET, split, leaky)
  assert line in str(caught.value)
  assert 'data.drop_leaks=true' in str(caught.value)
  blank, sentences = audit.check_factors(DATASET, split, leaky, drop=True)
  assert sentences == [f'Blanked: {line}.']
  assert audit.check_factors(DATASET, split, blank) == (blank, [])
  for field in dataclasses.fields(schema.Factors):
    a, b = getattr(blank, field.name), getattr(clean, field.name)
    np.testing.assert_array_equal(a, b)
    assert a.dtype == b.dtype


def test_factors_of_rows_whose_training_pairs_are_dropped_are_blanked():
  split = with_train((3, 6))(clean_split())
  factors = factors_of(split)  # of a teacher that saw the leak
  assert factors.item_present[6]
  assert audit.check_factors(DATASET, split, factors) == (factors, [])
  mended, _ = audit.check_split(DATASET, split, drop=True)
  blank, sentences = audit.check_factors(DATASET, mended, factors, drop=True)
  assert sentences == [
      'Blanked: teacher: factors of 1 item (506) without a training pair.'
  ]
  assert not blank.item_present[6]


def test_training_rows_without_factors_are_no_leak():
  split = clean_split()
  factors = factors_of(split)
  factors.item[2], factors.item_present[2] = 0, False
  assert audit.check_factors(DATASET, split, factors) == (factors, [])


# Targets.


def test_targets_of_training_items_pass():
  targets = np.tile(int32(0, 1, 2, 3, 4, 5, -1), (3, 1))
  for rows in (targets, int32()):
    for allow_cold in (False, True):
      found = audit.check_targets(rows, clean_split(), DATASET, allow_cold)
      assert found == []


@pytest.mark.parametrize(
    'targets, counted',
    [
        (
            [[0, 6], [6, 9]],
            '3 of 4 training targets and negatives belong to 2 '
            'items (506, 509) that',
        ),
        ([8], '1 of 1 training targets and negatives belong to 1 item (508)'),
        ([6, 7, 8, 9, -1], '4 of 4 .* 4 items (506, 507, 508, ...) that'),
    ],
)
def test_cold_targets_are_told(targets, counted):
  with pytest.raises(errors.UserError) as caught:
    audit.check_targets(np.array(targets), clean_split(), DATASET)
  pattern = re.escape(counted).replace(r'\.\*', '.*')
  assert re.search(pattern, str(caught.value)), str(caught.value)
  note = audit.check_targets(
      np.array(targets), clean_split(), DATASET, allow_cold=True
  )
  assert len(note) == 1
  assert re.search(pattern.removesuffix(r'\ that'), note[0])
  assert '--config.objective.target_items=training' in str(caught.value)


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
  for name in clean_split().evaluation:
    if rng.random() < 0.6:
      rows = np.unique(pairs(3), axis=0)
      chosen = rng.permutation(10)[: rng.integers(1, 4)]
      evaluation[name] = make_set(rows, np.union1d(rows[1:, 1], chosen))
  user, item = int32(*pairs(60)).T
  weight = rng.choice([1, 0, -1, np.nan], 60, p=[0.8, 0.1, 0.05, 0.05])
  train = schema.Interactions(user, item, weight.astype(np.float32))
  split = schema.Split(train, evaluation)
  try:
    mended, _ = audit.check_split(DATASET, split, drop=True)
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
  assert audit.check_split(DATASET, mended) == (mended, [])


def test_two_hundred_thousand_pairs_take_less_than_a_second():
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
  seconds = []
  for _ in range(3):
    start = time.perf_counter()
    audit.check_split(dataset, split)
    seconds.append(time.perf_counter() - start)
  assert min(seconds) < 1  # 0.1 s on a free core
