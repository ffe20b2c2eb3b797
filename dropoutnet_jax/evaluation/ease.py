# SPDX-License-Identifier: Apache-2.0
"""EASE: how much one like speaks for another item, in closed form.

B [I, I] minimises |R - R B|^2 + l2 |B|^2 with a zero diagonal (Steck,
"Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019). With
P = (R'R + l2 I)^-1 it is B = I - P / diag(P), each column by its own entry.

R B needs a Gram matrix of one side only: of the items, or of the users, since
P = (I - R' (R R' + l2 I)^-1 R) / l2. `fit` takes the smaller side. Histories
R + strength R B fill in for liked items that carry no content.

The module knows likes alone: no content, candidates, metrics or device.
"""

from collections.abc import Iterator
import dataclasses
from typing import TypeAlias

import numpy as np
import scipy.linalg.lapack
import scipy.sparse

from dropoutnet_jax import errors

# Histories of a few users: sparse as read, or dense once smoothed.
Histories: TypeAlias = scipy.sparse.csr_array | np.ndarray

_BLOCK = 256  # rows of a sparse product that are dense at a time
MAX_GRAM = 25_000  # rows of the largest Gram matrix: 2.5 GB


def chunks(num_rows: int, size: int) -> Iterator[slice]:
  """Slices of at most `size` rows that cover `num_rows`."""
  for start in range(0, num_rows, size):
    yield slice(start, min(start + size, num_rows))


def dot_products(
    rows: scipy.sparse.csr_array, others: scipy.sparse.csr_array
) -> np.ndarray:
  """Dot products of sparse rows [N, D] with sparse others [J, D].

  Returns:
    float32 [N, J], column by column in memory (Fortran order), as LAPACK
    needs it to work in place. Nothing else of that size is made.
  """
  result = np.empty((rows.shape[0], others.shape[0]), np.float32, order='F')
  columns = rows.T.tocsr()
  for block in chunks(others.shape[0], _BLOCK):
    (others[block] @ columns).toarray(out=result[:, block].T)
  return result


def mirror(matrix: np.ndarray) -> None:
  """Copies the lower triangle of matrix [N, N] over the upper one, in place."""
  for block in chunks(len(matrix), _BLOCK):
    corner = matrix[block, block]
    upper = np.triu_indices(len(corner), 1)
    corner[upper] = corner.T[upper]
    matrix[block, block.stop :] = matrix[block.stop :, block].T


def factorize(matrix: np.ndarray) -> np.ndarray:
  """Cholesky factor of symmetric matrix [N, N], in its lower triangle.

  Args:
    matrix: float32 in Fortran order. The lower triangle is overwritten; the
      upper one, without the diagonal, is kept.

  Raises:
    UserError: if it is not positive definite in float32.
  """
  factor, info = scipy.linalg.lapack.spotrf(
      matrix, lower=1, clean=0, overwrite_a=1
  )
  if info:
    raise errors.UserError(
        f'The Gram matrix of {len(matrix)} rows is not positive definite in '
        'float32: the regularisation is too small for it. Raise '
        'config.evaluation.ridge_lambdas, config.model.sparse.regularization '
        'or the smoothing_l2 beside it.'
    )
  return factor


def _regularized_inverse(rows: scipy.sparse.csr_array, l2: float) -> np.ndarray:
  """(rows rows' + l2 I)^-1, float32 [N, N], in one buffer."""
  gram = dot_products(rows, rows)
  np.fill_diagonal(gram, gram.diagonal() + np.float32(l2))
  inverse, _ = scipy.linalg.lapack.spotri(
      factorize(gram), lower=1, overwrite_c=1
  )
  mirror(inverse)
  return inverse


def item_weights(likes: scipy.sparse.csr_array, l2: float) -> np.ndarray:
  """EASE's B, float32 [I, I] with a zero diagonal, in one I x I buffer.

  Args:
    likes: float32 [U, I].
    l2: ridge on the weights, positive.

  Raises:
    UserError: if there are no likes, or l2 is too small for float32.
  """
  _check(likes, l2)
  weights = _regularized_inverse(likes.T.tocsr(), l2)
  weights /= -weights.diagonal()[None, :]
  np.fill_diagonal(weights, 0)
  return weights


@dataclasses.dataclass(frozen=True)
class ItemSmoother:
  """R B with B [I, I] itself: the form for more users than items."""

  weights: np.ndarray

  def predict(self, histories: Histories) -> np.ndarray:
    """histories [N, I] times B, float32 [N, I]."""
    return to_dense(histories) @ self.weights


