# SPDX-License-Identifier: Apache-2.0
"""Values of Arrow columns: distinct ones, numbers, times.

Strings are numbers if all of a column are; '007' is none, so that a code with
leading zeros keeps them. Only distinct values are looked at, never row by row.
Knows no file, no id and no feature.
"""

import dataclasses

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc

# Whole numbers without a second way to write them, within 18 digits.
DIGITS = r'^(0|-?[1-9]\d{0,17})$'
_EXPONENT = r'([eE][-+]?\d+)?'
_DECIMAL = (
    rf'^\s*([-+]?(0|[1-9]\d*)(\.\d*)?{_EXPONENT}|[-+]?\.\d+{_EXPONENT})\s*$'
)
_DATE = r'^\d{4}-\d\d-\d\d'
# What programs write for a missing number.
_MISSING = (
    'NaN',
    'nan',
    'NA',
    'N/A',
    'n/a',
    'NULL',
    'null',
    'None',
    'none',
    '-',
)


_SECONDS_PER_YEAR = 365 * 86_400


class ColumnError(ValueError):
  """A value that cannot be read as asked for.

  Attributes:
    row: of the first such value, or None.
  """

  def __init__(self, message: str, row: int | None = None):
    super().__init__(message)
    self.row = row


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
  """Values as numbers of distinct values.

  Attributes:
    codes: int64 [N], -1 where missing.
    values: the distinct values that occur, at least once each.
  """

  codes: np.ndarray
  values: pa.Array

  def find(self, is_meant: pa.Array) -> tuple[int, str]:
    """First row with one of the marked values (bool, like values), shown."""
    marked = is_meant.fill_null(False).to_numpy(zero_copy_only=False)
    row = int(np.argmax((self.codes >= 0) & marked[self.codes]))
    return row, repr(self.values[int(self.codes[row])].as_py())[:60]


def encode(column: pa.ChunkedArray) -> Encoded:
  """Numbers the distinct values of a column that is no list or struct."""
  if not pa.types.is_dictionary(column.type):
    column = pc.dictionary_encode(column)
  if not column.num_chunks:
    empty = pa.array([], column.type.value_type)
    return Encoded(np.zeros(0, np.int64), empty)
  array = column.unify_dictionaries().combine_chunks()
  codes = array.indices.cast(pa.int64()).fill_null(-1).to_numpy()
  values = array.dictionary
  count = np.bincount(codes[codes >= 0], minlength=len(values))
  # A null among the values, and values that no row has.
  is_used = (count > 0) & values.is_valid().to_numpy(zero_copy_only=False)
  if not is_used.all():
    place = np.where(is_used, np.cumsum(is_used) - 1, -1)
    codes = np.append(place, -1)[codes]  # the last one serves code -1
    values = values.filter(pa.array(is_used))
  if pa.types.is_large_string(values.type) or pa.types.is_string_view(
      values.type
  ):
    values = values.cast(pa.string())
  return Encoded(codes, values)


def is_string(kind: pa.DataType) -> bool:
  """Whether values are strings, also as a dictionary."""
  if pa.types.is_dictionary(kind):
    kind = kind.value_type
  return (
      pa.types.is_string(kind)
      or pa.types.is_large_string(kind)
      or pa.types.is_string_view(kind)
  )


def are_all(values: pa.Array, pattern: str) -> bool:
  """Whether all strings match, and there is one."""
  return bool(len(values)) and bool(
      pc.all(pc.match_substring_regex(values, pattern)).as_py()
  )


def are_numbers(values: pa.Array) -> pa.Array:
  """Which strings are numbers, bool like values."""
  return pc.match_substring_regex(values, _DECIMAL)


def are_words(values: pa.Array) -> pa.Array:
  """Which strings are neither numbers nor stand for a missing one, bool."""
  known = pc.or_(are_numbers(values), pc.is_in(values, pa.array(_MISSING)))
  return pc.invert(known)


def infer(values: pa.Array) -> pa.Array:
  """Distinct strings as int64, bool, float64, timestamp, or as they are.

  Words for a missing number ('NaN', 'NULL', ...) become null if all else is a
  number.
  """
  is_missing = pc.is_in(values, pa.array(_MISSING))
  known = pc.if_else(is_missing, pa.scalar(None, pa.string()), values)
  rest = known.drop_null()
  if are_all(rest, DIGITS):
    return known.cast(pa.int64())
  if are_all(rest, _DECIMAL):
    return pc.utf8_trim_whitespace(known).cast(pa.float64())
  if are_all(rest, '^(?i)(true|false)$'):
    return pc.equal(pc.utf8_lower(known), 'true')
  if are_all(rest, _DATE):
    for kind in (pa.timestamp('us'), pa.timestamp('us', 'UTC')):
      try:
        return known.cast(kind)
      except pa.ArrowInvalid:
        continue
  return values


