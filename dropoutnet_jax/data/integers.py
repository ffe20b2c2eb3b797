# SPDX-License-Identifier: Apache-2.0
"""Files that hold nothing but integers: lists by row, and columns.

Such files have up to millions of numbers, so a scan with array operations
takes them whole. It knows only the plain form (digits, single separators);
whatever else it meets is read again line by line, and that slow reading is
the definition: it accepts the file or names the line. What the numbers mean
is not known here.
"""

from collections.abc import Sequence
import dataclasses
import pathlib

import numpy as np

from dropoutnet_jax import errors
from dropoutnet_jax.data import text

# Bound on the columns of a sparse table whose width no other file tells: a
# larger number is a slip, and the table would not fit into memory.
MAX_COLUMNS = 10**7


@dataclasses.dataclass(frozen=True)
class Field:
  """An integer column: its name in messages, its least and largest value."""

  name: str
  low: int
  high: int


@dataclasses.dataclass(frozen=True)
class Columns:
  """Integers by record.

  Attributes:
    value: int64 [N, C], one row per record.
    line: int64 [N], line of each record, from 1.
  """

  value: np.ndarray
  line: np.ndarray

  def __len__(self) -> int:
    return len(self.line)


@dataclasses.dataclass(frozen=True)
class Lists:
  """One list of integers per line.

  Attributes:
    start: int64 [N + 1]; row n is value[start[n]:start[n + 1]], line n + 1.
    value: int64 [M].
    count: int64 [M], the number written behind each value, or None.
  """

  start: np.ndarray
  value: np.ndarray
  count: np.ndarray | None = None

  def __len__(self) -> int:
    return len(self.start) - 1

  def rows(self) -> np.ndarray:
    """int64 [M], the row of each value."""
    return np.repeat(np.arange(len(self)), np.diff(self.start))


def read_columns(
    path: pathlib.Path, fields: Sequence[Field], separator: str = ','
) -> Columns:
  """Reads records like '17,4,1'; blank lines are skipped.

  Raises:
    errors.UserError: with file and line, for a ragged line, a field that is no
      whole number or out of its range, or a file without records.
  """
  data = text.read_bytes(path)
  columns = _scan_columns(data, len(fields), separator)
  if columns is None:
    columns = _parse_columns(path, fields, separator)
  for number, field in enumerate(fields):
    value = columns.value[:, number]
    check_range(path, columns.line, value, field)
  return columns


def read_lists(path: pathlib.Path, field: Field) -> Lists:
  """Reads lines like '3 17 4 99': how many values follow, then the values.

  Raises:
    errors.UserError: with file and line, for a count that does not match, a
      token that is no whole number or out of range, or a blank line.
  """
  data = text.read_bytes(path)
  lists = _scan_lists(data, counted=False)
  if lists is None:
    lists = _parse_lists(path, field.name, counted=False)
  check_range(path, lists.rows() + 1, lists.value, field)
  return lists


def read_counted_lists(path: pathlib.Path, field: Field) -> Lists:
  """Reads lines like '2 17:1 4:3': pairs that follow, then value:count each.

  Raises:
    errors.UserError: as read_lists; also for a count below 1.
  """
  data = text.read_bytes(path)
  lists = _scan_lists(data, counted=True)
  if lists is None:
    lists = _parse_lists(path, field.name, counted=True)
  line = lists.rows() + 1
  check_range(path, line, lists.value, field)
  assert lists.count is not None
  name = f'{field.name} count'
  check_range(path, line, lists.count, Field(name, 1, 2**31 - 1))
  return lists


def check_range(
    path: pathlib.Path, line: np.ndarray, value: np.ndarray, field: Field
) -> None:
  """Raises UserError naming the first value [N] outside of field's range."""
  bad = np.flatnonzero((value < field.low) | (value > field.high))
  if bad.size:
    first = bad[0]
    raise errors.UserError(
        f'{path}:{line[first]}: {field.name} {value[first]} is out of range; '
        f'it must be from {field.low} to {field.high}. {text.REMEDY}'
    )


@dataclasses.dataclass(frozen=True)
class _Tokens:
  """Every number of a file, in order.

  `value` int64 [K]; `line` int64 [K] from 0; `after` uint8 [K], the byte
  behind each; `single` tells that each separator stands behind a number.
  """

  value: np.ndarray
  line: np.ndarray
  after: np.ndarray
  single: bool


