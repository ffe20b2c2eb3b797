# SPDX-License-Identifier: Apache-2.0
"""Tables that a program hands over, of whatever library, as Arrow tables.

pandas, Polars and others speak the Arrow PyCapsule interface; columns and rows
of plain Python are read as well, and so are ids alone. None of these libraries
is imported. What the columns mean is decided in `request_tables.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dropoutnet_jax import errors
from dropoutnet_jax.data import table_files

_KINDS = (
    'a table of Arrow, pandas or Polars, a dict of columns, a list of dicts, '
    'or ids'
)


def read(
    given: Any, name: str, required: Mapping[str, str]
) -> table_files.Table:
  """A table of rows, each with what is required of it.

  Args:
    given: a table, columns by name, rows as dicts, or values of the one
      required column alone.
    name: how messages call it: the argument, such as 'users'.
    required: columns that it must have, each with the field that names it.

  Raises:
    UserError: for something else, a column that is missing or is there twice,
      and a column of values that do not go together.
  """
  ids = next(iter(required))
  if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
    if not hasattr(given, '__arrow_c_stream__'):
      raise errors.UserError(
          f'{name}: {_shown(given)} is no table; give {_KINDS}, in a list also '
          'if it is a single one.'
      )
  data = _without_views(_to_arrow(given, name, ids))
  source = table_files.Source('', name, required, None)
  table_files.check_columns(name, data.column_names, source, '')
  starts = np.array([0, data.num_rows])
  return table_files.Table(
      data, tuple(data.column_names), (name,), starts, False
  )


def pairs(
    history: Mapping[Any, Any], name: str, own: str, other: str
) -> pa.Table:
  """Ids with the ids that each has met, as a table of pairs.

  Args:
    history: sequences of ids by id.
    name: how messages call it.
    own: name of the column of the keys.
    other: name of that of the sequences.

  Raises:
    UserError: for a value that is no sequence, or ids of several types.
  """
  keys, values = [], []
  for key, met in history.items():
    if isinstance(met, (str, bytes)) or not isinstance(met, Iterable):
      raise errors.UserError(
          f'{name}: {_shown(met)} of {key!r} is no list of {other}s; write '
          f'{{{key!r}: [{_shown(met)}]}}.'
      )
    met = list(met)
    keys += [key] * len(met)
    values += met
  columns = {own: keys, other: values}
  return pa.table({x: _column(y, x, name) for x, y in columns.items()})


def _to_arrow(given: Any, name: str, ids: str) -> pa.Table:
  """The table; a single column is called by the name of the ids."""
  try:
    if isinstance(given, pa.Table):
      return given
    if isinstance(given, pa.RecordBatch):
      return pa.Table.from_batches([given])
    if isinstance(given, Mapping):
      return _of_columns(given, name)
    if hasattr(given, '__arrow_c_stream__'):
      return _of_stream(given, ids)
    if hasattr(given, 'to_dict') and hasattr(given, 'columns'):
      return _of_columns(given.to_dict('list'), name)  # pandas before 2.2
  except (pa.ArrowException, TypeError, ValueError) as error:
    raise errors.UserError(
        f'{name}: it cannot be read as a table: {errors.cause(error)}. Give '
        f'{_KINDS}.'
    ) from error
  values = list(given)
  if values and all(isinstance(value, Mapping) for value in values):
    names = dict.fromkeys(str(key) for row in values for key in row)
    rows = [{str(key): row[key] for key in row} for row in values]
    return _of_columns({key: [x.get(key) for x in rows] for key in names}, name)
  return _of_columns({ids: values}, name)


def _of_stream(given: Any, ids: str) -> pa.Table:
  """A table of the PyCapsule interface; a column of it is one of ids."""
  column = pa.chunked_array(given)
  if not pa.types.is_struct(column.type):
    return pa.table({ids: column})
  batches = [pa.RecordBatch.from_struct_array(x) for x in column.chunks]
  return pa.Table.from_batches(batches, pa.schema(list(column.type)))


def _without_views(data: pa.Table) -> pa.Table:
  """The table with strings that Arrow's functions know; Polars has others."""
  kinds = [(field.name, _without_view(field.type)) for field in data.schema]
  schema = pa.schema(kinds)
  return data if schema.equals(data.schema) else data.cast(schema)


def _without_view(kind: pa.DataType) -> pa.DataType:
  """The type with large strings instead of views, also within others."""
  if pa.types.is_string_view(kind):
    return pa.large_string()
  if pa.types.is_dictionary(kind):
    values = _without_view(kind.value_type)
    return pa.dictionary(kind.index_type, values, kind.ordered)
  if pa.types.is_list(kind) or pa.types.is_large_list(kind):
    make = pa.list_ if pa.types.is_list(kind) else pa.large_list
    return make(_without_view(kind.value_type))
  if pa.types.is_struct(kind):
    return pa.struct([(x.name, _without_view(x.type)) for x in kind])
  return kind


def _of_columns(columns: Mapping[Any, Any], name: str) -> pa.Table:
  """Columns by name, each of plain Python, NumPy or Arrow."""
  return pa.table(
      {
          str(key): _column(values, str(key), name)
          for key, values in columns.items()
      }
  )


def _column(values: Any, column: str, name: str) -> Any:
  """A column as Arrow; NaN counts as missing.

  Raises:
    UserError: for a single value, and for values of several types.
  """
  if isinstance(values, (pa.Array, pa.ChunkedArray)):
    return values
  is_single = isinstance(values, (str, bytes, Mapping))
  if is_single or not isinstance(values, Iterable):
    raise errors.UserError(
        f'{name}: {column!r} is {_shown(values)} and no list of values. Of a '
        'single row give a list of one dict.'
    )
  if not isinstance(values, np.ndarray) or values.ndim > 1:
    values = [_plain(value) for value in values]
  try:
    return pa.array(values, from_pandas=True)
  except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
    raise errors.UserError(
        f'{name}: values of {column!r} do not go together: '
        f'{errors.cause(error)}. Give all of them one type, and None where one '
        'is missing.'
    ) from error


def _plain(value: Any) -> Any:
  """A value as Arrow takes it: sets and tuples become lists."""
  if isinstance(value, (set, frozenset)):
    return sorted(value, key=str)
  return value


def _shown(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:60]} …'


def as_rows(given: Any) -> Sequence[Any]:
  """One user or item, an id or a dict, as a sequence of it."""
  is_one = isinstance(given, (str, int, np.integer, Mapping))
  return [given] if is_one else given
