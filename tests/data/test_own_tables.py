# SPDX-License-Identifier: Apache-2.0
"""A user's own tables: ids, likes, impressions, columns, notes."""

import collections
import os
import pathlib

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pyarrow as pa
from pyarrow import parquet
import pytest

from dropoutnet_jax import config_data
from dropoutnet_jax.data import column_facts
from dropoutnet_jax.data import own_pairs
from dropoutnet_jax.data import own_tables
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import sources


@pytest.fixture
def load(tmp_path):
  """Writes texts as CSV and tables as Parquet, and loads them."""

  def load(settings=None, **tables):
    paths = {}
    for name, content in tables.items():
      is_text = isinstance(content, str)
      paths[name] = f'{name}.csv' if is_text else f'{name}.parquet'
      if is_text:
        (tmp_path / paths[name]).write_text(content, encoding='utf-8')
      else:
        parquet.write_table(pa.table(content), tmp_path / paths[name])
    config = config_data.TablesConfig(**paths, **(settings or {}))
    config.validate()
    return own_tables.load(config, str(tmp_path))

  return load


def _has(notes, *parts):
  return any(all(part in note for part in parts) for note in notes)


def test_pairs_alone(load):
  dataset = load(interactions='user_id,item_id\nb,7\na,10\nb,9\n')
  assert dataset.users.ids.tolist() == ['a', 'b']
  assert dataset.items.ids.tolist() == [7, 9, 10]  # numbers, not their digits
  assert dataset.items.ids.dtype == np.int64
  likes = dataset.interactions
  assert likes.user.tolist() == [0, 1, 1] and likes.item.tolist() == [2, 0, 1]
  assert likes.user.dtype == likes.item.dtype == np.int32
  for field in ('weight', 'time', 'label', 'session'):
    assert getattr(likes, field) is None
  assert dataset.impressions is None and dataset.name == 'tables'
  assert _has(dataset.notes, 'Without labels every row of', 'is a like')


def test_order_of_rows_changes_nothing_without_side_tables(load):
  one = load(interactions='user_id,item_id,time\nb,x,1\na,y,2\nb,y,3\n')
  two = load(interactions='user_id,item_id,time\nb,y,3\nb,x,1\na,y,2\n')
  for field in ('user', 'item', 'time'):
    np.testing.assert_array_equal(
        getattr(one.interactions, field), getattr(two.interactions, field)
    )
  np.testing.assert_array_equal(one.users.ids, two.users.ids)


def test_labels_and_impressions(load):
  dataset = load(
      interactions=(
          'user_id,item_id,label,weight,time,session_id\n'
          'a,1,1,2,100,s9\na,2,0,1,100,s9\na,1,0,1,50,s1\n'
          'b,1,1,0.5,10,s2\nb,1,1,1.5,30,s3\nb,1,1,1,20,s4\n'
      )
  )
  shown, likes = dataset.impressions, dataset.interactions
  assert shown.label.tolist() == [1, 0, 0, 1, 1, 1]
  assert shown.label.dtype == shown.weight.dtype == np.float32
  assert shown.weight.tolist() == [2, 1, 1, 0.5, 1.5, 1]
  assert shown.time.tolist() == [100, 100, 50, 10, 30, 20]
  assert shown.session.tolist() == [0, 0, 1, 2, 3, 4]
  assert shown.time.dtype == shown.session.dtype == np.int64
  # Sums of weights; time and session of the latest row.
  assert likes.user.tolist() == [0, 1] and likes.item.tolist() == [0, 0]
  assert likes.weight.tolist() == [2, 3] and likes.weight.dtype == np.float32
  assert likes.time.tolist() == [100, 30] and likes.session.tolist() == [0, 3]
  assert likes.label is None
  assert _has(dataset.notes, '4 of 6 rows have a label above 0')
  assert _has(dataset.notes, 'repeats 2 liked pair(s)', 'sum of its weights')
  assert dataset.items.ids.tolist() == [1, 2]
  assert _has(dataset.notes, '1 of 2 items have no like')


def test_labels_that_are_all_the_same_are_none(load):
  dataset = load(interactions='user_id,item_id,label\na,1,1\nb,2,1.0\n')
  assert dataset.impressions is None
  assert _has(dataset.notes, 'Every label is 1')


def test_graded_and_true_labels(load):
  dataset = load(interactions='user_id,item_id,label\na,1,5\nb,2,2\n')
  assert dataset.impressions.label.tolist() == [5, 2]
  assert _has(dataset.notes, 'Values of label go from 2 to 5')
  dataset = load(interactions='user_id,item_id,label\na,1,True\nb,2,false\n')
  assert dataset.impressions.label.tolist() == [1, 0]


