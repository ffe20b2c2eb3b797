# SPDX-License-Identifier: Apache-2.0
"""Files of somebody who asks for lists: users, items, and who met what.

They are written as the tables that the run was trained on: the same names of
columns, the same separators. Ids that the run knows are looked up, and their
columns left alone; others are new, and their columns are read as the run's
own were. What is missing or left out is said in notes, each once.
"""

from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np
import pyarrow as pa
import scipy.sparse

from dropoutnet_jax import config_data
from dropoutnet_jax import errors
from dropoutnet_jax.data import arrow_columns
from dropoutnet_jax.data import arrow_values
from dropoutnet_jax.data import column_types
from dropoutnet_jax.data import own_ids
from dropoutnet_jax.data import own_pairs
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import table_files
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import rows as rows_lib

_EXAMPLES = 3


def read_rows(
    path: str, side: str, model: recommender_lib.Ranker
) -> tuple[rows_lib.Rows, list[str]]:
  """Reads the users or items that are asked about.

  Args:
    path: a file, folder, glob or URL.
    side: 'user' or 'item'.
    model: of the run.

  Returns:
    The rows in the order of the file, and notes.

  Raises:
    UserError: for what is wrong with the file, such as no column of ids, an id
      that occurs twice, or a value that is not of the run's type.
  """
  tables = model.cfg.data.tables
  types = model.encoders[side].columns
  settings = _settings(tables, types)
  name = getattr(tables, f'{side}_id')
  source = table_files.Source(
      path,
      f'--{side}s',
      {name: f'config.data.tables.{side}_id'},
      [other for other in types if other != name],
      getattr(tables, f'{side}s_header'),
  )
  table = table_files.read(source, settings, None)
  column = own_ids.read(table, name)
  own_ids.check_distinct(column)
  known = getattr(model.problem, side).ids
  row = own_ids.find(column, known)[column.found.codes]
  ids = _all_ids(column, known)
  is_new = row < 0
  notes = [
      f'{table.name()}: {len(row):,} {side}(s), {is_new.sum():,} of them new '
      'to the run.'
  ]
  if is_new.all() and len(known):
    notes.append(
        f'No {name} of {table.name()} (such as {ids[0]!s}) is in the run (such '
        f'as {known[0]!s}).'
    )
  given = [n for n in types if n != name and n in table.data.column_names]
  if given and not is_new.all():
    notes.append(
        f'{table.name()}: {table_files.listed(given)} of {side}s of the run '
        'are not read again; these keep what they had in training.'
    )
  if not is_new.any():
    return rows_lib.Rows(ids, row), notes
  columns, more = _read_columns(table, types, settings)
  entities = schema.Entities(ids, columns)
  return rows_lib.Rows(ids, row, entities), notes + more


def _settings(
    tables: config_data.TablesConfig,
    types: Mapping[str, column_types.ColumnType],
) -> config_data.TablesConfig:
  """How to read a file: as in training, but by the ending of its name."""
  lists = lambda kind: tuple(n for n in types if types[n].kind == kind)
  return dataclasses.replace(
      tables,
      format='',
      tag_columns=lists('tags'),
      vector_columns=lists('vectors'),
      sequence_columns=lists('sequences'),
  )


def _all_ids(column: own_ids.IdColumn, known: np.ndarray) -> np.ndarray:
  """The ids of all rows; whole numbers where those of the run are as well."""
  if known.dtype == np.int64:
    (column,) = own_ids.agree([column])
  values = column.found.values
  if known.dtype != np.int64:
    values = values.cast(pa.string())
  return own_ids.to_numpy(values)[column.found.codes]


def _read_columns(
    table: table_files.Table,
    types: Mapping[str, column_types.ColumnType],
    settings: config_data.TablesConfig,
) -> tuple[dict[str, schema.Column], list[str]]:
  """The columns that features read, as far as there are any, and notes."""
  columns, notes = {}, []
  for name, kind in types.items():
    if name not in table.names:
      near = table_files.nearest(name, table.names)
      notes.append(
          f'{table.name()} has no column {name!r}, which features read: it '
          f'counts as missing.{near}'
      )
    elif kind.kind == 'numbered tags':
      notes.append(
          f'{table.name()}: {name!r} is left out; the tags of the run have no '
          'names that they could be known by.'
      )
    elif name in table.data.column_names:  # else it is the id as well
      read = _read_column(table, name, kind, settings)
      if read is not None:
        columns[name] = read
  return columns, notes


def _read_column(
    table: table_files.Table,
    name: str,
    kind: column_types.ColumnType,
    settings: config_data.TablesConfig,
) -> schema.Column | None:
  """A column of the type that it had in training; None if it has no value."""
  column = table.data.column(name)
  if column.null_count == len(column):
    return None
  try:
    # What was a string in training is no number because three rows look so.
    is_text = table.is_text and kind.kind != 'strings'
    read, _ = arrow_columns.to_column(column, name, settings, is_text)
    if (
        kind.kind == 'number'
        and isinstance(read, np.ndarray)
        and (read.dtype == object)
    ):
      read = arrow_values.to_numbers(column).astype(np.float32)
  except arrow_values.ColumnError as error:
    place = table.name() if error.row is None else table.place(error.row)
    raise errors.UserError(
        f'{place}: {name}: {error}. Correct it, or leave it empty.'
    ) from error
  return read


