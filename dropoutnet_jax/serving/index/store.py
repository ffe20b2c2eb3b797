# SPDX-License-Identifier: Apache-2.0
"""Items with their ids and embeddings, which come, change and go.

Rows are only ever added at the end; one that goes, or is changed and comes in
anew, is marked. So what a reader has been handed stays as it is while a writer
goes on, and nothing large is copied for a change.
"""

from collections.abc import Iterable
import dataclasses

import numpy as np
import scipy.sparse

from dropoutnet_jax.serving.index import protocol
from dropoutnet_jax.serving.index import vectors

_LEAST_SPARE = 4096
_ALIGNED = 64  # bytes
_MOST_INT32 = np.iinfo(np.int32).max


@dataclasses.dataclass(frozen=True, eq=False)
class Snapshot:
  """Items at one moment; nothing of it changes.

  Attributes:
    ids: object or int64 [N].
    items: N rows.
    alive: bool [N], rows that are items still.
    number: of these.
  """

  ids: np.ndarray
  items: vectors.Vectors
  alive: np.ndarray
  number: int

  def __len__(self) -> int:
    return len(self.alive)


class _Growing:
  """An array that grows at its end; views that were handed out stay true."""

  def __init__(self, values: np.ndarray):
    self._size = 0
    # Memory that is not touched costs nothing, and a copy later takes time.
    self._buffer = _empty_like(values, _with_spare(len(values)))
    self.extend(values)

  def extend(self, values: np.ndarray) -> None:
    size = self._size + len(values)
    if size > len(self._buffer):
      buffer = _empty_like(self._buffer, _with_spare(size))
      buffer[: self._size] = self.view()
      self._buffer = buffer
    self._buffer[self._size : size] = values
    self._size = size

  def view(self) -> np.ndarray:
    return self._buffer[: self._size]


def _empty_like(values: np.ndarray, number: int) -> np.ndarray:
  """Room for so many rows, at an address that XLA can read in place."""
  if values.dtype == object:
    return np.empty(number, object)
  shape = (number, *values.shape[1:])
  size = int(np.prod(shape)) * values.dtype.itemsize
  memory = np.empty(size + _ALIGNED, np.uint8)
  begin = -memory.ctypes.data % _ALIGNED
  return memory[begin : begin + size].view(values.dtype).reshape(shape)


def _with_spare(size: int) -> int:
  return size + max(size // 2, _LEAST_SPARE)


def _index_kind(stored: int) -> type:
  """Of a matrix with so many entries; SciPy copies indices of two kinds."""
  return np.int32 if stored <= _MOST_INT32 else np.int64


class Store:
  """Items that a single writer changes; it is not for several at a time.

  Attributes:
    snapshot: of the items as they are.
    place: the row of each id.
  """

  def __init__(
      self,
      ids: np.ndarray,
      items: vectors.Vectors,
      alive: np.ndarray | None = None,
  ):
    """Takes rows with their ids, object or int64 [N].

    Args:
      ids: distinct where they are alive.
      items: N embeddings.
      alive: bool [N], rows that are items; None: all.
    """
    if alive is None:
      alive = np.ones(len(ids), bool)
    self._ids = _Growing(ids)
    self._dense = _Growing(items.dense)
    self._sparse: tuple[_Growing, ...] | None = None
    if items.sparse is not None:
      self._num_columns = items.sparse.shape[1]
      sparse = items.sparse
      kind = _index_kind(sparse.nnz)
      self._sparse = (
          _Growing(sparse.indptr.astype(kind)),
          _Growing(sparse.indices.astype(kind)),
          _Growing(sparse.data),
      )
    rows = np.flatnonzero(alive)
    names: list[protocol.Id] = ids[rows].tolist()
    self.place = dict(zip(names, rows.tolist()))
    self.snapshot = self._snapshot(alive)

  def put(self, ids: np.ndarray, items: vectors.Vectors) -> None:
    """Adds items, distinct ones; those of the same id go."""
    names: list[protocol.Id] = ids.tolist()
    first = len(self.snapshot)
    if not first:
      self._ids = _Growing(ids[:0])  # the first ids say of which kind all are
    alive = np.append(self.snapshot.alive, np.ones(len(names), bool))
    alive[self.rows(names)] = False
    self._ids.extend(ids)
    self._dense.extend(items.dense)
    if self._sparse is not None:
      assert items.sparse is not None
      indptr, indices, data = self._sparse
      kind = _index_kind(len(data.view()) + items.sparse.nnz)
      if kind != indptr.view().dtype:
        indptr, indices = (
            _Growing(part.view().astype(kind)) for part in (indptr, indices)
        )
        self._sparse = indptr, indices, data
      indptr.extend(items.sparse.indptr[1:] + indptr.view()[-1])
      indices.extend(items.sparse.indices)
      data.extend(items.sparse.data)
    self.place.update(zip(names, range(first, first + len(names))))
    self.snapshot = self._snapshot(alive)

  def remove(self, ids: Iterable[protocol.Id]) -> int:
    """Takes items away, unknown ids are skipped; returns their number."""
    names = [name for name in dict.fromkeys(ids) if name in self.place]
    if names:
      alive = self.snapshot.alive.copy()
      alive[self.rows(names)] = False
      for name in names:
        del self.place[name]
      self.snapshot = self._snapshot(alive)
    return len(names)

  def rows(self, ids: Iterable[protocol.Id]) -> np.ndarray:
    """int64 [C], rows of those ids that are there."""
    found = [self.place.get(name, -1) for name in ids]
    rows = np.asarray(found, np.int64)
    return rows[rows >= 0]

  def _snapshot(self, alive: np.ndarray) -> Snapshot:
    sparse = None
    dense = self._dense.view()
    if self._sparse is not None:
      indptr, indices, data = (part.view() for part in self._sparse)
      sparse = scipy.sparse.csr_array(
          (data, indices, indptr), shape=(len(dense), self._num_columns)
      )
    items = vectors.Vectors(dense, sparse)
    return Snapshot(self._ids.view(), items, alive, len(self.place))