def test_side_tables(load):
  dataset = load(
      interactions='user_id,item_id\nu1,3\nu2,9\nu9,3\nu2,8\n',
      users='user_id,age\nu2,30\nu5,\nu1,20\n',
      items='color,item_id\nred,9\nblue,3\n',
  )
  assert dataset.users.ids.tolist() == ['u2', 'u5', 'u1', 'u9']
  assert dataset.items.ids.tolist() == [9, 3, 8]
  np.testing.assert_array_equal(
      dataset.users.columns['age'], np.float32([30, np.nan, 20, np.nan])
  )
  assert dataset.items.columns['color'].tolist() == ['red', 'blue', None]
  assert dataset.interactions.user.tolist() == [0, 0, 2, 3]
  assert dataset.interactions.item.tolist() == [0, 2, 1, 1]
  assert _has(dataset.notes, '1 user(s) of', 'are not in', 'such as u9')
  assert _has(dataset.notes, '1 item(s) of', 'no content', 'such as 8')
  assert _has(dataset.notes, '1 of 4 users have no like')


@pytest.mark.parametrize(
    'pairs, items, expected',
    [
        # Digits of delimited files are what the other table says.
        ('user_id,item_id\na,1\n', {'item_id': ['1', 'x2']}, ['1', 'x2']),
        ('user_id,item_id\na,1\n', {'item_id': [1, 2]}, [1, 2]),
        ('user_id,item_id\na,1\n', 'item_id\nx\n1\n', ['x', '1']),
        ({'user_id': ['a'], 'item_id': [1]}, 'item_id\n2\n1\n', [2, 1]),
        # A second way to write a number makes all of them strings.
        ('user_id,item_id\na,01\n', 'item_id\n1\n01\n', ['1', '01']),
        (
            {'user_id': ['a'], 'item_id': pa.array([5], pa.uint16())},
            {'item_id': pa.array([5, 6], pa.int32())},
            [5, 6],
        ),
    ],
)
def test_types_of_ids(load, pairs, items, expected):
  dataset = load(interactions=pairs, items=items)
  assert dataset.items.ids.tolist() == expected
  assert dataset.items.ids.dtype.kind in 'iU'


@pytest.mark.parametrize(
    'kind', [pa.large_string(), pa.dictionary(pa.int8(), pa.string())]
)
def test_string_types_of_ids(load, kind):
  ids = pa.array(['b', 'a', 'b']).cast(kind)
  dataset = load(interactions={'user_id': ids, 'item_id': [1, 1, 2]})
  assert dataset.users.ids.tolist() == ['a', 'b']
  assert dataset.interactions.user.tolist() == [0, 1, 1]


def test_unused_categories_are_no_entities(load):
  ids = pa.DictionaryArray.from_arrays([2, 0], ['b', 'x', 'a'])
  dataset = load(interactions={'user_id': ids, 'item_id': [1, 2]})
  assert dataset.users.ids.tolist() == ['a', 'b']


def test_labels_that_disagree_are_told(load):
  dataset = load(
      interactions='user_id,item_id,label\na,1,1\na,1,0\nb,1,0\nb,2,2\nb,2,1\n'
  )
  assert _has(dataset.notes, '1 pair(s) have rows with and rows without')
  assert len(dataset.interactions) == 2


def test_files_that_changed_later_are_named(load, tmp_path):
  load(interactions='user_id,item_id\na,1\n', items='item_id\n1\n')
  settings = config_data.TablesConfig(
      interactions='interactions.csv', items='items.csv', users='gone.csv'
  )
  os.utime(tmp_path / 'items.csv', (1000, 1000))
  os.utime(tmp_path / 'interactions.csv', (3000, 3000))
  changed = own_tables.changed_since(settings, str(tmp_path), 2000)
  assert [pathlib.Path(name).name for name in changed] == ['interactions.csv']
  assert own_tables.changed_since(settings, str(tmp_path), 4000) == []
  settings.interactions = 'memory://bucket/interactions.csv'
  assert own_tables.changed_since(settings, None, 0) == []


def test_samples(load):
  dataset = load(
      {'user_columns': ('age',), 'item_columns': ('color', 'price')},
      samples=(
          'user_id,item_id,label,time,age,color,price,more\n'
          'b,1,1,20,31,red,1.5,x\nb,2,0,10,30,blue,2.5,x\n'
          'a,1,1,5,40,green,1.0,x\n'
      ),
  )
  assert dataset.users.ids.tolist() == ['a', 'b']
  assert dataset.users.columns['age'].tolist() == [40, 31]
  assert dataset.items.columns['color'].tolist() == ['red', 'blue']
  np.testing.assert_allclose(dataset.items.columns['price'], [1.5, 2.5])
  assert dataset.impressions.label.tolist() == [1, 0, 1]
  assert _has(dataset.notes, 'age of one user differ', 'the latest one counts')
  users, items = dataset.samples.describe(np.array([False, True, False]))
  assert users.columns['age'].tolist() == [40, 30]
  assert items.columns['color'].tolist() == ['red', 'blue']
  assert _has(dataset.notes, 'color, price of one item differ')
  assert _has(dataset.notes, 'that nothing reads: more.')


