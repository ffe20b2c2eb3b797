# SPDX-License-Identifier: Apache-2.0
"""The state file: what it keeps, and whom it refuses."""

import contextlib
import pathlib
import sqlite3

import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.serving.service import state_file

PAIR = state_file.Interaction


@pytest.fixture(name='path')
def fixture_path(tmp_path):
  return str(tmp_path / 'state.sqlite')


def test_items_and_interactions_come_back(path):
  state = state_file.StateFile(path, 'run')
  state.put_items({'a': {'tags': ['é', 'x'], 'year': 1.5}, 7: {}, 'gone': {}})
  state.put_items({'a': {'year': 2}})
  state.delete_items(['gone', 'never'])
  pairs = [PAIR('u', 'a', 1.0, 5.0), PAIR(3, 7, 0.0, 4.0)]
  state.put_interactions(pairs)
  state.put_interactions([PAIR('u', 'a', 0.5, 6.0)])
  state.close()
  state = state_file.StateFile(path, 'run')
  assert dict(state.items()) == {
      'a': {'year': 2},
      7: {},
      'gone': None,
      'never': None,
  }
  assert list(state.interactions()) == [
      PAIR(3, 7, 0.0, 4.0),
      PAIR('u', 'a', 0.5, 6.0),
  ]
  state.close()


def test_whole_numbers_and_strings_are_two_ids(path):
  state = state_file.StateFile(path, 'run')
  state.put_items({7: {'n': 1}, '7': {'n': 2}, 2**63 - 1: {}})
  assert dict(state.items())[7] == {'n': 1}
  assert len(dict(state.items())) == 3
  state.close()


def test_one_row_that_fails_takes_its_call_back(path):
  state = state_file.StateFile(path, 'run')
  state.put_items({'kept': {}})
  with pytest.raises(OSError, match='state.sqlite cannot be written'):
    state.put_interactions(
        [PAIR('u', 'a', 1.0, 1.0), PAIR('u', 'b', None, 1.0)]
    )
  assert not list(state.interactions())
  state.put_interactions([PAIR('u', 'a', 1.0, 1.0)])
  assert len(list(state.interactions())) == 1
  state.close()


def test_writes_are_flushed(path):
  state = state_file.StateFile(path, 'run')
  ask = lambda name: state._sql.execute(f'pragma {name}').fetchone()[0]
  assert ask('journal_mode') == 'wal'
  assert ask('synchronous') == 2  # full: the log is synced with each commit
  state.close()


def _database(path):
  return contextlib.closing(sqlite3.connect(path, isolation_level=None))


def _other_run(path):
  state_file.StateFile(path, 'another').close()


def _later_version(path):
  state_file.StateFile(path, 'run').close()
  with _database(path) as sql:
    sql.execute("update facts set value = 99 where name = 'schema'")


def _other_database(path):
  with _database(path) as sql:
    sql.execute('create table customers (name)')


def _no_database(path):
  with open(path, 'w', encoding='utf-8') as file:
    file.write('user_id,item_id\n' * 100)


def _damaged(path):
  _other_run(path)
  with open(path, 'r+b') as file:
    file.seek(100)
    file.write(b'\xff' * 2000)


def test_slates_are_counted_and_known_by_what_came_of_them(path):
  state = state_file.StateFile(path, 'run')
  assert (state.last_slate(), state.impressions()) == (0, {})
  show = lambda user, time, item: state_file.Shown(
      1, time, user, 1, item, 0.5, 0.25, 'ucb'
  )
  rows = [show('u', 5.0, 'a'), show(None, 5.0, 'a'), show('u', 7.0, 3)]
  state.put_shown(rows)
  state.put_interactions([PAIR('u', 'a', 1.0, 5.0), PAIR('u', 3, 1.0, 6.0)])
  state.close()
  state = state_file.StateFile(path, 'run')
  assert state.impressions() == {'a': 2, 3: 1}
  assert state.last_slate() == 1
  assert state.shown(0, 9) == [
      (1, rows[0], True),
      (2, rows[1], False),
      (3, rows[2], False),
  ]
  assert [number for number, _, _ in state.shown(1, 1)] == [2]
  state.close()


def _shown(slate, item, user='u', time=5.0):
  return state_file.Shown(slate, time, user, 1, item, 0.5, 0.25, 'ucb')


def test_the_oldest_places_are_forgotten_and_not_how_often_items_came(path):
  state = state_file.StateFile(path, 'run', kept=3)
  for slate in range(1, 6):
    state.put_shown([_shown(slate, 'a'), _shown(slate, slate)])
  numbers = lambda: [number for number, _, _ in state.shown(0, 99)]
  assert numbers() == [8, 9, 10]
  counts = {'a': 5} | {slate: 1 for slate in range(1, 6)}
  assert state.impressions() == counts
  state.close()
  state = state_file.StateFile(path, 'run', kept=1)  # fewer than before
  assert numbers() == [10]
  assert (state.impressions(), state.last_slate()) == (counts, 5)
  state.put_shown([_shown(6, 'a')])
  assert numbers() == [11]
  state.close()


