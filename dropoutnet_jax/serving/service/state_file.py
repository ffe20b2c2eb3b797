# SPDX-License-Identifier: Apache-2.0
"""What a service was told since its start, in a file of SQLite.

Items that were added, changed or deleted, and interactions. A call returns once
the file has it: the write-ahead log is flushed to the disk with each, so that
whatever was acknowledged is there after a kill, and after a power cut. Ids are
kept as they are, whole numbers or strings; content is JSON. Of what policies
have shown the last places are kept, with what beliefs see of who saw them, and
how often each item was shown, ever.
Knows no model.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import json
import os
import sqlite3
from typing import Any, NamedTuple

from dropoutnet_jax import errors

# Of the tables below: 1 had no slates, 2 no counts of them, 3 not who saw them.
SCHEMA = 4
KEPT = 1_000_000  # places of slates: some 200 MB
Id = int | str
_TABLES = """
create table facts (name text primary key, value) without rowid;
create table items (id primary key, content text) without rowid;
create table interactions (
  user, item, label real not null, time real not null,
  primary key (user, item)
) without rowid;
"""
_SHOWN = """
create table shown (
  number integer primary key, slate integer not null, time real not null,
  user, place integer not null, item not null, score real not null,
  propensity real not null, policy text not null
)
"""
_IMPRESSIONS = """
create table impressions (id primary key, count integer not null) without rowid;
insert into impressions select item, count(*) from shown group by item;
create index shown_pairs on shown (user, item);
"""
_INPUTS = (
    'create table inputs (number integer primary key, value blob not null)'
)
_BASE = {'facts', 'items', 'interactions'}
# What each version has.
_VERSIONS = {
    1: _BASE,
    2: _BASE | {'shown'},
    3: _BASE | {'shown', 'impressions'},
    SCHEMA: _BASE | {'shown', 'impressions', 'inputs'},
}
# Of a place of the log and the interaction of that pair.
_REWARD = """coalesce(interactions.label > 0 and
  interactions.time >= shown.time and not exists (select 1 from shown as later
  where later.user = shown.user and later.item = shown.item and
  later.number > shown.number and later.time <= interactions.time), 0)
