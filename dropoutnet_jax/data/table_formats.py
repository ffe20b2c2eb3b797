# SPDX-License-Identifier: Apache-2.0
"""One file of each format as an Arrow table, by the readers of pyarrow.

Every reader names the columns before it reads them, reads only those that are
wanted where the format allows it, and finds the place of an error that the
library leaves open. What cannot be read is for table_files.py to report.
"""

from collections.abc import Callable, Sequence
import csv
import io
import json
import re
from typing import Any, Protocol

import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import ipc
from pyarrow import parquet

from dropoutnet_jax import errors
from dropoutnet_jax.data import arrow_values
from dropoutnet_jax.data import json_lines
from dropoutnet_jax.data import text

_BLOCK = 1 << 24  # bytes; the longest record that can be read
_STARTS = {
    b'PAR1': 'parquet',
    b'ARROW1': 'arrow',
    b'\x1f\x8b': 'gzip',
    b'PK\x03\x04': 'zip',
    b'\xff\xfe': 'UTF-16',
    b'\xfe\xff': 'UTF-16',
}
_NUMBER = re.compile(r'\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*', re.ASCII)


class Reader(Protocol):
  """Reads one file."""

  def names(self) -> list[str]:
    """Names of all columns."""

  def read(
      self, names: Sequence[str], wanted: Sequence[str] | None
  ) -> pa.Table:
    """The wanted of the named columns; all for None."""

  def hint(self, names: Sequence[str]) -> str:
    """' It looks ...' if names cannot be meant as names of columns, or ''."""

  def explain(self, error: Exception) -> str:
    """': ...' or ':line: ...' on an error in this file."""


def check_start(opened: Callable[[], Any], shown: str, kind: str) -> None:
  """Raises UserError if a file is empty, or begins as another format does."""
  with opened() as file:
    start = file.read(8)
  if not start:
    raise errors.UserError(f'{shown}: no rows; the file is empty.')
  for mark, name in _STARTS.items():
    if start.startswith(mark) and name != kind:
      how = 'set config.data.tables.format or rename it'
      if name in ('gzip', 'zip'):
        how = 'let its name end in ' + {'gzip': '.gz', 'zip': '.zip'}[name]
      elif name == 'UTF-16':
        how = 'save it as UTF-8'
      raise errors.UserError(f'{shown} is {name}, not {kind}; {how}.')


class _Delimited:
  """CSV, TSV and the like. Values become dictionary<string>, '' is missing."""

  def __init__(
      self, opened: Callable[[], Any], separator: str, header: Sequence[str]
  ):
    self._opened, self._separator = opened, separator
    self._header = list(header)

  def names(self) -> list[str]:
    with self._opened() as file:
      lines = io.TextIOWrapper(file, encoding='utf-8-sig', newline='')
      rows = csv.reader(lines, delimiter=self._separator)
      first = next((row for row in rows if row), [])
    if self._header and first == self._header:
      raise ValueError('the first line repeats the header of the configuration')
    return self._header or first

  def hint(self, names: Sequence[str]) -> str:
    if len(names) == 1:
      found = text.separator_hint(names[0], self._separator)
      if found:
        return f'{found} Set config.data.tables.separator to that.'
    if not self._header and any(_NUMBER.fullmatch(name) for name in names):
      return (
          ' The first line looks like values; where no line has the names, '
          'list them in config.data.tables.header (users_header, items_header).'
      )
    return ''

  def read(
      self, names: Sequence[str], wanted: Sequence[str] | None
  ) -> pa.Table:
    try:
      return self._read(names, wanted, True)
    except pa.ArrowInvalid:  # only one thread counts rows for the message
      return self._read(names, wanted, False)

  def _read(
      self, names: Sequence[str], wanted: Sequence[str] | None, threads: bool
  ) -> pa.Table:
    kind = pa.dictionary(pa.int32(), pa.string())
    with self._opened() as file:
      return arrow_csv.read_csv(
          file,
          arrow_csv.ReadOptions(
              use_threads=threads,
              block_size=_BLOCK,
              column_names=self._header or None,
          ),
          arrow_csv.ParseOptions(
              delimiter=self._separator, newlines_in_values=True
          ),
          arrow_csv.ConvertOptions(
              column_types=dict.fromkeys(names, kind),
              include_columns=wanted,
              null_values=[''],
              strings_can_be_null=True,
          ),
      )

  def explain(self, error: Exception) -> str:
    told = errors.cause(error)
    if 'utf' in told.lower():
      return _find_bad_line(self._opened, lambda line: None) or f': {told}'
    if 'Expected' in told and 'columns, got' in told:
      return f': {told}. A value with the separator in it needs quotes'
    return f': {told}'


