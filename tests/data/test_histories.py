# SPDX-License-Identifier: Apache-2.0
"""Histories against plain Python lists."""

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dropoutnet_jax.data import histories
from dropoutnet_jax.data import schema

SETTINGS = hypothesis.settings(max_examples=60, deadline=None)
PAIRS = st.sets(st.tuples(st.integers(0, 6), st.integers(0, 8)), max_size=40)


def make_interactions(pairs, times=None):
  user, item = np.array(pairs, np.int32).reshape(-1, 2).T
  return schema.Interactions(user, item, None, times)


def as_lists(history):
  """Each row without its padding, which must be at its end."""
  rows = []
  for index, count in zip(history.index.tolist(), history.count.tolist()):
    assert min(index[:count], default=0) >= 0
    assert index[count:] == [-1] * (len(index) - count)
    rows.append(index[:count])
  return rows


def partners(pairs, side):
  """For each row of a side the partners, by a loop."""
  rows = [[] for _ in range(7 if side == 'user' else 9)]
  for user, item in pairs:
    row, partner = (user, item) if side == 'user' else (item, user)
    rows[row].append(partner)
  return [sorted(row) for row in rows]


@hypothesis.given(PAIRS, st.sampled_from(['user', 'item']))
@SETTINGS
def test_history_matches_lists(pairs, side):
  pairs = list(pairs)
  history = histories.make_history(make_interactions(pairs), 7, 9, side)
  expected = partners(pairs, side)
  assert as_lists(history) == expected
  assert history.index.shape[1] == max(1, *map(len, expected))
  assert history.index.dtype == history.count.dtype == np.int32


@hypothesis.given(PAIRS, st.sampled_from(['user', 'item']), st.integers(1, 5))
@SETTINGS
def test_cut_history_is_a_subset_that_does_not_change(pairs, side, length):
  pairs = make_interactions(list(pairs))
  whole = histories.make_history(pairs, 7, 9, side)
  cut = histories.make_history(pairs, 7, 9, side, length)
  again = histories.make_history(pairs, 7, 9, side, length)
  np.testing.assert_array_equal(cut.index, again.index)
  for some, every in zip(as_lists(cut), as_lists(whole)):
    assert len(some) == min(length, len(every))
    assert set(some) <= set(every)
    assert some == sorted(set(some))


@hypothesis.given(PAIRS, st.integers(1, 5), st.randoms(use_true_random=False))
@SETTINGS
def test_cut_history_keeps_the_latest(pairs, length, random):
  times = list(range(len(pairs)))
  random.shuffle(times)
  dated = dict(zip(sorted(pairs), times))
  pairs = make_interactions(list(dated), np.array(times, np.int64))
  cut = histories.make_history(pairs, 7, 9, 'user', length)
  for user, items in enumerate(as_lists(cut)):
    latest = sorted(
        (when, item) for (other, item), when in dated.items() if other == user
    )[-length:]
    assert items == sorted(item for _, item in latest)


def test_cut_without_times_is_not_by_row_number():
  pairs = make_interactions([(0, item) for item in range(200)])
  cut = histories.make_history(pairs, 1, 200, 'user', 50)
  assert 70 < cut.index.mean() < 130  # the first fifty have mean 24.5


def test_order_of_pairs_does_not_matter():
  pairs = [
      (user, (3 * user + step) % 9) for user in range(7) for step in (1, 4)
  ]
  forward = histories.make_history(make_interactions(pairs), 7, 9, 'item')
  backward = histories.make_history(
      make_interactions(pairs[::-1]), 7, 9, 'item'
  )
  np.testing.assert_array_equal(forward.index, backward.index)


def test_no_pairs_and_no_rows_give_padding():
  history = histories.make_history(make_interactions([]), 3, 4, 'user')
  np.testing.assert_array_equal(history.index, [[-1], [-1], [-1]])
  np.testing.assert_array_equal(history.count, [0, 0, 0])
  empty = histories.make_history(make_interactions([]), 0, 4, 'user', 2)
  assert empty.index.shape == (0, 1)


def test_mean_by_hand():
  history = histories.History(
      np.array([[0, 2], [-1, -1], [1, -1]], np.int32),
      np.array([2, 0, 1], np.int32),
  )
  values = np.array([[1, 10], [2, 20], [3, 30]], np.float32)
  mean = histories.mean_of_history(history, values)
  np.testing.assert_array_equal(mean, [[2, 20], [0, 0], [2, 20]])
  assert mean.dtype == np.float32


@hypothesis.given(PAIRS, st.sampled_from(['user', 'item']))
@SETTINGS
def test_mean_matches_loop(pairs, side):
  history = histories.make_history(make_interactions(list(pairs)), 7, 9, side)
  values = np.random.default_rng(0).normal(size=(9 if side == 'user' else 7, 3))
  values = values.astype(np.float32)
  expected = [
      np.mean([values[row] for row in rows], axis=0) if rows else np.zeros(3)
      for rows in partners(pairs, side)
  ]
  mean = histories.mean_of_history(history, values)
  np.testing.assert_allclose(mean, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    'side, max_length, message',
    [
        ('film', None, "side must be 'user' or 'item': 'film'"),
        ('user', 0, 'max_length must be at least 1: 0'),
    ],
)
def test_wrong_arguments_are_refused(side, max_length, message):
  with pytest.raises(ValueError, match=message):
    histories.make_history(make_interactions([(0, 0)]), 1, 1, side, max_length)
