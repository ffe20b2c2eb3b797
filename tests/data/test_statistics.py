# SPDX-License-Identifier: Apache-2.0
"""Counts of training rows by window, against counting one by one."""

import math

import numpy as np
import pytest

from dropoutnet_jax.data import schema
from dropoutnet_jax.data import statistics

DAY = 86_400
WINDOWS = (0.0, 3.0, 0.5)
NUM_USERS = 7


def make_rows(seed=0, size=60, labels='clicks'):
  """Rows of users 0 to 5, the last one rare; user 6 is cold."""
  rng = np.random.default_rng(seed)
  user = rng.choice(6, size, p=[0.3, 0.3, 0.2, 0.1, 0.09, 0.01])
  label = None
  if labels == 'clicks':
    label = (rng.random(size) < 0.3).astype(np.float32)
  elif labels == 'ratings':
    label = rng.integers(1, 6, size).astype(np.float32)
  return schema.Interactions(
      user.astype(np.int32),
      rng.integers(0, 4, size).astype(np.int32),
      time=rng.integers(0, 6 * DAY, size),
      label=label,
  )


def count(rows, windows=WINDOWS, smoothing=5.0):
  bits = statistics.window_bits(rows.time, windows, len(rows))
  return statistics.count(
      rows.user, rows, bits, NUM_USERS, len(windows), smoothing
  )


def slow_windows(rows, windows=WINDOWS):
  """For each window the numbers of its rows; the first is of all rows."""
  found = [list(range(len(rows)))]
  for days in windows:
    ages = [int(rows.time.max()) - int(time) for time in rows.time]
    found.append(
        [n for n, age in enumerate(ages) if not days or age / DAY < days]
    )
  return found


@pytest.mark.parametrize('labels', ['clicks', 'ratings', 'none'])
@pytest.mark.parametrize('seed', [0, 1])
def test_counts_and_moments_one_by_one(seed, labels):
  rows = make_rows(seed, labels=labels)
  counts = count(rows)
  assert counts.num_windows == 3
  assert counts.width == (3 if labels == 'none' else 6)
  unit = {'clicks': 1.0, 'ratings': 5.0, 'none': 0.0}[labels]
  assert counts.largest_label == unit
  for column, inside in enumerate(slow_windows(rows)):
    shown, reacted = [0] * NUM_USERS, [0.0] * NUM_USERS
    for n in inside:
      shown[rows.user[n]] += 1
      reacted[rows.user[n]] += float(rows.label[n]) / unit if unit else 0.0
    np.testing.assert_array_equal(counts.shown[:, column], shown)
    if unit:
      np.testing.assert_allclose(counts.reacted[:, column], reacted, rtol=1e-6)
    if not column:
      continue
    sizes = [math.log(1 + n) for n in shown if n]
    mean = sum(sizes) / len(sizes)
    std = math.sqrt(sum((x - mean) ** 2 for x in sizes) / len(sizes))
    np.testing.assert_allclose(counts.mean[column - 1], mean, rtol=1e-6)
    np.testing.assert_allclose(counts.std[column - 1], std, rtol=1e-5)
    if not unit:
      continue
    prior = sum(reacted) / sum(shown)
    np.testing.assert_allclose(counts.prior[column - 1], prior, rtol=1e-6)
    rates = [(r + 5 * prior) / (n + 5) for r, n in zip(reacted, shown) if n]
    logits = [
        math.log(p / (1 - p)) - math.log(prior / (1 - prior)) for p in rates
    ]
    mean = sum(logits) / len(logits)
    std = math.sqrt(sum((x - mean) ** 2 for x in logits) / len(logits))
    np.testing.assert_allclose(counts.rate_std[column - 1], std, rtol=1e-4)
  assert counts.reacted.shape == (NUM_USERS, 4 if unit else 0)


def test_windows_by_hand():
  time = np.array([0, DAY, 2 * DAY, 2 * DAY + 1])
  bits = statistics.window_bits(time, (0.0, 1.0, 2.0), 4)
  # A row that is exactly as old as the window is long is outside.
  assert bits.tolist() == [0b0011, 0b1011, 0b1111, 0b1111]
  assert statistics.window_bits(None, (0.0,), 3).tolist() == [3, 3, 3]
  assert statistics.window_bits(time, (), 4).tolist() == [1] * 4


