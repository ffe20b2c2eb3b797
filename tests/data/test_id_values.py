# SPDX-License-Identifier: Apache-2.0
"""Entries of columns: which values a row has, in which order, how heavy."""

import collections
import math

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax.data import id_maps
from dropoutnet_jax.data import id_values
from dropoutnet_jax.data import schema


def sequences(*rows):
  starts = np.cumsum([0, *map(len, rows)])
  return schema.Sequences(np.array(sum(rows, []), object), starts)


def tags(rows, names=None):
  matrix = scipy.sparse.csr_array(np.array(rows, np.float32))
  return schema.Tags(matrix, None if names is None else np.array(names))


def listed(values):
  """[(value, weight)] of each row."""
  weight = values.weight
  if weight is None:
    weight = np.ones(len(values.code))
  entries = [(values.names[c], w) for c, w in zip(values.code, weight)]
  return [entries[a:b] for a, b in zip(values.starts[:-1], values.starts[1:])]


def rows_of(found):
  """{name: weight} of each row of tags."""
  dense = found.matrix.toarray()
  return [{str(n): w for n, w in zip(found.names, row) if w} for row in dense]


@pytest.mark.parametrize(
    'column, expected',
    [
        (np.array(['b', None, 'a', 'b'], object), [['b'], [], ['a'], ['b']]),
        (np.array([], object), []),
        (sequences(['b', 'a', 'b'], [], ['c']), [['b', 'a', 'b'], [], ['c']]),
        (
            schema.Sequences(np.array([7, 3, 7]), np.array([0, 2, 2, 3])),
            [['7', '3'], [], ['7']],
        ),
        (sequences(['5', 5, np.int64(5)]), [['5', '5', '5']]),
        # Below 2, from 2 on; a number that is missing is in no interval.
        (np.array([1, 2, math.nan, -5], np.float32), [['1'], ['2'], [], ['1']]),
    ],
)
def test_entries_of_rows(column, expected):
  values = id_values.of_column(column, (2.0,))
  assert [[name for name, _ in row] for row in listed(values)] == expected
  assert values.weight is None
  assert values.rows().tolist() == [
      n for n, row in enumerate(expected) for _ in row
  ]
  count = collections.Counter(v for row in expected for v in set(row))
  assert dict(zip(values.names, values.count_rows().tolist())) == count


def test_tags_are_known_by_name_or_by_column():
  rows = [[0, 2, 0.5], [0, 0, 0], [1, 0, 3]]
  values = id_values.of_column(tags(rows, ['x', 'y', 'x']))
  assert listed(values) == [
      [('y', 2), ('x', 0.5)],
      [],
      [('x', 1), ('x', 3)],
  ]
  assert dict(zip(values.names, values.count_rows().tolist())) == {
      'y': 1,
      'x': 2,  # a row with both columns counts once
  }
  for _ in range(2):  # which leaves the values as they are
    assert rows_of(values.to_tags()) == [{'y': 2, 'x': 0.5}, {}, {'x': 4}]
  assert [n for n, _ in sum(listed(id_values.of_column(tags(rows))), [])] == [
      '1',
      '2',
      '0',
      '2',
  ]


def test_a_sequence_is_the_share_of_its_values():
  found = id_values.to_tags(
      sequences(['b', 'a', 'b', 'c'], [], ['a']),
      config.Feature('x', 'sequence'),
  )
  assert found.names.tolist() == ['a', 'b', 'c']
  np.testing.assert_array_equal(
      found.matrix.toarray(), [[0.25, 0.5, 0.25], [0, 0, 0], [1, 0, 0]]
  )


def test_tags_without_buckets_are_left_as_they_are():
  column = tags([[1, 2]], ['x', 'y'])
  assert id_values.to_tags(column, config.Feature('x')) is column


_COUNTS = st.lists(
    st.lists(st.sampled_from([0.0, 0.0, 1.0, 2.5]), min_size=4, max_size=4),
    min_size=1,
    max_size=5,
)


@hypothesis.given(rows=_COUNTS, num_buckets=st.integers(2, 5))
def test_hashed_tags_add_up_in_their_buckets(rows, num_buckets):
  names = ['red', 'green', 'blue', 'ü']
  feature = config.Feature('x', hash_buckets=num_buckets)
  found = id_values.to_tags(tags(rows, names), feature)
  bucket = id_maps.hashed_ids(names, num_buckets)
  expected = []
  for row in rows:
    total = collections.Counter()
    for weight, number in zip(row, bucket):
      total[f'#{number}'] += weight
    expected.append({name: weight for name, weight in total.items() if weight})
  assert rows_of(found) == expected
  assert len(set(found.names)) == len(found.names)


def test_whole_numbers_in_range_are_their_own_buckets():
  found = id_values.to_tags(
      sequences(['3', '0', '007', 'x', '-1'], ['8']),
      config.Feature('x', 'sequence', num_buckets=8),
  )
  # Of five values two are none; what is left keeps its share of the five.
  assert rows_of(found) == [
      {'0': np.float32(0.2), '3': np.float32(0.2), '7': np.float32(0.2)},
      {},
  ]
