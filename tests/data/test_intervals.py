# SPDX-License-Identifier: Apache-2.0
"""Numbers cut into intervals: edges, ids, names, one-hot columns."""

import math

import hypothesis
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import encoders
from dropoutnet_jax.data import intervals

NAN = math.nan


def feature(**settings):
  return config.Feature(column='price', kind='numeric', **settings)


def test_ids_by_hand():
  column = np.array([NAN, -1e30, 9.9, 10, 19, 20, 1e30], np.float32)
  ids = intervals.interval_ids(column, (10, 20))
  np.testing.assert_array_equal(ids, [0, 1, 1, 2, 2, 3, 3])
  assert ids.dtype == np.int64
  np.testing.assert_array_equal(intervals.interval_ids(column[:2], ()), [0, 1])


def test_an_edge_that_float32_rounds_is_reached():
  column = np.float32([0.7, 0.1])  # the first is below 0.7
  assert float(column[0]) < 0.7
  np.testing.assert_array_equal(
      intervals.interval_ids(column, (0.1, 0.7)), [3, 2]
  )


def test_names():
  names = ['price < 10', 'price in [10, 12.5)', 'price >= 12.5']
  assert intervals.interval_names('price', (10, 12.5)) == names
  assert intervals.interval_names('x', (-0.0,)) == ['x < 0', 'x >= 0']
  assert intervals.interval_names('x', ()) == ['x present']
  near = intervals.interval_names('x', np.float32([1000000, 1000001]).tolist())
  assert near[1] == 'x in [1000000, 1000001)'


@pytest.mark.parametrize(
    'values, num_intervals, edges',
    [
        ([6, 5, 4, 3, 2, 1], 3, (3, 5)),
        ([1, 2, 3, 4, NAN, 5], 2, (4,)),
        ([1, 2], 9, (2,)),
        ([7], 2, ()),
        ([7, 7, 7], 4, ()),
        ([NAN, NAN], 4, ()),
        # Half are 0, which fill two of four intervals and get one.
        ([0, 0, 0, 0, 1, 2, 3, 4], 4, (1, 3)),
        # In the middle as well.
        ([0, 5, 5, 5, 5, 5, 5, 9], 4, (5, 9)),
        ([0, 1, 9, 9, 9, 9, 9, 9], 4, (9,)),
    ],
)
def test_edges_by_hand(values, num_intervals, edges):
  found = intervals.fit_edges(np.array(values), num_intervals)
  assert found == edges


@hypothesis.settings(deadline=None, max_examples=60, derandomize=True)
@hypothesis.given(
    column=numpy_st.arrays(
        np.float32,
        st.integers(1, 30),
        elements=st.sampled_from([NAN, *range(12)])
        | st.floats(width=32, allow_infinity=False),
    ),
    num_intervals=st.integers(2, 9),
)
def test_every_fitted_interval_has_rows_and_none_has_too_many(
    column, num_intervals
):
  edges = intervals.fit_edges(column, num_intervals)
  assert len(edges) < num_intervals
  assert all(a < b for a, b in zip(edges, edges[1:]))
  known = column[~np.isnan(column)]
  if len(known):
    count = np.bincount(
        intervals.interval_ids(known, edges), minlength=len(edges) + 2
    )
    assert count[0] == 0 and count[1:].all()
    # An interval of several values has at most as many rows as two shares.
    most = 2 * math.ceil(len(known) / num_intervals)
    for number in np.flatnonzero(count > most):
      inside = known[intervals.interval_ids(known, edges) == number]
      assert np.unique(inside).size == 1


def test_distinct_values_fall_into_equally_many():
  rng = np.random.default_rng(0)
  column = rng.permutation(1000).astype(np.float32)
  edges = intervals.fit_edges(column, 8)
  count = np.bincount(intervals.interval_ids(column, edges))
  np.testing.assert_array_equal(count, [0, *[125] * 8])