from shown left join interactions on interactions.user = shown.user and
  interactions.item = shown.item"""


class Shown(NamedTuple):
  """An item that a policy has shown.

  Attributes:
    slate: which one it was part of.
    time: seconds since 1970.
    user: id; None for nobody in particular.
    place: in the slate, from 1.
    item: id.
    score: of the model.
    propensity: chance of the item at its place given those before it.
    policy: that filled the slate.
  """

  slate: int
  time: float
  user: Id | None
  place: int
  item: Id
  score: float
  propensity: float
  policy: str


class Interaction(NamedTuple):
  """Who met what.

  Attributes:
    user: id.
    item: id.
    label: above 0 if it counts as history; 0 was shown without a reaction.
    time: seconds since 1970, when the service was told.
  """

  user: Id
  item: Id
  label: float
  time: float


class StateFile:
  """The state of one run, open in one process at a time.

  For one thread. Raises OSError where the disk is full or fails, and keeps what
  it had then.

  Attributes:
    kept: places of slates, at most.
  """

  def __init__(self, path: str, run: str, kept: int = KEPT):
    """Opens or makes the file.

    Args:
      path: of the file.
      run: what tells this run from others.
      kept: places of slates, at least 1; older ones are forgotten.

    Raises:
      UserError: if it can't be read or written, is no such file, is in use,
        belongs to another run, or was written by a later version.
    """
    self._path, self.kept = path, kept
    try:
      self._sql = sqlite3.connect(
          path, isolation_level=None, timeout=0, check_same_thread=False
      )
    except sqlite3.Error as error:
      raise errors.UserError(_why(path, error)) from error
    try:
      # Nobody else has the file while this process lives.
      self._sql.execute('pragma locking_mode = exclusive')
      is_new = self._check(run)  # before anything of the file is changed
      self._sql.execute('pragma journal_mode = wal')
      self._sql.execute('pragma synchronous = full')
      self._sql.execute('begin immediate')
      if is_new:
        for statement in _TABLES.split(';'):
          self._sql.execute(statement)
        facts = [('schema', 1), ('run', run)]
        self._sql.executemany('insert into facts values (?, ?)', facts)
      if 'shown' not in self._names():
        self._sql.execute(_SHOWN)
      if 'impressions' not in self._names():
        for statement in _IMPRESSIONS.split(';'):
          self._sql.execute(statement)
      if 'inputs' not in self._names():
        self._sql.execute(_INPUTS)
        query = "update facts set value = ? where name = 'schema'"
        self._sql.execute(query, (SCHEMA,))
      self._forget()
      self._sql.execute('commit')
    except sqlite3.Error as error:
      self._sql.close()
      raise errors.UserError(_why(path, error)) from error
    except errors.UserError:
      self._sql.close()
      raise

  def _check(self, run: str) -> bool:
    """Whether the file is new; raises UserError if it is not of this run."""
    names = self._names()
    if not names:
      return True
    versions = [x for x, tables in _VERSIONS.items() if tables == names]
    if not versions:
      raise errors.UserError(
          f'{self._path} is a database of something else; name another '
          '--state.'
      )
    found = dict(self._sql.execute('select name, value from facts'))
    if found.get('schema') != versions[0]:
      raise errors.UserError(
          f'{self._path} has tables of version {found.get("schema")}, this '
          f'program writes version {SCHEMA}. Name another --state, or use the '
          'program that wrote it.'
      )
    if found.get('run') != run:
      raise errors.UserError(
          f'{self._path} is the state of another run: its items and '
          'interactions mean nothing here. Name another --state.'
      )
    return False

  def _names(self) -> set[str]:
    """Of all tables."""
    query = "select name from sqlite_master where type = 'table'"
    rows = self._sql.execute(query)
    return {name for (name,) in rows}

  def close(self) -> None:
    """Moves the log into the file and lets go of it."""
    self._sql.close()

  def put_items(self, content: Mapping[Id, Any]) -> None:
    """Adds items, or changes them: content by id, what JSON can hold."""
    rows = [(name, json.dumps(value)) for name, value in content.items()]
    self._write('insert or replace into items values (?, ?)', rows)

  def delete_items(self, ids: Iterable[Id]) -> None:
    """Remembers that items are gone, those of the run too."""
    rows = [(name, None) for name in ids]
    self._write('insert or replace into items values (?, ?)', rows)

  def put_interactions(self, rows: Iterable[Interaction]) -> None:
    """Adds interactions; of a pair that is there the last one counts."""
    self._write(
        'insert or replace into interactions values (?, ?, ?, ?)', list(rows)
    )

  def put_shown(
      self, rows: Iterable[Shown], inputs: Sequence[bytes] | None = None
  ) -> None:
    """Logs what policies have shown, and forgets the oldest of it.

    Args:
      rows: places of slates.
      inputs: of who saw each of them; None where nothing is known.
    """
    rows = list(rows)
    marks = ', '.join('?' * len(Shown._fields))
    names = ', '.join(Shown._fields)
    with self._changing():
      self._sql.executemany(
          f'insert into shown ({names}) values ({marks})', rows
      )
      self._sql.executemany(
          'insert into impressions values (?, 1) '
          'on conflict (id) do update set count = count + 1',
          [(row.item,) for row in rows],
      )
      if inputs is not None:
        query = 'select coalesce(max(number), 0) from shown'
        first = self._sql.execute(query).fetchone()[0] - len(rows) + 1
        self._sql.executemany(
            'insert into inputs values (?, ?)', enumerate(inputs, start=first)
        )
      self._forget()

  def _forget(self) -> None:
    """Numbers have no gaps, so that they say how many are kept."""
    for table in ('inputs', 'shown'):
      query = (
          f'delete from {table} where number <= '
          '(select max(number) from shown) - ?'
      )
      self._sql.execute(query, (self.kept,))

  def use_basis(self, name: str) -> None:
    """Says what inputs are of from now on; those of another are forgotten."""
    query = "select value from facts where name = 'basis'"
    if self._sql.execute(query).fetchone() == (name,):
      return
    with self._changing():
      self._sql.execute('delete from inputs')
      self._sql.execute(
          "insert or replace into facts values ('basis', ?)", (name,)
      )

  def _write(self, statement: str, rows: list[Any]) -> None:
    """All rows or none; back when they are on the disk."""
    with self._changing():
      self._sql.executemany(statement, rows)

  @contextlib.contextmanager
  def _changing(self) -> Iterator[None]:
    """All changes or none; back when they are on the disk."""
    try:
      self._sql.execute('begin immediate')
      yield
      self._sql.execute('commit')
    except sqlite3.Error as error:
      if self._sql.in_transaction:
        self._sql.execute('rollback')
      raise OSError(f'{self._path} cannot be written: {error}') from error

  def items(self) -> Iterator[tuple[Id, Any]]:
    """Every item that was touched, with its content; None if it is deleted."""
    for name, content in self._sql.execute('select id, content from items'):
      yield name, None if content is None else json.loads(content)

  def interactions(self) -> Iterator[Interaction]:
    """All interactions, the older ones first."""
    rows = self._sql.execute(
        'select user, item, label, time from interactions order by time'
    )
    return (Interaction(*row) for row in rows)

  def impressions(self) -> dict[Id, int]:
    """How often each item was shown, whether or not it is still kept."""
    return dict(self._sql.execute('select id, count from impressions'))

  def last_slate(self) -> int:
    """The number of the last slate; 0 before the first."""
    query = 'select coalesce(max(slate), 0) from shown'
    return self._sql.execute(query).fetchone()[0]

  def shown(self, after: int, limit: int) -> list[tuple[int, Shown, bool]]:
    """The log from behind a number on, at most so many rows.

    Returns:
      The number of each row, the row, and whether the user is known to have
      liked the item since. It is the last time that she was shown the item
      before which counts: one like is one reward.
    """
    columns = ', '.join(f'shown.{name}' for name in Shown._fields)
    query = (
        f'select shown.number, {columns}, {_REWARD} '
        'where number > ? order by number limit ?'
    )
    rows = self._sql.execute(query, (after, limit))
    return [(one, Shown(*row), bool(liked)) for one, *row, liked in rows]

  def rewards(self, user: Id, item: Id) -> list[tuple[int, bool]]:
    """Numbers of the places that showed a pair, and which has a like."""
    query = (
        f'select shown.number, {_REWARD} where shown.user = ? and '
        'shown.item = ?'
    )
    rows = self._sql.execute(query, (user, item))
    return [(number, bool(liked)) for number, liked in rows]

  def inputs(self, first: int, last: int) -> dict[int, bytes]:
    """Of who saw places of these numbers, as far as it is known."""
    query = 'select number, value from inputs where number between ? and ?'
    return dict(self._sql.execute(query, (first, last)))


def _why(path: str, error: sqlite3.Error) -> str:
  """A sentence on why a file can't be used, and what to do."""
  text = str(error)
  if 'locked' in text:
    return (
        f'{path} is in use by another service. Stop that one, or name another '
        '--state.'
    )
  if 'not a database' in text or 'malformed' in text:
    return f'{path} is no SQLite file, or a damaged one; name another --state.'
  folder = os.path.dirname(path) or '.'
  return (
      f'{path} cannot be used as --state: {text}. It must be a file that can '
      f'be written, in a folder that can be written ({folder}).'
  )
