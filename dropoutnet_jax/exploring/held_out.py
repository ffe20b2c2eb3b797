# SPDX-License-Identifier: Apache-2.0
"""New items that were kept for validation, and what users said of them."""

import dataclasses
from typing import NamedTuple

import numpy as np

from dropoutnet_jax import errors
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import model_scores

_SET = 'cold_item_validation'
NONE = (
    'This run kept no new items for validation '
    "(config.data.validation='keep_out' with cold_item_share above 0)"
)


class Asked(NamedTuple):
  """Users with new items.

  Attributes:
    users: int [U], rows of the run, ascending.
    items: int [J], likewise.
    mean: float32 [U, J], scores.
    liked: bool [U, J].
  """

  users: np.ndarray
  items: np.ndarray
  mean: np.ndarray
  liked: np.ndarray

  def some(self, users: int, items: int, rng: np.random.Generator) -> 'Asked':
    """At most so many of each, drawn."""
    row = draw(rng, np.arange(len(self.users)), users)
    column = draw(rng, np.arange(len(self.items)), items)
    cells = np.ix_(row, column)
    return Asked(
        self.users[row], self.items[column], self.mean[cells], self.liked[cells]
    )


def new_items(problem: problem_lib.Problem) -> schema.EvaluationSet | None:
  """Those of a run; None without any."""
  found = problem.split.evaluation.get(_SET)
  return found if found is not None and len(found) else None


def ask(
    scorer: model_scores.Scorer,
    held_out: schema.EvaluationSet,
    users: int,
    items: int,
    rng: np.random.Generator,
) -> Asked:
  """Users of a set with its items, some of them where there are many.

  Args:
    scorer: of the run.
    held_out: the set.
    users: at most.
    items: at most.
    rng: draws them.

  Raises:
    UserError: if scores are not finite.
  """
  row = draw(rng, np.unique(held_out.user), users)
  column = draw(rng, held_out.candidates, items)
  asked = dataclasses.replace(held_out, candidates=column)
  method = scorer.methods()['model']
  mean = np.asarray(method('cold_item', asked)(row), np.float32)
  check_finite(mean)
  user = np.searchsorted(row, held_out.user) % len(row)
  item = np.searchsorted(column, held_out.item) % len(column)
  known = (row[user] == held_out.user) & (column[item] == held_out.item)
  liked = np.zeros(mean.shape, bool)
  liked[user[known], item[known]] = True
  return Asked(row, column, mean, liked)


def check_finite(scores: np.ndarray) -> None:
  """Raises UserError where scores mean nothing."""
  if not np.isfinite(scores).all():
    raise errors.UserError(
        'Scores of known or held-out new items are not finite, and mean '
        'nothing. Train again with a lower config.train.learning_rate.'
    )


def draw(rng: np.random.Generator, rows: np.ndarray, most: int) -> np.ndarray:
  """Rows, ascending; at most so many, drawn."""
  if len(rows) <= most:
    return rows
  return np.sort(rng.choice(rows, most, replace=False))
