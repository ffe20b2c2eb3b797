# SPDX-License-Identifier: Apache-2.0
"""The teacher's factors of any rows, from their likes, time and again.

The same ridge regressions as `teacher.fold_in`, which solves for many rows at a
time, looks at all factors first, and is compiled for every length of a history.
Whoever asks for one user at a time can wait for neither: few rows are solved
for on the host.
"""

import dataclasses

import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import teacher
from dropoutnet_jax.data import blocks

_MOST = 512  # rows for which the host is the faster way


@dataclasses.dataclass(frozen=True, eq=False)
class FoldIn:
  """One side's factors, fixed.

  Attributes:
    factors: float32 [M, P].
    gram: float64 [P, P], of all factors, with the regularisation.
    settings: of the teacher: a like counts 1 + confidence * weight.
  """

  factors: np.ndarray
  gram: np.ndarray
  settings: config.TeacherConfig

  def __call__(self, likes: scipy.sparse.csr_array) -> np.ndarray:
    """Factors float32 [C, P] of rows with likes [C, M]; zero without any."""
    count = likes.shape[0]
    if count > _MOST:  # filled up to one of few sizes: each is compiled for
      padded = blocks.with_empty_rows(likes, 1 << (count - 1).bit_length())
      return teacher.fold_in(self.factors, padded, self.settings)[:count]
    found = np.zeros((likes.shape[0], len(self.gram)), np.float32)
    for row, (start, stop) in enumerate(zip(likes.indptr, likes.indptr[1:])):
      if start != stop:
        own, matrix, weight = self._normal(
            likes.indices[start:stop], likes.data[start:stop]
        )
        found[row] = np.linalg.solve(matrix, own.T @ weight)
    return found

  def shares(
      self, likes: scipy.sparse.csr_array, factors: np.ndarray
  ) -> np.ndarray:
    """What each like adds to the dot product of a row with factors [P].

    It is linear in the likes where their weights are given (Hu, Koren &
    Volinsky, ICDM 2008, section 5).

    Args:
      likes: csr_array float32 [1, M], of the row.
      factors: of one row of the other kind.

    Returns:
      float64 [L], in the order of the likes.
    """
    own, matrix, weight = self._normal(likes.indices, likes.data)
    return weight * (own @ np.linalg.solve(matrix, factors))

  def _normal(
      self, indices: np.ndarray, data: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Factors [L, P] of the likes, matrix [P, P] and weights [L]."""
    own = self.factors[indices].astype(np.float64)
    extra = self.settings.confidence * data.astype(np.float64)
    return own, self.gram + own.T @ (extra[:, None] * own), 1 + extra


def make(factors: np.ndarray, settings: config.TeacherConfig) -> FoldIn:
  """Fixes factors [M, P] that a teacher of these settings has made."""
  eye = np.eye(factors.shape[1])
  gram = (factors.T @ factors).astype(
      np.float64
  ) + settings.regularization * eye
  return FoldIn(factors, gram, settings)
