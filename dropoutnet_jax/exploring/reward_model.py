# SPDX-License-Identifier: Apache-2.0
"""The reward that a score promises: a logistic or a straight line.

Scores of a run have no unit. Rewards within [0, 1], such as clicks, are fitted
by a logistic curve of the score, others by a straight line. Both have two
numbers, so that few rows will do.
"""

from typing import NamedTuple

import numpy as np

_RIDGE = 1e-5  # on the slope of the standardised score, lest it be infinite
_STEPS = 50
_FOLDS = 5


class RewardModel(NamedTuple):
  """Reward of a score.

  Attributes:
    slope: per unit of the score.
    offset: at score 0.
    is_logistic: whether both are of log-odds.
  """

  slope: float
  offset: float
  is_logistic: bool

  def __call__(self, score: np.ndarray) -> np.ndarray:
    """float64 [...] -> float64 [...]."""
    value = self.slope * np.asarray(score, np.float64) + self.offset
    return sigmoid(value) if self.is_logistic else value


def sigmoid(x: np.ndarray) -> np.ndarray:
  """1 / (1 + exp(-x)) without overflow."""
  return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(x, np.float64)))


def fit(
    score: np.ndarray, reward: np.ndarray, is_logistic: bool | None = None
) -> RewardModel:
  """The maximum of the likelihood (of shares a quasi one), or least squares.

  Args:
    score: float [N], finite.
    reward: float [N].
    is_logistic: None goes by the rewards: all of them in [0, 1].

  Returns:
    A constant where scores or rewards are all the same, or there is no row.
  """
  if is_logistic is None:
    is_logistic = bool(np.all((reward >= 0) & (reward <= 1)))
  if not len(reward):
    return RewardModel(0.0, 0.0, False)
  center, size = float(np.mean(score)), float(np.std(score))
  mean = float(np.mean(reward))
  if size == 0 or np.ptp(reward) == 0:
    return RewardModel(0.0, mean, False)
  x = np.stack([(score - center) / size, np.ones(len(score))], axis=1)
  if is_logistic:
    beta = _newton(x, reward, mean)
  else:
    beta = np.linalg.lstsq(x, reward, rcond=None)[0]
  slope = float(beta[0] / size)
  return RewardModel(slope, float(beta[1]) - slope * center, is_logistic)


def _newton(x: np.ndarray, reward: np.ndarray, mean: float) -> np.ndarray:
  """Log-odds [2] of a logistic regression with a little ridge on the slope."""
  beta = np.array([0.0, np.log(mean / (1 - mean))])
  ridge = np.diag([_RIDGE * len(x), 0.0])
  for _ in range(_STEPS):
    chance = sigmoid(x @ beta)
    slope = x.T @ (reward - chance) - ridge @ beta
    curve = (x * (chance * (1 - chance))[:, None]).T @ x + ridge
    step = np.linalg.solve(curve + 1e-9 * np.eye(2), slope)
    # Far from the best place the curve is too flat; short steps get there.
    beta = beta + step * min(1.0, 2.0 / max(np.abs(step).max(), 1e-12))
    if np.abs(step).max() < 1e-9:
      break
  return beta


def cross_fit(
    user: np.ndarray,
    score: np.ndarray,
    reward: np.ndarray,
    others: np.ndarray,
    counts: np.ndarray | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
  """Rewards that a model promises which has not seen the user.

  Users are dealt into five folds; each is predicted by a fit of the others.

  Args:
    user: int [N].
    score: float [N], of what was shown.
    reward: float [N], of it.
    others: float [N, D], further scores to predict, of the same users.
    counts: bool [N], rows to fit; None for all.
    seed: of the folds.

  Returns:
    float64 [N] of `score`, and [N, D] of `others`.
  """
  users, number = np.unique(user, return_inverse=True)
  order = np.random.default_rng([seed, len(users)]).permutation(len(users))
  num_folds = min(_FOLDS, len(users))
  fold = (order % max(num_folds, 1))[number]
  counts = np.ones(len(user), bool) if counts is None else counts
  told = reward[counts]
  is_logistic = bool(np.all((told >= 0) & (told <= 1)))
  found, of_others = np.empty(len(user)), np.empty(others.shape)
  for one in range(num_folds):
    own = fold == one
    rest = counts & (~own if num_folds > 1 else own)
    model = fit(score[rest], reward[rest], is_logistic)
    found[own], of_others[own] = model(score[own]), model(others[own])
  return found, of_others
