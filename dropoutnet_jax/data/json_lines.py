# SPDX-License-Identifier: Apache-2.0
"""JSON lines as Arrow tables: blocks of whole lines, each an object.

pyarrow ends the process where the first value that it parses is null, where a
value is nested by tens of thousands, and where a column changes its kind from
one of its blocks to the next. So lines are looked at before it sees them, it is
given one block at a time, and what blocks differ in is settled here.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
import functools
import io
import itertools
import re
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import json as arrow_json

_LONGEST = 1 << 26  # bytes of a line
_AT_ONCE = 8  # blocks
_DEEPEST = 100  # objects and lists within each other
_BLANK = b' \t\r'
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_ARRAY = re.compile(rb'\[\s*(\{|$)')  # of objects, or one that goes on
_ROW = re.compile(r'^(?:JSON parse error: )?(.*) in row (\d+)$', re.DOTALL)
_OPEN, _CLOSE = ord('{'), ord('}')  # and lists, as `_fold` has them
_WANTED = 'each line has to hold one whole object'
_ONE_ARRAY = (
    f"the file is one array; {_WANTED}, as jq -c '.[]' FILE writes them"
)
UNFINISHED = (
    f'the object does not end on its line; {_WANTED}, as jq -c . FILE writes '
    'them'
)


class LineError(ValueError):
  """What is wrong with a line.

  Attributes:
    line: its number, from 1.
  """

  def __init__(self, line: int, message: str):
    super().__init__(message)
    self.line = line


class ParseError(LineError):
  """Of a line that is no JSON, in words that are not exact."""


class _Block(NamedTuple):
  """Some whole lines, of which one at least is not empty."""

  first: int  # number of its first line
  data: bytes


def describe_other(is_array: bool) -> str:
  """What is wrong with a line that holds an array or another value."""
  kind = 'an array' if is_array else 'a value'
  return f'{kind} where an object belongs; {_WANTED}'


def blocks(opened: Callable[[], Any], num_bytes: int) -> Iterator[pa.Table]:
  """Tables of a file, one after the other; columns are those of a block.

  Args:
    opened: opens the file.
    num_bytes: of a block, if no line is longer.

  Raises:
    LineError: for a line that is no object, too long or nested too deeply.
    pa.ArrowException: for a block that cannot be read.
  """
  for block in _read(opened, num_bytes):
    yield _parse(block)


def table(opened: Callable[[], Any], num_bytes: int) -> pa.Table:
  """All of a file; a column has one type, by what all of its lines hold.

  Raises:
    LineError: as `blocks`, and for a column that changes its kind.
    pa.ArrowException: for a block that cannot be read.
  """
  tables, firsts = [], []
  merged = pa.schema([])
  for block, part in _parse_all(_read(opened, num_bytes), None):
    merged = _merge_schemas(merged, part.schema, block.first)
    tables.append(part)
    firsts.append(block.first)
  if not tables:
    raise pa.ArrowInvalid('no line has an object')
  stale = {
      first
      for first, part in zip(firsts, tables)
      if any(merged.field(one.name).type != one.type for one in part.schema)
  }
  if stale:  # A date is a string if another block has other strings.
    again = (one for one in _read(opened, num_bytes) if one.first in stale)
    for block, part in _parse_all(again, merged):
      tables[firsts.index(block.first)] = part
  return pa.concat_tables(tables, promote_options='default')


def _read(opened: Callable[[], Any], num_bytes: int) -> Iterator[_Block]:
  """Whole lines, as many as fit, that were looked at."""
  with opened() as file:
    rest, first, is_start = b'', 1, True
    is_first = True  # no line so far is more than blanks
    while True:
      data = file.read(num_bytes)
      if is_start:
        data = data.removeprefix(b'\xef\xbb\xbf')  # mark of UTF-8
        is_start = False
      lines, newline, rest = (rest + data).rpartition(b'\n')
      if not data:
        lines, rest = rest, b''
      if len(rest) > _LONGEST:
        number = first + lines.count(b'\n') + len(newline)
        told = f'the line is longer than {_LONGEST:,} bytes'
        if is_first and not lines.strip() and _ARRAY.match(rest.lstrip()):
          told = _ONE_ARRAY
        raise LineError(number, told)
      if lines.strip(_BLANK + b'\n'):
        _check(first, lines, is_first)
        is_first = False
        yield _Block(first, lines + newline)
      first += lines.count(b'\n') + len(newline)
      if not data:
        return


def _check(first: int, lines: bytes, is_first: bool) -> None:
  """Raises LineError unless each line has objects, not nested deeply.

  An object that goes on on the next line is refused: many could be nested.

  Args:
    first: number of the first line.
    lines: whole ones.
    is_first: whether the lines before have nothing but blanks.
  """
  signs = np.frombuffer(lines + b'\n', np.uint8)
  ends = np.flatnonzero(signs == ord(b'\n'))
  begins = np.concatenate([[0], ends[:-1] + 1])
  unlike = signs[begins] != ord(b'{')
  spans = zip(begins[unlike].tolist(), ends[unlike].tolist())
  other = _find_other(first, lines, spans, is_first)
  folded = _fold(signs)
  num_open, num_closed = (
      np.diff(np.searchsorted(np.flatnonzero(folded == mark), ends), prepend=0)
      for mark in (_OPEN, _CLOSE)
  )
  # Of most lines it is enough to count brackets.
  is_odd = (num_open > _DEEPEST) | (num_open != num_closed)
  for number in np.flatnonzero(is_odd).tolist():
    if other is not None and other.line <= first + number:
      break
    most, last = _depth(lines[begins[number] : ends[number]])
    if most > _DEEPEST:
      raise LineError(
          first + number,
          f'lists or objects are nested more than {_DEEPEST} times',
      )
    if last:
      raise ParseError(first + number, UNFINISHED)
  if other is not None:
    raise other


def _find_other(
    first: int, lines: bytes, spans: Iterable[tuple[int, int]], is_first: bool
) -> LineError | None:
  """An error for the first line that begins with something but an object.

  Args:
    first: number of the first line.
    lines: whole ones.
    spans: where those begin and end that are to be looked at.
    is_first: whether the lines before have nothing but blanks.
  """
  for begin, end in spans:
    line = lines[begin:end].strip(_BLANK)
    if line and not line.startswith(b'{'):
      told = describe_other(line.startswith(b'['))
      if is_first and not lines[:begin].strip() and _ARRAY.match(line):
        told = _ONE_ARRAY
      return LineError(first + lines.count(b'\n', 0, begin), told)
  return None


def _fold(signs: np.ndarray) -> np.ndarray:
  """Square brackets as braces: they differ in this bit alone."""
  return signs | np.uint8(ord('{') ^ ord('['))


def _depth(line: bytes) -> tuple[int, int]:
  """How deeply values are within each other at most, and at the end."""
  folded = _fold(np.frombuffer(_STRING.sub(b'', line), np.uint8))
  depth = np.cumsum((folded == _OPEN).astype(np.int64) - (folded == _CLOSE))
  return int(depth.max(initial=0)), int(depth[-1]) if len(depth) else 0


def _parse_all(
    read: Iterable[_Block], schema: pa.Schema | None
) -> Iterator[tuple[_Block, pa.Table]]:
  """Blocks and their tables; some blocks are parsed at the same time."""
  parse = functools.partial(_parse, schema=schema)
  some, count = iter(read), min(pa.cpu_count(), _AT_ONCE)
  with futures.ThreadPoolExecutor(count) as pool:
    while group := list(itertools.islice(some, count)):
      yield from zip(group, pool.map(parse, group))


def _parse(block: _Block, schema: pa.Schema | None = None) -> pa.Table:
  """The table of a block; of this schema, as far as it has the columns."""
  try:
    part = arrow_json.read_json(
        io.BytesIO(block.data),
        arrow_json.ReadOptions(
            use_threads=False, block_size=len(block.data) + 1
        ),
        arrow_json.ParseOptions(explicit_schema=schema),
    )
  except pa.ArrowInvalid as error:
    told = _ROW.match(str(error))
    if told is None:
      raise
    raise ParseError(_line_of(block, int(told[2])), told[1]) from error
  part.validate(full=True)  # strings are UTF-8
  return part


def _line_of(block: _Block, row: int) -> int:
  """The line of a row, counted from 0; each has one, but for empty lines."""
  lines = enumerate(block.data.split(b'\n'), block.first)
  rows = (number for number, line in lines if line.strip(_BLANK))
  return next(itertools.islice(rows, row, None), block.first)


def _merge_schemas(schema: pa.Schema, other: pa.Schema, line: int) -> pa.Schema:
  """Columns of both, of types that hold the values of both."""
  kinds = {field.name: field.type for field in schema}
  for field in other:
    try:
      kinds[field.name] = _merge(kinds.get(field.name, pa.null()), field.type)
    except TypeError as error:
      raise LineError(
          line,
          f'from about here on the column {field.name!r} has {error}; write '
          'it with one type',
      ) from error
  return pa.schema(list(kinds.items()))


def _merge(kind: pa.DataType, other: pa.DataType) -> pa.DataType:
  """The type of the values of both.

  Raises:
    TypeError: if there is none.
  """
  if kind == other or pa.types.is_null(other):
    return kind
  if pa.types.is_null(kind):
    return other
  if pa.types.is_list(kind) and pa.types.is_list(other):
    return pa.list_(_merge(kind.value_type, other.value_type))
  if pa.types.is_struct(kind) and pa.types.is_struct(other):
    fields = {field.name: field.type for field in kind}
    for field in other:
      known = fields.get(field.name, pa.null())
      fields[field.name] = _merge(known, field.type)
    return pa.struct(list(fields.items()))
  if pa.types.is_timestamp(kind) and pa.types.is_timestamp(other):
    return pa.timestamp('ns')
  both = {str(kind), str(other)}
  if both == {'int64', 'double'}:
    return pa.float64()
  if 'string' in both and pa.types.is_timestamp(
      other if pa.types.is_string(kind) else kind
  ):
    return pa.string()
  raise TypeError(f'{other} where {kind} was before')
