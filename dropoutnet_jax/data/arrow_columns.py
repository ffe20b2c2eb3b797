# SPDX-License-Identifier: Apache-2.0
"""Columns of Arrow tables as features read them.

Decides what a column of users or items holds: numbers, strings, tags, vectors
or sequences. Knows no file and no id.
"""

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc
import scipy.sparse

from dropoutnet_jax import config_data
from dropoutnet_jax.data import arrow_values
from dropoutnet_jax.data import schema

# From here on float32 rounds whole numbers.
_FLOAT_LIMIT = 2**24
# Share of other strings up to which a column may be meant as numbers.
_FEW = 0.1
_SECONDS_PER_DAY = 86_400


def to_column(
    column: pa.ChunkedArray,
    name: str,
    settings: config_data.TablesConfig,
    is_text: bool,
) -> tuple[schema.Column | None, str]:
  """A column of users or items as features read it, and a remark on it.

  Args:
    column: [N].
    name: of the column.
    settings: which columns hold tags, vectors and sequences, and how lists are
      written.
    is_text: whether the values are strings that may mean something else.

  Returns:
    Tags; sequences; numbers float32 [N] or [N, D], NaN where missing, or int64
    [N] where whole and complete, or float64 [N] where float32 would round whole
    ones; strings object [N], None where missing; or None for what no feature
    can read. And why, or what was made of it, or ''.

  Raises:
    ColumnError: for a list column whose entries do not fit.
  """
  kind = column.type
  as_list = any(
      name in getattr(settings, field) for field in config_data.LIST_COLUMNS
  )
  if as_list and arrow_values.is_string(kind):
    found = arrow_values.encode(column)
    lists = pc.split_pattern(found.values, settings.list_separator)
    indices = pa.array(found.codes, mask=found.codes < 0)
    column, kind = pa.chunked_array([lists.take(indices)]), lists.type
  if name in settings.sequence_columns:
    return _read_sequences(column), ''
  if pa.types.is_map(kind) or pa.types.is_struct(kind):
    return _read_weights(column)
  if _is_list(kind):
    return _read_lists(column, name, settings)
  if arrow_values.is_string(kind) or pa.types.is_dictionary(kind):
    return _read_strings(column, is_text)
  if arrow_values.is_clock(kind):
    return _to_days(column), 'dates became days since 1970'
  try:
    return _shrink(column), ''
  except arrow_values.ColumnError as error:
    return None, f'{error}, so no feature reads it'


def _read_strings(
    column: pa.ChunkedArray, is_text: bool
) -> tuple[schema.Column | None, str]:
  """Distinct values, decided upon and then repeated."""
  found = arrow_values.encode(column)
  values = arrow_values.infer(found.values) if is_text else found.values
  if is_text and not len(found.values):
    return None, f'it is empty in all {len(column):,} rows'
  indices = pa.array(found.codes, mask=found.codes < 0)
  if not arrow_values.is_string(values.type):
    numbers = pa.chunked_array([values.take(indices)])
    if arrow_values.is_clock(values.type):
      return _to_days(numbers), 'dates became days since 1970'
    return _shrink(numbers), ''
  remark = _describe_near_numbers(found) if is_text else ''
  strings = np.empty(len(values) + 1, object)
  strings[:-1] = values.to_numpy(zero_copy_only=False)
  strings[-1] = None
  return strings[found.codes], remark


def _describe_near_numbers(found: arrow_values.Encoded) -> str:
  """A remark on strings that are numbers but for a few."""
  is_number = np.append(
      arrow_values.to_mask(arrow_values.are_numbers(found.values)), True
  )
  other = ~is_number[found.codes]
  count = np.count_nonzero(other)
  if not count or count > _FEW * np.count_nonzero(found.codes >= 0):
    return ''
  shown = found.values[int(found.codes[np.argmax(other)])].as_py()
  return (
      f'its values are strings because {count:,} are no plain numbers, such as '
      f'{shown[:60]!r}'
  )


def _shrink(column: pa.ChunkedArray) -> np.ndarray:
  """Numbers [N] in the smallest type that keeps whole ones apart."""
  is_whole = pa.types.is_integer(column.type)
  if is_whole and not column.null_count and column.type != pa.uint64():
    return column.cast(pa.int64()).to_numpy()
  numbers = arrow_values.to_numbers(column)
  known = numbers[~np.isnan(numbers)]
  if is_whole and np.abs(known).max(initial=0) >= _FLOAT_LIMIT:
    return numbers
  with np.errstate(over='ignore'):  # features refuse infinite numbers
    return numbers.astype(np.float32)


