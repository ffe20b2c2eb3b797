# SPDX-License-Identifier: Apache-2.0
"""Content ridge that solves for histories: (K + lambda I)^-1 in two places.

Between what asks for scores and what solves, exactly or by conjugate gradients.
"""

import abc
import dataclasses

import numpy as np
import scipy.sparse

from dropoutnet_jax.evaluation import ease


@dataclasses.dataclass(frozen=True)
class DualForm(abc.ABC):
  """Scores of histories over training rows; K = C C' of their content.

  Attributes:
    content: C, csr_array float32 [N, T] of the training rows that have content.
    rows: int [N], which these are.
    candidates: csr_array float32 [J, T].
  """

  content: scipy.sparse.csr_array
  rows: np.ndarray
  candidates: scipy.sparse.csr_array

  def scores(self, histories: ease.Histories) -> np.ndarray:
    """Scores float32 [U, J] of histories [U, I] over the training rows."""
    given = histories[:, self.rows]
    if not isinstance(given, np.ndarray):
      given = given.toarray()
    return (self.solve(given.T).T @ self.content) @ self.candidates.T

  def histories(
      self, likes: scipy.sparse.csr_array, candidates: slice
  ) -> np.ndarray:
    """What new rows would like, float32 [C, I].

    Args:
      likes: float32 [U, I]; the training rows are its users.
      candidates: which of the candidates, here new users.
    """
    across = ease.dot_products(self.content, self.candidates[candidates])
    return self.solve(across).T @ likes[self.rows]

  @abc.abstractmethod
  def solve(self, right: np.ndarray) -> np.ndarray:
    """(K + lambda I)^-1 of vectors [N, V]: float32 [N, V]."""
