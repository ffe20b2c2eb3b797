# SPDX-License-Identifier: Apache-2.0
"""Blocks of columns: scaled, standardised and joined side by side.

Dense blocks are float32 [N, F] and are changed in place, since they can be
most of the memory of a run; sparse blocks are csr_array float32 [N, T]. Nothing
here knows which feature a block comes from.
"""

import dataclasses

import numpy as np
import scipy.sparse

_CLIP = 5.0  # standard deviations, and
_SMALLEST = 1e-5  # what is set to 0: both as published
_SMALLEST_STD = 1e-30  # what varies less is only centred


def no_columns(num_rows: int) -> scipy.sparse.csr_array:
  """A sparse block without columns, [N, 0]."""
  return scipy.sparse.csr_array((num_rows, 0), dtype=np.float32)


def pattern(matrix: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
  """1 wherever something is stored, also a weight of 0: csr_array float32."""
  ones = np.ones(len(matrix.data), np.float32)
  return scipy.sparse.csr_array(
      (ones, matrix.indices, matrix.indptr), shape=matrix.shape
  )


def take_rows(
    matrix: scipy.sparse.csr_array, rows: np.ndarray
) -> scipy.sparse.csr_array:
  """Rows [C] of csr_array [N, T]; a row of -1 is an empty one.

  It takes time for what is taken alone, however large N is.
  """
  start = matrix.indptr[rows]
  length = np.where(rows >= 0, matrix.indptr[rows + 1] - start, 0)
  starts = np.concatenate([[0], np.cumsum(length)])
  place = np.arange(starts[-1]) + np.repeat(start - starts[:-1], length)
  return scipy.sparse.csr_array(
      (matrix.data[place], matrix.indices[place], starts),
      shape=(len(rows), matrix.shape[1]),
  )


def times_rows(
    matrix: scipy.sparse.csr_array, factor: np.ndarray
) -> scipy.sparse.csr_array:
  """Rows [N, M] times factors [N]."""
  return scipy.sparse.csr_array(matrix.multiply(factor[:, None]))


def with_empty_rows(
    matrix: scipy.sparse.csr_array, num_rows: int
) -> scipy.sparse.csr_array:
  """csr_array [N, M] filled up to [num_rows, M]."""
  more = np.repeat(matrix.indptr[-1:], num_rows - matrix.shape[0])
  return scipy.sparse.csr_array(
      (matrix.data, matrix.indices, np.append(matrix.indptr, more)),
      shape=(num_rows, matrix.shape[1]),
  )


def unit_rows(matrix: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
  """Rows scaled to norm 1, float32; empty rows stay empty."""
  row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
  square = np.square(matrix.data, dtype=np.float64)
  norm = np.sqrt(np.bincount(row, square, minlength=matrix.shape[0]))
  data = (matrix.data / norm[row]).astype(np.float32)
  return scipy.sparse.csr_array(
      (data, matrix.indices, matrix.indptr), shape=matrix.shape
  )


def scale_rows(dense: np.ndarray) -> None:
  """Gives rows of dense [N, F] norm 1, in place; zero rows stay zero."""
  square = np.einsum('ij,ij->i', dense, dense, dtype=np.float64)
  norm = np.sqrt(np.where(square > 0, square, 1.0))
  # Divides in float64 without a float64 copy of the whole.
  np.divide(dense, norm[:, None], out=dense, casting='same_kind')


@dataclasses.dataclass(frozen=True, eq=False)
class ColumnScale:
  """The published preprocessing (Volkovs et al., NeurIPS 2017).

  Attributes:
    mean: float32 [F], of the training rows that are not zero.
    std: float32 [F], there; 1 for a column that does not vary.
  """

  mean: np.ndarray
  std: np.ndarray

  def apply(self, dense: np.ndarray) -> None:
    """Standardises and clips dense [N, F] in place; zero rows stay zero."""
    empty = ~dense.any(axis=1)
    with np.errstate(over='ignore'):  # What gets infinite is clipped.
      dense -= self.mean
      dense /= self.std
    np.clip(dense, -_CLIP, _CLIP, out=dense)
    dense[np.abs(dense) < _SMALLEST] = 0
    dense[empty] = 0


def fit_scale(dense: np.ndarray) -> ColumnScale:
  """Fits on the rows of dense [N, F] that are not zero."""
  rows = dense[dense.any(axis=1)]
  width = dense.shape[1]
  if not len(rows):
    return ColumnScale(np.zeros(width, np.float32), np.ones(width, np.float32))
  mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
  with np.errstate(over='ignore'):
    rows -= mean
  square = np.einsum('ij,ij->j', rows, rows, dtype=np.float64)
  std = np.sqrt(square / len(rows))
  usable = (std > _SMALLEST_STD) & np.isfinite(std)
  return ColumnScale(mean, np.where(usable, std, 1.0).astype(np.float32))


def join_dense(
    blocks: list[np.ndarray], scaling: str, num_rows: int
) -> np.ndarray:
  """Blocks side by side; under 'row' of norm 1 together."""
  blocks = [block for block in blocks if block.shape[1]]
  if len(blocks) == 1:  # Spares a copy of what may be most of the memory.
    return blocks[0]
  if not blocks:
    return np.zeros((num_rows, 0), np.float32)
  joined = np.concatenate(blocks, axis=1)
  if scaling == 'row':
    scale_rows(joined)
  return joined


def join_sparse(
    blocks: list[scipy.sparse.csr_array], num_rows: int
) -> scipy.sparse.csr_array:
  """Blocks of unit rows side by side, scaled to unit rows again."""
  blocks = [block for block in blocks if block.shape[1]]
  if len(blocks) == 1:
    return blocks[0]
  if not blocks:
    return no_columns(num_rows)
  joined = scipy.sparse.hstack(blocks, format='csr', dtype=np.float32)
  return unit_rows(scipy.sparse.csr_array(joined))