@dataclasses.dataclass(frozen=True)
class UserSmoother:
  """The same R B from the users' side: no I x I matrix.

  Attributes:
    inverse: float32 [U, U], (R R' + l2 I)^-1.
    likes: csr_array float32 [U, I], the R that it was made from.
    remainder: float32 [I], l2 diag(P): 1 minus each item's leverage.
  """

  inverse: np.ndarray
  likes: scipy.sparse.csr_array
  remainder: np.ndarray

  def predict(self, histories: Histories) -> np.ndarray:
    """histories [N, I] times B, float32 [N, I]; of these or other users."""
    # l2 h P = h - explained, and h B = h - h P / diag(P).
    explained = to_dense(histories @ self.likes.T) @ self.inverse @ self.likes
    own = to_dense(histories)
    return own - (own - explained) / self.remainder[None, :]


Smoother: TypeAlias = ItemSmoother | UserSmoother


def check_size(
    num_users: int, num_items: int, max_gram: int = MAX_GRAM
) -> None:
  """Raises UserError where both sides are too many for a Gram matrix."""
  if min(num_users, num_items) > max_gram:
    raise errors.UserError(
        f'EASE of {num_users} users and {num_items} items needs a Gram matrix '
        f'of {min(num_users, num_items)} rows; at most {max_gram} are allowed. '
        "Set the smoothing of histories to 0, and take 'ease' out of "
        'config.evaluation.baselines.'
    )


def fit(
    likes: scipy.sparse.csr_array, l2: float, *, max_gram: int = MAX_GRAM
) -> Smoother:
  """EASE of likes [U, I] from the side with fewer rows.

  Raises:
    UserError: if both sides have more than `max_gram` rows, there are no
      likes, or l2 is too small for float32.
  """
  _check(likes, l2)
  num_users, num_items = likes.shape
  check_size(num_users, num_items, max_gram)
  if num_items <= num_users:
    return ItemSmoother(item_weights(likes, l2))
  # Symmetric, so this is the same matrix in C order, as sparse products want.
  inverse = _regularized_inverse(likes, l2).T
  remainder = np.empty(num_items, np.float32)
  by_item = likes.T.tocsr()
  for block in chunks(num_items, _BLOCK):
    rows = by_item[block]
    remainder[block] = 1 - (rows.multiply(rows @ inverse)).sum(axis=1)
  return UserSmoother(inverse, likes, remainder)


def smoothed(
    histories: Histories, smoother: Smoother | None, strength: float
) -> Histories:
  """histories [N, I] + strength histories B, float32 [N, I].

  Dense, so for a chunk of users; strength 0 returns the histories as they are.
  """
  if smoother is None or not strength:
    return histories
  result = smoother.predict(histories)
  result *= np.float32(strength)
  result += to_dense(histories)
  return result


def top_weights(histories: np.ndarray, size: int) -> scipy.sparse.csr_array:
  """The `size` largest positive weights of each history.

  Args:
    histories: float32 [N, I].
    size: entries kept per user, at least 1.

  Returns:
    csr_array float32 [N, I], columns ascending, no explicit zeros.
  """
  num_users, num_items = histories.shape
  size = min(size, num_items)
  top = np.argpartition(histories, num_items - size, axis=1)
  top = np.sort(top[:, num_items - size :], axis=1).astype(np.int32)
  weight = np.take_along_axis(histories, top, axis=1)
  kept = weight > 0
  counts = np.zeros(num_users + 1, np.int64)
  counts[1:] = kept.sum(axis=1)
  return scipy.sparse.csr_array(
      (weight[kept], top[kept], np.cumsum(counts)), shape=histories.shape
  )


def to_dense(matrix: Histories) -> np.ndarray:
  """Histories [N, I] as an array."""
  return matrix if isinstance(matrix, np.ndarray) else matrix.toarray()


def _check(likes: scipy.sparse.csr_array, l2: float) -> None:
  if not likes.nnz:
    raise errors.UserError(
        f'The training likes of {likes.shape[0]} users and {likes.shape[1]} '
        'items are empty: there are no histories to smooth. Set the smoothing '
        'to 0 or check the split.'
    )
  if not 0 < l2 < float('inf'):
    raise errors.UserError(f'The smoothing_l2 is {l2!r}; it must be positive.')
