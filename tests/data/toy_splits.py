# SPDX-License-Identifier: Apache-2.0
"""Small data sets to split, and what splits are compared by."""

import re

import hypothesis
import numpy as np

from dropoutnet_jax import config as config_lib
from dropoutnet_jax import errors
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
