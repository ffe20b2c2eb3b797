# SPDX-License-Identifier: Apache-2.0
"""Tables of somebody who asks: which users or items, and who met what.

They are read as the tables that the run was trained on: the same names of
columns, the same types. Ids that the run knows are looked up, and their columns
left alone; others are new, and their columns are read as the run's own were.
What is missing or left out is said in notes. Where a table comes from, a file
or a program, is not known here.
"""

from collections.abc import Mapping
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


def settings(
    model: recommender_lib.Ranker, side: str
) -> config_data.TablesConfig:
  """How to read a table of a side: as in training, in whatever format."""
  types = model.encoders[side].columns
  lists = lambda kind: tuple(n for n in types if types[n].kind == kind)
  return dataclasses.replace(
      model.cfg.data.tables,
      format='',
      tag_columns=lists('tags'),
      vector_columns=lists('vectors'),
      sequence_columns=lists('sequences'),
  )


def rows_of(
    table: table_files.Table,
    side: str,
    model: recommender_lib.Ranker,
    distinct: bool = True,
) -> tuple[rows_lib.Rows, list[str]]:
  """The users or items of a table.

  Args:
    table: has a column of ids.
    side: 'user' or 'item'.
    model: of the run.
    distinct: whether an id may occur only once.

  Returns:
    The rows in the order of the table, and notes.

  Raises:
    UserError: for an id that is missing or occurs twice, or a value that is not
      of the run's type.
  """
  types = model.encoders[side].columns
  name = getattr(model.cfg.data.tables, f'{side}_id')
  column = own_ids.read(table, name)
  if distinct:
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
  columns, more = _read_columns(table, types, settings(model, side))
  entities = schema.Entities(ids, columns)
  return rows_lib.Rows(ids, row, entities), notes + more


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
    how: config_data.TablesConfig,
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
      read = _read_column(table, name, kind, how)
      if read is not None:
        columns[name] = read
  return columns, notes


def _read_column(
    table: table_files.Table,
    name: str,
    kind: column_types.ColumnType,
    how: config_data.TablesConfig,
) -> schema.Column | None:
  """A column of the type that it had in training; None if it has no value."""
  column = table.data.column(name)
  if column.null_count == len(column):
    return None
  try:
    # What was a string in training is no number because three rows look so.
    is_text = table.is_text and kind.kind != 'strings'
    read, _ = arrow_columns.to_column(column, name, how, is_text)
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


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
  """Who met what, by the distinct ids of a table.

  Attributes:
    user: D distinct ids.
    item: E distinct ids.
    shown: all pairs, as numbers of these ids; with labels where the table has
      some.
  """

  user: own_ids.IdColumn
  item: own_ids.IdColumn
  shown: schema.Interactions

  def met(
      self,
      side: str,
      own: np.ndarray,
      other: np.ndarray,
      shape: tuple[int, int],
  ) -> scipy.sparse.csr_array:
    """1 wherever one met the other, liked or not: csr_array [N, M].

    Args:
      side: 'user' or 'item', that of the N rows.
      own: int [D], which row each distinct id of that side is, -1 for none.
      other: int [E], of the other side, which column.
      shape: [N, M].
    """
    first, second = self.shown.user, self.shown.item
    if side == 'item':
      first, second = second, first
    row, column = own[first], other[second]
    known = (row >= 0) & (column >= 0)
    found = schema.Interactions(row[known], column[known]).matrix(*shape)
    return rows_lib.pattern(found)

  def likes(self) -> 'Pairs':
    """Those that are likes: of a label above 0, or all where there is none."""
    if self.shown.label is None:
      return self
    liked = self.shown.select(self.shown.label > 0)
    return dataclasses.replace(self, shown=liked)


def pair_settings(model: recommender_lib.Ranker) -> config_data.TablesConfig:
  """How to read a table of pairs: ids and labels alone."""
  return dataclasses.replace(
      model.cfg.data.tables, format='', weight='', time='', session_id=''
  )


def pairs_of(table: table_files.Table, model: recommender_lib.Ranker) -> Pairs:
  """Reads who met what.

  Args:
    table: of pairs; where it has labels, those above 0 are likes, and the
      others are met without being part of a history.
    model: of the run.

  Raises:
    UserError: for ids or labels that are missing or of a wrong type.
  """
  tables = pair_settings(model)
  user = own_ids.read(table, tables.user_id)
  item = own_ids.read(table, tables.item_id)
  shown, _ = own_pairs.read(
      table,
      tables,
      user.found.codes.astype(np.int32),
      item.found.codes.astype(np.int32),
      needs_like=False,
  )
  return Pairs(user, item, shown)
