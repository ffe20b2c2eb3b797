# SPDX-License-Identifier: Apache-2.0
"""The sparse part of the embeddings: content ridge, before the first step.

A user's sparse part is the summed content of her history, an item's its own
content, both whole. Their dot product, minus a dense one of rank k (Woodbury),
is content ridge; the towers' dense part is added to it:

  score = (sparse dot + second dot - correction dot) / divisor
          + tower_weight * tower dot,

one bilinear form. The second dot, where there are landmarks, is that of
`second_kernel.py`. The history counts as preference: a user without one has an
empty sparse part, and the towers alone speak for her.
"""

import dataclasses
import os

import jax.numpy as jnp
import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import blocks
from dropoutnet_jax.data import files
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.evaluation import ease
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.evaluation import second_kernel
from dropoutnet_jax.evaluation import woodbury
from dropoutnet_jax.model import embeddings

_FILE = 'sparse_part.npz'


@dataclasses.dataclass(frozen=True)
class SparsePart:
  """What the closed form fitted; nothing here is trained.

  Attributes:
    history: csr_array float32 [U, I], smoothed and cut histories.
    user_dense: float32 [U, F + k], the users' side of what is subtracted: the
      second kernel, negative, and the correction.
    correction: maps content and the F features to the items' side, [T + F, k],
      and the divisor.
    second: the second kernel, or None: F is 0.
  """

  history: scipy.sparse.csr_array
  user_dense: np.ndarray
  correction: woodbury.Correction
  second: second_kernel.SecondKernel | None = None

  def item_dense(self, content: scipy.sparse.csr_array) -> np.ndarray:
    """The items' side of `user_dense`, of any items: float32 [J, F + k]."""
    second = None
    if self.second is not None:
      second = self.second.features(content)
    return _item_dense(content, second, self.correction.weights)

  def _user_dense(
      self, histories: scipy.sparse.csr_array, content: scipy.sparse.csr_array
  ) -> np.ndarray:
    """Of histories [U, I] over items with content [I, T]."""
    width = 0 if self.second is None else self.second.width
    return _user_dense(histories, self.item_dense(content), width)

  def embed_users(
      self,
      rows: np.ndarray,
      tower: np.ndarray,
      content: scipy.sparse.csr_array,
      tower_weight: float,
  ) -> embeddings.Embedding:
    """Joins users [C] with the tower's output [C, R]; all scales are here.

    Args:
      rows: int [C].
      tower: float32 [C, R].
      content: csr_array float32 [I, T] of all items.
      tower_weight: of the tower's dot product.
    """
    divisor = np.float32(self.correction.divisor)
    dense = [-self.user_dense[rows] / divisor, np.float32(tower_weight) * tower]
    profile = (self.history[rows] @ content) / divisor
    return embeddings.Embedding(
        jnp.asarray(np.hstack(dense)), embeddings.sparse_rows(profile)
    )

  def embed_items(
      self, content: scipy.sparse.csr_array, tower: np.ndarray
  ) -> embeddings.Embedding:
    """Joins any items, old or new, with the tower's output [J, R].

    Args:
      content: csr_array float32 [J, T].
      tower: float32 [J, R].
    """
    dense = self.item_dense(content)
    return embeddings.Embedding(
        jnp.asarray(np.hstack([dense, tower])), embeddings.sparse_rows(content)
    )

  def with_histories(
      self,
      rows: np.ndarray,
      histories: scipy.sparse.csr_array,
      content: scipy.sparse.csr_array,
  ) -> 'SparsePart':
    """The same correction for users [C] with other histories, unsmoothed.

    Args:
      rows: int [C].
      histories: csr_array [C, I], over all items.
      content: csr_array float32 [I, T] of all items.
    """
    keep = np.ones(self.history.shape[0], np.float32)
    keep[rows] = 0
    others = scipy.sparse.csr_array(
        scipy.sparse.diags_array(keep) @ self.history
    )
    history = protocol.with_rows(others, rows, histories)
    user_dense = self.user_dense.copy()
    user_dense[rows] = self._user_dense(histories, content)
    return dataclasses.replace(
        self,
        history=scipy.sparse.csr_array(history, dtype=np.float32),
        user_dense=user_dense,
    )

  def select(self, rows: np.ndarray) -> 'SparsePart':
    """The part of users [C] alone; a row of -1 is one without a history."""
    user_dense = np.where(rows[:, None] >= 0, self.user_dense[rows], 0)
    return dataclasses.replace(
        self,
        history=blocks.take_rows(self.history, rows),
        user_dense=user_dense.astype(np.float32),
    )

  def with_more(
      self,
      histories: scipy.sparse.csr_array,
      content: scipy.sparse.csr_array,
  ) -> 'SparsePart':
    """The part of users who have more than it was fitted on: [U, I].

    Both sides of the part are linear in the history; so what comes on top is
    added, unsmoothed.

    Args:
      histories: csr_array float32 [U, I], over all items.
      content: csr_array float32 [I, T] of all items.
    """
    used = np.unique(histories.indices)
    more = self._user_dense(histories[:, used], content[used])
    return dataclasses.replace(
        self,
        history=scipy.sparse.csr_array(self.history + histories),
        user_dense=self.user_dense + more,
    )


