# SPDX-License-Identifier: Apache-2.0
"""Tables of programs: every kind gives the same Arrow table, or one message."""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.serving import given_tables

_REQUIRED = {'user_id': 'config.data.tables.user_id'}
_TABLE = pa.table(
    {'user_id': ['a', 'b'], 'age': [3.0, None], 'tags': [['x', 'y'], []]}
)


class Stream:
  """What libraries of tables show to others: the PyCapsule interface alone."""

  def __init__(self, data):
    self._data = data

  def __arrow_c_stream__(self, requested_schema=None):
    return self._data.__arrow_c_stream__(requested_schema)


class OldFrame:
  """What pandas has had before that interface."""

  columns = ('user_id', 'age', 'tags')

  def __iter__(self):
    return iter(self.columns)

  def to_dict(self, orient):
    assert orient == 'list'
    values = [['a', 'b'], [3.0, float('nan')], [('x', 'y'), ()]]
    return dict(zip(self.columns, values))


def _columns():
  return {
      'user_id': np.array(['a', 'b']),
      'age': np.array([3.0, np.nan]),
      'tags': [{'y', 'x'}, set()],
  }


def _read(given: Any, required=_REQUIRED):
  return given_tables.read(given, 'users', required)


@pytest.mark.parametrize(
    'given',
    [
        _TABLE,
        _TABLE.to_batches()[0],
        Stream(_TABLE),
        OldFrame(),
        _columns(),
        _TABLE.to_pylist(),
        [
            {'user_id': 'a', 'tags': ['x', 'y'], 'age': 3},
            {'user_id': 'b', 'tags': []},
        ],
    ],
    ids=lambda given: type(given).__name__,
)
def test_kinds_of_tables(given):
  table = _read(given)
  data = table.data.select(_TABLE.column_names)
  assert data.cast(_TABLE.schema).equals(_TABLE)
  assert (table.name(), table.place(1)) == ('users', 'users, row 2')
  assert not table.is_text and len(table) == 2


@pytest.mark.parametrize(
    'ids',
    [
        [7, 8],
        (7, 8),
        np.array([7, 8]),
        pa.array([7, 8]),
        pa.chunked_array([[7], [8]]),
        Stream(pa.chunked_array([[7], [8]])),
        range(7, 9),
        iter([7, 8]),
        {7: None, 8: None}.keys(),
    ],
    ids=lambda given: type(given).__name__,
)
def test_ids_alone(ids):
  assert _read(ids).data.to_pydict() == {'user_id': [7, 8]}


def test_views_become_strings():
  """As Polars has them, also in lists, objects and categories."""
  view = pa.string_view()
  data = pa.table(
      {
          'user_id': pa.array(['a', 'b'], view),
          'tags': pa.array([['x'], None], pa.large_list(view)),
          'more': pa.array([{'y': 'z'}, None], pa.struct([('y', view)])),
          'kind': pa.DictionaryArray.from_arrays([0, 0], pa.array(['k'], view)),
      }
  )
  found = _read(Stream(data)).data
  assert found.to_pylist() == data.to_pylist()
  assert 'string_view' not in str(found.schema)


def test_vectors_weights_and_nothing():
  table = _read(
      {
          'user_id': [1, 2],
          'image': np.eye(2, dtype=np.float32),
          'weights': [{'a': 2}, {'b': 0.5}],
      }
  )
  assert table.data.column('image').to_pylist() == [[1, 0], [0, 1]]
  weights = table.data.column('weights').to_pylist()
  assert weights == [{'a': 2, 'b': None}, {'a': None, 'b': 0.5}]
  assert not len(_read([])) and not len(_read({'user_id': []}))


class Case(NamedTuple):
  """A mistake, and what must be said of it."""

  given: Any
  message: str


CASES = {
    'a single id': Case(
        'u1', "users: 'u1' is no table; give a table of Arrow, pandas or Pol"
    ),
    'a number': Case(7, 'users: 7 is no table; give a table of Arrow'),
    'a row': Case(
        {'user_id': 'a', 'age': 3},
        "users: 'user_id' is 'a' and no list of values. Of a single row give a "
        'list of one dict.',
    ),
    'no ids': Case(
        {'user': ['a']},
        "users: there is no column 'user_id', which config.data.tables.user_id "
        "names. Did you mean 'user'? Columns are: user.",
    ),
    'two kinds of ids': Case(
        [1, 'a'], "users: values of 'user_id' do not go together: "
    ),
    'lengths': Case(
        {'user_id': [1, 2], 'age': [1]},
        'users: it cannot be read as a table: Column 1 named age expected len',
    ),
    'huge': Case([1 << 70], "users: values of 'user_id' do not go together"),
    'twice': Case(
        pa.table([[1], [2]], names=['user_id', 'user_id']),
        "users: 2 columns are called 'user_id'; rename all but one.",
    ),
    'no column': Case(Stream(pa.table({})), "users: there is no column 'user_"),
}


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_mistakes(case):
  with pytest.raises(errors.UserError) as error:
    _read(case.given)
  assert case.message in str(error.value)


def test_histories():
  read = lambda history: given_tables.pairs(
      history, 'history', 'user_id', 'item_id'
  )
  table = read({'a': ['x', 'y'], 'b': (), 'c': np.array(['x'])})
  assert table.to_pydict() == {
      'user_id': ['a', 'a', 'c'],
      'item_id': ['x', 'y', 'x'],
  }
  with pytest.raises(errors.UserError, match="'xy' of 'a' is no list of item"):
    read({'a': 'xy'})
  assert given_tables.as_rows('u1') == ['u1']
  assert given_tables.as_rows({'user_id': 1}) == [{'user_id': 1}]
  assert given_tables.as_rows(_TABLE) is _TABLE
