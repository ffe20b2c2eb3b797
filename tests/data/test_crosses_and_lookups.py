# SPDX-License-Identifier: Apache-2.0
"""Several columns as one: joined categories, weights of tags named by a key."""

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax.data import crosses
from dropoutnet_jax.data import lookups
from dropoutnet_jax.data import schema


def strings(*values):
  return np.array(values, object)


def test_joined_by_hand():
  joined = crosses.join(
      [strings('red', 'a&b', None, ''), strings('small', '\\', 'x', '')]
  )
  assert joined.tolist() == ['red & small', 'a\\&b & \\\\', None, ' & ']
  assert joined.dtype == object
  assert crosses.join([strings(), strings()]).shape == (0,)


_PART = st.text(alphabet='a& \\', max_size=4)


@hypothesis.settings(deadline=None, max_examples=80, derandomize=True)
@hypothesis.given(
    rows=st.lists(st.tuples(_PART, _PART, _PART), min_size=2, max_size=6)
)
def test_different_rows_stay_different(rows):
  joined = crosses.join([strings(*column) for column in zip(*rows)])
  assert len(set(joined)) == len(set(rows))


def tags(table, names=None):
  matrix = scipy.sparse.csr_array(np.array(table, np.float32))
  return schema.Tags(matrix, None if names is None else np.array(names))


@pytest.mark.parametrize('names', (('a', 'b', 'c'), None))
def test_looked_up_by_hand(names):
  table = [[1, 2, 0], [0, 5, -1], [0, 0, 0], [3, 0, 0], [1, 1, 1]]
  key = strings('b', 'c', 'a', None, 'z')
  if names is None:  # named by their column numbers
    key = strings('1', '2', '0', None, '3')
  found = lookups.pick_weights(tags(table, names), key)
  np.testing.assert_array_equal(found, [2, -1, np.nan, np.nan, np.nan])
  assert found.dtype == np.float64


def test_columns_of_one_name_are_added_up():
  found = lookups.pick_weights(
      tags([[1, 2, 4], [1, 0, 0]], ['a', 'b', 'a']), strings('a', 'a')
  )
  np.testing.assert_array_equal(found, [5, 1])


def test_nothing_to_look_up_in():
  none = tags(np.zeros((2, 0)), [])
  found = lookups.pick_weights(none, strings('a', None))
  assert np.isnan(found).all() and found.shape == (2,)
  assert lookups.pick_weights(tags(np.zeros((0, 3))), strings()).shape == (0,)


@hypothesis.settings(deadline=None, max_examples=30, derandomize=True)
@hypothesis.given(st.data())
def test_against_a_loop(data):
  names = data.draw(st.lists(st.sampled_from('abcd'), min_size=1, max_size=5))
  row = st.lists(
      st.sampled_from([0, 0, 1, 2.5]),
      min_size=len(names),
      max_size=len(names),
  )
  table = data.draw(st.lists(row, min_size=1, max_size=5))
  key = [data.draw(st.sampled_from([None, *'abcde'])) for _ in table]
  expected = []
  for weights, wanted in zip(table, key):
    hit = [w for w, name in zip(weights, names) if name == wanted and w]
    expected.append(sum(hit) if hit else np.nan)
  found = lookups.pick_weights(tags(table, names), strings(*key))
  np.testing.assert_array_equal(found, expected)
