# SPDX-License-Identifier: Apache-2.0
"""Fits the sparse part of the embeddings, before the first step.

Smoothed histories have a weight for every item. The largest make the sparse
part; the others still have a dense one, so that cutting costs next to nothing.
"""

import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import sparse_products
from dropoutnet_jax.evaluation import content_lengths
from dropoutnet_jax.evaluation import ease
from dropoutnet_jax.evaluation import expected_histories
from dropoutnet_jax.evaluation import second_kernel
from dropoutnet_jax.evaluation import sparse_part
from dropoutnet_jax.evaluation import woodbury

# Users whose dense histories exist at a time, and their entries.
_MAX_CHUNK = 512
_CHUNK_ENTRIES = 2**24


def fit(
    problem: problem_lib.Problem, settings: config.SparseConfig, seed: int
) -> sparse_part.SparsePart:
  """Fits histories and correction on the training rows.

  Raises:
    UserError: if no training item has sparse content, or as
      `expected_histories.fit`.
  """
  _, train_items = problem.split.train_rows()
  content = problem.item.sparse[train_items]
  if not content.nnz:
    raise errors.UserError(
        'config.model.sparse.enabled needs sparse content of the items, and '
        'no training item has any. Name a column of tags in '
        'config.features.item, or turn it off.'
    )
  filled = np.count_nonzero(np.diff(content.indptr))
  lengths = content_lengths.Lengths(content.nnz / filled, settings.length_power)
  length = lengths.of(content)
  second = features = None
  if settings.landmarks:
    spectrum = woodbury.decompose(content, settings.correction_rank, seed)
    second, features = second_kernel.fit(
        content,
        problem.factors.item[train_items],
        woodbury.correction(spectrum, settings.factor_regularization),
        settings,
        seed,
    )
    features *= length[:, None]
  scaled = content_lengths.scaled(content, length)
  spectrum = woodbury.decompose(
      scaled, settings.correction_rank, seed, more=features
  )
  correction = woodbury.correction(spectrum, settings.regularization)
  item = sparse_part.item_dense(scaled, features, correction.weights)
  width = 0 if second is None else second.width
  outside = item[:, width:] * woodbury.outside(spectrum, correction)[None, :]
  item[:, :width] *= -1
  history, user_dense = _users(
      problem.likes()[:, train_items].tocsr(), item, outside, settings
  )
  history = content_lengths.lengthened(history, length)
  predictor = None
  if settings.landmarks and settings.predicted_weight:
    predictor = woodbury.solve(
        correction, scaled, problem.factors.item[train_items], features
    )
  everywhere = scipy.sparse.csr_array(
      (history.data, train_items[history.indices], history.indptr),
      shape=(history.shape[0], len(problem.item.ids)),
  )
  expected = None
  if settings.expected_weight:
    expected = _expect(problem, settings)
  part = sparse_part.SparsePart(
      everywhere,
      user_dense,
      correction,
      lengths,
      second,
      settings.history_weight,
      settings.norm_power,
      predictor,
      expected,
  )
  if expected is not None:
    share = expected.share(problem.like_counts()[0])
    part = part.with_expected(share, problem.user.dense, problem.item.sparse)
  return part


def _expect(
    problem: problem_lib.Problem, settings: config.SparseConfig
) -> expected_histories.ExpectedHistories:
  """By the training users, of all items."""
  users, _ = problem.split.train_rows()
  return expected_histories.fit(
      problem.user.dense[users], problem.likes()[users], settings
  )


def _users(
    likes: scipy.sparse.csr_array,
    item: np.ndarray,
    outside: np.ndarray,
    settings: config.SparseConfig,
) -> tuple[scipy.sparse.csr_array, np.ndarray]:
  """Smoothed histories, cut, and the dense side of them whole.

  Args:
    likes: csr_array float32 [U, I].
    item: float32 [I, F + k], summed over what is kept.
    outside: float32 [I, k], summed over what is cut off, and taken off.
    settings: of the histories.

  Returns:
    csr_array float32 [U, I], and float32 [U, F + k].
  """
  smoother = None
  if settings.smoothing:
    smoother = ease.fit(likes, settings.smoothing_l2)
  num_users, num_items = likes.shape
  width = item.shape[1] - outside.shape[1]
  dense = np.empty((num_users, item.shape[1]), np.float32)
  kept = []
  size = max(min(_MAX_CHUNK, _CHUNK_ENTRIES // max(num_items, 1)), 1)
  for chunk in ease.chunks(num_users, size):
    weights = ease.smoothed(likes[chunk], smoother, settings.smoothing)
    rest = np.maximum(ease.to_dense(weights), 0)
    kept.append(ease.top_weights(rest, settings.history_size))
    rest -= kept[-1].toarray()
    dense[chunk] = sparse_products.times(kept[-1], item)
    dense[chunk, width:] -= rest @ outside
  history = scipy.sparse.vstack(kept, format='csr', dtype=np.float32)
  return scipy.sparse.csr_array(history), dense
