# SPDX-License-Identifier: Apache-2.0
"""Content from JSON is what the same content from a file is."""

import json

import numpy as np
import pytest

from dropoutnet_jax.data import column_types
from dropoutnet_jax.data import schema
from dropoutnet_jax.serving import request_files
from dropoutnet_jax.serving.service import json_columns


def _same(a, b):
  if isinstance(a, schema.Tags):
    names = [x.names[x.matrix.indices].tolist() for x in (a, b)]
    assert names[0] == names[1]
    np.testing.assert_array_equal(a.matrix.data, b.matrix.data)
  elif isinstance(a, schema.Sequences):
    assert a.values.tolist() == b.values.tolist()
    np.testing.assert_array_equal(a.starts, b.starts)
  elif a.dtype == object:
    assert a.tolist() == b.tolist()
  else:
    np.testing.assert_array_equal(a.astype(np.float32), b.astype(np.float32))


@pytest.mark.parametrize('side', ['user', 'item'])
def test_content_is_read_as_from_json_lines(shop, tmp_path, side):
  rows = {
      'user': [
          {'user_id': 'x', 'region': 'north', 'age': 31, 'about': 'likes 1984'},
          {'user_id': 'y', 'visits': ['word1', 'word2', 'word1']},
      ],
      'item': [
          {
              'item_id': 'x',
              'tags': ['word1', 'word3', ' sea '],
              'image': [1, 2, 3.5],
          },
          {'item_id': 'y', 'tags': ['word3', 'word3'], 'image': [0, -1, 1e-3]},
      ],
  }[side]
  path = tmp_path / 'rows.jsonl'
  path.write_text('\n'.join(map(json.dumps, rows)))
  known, _ = request_files.read_rows(str(path), side, shop.model)
  types = shop.model.encoders[side].columns
  content = [
      json_columns.check(
          {k: v for k, v in row.items() if k != f'{side}_id'}, types
      )
      for row in rows
  ]
  found = json_columns.to_entities(known.ids, content, types)
  assert found.columns.keys() == known.entities.columns.keys()
  for name, column in known.entities.columns.items():
    _same(found.columns[name], column)


def _types(**kinds):
  return {n: column_types.ColumnType(*kind) for n, kind in kinds.items()}


def test_weights_of_tags_and_repeated_ones():
  types = _types(t=('tags',))
  rows = [{'t': {'a': 2, 'b': 0.5}}, {'t': ['a', 'a', 'c']}, {'t': []}, {}]
  found = json_columns.to_entities(np.arange(4), rows, types).columns['t']
  wanted = {'a': [2, 2, 0, 0], 'b': [0.5, 0, 0, 0], 'c': [0, 1, 0, 0]}
  assert found.names.tolist() == list(wanted)
  np.testing.assert_array_equal(found.matrix.toarray().T, list(wanted.values()))


def test_whole_numbers_stay_apart_and_missing_ones_are_missing():
  types = _types(n=('number',))
  read = lambda *values: json_columns.to_entities(
      np.arange(len(values)),
      [{'n': x} if x is not None else {} for x in values],
      types,
  ).columns.get('n')
  assert read(2**60, 2**60 + 1).tolist() == [2**60, 2**60 + 1]
  np.testing.assert_array_equal(
      read(1, None, 2.5), np.float32([1, np.nan, 2.5])
  )
  assert read(None, None) is None
  assert read(2**53, 30.0, None)[:2].tolist() == [2**53, 30]


def test_sequences_of_two_kinds_are_strings():
  types = _types(s=('sequences',))
  rows = [{'s': [3, 1, 3]}, {'s': ['x']}, {}]
  found = json_columns.to_entities(np.arange(3), rows, types).columns['s']
  assert found.values.tolist() == ['3', '1', '3', 'x']
  assert found.starts.tolist() == [0, 3, 4, 4]
  alone = json_columns.to_entities(np.arange(1), rows[:1], types).columns['s']
  assert alone.values.tolist() == [3, 1, 3]


def test_null_is_missing_and_nothing_is_no_column():
  types = _types(a=('strings',), b=('number',))
  assert json_columns.check({'a': None, 'b': 0}, types) == {'b': 0}
  with pytest.raises(Exception, match='there are none'):
    json_columns.check({'a': 1}, {})


def test_tags_without_names_are_refused():
  with pytest.raises(Exception, match='have no names'):
    json_columns.check({'t': ['a']}, _types(t=('numbered tags',)))


def test_the_schema_is_that_of_the_columns():
  tree = json_columns.json_schema(
      _types(a=('strings',), v=('vectors', 3), u=('numbered tags',))
  )
  assert tree['additionalProperties'] is False
  vector = tree['properties']['v']['anyOf'][0]
  assert (vector['minItems'], vector['maxItems']) == (3, 3)
  assert tree['properties']['u'] == {'anyOf': [{'type': 'null'}]}