def test_samples_without_times_take_the_last_row(load):
  dataset = load(
      {'user_columns': ('age',)},
      samples='user_id,item_id,age\na,1,1\na,2,2\n',
  )
  assert dataset.users.columns['age'].tolist() == [2]
  assert _has(dataset.notes, '(without times the last)')


@pytest.mark.parametrize(
    'times, expected',
    [
        (['1000', '2000'], [1000, 2000]),
        (['1000.9', '2000.1'], [1000, 2000]),
        (['1700000000000', '99999999999'], [1700000000, 99999999]),
        (['1700000000000000'] * 2, [1700000000] * 2),
        (['1700000000000000001'] * 2, [1700000000] * 2),
        (['1970-01-01', '1970-01-02'], [0, 86400]),
        (['1970-01-01 00:01:00', '1970-01-01T00:00:05.5'], [60, 5]),
        (['1970-01-01T01:00:00+01:00', '1970-01-01T00:00:09Z'], [0, 9]),
    ],
)
def test_times(load, times, expected):
  rows = ''.join(f'a,{n},{time}\n' for n, time in enumerate(times))
  dataset = load(interactions=f'user_id,item_id,time\n{rows}')
  assert dataset.interactions.time.tolist() == expected
  assert _has(dataset.notes, 'was divided by') == (
      len(times[0]) in (13, 16, 19) and times[0].isdigit()
  )


@pytest.mark.parametrize(
    'kind', [pa.timestamp('ns'), pa.timestamp('ms', 'Asia/Tokyo'), pa.int64()]
)
def test_times_of_types(load, kind):
  seconds = pa.array([1_700_000_000, 86_400])
  if kind != pa.int64():
    zone = getattr(kind, 'tz', None)
    seconds = seconds.cast(pa.timestamp('s', zone)).cast(kind)
  table = {'user_id': ['a', 'b'], 'item_id': [1, 2], 'time': seconds}
  assert load(interactions=table).interactions.time.tolist() == [
      1_700_000_000,
      86_400,
  ]


def test_optional_columns_can_be_left_alone(load):
  table = 'user_id,item_id,label,weight\na,1,x,y\n'
  dataset = load({'label': '', 'weight': ''}, interactions=table)
  assert len(dataset.interactions) == 1
  assert _has(dataset.notes, 'that nothing reads: label, weight.')


def test_other_names(load):
  dataset = load(
      {'user_id': 'who', 'item_id': 'what', 'label': 'clicked'},
      interactions='what,who,clicked\n1,a,1\n2,a,0\n',
      users='who,age\na,3\n',
  )
  assert dataset.impressions.label.tolist() == [1, 0]
  assert dataset.users.columns['age'].tolist() == [3]


def test_headers_in_the_configuration(load):
  dataset = load(
      {
          'header': ('user_id', 'item_id', 'label'),
          'users_header': ('user_id', 'age'),
      },
      interactions='1,5,1\n2,5,0\n',
      users='2,30\n1,20\n',
  )
  assert dataset.users.ids.tolist() == [2, 1]
  assert dataset.impressions.user.tolist() == [1, 0]


def test_through_the_front_door(tmp_path, monkeypatch):
  (tmp_path / 'x.csv').write_text('user_id,item_id\na,1\n', encoding='utf-8')
  settings = config_data.DataConfig(
      name='tables', tables=config_data.TablesConfig(interactions='x.csv')
  )
  settings.validate()
  assert len(sources.load(settings, str(tmp_path)).interactions) == 1
  monkeypatch.chdir(tmp_path)
  assert len(sources.load(settings, None).interactions) == 1


_ROWS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 3),
        st.sampled_from([0.0, 1.0, 2.5]),
        st.integers(0, 5),
        st.integers(0, 4),
    ),
    min_size=1,
    max_size=25,
)


