# SPDX-License-Identifier: Apache-2.0
"""One-hot columns of hashed values and of small whole numbers."""

import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import bucket_encoder
from dropoutnet_jax.data import encoders
from dropoutnet_jax.data import id_maps
from dropoutnet_jax.data import id_values


def feature(**settings):
  return config.Feature(column='c', kind='category', **settings)


def strings(*values):
  return np.array(values, object)


def fit(settings, train):
  return bucket_encoder.fit_buckets(settings, train, 'config.here')


def test_small_numbers_by_hand():
  train = strings('3', '0', None, '3', '-1', 'x', '5')
  encoder, notes = fit(feature(num_buckets=5), train)
  assert encoder.known == (1, 4)
  dense, sparse = encoder.encode(strings('0', '3', '1', '9', None))
  expected = [[1, 0], [0, 1], [0, 0], [0, 0], [0, 0]]
  np.testing.assert_array_equal(dense, expected)
  np.testing.assert_array_equal(sparse.toarray(), expected)
  assert dense.dtype == sparse.dtype == np.float32
  assert encoder.dense_names() == encoder.sparse_names() == ['c=0', 'c=3']
  assert notes == []
  assert id_values.note_outside(feature(num_buckets=5), train) == [
      "'c' is no whole number in [0, 5) in 3 of 7 training rows, where it "
      'counts as missing.'
  ]
  assert not id_values.note_outside(feature(num_buckets=5), train[:4])


def test_hashes_by_hand():
  train = strings('a', 'b', None, 'a')
  encoder, notes = fit(feature(hash_buckets=1000, sparse=False), train)
  ids = id_maps.hashed_ids(['a', 'b'], 1000)
  assert encoder.known == tuple(sorted(ids)) and notes == []
  dense, sparse = encoder.encode(strings('b', None, 'zzz', 'a'))
  assert sparse.shape == (4, 0) and encoder.sparse_names() == []
  place = np.argsort(np.argsort(ids))
  expected = np.zeros((4, 2))
  expected[0, place[1]] = expected[3, place[0]] = 1
  np.testing.assert_array_equal(dense, expected)
  names = [f'c in bucket {n}' for n in sorted(ids)]
  assert encoder.dense_names() == names


def test_values_that_share_a_bucket_are_counted():
  train = strings(*'abcdefgh')
  encoder, notes = fit(feature(hash_buckets=2, min_rows=2), train)
  dense, _ = encoder.encode(train)
  np.testing.assert_array_equal(dense.sum(axis=1), np.ones(8))
  assert (
      "'c': 8 values of training rows are hashed to 2 of 2 buckets, so that "
      'some share one.'
  ) in notes


def test_the_most_frequent_of_many_buckets_are_dense():
  limit = encoders.MAX_DENSE_COLUMNS
  names = [str(n) for n in range(limit + 2)]
  train = strings(*names, *names[2:])
  encoder, notes = fit(feature(num_buckets=limit + 2), train)
  dense, sparse = encoder.encode(strings(*names))
  np.testing.assert_array_equal(sparse.toarray(), np.eye(limit + 2))
  np.testing.assert_array_equal(dense, np.eye(limit + 2)[:, 2:])
  assert '258 values: the 256 most frequent are dense columns' in notes[0]


@pytest.mark.parametrize(
    'settings, message',
    [
        (
            {'num_buckets': 2},
            'whole numbers below 2 in 0 of 3 training rows, and none of 2 buck',
        ),
        ({'num_buckets': 2}, 'use hash_buckets for values of any kind'),
        (
            {'hash_buckets': 9, 'min_rows': 3},
            'values in 2 of 3 training rows, and none of 9 buckets has 3 or',
        ),
    ],
)
def test_no_bucket_is_left(settings, message):
  with pytest.raises(errors.UserError, match='^config.here: ') as caught:
    fit(feature(**settings), strings('a', None, '7'))
  assert message in str(caught.value)


@pytest.mark.parametrize('settings', ({}, {'hash_buckets': 30}))
def test_what_looks_like_an_id_is_noted(settings):
  fit_any = fit if settings else lambda s, t: encoders.fit_category(s, t, 'h')
  values = [str(n) for n in range(100)]
  _, notes = fit_any(feature(**settings), strings(*values, None))
  assert "'c' is different in every training row, like an id" in notes[0]
  assert "helps a cold row. Give it group='preference'" in notes[0]
  almost = strings(*values, *values[:5])  # 100 of 105 are above 95 %
  _, notes = fit_any(feature(**settings), almost)
  assert 'different in 100 of 105 training rows, like an id' in notes[0]
  half = strings(*values, *values[:6])
  few = strings(*values[:47], *values[:3])  # 47 of 50 rows
  for train in (half, few):
    _, notes = fit_any(feature(**settings), train)
    assert 'like an id' not in ' '.join(notes)
  _, notes = fit_any(feature(group='preference', **settings), almost)
  assert 'like an id' not in ' '.join(notes)