def fit(
    problem: problem_lib.Problem, settings: config.SparseConfig, seed: int
) -> SparsePart:
  """Fits histories and correction on the training rows.

  Raises:
    UserError: if no training item has sparse content.
  """
  _, train_items = problem.split.train_rows()
  content = problem.item.sparse[train_items]
  if not content.nnz:
    raise errors.UserError(
        'config.model.sparse.enabled needs sparse content of the items, and '
        'no training item has any. Name a column of tags in '
        'config.features.item, or turn it off.'
    )
  likes = problem.likes()[:, train_items].tocsr()
  smoother = None
  if settings.smoothing:
    smoother = ease.fit(likes, settings.smoothing_l2)
  history = ease.top_history(
      likes, smoother, settings.smoothing, settings.history_size
  )
  del smoother  # a Gram matrix; the next step wants its memory
  rank = settings.correction_rank
  spectrum = woodbury.decompose(content, rank, seed)
  second = features = None
  if settings.landmarks:
    second, features = second_kernel.fit(
        content,
        problem.factors.item[train_items],
        woodbury.correction(spectrum, settings.factor_regularization),
        settings.landmarks,
        settings.second_weight,
        seed,
    )
    spectrum = woodbury.decompose(content, rank, seed, more=features)
  correction = woodbury.correction(spectrum, settings.regularization)
  user_dense = _user_dense(
      history,
      _item_dense(content, features, correction.weights),
      0 if second is None else second.width,
  )
  everywhere = scipy.sparse.csr_array(
      (history.data, train_items[history.indices], history.indptr),
      shape=(history.shape[0], len(problem.item.ids)),
  )
  return SparsePart(
      everywhere, user_dense.astype(np.float32), correction, second
  )


def _item_dense(
    content: scipy.sparse.csr_array,
    second: np.ndarray | None,
    weights: np.ndarray,
) -> np.ndarray:
  """Features of the second kernel, then the correction: float32 [J, F + k].

  Args:
    content: csr_array float32 [J, T].
    second: float32 [J, F], or None for F = 0.
    weights: float32 [T + F, k].
  """
  if second is None:
    return woodbury.item_dense(content, weights)
  size = content.shape[1]
  dense = woodbury.item_dense(content, weights[:size]) + second @ weights[size:]
  return np.hstack([second, dense])


def _user_dense(
    histories: scipy.sparse.csr_array, item: np.ndarray, width: int
) -> np.ndarray:
  """Sums over histories of `_item_dense`, its first columns negative."""
  dense = woodbury.user_dense(histories, item)
  dense[:, :width] *= -1
  return dense


def save(part: SparsePart, workdir: str) -> None:
  """Keeps the part in a run folder, in one file."""
  arrays = files.sparse_arrays('history', part.history)
  arrays['user_dense'] = part.user_dense
  arrays['weights'] = part.correction.weights
  arrays['divisor'] = np.asarray(part.correction.divisor)
  if part.second is not None:
    for field in dataclasses.fields(part.second):
      arrays[f'second/{field.name}'] = getattr(part.second, field.name)
  files.save_arrays(os.path.join(workdir, _FILE), arrays)


def exists(workdir: str) -> bool:
  """Whether the run folder holds a fitted part."""
  return os.path.exists(os.path.join(workdir, _FILE))


def load(workdir: str) -> SparsePart:
  """Reads what `save` kept.

  Raises:
    UserError: if the file is missing or damaged.
  """
  arrays = files.load_arrays(os.path.join(workdir, _FILE))
  second = None
  if 'second/root' in arrays:
    second = second_kernel.SecondKernel(
        *(
            arrays[f'second/{field.name}']
            for field in dataclasses.fields(second_kernel.SecondKernel)
        )
    )
  return SparsePart(
      files.sparse_from_arrays('history', arrays),
      arrays['user_dense'],
      woodbury.Correction(arrays['weights'], float(arrays['divisor'])),
      second,
  )