def test_one_like_is_one_reward(path):
  """Of what was shown twice the last time before the like counts."""
  state = state_file.StateFile(path, 'run')
  state.put_shown([_shown(n, 'a', time=n) for n in (1.0, 2.0, 4.0)])
  state.put_shown([_shown(5, 'a', 'v', 1.0), _shown(6, 'b', time=1.0)])
  state.put_interactions([PAIR('u', 'a', 1.0, 3.0)])
  liked = lambda: [is_liked for _, _, is_liked in state.shown(0, 99)]
  assert liked() == [False, True, False, False, False]
  state.put_interactions([PAIR('u', 'a', 0.0, 3.5)])  # it was a mistake
  assert not any(liked())
  state.close()


def test_a_file_without_counts_gets_them(path):
  """Of the version before: what was shown then counts."""
  state = state_file.StateFile(path, 'run')
  state.put_shown([_shown(1, 'a'), _shown(2, 'a')])
  state.close()
  with _database(path) as sql:
    sql.execute('drop table inputs')
    sql.execute('drop table impressions')
    sql.execute('drop index shown_pairs')
    sql.execute("update facts set value = 2 where name = 'schema'")
  state = state_file.StateFile(path, 'run')
  assert state.impressions() == {'a': 2}
  state.close()


def test_a_file_without_inputs_gets_a_table_for_them(path):
  state = state_file.StateFile(path, 'run')
  state.put_shown([_shown(1, 'a')])
  state.close()
  with _database(path) as sql:
    sql.execute('drop table inputs')
    sql.execute("update facts set value = 3 where name = 'schema'")
  state = state_file.StateFile(path, 'run')
  state.put_shown([_shown(2, 'a')], [b'x'])
  assert state.inputs(0, 9) == {2: b'x'}
  assert len(state.shown(0, 9)) == 2
  state.close()


def test_what_is_known_of_users_goes_with_what_was_shown(path):
  state = state_file.StateFile(path, 'run', kept=3)
  state.use_basis('one')
  state.put_shown([_shown(1, 'a'), _shown(2, 'b', 'v')], [b'u', b'v'])
  state.put_shown([_shown(3, 'a')])  # nothing is known
  state.put_shown([_shown(4, 'a')], [b'w'])
  assert state.inputs(0, 99) == {2: b'v', 4: b'w'}
  state.close()
  state = state_file.StateFile(path, 'run', kept=3)
  state.use_basis('one')
  assert state.inputs(3, 4) == {4: b'w'}
  state.put_interactions([PAIR('u', 'a', 1.0, 9.0)])
  assert sorted(state.rewards('u', 'a')) == [(3, False), (4, True)]
  assert state.rewards('v', 'b') == [(2, False)]
  state.use_basis('two')  # other numbers, which mean something else
  assert not state.inputs(0, 99) and len(state.shown(0, 99)) == 3
  state.close()


def test_a_file_without_slates_gets_a_table_for_them(path):
  """Of the version before them; nothing that it has is lost."""
  state = state_file.StateFile(path, 'run')
  state.put_items({'a': {'year': 2}})
  state.close()
  with _database(path) as sql:
    for table in ('shown', 'impressions', 'inputs'):
      sql.execute(f'drop table {table}')
    sql.execute("update facts set value = 1 where name = 'schema'")
  state = state_file.StateFile(path, 'run')
  assert dict(state.items()) == {'a': {'year': 2}}
  assert not state.shown(0, 9)
  state.close()
  with _database(path) as sql:
    query = "select value from facts where name = 'schema'"
    assert sql.execute(query).fetchone() == (state_file.SCHEMA,)


@pytest.mark.parametrize(
    'prepare, message',
    [
        (_other_run, 'is the state of another run: its items and'),
        (_later_version, 'has tables of version 99, this program writes'),
        (_other_database, 'is a database of something else'),
        (_no_database, 'is no SQLite file, or a damaged one'),
        (_damaged, 'is no SQLite file, or a damaged one'),
    ],
)
def test_files_that_are_refused(path, prepare, message):
  prepare(path)
  before = pathlib.Path(path).read_bytes()
  with pytest.raises(errors.UserError, match=message) as caught:
    state_file.StateFile(path, 'run')
  assert path in str(caught.value)
  assert str(caught.value).count('\n') == 0
  assert pathlib.Path(path).read_bytes() == before


def test_a_file_in_use_is_refused(path):
  state = state_file.StateFile(path, 'run')
  with pytest.raises(errors.UserError, match='in use by another service'):
    state_file.StateFile(path, 'run')
  state.close()
  state_file.StateFile(path, 'run').close()


def test_a_folder_that_is_not_there(tmp_path):
  with pytest.raises(errors.UserError, match='cannot be used as --state'):
    state_file.StateFile(str(tmp_path / 'no' / 'state.sqlite'), 'run')