def test_one_hot_by_hand():
  train = np.array([5, 15, 16, NAN], np.float32)
  encoder, notes = intervals.fit_intervals(
      feature(boundaries=(10, 20)), train, 'config.here'
  )
  column = np.array([0, 10, 25, NAN], np.float32)
  dense, sparse = encoder.encode(column)
  expected = [[1, 0], [0, 1], [0, 0], [0, 0]]  # nothing is known above 20
  np.testing.assert_array_equal(dense, expected)
  np.testing.assert_array_equal(sparse.toarray(), expected)
  assert dense.dtype == sparse.dtype == np.float32
  names = ['price < 10', 'price in [10, 20)']
  assert encoder.dense_names() == encoder.sparse_names() == names
  np.testing.assert_array_equal(encoder.ids(column), [1, 2, 0, 0])
  assert encoder.num_ids == 4
  assert notes == [
      "'price': 1 of 3 intervals have fewer than 1 training rows; numbers in "
      'them count as missing.'
  ]


def test_rare_intervals_are_dropped_and_sparse_content_is_optional():
  settings = feature(boundaries=(10,), min_rows=2, sparse=False)
  train = np.array([5, 15, 16])
  encoder, notes = intervals.fit_intervals(settings, train, 'config.here')
  dense, sparse = encoder.encode(train)
  np.testing.assert_array_equal(dense, [[0], [1], [1]])
  assert sparse.shape == (3, 0) and encoder.sparse_names() == []
  assert 'fewer than 2 training rows' in notes[0]


def test_fitted_intervals():
  train = np.array([0, 0, 0, 0, 1, 2, 3, 4], np.float32)
  encoder, notes = intervals.fit_intervals(
      feature(num_intervals=4), train, 'config.here'
  )
  assert encoder.edges == (1, 3)
  assert notes == [
      "'price' is cut into 3 instead of 4 intervals, since its values repeat."
  ]
  _, notes = intervals.fit_intervals(
      feature(num_intervals=2), np.array([7, 7, NAN]), 'config.here'
  )
  assert (
      notes[1] == "'price' is the same in all training rows and says nothing."
  )


def test_the_most_frequent_of_many_intervals_are_dense():
  limit = encoders.MAX_DENSE_COLUMNS
  train = np.concatenate([np.arange(limit + 9), np.arange(9, limit + 9)])
  settings = feature(boundaries=tuple(range(1, limit + 9)))
  encoder, notes = intervals.fit_intervals(settings, train, 'config.here')
  assert encoder.dense_values == tuple(range(9, limit + 9))
  dense, sparse = encoder.encode(train)
  assert dense.shape == (len(train), limit) and sparse.shape[1] == limit + 9
  assert '265 values: the 256 most frequent are dense' in notes[0]
  # An embedding takes the place of dense columns.
  settings = feature(boundaries=(5,), embedding=3)
  encoder, _ = intervals.fit_intervals(settings, train, 'config.here')
  assert encoder.encode(train)[0].shape == (len(train), 0)


@pytest.mark.parametrize(
    'settings, train, message',
    [
        ({'num_intervals': 3}, [NAN, NAN], 'numbers in 0 of 2 training rows'),
        (
            {'boundaries': (5,), 'min_rows': 2},
            [1, 9],
            'in 2 of 2 training rows, in no interval 2 or more. Lower min_rows',
        ),
        ({'boundaries': (5,)}, [[1, 2]], 'has 2 numbers per row, but only'),
        (
            {'boundaries': (1, 1 + 1e-9)},
            [1],
            'boundaries has 1 and 1.000000001',
        ),
        ({'boundaries': (-1e39, 1)}, [1], 'has -1e+39, which no number of a'),
    ],
)
def test_refusals(settings, train, message):
  with pytest.raises(errors.UserError) as caught:
    intervals.fit_intervals(
        feature(**settings), np.array(train, np.float32), 'config.here'
    )
  assert str(caught.value).startswith('config.here')
  assert message in str(caught.value)
