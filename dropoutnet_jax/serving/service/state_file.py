# SPDX-License-Identifier: Apache-2.0
"""What a service was told since its start, in a file of SQLite.

Items that were added, changed or deleted, and interactions. A call returns once
the file has it: the write-ahead log is flushed to the disk with each, so that
whatever was acknowledged is there after a kill, and after a power cut. Ids are
kept as they are, whole numbers or strings; content is JSON. Knows no model.
"""

from collections.abc import Iterable, Iterator, Mapping
import json
import os
import sqlite3
from typing import Any, NamedTuple

from dropoutnet_jax import errors

SCHEMA = 1  # version of the tables below
Id = int | str
_TABLES = """
create table facts (name text primary key, value) without rowid;
create table items (id primary key, content text) without rowid;
create table interactions (
  user, item, label real not null, time real not null,
  primary key (user, item)
) without rowid;
"""


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
  """

  def __init__(self, path: str, run: str):
    """Opens or makes the file.

    Args:
      path: of the file.
      run: what tells this run from others.

    Raises:
      UserError: if it can't be read or written, is no such file, is in use,
        belongs to another run, or was written by a later version.
    """
    self._path = path
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
        facts = [('schema', SCHEMA), ('run', run)]
        self._sql.executemany('insert into facts values (?, ?)', facts)
      self._sql.execute('commit')
    except sqlite3.Error as error:
      self._sql.close()
      raise errors.UserError(_why(path, error)) from error
    except errors.UserError:
      self._sql.close()
      raise

  def _check(self, run: str) -> bool:
    """Whether the file is new; raises UserError if it is not of this run."""
    names = {
        name for (name,) in self._sql.execute('select name from sqlite_master')
    }
    if not names:
      return True
    if names != {'facts', 'items', 'interactions'}:
      raise errors.UserError(
          f'{self._path} is a database of something else; name another '
          '--state.'
      )
    found = dict(self._sql.execute('select name, value from facts'))
    if found.get('schema') != SCHEMA:
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

  def _write(self, statement: str, rows: list[Any]) -> None:
    """All rows or none; back when they are on the disk."""
    try:
      self._sql.execute('begin immediate')
      self._sql.executemany(statement, rows)
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
