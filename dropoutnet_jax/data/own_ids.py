# SPDX-License-Identifier: Apache-2.0
"""Ids of a user's tables as row numbers.

Ids are whole numbers or strings. Those of delimited files are whole numbers if
all of a column are, and strings again if another table says so; in all other
formats their type says what they are.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc

from dropoutnet_jax import errors
from dropoutnet_jax.data import arrow_values
from dropoutnet_jax.data import table_files

_EXAMPLES = 3


@dataclasses.dataclass(frozen=True, eq=False)
class IdColumn:
  """The ids of one side in one table.

  Attributes:
    name: of the column.
    table: that holds it.
    found: distinct ids, int64 or strings, and the id of each row.
    is_open: whether they are digits of a delimited file, kept as strings.
  """

  name: str
  table: table_files.Table
  found: arrow_values.Encoded
  is_open: bool

  def kind(self) -> str:
    """'integers' or 'strings'."""
    is_integer = pa.types.is_integer(self.found.values.type)
    return 'integers' if is_integer else 'strings'

  def describe(self) -> str:
    """'items.parquet holds integers such as 5', for messages."""
    shown = self.found.values[0].as_py()
    return f'{self.table.name()} holds {self.kind()} such as {shown!r}'


def read(table: table_files.Table, name: str) -> IdColumn:
  """Reads an id column.

  Raises:
    UserError: if ids are neither strings nor whole numbers, or are missing.
  """
  column = table.data.column(name)
  kind = column.type
  if pa.types.is_dictionary(kind):
    kind = kind.value_type
  is_string = arrow_values.is_string(kind)
  missing = np.asarray(column.is_null(nan_is_null=True), bool)
  if is_string and not table.is_text:
    missing |= np.asarray(pc.equal(column, '').fill_null(True), bool)
  if missing.any():
    raise errors.UserError(
        f'{table.place(int(np.argmax(missing)))}: {name} is missing, as in '
        f'{missing.sum():,} of {len(missing):,} rows. Give every row an id, or '
        'delete those rows.'
    )
  if not is_string and not pa.types.is_integer(kind):
    raise errors.UserError(
        f'{table.name()}: {name} holds values of type {kind}; ids are strings '
        'or whole numbers. Convert the column.'
    )
  found = arrow_values.encode(column)
  if not is_string:
    try:
      values = found.values.cast(pa.int64())
    except pa.ArrowInvalid:
      raise errors.UserError(
          f'{table.name()}: {name} holds whole numbers beyond 63 bits; write '
          'them as strings.'
      ) from None
    found = dataclasses.replace(found, values=values)
  is_open = table.is_text and arrow_values.are_all(
      found.values, arrow_values.DIGITS
  )
  return IdColumn(name, table, found, is_open)


def agree(columns: Sequence[IdColumn]) -> list[IdColumn]:
  """Gives the ids of one side one type in all tables.

  Raises:
    UserError: if they are strings here and whole numbers there.
  """
  fixed = [column for column in columns if not column.is_open]
  kinds = {column.kind() for column in fixed}
  if len(kinds) > 1:
    first, second = fixed
    raise errors.UserError(
        f'{first.name}: {first.describe()}, but {second.describe()}. Write the '
        'ids of both tables with one type.'
    )
  if 'strings' in kinds:
    return list(columns)
  as_integers = lambda column: dataclasses.replace(
      column,
      found=dataclasses.replace(
          column.found, values=column.found.values.cast(pa.int64())
      ),
  )
  return [as_integers(column) for column in columns]


def check_distinct(column: IdColumn) -> None:
  """Raises UserError if an id names two rows of a side table."""
  count = np.bincount(column.found.codes, minlength=len(column.found.values))
  repeated = np.flatnonzero(count > 1)
  if not len(repeated):
    return
  shown = []
  for code in repeated[:_EXAMPLES]:
    rows = np.flatnonzero(column.found.codes == code)[:2]
    places = ' and '.join(column.table.place(int(row)) for row in rows)
    shown.append(f'{column.found.values[int(code)].as_py()!r} ({places})')
  raise errors.UserError(
      f'{column.table.name()}: {len(repeated):,} {column.name} occur more than '
      f'once, such as {", ".join(shown)}. Keep one row for each.'
  )


def join(
    pairs: IdColumn, side: IdColumn | None
) -> tuple[pa.Array, np.ndarray, int]:
  """Numbers the ids of one side.

  Args:
    pairs: ids of the interactions.
    side: ids of the side table, distinct, in its order; None without one.

  Returns:
    All ids: those of the side table in its order, then the others, ascending.
    The row of each interaction, int32 [N]. And the number of the others.

  Raises:
    UserError: if there is a side table and no interaction finds its id there.
  """
  order = pc.array_sort_indices(pairs.found.values)
  if side is None:
    place = np.empty(len(order), np.int32)
    place[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
    ids = pairs.found.values.take(order)
    return ids, place[pairs.found.codes], len(ids)
  known = side.found.values.take(pa.array(side.found.codes))
  row = pc.index_in(pairs.found.values, value_set=known)
  if row.null_count == len(row):
    raise errors.UserError(
        f'{pairs.name}: no id of {pairs.table.name()} (such as '
        f'{pairs.found.values[0].as_py()!r}) is in {side.table.name()} (such '
        f'as {known[0].as_py()!r}). Name tables that belong together.'
    )
  is_new = np.asarray(row.is_null(), bool)
  in_order = order.to_numpy()
  new = in_order[is_new[in_order]]
  place = row.fill_null(0).to_numpy().astype(np.int32)
  place[new] = len(known) + np.arange(len(new), dtype=np.int32)
  ids = pa.concat_arrays([known, pairs.found.values.take(pa.array(new))])
  return ids, place[pairs.found.codes], len(new)


def find(column: IdColumn, known: np.ndarray) -> np.ndarray:
  """Where the distinct ids of a column are among known ones.

  Args:
    column: D distinct ids.
    known: int64 or str [N], distinct.

  Returns:
    int64 [D], -1 where an id is not known. Compared as whole numbers where
    both sides are, else as they are written.
  """
  (column,) = agree([column]) if known.dtype == np.int64 else (column,)
  values, kept = column.found.values, pa.array(known)
  if values.type != kept.type:
    values, kept = values.cast(pa.string()), kept.cast(pa.string())
  place = pc.index_in(values, value_set=kept)
  return place.fill_null(-1).to_numpy().astype(np.int64)


def to_numpy(ids: pa.Array) -> np.ndarray:
  """int64 [N] or str [N]."""
  array = ids.to_numpy(zero_copy_only=False)
  return array if array.dtype == np.int64 else array.astype(str)
