# SPDX-License-Identifier: Apache-2.0
"""A clean split of a small data set, and every kind of leak to plant in it."""

import dataclasses
import itertools

import numpy as np
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.data import audit
from dropoutnet_jax.data import schema


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