def _to_days(column: pa.ChunkedArray) -> np.ndarray:
  zone = getattr(column.type, 'tz', None)
  seconds = column.cast(pa.timestamp('s', zone), safe=False).cast(pa.int64())
  return (arrow_values.plain(seconds) / _SECONDS_PER_DAY).astype(np.float32)


def _read_lists(
    column: pa.ChunkedArray, name: str, settings: config_data.TablesConfig
) -> tuple[schema.Column | None, str]:
  """Lists of strings as tags, of numbers as vectors.

  Whole numbers in lists of any length are tags unless the settings name them
  vectors. A list that is missing is a row without tags, or a vector of NaN.

  Raises:
    ColumnError: for vectors of several lengths, and for strings in them.
  """
  array = _combine(column)
  rows = pc.list_parent_indices(array).to_numpy()
  flat = pc.list_flatten(array)
  kind = flat.type
  if pa.types.is_null(kind):
    return None, 'its lists are empty'
  is_string = arrow_values.is_string(kind)
  is_whole = pa.types.is_integer(kind)
  is_number = is_whole or pa.types.is_floating(kind)
  if not is_string and not is_number:
    return None, f'it holds lists of {kind}, which no feature reads'
  is_fixed = pa.types.is_fixed_size_list(array.type)
  are_tags = is_string or (is_whole and not is_fixed)
  if name in settings.vector_columns:
    are_tags = False
  elif name in settings.tag_columns:
    are_tags = is_string or is_whole
  if not are_tags:
    return _make_vectors(len(array), rows, flat), ''
  if is_whole:
    flat = flat.cast(pa.string())
  weight = None
  if settings.tag_weight_separator:
    flat, weight = _split_weights(flat, rows, settings.tag_weight_separator)
  return _make_tags(len(array), rows, flat, weight), ''


def _read_sequences(column: pa.ChunkedArray) -> schema.Sequences:
  """Lists in their order, without missing and blank values.

  A list that is missing is an empty one.

  Raises:
    ColumnError: for values that are no lists of strings or whole numbers.
  """
  kind = column.type
  if pa.types.is_null(kind):
    column, kind = column.cast(pa.list_(pa.null())), pa.list_(pa.null())
  if not _is_list(kind):
    raise arrow_values.ColumnError(f'values of type {kind} are no lists')
  array = _combine(column)
  rows = pc.list_parent_indices(array).to_numpy()
  flat = pc.list_flatten(array)
  if pa.types.is_null(flat.type):
    values = np.zeros(0, object)
    rows = rows[:0]
  elif arrow_values.is_string(flat.type):
    found = arrow_values.encode(pa.chunked_array([flat]))
    known = pc.utf8_trim_whitespace(found.values)
    known = np.append(known.to_numpy(zero_copy_only=False), '')
    keep = known[found.codes] != ''  # code -1 is the blank at the end
    values, rows = known[found.codes[keep]], rows[keep]
  elif pa.types.is_integer(flat.type):
    keep = arrow_values.to_mask(flat.is_valid())
    try:
      values = flat.drop_null().cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid:
      raise arrow_values.ColumnError(
          'a sequence holds whole numbers beyond 63 bits; write them as strings'
      ) from None
    rows = rows[keep]
  else:
    raise arrow_values.ColumnError(
        f'lists of {flat.type} are no sequences, which hold strings or whole '
        'numbers'
    )
  length = np.bincount(rows, minlength=len(array))
  return schema.Sequences(values, np.concatenate([[0], np.cumsum(length)]))


def _is_list(kind: pa.DataType) -> bool:
  return bool(
      pa.types.is_list(kind)
      or pa.types.is_large_list(kind)
      or pa.types.is_fixed_size_list(kind)
  )


