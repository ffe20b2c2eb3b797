# SPDX-License-Identifier: Apache-2.0
"""Files of somebody who asks: ids looked up, columns read as in training."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
from pyarrow import parquet
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.data import column_types
from dropoutnet_jax.serving import request_files
from dropoutnet_jax.serving import row_sources
from dropoutnet_jax.serving import rows as rows_lib
from dropoutnet_jax.serving import told_files

_USERS = ('user_id', 'region', 'age', 'about', 'visits')
_ITEMS = ('item_id', 'tags', 'image')


def _content(shop, side, rows):
  """What the encoder of the run makes of new rows."""
  encoder = shop.model.encoders[side]
  filled = column_types.fill(rows.entities, encoder.columns)
  return encoder.transform(filled)


def test_known_ids_are_looked_up_and_new_ones_are_not(shop, csv_file):
  path = csv_file(
      'a.csv', _USERS, ('new', 'north', 30, '', ''), ('u3', '', '', '', '')
  )
  rows, notes = request_files.read_rows(path, 'user', shop.model)
  assert rows.ids.tolist() == ['new', 'u3']
  assert rows.row.tolist() == [-1, 3]
  assert rows.is_new().tolist() == [True, False]
  assert rows.history is None
  assert len(notes) == 2 and notes[0].endswith(
      'a.csv: 2 user(s), 1 of them new to the run.'
  )


def test_columns_of_known_users_are_not_even_read(shop, csv_file):
  path = csv_file('a.csv', ('user_id', 'age'), ('u1', 'old'))
  rows, notes = request_files.read_rows(path, 'user', shop.model)
  assert rows.row.tolist() == [1] and rows.entities is None
  assert len(notes) == 2
  assert notes[1].endswith(
      'a.csv: age of users of the run are not read again; these keep what they '
      'had in training.'
  )


@pytest.mark.parametrize('side, table', [('user', 'users'), ('item', 'items')])
def test_a_single_row_is_encoded_as_among_all(shop, csv_file, side, table):
  """'1984' is a word, because the column held words; so is every gap one."""
  header, *rows = shop.rows(f'{table}.csv')
  expected = getattr(shop.model.problem, side)
  for number in (0, 1, 2, 5):
    path = csv_file(f'{number}.csv', header, ('new', *rows[number][1:]))
    found, notes = request_files.read_rows(path, side, shop.model)
    assert len(notes) == 2  # how many, and that no id is known
    content = _content(shop, side, found)
    np.testing.assert_array_equal(content.dense, expected.dense[[number]])
    np.testing.assert_array_equal(
        content.sparse.toarray(), expected.sparse[[number]].toarray()
    )
    tokens = content.tokens
    np.testing.assert_array_equal(tokens.id, expected.tokens.id[[number]])
    np.testing.assert_array_equal(
        tokens.weight, expected.tokens.weight[[number]]
    )


def test_formats_agree(shop, tmp_path):
  """CSV, JSON lines and Parquet, whose types are strings, lists and numbers."""
  rows = [
      {
          'item_id': f'x{n}',
          'tags': ['word1', f'word{n}'],
          'image': [0.5, -1.0, float(n)],
      }
      for n in range(3)
  ]
  lines = '\n'.join(json.dumps(row) for row in rows)
  (tmp_path / 'a.jsonl').write_text(lines)
  parquet.write_table(pa.Table.from_pylist(rows), tmp_path / 'a.parquet')
  joined = [
      '\t'.join(
          [row['item_id'], *('|'.join(map(str, row[n])) for n in _ITEMS[1:])]
      )
      for row in rows
  ]
  (tmp_path / 'a.tsv').write_text('\n'.join(['\t'.join(_ITEMS), *joined]))
  found = [
      request_files.read_rows(str(tmp_path / f'a.{end}'), 'item', shop.model)[0]
      for end in ('jsonl', 'parquet', 'tsv')
  ]
  contents = [_content(shop, 'item', rows) for rows in found]
  assert contents[0].dense.any() and contents[0].sparse.nnz == 5
  for rows, content in zip(found[1:], contents[1:]):
    np.testing.assert_array_equal(rows.ids, found[0].ids)
    np.testing.assert_array_equal(content.dense, contents[0].dense)


def test_missing_columns_count_as_missing(shop, csv_file):
  """Noted once each, with a name that may be meant; a gap is no note."""
  path = csv_file('a.csv', ('user_id', 'Region', 'age'), ('new', 'north', ''))
  rows, notes = request_files.read_rows(path, 'user', shop.model)
  assert [note.split('a.csv ')[-1] for note in notes[2:]] == [
      "has no column 'region', which features read: it counts as missing. Did "
      "you mean 'Region'?",
      "has no column 'about', which features read: it counts as missing.",
      "has no column 'visits', which features read: it counts as missing.",
  ]
  assert not _content(shop, 'user', rows).dense.any()
  path = csv_file('b.csv', _USERS, ('new', '', '', '', ''))
  rows, notes = request_files.read_rows(path, 'user', shop.model)
  assert len(notes) == 2
  assert not _content(shop, 'user', rows).dense.any()
  path = csv_file('c.csv', ('item_id', 'image'), ('new', ''))
  rows, _ = request_files.read_rows(path, 'item', shop.model)
  assert _content(shop, 'item', rows).dense.shape[0] == 1


def _with_ids(shop, side, ids):
  """The run with other ids of a side."""
  problem = shop.model.problem
  own = getattr(problem, side)
  ids = (
      np.concatenate([ids, own.ids[len(ids) :]])
      if ids.dtype != int
      else (np.concatenate([ids, 1000 + np.arange(len(own.ids) - len(ids))]))
  )
  side_of = {side: dataclasses.replace(own, ids=ids)}
  changed = dataclasses.replace(problem, **side_of)
  return dataclasses.replace(shop.model, problem=changed)


def test_ids_of_several_types(shop, csv_file, tmp_path):
  """Digits of CSV are numbers to a run with numbers, else strings."""
  model = _with_ids(shop, 'user', np.array([70, 7]))
  path = csv_file('a.csv', ('user_id',), ('7',), ('12',))
  rows, _ = request_files.read_rows(path, 'user', model)
  assert rows.ids.dtype == np.int64 and rows.ids.tolist() == [7, 12]
  assert rows.row.tolist() == [1, -1]
  path = csv_file('b.csv', ('user_id',), ('7',), ('x',))
  rows, _ = request_files.read_rows(path, 'user', model)
  assert rows.ids.tolist() == ['7', 'x'] and rows.row.tolist() == [1, -1]
  model = _with_ids(shop, 'user', np.array(['70', '7']))
  numbers = str(tmp_path / 'a.parquet')
  parquet.write_table(pa.table({'user_id': [12, 70]}), numbers)
  rows, _ = request_files.read_rows(numbers, 'user', model)
  assert rows.ids.tolist() == ['12', '70'] and rows.row.tolist() == [-1, 0]


def test_ids_keep_their_type_from_block_to_block(shop, csv_file, monkeypatch):
  monkeypatch.setattr(row_sources, 'BLOCK', 2)
  model = _with_ids(shop, 'user', np.array([70, 7]))
  rows = [('user_id',), ('7',), ('x',), ('12',)]
  source = row_sources.of(csv_file('a.csv', *rows), 'user', model)
  assert [part.ids.tolist() for part in source.read()] == [['7', 'x'], ['12']]
  rows = [('user_id',), ('7',), ('12',), ('x',)]
  source = row_sources.of(csv_file('b.csv', *rows), 'user', model)
  with pytest.raises(
      errors.UserError, match='row 3 and after: user_id holds st'
  ):
    list(source.read())


def test_tags_without_names_are_left_out(shop, csv_file):
  encoder = shop.model.encoders['item']
  types = {**encoder.columns, 'tags': column_types.ColumnType('numbered tags')}
  encoders = {'item': dataclasses.replace(encoder, columns=types)}
  model = dataclasses.replace(shop.model, encoders=encoders)
  path = csv_file('a.csv', _ITEMS, ('new', 'word1', '1|2|3'))
  rows, notes = request_files.read_rows(path, 'item', model)
  assert list(rows.entities.columns) == ['image']
  assert "'tags' is left out; the tags of the run have no names" in notes[-1]


# Who met what.


def _ask(shop, ids=('u0', 'new', 'u5')):
  """Some users, and half of the items with one that is new."""
  known = {f'u{n}': n for n in range(36)}
  row = np.array([known.get(one, -1) for one in ids])
  users = rows_lib.Rows(np.array(ids), row)
  items = rows_lib.Rows(
      np.array(['i1', 'fresh', 'i0', 'i9']), np.array([1, -1, 0, 9])
  )
  return users, items


def _read_history(path, model, users, items):
  """Users with histories, what they met of the items [N, J], and notes."""
  told = told_files.Told(path, 'user', model, items.ids)
  rows, met = told.add(users)
  return rows, met, told.check()


def test_histories_and_what_is_met(shop, csv_file):
  users, items = _ask(shop)
  path = csv_file(
      'h.csv',
      ('item_id', 'user_id', 'label'),
      ('i9', 'new', 1),
      ('i9', 'new', 1),
      ('i2', 'new', 0.5),
      ('i0', 'new', 0),
      ('fresh', 'u5', 2),
      ('i1', 'u0', 1),
      ('i1', 'x7', 1),
      ('i77', 'u0', 1),
      ('i78', 'u0', 1),
  )
  told, met, notes = _read_history(path, shop.model, users, items)
  assert told.ids is users.ids and told.row is users.row
  history = np.zeros((3, 30))
  history[1, [9, 2]] = history[0, 1] = 1
  np.testing.assert_array_equal(told.history.toarray(), history)
  np.testing.assert_array_equal(
      met.toarray(), [[1, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0]]
  )
  assert [note.split('h.csv: ')[1] for note in notes] == [
      '1 row(s) are left out, whose user_id (1 of them, such as x7) is not '
      'among the users that are asked about.',
      '2 row(s) are left out, whose item_id (2 of them, such as i77, i78) is '
      'not among the items of the run.',
      'the histories of 1 of 2 user(s) have no item with training pairs, so '
      'nothing is learnt from them.',
  ]


def test_what_was_shown_alone_is_met_and_no_history(shop, csv_file):
  users, items = _ask(shop)
  path = csv_file(
      'h.csv',
      ('user_id', 'item_id', 'label'),
      ('new', 'i0', 0),
      ('u5', 'i9', 0),
  )
  told, met, notes = _read_history(path, shop.model, users, items)
  assert told.history.nnz == 0 and notes == []
  np.testing.assert_array_equal(
      met.toarray(), [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
  )


def test_histories_that_say_nothing_are_counted(shop, csv_file):
  trained = shop.model.is_trained(shop.model.items())
  cold = f'i{int(np.flatnonzero(~trained)[0])}'
  warm = f'i{int(np.flatnonzero(trained)[0])}'
  path = csv_file(
      'h.csv', ('user_id', 'item_id'), ('new', cold), ('u5', cold), ('u5', warm)
  )
  _, _, notes = _read_history(path, shop.model, *_ask(shop))
  assert len(notes) == 1 and notes[0].endswith(
      'h.csv: the histories of 1 of 2 user(s) have no item with training '
      'pairs, so nothing is learnt from them.'
  )


# Mistakes: the file, the side or 'pairs', and what must be said.
_PAIRS = ('user_id', 'item_id')
MISTAKES = {
    'no file': (None, 'user', "--users is '.*', where there is no file. Corre"),
    'an empty file': ([], 'user', 'no rows; the file is empty'),
    'only a header': (
        [_USERS],
        'user',
        'only a header. Name a table .* in --u',
    ),
    'no ids': (
        [('UserId', 'age'), ('u1', 3)],
        'user',
        "no column 'user_id', which config.data.tables.user_id names. Did you "
        "mean 'UserId'",
    ),
    'a missing id': (
        [_USERS, ('u1', '', '', '', ''), ('', '', '', '', '')],
        'user',
        'row 2: user_id is missing, as in 1 of 2 rows',
    ),
    'ids twice': (
        [('item_id',), ('i1',), ('i1',), ('x',), ('x',), ('y',)],
        'item',
        r"2 item_id occur more than once, such as 'i1' \(.*row 1 and .*row 2\)",
    ),
    'no number': (
        [_USERS, ('x', '', 31, '', ''), ('y', '', 'old', '', '')],
        'user',
        "row 2: age: 'old' is not a number. Correct it, or leave it empty",
    ),
    'a short vector': (
        [_ITEMS, ('x', '', '1|2|3'), ('y', '', '1|2')],
        'item',
        'row 2: image: a vector of 2 numbers where 3 were expected',
    ),
    'no pairs of the users': (
        [_PAIRS, ('x8', 'i1'), ('x9', 'i1')],
        'pairs',
        r'no user_id \(2 of them, such as x8, x9\) is among the users that',
    ),
    'no pairs of the items': (
        [_PAIRS, ('u0', 'j1'), ('u0', 'j2'), ('u0', 'j1')],
        'pairs',
        r'no item_id \(2 of them, such as j1, j2\) is among the items of the r',
    ),
    'pairs without items': (
        [('user_id', 'item'), ('u0', 'i1')],
        'pairs',
        "no column 'item_id', which config.data.tables.item_id names",
    ),
    'a broken label': (
        [(*_PAIRS, 'label'), ('u0', 'i1', 1), ('u0', 'i2', -1)],
        'pairs',
        'row 2: label is -1; 1 of 2 rows have no number from 0 upwards',
    ),
}


@pytest.mark.parametrize('name', MISTAKES)
def test_mistakes(shop, tmp_path, csv_file, name):
  rows, what, message = MISTAKES[name]
  path = str(tmp_path / 'a.csv')
  if rows:
    path = csv_file('a.csv', *rows)
  elif rows is not None:
    (tmp_path / 'a.csv').write_text('')
  with pytest.raises(errors.UserError, match=message):
    if what == 'pairs':
      _read_history(path, shop.model, *_ask(shop))
    else:
      request_files.read_rows(path, what, shop.model)