def to_numbers(column: pa.ChunkedArray) -> np.ndarray:
  """float64 [N] of numbers, truth values, or strings of them; NaN if missing.

  Raises:
    ColumnError: for another type, and for a string that is no number.
  """
  codes, values = _unfold(column)
  kind = values.type
  if codes is not None and is_string(kind):
    is_missing = pc.is_in(values, pa.array(_MISSING))
    if pc.all(is_missing).as_py():
      return np.full(len(codes), np.nan)
    good = pc.or_(are_numbers(values), is_missing)
    row, shown = Encoded(codes, values).find(pc.invert(good))
    raise ColumnError(f'{shown} is not a number', row)
  if not (
      pa.types.is_integer(kind)
      or pa.types.is_floating(kind)
      or pa.types.is_boolean(kind)
      or pa.types.is_decimal(kind)
      or pa.types.is_null(kind)
  ):
    raise ColumnError(f'values of type {kind} are not numbers')
  numbers = plain(values)
  return numbers if codes is None else np.append(numbers, np.nan)[codes]


def _unfold(
    column: pa.ChunkedArray,
) -> tuple[np.ndarray | None, pa.Array | pa.ChunkedArray]:
  """Strings as codes and what their distinct values are; others as they are."""
  if is_string(column.type):
    found = encode(column)
    if not len(found.values):
      return found.codes, pa.array([], pa.null())
    return found.codes, infer(found.values)
  if pa.types.is_dictionary(column.type):
    column = column.cast(column.type.value_type)
  return None, column


def to_seconds(column: pa.ChunkedArray) -> tuple[np.ndarray, int]:
  """Times int64 [N] in seconds since 1970, and by what numbers were divided.

  Numbers beyond the year 5000 are taken for milli-, micro- or nanoseconds.

  Raises:
    ColumnError: for missing times, for what is no time, and for numbers of
      two units.
  """
  codes, values = _unfold(column)
  if codes is not None and is_string(values.type):
    good = pc.or_(are_numbers(values), pc.is_in(values, pa.array(_MISSING)))
    is_date = pc.match_substring_regex(values, _DATE)
    if pc.any(pc.invert(pc.or_(good, is_date))).as_py():
      good = pc.or_(good, is_date)
    row, shown = Encoded(codes, values).find(pc.invert(good))
    raise ColumnError(
        f"{shown} is neither a number nor a time like '2026-01-31 12:30', or "
        'is not written as the others are',
        row,
    )
  if pa.types.is_boolean(values.type):
    raise ColumnError('truth values are no times')
  is_date = is_clock(values.type)
  if is_date:
    zone = getattr(values.type, 'tz', None)
    values = values.cast(pa.timestamp('s', zone), safe=False).cast(pa.int64())
  is_exact = pa.types.is_integer(values.type)  # where float64 would round
  numbers = values.fill_null(0).to_numpy() if is_exact else to_numbers(values)
  missing = to_mask(values.is_null()) | ~np.isfinite(numbers)
  if codes is not None:  # the last one serves code -1
    missing = np.append(missing, True)[codes]
    numbers = np.append(numbers, numbers.dtype.type(0))[codes]
  if missing.any():
    row = int(np.argmax(missing))
    raise ColumnError(f'{missing.sum():,} times are missing', row)
  largest = float(np.abs(numbers).max(initial=0))
  unit = 10 ** (3 * sum(largest >= 10.0**power for power in (11, 14, 17)))
  unit = 1 if is_date else unit
  seconds = np.floor_divide(numbers, unit).astype(np.int64)
  if not is_date:
    _check_one_unit(seconds, numbers, unit)
  return seconds, unit


def _check_one_unit(
    seconds: np.ndarray, numbers: np.ndarray, unit: int
) -> None:
  """Refuses seconds among milliseconds, and -1 for a time that is unknown.

  Times that go on from 1970 without a gap, as those since a start of one's own,
  are none of these.
  """
  near = np.abs(seconds) < _SECONDS_PER_YEAR
  if unit == 1:
    near &= seconds < 0
  if not near.any() or near.all():
    return
  if seconds[~near].min() < max(10 * seconds[near].max(), _SECONDS_PER_YEAR):
    return
  row = int(np.argmax(near))
  how = (
      f', divided by {unit:,} as the largest ones ask for,' if unit > 1 else ''
  )
  what = 'are of another unit or stand for no time'
  raise ColumnError(
      f'{numbers[row]:.16g}{how} is within a year of 1970, as are '
      f'{np.count_nonzero(near):,} of {len(near):,} times, and all others are '
      f'much later: they {what if unit > 1 else "stand for no time"}',
      row,
  )


def is_clock(kind: pa.DataType) -> bool:
  """Whether values are dates, with or without a time."""
  return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def to_mask(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
  """bool [N]; arrays keep bits, which NumPy cannot look at."""
  return np.asarray(values, bool)


def plain(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
  """float64 [N] of numbers or truth values, NaN where missing."""
  if pa.types.is_boolean(values.type):
    values = values.cast(pa.int8())
  return values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
