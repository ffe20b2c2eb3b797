# SPDX-License-Identifier: Apache-2.0
"""Numbers under each transform, with values a reader can redo."""

import math

import hypothesis
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st
import numpy as np
import pytest
from scipy import stats

from dropoutnet_jax import config
from dropoutnet_jax.data import number_encoder

NAN = math.nan


def feature(**settings):
  return config.Feature(column='c', kind='numeric', **settings)


def test_numbers_by_hand():
  # Mean 3, standard deviation 2.
  train = np.array([1, 5, 1, 5], np.float32)
  encoder, notes = number_encoder.fit_numeric(feature(), train, 'column')
  dense, sparse = encoder.encode(np.array([1, 3, 5, 4, NAN], np.float32))
  assert dense.dtype == np.float32 and sparse.shape == (5, 0)
  np.testing.assert_array_equal(dense[:, 0], [-1, 0, 1, 0.5, 0])
  assert encoder.dense_names() == ['c'] and notes == []


def test_missing_numbers_have_a_presence_bit_if_training_had_any():
  train = np.array([1, NAN, 5], np.float32)
  encoder, _ = number_encoder.fit_numeric(feature(), train, 'column')
  dense, _ = encoder.encode(train)
  np.testing.assert_array_equal(dense, [[-1, 1], [0, 0], [1, 1]])
  assert encoder.dense_names() == ['c', 'c present']


def test_numbers_of_unit_rows_have_a_presence_bit():
  """Otherwise norm 1 would leave their sign alone."""
  train = np.array([1, 5, 1, 5], np.float32)
  encoder, _ = number_encoder.fit_numeric(feature(), train, 'row')
  dense, _ = encoder.encode(np.array([5, 7, NAN], np.float32))
  np.testing.assert_array_equal(dense, [[1, 1], [2, 1], [0, 0]])


def test_far_numbers_are_clipped():
  train = np.array([1, 5, 1, 5], np.float32)
  encoder, _ = number_encoder.fit_numeric(feature(), train, 'column')
  dense, _ = encoder.encode(np.array([-1e30, 12.9, 13.1, 3e38], np.float32))
  np.testing.assert_allclose(dense[:, 0], [-5, 4.95, 5, 5], rtol=1e-6)


@pytest.mark.parametrize('scaling', ('row', 'column'))
@pytest.mark.parametrize(
    'value', (0, 0.1, 1e30, 1e-42, 16777217), ids=lambda v: f'{v:g}'
)
def test_a_constant_is_zero(scaling, value):
  train = np.full(1001, value, np.float32)
  encoder, notes = number_encoder.fit_numeric(feature(), train, scaling)
  dense, _ = encoder.encode(np.array([value, 2 * value + 1, NAN], np.float32))
  np.testing.assert_array_equal(dense, np.zeros((3, 1)))
  assert notes == ["'c' is the same in all training rows and says nothing."]


def test_a_constant_whose_deviation_is_a_rounding_error_is_zero():
  train = np.full(1001, 0.1)
  assert train.std() > 0
  encoder, _ = number_encoder.fit_numeric(feature(), train, 'column')
  assert not encoder.encode(np.array([0.1, 0.2]))[0].any()


def test_a_constant_with_gaps_says_where_it_is_present():
  train = np.array([4, NAN, 4], np.float32)
  encoder, _ = number_encoder.fit_numeric(feature(), train, 'row')
  dense, _ = encoder.encode(train)
  np.testing.assert_array_equal(dense, [[0, 1], [0, 0], [0, 1]])


def test_numbers_missing_everywhere_are_zero():
  train = np.full(3, NAN, np.float32)
  encoder, notes = number_encoder.fit_numeric(feature(), train, 'row')
  dense, _ = encoder.encode(np.array([NAN, 7], np.float32))
  np.testing.assert_array_equal(dense, np.zeros((2, 1)))
  assert notes == ["'c' is missing from all training rows and says nothing."]


