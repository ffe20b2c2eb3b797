# SPDX-License-Identifier: Apache-2.0
"""Pairs come once, in one order, with their earliest time."""

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dropoutnet_jax.data import likes

_ROW = st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 50))


@hypothesis.settings(deadline=None)  # other work may share the cores
@hypothesis.given(rows=st.lists(_ROW), with_time=st.booleans())
def test_pairs_like_a_dictionary(rows, with_time):
  earliest = {}
  for user, item, time in rows:
    earliest[user, item] = min(time, earliest.get((user, item), time))
  user, item, time = np.array(rows, np.int64).reshape(-1, 3).T
  found, repeats = likes.make_interactions(
      user, item, 5, time if with_time else None
  )
  assert list(zip(found.user.tolist(), found.item.tolist())) == sorted(earliest)
  assert repeats == len(rows) - len(earliest)
  assert found.user.dtype == found.item.dtype == np.int32
  if with_time:
    assert found.time.dtype == np.int64
    assert found.time.tolist() == [earliest[key] for key in sorted(earliest)]
  else:
    assert found.time is None


def test_large_tables_do_not_overflow():
  user = np.array([70_000, 0], np.int32)
  item = np.array([69_999, 1], np.int32)
  found, _ = likes.make_interactions(user, item, 70_000)
  np.testing.assert_array_equal(found.user, [0, 70_000])


@pytest.mark.parametrize(
    'num_users, num_items, expected',
    [
        (2, 3, []),
        (4, 3, ['2 of 4 users have no like.']),
        (4, 5, ['2 of 4 users have no like.', '2 of 5 items have no like.']),
    ],
)
def test_gaps_are_counted(num_users, num_items, expected):
  user, item = np.array([0, 1, 0]), np.array([0, 1, 2])
  found, _ = likes.make_interactions(user, item, num_items)
  assert likes.describe_gaps(found, num_users, num_items) == expected


def test_repeats_are_only_told_if_there_are_any():
  assert not likes.describe_repeats('f', 0)
  assert likes.describe_repeats('f', 2) == [
      'f repeats 2 pair(s); each counts once.'
  ]
