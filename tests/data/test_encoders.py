# SPDX-License-Identifier: Apache-2.0
"""Numbers, categories and vectors, each with values a reader can redo."""

import math

import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import encoders

NAN = math.nan


def feature(**settings):
  return config.Feature(column='c', **settings)


def strings(*values):
  return np.array(values, object)


def test_numbers_by_hand():
  # Mean 3, standard deviation 2.
  train = np.array([1, 5, 1, 5], np.float32)
  encoder, notes = encoders.fit_numeric(feature(), train, 'column')
  dense, sparse = encoder.encode(np.array([1, 3, 5, 4, NAN], np.float32))
  assert dense.dtype == np.float32 and sparse.shape == (5, 0)
  np.testing.assert_array_equal(dense[:, 0], [-1, 0, 1, 0.5, 0])
  assert encoder.dense_names() == ['c'] and notes == []


def test_missing_numbers_have_a_presence_bit_if_training_had_any():
  train = np.array([1, NAN, 5], np.float32)
  encoder, _ = encoders.fit_numeric(feature(), train, 'column')
  dense, _ = encoder.encode(train)
  np.testing.assert_array_equal(dense, [[-1, 1], [0, 0], [1, 1]])
  assert encoder.dense_names() == ['c', 'c present']


def test_numbers_of_unit_rows_have_a_presence_bit():
  """Otherwise norm 1 would leave their sign alone."""
  train = np.array([1, 5, 1, 5], np.float32)
  encoder, _ = encoders.fit_numeric(feature(), train, 'row')
  dense, _ = encoder.encode(np.array([5, 7, NAN], np.float32))
  np.testing.assert_array_equal(dense, [[1, 1], [2, 1], [0, 0]])


def test_far_numbers_are_clipped():
  train = np.array([1, 5, 1, 5], np.float32)
  encoder, _ = encoders.fit_numeric(feature(), train, 'column')
  dense, _ = encoder.encode(np.array([-1e30, 12.9, 13.1, 3e38], np.float32))
  np.testing.assert_allclose(dense[:, 0], [-5, 4.95, 5, 5], rtol=1e-6)


@pytest.mark.parametrize('scaling', ('row', 'column'))
@pytest.mark.parametrize(
    'value', (0, 0.1, 1e30, 1e-42, 16777217), ids=lambda v: f'{v:g}'
)
def test_a_constant_is_zero(scaling, value):
  train = np.full(1001, value, np.float32)
  encoder, notes = encoders.fit_numeric(feature(), train, scaling)
  dense, _ = encoder.encode(np.array([value, 2 * value + 1, NAN], np.float32))
  np.testing.assert_array_equal(dense, np.zeros((3, 1)))
  assert notes == ["'c' is the same in all training rows and says nothing."]


def test_a_constant_whose_deviation_is_a_rounding_error_is_zero():
  train = np.full(1001, 0.1)
  assert train.std() > 0
  encoder, _ = encoders.fit_numeric(feature(), train, 'column')
  assert not encoder.encode(np.array([0.1, 0.2]))[0].any()


def test_a_constant_with_gaps_says_where_it_is_present():
  train = np.array([4, NAN, 4], np.float32)
  encoder, _ = encoders.fit_numeric(feature(), train, 'row')
  dense, _ = encoder.encode(train)
  np.testing.assert_array_equal(dense, [[0, 1], [0, 0], [0, 1]])


def test_numbers_missing_everywhere_are_zero():
  train = np.full(3, NAN, np.float32)
  encoder, notes = encoders.fit_numeric(feature(), train, 'row')
  dense, _ = encoder.encode(np.array([NAN, 7], np.float32))
  np.testing.assert_array_equal(dense, np.zeros((2, 1)))
  assert notes == ["'c' is missing from all training rows and says nothing."]


def test_a_table_of_numbers_is_standardised_by_column():
  train = np.array([[1, 10, 2], [5, NAN, 2], [3, 30, 2]], np.float32)
  encoder, _ = encoders.fit_numeric(feature(), train, 'column')
  dense, _ = encoder.encode(train)
  z = math.sqrt(1.5)
  expected = [[-z, -1, 0, 1], [z, 0, 0, 0], [0, 1, 0, 1]]
  np.testing.assert_allclose(dense, expected, atol=1e-6)
  names = ['c[0]', 'c[1]', 'c[2]', 'c[1] present']
  assert encoder.dense_names() == names


