# SPDX-License-Identifier: Apache-2.0
"""Vocabularies: one numbering for all that share an embedding table."""

import collections

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import vocabularies

Feature = config.Feature


def training(side, columns, features, rows=None, ids=None):
  first = next(iter(columns.values()))
  is_tags = isinstance(first, schema.Tags)
  num_rows = first.matrix.shape[0] if is_tags else len(first)
  ids = np.arange(num_rows) if ids is None else np.array(ids)
  rows = np.arange(num_rows) if rows is None else np.array(rows)
  entities = schema.Entities(ids, columns)
  return vocabularies.training_rows(side, features, entities, rows)


def strings(*values):
  return np.array(values, object)


def sequences(*rows):
  starts = np.cumsum([0, *map(len, rows)])
  return schema.Sequences(np.array(sum(rows, []), object), starts)


def listed(found):
  return {table: values.tolist() for table, values in found.items()}


def test_a_feature_has_a_table_of_its_own():
  users = training(
      'user',
      {'region': strings('b', 'a', 'c', 'b'), 'plain': strings(*'wxyz')},
      [
          Feature('plain', 'category'),
          Feature('region', 'category', embedding=2),
          Feature('region', 'category', embedding=3, min_rows=2),
          Feature('region', 'category', embedding=3, hash_buckets=7),
          Feature('region', 'category', embedding=3, embedding_table='mine'),
      ],
      rows=[3, 0, 1],
  )
  found, notes = vocabularies.fit([users])
  assert listed(found) == {
      'user.region': ['a', 'b'],  # the row with c is cold
      'user.region 2': ['b'],
      'user.region 3': [],
      'mine': ['a', 'b'],
  }
  assert notes == []
  names = [one.name for one in users.embedded.values()]
  assert names == ['region', 'region 2', 'region 3', 'region 4']


def test_names_that_columns_have_already_are_left_alone():
  users = training(
      'user',
      {'a': strings('x'), 'a 2': strings('y')},
      [
          Feature('a', 'category', embedding=2),
          Feature('a', 'category', embedding=2),
          Feature('a 2', 'category', embedding=2),
      ],
  )
  names = [one.name for one in users.embedded.values()]
  assert names == ['a', 'a 2', 'a 2 2']


def test_both_sides_share_a_table():
  """What users viewed and the ids of the items: one numbering, one count."""
  viewed = Feature(
      'viewed', 'sequence', embedding=4, embedding_table='items', min_rows=2
  )
  own = Feature(
      'item_id', 'category', embedding=4, embedding_table='items', min_rows=2
  )
  users = training('user', {'viewed': sequences([7, 7], [9, 7], [5])}, [viewed])
  items = training(
      'item', {'x': np.zeros(4)}, [own], rows=[0, 2], ids=[5, 7, 9, 11]
  )
  found, notes = vocabularies.fit([users, items])
  # 7 is viewed in two rows; 5 and 9 are viewed once and are training items.
  assert listed(found) == {'items': ['5', '7', '9']}
  assert notes == []
  # Alone 11 is unknown, because its row is cold.
  own.min_rows = 1
  assert listed(vocabularies.fit([items])[0]) == {'items': ['5', '9']}


def test_features_that_share_a_table_but_no_value_are_told():
  feature = lambda column, kind: Feature(
      column, kind, embedding=4, embedding_table='items'
  )
  users = training(
      'user', {'viewed': sequences(['5'])}, [feature('viewed', 'sequence')]
  )
  items = training(
      'item',
      {'x': np.zeros(2)},
      [feature('item_id', 'category')],
      ids=['i5', 'i6'],
  )
  found, notes = vocabularies.fit([users, items])
  assert listed(found) == {'items': ['5', 'i5', 'i6']}
  assert notes == [
      "config.features.item[0] shares embedding table 'items' with "
      'config.features.user[0], but they have no value in common; values are '
      "such as 'i5' here and '5' there."
  ]


def test_intervals_and_crosses_have_vocabularies():
  items = training(
      'item',
      {
          'price': np.array([1, 20, 3, 99, np.nan], np.float32),
          'color': strings('red', 'red', None, 'blue', 'red'),
          'size': strings('s', 'm', 's', 's', 's'),
      },
      [
          Feature('price', 'numeric', boundaries=(2.0, 10.0), embedding=2),
          Feature('price', 'numeric', num_intervals=2, embedding=2),
          Feature('look', 'cross', columns=('color', 'size'), embedding=2),
      ],
      rows=[0, 1, 2, 4],
  )
  found, _ = vocabularies.fit([items])
  assert listed(found) == {
      'item.price': ['1', '2', '3'],
      'item.price 2': ['1', '2'],
      'item.look': ['red & m', 'red & s'],
  }


_LETTERS = st.lists(st.sampled_from('abcd'), max_size=4)


@pytest.mark.parametrize('is_tags', [False, True])
@hypothesis.given(
    rows=st.lists(_LETTERS, min_size=1, max_size=6),
    other=st.lists(st.sampled_from(['a', 'b', 'e', None]), min_size=1),
    least=st.integers(1, 3),
)
def test_rows_of_all_features_are_counted_together(is_tags, rows, other, least):
  count = collections.Counter(v for row in rows for v in set(row))
  count.update(v for v in other if v)
  expected = sorted(v for v, n in count.items() if n >= least)
  hypothesis.assume(expected)
  column = sequences(*rows)
  if is_tags:
    dense = [[row.count(v) for v in 'abcd'] for row in rows]
    matrix = scipy.sparse.csr_array(np.array(dense, np.float32))
    column = schema.Tags(matrix, np.array(list('abcd')))
  feature = lambda kind: Feature(
      'x', kind, embedding=2, embedding_table='t', min_rows=least
  )
  users = training(
      'user', {'x': column}, [feature('tags' if is_tags else 'sequence')]
  )
  items = training('item', {'x': strings(*other)}, [feature('category')])
  found, _ = vocabularies.fit([users, items])
  assert listed(found) == {'t': expected}