def test_a_table_of_numbers_is_standardised_by_column():
  train = np.array([[1, 10, 2], [5, NAN, 2], [3, 30, 2]], np.float32)
  encoder, _ = number_encoder.fit_numeric(feature(), train, 'column')
  dense, _ = encoder.encode(train)
  z = math.sqrt(1.5)
  expected = [[-z, -1, 0, 1], [z, 0, 0, 0], [0, 1, 0, 1]]
  np.testing.assert_allclose(dense, expected, atol=1e-6)
  names = ['c[0]', 'c[1]', 'c[2]', 'c[1] present']
  assert encoder.dense_names() == names


@pytest.mark.parametrize('dtype', (np.int64, np.bool_, np.uint8, np.float64))
def test_other_types_of_numbers(dtype):
  column = np.array([0, 1, 1, 0]).astype(dtype)
  encoder, _ = number_encoder.fit_numeric(feature(), column, 'column')
  dense, _ = encoder.encode(column)
  np.testing.assert_array_equal(dense[:, 0], [-1, 1, 1, -1])


def test_large_integers_keep_their_differences():
  """Seconds since 1970 differ by less than float32 can tell."""
  time = 1_700_000_000 + np.array([0, 10, 0, 10], np.int64)
  encoder, _ = number_encoder.fit_numeric(feature(), time, 'column')
  dense, _ = encoder.encode(time)
  np.testing.assert_allclose(dense[:, 0], [-1, 1, -1, 1], rtol=1e-5)


def test_logarithms_by_hand():
  # log1p of training is 0, 1, 2, 1 and missing: mean 1, variance 1 / 2.
  train = np.expm1(np.array([0, 1, 2, 1, NAN]))
  encoder, notes = number_encoder.fit_numeric(
      feature(transform='log1p'), train, 'column'
  )
  dense, _ = encoder.encode(np.expm1(np.array([0, 1.5, NAN, 700])))
  half = math.sqrt(0.5)
  expected = [[-1 / half, 1], [0.5 / half, 1], [0, 0], [5, 1]]
  np.testing.assert_allclose(dense, expected, rtol=1e-6)
  assert encoder.dense_names() == ['c', 'c present'] and notes == []


def test_the_range_of_training_becomes_0_to_1():
  train = np.array([10, 20, 14, NAN], np.float32)
  settings = feature(transform='min_max')
  encoder, _ = number_encoder.fit_numeric(settings, train, 'column')
  dense, _ = encoder.encode(np.array([10, 15, 20, 9, 1e30, NAN], np.float32))
  np.testing.assert_array_equal(dense[:, 0], [0, 0.5, 1, 0, 1, 0])
  np.testing.assert_array_equal(dense[:, 1], [1, 1, 1, 1, 1, 0])


def test_numbers_as_they_are():
  train = np.array([[10, 3], [NAN, 3]], np.float32)
  settings = feature(transform='none')
  encoder, notes = number_encoder.fit_numeric(settings, train, 'column')
  dense, _ = encoder.encode(np.array([[1e30, 4], [NAN, NAN]], np.float32))
  np.testing.assert_array_equal(dense, np.float32([[1e30, 4, 1], [0, 0, 0]]))
  names = ['c[0]', 'c[1]', 'c[0] present']
  assert encoder.dense_names() == names and len(notes) == 2


def test_ranks_by_hand():
  """Ties share the mean of their ranks; between values it is linear."""
  train = np.array([5, 1, 1, 1, 9], np.float32)
  settings = feature(transform='quantile')
  encoder, _ = number_encoder.fit_numeric(settings, train, 'column')
  dense, _ = encoder.encode(np.array([1, 3, 5, 6, 9, -7, 99, NAN]))
  expected = [0.25, 0.5, 0.75, 0.8125, 1, 0.25, 1, 0]
  np.testing.assert_allclose(dense[:, 0], expected, rtol=1e-6)
  assert encoder.dense_names() == ['c']