def test_no_rows_at_all():
  none = np.zeros(0, np.int32)
  rows = schema.Interactions(
      none, none, time=np.zeros(0, np.int64), label=np.zeros(0, np.float32)
  )
  counts = count(rows)
  assert not counts.shown.any() and not counts.reacted.any()
  for leaf in (counts.mean, counts.std, counts.rate_std, counts.prior):
    assert np.isfinite(leaf).all()


@pytest.mark.parametrize('value', [0.0, 1.0])
def test_a_window_of_one_label_alone_has_a_prior_within(value):
  """Its logit would be infinite."""
  rows = make_rows(size=20)
  late = rows.time >= rows.time.max() - DAY // 2
  label = np.where(late, np.float32(value), rows.label)
  label[np.flatnonzero(~late)[:2]] = 1 - value
  rows = schema.Interactions(rows.user, rows.item, time=rows.time, label=label)
  counts = count(rows)
  half = 0.5 / counts.shown[:, 3].sum()
  expected = half if value == 0 else 1 - half
  np.testing.assert_allclose(counts.prior[2], expected, rtol=1e-6)
  assert np.isfinite(counts.rate_std).all() and counts.rate_std.min() > 0


def test_labels_that_say_nothing():
  rows = make_rows(labels='none')
  ones = np.ones(len(rows), np.float32)
  same = schema.Interactions(rows.user, rows.item, time=rows.time, label=ones)
  assert count(same).reacted.shape == (NUM_USERS, 0)


def test_reactions_that_come_later_are_of_the_usual_rate():
  counts = count(make_rows())
  told = counts.with_reactions(np.array([5, 0]), np.array([3, 0]))
  np.testing.assert_array_equal(told.reacted[5], counts.reacted[5] + 3)
  np.testing.assert_array_equal(told.shown[0], counts.shown[0])
  more = told.shown[5] - counts.shown[5]
  np.testing.assert_array_equal(more[1:], np.round(3 / counts.prior))
  assert more[0] == more[1]  # the first is of all times
  np.testing.assert_array_equal(told.shown[1:5], counts.shown[1:5])
  assert counts.shown[5].any()
  likes = count(make_rows(labels='none'))
  told = likes.with_reactions(np.array([1]), np.array([2]))
  np.testing.assert_array_equal(told.shown[1], likes.shown[1] + 2)


@pytest.mark.parametrize('labels', ['clicks', 'none'])
def test_a_new_row_starts_from_the_usual_number(labels):
  """It has only just come: one reaction does not make it unpopular."""
  counts = count(make_rows(labels=labels))
  rows = np.array([6])
  assert not counts.shown[6].any()
  seen = [counts.shown[counts.shown[:, 1 + w] > 0, 1 + w] for w in range(3)]
  usual = np.array([one.mean() for one in seen])
  np.testing.assert_allclose(counts.usual, usual, rtol=1e-6)
  for number in (1, 4, 10**12):  # smoothing is 5
    told = counts.with_reactions(rows, np.array([number]))
    expected = np.minimum(usual * (number + 5) / 5, 2**30)
    np.testing.assert_allclose(told.shown[6, 1:], expected, atol=0.51)
    assert told.shown[6, 0] == told.shown[6, 1]
    if labels == 'clicks':  # at the usual rate
      reacted = expected * counts.prior
      np.testing.assert_allclose(told.reacted[6, 1:], reacted, rtol=1e-5)
  none = counts.with_reactions(rows, np.array([0]))
  assert not none.shown[6].any() and not none.reacted[6].any()
  assert not counts.shown[6].any()  # which is as it was


def test_rows_are_selected_and_new_ones_have_none():
  counts = count(make_rows())
  picked = counts.select(np.array([2, -1, 0]))
  np.testing.assert_array_equal(picked.shown[[0, 2]], counts.shown[[2, 0]])
  np.testing.assert_array_equal(picked.reacted[[0, 2]], counts.reacted[[2, 0]])
  assert not picked.shown[1].any() and not picked.reacted[1].any()
  assert picked.shown.dtype == np.int32 and picked.reacted.dtype == np.float32
  assert picked.prior is counts.prior and picked.smoothing == 5.0
