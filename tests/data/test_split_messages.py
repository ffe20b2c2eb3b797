# SPDX-License-Identifier: Apache-2.0
"""What a user is told when a split fails, and how it went."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.data import roles
from dropoutnet_jax.data import splits
from tests.data import toy_splits

LINE = [(row, row) for row in range(10)]  # every row has one pair


SQUARE = list(itertools.product(range(4), range(4)))


PUBLISHED = toy_splits.published()


ERRORS = {
    'no pairs': (
        toy_splits.make_dataset([], 3, 3),
        dict(),
        "Data set 'toy' has no training pairs",
    ),
    'published without test sets': (
        toy_splits.make_dataset(SQUARE, 4, 4),
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
        toy_splits.make_dataset(SQUARE, 4, 4),
        dict(split='time'),
        "pairs of 'toy' have no times. Set it to random",
    ),
    'time with a share of zero': (
        toy_splits.make_dataset(SQUARE, 4, 4, np.arange(16)),
        dict(split='time', warm_share=0.0),
        'warm_share is 0.0: the test period has none of 16 pairs. Raise it',
    ),
    'one time for all': (
        toy_splits.make_dataset(SQUARE, 4, 4, np.full(16, 77)),
        dict(split='time'),
        'no pair for training: validation starts at 77 .* first pair is at 77',
    ),
    'two times': (
        toy_splits.make_dataset(SQUARE, 4, 4, np.repeat([1, 2], 8)),
        dict(split='time'),
        'no pair for validation: validation starts at 2 and test at 2',
    ),
    'only rows first seen during validation': (
        toy_splits.make_dataset(
            [(0, 0), (1, 1), (1, 2)], 2, 3, np.array([1, 2, 3])
        ),
        dict(split='time', warm_share=0.34),
        "Every test pair of 'toy' has a user or an item first seen during val",
    ),
    'no cold item': (
        toy_splits.make_dataset(SQUARE, 4, 4),
        dict(cold_item_share=0.1),
        r'cold_item_share \(of the items with pairs\) of 4 is 0.1: this holds '
        'out 0 for each of test and validation, .* Raise it, or set it to 0',
    ),
    'no warm item': (
        toy_splits.make_dataset(SQUARE, 4, 4),
        dict(cold_item_share=0.45),
        'of 4 is 0.45: this holds out 2 for each .* Lower it',
    ),
    'no cold user': (
        toy_splits.make_dataset(SQUARE, 4, 4),
        dict(cold_item_share=0.25, cold_user_share=0.1),
        'cold_user_share .* of 4 is 0.1: this holds out 0',
    ),
    'a single user': (
        toy_splits.make_dataset([(0, 0), (0, 1)], 1, 2),
        dict(cold_item_share=0.0, cold_user_share=0.1),
        r'cold_user_share \(of the users with pairs\) of 1 is 0.1, but with '
        'fewer than 3 no share can be held out. Set it to 0',
    ),
    'no warm pair': (
        toy_splits.make_dataset(SQUARE, 4, 4),
        dict(cold_item_share=0.25, warm_share=0.05),
        'warm_share is 0.05: this holds out none of 8 pairs .* Raise it',
    ),
    'too many warm pairs': (
        toy_splits.make_dataset(SQUARE, 4, 4),
        dict(cold_item_share=0.0, warm_share=0.45),
        'holds out 7 for each of test and validation of 16 pairs .* only '
        r'(8|9|10|11|12) can leave so that .* Lower it to 0\.[23]\d*\.',
    ),
    'no pair can leave': (
        toy_splits.make_dataset(LINE, 10, 10),
        dict(cold_item_share=0.0, warm_share=0.2),
        'only 0 can leave .* Lower it to 0.',
    ),
    'cold items liked by nobody who stays': (
        toy_splits.make_dataset(LINE, 10, 10),
        dict(warm_share=0.0),
        'cold_item_share is 0.2, but no pair .* there is no cold_item test set',
    ),
    'cold users like nothing that stays': (
        toy_splits.make_dataset(LINE, 10, 10),
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
        toy_splits.published(('cold_user',)),
        dict(split='published-cold', validation_share=0.01),
        r'\(of the training users\) of 30 is 0.01: this holds out 0, .* Raise',
    ),
    'no pair for validation': (
        dataclasses.replace(
            toy_splits.make_dataset(LINE, 10, 10),
            held_out=toy_splits.published(('warm',)).held_out,
        ),
        dict(split='published-warm'),
        'validation_share is 0.2: this holds out none of 10 training pairs',
    ),
}


@pytest.mark.parametrize('name', ERRORS)
def test_what_cannot_be_split_is_said(name):
  dataset, fields, message = ERRORS[name]
  with pytest.raises(errors.UserError) as caught:
    splits.make_split(dataset, toy_splits.make_config(**fields))
  assert re.search(message, str(caught.value)), str(caught.value)
  assert '\n' not in str(caught.value)


def test_no_training_pair_left_is_said():
  pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2)]
  dataset = toy_splits.make_dataset(pairs, 2, 3)
  user = np.array([roles.TEST, roles.VALIDATION], np.int8)
  item = np.full(3, roles.TRAIN, np.int8)
  with pytest.raises(errors.UserError, match='No training pair is left of 5'):
    roles.make_roles(dataset.interactions, user, item)


def test_warm_share_named_by_the_message_works():
  dataset = toy_splits.make_dataset(SQUARE, 4, 4)
  fields = dict(cold_item_share=0.0)
  with pytest.raises(errors.UserError) as caught:
    splits.make_split(
        dataset, toy_splits.make_config(warm_share=0.45, **fields)
    )
  most = float(re.search(r'Lower it to (\S+)\.$', str(caught.value)).group(1))
  split = splits.make_split(
      dataset, toy_splits.make_config(warm_share=most, **fields)
  )
  assert len(split.evaluation['warm']) == round(16 * most)


def test_notes_count_what_is_there():
  dataset = toy_splits.dense_dataset(30, 30, 0.6)
  split = splits.make_split(dataset, toy_splits.make_config(seed=11))
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
