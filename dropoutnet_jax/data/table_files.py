# SPDX-License-Identifier: Apache-2.0
"""Files of a user's tables in, one Arrow table out, or what is wrong with them.

Knows paths, formats and column names; knows no id, label or feature. pyarrow
reads the formats and fsspec the places. Values of delimited files stay strings
here, each distinct one kept once: what a column holds is decided when all of
it is known, so that no value depends on where a block of the file ends.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import os
import posixpath
from typing import Any

import fsspec
from fsspec.implementations import local
import numpy as np
import pyarrow as pa

from dropoutnet_jax import config_data
from dropoutnet_jax import errors
from dropoutnet_jax.data import table_formats

_FORMATS = {
    '.parquet': 'parquet',
    '.pq': 'parquet',
    '.csv': 'csv',
    '.tsv': 'tsv',
    '.tab': 'tsv',
    '.json': 'json',
    '.jsonl': 'json',
    '.ndjson': 'json',
    '.arrow': 'arrow',
    '.feather': 'arrow',
    '.ipc': 'arrow',
}
_PACKED = ('.gz', '.bz2', '.xz', '.zst', '.zip')


@dataclasses.dataclass(frozen=True)
class Source:
  """Where a table is and how the configuration speaks of it.

  Attributes:
    pattern: file, folder, glob or URL.
    field: that names it, 'config.data.tables.users' or a flag, '--users'.
    required: names of columns that it must have, each with its field.
    optional: names of further columns to read; None for all there are.
    header: names of all columns where the files do not have them.
  """

  pattern: str
  field: str
  required: Mapping[str, str]
  optional: Sequence[str] | None = ()
  header: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
  """Rows of one file or several.

  Attributes:
    data: the columns that were asked for.
    names: all columns that the files have.
    files: their paths.
    starts: int64 [F + 1], first row of each file, and the number of rows.
    is_text: whether the values are strings of delimited files, of which it is
      not known yet what they mean.
  """

  data: pa.Table
  names: tuple[str, ...]
  files: tuple[str, ...]
  starts: np.ndarray
  is_text: bool

  def __len__(self) -> int:
    return self.data.num_rows

  def name(self) -> str:
    """How messages call it."""
    more = len(self.files) - 1
    return self.files[0] + (f' and {more} more' if more else '')

  def place(self, row: int) -> str:
    """'items.csv, row 3': the file and its row, counted from 1."""
    file = int(np.searchsorted(self.starts, row, side='right')) - 1
    return f'{self.files[file]}, row {row - self.starts[file] + 1:,}'


def read(
    source: Source, settings: config_data.TablesConfig, folder: str | None
) -> Table:
  """Reads a table.

  Args:
    source: the table.
    settings: format and separator.
    folder: in which relative paths start; None for the current one.

  Raises:
    UserError: if nothing is there, a file cannot be read (with its row or line
      where the library gives one), a column is missing, there is no row, or
      files have columns of different types.
  """
  system, paths = find(source, folder)
  parts, names, formats = [], [], []
  for path, shown in paths:
    kind = settings.format or format_of(shown, source.field)
    part, found = _read_file(system, path, shown, kind, source, settings)
    parts.append(part)
    names.append(found)
    formats.append(kind)
  is_text = [kind in ('csv', 'tsv') for kind in formats]
  if len(set(is_text)) > 1:
    raise errors.UserError(
        f'{source.field} is {source.pattern!r}, which finds delimited '
        f'files and others ({", ".join(sorted(set(formats)))}); name those of '
        'one format.'
    )
  try:
    data = pa.concat_tables(parts, promote_options='permissive')
  except pa.ArrowException as error:
    raise errors.UserError(
        f'{source.field} is {source.pattern!r}, whose {len(paths)} '
        f'files differ: {errors.cause(error)}. Write a column with one type.'
    ) from error
  shown_paths = tuple(shown for _, shown in paths)
  if not data.num_rows:
    raise errors.UserError(
        f'{shown_paths[0]}: no rows'
        + (', only a header.' if is_text[0] else '.')
        + f' Name a table with rows in {source.field}.'
    )
  starts = np.cumsum([0, *(part.num_rows for part in parts)])
  unique = tuple(dict.fromkeys(name for found in names for name in found))
  return Table(data, unique, shown_paths, starts, is_text[0])


def changed_since(
    source: Source, folder: str | None, seconds: float
) -> list[str]:
  """Files of a table on this machine that were written later than a time.

  Args:
    source: the table.
    folder: in which relative paths start; None for the current one.
    seconds: since 1970.
  """
  system, paths = find(source, folder)
  if not isinstance(system, local.LocalFileSystem):
    return []
  return [shown for path, shown in paths if os.stat(path).st_mtime > seconds]


def check_columns(
    shown: str, names: Sequence[str], source: Source, hint: str
) -> None:
  """Raises UserError unless all required columns are there, each once."""
  twice = [name for name in names if names.count(name) > 1]
  wanted = [*source.required, *(source.optional or ())]
  wanted += twice if source.optional is None else []
  for name in wanted:
    if name in twice:
      raise errors.UserError(
          f'{shown}: {names.count(name)} columns are called {name!r}; rename '
          'all but one.'
      )
  for name, field in source.required.items():
    if name not in names:
      raise errors.UserError(
          f'{shown}: there is no column {name!r}, which {field} names.'
          f'{nearest(name, names)} Columns are: {listed(names)}.{hint}'
      )


def same_name(name: str, known: Sequence[str]) -> str:
  """The known name that differs in capitals and signs alone, or ''."""
  plain = lambda text: ''.join(c for c in text.lower() if c.isalnum())
  return next((other for other in known if plain(other) == plain(name)), '')


def nearest(name: str, known: Sequence[str]) -> str:
  """' Did you mean X?' for the nearest known name, or ''."""
  same = same_name(name, known)
  return errors.did_you_mean(same or name, known)


def listed(names: Sequence[str]) -> str:
  """The names, of many the first."""
  return errors.listed([name[:60] for name in names], 20) or 'none'


def _read_file(
    system: Any,
    path: str,
    shown: str,
    kind: str,
    source: Source,
    settings: config_data.TablesConfig,
) -> tuple[pa.Table, Sequence[str]]:
  """One file: its wanted columns, and the names of all."""
  opened = lambda: system.open(path, 'rb', compression='infer')
  separator = settings.separator or ('\t' if kind == 'tsv' else ',')
  reader = table_formats.READERS[kind](opened, separator, source.header)
  with explained(shown, source.field, reader.explain):
    table_formats.check_start(opened, shown, kind)
    names = reader.names()
  check_columns(shown, names, source, reader.hint(names))
  wanted = None
  if source.optional is not None:
    optional = [name for name in source.optional if name in names]
    wanted = [*source.required, *optional]
  with explained(shown, source.field, reader.explain):
    part = reader.read(names, wanted)
  if source.header and kind in ('csv', 'tsv'):
    check_first_row(part, shown, source)
  return part, names


def check_first_row(part: pa.Table, shown: str, source: Source) -> None:
  """Raises UserError if the id of the first row is the name of its column."""
  for name, field in source.required.items():
    is_id = field.endswith(('.user_id', '.item_id'))
    if is_id and part.num_rows and part.column(name)[0].as_py() == name:
      table = source.field.lstrip('-').rpartition('.')[2]
      own = f'{table}_header' if table in ('users', 'items') else 'header'
      raise errors.UserError(
          f'{shown}: the first line has {name!r} for an id, so the file has a '
          f'header of its own. Leave out config.data.tables.{own}.'
      )


@contextlib.contextmanager
def explained(
    shown: str,
    field: str,
    explain: Callable[[Exception], str],
) -> Iterator[None]:
  """Errors of libraries, of which each has its own kinds, as UserError."""
  try:
    yield
  except errors.UserError:
    raise
  except MemoryError as error:  # lengths in a damaged file may be anything
    raise errors.UserError(
        f'{shown} cannot be read: it asks for more memory than there is. '
        'Unless it is that large, it is damaged; write it anew, or name '
        f'another file in {field}.'
    ) from error
  except Exception as error:
    told = explain(error) or f' cannot be read: {errors.cause(error)}'
    raise errors.UserError(
        f'{shown}{told.rstrip(".")}. Mend the file, or change {field}'
        + ('.' if _is_flag(field) else ' or config.data.tables.format.')
    ) from error


def find(
    source: Source, folder: str | None
) -> tuple[Any, list[tuple[str, str]]]:
  """The file system, and (path there, path to show) of each file."""
  pattern, field = source.pattern, source.field
  is_url = '://' in pattern or '::' in pattern
  if not is_url:
    pattern = os.path.expanduser(pattern)
    if folder is not None and not os.path.isabs(pattern):
      pattern = posixpath.join(folder, pattern)
      is_url = '://' in folder
  try:
    system, path = fsspec.core.url_to_fs(pattern)
    found = _list_files(system, path)
  except (ValueError, ImportError) as error:
    raise errors.UserError(
        f'{field} is {pattern!r}: {errors.cause(error).rstrip(".")}. Known '
        'are s3, gs, abfs, hdfs, https and what fsspec.available_protocols() '
        'lists; some ask for a package to be installed.'
    ) from error
  except Exception as error:  # each file system has its own kinds
    raise errors.UserError(
        f'{field} is {pattern!r}, which cannot be opened: '
        f'{errors.cause(error).rstrip(".")}. Correct the path or the access.'
    ) from error
  if not found:
    start = f' (from the folder {os.getcwd()!r})'
    start = '' if is_url or os.path.isabs(pattern) else start
    base = '--data_dir if given, else in the current folder'
    base = 'the current folder' if _is_flag(field) else base
    raise errors.UserError(
        f'{field} is {pattern!r}, where there is no file{start}. Correct the '
        f'path; relative ones start in {base}.'
    )
  shown = system.unstrip_protocol if is_url else _shorten
  return system, [(path, shown(path)) for path in found]


def _is_flag(field: str) -> bool:
  """Whether a table is named on the command line, not in a configuration."""
  return field.startswith('--')


def _list_files(system: Any, path: str) -> list[str]:
  """Paths of a file, of all in a folder, or of what a glob matches, sorted."""
  if system.isfile(path):
    return [path]
  if system.isdir(path):
    found = system.find(path)
    # Writers leave marks such as _SUCCESS and .crc beside their parts.
    hidden = lambda name: posixpath.basename(name).startswith(('_', '.'))
    return sorted(name for name in found if not hidden(name))
  if not set('*?[') & set(path):
    return []
  found = system.glob(path, detail=True)
  return sorted(name for name, info in found.items() if info['type'] == 'file')


def _shorten(path: str) -> str:
  """A local path, relative where it is below the current folder."""
  relative = os.path.relpath(path)
  return path if relative.startswith('..') else relative


def format_of(shown: str, field: str) -> str:
  """The format that a file's name ends in."""
  name = shown.lower()
  for ending in _PACKED:
    name = name.removesuffix(ending)
  ending = posixpath.splitext(name)[1]
  if ending not in _FORMATS:
    known = ', '.join(config_data.TABLE_FORMATS)
    how = f'set config.data.tables.format to one of {known}, or '
    raise errors.UserError(
        f'{shown}: its name does not say the format; '
        f'{"" if _is_flag(field) else how}let it end in one of '
        f'{", ".join(_FORMATS)}.'
    )
  return _FORMATS[ending]