class _SelfDescribed:
  """What formats share whose files say their columns and their errors."""

  def __init__(
      self, opened: Callable[[], Any], separator: str, header: Sequence[str]
  ):
    del separator, header
    self._opened = opened

  def hint(self, names: Sequence[str]) -> str:
    return ''

  def explain(self, error: Exception) -> str:
    return ''


class _JsonLines(_SelfDescribed):
  """An object per line. All is read: a key may occur late."""

  def __init__(
      self, opened: Callable[[], Any], separator: str, header: Sequence[str]
  ):
    super().__init__(opened, separator, header)
    self._table: pa.Table | None = None

  def names(self) -> list[str]:
    self._table = json_lines.table(self._opened, _BLOCK)
    return self._table.column_names

  def read(
      self, names: Sequence[str], wanted: Sequence[str] | None
  ) -> pa.Table:
    assert self._table is not None, 'names() comes first'
    return self._table.select(list(names) if wanted is None else list(wanted))

  def explain(self, error: Exception) -> str:
    told = f': {errors.cause(error)}'
    if isinstance(error, json_lines.LineError):
      told = f':{error.line}{told}'
      if not isinstance(error, json_lines.ParseError):
        return told
    return _find_bad_line(self._opened, _check_object) or told


def _check_object(line: str) -> None:
  if not line.strip():
    return
  try:
    value = json.loads(line)
  except json.JSONDecodeError as error:
    if error.pos >= len(line.rstrip()):
      raise ValueError(json_lines.UNFINISHED) from error
    raise
  if not isinstance(value, dict):
    raise ValueError(json_lines.describe_other(isinstance(value, list)))


def _find_bad_line(
    opened: Callable[[], Any], check: Callable[[str], None]
) -> str:
  """':line: ...' for the first line that is not UTF-8 or that `check` refuses.

  Only for files that pyarrow has refused: a line at a time is slow.
  """
  with opened() as file:
    for number, line in enumerate(file, start=1):
      try:
        check(line.decode('utf-8-sig' if number == 1 else 'utf-8'))
      except UnicodeDecodeError as error:
        byte = f'0x{line[error.start]:02x}'
        return f':{number}: byte {byte} is not UTF-8; save the file as UTF-8'
      except (ValueError, RecursionError) as error:
        return f':{number}: {errors.cause(error)}'
  return ''


class _Parquet(_SelfDescribed):
  """Parquet, of which only the wanted columns are fetched."""

  def names(self) -> list[str]:
    with self._opened() as file:
      return parquet.ParquetFile(file).schema_arrow.names

  def read(
      self, names: Sequence[str], wanted: Sequence[str] | None
  ) -> pa.Table:
    del names
    with self._opened() as file:
      kinds = parquet.ParquetFile(file).schema_arrow
    # Ids stay what strings mostly are in the file: a dictionary.
    encoded = [
        name
        for name in wanted or ()
        if arrow_values.is_string(kinds.field(name).type)
    ]
    with self._opened() as file:
      table = parquet.ParquetFile(file, read_dictionary=encoded).read(wanted)
    table.validate(full=True)
    return table if wanted is None else table.select(wanted)


class _Arrow(_SelfDescribed):
  """Arrow IPC: files, which Feather is as well, and streams."""

  def names(self) -> list[str]:
    with self._opened() as file:
      return open_ipc(file).schema.names

  def read(
      self, names: Sequence[str], wanted: Sequence[str] | None
  ) -> pa.Table:
    with self._opened() as file:
      table = open_ipc(file).read_all()
    table = table.select(list(names) if wanted is None else list(wanted))
    table.validate(full=True)
    return table


def open_ipc(
    file: Any,
) -> ipc.RecordBatchFileReader | ipc.RecordBatchStreamReader:
  """A reader of a file of Arrow IPC, or of a stream."""
  try:
    return ipc.open_file(file)
  except pa.ArrowInvalid:
    file.seek(0)
    return ipc.open_stream(file)


READERS: dict[
    str, Callable[[Callable[[], Any], str, Sequence[str]], Reader]
] = {
    'csv': _Delimited,
    'tsv': _Delimited,
    'json': _JsonLines,
    'parquet': _Parquet,
    'arrow': _Arrow,
}