@hypothesis.settings(deadline=None, max_examples=60, derandomize=True)
@hypothesis.given(
    train=numpy_st.arrays(
        np.float32,
        st.integers(2, 30),
        elements=st.sampled_from([-3e38, -1, 0, 1e-45, 1e-20, 0.5, 1, 3e38]),
    )
)
def test_ranks_of_training_values_are_their_mean_ranks(train):
  encoder, _ = number_encoder.fit_numeric(
      feature(transform='quantile'), train, 'column'
  )
  expected = (stats.rankdata(train) - 1) / (len(train) - 1)
  if train.astype(float).std() <= 1e-30:  # is called constant
    expected = np.zeros(len(train))
  dense, _ = encoder.encode(train)
  np.testing.assert_allclose(dense[:, 0], expected, rtol=1e-6)


def test_many_values_keep_few_knots_and_exact_ranks_beside_heavy_ones():
  rng = np.random.default_rng(0)
  values = np.exp(rng.normal(size=9_000)).astype(np.float32)
  heavy = np.repeat(np.float32([0.7, 1.3]), [4_000, 2_000])
  train = np.concatenate([values, heavy])
  encoder, _ = number_encoder.fit_numeric(
      feature(transform='quantile'), train, 'row'
  )
  assert 400 < encoder.knots.shape[1] <= 1000
  expected = (stats.rankdata(train) - 1) / (len(train) - 1)
  dense, _ = encoder.encode(train)
  np.testing.assert_allclose(dense[:, 0], expected, atol=2e-3)


@pytest.mark.parametrize('transform', ('log1p', 'min_max', 'quantile', 'none'))
def test_presence_bits_are_those_of_standardised_numbers(transform):
  settings = feature(transform=transform)
  train = np.array([[0, 1, NAN], [1, 1, 2], [2, 1, NAN]], np.float32)
  for scaling in ('row', 'column'):
    plain, _ = number_encoder.fit_numeric(feature(), train, scaling)
    encoder, notes = number_encoder.fit_numeric(settings, train, scaling)
    assert encoder.has_presence == plain.has_presence
    assert len(notes) == 2
    dense, _ = encoder.encode(np.full((1, 3), NAN))
    assert not dense.any()


@pytest.mark.parametrize('transform', ('log1p', 'min_max', 'quantile'))
def test_what_says_nothing_is_zero(transform):
  settings = feature(transform=transform)
  train = np.array([[4, NAN], [4, NAN]], np.float32)
  encoder, _ = number_encoder.fit_numeric(settings, train, 'row')
  dense, _ = encoder.encode(np.array([[4, 1], [9, NAN], [NAN, 0]]))
  np.testing.assert_array_equal(dense, np.zeros((3, 2)))


@hypothesis.settings(deadline=None, max_examples=60, derandomize=True)
@hypothesis.given(
    table=numpy_st.arrays(
        np.float32,
        st.tuples(st.integers(1, 6), st.integers(0, 2)),
        elements=st.floats(-0.75, width=32, allow_infinity=False)
        | st.just(NAN),
    ),
    transform=st.sampled_from(['log1p', 'min_max', 'quantile']),
    scaling=st.sampled_from(['row', 'column']),
)
def test_transforms_are_bounded_and_monotone(table, transform, scaling):
  settings = feature(transform=transform)
  encoder, _ = number_encoder.fit_numeric(settings, table[:4], scaling)
  dense, sparse = encoder.encode(table)
  assert dense.shape == (len(table), len(encoder.dense_names()))
  assert dense.dtype == np.float32 and sparse.shape == (len(table), 0)
  low, high = (-5, 5) if transform == 'log1p' else (0, 1)
  assert np.all((low <= dense) & (dense <= high))
  for number in range(table.shape[1]):
    order = np.argsort(table[:, number])
    known = order[~np.isnan(table[order, number])]
    assert np.all(np.diff(dense[known, number]) >= 0)
