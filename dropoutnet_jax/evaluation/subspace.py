# SPDX-License-Identifier: Apache-2.0
"""Leading eigenvectors of large matrices, by subspace iteration.

After Halko, Martinsson & Tropp (SIAM Review, 2011). In float32 on the host; a
matrix is known by its products alone.
"""

from collections.abc import Callable

import numpy as np
import scipy.linalg


def iterate(
    times: Callable[[np.ndarray], np.ndarray],
    size: int,
    rank: int,
    generator: np.random.Generator,
    num_iterations: int,
) -> np.ndarray:
  """An orthonormal basis that nearly holds the leading eigenvectors.

  Args:
    times: multiplies a symmetric matrix [N, N] by vectors [N, width].
    size: N.
    rank: how many eigenvectors are wanted.
    generator: of the random start.
    num_iterations: products with the matrix.

  Returns:
    float32 [N, width], somewhat wider than the rank, at most N.
  """
  shape = (size, _width(rank, size))
  basis = generator.standard_normal(shape, np.float32)
  for _ in range(num_iterations):
    basis = _same_span(times(basis))
  return _orthonormal(basis)


def leading_eigenvectors(
    matrix: np.ndarray, rank: int, seed: int, num_iterations: int = 4
) -> tuple[np.ndarray, np.ndarray]:
  """The largest eigenvalues of a symmetric matrix.

  Args:
    matrix: float32 [N, N], positive but for rounding.
    rank: k; N where that is smaller. Where nearly all are wanted they are
      exact, of matrices without inverse as well.
    seed: of the random start.
    num_iterations: products with the matrix before the last one.

  Returns:
    float32 [k], ascending, and the eigenvectors, float32 [N, k].
  """
  size = len(matrix)
  rank = min(rank, size)
  if _width(rank, size) == size:
    values, vectors = scipy.linalg.eigh(matrix, driver='evd')
    return values[size - rank :], vectors[:, size - rank :]
  basis = iterate(
      lambda basis: matrix @ basis,
      size,
      rank,
      np.random.default_rng(seed),
      num_iterations,
  )
  values, rotation = scipy.linalg.eigh(basis.T @ matrix @ basis, driver='evd')
  first = len(values) - rank
  return values[first:], basis @ rotation[:, first:]


def _width(rank: int, size: int) -> int:
  """Of a basis: the last of so many eigenvectors converge slowly."""
  return min(rank + 20 + rank // 20, size)


def _same_span(vectors: np.ndarray) -> np.ndarray:
  """Well-conditioned vectors [N, width] that span the same space, by LU."""
  lower, _ = scipy.linalg.lu(
      vectors, permute_l=True, overwrite_a=True, check_finite=False
  )
  return lower


def _orthonormal(vectors: np.ndarray) -> np.ndarray:
  """Orthonormal basis of well-conditioned vectors [N, width].

  Cholesky QR, twice: like LU it is a few products of large matrices. LAPACK's
  QR, with its many small steps, is over ten times slower on shared cores.
  """
  for _ in range(2):
    factor = scipy.linalg.cholesky(vectors.T @ vectors, check_finite=False)
    vectors = scipy.linalg.solve_triangular(
        factor, vectors.T, trans='T', check_finite=False
    ).T
  return vectors
