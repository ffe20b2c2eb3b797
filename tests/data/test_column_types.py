# SPDX-License-Identifier: Apache-2.0
"""What columns held is kept, and gaps are filled with gaps of that type."""

import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax.data import column_types
from dropoutnet_jax.data import schema

_NAMES = np.array(['a', 'b'])
_MATRIX = scipy.sparse.csr_array(np.eye(3, 2, dtype=np.float32))
COLUMNS = {
    'tags': schema.Tags(_MATRIX, _NAMES),
    'numbered tags': schema.Tags(_MATRIX),
    'sequences': schema.Sequences(np.array([4, 5]), np.array([0, 2, 2, 2])),
    'strings': np.array(['x', None, 'y'], object),
    'number': np.array([1, 2, 3]),
    'vectors': np.ones((3, 4), np.float32),
}


@pytest.mark.parametrize('kind', COLUMNS)
def test_types_and_columns_that_are_missing(kind):
  found = column_types.of_column(COLUMNS[kind])
  assert (found.kind, found.width) == (kind, 4 if kind == 'vectors' else 1)
  column = found.missing(2)
  if 'tags' in kind:
    assert column.matrix.shape == (2, 0)
    return
  if kind == 'sequences':
    assert column.starts.tolist() == [0, 0, 0] and not len(column.values)
    return
  assert column.shape == (2, 4) if kind == 'vectors' else (2,)
  assert all(value is None or value != value for value in column.ravel())
  # A gap is of the same type, but for tags, whose names nobody gave.
  assert column_types.of_column(column) == found


def test_columns_that_features_read():
  feature = config.Feature
  names = ('color', 'shop', 'brand', 'price', 'pages', 'weights', 'other')
  columns = {name: np.arange(3) for name in names}
  features = [
      feature(column='mix', kind='cross', columns=('color', 'shop')),
      feature(column='weights', kind='lookup', key='brand'),
      feature(column='v', kind='expression', expression='log1p(price)/pages2'),
      feature(column='color', kind='category'),
      feature(column='absent', kind='numeric'),
  ]
  entities = schema.Entities(np.arange(3), columns)
  found = column_types.of_features(features, entities)
  assert list(found) == ['color', 'shop', 'weights', 'brand', 'price']


def test_gaps_are_filled_and_the_rest_is_left():
  types = {kind: column_types.of_column(c) for kind, c in COLUMNS.items()}
  given = {'number': np.array([5, 6]), 'more': np.array([1, 1])}
  filled = column_types.fill(schema.Entities(np.arange(2), given), types)
  assert set(filled.columns) == {*types, 'more'}
  assert filled.columns['number'] is given['number']
  again = column_types.select(filled, np.array([1]))
  assert again.ids.tolist() == [1] and again.columns['number'].tolist() == [6]
  assert again.columns['tags'].matrix.shape == (1, 0)
  assert len(again.columns['sequences']) == 1
