# SPDX-License-Identifier: Apache-2.0
"""Embeddings as Parquet: a row for each user or item, written block by block.

The columns are the id, `dense` (a list of as many float32 as the embeddings are
wide) and, of a run with a sparse part, `sparse_indices` and `sparse_values`.
The metadata of the file say what they are of, under `dropoutnet_jax`, as JSON.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import json
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from pyarrow import parquet
import scipy.sparse

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


def write(
    path: str,
    id_name: str,
    blocks: Iterable[Embedded],
    about: Mapping[str, Any],
) -> int:
  """Writes embeddings while they are made.

  Args:
    path: of the file; one that is there is replaced in the end.
    id_name: of the column of ids.
    blocks: one at least, all of the same widths.
    about: for the metadata.

  Returns:
    How many rows that are.

  Raises:
    UserError: if the file can't be written; one that is there stays then.
  """
  count = 0

  def fill(file: BinaryIO) -> None:
    nonlocal count
    writer = None
    try:
      for block in blocks:
        table = to_table(id_name, block)
        if writer is None:
          text = json.dumps({**about, **_widths(block)}).encode()
          schema = table.schema.with_metadata({METADATA: text})
          # Dictionaries of numbers that are all different cost and save none.
          writer = parquet.ParquetWriter(file, schema, use_dictionary=False)
        writer.write_table(table.cast(writer.schema))
        count += len(table)
    finally:
      if writer is not None:
        writer.close()

  files.write(path, fill, '--output', hidden=True)
  return count


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
