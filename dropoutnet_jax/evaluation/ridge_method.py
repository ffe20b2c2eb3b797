# SPDX-License-Identifier: Apache-2.0
"""Content ridge as a method of the tables: chosen, fitted, scored.

The strongest simple method known here. Lambda and smoothing are chosen once
per side on held-out training rows; what is large is fitted for one evaluation
set at a time and freed with it.
"""

import copy
from typing import Any

import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import content_ridge
from dropoutnet_jax.evaluation import ease
from dropoutnet_jax.evaluation import protocol


class ContentRidge:
  """A `protocol.Method` over all quadrants.

  Warm users are their (smoothed) histories; new users get a history predicted
  from their content; items are scored by content, or directly by the
  predicted histories where they are warm and the user is new.
  """

  def __init__(
      self, problem: problem_lib.Problem, settings: config.EvaluationConfig
  ):
    self._problem, self._settings = problem, settings
    self._train_users, self._train_items = problem.split.train_rows()
    likes = problem.likes()
    self._own = likes
    self._likes = likes[self._train_users][:, self._train_items]
    self._search = content_ridge.Search(
        regularizations=tuple(settings.ridge_lambdas),
        smoothings=tuple(settings.ridge_smoothings),
        smoothing_l2=settings.ridge_smoothing_l2,
    )
    self._solver = content_ridge.Solver(tolerance=settings.ridge_tolerance)
    self._item_choice: content_ridge.Choice | None = None
    self._user_choice: content_ridge.Choice | None = None
    self._is_told = False

  def told(
      self, rows: np.ndarray, shown: scipy.sparse.csr_array
  ) -> 'ContentRidge':
    """The same where new users [C] have histories [C, I] of their own."""
    other = copy.copy(self)
    other._own = protocol.with_rows(self._own, rows, shown)
    other._is_told = True
    return other

  def __call__(
      self, quadrant: str, held_out: schema.EvaluationSet
  ) -> protocol.ScoreFn:
    if quadrant == 'cold_user':
      by_users = self._score_by_users(held_out)
      if self._is_told and self._has_content('item'):
        return self._prefer_own(by_users, self._score_by_items(held_out))
      return by_users
    if not self._has_content('item'):
      return _constant(held_out)
    if quadrant == 'cold_both':
      return self._score_by_both(held_out)
    return self._score_by_items(held_out)

  def chosen(self) -> dict[str, Any]:
    """What the held-out training rows preferred, for results.json."""
    found: dict[str, Any] = {}
    for side in ('item', 'user'):
      choice = getattr(self, f'_{side}_choice')
      if choice is not None:
        found[side] = {
            'lambda': choice.regularization,
            'smoothing': choice.smoothing,
            'ndcg': {
                f'lambda {value:g}, smoothing {strength:g}': ndcg
                for (value, strength), ndcg in choice.ndcg.items()
            },
        }
    return found

  def _has_content(self, side: str) -> bool:
    rows = self._train_users if side == 'user' else self._train_items
    return bool(getattr(self._problem, side).sparse[rows].nnz)

  def _choose_items(self) -> content_ridge.Choice:
    if self._item_choice is None:
      content = self._problem.item.sparse[self._train_items]
      self._item_choice = content_ridge.choose_for_items(
          content, self._likes, self._search, self._solver
      )
    return self._item_choice

  def _fit_items(
      self, candidates: np.ndarray
  ) -> tuple[content_ridge.ContentRidge, content_ridge.Choice]:
    choice = self._choose_items()
    content = self._problem.item.sparse
    ridge = content_ridge.fit(
        content[self._train_items],
        content[candidates],
        choice.regularization,
        self._solver,
    )
    return ridge, choice

  def _fit_users(self, users: np.ndarray) -> content_ridge.ContentRidge:
    content = self._problem.user.sparse
    train = content[self._train_users]
    if self._user_choice is None:
      self._user_choice = content_ridge.choose_for_users(
          train, self._likes, self._search, self._solver
      )
    return content_ridge.fit(
        train,
        content[users],
        self._user_choice.regularization,
        self._solver,
    )

  def _score_by_items(self, held_out: schema.EvaluationSet) -> protocol.ScoreFn:
    ridge, choice = self._fit_items(held_out.candidates)
    histories = self._own[:, self._train_items].tocsr()
    smoother = None
    if choice.smoothing:
      smoother = ease.fit(self._likes, self._search.smoothing_l2)

    def score(rows: np.ndarray) -> np.ndarray:
      given = ease.smoothed(histories[rows], smoother, choice.smoothing)
      return ridge.scores(given)

    return score

  def _prefer_own(
      self, by_users: protocol.ScoreFn, by_items: protocol.ScoreFn
  ) -> protocol.ScoreFn:
    """By their own histories for the users who have one."""

    def score(rows: np.ndarray) -> np.ndarray:
      has_own = np.diff(self._own[rows].indptr) > 0
      if not has_own.any():
        return by_users(rows)
      own, borrowed = np.asarray(by_items(rows)), by_users(rows)
      return np.where(has_own[:, None], own, borrowed)

    return score

  def _predicted_histories(
      self, held_out: schema.EvaluationSet
  ) -> tuple[np.ndarray, np.ndarray]:
    """New users [U'], ascending, and their histories [U', I']."""
    users = np.unique(held_out.user)
    if not self._has_content('user'):
      shape = (len(users), self._likes.shape[1])
      return users, np.zeros(shape, np.float32)
    ridge = self._fit_users(users)
    return users, ridge.histories(self._likes, slice(0, len(users)))

  def _score_by_users(self, held_out: schema.EvaluationSet) -> protocol.ScoreFn:
    users, histories = self._predicted_histories(held_out)
    column = np.searchsorted(self._train_items, held_out.candidates)
    column = np.minimum(column, len(self._train_items) - 1)
    known = self._train_items[column] == held_out.candidates
    scores = np.where(known, histories[:, column], 0.0).astype(np.float32)
    return lambda rows: scores[np.searchsorted(users, rows)]

  def _score_by_both(self, held_out: schema.EvaluationSet) -> protocol.ScoreFn:
    users, histories = self._predicted_histories(held_out)
    ridge, _ = self._fit_items(held_out.candidates)
    scores = ridge.scores(histories)
    return lambda rows: scores[np.searchsorted(users, rows)]


def _constant(held_out: schema.EvaluationSet) -> protocol.ScoreFn:
  """Scores of a method that knows nothing here: all the same."""
  size = len(held_out.candidates)
  return lambda rows: np.zeros((len(rows), size), np.float32)