def read_history(
    path: str,
    model: recommender_lib.Ranker,
    users: rows_lib.Rows,
    items: rows_lib.Rows,
) -> tuple[rows_lib.Rows, scipy.sparse.csr_array, list[str]]:
  """Reads who met what: histories of the users, and what they know already.

  Args:
    path: of a table of pairs; where it has labels, those above 0 are likes,
      and the others are met without being part of the history.
    model: of the run.
    users: who are asked about.
    items: the candidates.

  Returns:
    The users with their histories of items of the run; the candidates that
    they met, new ones among them, [N, J]; and notes.

  Raises:
    UserError: for what is wrong with the file, or if it knows none of the
      users or of the items.
  """
  tables = dataclasses.replace(
      model.cfg.data.tables, format='', weight='', time='', session_id=''
  )
  source = table_files.Source(
      path,
      '--interactions',
      {
          tables.user_id: 'config.data.tables.user_id',
          tables.item_id: 'config.data.tables.item_id',
      },
      [tables.label] if tables.label else [],
      tables.header if tables.interactions else (),
  )
  table = table_files.read(source, tables, None)
  user = own_ids.read(table, tables.user_id)
  item = own_ids.read(table, tables.item_id)
  run_items = model.problem.item.ids
  user_place = own_ids.find(user, users.ids)
  item_row = own_ids.find(item, run_items)
  item_place = own_ids.find(item, items.ids)
  notes = []
  for column, is_known, whose in (
      (user, user_place >= 0, 'the users that are asked about'),
      (item, (item_row >= 0) | (item_place >= 0), 'the items of the run'),
  ):
    notes += _check_known(column, is_known, whose)
  place = user_place[user.found.codes].astype(np.int32)
  code = item.found.codes.astype(np.int32)
  shown, _ = own_pairs.read(table, tables, place, code, needs_like=False)
  shape = (len(users), len(items))
  # Also what was shown without a like is known to the user.
  met = rows_lib.pattern(_matrix(shown, item_place, shape))
  likes = shown if shown.label is None else shown.select(shown.label > 0)
  shape = (len(users), len(run_items))
  history = rows_lib.pattern(_matrix(likes, item_row, shape))
  notes += _describe_untrained(model, history, table.name())
  return dataclasses.replace(users, history=history), met, notes


def _matrix(
    pairs: schema.Interactions, place: np.ndarray, shape: tuple[int, int]
) -> scipy.sparse.csr_array:
  """1 at the pairs whose user is known and whose item has a place >= 0."""
  column = place[pairs.item]
  known = (pairs.user >= 0) & (column >= 0)
  return schema.Interactions(pairs.user[known], column[known]).matrix(*shape)


def _describe_untrained(
    model: recommender_lib.Ranker,
    history: scipy.sparse.csr_array,
    name: str,
) -> list[str]:
  """A note on users whose history has no item that training knew pairs of."""
  is_trained = model.is_trained(model.items())
  has_any = np.diff(history.indptr) > 0
  bare = int(np.sum(has_any & (history @ is_trained.astype(np.float32) == 0)))
  if not bare:
    return []
  return [
      f'{name}: the histories of {bare:,} of {has_any.sum():,} user(s) have no '
      'item with training pairs, so nothing is learnt from them.'
  ]


def _check_known(
    column: own_ids.IdColumn, is_known: np.ndarray, whose: str
) -> list[str]:
  """A note on ids that are left out; all of them are an error."""
  if is_known.all():
    return []
  name, values = column.table.name(), column.found.values
  unknown = np.flatnonzero(~is_known)
  shown = [str(values[int(n)].as_py()) for n in unknown[:_EXAMPLES]]
  which = f'{len(unknown):,} of them, such as {", ".join(shown)}'
  if not is_known.any():
    raise errors.UserError(
        f'{name}: no {column.name} ({which}) is among {whose}. Name a table '
        'that belongs to them.'
    )
  rows = int(np.sum(~is_known[column.found.codes]))
  return [
      f'{name}: {rows:,} row(s) are left out, whose {column.name} ({which}) is '
      f'not among {whose}.'
  ]


def describe_unknown(users: rows_lib.Rows) -> Sequence[str]:
  """A note on users of whom nothing at all is known."""
  is_bare = users.is_new()
  if users.history is not None:
    is_bare &= np.diff(users.history.indptr) == 0
  count = int(is_bare.sum())
  has_columns = users.entities is not None and users.entities.columns
  if has_columns or not count:
    return []
  return [
      f'Of {count:,} new users neither content nor history is known; they all '
      'get the same list.'
  ]
