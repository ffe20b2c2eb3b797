# SPDX-License-Identifier: Apache-2.0
"""Histories that the content of users lets expect: of new ones all there is.

Ridge from the dense content of users to the likes of the training users, by
which a user without a history has one: content ridge and all else that
histories are multiplied with then work for her as for anybody. It is content
ridge with the sides exchanged; and where the item is new as well, ridge on both
sides.

A like of an item with n likes counts n^-power there: what most like says less
of a user than what her like alone do, and popular items would have most of an
expected history. On average a like counts its weight.

With n likes a user has s / (s + n) of it beside her own history, s being
`expected_smoothing`.
"""

import dataclasses

import numpy as np
import scipy.linalg
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.evaluation import ease
from dropoutnet_jax.evaluation import fading

_CHUNK_ENTRIES = 2**24  # of dense histories that exist at a time
_MOST = 2**28  # weights: a GiB, and four while they are fitted


@dataclasses.dataclass(frozen=True, eq=False)
class ExpectedHistories:
  """What was fitted, times `expected_weight`.

  Attributes:
    weights: float32 [D, I], from dense content to histories.
    bias: float32 [I], of content that is zero.
    size: entries of a history that are kept.
    smoothing: likes of a user that count as much as her content.
  """

  weights: np.ndarray
  bias: np.ndarray
  size: int
  smoothing: float

  def __call__(self, content: np.ndarray) -> scipy.sparse.csr_array:
    """Of users with content [C, D]: csr_array float32 [C, I], > 0."""
    parts = [scipy.sparse.csr_array((0, len(self.bias)), dtype=np.float32)]
    size = max(_CHUNK_ENTRIES // max(len(self.bias), 1), 1)
    for rows in ease.chunks(len(content), size):
      whole = content[rows].astype(np.float32) @ self.weights + self.bias
      parts.append(ease.top_weights(whole, self.size))
    return scipy.sparse.csr_array(
        scipy.sparse.vstack(parts, format='csr', dtype=np.float32)
    )

  def share(self, number: np.ndarray) -> np.ndarray:
    """How much of it users with so many likes [C] have: float32 [C]."""
    return fading.left(number, self.smoothing).astype(np.float32)


def fit(
    content: np.ndarray,
    likes: scipy.sparse.csr_array,
    settings: config.SparseConfig,
) -> ExpectedHistories:
  """Fits them on training users.

  Args:
    content: float32 [U, D], dense content.
    likes: csr_array [U, I].
    settings: all of its fields `expected_...`, and `history_size`.

  Raises:
    UserError: if there is no content, or too much of it for that many items.
  """
  width, num_items = content.shape[1], likes.shape[1]
  if not width:
    raise errors.UserError(
        f'config.model.sparse.expected_weight is {settings.expected_weight}, '
        'and users have no dense content to expect histories by. Name columns '
        'in config.features.user, or set it to 0.'
    )
  if width * num_items > _MOST:
    raise errors.UserError(
        f'config.model.sparse.expected_weight is {settings.expected_weight}, '
        f'which takes a weight for each of {width} columns of content of users '
        f'and {num_items} items: {width * num_items / 2**28:.1f} GiB, and at '
        'most 1 GiB is supported. Set config.features.user[...].rank or '
        'min_rows for fewer columns, or expected_weight to 0.'
    )
  number = np.asarray(likes.sum(axis=0)).ravel()
  scale = np.where(number > 0, number, 1.0) ** -settings.expected_power
  target = scipy.sparse.csr_array(likes.multiply(scale[None, :]))
  total = target.sum()
  target *= settings.expected_weight * (likes.sum() / total if total else 1.0)
  mean = content.mean(axis=0, dtype=np.float64)
  centred = content - mean
  gram = centred.T @ centred
  gram[np.diag_indices(width)] += settings.expected_regularization
  weights = scipy.linalg.solve(gram, (target.T @ centred).T, assume_a='pos')
  bias = np.asarray(target.mean(axis=0)).ravel() - mean @ weights
  return ExpectedHistories(
      weights.astype(np.float32),
      bias.astype(np.float32),
      settings.history_size,
      settings.expected_smoothing,
  )
