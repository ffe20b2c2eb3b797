# SPDX-License-Identifier: Apache-2.0
"""Embeddings as a file: a row for each user or item, written block by block.

The columns are the id, `dense` (a list of as many float32 as the embeddings are
wide) and, of a run with a sparse part, `sparse_indices` and `sparse_values`.
In JSON lines the lists are lists; in delimited files they are the same text,
'[0.25, -1.5]', which any reader of JSON takes. Numbers in text are as short as
gives the same float32. The metadata of Parquet and Arrow say what they are of,
under `dropoutnet_jax`, as JSON.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import csv
import dataclasses
import io
import json
import os
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import ipc
from pyarrow import parquet
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax.data import files
from dropoutnet_jax.model import embeddings

METADATA = b'dropoutnet_jax'


@dataclasses.dataclass(frozen=True, eq=False)
class Embedded:
  """Embeddings of N users or items, on the host.

  The score of a user and an item is the dot product of their dense parts plus
  that of their sparse parts.

  Attributes:
    ids: int64 or str [N].
    dense: float32 [N, R].
    sparse: csr_array float32 [N, T]; None for a run without a sparse part.
  """

  ids: np.ndarray
  dense: np.ndarray
  sparse: scipy.sparse.csr_array | None


def on_host(ids: np.ndarray, emb: embeddings.Embedding) -> Embedded:
  """Both parts of embeddings [N] as NumPy and SciPy have them."""
  sparse = None if emb.sparse is None else embeddings.to_matrix(emb.sparse)
  return Embedded(ids, np.asarray(emb.dense), sparse)


def check_ending(path: str) -> None:
  """Raises UserError unless the name of a file says the format."""
  ending = ending_of(path)
  if ending not in _WRITERS:
    raise errors.UserError(
        f'--output={path}: its name does not say the format; let it end in one '
        f'of {", ".join(_WRITERS)}, or name a folder.'
        + errors.did_you_mean(ending, _WRITERS)
    )


def ending_of(path: str) -> str:
  """'.csv' of 'a/B.CSV' and of the folder 'b.csv/'; '' without one."""
  return os.path.splitext(path.rstrip(os.sep))[1].lower()


def write(
    path: str,
    id_name: str,
    blocks: Iterable[Embedded],
    about: Mapping[str, Any],
) -> int:
  """Writes embeddings while they are made.

  Args:
    path: of the file, which says the format; one that is there is replaced in
      the end.
    id_name: of the column of ids.
    blocks: one at least, all of the same widths.
    about: for the metadata, where the format has them.

  Returns:
    How many rows that are.

  Raises:
    UserError: if the file can't be written; one that is there stays then.
  """
  open_writer, count = _WRITERS[ending_of(path)], 0

  def fill(file: BinaryIO) -> None:
    nonlocal count
    add = None
    with contextlib.ExitStack() as stack:
      for block in blocks:
        table = to_table(id_name, block)
        if add is None:
          text = json.dumps({**about, **_widths(block)}).encode()
          schema = table.schema.with_metadata({METADATA: text})
          add = stack.enter_context(open_writer(file, schema))
        add(table)
        count += len(table)

  files.write(path, fill, '--output', hidden=True)
  return count


_Add = Callable[[pa.Table], None]


@contextlib.contextmanager
def _arrow(
    open_file: Callable[[BinaryIO, pa.Schema], Any],
    file: BinaryIO,
    schema: pa.Schema,
) -> Iterator[_Add]:
  """Parquet and Arrow, whose writers take tables."""
  with open_file(file, schema) as writer:
    yield lambda table: writer.write_table(table.cast(schema))


def _parquet(file: BinaryIO, schema: pa.Schema) -> parquet.ParquetWriter:
  # Dictionaries of numbers that are all different cost and save none.
  return parquet.ParquetWriter(file, schema, use_dictionary=False)


@contextlib.contextmanager
def _delimited(
    separator: str, file: BinaryIO, schema: pa.Schema
) -> Iterator[_Add]:
  def write_rows(rows: Iterable[Iterable[Any]]) -> None:
    text = io.StringIO(newline='')
    csv.writer(text, delimiter=separator, lineterminator='\n').writerows(rows)
    file.write(text.getvalue().encode())

  def add(table: pa.Table) -> None:
    ids, *lists = table.columns
    write_rows(zip(ids.to_pylist(), *map(_as_text, lists)))

  write_rows([schema.names])
  yield add


@contextlib.contextmanager
def _json_lines(file: BinaryIO, schema: pa.Schema) -> Iterator[_Add]:
  keys = [json.dumps(name, ensure_ascii=False) for name in schema.names]

  def add(table: pa.Table) -> None:
    ids, *lists = table.columns
    shown = (json.dumps(x, ensure_ascii=False) for x in ids.to_pylist())
    for values in zip(shown, *map(_as_text, lists)):
      pairs = ', '.join(f'{key}: {x}' for key, x in zip(keys, values))
      file.write(f'{{{pairs}}}\n'.encode())

  yield add


def _as_text(column: pa.ChunkedArray) -> list[str]:
  """Lists of numbers as JSON."""
  texts: list[str] = []
  for part in column.chunks:
    if pa.types.is_fixed_size_list(part.type):
      part = part.cast(pa.list_(part.type.value_type))
    numbers = pc.cast(part.values, pa.string())
    lists = pa.ListArray.from_arrays(part.offsets, numbers)
    texts += (f'[{text}]' for text in pc.binary_join(lists, ', ').to_pylist())
  return texts


_WRITERS: dict[str, Callable[..., Any]] = {
    '.parquet': lambda *arguments: _arrow(_parquet, *arguments),
    '.csv': lambda *arguments: _delimited(',', *arguments),
    '.tsv': lambda *arguments: _delimited('\t', *arguments),
    '.json': _json_lines,
    '.jsonl': _json_lines,
    '.arrow': lambda *arguments: _arrow(ipc.new_file, *arguments),
}
ENDINGS = tuple(_WRITERS)


def _widths(block: Embedded) -> dict[str, Any]:
  sparse = None if block.sparse is None else block.sparse.shape[1]
  return {'dense_width': block.dense.shape[1], 'sparse_width': sparse}


def to_table(id_name: str, block: Embedded) -> pa.Table:
  """Embeddings as an Arrow table."""
  flat = pa.array(block.dense.ravel())
  width = block.dense.shape[1]
  columns = {
      id_name: pa.array(block.ids),
      'dense': pa.FixedSizeListArray.from_arrays(flat, width),
  }
  if block.sparse is not None:
    starts = pa.array(block.sparse.indptr.astype(np.int32))
    for name, values in (
        ('sparse_indices', block.sparse.indices.astype(np.int32)),
        ('sparse_values', block.sparse.data),
    ):
      columns[name] = pa.ListArray.from_arrays(starts, pa.array(values))
  return pa.table(columns)