@pytest.mark.parametrize('dtype', (np.int64, np.bool_, np.uint8, np.float64))
def test_other_types_of_numbers(dtype):
  column = np.array([0, 1, 1, 0]).astype(dtype)
  encoder, _ = encoders.fit_numeric(feature(), column, 'column')
  dense, _ = encoder.encode(column)
  np.testing.assert_array_equal(dense[:, 0], [-1, 1, 1, -1])


def test_large_integers_keep_their_differences():
  """Seconds since 1970 differ by less than float32 can tell."""
  time = 1_700_000_000 + np.array([0, 10, 0, 10], np.int64)
  encoder, _ = encoders.fit_numeric(feature(), time, 'column')
  dense, _ = encoder.encode(time)
  np.testing.assert_allclose(dense[:, 0], [-1, 1, -1, 1], rtol=1e-5)


def test_categories_by_hand():
  train = strings('b', 'a', None, 'b')
  encoder, notes = encoders.fit_category(feature(), train, 'config.here')
  dense, sparse = encoder.encode(strings('a', 'b', None, 'z'))
  expected = [[1, 0], [0, 1], [0, 0], [0, 0]]
  np.testing.assert_array_equal(dense, expected)
  np.testing.assert_array_equal(sparse.toarray(), expected)
  assert dense.dtype == sparse.dtype == np.float32
  assert encoder.dense_names() == encoder.sparse_names() == ['c=a', 'c=b']
  assert notes == []


def test_rare_categories_are_dropped():
  train = strings('a', 'b', 'b', 'c', 'c')
  settings = feature(min_rows=2)
  encoder, _ = encoders.fit_category(settings, train, 'config.here')
  assert encoder.values == ('b', 'c')
  assert not encoder.encode(strings('a'))[0].any()


def test_categories_can_stay_out_of_the_sparse_content():
  train = strings('a', 'b', 'b')
  settings = feature(sparse=False)
  encoder, _ = encoders.fit_category(settings, train, 'config.here')
  dense, sparse = encoder.encode(train)
  assert dense.shape == (3, 2) and sparse.shape == (3, 0)
  assert encoder.sparse_names() == []


def test_the_most_frequent_of_many_categories_are_dense():
  limit = encoders.MAX_DENSE_COLUMNS
  names = [f'{n:04}' for n in range(limit + 2)]
  # All twice but for the first two, which occur once.
  train = strings(*names, *names[2:])
  encoder, notes = encoders.fit_category(feature(), train, 'config.here')
  dense, sparse = encoder.encode(strings(*names))
  np.testing.assert_array_equal(sparse.toarray(), np.eye(limit + 2))
  np.testing.assert_array_equal(dense, np.eye(limit + 2)[:, 2:])
  assert encoder.dense_names() == [f'c={name}' for name in names[2:]]
  assert '258 values: the 256 most frequent are dense columns' in notes[0]
  # Equally frequent ones: the first in order.
  encoder, _ = encoders.fit_category(feature(), strings(*names), 'config.here')
  assert encoder.dense_values == tuple(range(limit))


def test_a_category_like_an_id_is_noted():
  train = strings('x1', None, 'x2', 'x3')
  _, notes = encoders.fit_category(feature(), train, 'config.here')
  assert 'different in every training row, like an id' in notes[0]
  _, notes = encoders.fit_category(feature(), strings('x1'), 'config.here')
  assert notes == []


@pytest.mark.parametrize(
    'train, min_rows, message',
    [
        (strings(None, None), 1, 'has 0 values in 2 training rows'),
        (strings('a', 'b'), 2, 'has 2 values in 2 training rows, none .* in 2'),
    ],
)
def test_no_category_is_left(train, min_rows, message):
  with pytest.raises(errors.UserError, match=f'^config.here: .*{message}'):
    encoders.fit_category(feature(min_rows=min_rows), train, 'config.here')


def test_vectors_stay_as_they_are_and_gaps_are_zero():
  column = np.array([[1, -2], [NAN, 1e9]], np.float32)
  encoder = encoders.VectorEncoder('c', 2)
  dense, sparse = encoder.encode(column)
  np.testing.assert_array_equal(dense, [[1, -2], [0, 1e9]])
  assert sparse.shape == (2, 0) and encoder.dense_names() == ['c[0]', 'c[1]']
  dense[:] = 7  # A copy: what scales a block must not change the table.
  assert column[0, 0] == 1