def _scan(data: bytes, separators: bytes) -> _Tokens | None:
  """The numbers of a file of digits and separators, None for other files."""
  if not data or data.translate(None, b'0123456789\n' + separators):
    return None
  if not data.endswith(b'\n'):
    data += b'\n'
  array = np.frombuffer(data, np.uint8)
  digit = (array >= ord('0')) & (array <= ord('9'))
  last = np.flatnonzero(digit[:-1] & ~digit[1:])  # of each number
  num_digits = int(digit.sum())
  newline = np.flatnonzero(array == ord('\n'))
  line = np.searchsorted(newline, last)
  if not last.size:
    return None
  plain = data.translate(bytes.maketrans(separators, b' ' * len(separators)))
  value = np.fromstring(plain, np.int64, sep=' ')
  if value.max() >= 10**18:  # larger numbers are cut off at 2**63 - 1
    return None
  single = len(data) - num_digits == last.size
  return _Tokens(value, line, array[last + 1], single)


def _scan_columns(
    data: bytes, num_fields: int, separator: str
) -> Columns | None:
  tokens = _scan(data, separator.encode())
  if tokens is None or not tokens.single or len(tokens.value) % num_fields:
    return None
  after = np.full(num_fields, ord(separator), np.uint8)
  after[-1] = ord('\n')
  if not np.all(tokens.after.reshape(-1, num_fields) == after):
    return None
  value = tokens.value.reshape(-1, num_fields)
  return Columns(value, np.arange(1, len(value) + 1))


def _scan_lists(data: bytes, counted: bool) -> Lists | None:
  tokens = _scan(data, b' :' if counted else b' ')
  if tokens is None or (counted and not tokens.single):
    return None
  size = np.bincount(tokens.line)  # numbers in each line
  if len(size) != data.rstrip(b'\n').count(b'\n') + 1 or not size.all():
    return None
  head = np.cumsum(size) - size  # position of each line's own count
  length = tokens.value[head]
  if not np.array_equal(size, 1 + (2 if counted else 1) * length):
    return None
  start = np.concatenate([[0], np.cumsum(length)])
  body = np.delete(tokens.value, head)
  if not counted:
    return Lists(start, body)
  after = np.delete(tokens.after, head)
  colons = int(np.sum(tokens.after == ord(':')))
  if colons != len(body) // 2 or not np.all(after[::2] == ord(':')):
    return None
  return Lists(start, body[::2], body[1::2])


def _parse_columns(
    path: pathlib.Path, fields: Sequence[Field], separator: str
) -> Columns:
  """The definition of read_columns, line by line."""
  records = text.read_records(path, len(fields), separator)
  value = []
  heading = ' The file has no heading line.'  # said of the first record only
  for line, tokens in records:
    hint = text.page_hint(tokens[0]) or heading
    for token, field in zip(tokens, fields, strict=True):
      value.append(text.parse_integer(token, path, line, field.name, hint))
    heading = ''
  return Columns(
      np.array(value, np.int64).reshape(-1, len(fields)),
      np.array([line for line, _ in records], np.int64),
  )


def _parse_lists(path: pathlib.Path, what: str, counted: bool) -> Lists:
  """The definition of read_lists and read_counted_lists, line by line."""
  start, value, count = [0], [], []
  for line, content in text.iterate_rows(path, "'0' for an empty list"):
    hint = text.separator_hint(content, ' \t')
    head, *tokens = content.split()
    length = text.parse_integer(head, path, line, 'the count', hint)
    if length != len(tokens):
      raise errors.UserError(
          f'{path}:{line}: the line says {length} and lists {len(tokens)} '
          f'{what}(s). {text.REMEDY}{hint}'
      )
    for token in tokens:
      left, colon, right = token.partition(':') if counted else (token, ':', '')
      if not colon:
        raise errors.UserError(
            f'{path}:{line}: found {token!r}; expected {what}:count.{hint} '
            + text.REMEDY
        )
      value.append(text.parse_integer(left, path, line, what, hint))
      if counted:
        name = f'{what} count'
        count.append(text.parse_integer(right, path, line, name, hint))
    start.append(len(value))
  to_array = lambda numbers: np.array(numbers, np.int64)
  return Lists(
      to_array(start), to_array(value), to_array(count) if counted else None
  )