def _read_weights(column: pa.ChunkedArray) -> tuple[schema.Column | None, str]:
  """Maps of strings to numbers, or structs of numbers, as weighted tags."""
  array = _combine(column)
  num_rows = len(array)
  if pa.types.is_map(array.type):
    lists = pa.ListArray.from_arrays(
        array.offsets,
        pa.StructArray.from_arrays([array.keys, array.items], ['key', 'value']),
    )
    length = np.diff(array.offsets.to_numpy())
    rows = np.repeat(np.arange(num_rows), length)
    entries = lists.flatten()
    names, weights = entries.field(0), entries.field(1)
    if not arrow_values.is_string(names.type):
      names = names.cast(pa.string())
  else:
    fields = [array.type.field(n).name for n in range(array.type.num_fields)]
    repeated = np.repeat(np.array(fields, object), num_rows)
    names = pa.array(repeated, pa.string())
    rows = np.tile(np.arange(num_rows), len(fields))
    parts = [pc.struct_field(array, [n]) for n in range(len(fields))]
    numeric = lambda kind: (  # null where no row has a weight of that name
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_null(kind)
    )
    if not parts or not all(numeric(part.type) for part in parts):
      return (
          None,
          'it holds objects of more than numbers, which no feature reads',
      )
    weights = pa.concat_arrays([part.cast(pa.float64()) for part in parts])
  try:
    weight = arrow_values.to_numbers(pa.chunked_array([weights]))
  except arrow_values.ColumnError as error:
    return None, f'{error}, so no feature reads it'
  return _make_tags(num_rows, rows, names, np.nan_to_num(weight)), ''


def _combine(column: pa.ChunkedArray) -> pa.Array:
  """One array whose children begin where it begins."""
  return pa.concat_arrays(column.chunks or [pa.array([], column.type)])


def _split_weights(
    names: pa.Array, rows: np.ndarray, separator: str
) -> tuple[pa.Array, np.ndarray]:
  """'jazz:2' as 'jazz' and 2; without a separator the weight is 1.

  Raises:
    ColumnError: if what follows the last separator is no number.
  """
  found = arrow_values.encode(pa.chunked_array([names]))
  parts = pc.split_pattern(found.values, separator, max_splits=1, reverse=True)
  has_weight = pc.equal(pc.list_value_length(parts), 2)
  written = parts.filter(has_weight)
  weight = np.ones(len(found.values) + 1)
  try:
    column = pa.chunked_array([pc.list_element(written, 1)])
    weight[:-1][arrow_values.to_mask(has_weight)] = arrow_values.to_numbers(
        column
    )
  except arrow_values.ColumnError as error:
    bad = np.flatnonzero(arrow_values.to_mask(has_weight))[error.row]
    row = int(rows[np.argmax(found.codes == bad)])
    message = f'{error} after {separator!r} of a tag'
    raise arrow_values.ColumnError(message, row) from None
  indices = pa.array(found.codes, mask=found.codes < 0)
  return pc.list_element(parts, 0).take(indices), weight[found.codes]


def _make_tags(
    num_rows: int, rows: np.ndarray, names: pa.Array, weight: np.ndarray | None
) -> schema.Tags:
  """Tags in alphabetical order; repeated ones of a row are summed."""
  names = pc.utf8_trim_whitespace(names)
  found = arrow_values.encode(pa.chunked_array([names]))
  order = pc.array_sort_indices(found.values).to_numpy()
  place = np.empty(len(order), np.int64)
  place[order] = np.arange(len(order))
  values = found.values.to_numpy(zero_copy_only=False)[order]
  keep = found.codes >= 0
  is_blank = np.append(values == '', False)
  column = np.append(place, -1)[found.codes]
  keep &= ~is_blank[column]
  data = np.ones(len(rows), np.float32) if weight is None else weight
  with np.errstate(over='ignore'):  # features refuse infinite weights
    data = data[keep].astype(np.float32)
  shape = (num_rows, len(values))
  matrix = scipy.sparse.csr_array(
      (data, (rows[keep], column[keep])), shape=shape
  )
  matrix.sum_duplicates()
  matrix.eliminate_zeros()
  used = np.flatnonzero(values != '')
  return schema.Tags(matrix[:, used], values[used])


def _make_vectors(
    num_rows: int, rows: np.ndarray, flat: pa.Array
) -> np.ndarray:
  """float32 [N, D], NaN where a list is missing."""
  length = np.bincount(rows, minlength=num_rows)
  given = np.flatnonzero(length)
  if not len(given):
    return np.full((num_rows, 1), np.nan, np.float32)
  width = length[given[0]]
  other = given[length[given] != width]
  if len(other):
    raise arrow_values.ColumnError(
        f'a vector of {length[other[0]]} numbers where {width} were expected',
        int(other[0]),
    )
  try:
    numbers = arrow_values.to_numbers(pa.chunked_array([flat]))
  except arrow_values.ColumnError as error:
    row = None if error.row is None else int(rows[error.row])
    raise arrow_values.ColumnError(f'{error} in a vector', row) from None
  result = np.full((num_rows, width), np.nan, np.float32)
  with np.errstate(over='ignore'):  # features refuse infinite numbers
    result[given] = numbers.reshape(-1, width)
  return result