@hypothesis.given(rows=_ROWS, has_time=st.booleans(), has_label=st.booleans())
def test_merging_is_a_dictionary(rows, has_time, has_label):
  if has_label:
    hypothesis.assume(any(row[2] > 0 for row in rows))
  user, item, label, weight, time = (np.array(part) for part in zip(*rows))
  table = schema.Interactions(
      user.astype(np.int32),
      item.astype(np.int32),
      weight.astype(np.float32),
      time.astype(np.int64) if has_time else None,
      label.astype(np.float32) if has_label else None,
      np.arange(len(rows)),
  )
  found, notes = own_pairs.merge_likes(table, 4, 'x.csv')
  groups = collections.defaultdict(list)
  for number, (u, i, liked, w, t) in enumerate(rows):
    if liked or not has_label:
      groups[u, i].append((t if has_time else 0, number, w))
  assert list(zip(found.user.tolist(), found.item.tolist())) == sorted(groups)
  for row, pair in enumerate(sorted(groups)):
    assert found.weight[row] == sum(w for _, _, w in groups[pair])
    last_time, last_row, _ = max(groups[pair])
    assert found.session[row] == last_row
    if has_time:
      assert found.time[row] == last_time
  repeats = sum(map(len, groups.values())) - len(groups)
  assert bool(notes) == bool(repeats)
  assert found.label is None


def test_selecting_keeps_labels_and_sessions():
  rows = schema.Interactions(
      np.int32([0, 1]),
      np.int32([1, 0]),
      label=np.float32([0, 1]),
      session=np.int64([5, 6]),
  )
  picked = rows.select(np.array([False, True]))
  assert picked.label.tolist() == [1] and picked.session.tolist() == [6]
  assert picked.weight is None and picked.time is None


def test_sequences(load):
  """However they are written; order and repeats count, a gap is empty."""
  dataset = load(
      {'sequence_columns': ('seen', 'read')},
      interactions='user_id,item_id\nu1,1\nu9,2\n',
      users='user_id,seen\nu1,7|3| 7 ||x\nu2,\n',
      items={'item_id': [1, 2, 3], 'read': [[9, None, 2, 9], None, []]},
  )
  seen = dataset.users.columns['seen']
  assert seen.values.tolist() == ['7', '3', '7', 'x']
  assert seen.starts.tolist() == [0, 4, 4, 4]  # u9 is no row of the table
  read = dataset.items.columns['read']
  assert read.values.tolist() == [9, 2, 9] and read.values.dtype == np.int64
  assert read.starts.tolist() == [0, 3, 3, 3] and read.starts.dtype == np.int64
  facts = column_facts.describe_schema(dataset)
  assert [fact.sentence() for fact in facts if fact.kind == 'sequences'] == [
      'sequences, 66.7 % missing, 3 distinct, such as 7, 3, x',
      'sequences, 66.7 % missing, 2 distinct, such as 9, 2',
  ]


def test_sequences_of_samples_are_those_of_the_latest(load):
  dataset = load(
      {
          'user_columns': ('seen',),
          'sequence_columns': ('seen',),
          'list_separator': ' ',
      },
      samples='user_id,item_id,time,seen\na,1,5,x y\na,2,9,x y z\nb,1,1,\n',
  )
  seen = dataset.users.columns['seen']
  assert seen.values.tolist() == ['x', 'y', 'z']
  assert seen.starts.tolist() == [0, 3, 3]
  assert _has(dataset.notes, 'seen of one user differ between samples')
  assert dataset.users.id_name == 'user_id'


def test_describe_schema(load):
  dataset = load(
      {'tag_columns': ('genres',), 'vector_columns': ('place',)},
      interactions='user_id,item_id,label,time\nu1,1,1,9\nu2,2,0,9\n',
      users='user_id,age,score\nu1,30,0.25\nu2,,1.5\nu3,30,1.5\n',
      items=(
          'item_id,genres,place,title\n1,a|b,1|2,red\n2,,,\n3,b,1|2,'
          + 'x' * 99
          + '\n'
      ),
  )
  facts = column_facts.describe_schema(dataset)
  assert [(fact.side, fact.name) for fact in facts] == [
      ('interactions', 'label'),
      ('interactions', 'time'),
      ('users', 'id'),
      ('users', 'age'),
      ('users', 'score'),
      ('items', 'id'),
      ('items', 'genres'),
      ('items', 'place'),
      ('items', 'title'),
  ]
  assert [fact.sentence() for fact in facts] == [
      'whole numbers, 2 distinct, such as 0, 1',
      'whole numbers, 1 distinct, such as 9',
      'strings, 3 distinct, such as u1, u2, u3',
      'whole numbers, 33.3 % missing, 1 distinct, such as 30',
      'numbers, 2 distinct, such as 1.5, 0.25',
      'whole numbers, 3 distinct, such as 1, 2, 3',
      'tags, 33.3 % missing, 2 distinct, such as b, a',
      'vectors of 2, 33.3 % missing, 1 distinct',
      f'strings, 33.3 % missing, 2 distinct, such as red, {"x" * 30}…',
  ]
