# SPDX-License-Identifier: Apache-2.0
"""The teacher beside content ridge: what likes say where there are some.

Dense columns of the embeddings, whose dot product is that of the teacher's
factors, times a weight. What training knew has its own factors; a row of which
likes are told later is folded in, one exact half-step of ALS; and a user
without likes has none.

An item that nobody likes yet has in their place those that its content
predicts, of norm 1, times another weight: histories as the teacher smooths them
reach deeper than those of the sparse part, and the norm says what is in the
ridge already. With n likes they count s / (s + n) of that, s being
`features.history_smoothing`: many likes are better alone, but a first one
should cost an item nothing.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import fold_in
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.evaluation import fading


class Liked(NamedTuple):
  """What likes say of J items.

  Attributes:
    factors: float32 [J, P]; zero without likes.
    number: [J], of likes.
  """

  factors: np.ndarray
  number: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class TeacherPart:
  """Factors of all rows, and how those of others are made.

  Attributes:
    weight: of factors of likes.
    predicted_weight: of predicted ones.
    smoothing: likes that count as much as a prediction.
    user: float32 [U, P].
    item: float32 [I, P].
    number: [I], likes of the items.
    fold_users: from items that they like.
    fold_items: from users who like them.
  """

  weight: float
  predicted_weight: float
  smoothing: float
  user: np.ndarray
  item: np.ndarray
  number: np.ndarray
  fold_users: fold_in.FoldIn
  fold_items: fold_in.FoldIn

  def user_columns(self, rows: np.ndarray) -> np.ndarray:
    """Of users [C]: float32 [C, P]; zero for -1."""
    return _take(self.user, rows)

  def liked(
      self, rows: np.ndarray, likes: scipy.sparse.csr_array | None = None
  ) -> Liked:
    """Factors of items [J].

    Args:
      rows: int [J]; -1 for new items.
      likes: csr_array float32 [J, U], all that is known of those that have more
        likes than training knew, and nothing of the others; or None.
    """
    factors = _take(self.item, rows)
    number = np.where(rows >= 0, self.number[rows], 0)
    if likes is not None:
      factors = _folded(factors, likes, self.fold_items)
      told = np.diff(likes.indptr)
      number = np.where(told > 0, told, number)
    return Liked(factors, number)

  def item_columns(
      self, liked: Liked, predicted: np.ndarray | None
  ) -> np.ndarray:
    """Of items [J], with the weights: float32 [J, P].

    Args:
      liked: what likes say.
      predicted: float32 [J, P], factors by content; or None.
    """
    found = np.float32(self.weight) * liked.factors
    if predicted is not None:
      norm = np.linalg.norm(predicted, axis=1)
      unit = predicted / np.where(norm > 0, norm, 1)[:, None]
      share = fading.left(liked.number, self.smoothing) * self.predicted_weight
      found += share.astype(np.float32)[:, None] * unit
    return found

  def with_users(
      self, rows: np.ndarray, likes: scipy.sparse.csr_array
  ) -> 'TeacherPart':
    """The same with other factors of users [C]: those of their likes [C, I]."""
    user = self.user.copy()
    user[rows] = self.fold_users(likes)
    return dataclasses.replace(self, user=user)

  def with_items(
      self, rows: np.ndarray, likes: scipy.sparse.csr_array
  ) -> 'TeacherPart':
    """The same with other factors of items [C]: those of their likes [C, U]."""
    item, number = self.item.copy(), self.number.copy()
    item[rows], number[rows] = self.fold_items(likes), np.diff(likes.indptr)
    return dataclasses.replace(self, item=item, number=number)

  def select(self, rows: np.ndarray) -> 'TeacherPart':
    """Of users [C] alone; a row of -1 is one without likes."""
    return dataclasses.replace(self, user=_take(self.user, rows))

  def with_more(self, likes: scipy.sparse.csr_array) -> 'TeacherPart':
    """The same for users [U] of whom all these likes [U, I] are known.

    Users without any here keep their factors.
    """
    user = _folded(self.user, likes, self.fold_users)
    return dataclasses.replace(self, user=user)


def make(
    cfg: config.Config, problem: problem_lib.Problem
) -> TeacherPart | None:
  """That of a run; None where nothing has a weight."""
  sparse, settings = cfg.model.sparse, cfg.teacher
  if not sparse.has_teacher:
    return None
  user, item = problem.factors.user, problem.factors.item
  return TeacherPart(
      sparse.teacher_weight,
      sparse.predicted_weight,
      cfg.features.history_smoothing,
      user,
      item,
      problem.like_counts()[1],
      fold_in.make(item, settings),
      fold_in.make(user, settings),
  )


def _take(factors: np.ndarray, rows: np.ndarray) -> np.ndarray:
  """Rows [C] of factors [N, P]; zero for -1."""
  return np.where(rows[:, None] >= 0, factors[rows], np.float32(0))


def _folded(
    factors: np.ndarray, likes: scipy.sparse.csr_array, fold: fold_in.FoldIn
) -> np.ndarray:
  """Factors [C, P], folded in where there are likes [C, M]."""
  told = np.flatnonzero(np.diff(likes.indptr))
  found = factors.copy()
  found[told] = fold(scipy.sparse.csr_array(likes[told]))
  return found
