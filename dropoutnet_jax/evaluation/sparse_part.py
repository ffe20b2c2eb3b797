# SPDX-License-Identifier: Apache-2.0
"""The sparse part of the embeddings: content ridge, and what likes say.

A user's sparse part is the summed content of her history, an item's its own
content, both whole. Their dot product, minus a dense one of rank k (Woodbury),
is content ridge; the towers' dense part is added to it:

  score = (sparse dot + second dot - correction dot) / divisor
          + teacher_weight * teacher dot + tower_weight * tower dot,

one bilinear form. With `history_weight` the items of the run are columns of the
sparse dot too, after those of the content: so many times the weight that the
user's history gives to the item itself is added, which for an item that is not
in the training rows is nothing. The second dot, where there are landmarks, is
that of `second_kernel.py`, and the teacher's, where it has a weight, that of
`teacher_part.py`. The history counts as preference: a user without one has an
empty sparse part, and the towers alone speak for her; unless her content lets
expect one (`expected_histories.py`), which is then part of it, less with each
like.

With `norm_power` what the ridge says, the quotient above, is divided by a power
of the norm of the factors that content predicts of the item: its scores are
higher for what it knows more of, and the best of many such are too high.

Content has rows of norm 1, times (entries / their mean)^length_power: what many
tags describe is known better and liked more (after pivoted length
normalisation: Singhal, Buckley & Mitra, SIGIR 1996).
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax.data import blocks
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import sparse_products
from dropoutnet_jax.evaluation import content_lengths
from dropoutnet_jax.evaluation import expected_histories
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.evaluation import second_kernel
from dropoutnet_jax.evaluation import teacher_part
from dropoutnet_jax.evaluation import woodbury
from dropoutnet_jax.model import embeddings


@dataclasses.dataclass(frozen=True)
class SparsePart:
  """What the closed form fitted; nothing here is trained.

  Attributes:
    history: csr_array float32 [U, I], smoothed and cut histories, each weight
      times the length of its item.
    user_dense: float32 [U, F + k], the users' side of what is subtracted: the
      second kernel, negative, and the correction.
    correction: maps content and the F features to the items' side, [T + F, k],
      and the divisor.
    lengths: of items by the number of their entries.
    second: the second kernel, or None: F is 0.
    history_weight: of what the history says of an item itself.
    norm_power: of predicted factors, by which an item's scores are smaller.
    predictor: float32 [T + F, P], from content and features to the teacher's
      factors, by the whole ridge; or None.
    expected: histories by the content of users, which `history` holds as far as
      their likes leave them; or None.
    teacher: the teacher beside it all, or None: P is 0.
  """

  history: scipy.sparse.csr_array
  user_dense: np.ndarray
  correction: woodbury.Correction
  lengths: content_lengths.Lengths
  second: second_kernel.SecondKernel | None = None
  history_weight: float = 0.0
  norm_power: float = 0.0
  predictor: np.ndarray | None = None
  expected: expected_histories.ExpectedHistories | None = None
  teacher: teacher_part.TeacherPart | None = None

  def with_teacher(
      self, cfg: config.Config, problem: problem_lib.Problem
  ) -> 'SparsePart':
    """The same with the teacher of the run, whose factors are the problem's."""
    return dataclasses.replace(self, teacher=teacher_part.make(cfg, problem))

  def item_dense(self, content: scipy.sparse.csr_array) -> np.ndarray:
    """The items' side of `user_dense`, of any items: float32 [J, F + k]."""
    content, second = self._features(content)
    return item_dense(content, second, self.correction.weights)

  def item_scale(self, content: scipy.sparse.csr_array) -> np.ndarray:
    """What scores of content of items [J] are multiplied by: float32 [J]."""
    if self.second is None or not self.norm_power:
      return np.ones(content.shape[0], np.float32)
    return self.second.norm(content) ** np.float32(-self.norm_power)

  def liked(
      self, rows: np.ndarray, likes: scipy.sparse.csr_array | None
  ) -> teacher_part.Liked | None:
    """As `teacher_part.TeacherPart.liked`; None without a teacher."""
    return None if self.teacher is None else self.teacher.liked(rows, likes)

  def teacher_columns(
      self, content: scipy.sparse.csr_array, liked: teacher_part.Liked
  ) -> np.ndarray:
    """The teacher's columns of items [J]: float32 [J, P]."""
    return self._teacher_columns(*self._features(content), liked)

  def _teacher_columns(
      self,
      content: scipy.sparse.csr_array,
      second: np.ndarray | None,
      liked: teacher_part.Liked,
  ) -> np.ndarray:
    """The same, of items as the ridge sees them."""
    assert self.teacher is not None
    predicted = None
    if self.predictor is not None:
      predicted = _times(content, second, self.predictor)
    return self.teacher.item_columns(liked, predicted)

  def _features(
      self, content: scipy.sparse.csr_array
  ) -> tuple[scipy.sparse.csr_array, np.ndarray | None]:
    """What the ridge sees of items [J]: sparse [J, T] and dense [J, F]."""
    second = None
    length = self.lengths.of(content)
    if self.second is not None:
      second = length[:, None] * self.second.features(content)
    return content_lengths.scaled(content, length), second

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
    dense, profile = self.user_rows(rows, content)
    towers = np.float32(tower_weight) * tower
    return embeddings.Embedding(
        jnp.asarray(np.hstack([dense, towers])), embeddings.sparse_rows(profile)
    )

  def user_rows(
      self, rows: np.ndarray, content: scipy.sparse.csr_array
  ) -> tuple[np.ndarray, scipy.sparse.csr_array]:
    """What users [C] have beside the tower's output, on the host.

    Returns:
      Dense float32 [C, F + k + P] and csr_array float32 [C, T]; all scales are
      here, but for that of the tower.
    """
    divisor = np.float32(self.correction.divisor)
    history = self.history[rows]
    profile = history @ content
    profile.data /= divisor  # SciPy's own division sorts the columns first
    if self.history_weight:
      profile = scipy.sparse.hstack([profile, history], format='csr')
    dense = -self.user_dense[rows] / divisor
    if self.teacher is not None:
      dense = np.hstack([dense, self.teacher.user_columns(rows)])
    return dense, profile

  def embed_items(
      self,
      rows: np.ndarray,
      content: scipy.sparse.csr_array,
      tower: np.ndarray,
      liked: teacher_part.Liked | None = None,
  ) -> embeddings.Embedding:
    """Joins any items, old or new, with the tower's output [J, R].

    Args:
      rows: int [J]; -1 for new items.
      content: csr_array float32 [J, T].
      tower: float32 [J, R].
      liked: what likes say of them; None for those of training.
    """
    dense, sparse = self.item_rows(rows, content, liked)
    return embeddings.Embedding(
        jnp.asarray(np.hstack([dense, tower])), embeddings.sparse_rows(sparse)
    )

  def item_rows(
      self,
      rows: np.ndarray,
      content: scipy.sparse.csr_array,
      liked: teacher_part.Liked | None = None,
  ) -> tuple[np.ndarray, scipy.sparse.csr_array]:
    """What items [J] have beside the tower's output, as `user_rows`."""
    length, scale = self.lengths.of(content), self.item_scale(content)
    seen, second = self._features(content)
    sparse = content_lengths.scaled(seen, scale)
    if self.history_weight:
      # Weights of the history hold the lengths of its items.
      known = np.flatnonzero(rows >= 0)
      weight = np.float32(self.history_weight) / length[known]
      own = scipy.sparse.csr_array(
          (weight, (known, rows[known])),
          shape=(len(rows), self.history.shape[1]),
      )
      sparse = scipy.sparse.hstack([sparse, own], format='csr')
    dense = item_dense(seen, second, self.correction.weights)
    dense *= scale[:, None]
    if self.teacher is not None:
      liked = liked or self.teacher.liked(rows)
      columns = self._teacher_columns(seen, second, liked)
      dense = np.hstack([dense, columns])
    return dense, sparse

  def with_histories(
      self,
      rows: np.ndarray,
      histories: scipy.sparse.csr_array,
      content: scipy.sparse.csr_array,
      user_content: np.ndarray,
  ) -> 'SparsePart':
    """The same correction for users [C] with other histories, unsmoothed.

    Args:
      rows: int [C].
      histories: csr_array [C, I], over all items.
      content: csr_array float32 [I, T] of all items.
      user_content: float32 [C, D], dense content of the users.
    """
    likes = histories
    if self.expected is not None:
      share = self.expected.share(np.diff(likes.indptr))
      expected = self.expected(user_content)
      histories = likes + blocks.times_rows(expected, share)
    keep = np.ones(self.history.shape[0], np.float32)
    keep[rows] = 0
    others = scipy.sparse.csr_array(
        scipy.sparse.diags_array(keep) @ self.history
    )
    lengthened = content_lengths.lengthened(histories, self.lengths.of(content))
    history = protocol.with_rows(others, rows, lengthened)
    user_dense = self.user_dense.copy()
    user_dense[rows] = self._user_dense(histories, content)
    return dataclasses.replace(
        self,
        history=scipy.sparse.csr_array(history, dtype=np.float32),
        user_dense=user_dense,
        teacher=self.teacher and self.teacher.with_users(rows, likes),
    )

  def with_item_likes(
      self, rows: np.ndarray, likes: scipy.sparse.csr_array
  ) -> 'SparsePart':
    """The same where items [C] have these likes [C, U], and no other ones."""
    teacher = self.teacher and self.teacher.with_items(rows, likes)
    return dataclasses.replace(self, teacher=teacher)

  def select(self, rows: np.ndarray) -> 'SparsePart':
    """The part of users [C] alone; a row of -1 is one without a history."""
    user_dense = np.where(rows[:, None] >= 0, self.user_dense[rows], 0)
    return dataclasses.replace(
        self,
        history=blocks.take_rows(self.history, rows),
        user_dense=user_dense.astype(np.float32),
        teacher=self.teacher and self.teacher.select(rows),
    )

  def with_more(
      self,
      histories: scipy.sparse.csr_array,
      whole: scipy.sparse.csr_array,
      content: scipy.sparse.csr_array,
  ) -> 'SparsePart':
    """The part of users who have more than it was fitted on: [U, I].

    Both sides of the ridge are linear in the history; so what comes on top is
    added, unsmoothed. The teacher folds in the whole.

    Args:
      histories: csr_array float32 [U, I], over all items.
      whole: likewise, of users with more, and all that they have.
      content: csr_array float32 [I, T] of all items.
    """
    return dataclasses.replace(
        self._plus(histories, content),
        teacher=self.teacher and self.teacher.with_more(whole),
    )

  def with_expected(
      self,
      share: np.ndarray,
      user_content: np.ndarray,
      content: scipy.sparse.csr_array,
  ) -> 'SparsePart':
    """The part of users [U] with that much more of what is expected of them.

    Args:
      share: float32 [U]; less than 0 takes away.
      user_content: float32 [U, D], their dense content.
      content: csr_array float32 [I, T] of all items.
    """
    some = np.flatnonzero(share)
    if self.expected is None or not len(some):
      return self
    place = np.full(len(share), -1)
    place[some] = np.arange(len(some))
    expected = self.expected(user_content[some])
    expected = blocks.take_rows(blocks.times_rows(expected, share[some]), place)
    return self._plus(expected, content)

  def _plus(
      self, histories: scipy.sparse.csr_array, content: scipy.sparse.csr_array
  ) -> 'SparsePart':
    """The part of users who have these [U, I] beside their histories."""
    used = np.unique(histories.indices)
    more = self._user_dense(histories[:, used], content[used])
    lengthened = content_lengths.lengthened(histories, self.lengths.of(content))
    return dataclasses.replace(
        self,
        history=scipy.sparse.csr_array(self.history + lengthened),
        user_dense=self.user_dense + more,
    )


def item_dense(
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
  dense = _times(content, second, weights)
  return dense if second is None else np.hstack([second, dense])


def _times(
    content: scipy.sparse.csr_array,
    second: np.ndarray | None,
    weights: np.ndarray,
) -> np.ndarray:
  """Sparse content [J, T] and features [J, F] times weights [T + F, k]."""
  if second is None:
    return sparse_products.times(content, weights)
  size = content.shape[1]
  product = sparse_products.times(content, weights[:size])
  return product + second @ weights[size:]


def _user_dense(
    histories: scipy.sparse.csr_array, item: np.ndarray, width: int
) -> np.ndarray:
  """Sums over histories of `item_dense`, its first columns negative."""
  dense = woodbury.user_dense(histories, item)
  dense[:, :width] *= -1
  return dense
