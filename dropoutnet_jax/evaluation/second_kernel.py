# SPDX-License-Identifier: Apache-2.0
"""A second kernel of items: alike is what content predicts to be liked alike.

Content ridge compares items by the tags that they share. Here a ridge predicts
the teacher's factors of an item from its content, and two items are as alike as
max(cosine of their predictions, 0)^2. Those of training items leave the item
itself out, in closed form: what the rest of them predict, as for a new item.

The kernel is kept as features of bounded width: Nystroem, on some training
items as landmarks (Williams & Seeger, NIPS 2000), and of their eigenvectors
the leading ones. They stand beside the content in the ridge, and beside the
tower's output in the embeddings.
"""

import dataclasses

import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax.evaluation import subspace
from dropoutnet_jax.evaluation import woodbury

# Eigenvalues of the kernel of the landmarks, as a share of the largest; what is
# below is rounding, or negative: the positive part makes it no exact kernel.
_SMALLEST = 1e-5
SMALLEST_NORM = 0.1  # of usual ones: below are items of tags that few have


@dataclasses.dataclass(frozen=True)
class SecondKernel:
  """Features of any items, old or new.

  Attributes:
    predictor: float32 [T, P], from content to the teacher's factors.
    landmarks: float32 [M, P], predictions of norm 1.
    root: float32 [M, F], makes features of the kernel with the landmarks.
    usual: float32 [1], the mean norm of what is predicted of training items.
  """

  predictor: np.ndarray
  landmarks: np.ndarray
  root: np.ndarray
  usual: np.ndarray

  @property
  def width(self) -> int:
    """F."""
    return self.root.shape[1]

  def features(self, content: scipy.sparse.csr_array) -> np.ndarray:
    """Features float32 [N, F] of items with content [N, T]; 0 without any."""
    return self.of_factors(content @ self.predictor)

  def norm(self, content: scipy.sparse.csr_array) -> np.ndarray:
    """Of predicted factors of items [N], 1 for usual ones: float32 [N].

    Also 1 where nothing is predicted.
    """
    norm = np.linalg.norm(content @ self.predictor, axis=1)
    share = np.maximum(norm / self.usual, SMALLEST_NORM)
    return np.where(norm > 0, share, 1).astype(np.float32)

  def of_factors(self, predicted: np.ndarray) -> np.ndarray:
    """Features float32 [N, F] of predicted factors [N, P]."""
    return _kernel(_unit(predicted), self.landmarks) @ self.root


def fit(
    content: scipy.sparse.csr_array,
    factors: np.ndarray,
    correction: woodbury.Correction,
    settings: config.SparseConfig,
    seed: int,
) -> tuple[SecondKernel, np.ndarray]:
  """Predicts factors, draws landmarks.

  Args:
    content: csr_array float32 [I, T] of the training items.
    factors: float32 [I, P], the teacher's.
    correction: of the ridge that predicts; its lambda is in there.
    settings: number of landmarks (as many as there are items with content
      where those are fewer), features kept, weight beside the content.
    seed: draws the landmarks.

  Returns:
    The kernel, and features float32 [I, F] of the training items, each
    predicted without itself.
  """
  predicted, predictor = leave_one_out(content, factors, correction)
  filled = np.flatnonzero(np.diff(content.indptr))
  order = np.random.default_rng(seed).permutation(filled)
  drawn = np.sort(order[: settings.landmarks])
  landmarks = _unit(predicted[drawn])
  values, vectors = subspace.leading_eigenvectors(
      _kernel(landmarks, landmarks), settings.second_width, seed
  )
  kept = values > _SMALLEST * values.max(initial=0.0)
  scale = np.sqrt(np.float32(settings.second_weight) / values[kept])
  usual = np.linalg.norm(predicted[filled], axis=1).mean(keepdims=True)
  kernel = SecondKernel(predictor, landmarks, vectors[:, kept] * scale, usual)
  return kernel, kernel.of_factors(predicted)


def leave_one_out(
    content: scipy.sparse.csr_array,
    factors: np.ndarray,
    correction: woodbury.Correction,
) -> tuple[np.ndarray, np.ndarray]:
  """Ridge from content to factors, for training items without themselves.

  With the hat matrix H = C (C'C + lambda I)^-1 C' in the form of `woodbury.py`
  the prediction without the item is y - (y - H y) / (1 - diag H).

  Args:
    content: csr_array float32 [I, T].
    factors: float32 [I, P].
    correction: of the ridge.

  Returns:
    Predictions float32 [I, P]; 0 for items without content. And the map from
    content to predictions of new items, float32 [T, P].
  """
  weights, divisor = correction.weights, np.float32(correction.divisor)
  predictor = woodbury.solve(correction, content, factors)
  norm = np.asarray(content.multiply(content).sum(axis=1)).ravel()
  dense = content @ weights
  leverage = (norm - np.sum(dense * dense, axis=1)) / divisor
  gap = (factors - content @ predictor) / (1 - leverage)[:, None]
  predicted = np.where((norm > 0)[:, None], factors - gap, 0)
  return predicted.astype(np.float32), predictor


def _kernel(one: np.ndarray, other: np.ndarray) -> np.ndarray:
  """max(cosine, 0)^2 of rows of norm 1 or 0: [N, M]."""
  return np.square(np.maximum(one @ other.T, 0))


def _unit(rows: np.ndarray) -> np.ndarray:
  norm = np.linalg.norm(rows, axis=1, keepdims=True)
  return rows / np.where(norm > 0, norm, 1)
