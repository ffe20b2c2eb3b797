# SPDX-License-Identifier: Apache-2.0
"""Text files in: lines, records and numbers, or the line that is wrong.

Knows bytes, encodings and line ends; knows no user, item or data set. Every
hand-written reader starts here, so that a byte-order mark, a Windows line end
or a blank last line never reaches an id, and every refusal names its line.
Files of integers alone are read by integers.py.
"""

import codecs
from collections.abc import Iterator
import math
import pathlib
import re

from dropoutnet_jax import errors

_NUMBER = re.compile(r'[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?', re.ASCII)
_FLOAT32_LIMIT = 3.4e38
_INTEGER = re.compile(r'-?\d+', re.ASCII)
# Not str.strip(): a no-break space is a word of a published vocabulary.
_BLANKS = ' \t'
REMEDY = 'Correct the line, or fetch the file again.'
_PACKED = {b'\x1f\x8b': 'gzip', b'PK\x03\x04': 'zip'}
_SEPARATORS = {'\t': 'tabs', ';': "';'", '|': "'|'", ',': "','", ' ': 'spaces'}


class MissingFileError(errors.UserError):
  """A file that should be there is not; its publisher may be named then."""


def read_bytes(path: pathlib.Path) -> bytes:
  r"""Returns the file without byte-order mark, each line end as '\n'.

  Raises:
    MissingFileError: if there is no such file.
    errors.UserError: if it cannot be read, is packed or UTF-16, or holds a
      NUL byte.
  """
  try:
    data = path.read_bytes()
  except FileNotFoundError:
    raise MissingFileError(f'{path} does not exist.') from None
  except OSError as error:
    raise errors.UserError(
        f'{path} cannot be read: {error.strerror}.'
    ) from None
  for mark, name in _PACKED.items():
    if data.startswith(mark):
      raise errors.UserError(
          f'{path} is packed with {name}; unpack it and put its content there.'
      )
  if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
    raise errors.UserError(f'{path}:1: the file is UTF-16; save it as UTF-8.')
  data = data.removeprefix(codecs.BOM_UTF8)
  if b'\r' in data:
    data = data.replace(b'\r\n', b'\n').replace(b'\r', b'\n')
  position = data.find(b'\0')
  if position >= 0:
    raise errors.UserError(
        f'{path}:{_line_at(data, position)}: found a NUL byte, so the file is '
        'not text, or is UTF-16; save it as UTF-8 text.'
    )
  return data


def iterate_lines(
    path: pathlib.Path, encoding: str = 'utf-8'
) -> Iterator[tuple[int, str]]:
  """Yields (line number from 1, line without its end).

  Args:
    path: of the file.
    encoding: of the file where it is not valid UTF-8. UTF-8 is always tried
      first: editors convert, and other text is hardly ever valid UTF-8.

  Raises:
    errors.UserError: as read_bytes, or if a byte cannot be decoded.
  """
  data = read_bytes(path)
  lines = _decode(path, data, encoding).split('\n')
  if not lines[-1]:  # what follows the last line end is no line
    lines.pop()
  yield from enumerate(lines, start=1)


def iterate_rows(
    path: pathlib.Path, empty: str = ''
) -> Iterator[tuple[int, str]]:
  """Yields the lines of a UTF-8 file in which line n describes row n.

  Args:
    path: of the file.
    empty: how the file writes a row that holds nothing, for messages, like
      "'0' for an empty list"; '' where there is no such row.

  Raises:
    errors.UserError: as iterate_lines; also for a file without rows and for a
      blank line with rows below it, which skipping would renumber.
  """
  blank = 0
  number = 0
  for number, line in iterate_lines(path):
    if not line.strip(_BLANKS):
      blank = blank or number
      continue
    if blank:
      raise errors.UserError(
          f'{path}:{blank}: blank line, but line n of this file is row n, so '
          'it cannot be skipped. Delete it, or write the row that it stands '
          + (f'for ({empty}).' if empty else 'for.')
      )
    yield number, line
  if number == 0 or blank == 1:
    raise no_rows(path)


