# SPDX-License-Identifier: Apache-2.0
"""Embeddings as arrays of the host: dense rows, and sparse ones beside them."""

import dataclasses
from typing import Any

import numpy as np
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.serving.index import protocol

LARGEST = 1e15  # of any value: no sum of products of two overflows float32


@dataclasses.dataclass(frozen=True, eq=False)
class Vectors:
  """N embeddings.

  Attributes:
    dense: float32 [N, R], contiguous.
    sparse: csr_array float32 [N, T], or None.
  """

  dense: np.ndarray
  sparse: scipy.sparse.csr_array | None = None

  def __len__(self) -> int:
    return len(self.dense)

  @property
  def widths(self) -> tuple[int, int | None]:
    """R, and T or None."""
    sparse = self.sparse
    return self.dense.shape[1], None if sparse is None else sparse.shape[1]

  def select(self, rows: np.ndarray | slice) -> 'Vectors':
    """Rows [C] in their order."""
    sparse = self.sparse
    if sparse is not None:
      sparse = scipy.sparse.csr_array(sparse[rows])
    return Vectors(self.dense[rows], sparse)


def of(embedding: protocol.Embedded, what: str) -> Vectors:
  """The arrays of an embedding, copied only where they are not there as such.

  Args:
    embedding: of N users or items.
    what: these are called, for messages.

  Raises:
    UserError: if the parts have different numbers of rows, or a value is not
      finite or above `LARGEST`.
  """
  dense = np.ascontiguousarray(np.asarray(embedding.dense, np.float32))
  if dense.ndim != 2:
    raise errors.UserError(
        f'The dense part of {what} has shape {dense.shape}; it must be one row '
        'for each of them, [N, R].'
    )
  sparse: Any = embedding.sparse
  if isinstance(sparse, embeddings.SparseRows):
    sparse = embeddings.to_matrix(sparse)
  elif sparse is not None:
    sparse = scipy.sparse.csr_array(sparse, dtype=np.float32)
  if sparse is not None and sparse.shape[0] < len(dense):
    raise errors.UserError(
        f'{what} have {len(dense)} dense rows and {sparse.shape[0]} sparse '
        'ones; they must be as many.'
    )
  if sparse is not None and sparse.shape[0] > len(dense):
    sparse = scipy.sparse.csr_array(sparse[: len(dense)])  # padding
  values = () if sparse is None else (sparse.data,)
  if not all(are_fine(part.reshape(1, -1)).all() for part in (dense, *values)):
    raise errors.UserError(
        f'Embeddings of {what} hold values that are not finite, or beyond '
        f'{LARGEST:.0e}; scores with them mean nothing.'
    )
  return Vectors(dense, sparse)


def are_fine(values: np.ndarray) -> np.ndarray:
  """bool [N], rows of [N, R] whose scores can be told apart."""
  highest, lowest = values.max(axis=1, initial=0), values.min(axis=1, initial=0)
  return (highest <= LARGEST) & (lowest >= -LARGEST)  # NaN is in both
