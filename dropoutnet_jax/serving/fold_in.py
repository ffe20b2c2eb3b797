# SPDX-License-Identifier: Apache-2.0
"""The teacher's factors of a few rows, from their likes, on the host.

The same ridge regressions as `teacher.fold_in`, which solves for many rows at a
time, looks at all factors first, and is compiled for every length of a history.
Whoever asks for one user at a time can wait for neither.
"""

import dataclasses

import numpy as np
import scipy.sparse

from dropoutnet_jax import config

MOST = 512  # rows for which this is the faster way


@dataclasses.dataclass(frozen=True, eq=False)
class FoldIn:
  """One side's factors, fixed.

  Attributes:
    factors: float32 [M, P].
    gram: float64 [P, P], of all factors, with the regularisation.
    confidence: of the teacher: a like counts 1 + confidence * weight.
  """

  factors: np.ndarray
  gram: np.ndarray
  confidence: float

  def __call__(self, likes: scipy.sparse.csr_array) -> np.ndarray:
    """Factors float32 [C, P] of rows with likes [C, M]; zero without any."""
    found = np.zeros((likes.shape[0], len(self.gram)), np.float32)
    for row, (start, stop) in enumerate(zip(likes.indptr, likes.indptr[1:])):
      if start == stop:
        continue
      own = self.factors[likes.indices[start:stop]].astype(np.float64)
      extra = self.confidence * likes.data[start:stop].astype(np.float64)
      matrix = self.gram + own.T @ (extra[:, None] * own)
      found[row] = np.linalg.solve(matrix, own.T @ (1 + extra))
    return found


def make(factors: np.ndarray, settings: config.TeacherConfig) -> FoldIn:
  """Fixes factors [M, P] that a teacher of these settings has made."""
  eye = np.eye(factors.shape[1])
  gram = (factors.T @ factors).astype(
      np.float64
  ) + settings.regularization * eye
  return FoldIn(factors, gram, settings.confidence)
