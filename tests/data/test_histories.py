# SPDX-License-Identifier: Apache-2.0
"""Histories against plain Python lists."""

import dataclasses
import tracemalloc

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
  rows, index = [], history.padded()
  assert index.dtype == history.count.dtype == np.int32
  for index, count in zip(index.tolist(), history.count.tolist()):
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
  assert history.padded().shape[1] == max(1, *map(len, expected))
  assert history.partner.tolist() == sum(expected, [])
  assert history.partner.dtype == np.int32


def as_set(pairs):
  return set(zip(pairs.user.tolist(), pairs.item.tolist()))


@hypothesis.given(PAIRS, st.integers(1, 5))
@SETTINGS
def test_cut_histories_are_a_subset_that_does_not_change(pairs, length):
  pairs = sorted(pairs, key=lambda pair: pair[1])
  every = make_interactions(pairs)
  every = dataclasses.replace(every, weight=np.arange(len(pairs), dtype='f4'))
  cut = histories.latest(every, length)
  assert as_set(cut) == as_set(histories.latest(every, length))
  kept = [pairs[int(row)] for row in cut.weight]  # weights stay with their pair
  assert kept == list(zip(cut.user.tolist(), cut.item.tolist()))
  assert kept == [pair for pair in pairs if pair in set(kept)]  # their order
  for user, items in enumerate(partners(pairs, 'user')):
    assert sum(u == user for u, _ in kept) == min(length, len(items))


@hypothesis.given(PAIRS, st.integers(1, 5), st.randoms(use_true_random=False))
@SETTINGS
def test_cut_histories_keep_the_latest(pairs, length, random):
  times = list(range(len(pairs)))
  random.shuffle(times)
  dated = dict(zip(sorted(pairs), times))
  pairs = make_interactions(list(dated), np.array(times, np.int64))
  expected = set()
  for user in range(7):
    own = sorted((dated[pair], pair) for pair in dated if pair[0] == user)
    expected |= {pair for _, pair in own[-length:]}
  assert as_set(histories.latest(pairs, length)) == expected


def test_cut_without_times_is_not_by_row_number():
  pairs = make_interactions([(0, item) for item in range(200)])
  cut = histories.latest(pairs, 50)
  assert 70 < cut.item.mean() < 130  # the first fifty have mean 24.5


def test_order_of_pairs_does_not_matter():
  pairs = [
      (user, (3 * user + step) % 9) for user in range(7) for step in (1, 4)
  ]
  forward = histories.make_history(make_interactions(pairs), 7, 9, 'item')
  backward = histories.make_history(
      make_interactions(pairs[::-1]), 7, 9, 'item'
  )
  np.testing.assert_array_equal(forward.partner, backward.partner)
  np.testing.assert_array_equal(forward.count, backward.count)


def test_no_pairs_and_no_rows_give_padding():
  history = histories.make_history(make_interactions([]), 3, 4, 'user')
  np.testing.assert_array_equal(history.padded(), [[-1], [-1], [-1]])
  np.testing.assert_array_equal(history.count, [0, 0, 0])
  empty = histories.make_history(make_interactions([]), 0, 4, 'user')
  assert empty.padded().shape == (0, 1)
  assert empty.total(np.ones((4, 2), np.float32)).shape == (0, 2)
  assert len(histories.latest(make_interactions([]), 2)) == 0


def test_total_by_hand():
  history = histories.History(
      np.array([0, 2, 1], np.int32), np.array([2, 0, 1], np.int32)
  )
  values = np.array([[1, 10], [2, 20], [3, 30]], np.float32)
  total = history.total(values)
  np.testing.assert_array_equal(total, [[4, 40], [0, 0], [2, 20]])
  assert total.dtype == np.float32


@hypothesis.given(PAIRS, st.sampled_from(['user', 'item']))
@SETTINGS
def test_total_is_the_sum_in_order_bit_for_bit(pairs, side):
  history = histories.make_history(make_interactions(list(pairs)), 7, 9, side)
  values = np.random.default_rng(0).normal(size=(9 if side == 'user' else 7, 3))
  values = values.astype(np.float32)
  expected = np.zeros((7 if side == 'user' else 9, 3), np.float32)
  for row, rows in enumerate(partners(pairs, side)):
    for partner in rows:
      expected[row] += values[partner]
  np.testing.assert_array_equal(history.total(values), expected)


def test_one_popular_item_costs_no_more_than_its_pairs():
  """Padded, 20,000 items of up to 20,000 users would take 1.6 GB."""
  size = 20_000
  every = np.arange(size, dtype=np.int32)
  pairs = schema.Interactions(
      np.concatenate([every, every[1:]]),
      np.concatenate([np.zeros(size, np.int32), every[1:]]),
  )
  factors = np.ones((size, 2), np.float32)
  tracemalloc.start()
  history = histories.make_history(pairs, size, size, 'item')
  total = history.total(factors)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  np.testing.assert_array_equal(total[:2], [[size, size], [1, 1]])
  assert peak < 20e6


def test_wrong_arguments_are_refused():
  pairs = make_interactions([(0, 0)])
  with pytest.raises(ValueError, match="side must be 'user' or 'item': 'film'"):
    histories.make_history(pairs, 1, 1, 'film')
  with pytest.raises(ValueError, match='max_length must be at least 1: 0'):
    histories.latest(pairs, 0)
