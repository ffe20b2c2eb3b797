# SPDX-License-Identifier: Apache-2.0
"""A run that is told of clicks, as sure of its scores as its masks say.

What `recommend` and the service do: the mean is the score, and passes under
masks of input dropout are the draws. A new item gets narrower with the clicks
that it has, since longer histories are masked less; of impressions in vain
nothing is known, other than by the beliefs of `learner`.
"""

import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.exploring import told_towers
from dropoutnet_jax.exploring import uncertainty


class MaskLearner:
  """All items by the towers and their masks; a `simulator.Learner`."""

  def __init__(
      self,
      cfg: config.Config,
      problem: problem_lib.Problem,
      scorer: model_scores.Scorer,
      scale: float = 1.0,
  ):
    """Starts from what training has left.

    Args:
      cfg: of the run.
      problem: its data.
      scorer: its towers; a sparse part is left out.
      scale: of the deviations of passes; see `calibration`.

    Raises:
      UserError: if the run was trained without input dropout.
    """
    self._towers = told_towers.ToldTowers(scorer)
    self._uncertainty = uncertainty.Uncertainty(cfg, scorer)
    self._content, self._scale = problem.item.sparse, scale
    self._counts = problem.like_counts()

  def passes(
      self, users: np.ndarray, number: int, rng: np.random.Generator
  ) -> np.ndarray:
    towers, clicks = self._towers, self._towers.clicks
    mean = (towers.users[users] @ towers.items.T).astype(np.float32)
    if not number:
      return mean[None]
    items = np.arange(mean.shape[1])
    found = self._uncertainty.passes(
        uncertainty.Users(
            towers.tables['user'].select(users),
            self._counts[0][users] + clicks[users].sum(axis=1).astype(int),
        ),
        uncertainty.Items(
            towers.tables['item'],
            self._counts[1] + clicks.sum(axis=0).astype(int),
            items,
            self._content,
        ),
        np.broadcast_to(items, mean.shape),
        number,
        int(rng.integers(2**31)),
    )
    return uncertainty.centred(mean, found, self._scale)

  def learn(
      self, user: np.ndarray, item: np.ndarray, click: np.ndarray
  ) -> None:
    self._towers.tell(user[click > 0], item[click > 0])
