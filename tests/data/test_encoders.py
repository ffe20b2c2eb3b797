# SPDX-License-Identifier: Apache-2.0
"""Categories, buckets and vectors, each with values a reader can redo."""

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
