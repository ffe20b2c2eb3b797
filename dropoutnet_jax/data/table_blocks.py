# SPDX-License-Identifier: Apache-2.0
"""Files of a user's table in, a block of rows after the other out.

For tables that are larger than memory. Of the formats only Parquet is read in
parts without a look at the rest, and says the type of a column before its end.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from dropoutnet_jax import config_data
from dropoutnet_jax import errors
from dropoutnet_jax.data import arrow_values
from dropoutnet_jax.data import table_files
from dropoutnet_jax.data import table_formats


def read(
    source: table_files.Source,
    settings: config_data.TablesConfig,
    folder: str | None,
    num_rows: int,
) -> Iterator[table_files.Table]:
  """Reads a table in blocks, file by file, each in its order.

  Args:
    source: the table; `optional` names columns.
    settings: the format.
    folder: in which relative paths start; None for the current one.
    num_rows: of a block at most.

  Yields:
    A block, whose `place` says the file and the row in it. Blocks of one table
    have the same columns.

  Raises:
    UserError: as `table_files.read`, and for files that are not Parquet.
  """
  system, paths = table_files.find(source, folder)
  first: list[str] = []
  found = False
  for path, shown in paths:
    kind = settings.format or table_files.format_of(shown, source.field)
    if kind != 'parquet':
      raise errors.UserError(
          f"{shown} is {kind}, but with config.data.mode 'streaming' "
          f'{source.field} has to be Parquet, of which parts can be read. '
          "Convert it, or set config.data.mode to 'resident'."
      )
    for block in _read_file(system, path, shown, source, num_rows):
      if block.data.column_names != (first or block.data.column_names):
        raise errors.UserError(
            f'{shown} has other columns than {paths[0][1]}: '
            f'{table_files.listed(block.data.column_names)}, and not '
            f'{table_files.listed(first)}. Write all files with the same ones.'
        )
      first, found = block.data.column_names, True
      yield block
  if not found:
    raise errors.UserError(
        f'{paths[0][1]}: no rows. Name a table with rows in {source.field}.'
    )


def _read_file(
    system: Any,
    path: str,
    shown: str,
    source: table_files.Source,
    num_rows: int,
) -> Iterator[table_files.Table]:
  """Blocks of one file."""
  opened = lambda: system.open(path, 'rb', compression='infer')
  reader = table_formats.READERS['parquet'](opened, '', ())
  with table_files.explained(shown, source.field, reader.explain):
    table_formats.check_start(opened, shown, 'parquet')
    names = reader.names()
  table_files.check_columns(shown, names, source, '')
  optional = [name for name in source.optional or () if name in names]
  wanted = [*source.required, *optional]
  begin = 0
  blocks = _batches(opened, wanted, num_rows)
  while True:
    with table_files.explained(shown, source.field, reader.explain):
      data = next(blocks, None)
    if data is None:
      return
    starts = np.array([-begin, data.num_rows])
    yield table_files.Table(data, tuple(names), (shown,), starts, False)
    begin += data.num_rows


def _batches(
    opened: Any, wanted: list[str], num_rows: int
) -> Iterator[pa.Table]:
  with opened() as file:
    kinds = parquet.ParquetFile(file).schema_arrow
    encoded = [x for x in wanted if arrow_values.is_string(kinds.field(x).type)]
    whole = parquet.ParquetFile(file, read_dictionary=encoded)
    for batch in whole.iter_batches(num_rows, columns=wanted):
      if batch.num_rows:
        table = pa.Table.from_batches([batch])
        table.validate(full=True)
        yield table.select(wanted)