def read_records(
    path: pathlib.Path,
    num_fields: int,
    separator: str,
    encoding: str = 'utf-8',
) -> list[tuple[int, list[str]]]:
  """Returns (line number, its fields without outer blanks) of each record.

  Blank lines are skipped: a record carries its own id. Between fields that
  blanks separate there may be several.

  Raises:
    errors.UserError: as iterate_lines; also for another number of fields and
      for a file without records.
  """
  records = []
  for number, line in iterate_lines(path, encoding):
    if not line.strip(_BLANKS):
      continue
    tokens = line.split(None if separator == ' ' else separator)
    fields = [token.strip(_BLANKS) for token in tokens]
    if len(fields) != num_fields:
      raise errors.UserError(
          f'{path}:{number}: expected {num_fields} field(s) with '
          f'{_SEPARATORS[separator]} between, found {len(fields)}: '
          f'{line[:60]!r}.{separator_hint(line, separator, num_fields)} '
          + REMEDY
      )
    records.append((number, fields))
  if not records:
    raise no_rows(path)
  return records


def read_names(path: pathlib.Path) -> list[str]:
  """Returns one name per line, outer blanks removed, for files of row names."""
  return [line.strip(_BLANKS) for _, line in iterate_rows(path)]


def parse_integer(
    token: str, path: pathlib.Path, line: int, what: str, hint: str = ''
) -> int:
  """Returns the whole number written in `token`.

  Stricter than int(): neither '1_000' nor digits of other scripts pass.
  `hint` is empty or a sentence after a blank, on what may be the cause.

  Raises:
    errors.UserError: if it is none, or has more than 18 digits.
  """
  if not _INTEGER.fullmatch(token) or len(token) > 18:
    raise errors.UserError(
        f'{path}:{line}: {what} {token[:60]!r} is not a whole number.{hint} '
        + REMEDY
    )
  return int(token)


def parse_number(
    token: str,
    path: pathlib.Path,
    line: int,
    what: str,
    hint: str = '',
    may_be_empty: bool = False,
) -> float:
  """Returns the finite number written in `token`.

  Args:
    token: the number, without blanks.
    path: of the file, for messages.
    line: of the number.
    what: the name of the number.
    hint: as for parse_integer.
    may_be_empty: whether an empty token stands for a missing value, NaN.

  Raises:
    errors.UserError: for anything else, such as '-', 'inf', 'nan' or '1,200',
      and for what a float32 cannot hold.
  """
  if may_be_empty and not token:
    return math.nan
  value = float(token) if _NUMBER.fullmatch(token) else math.nan
  if not abs(value) < _FLOAT32_LIMIT:
    remedy = REMEDY
    if may_be_empty:
      remedy = 'Leave the field empty where the value is missing.'
    raise errors.UserError(
        f'{path}:{line}: {what} {token[:60]!r} is not a finite number.{hint} '
        + remedy
    )
  return value


def separator_hint(line: str, expected: str, num_fields: int = 0) -> str:
  """Returns ' It looks ...' where a line is of another format, else ''.

  Args:
    line: that cannot be read.
    expected: the characters that may separate fields; a line with one of them
      is not taken to be separated by others.
    num_fields: that the line must have, 0 if any number.
  """
  content = line.strip()
  if page_hint(content):
    return page_hint(content)
  if any(separator in content for separator in expected):
    return ''
  for separator, name in _SEPARATORS.items():
    found = len(content.split(separator))
    if found > 1 and num_fields in (0, found):
      return f' It looks separated by {name}.'
  return ''


def page_hint(line: str) -> str:
  """Returns ' It looks like ...' for what a server sends instead of a file."""
  return ' It looks like a web page.' if line.startswith('<') else ''


def no_rows(path: pathlib.Path) -> errors.UserError:
  """The refusal of a file that is empty or blank throughout."""
  return errors.UserError(f'{path}: no rows; the file is empty.')


def _decode(path: pathlib.Path, data: bytes, encoding: str) -> str:
  try:
    return data.decode('utf-8')
  except UnicodeDecodeError as error:
    start = error.start
  try:
    return data.decode(encoding)
  except UnicodeDecodeError:
    raise errors.UserError(
        f'{path}:{_line_at(data, start)}: byte 0x{data[start]:02x} is not '
        f'{encoding.upper()}; save the file as UTF-8.'
    ) from None


def _line_at(data: bytes, position: int) -> int:
  return data.count(b'\n', 0, position) + 1
