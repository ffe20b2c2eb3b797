# SPDX-License-Identifier: Apache-2.0
"""Ids of values: stable, in range, 0 where unknown or missing."""

import hashlib

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dropoutnet_jax.data import id_maps

VALUES = st.lists(st.none() | st.text())


def test_hashes_are_the_same_in_every_run():
  """Golden values: a change of the hash would break every saved model."""
  ids = id_maps.hashed_ids(['', 'a', 'naïve', '深層', None, 'a'], 1000)
  np.testing.assert_array_equal(ids, [757, 929, 7, 200, 0, 929])
  digest = hashlib.blake2b(b'a', digest_size=8).digest()
  assert ids[1] == 1 + int.from_bytes(digest, 'little') % 1000
  assert ids.dtype == np.int64


@hypothesis.settings(deadline=None, max_examples=50, derandomize=True)
@hypothesis.given(values=VALUES, num_buckets=st.integers(1, 50))
def test_hashed_ids_are_in_range_and_a_function_of_the_value(
    values, num_buckets
):
  ids = id_maps.hashed_ids(values, num_buckets)
  assert ids.shape == (len(values),)
  for value, found in zip(values, ids, strict=True):
    alone = id_maps.hashed_ids([value], num_buckets)[0]
    assert found == alone
    assert (found == 0) == (value is None) and 0 <= found <= num_buckets


def test_hashes_spread_evenly():
  """Chi-squared of 100 buckets: mean 99, standard deviation 14."""
  ids = id_maps.hashed_ids([str(n) for n in range(20_000)], 100)
  count = np.bincount(ids, minlength=101)[1:]
  assert np.sum((count - 200) ** 2 / 200) < 99 + 4 * 14


def test_unpaired_surrogates_have_a_hash():
  assert id_maps.hashed_ids(['\ud800'], 9)[0] > 0


@pytest.mark.parametrize(
    'value, expected',
    [
        ('0', 1),
        ('4', 5),
        ('04', 5),
        ('5', 0),
        ('-1', 0),
        ('1.0', 0),
        ('', 0),
        ('²', 0),
        ('٣', 0),
        ('9' * 5000, 0),
        (' 1', 0),
        ('1_0', 0),
        (None, 0),
    ],
)
def test_bucket_ids(value, expected):
  np.testing.assert_array_equal(id_maps.bucket_ids([value], 5), [expected])


def test_vocabulary_ids():
  values = ['b', None, 'z', 'a', '', 'b']
  for vocabulary in (('a', 'b'), np.array(['a', 'b']), {'a': 1, 'b': 2}):
    ids = id_maps.vocabulary_ids(values, vocabulary)
    np.testing.assert_array_equal(ids, [2, 0, 0, 1, 0, 2])
  np.testing.assert_array_equal(
      id_maps.vocabulary_ids(['', 'a'], ['', 'a']), [1, 2]
  )


def test_no_values_have_no_ids():
  for ids in (
      id_maps.hashed_ids([], 3),
      id_maps.bucket_ids([], 3),
      id_maps.vocabulary_ids([], []),
  ):
    assert ids.shape == (0,) and ids.dtype == np.int64


def test_misuse():
  for function in (id_maps.hashed_ids, id_maps.bucket_ids):
    with pytest.raises(ValueError, match='0 buckets, but one is needed'):
      function(['a'], 0)
  with pytest.raises(ValueError, match='twice'):
    id_maps.vocabulary_ids(['a'], ['a', 'a'])
