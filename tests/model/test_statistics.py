# SPDX-License-Identifier: Apache-2.0
"""Features of counts: as if the pair in training had never been counted."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax.data import schema
from dropoutnet_jax.data import statistics as counts_lib
from dropoutnet_jax.model import statistics

pytestmark = pytest.mark.usefixtures('quick_compilation')

DAY = 86_400
WINDOWS = (0.0, 2.0)


def make_rows(seed=0, size=50, users=8, labels='clicks', items=None):
  """The last user has one row, and user `users` none; pairs may repeat."""
  rng = np.random.default_rng(seed)
  user = rng.integers(0, users - 1, size)
  user[-1] = users - 1
  label = None
  if labels == 'clicks':
    label = (rng.random(size) < 0.4).astype(np.float32)
  elif labels == 'shares':
    label = rng.random(size).astype(np.float32)
  item = np.arange(size) if items is None else rng.integers(0, items, size)
  return schema.Interactions(
      user.astype(np.int32),
      item.astype(np.int32),
      time=rng.integers(0, 4 * DAY, size),
      label=label,
  )


def make_counts(rows, num_users, windows=WINDOWS, smoothing=3.0):
  bits = counts_lib.window_bits(rows.time, windows, len(rows))
  counts = counts_lib.count(
      rows.user, rows, bits, num_users, len(windows), smoothing
  )
  return counts, bits


def all_rows(rows, num_users, **settings):
  """Features of the user of every row, without all rows of its pair."""
  counts, bits = make_counts(rows, num_users, **settings)
  left = counts_lib.of_pairs(rows, bits, counts.num_windows)
  found = jax.jit(statistics.features)(counts, rows.user, left)
  return counts, jax.device_get(found)


def slow_features(counts, rows, without):
  """Of the user of one row, counted anew without it; None if none is left."""
  user = rows.user[without]
  others = [
      n
      for n in range(len(rows))
      if rows.user[n] == user and rows.item[n] != rows.item[without]
  ]
  if not others:
    return None
  sizes, rates = [], []
  for number, days in enumerate(WINDOWS):
    age = lambda n: (int(rows.time.max()) - int(rows.time[n])) / DAY
    inside = [n for n in others if not days or age(n) < days]
    size = math.log(1 + len(inside)) - float(counts.mean[number])
    sizes.append(size / float(counts.std[number]))
    if rows.label is None:
      continue
    prior = float(counts.prior[number])
    rate = sum(float(rows.label[n]) for n in inside) + 3.0 * prior
    rate /= len(inside) + 3.0
    logit = math.log(rate / (1 - rate)) - math.log(prior / (1 - prior))
    rates.append(logit / float(counts.rate_std[number]))
  return np.clip(sizes + rates, -5, 5)


@pytest.mark.parametrize('labels', ['clicks', 'shares', 'none'])
@pytest.mark.parametrize('items', [None, 3])
def test_features_are_those_of_a_recount_without_the_pair(labels, items):
  rows = make_rows(labels=labels, items=items)
  counts, found = all_rows(rows, 9)
  assert found.value.shape == (len(rows), counts.width)
  absent = []
  for row in range(len(rows)):
    expected = slow_features(counts, rows, row)
    assert found.present[row] == (expected is not None)
    if expected is None:
      absent.append(row)
      expected = np.zeros(counts.width)
    np.testing.assert_allclose(found.value[row], expected, rtol=1e-4, atol=1e-4)
  assert absent == [len(rows) - 1]


def test_a_user_of_one_row_is_a_new_one_bit_for_bit():
  rows = make_rows()
  counts, found = all_rows(rows, 9)
  new = statistics.features(counts, jnp.array([8]))
  assert new.value[0].tobytes() == found.value[-1].tobytes()
  assert not new.present[0] and not found.present[-1]
  np.testing.assert_array_equal(new.value, 0)
  # As she is at serving, after training.
  known = statistics.features(counts, jnp.array([7]))
  assert known.present[0] and np.any(known.value)


def test_zero_bits_leave_nothing_out():
  rows = make_rows()
  counts, _ = make_counts(rows, 9)
  nothing = statistics.left_out(jnp.zeros(9, jnp.int32), counts.num_windows)
  every = jnp.arange(9)
  for one, other in zip(
      statistics.features(counts, every),
      statistics.features(counts, every, nothing),
  ):
    np.testing.assert_array_equal(one, other)


def test_features_of_training_rows_have_about_unit_variance():
  rows = make_rows(size=4000, users=200).select(np.arange(3999))
  counts, _ = make_counts(rows, 200)
  value = np.asarray(statistics.features(counts, jnp.arange(199)).value)
  np.testing.assert_allclose(value.std(axis=0), 1, atol=0.02)
  # Sizes have mean 0; rates are 0 where they are the usual one.
  np.testing.assert_allclose(value[:, :2].mean(axis=0), 0, atol=0.02)
  assert np.abs(value[:, 2:].mean(axis=0)).max() < 0.2


@pytest.mark.parametrize('smoothing', [1e-3, 1e4])
def test_extreme_smoothing_is_finite(smoothing):
  rows = make_rows(labels='clicks')
  _, found = all_rows(rows, 9, smoothing=smoothing)
  assert np.isfinite(found.value).all() and np.abs(found.value).max() <= 5


@pytest.mark.parametrize('users, repeats', [(300, 1), (1200, 1), (300, 4)])
def test_noise_cannot_be_read_off_the_features(users, repeats):
  """Labels by the toss of a coin for each pair, however often it occurs."""
  size = 4 * 1200
  rng = np.random.default_rng(users)
  pairs = schema.Interactions(
      rng.integers(0, users, size).astype(np.int32),
      np.arange(size, dtype=np.int32),
      time=np.zeros(size, np.int64),
      label=(rng.random(size) < 0.5).astype(np.float32),
  )
  rows = pairs.select(np.repeat(np.arange(size), repeats))
  counts, found = all_rows(rows, users, windows=(0.0,))
  whole = statistics.features(counts, rows.user)
  correlation = lambda x: np.corrcoef(x, rows.label)[0, 1]
  bound = 4 / math.sqrt(size)
  assert abs(correlation(found.value[:, 0])) < bound
  assert abs(correlation(found.value[:, 1])) < bound
  assert correlation(np.asarray(whole.value)[:, 1]) > 0.2
