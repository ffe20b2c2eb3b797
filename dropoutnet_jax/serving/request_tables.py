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
from dropoutnet_jax import parallel
from dropoutnet_jax.data import arrow_columns
from dropoutnet_jax.data import arrow_values
from dropoutnet_jax.data import blocks
from dropoutnet_jax.data import column_types
from dropoutnet_jax.data import own_ids
from dropoutnet_jax.data import own_pairs
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import table_files
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import rows as rows_lib

_SHAPES = {'number': 'single numbers', 'vectors': 'lists of numbers'}


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
    table: table_files.Table, side: str, model: recommender_lib.Ranker
) -> tuple[rows_lib.Rows, list[str]]:
  """The users or items of a table, each once, in its order; and notes.

  Args:
    table: has a column of ids.
    side: 'user' or 'item'.
    model: of the run.

  Raises:
    UserError: for an id that is missing or occurs twice, or a value that is not
      of the run's type.
  """
  reader = Reader(side, model)
  rows = reader.rows(table, distinct=True)
  return rows, reader.notes(table.name())


class Reader:
  """Reads a table of users or items, whole or block by block."""

  def __init__(self, side: str, model: recommender_lib.Ranker):
    """Reads as the run read its own; side is 'user' or 'item'."""
    self._side, self._model = side, model
    self._types = model.encoders[side].columns
    self._id = getattr(model.cfg.data.tables, f'{side}_id')
    self._known = getattr(model.problem, side).ids
    self._count = self._new = 0
    self._first: np.ndarray | None = None  # id, of the first block
    self._columns: dict[str, None] = {}  # that any block has
    self._read: dict[str, None] = {}  # of those, that were not left out

  def rows(self, table: table_files.Table, distinct: bool) -> rows_lib.Rows:
    """The rows of a table, or of the next block of it.

    Args:
      table: has a column of ids.
      distinct: whether an id may occur only once in it.

    Raises:
      UserError: as `rows_of`.
    """
    column = own_ids.read(table, self._id)
    if distinct:
      own_ids.check_distinct(column)
    row = own_ids.find(column, self._known)[column.found.codes]
    ids = self._alike(_all_ids(column, self._known), table)
    is_new = row < 0
    self._count += len(ids)
    self._new += int(is_new.sum())
    self._columns |= dict.fromkeys(table.names)
    self._read |= dict.fromkeys(table.data.column_names)
    if not is_new.any():
      return rows_lib.Rows(ids, row)
    how = settings(self._model, self._side)
    columns = _read_columns(table, self._types, how)
    return rows_lib.Rows(ids, row, schema.Entities(ids, columns))

  def _alike(self, ids: np.ndarray, table: table_files.Table) -> np.ndarray:
    """Ids of the same type as those of the blocks before."""
    if self._first is None and len(ids):
      self._first = ids[:1]
    if self._first is None or self._first.dtype.kind == ids.dtype.kind:
      return ids
    if ids.dtype == np.int64:
      return ids.astype(str)
    raise errors.UserError(
        f'{table.place(0)} and after: {self._id} holds strings, but whole '
        f'numbers such as {self._first[0]!s} before. Write all of them with '
        'one type.'
    )

  def notes(self, name: str) -> list[str]:
    """What there was and what is missing, of a table of that name."""
    count, new = parallel.total(self._count), parallel.total(self._new)
    notes = [
        f'{name}: {count:,} {self._side}(s), {new:,} of them new to the run.'
    ]
    if new == count and self._first is not None and (len(self._known)):
      notes.append(
          f'No {self._id} of {name} (such as {self._first[0]!s}) is in the run '
          f'(such as {self._known[0]!s}).'
      )
    given = [x for x in self._types if x != self._id and x in self._read]
    if given and new < count:
      notes.append(
          f'{name}: {table_files.listed(given)} of {self._side}s of the run '
          'are not read again; these keep what they had in training.'
      )
    if not new:
      return notes
    for column, kind in self._types.items():
      if column not in self._columns:
        near = table_files.nearest(column, [*self._columns])
        notes.append(
            f'{name} has no column {column!r}, which features read: it counts '
            f'as missing.{near}'
        )
      elif kind.kind == 'numbered tags':
        notes.append(
            f'{name}: {column!r} is left out; the tags of the run have no '
            'names that they could be known by.'
        )
    return notes


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
) -> dict[str, schema.Column]:
  """The columns that features read, as far as there are any."""
  columns = {}
  for name, kind in types.items():
    is_named = kind.kind != 'numbered tags'
    if is_named and name in table.data.column_names:  # else it is the id too
      read = _read_column(table, name, kind, how)
      if read is not None:
        columns[name] = read
  return columns


def _read_column(
    table: table_files.Table,
    name: str,
    kind: column_types.ColumnType,
    how: config_data.TablesConfig,
) -> schema.Column | None:
  """A column of the type that it had in training; None if it has no value."""
  column = table.data.column(name)
  if column.null_count == len(column) or _is_empty(column.type, kind):
    return None
  try:
    # What was a string in training is no number because three rows look so.
    is_text = table.is_text and kind.kind != 'strings'
    read, why = arrow_columns.to_column(column, name, how, is_text)
    if read is None:
      raise arrow_values.ColumnError(why)
    if kind.kind == 'strings' and arrow_values.is_clock(column.type):
      raise arrow_values.ColumnError('dates, where training had strings')
    found = column_types.of_column(read).kind
    if {found, kind.kind} == {'number', 'vectors'}:
      raise arrow_values.ColumnError(
          f'{_SHAPES[found]}, where training had {_SHAPES[kind.kind]}'
      )
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


def _is_empty(kind: pa.DataType, wanted: column_types.ColumnType) -> bool:
  """Whether no list or dict of such a column can hold anything."""
  if pa.types.is_struct(kind):
    return wanted.kind == 'tags' and not kind.num_fields
  lists = (pa.ListType, pa.LargeListType, pa.FixedSizeListType)
  if not isinstance(kind, lists) or not pa.types.is_null(kind.value_type):
    return False
  return wanted.kind in ('tags', 'sequences', 'vectors')


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
    return blocks.pattern(found)

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
