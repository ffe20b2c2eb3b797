# SPDX-License-Identifier: Apache-2.0
"""Tables of requests in blocks, for files that are larger than memory.

What a column holds is known from the run, so that every format can be read in
parts: unlike in training, no value waits for the end of the file to be a number
or a word. A JSON object may lack a key that others have; blocks of such a file
have different columns.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import ipc
from pyarrow import parquet

from dropoutnet_jax import config_data
from dropoutnet_jax import errors
from dropoutnet_jax.data import json_lines
from dropoutnet_jax.data import table_files
from dropoutnet_jax.data import table_formats

_BYTES = 1 << 24  # of a delimited file or of JSON that are parsed at a time
_Opened = Callable[[], Any]


def read(
    source: table_files.Source,
    settings: config_data.TablesConfig,
    num_rows: int,
    part: range | None = None,
) -> Iterator[table_files.Table]:
  """Reads a table in blocks, file by file, each in its order.

  Args:
    source: the table; `optional` names columns.
    settings: separator.
    num_rows: of a block at most.
    part: these rows of all files alone, where `count_rows` counts them.

  Yields:
    A block, whose `place` says the file and the row in it.

  Raises:
    UserError: as `table_files.read`.
  """
  system, paths = table_files.find(source, None)
  found, first = False, 0
  for path, shown in paths:
    opened = lambda path=path: system.open(path, 'rb', compression='infer')
    own = None
    if part is not None:
      count = _rows_of(opened, shown, source)
      own = range(max(part.start - first, 0), min(part.stop - first, count))
      first += count
      if not own:
        continue
    for block in _read_file(opened, shown, source, settings, num_rows, own):
      found = True
      yield block
  if not found:
    raise errors.UserError(
        f'{paths[0][1]}: no rows. Name a table with rows in {source.field}.'
    )


def count_rows(source: table_files.Source) -> int | None:
  """Rows of all files, where the format says so without being read; or None.

  Raises:
    UserError: if nothing is there, or a file cannot be read.
  """
  system, paths = table_files.find(source, None)
  total = 0
  for path, shown in paths:
    if table_files.format_of(shown, source.field) != 'parquet':
      return None
    opened = lambda path=path: system.open(path, 'rb', compression='infer')
    total += _rows_of(opened, shown, source)
  return total


def _rows_of(opened: _Opened, shown: str, source: table_files.Source) -> int:
  """Rows of a Parquet file, from its end."""
  with (
      table_files.explained(shown, source.field, lambda error: ''),
      opened() as file,
  ):
    return parquet.ParquetFile(file).metadata.num_rows


def _read_file(
    opened: _Opened,
    shown: str,
    source: table_files.Source,
    settings: config_data.TablesConfig,
    num_rows: int,
    own: range | None,
) -> Iterator[table_files.Table]:
  """Blocks of one file, or of some rows of a Parquet file."""
  kind = table_files.format_of(shown, source.field)
  separator = settings.separator or ('\t' if kind == 'tsv' else ',')
  reader = table_formats.READERS[kind](opened, separator, source.header)
  with table_files.explained(shown, source.field, reader.explain):
    table_formats.check_start(opened, shown, kind)
    # Which keys a JSON object has is known when it is read.
    names = [] if kind == 'json' else reader.names()
  is_text = kind in ('csv', 'tsv')
  if kind == 'json':
    parts = json_lines.blocks(opened, _BYTES)
  else:
    table_files.check_columns(shown, names, source, reader.hint(names))
    if is_text:
      wanted = _wanted(source, names)
      parts = _delimited(opened, separator, source.header, wanted)
    elif own is not None:
      parts = _parquet(opened, _wanted(source, names), num_rows, own)
    else:
      parts = _BATCHES[kind](opened, _wanted(source, names), num_rows)
  begin = 0 if own is None else own.start
  while True:
    with table_files.explained(shown, source.field, reader.explain):
      data = next(parts, None)
    if data is None:
      return
    if kind == 'json':
      names = data.column_names
      table_files.check_columns(shown, names, source, '')
      data = data.select(_wanted(source, names))
    if not begin and is_text and source.header:
      table_files.check_first_row(data, shown, source)
    for start in range(0, data.num_rows, num_rows):
      part = data.slice(start, num_rows)
      starts = np.array([-begin, part.num_rows])
      yield table_files.Table(part, tuple(names), (shown,), starts, is_text)
      begin += part.num_rows


def _wanted(source: table_files.Source, names: list[str]) -> list[str]:
  """The columns to read among those of a file."""
  every = (*source.required, *(source.optional or ()))
  return [name for name in every if name in names]


def _delimited(
    opened: _Opened,
    separator: str,
    header: tuple[str, ...],
    wanted: list[str],
) -> Iterator[pa.Table]:
  """Strings, each a dictionary value; '' is missing."""
  with opened() as file:
    reader = arrow_csv.open_csv(
        file,
        arrow_csv.ReadOptions(
            # One thread counts rows for the message of an error.
            use_threads=False,
            block_size=_BYTES,
            column_names=list(header) or None,
        ),
        arrow_csv.ParseOptions(delimiter=separator, newlines_in_values=True),
        arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(wanted, pa.string()),
            include_columns=wanted,
            null_values=[''],
            strings_can_be_null=True,
        ),
    )
    for batch in reader:
      yield pa.Table.from_batches([batch])


def _parquet(
    opened: _Opened,
    wanted: list[str],
    num_rows: int,
    part: range | None = None,
) -> Iterator[pa.Table]:
  """All rows, or some; row groups without any of them are not read."""
  with opened() as file:
    reader = parquet.ParquetFile(file)
    sizes = [
        reader.metadata.row_group(n).num_rows
        for n in range(reader.num_row_groups)
    ]
    part = range(sum(sizes)) if part is None else part
    starts = np.cumsum([0, *sizes])
    groups = [
        n
        for n in range(len(sizes))
        if starts[n] < part.stop and starts[n + 1] > part.start
    ]
    place = int(starts[groups[0]]) if groups else 0
    for batch in reader.iter_batches(
        num_rows, row_groups=groups, columns=wanted
    ):
      begin = max(part.start - place, 0)
      size = min(part.stop - place, len(batch)) - begin
      place += len(batch)
      if size <= 0:
        continue
      table = pa.Table.from_batches([batch.slice(begin, size)])
      table.validate(full=True)
      yield table.select(wanted)


def _arrow(
    opened: _Opened, wanted: list[str], num_rows: int
) -> Iterator[pa.Table]:
  """The record batches that were written."""
  del num_rows
  with opened() as file:
    reader = table_formats.open_ipc(file)
    if isinstance(reader, ipc.RecordBatchFileReader):
      batches = map(reader.get_batch, range(reader.num_record_batches))
    else:
      batches = iter(reader)
    for batch in batches:
      table = pa.Table.from_batches([batch]).select(wanted)
      table.validate(full=True)
      yield table


_BATCHES = {'parquet': _parquet, 'arrow': _arrow}
