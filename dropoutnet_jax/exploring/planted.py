# SPDX-License-Identifier: Apache-2.0
"""The planted world as rounds of a recommender: chances that are known."""

import numpy as np

from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.exploring import learner
from dropoutnet_jax.exploring import reward_model
from dropoutnet_jax.exploring import simulator

_RATE = 0.05  # clicks of an item that is drawn at random
_WANTED = 20  # best items of each user


def make(problem: problem_lib.Problem) -> simulator.World:
  """The truth of a planted problem.

  Log-odds of a click are the true score and a constant, such that a random item
  gets a click of twenty impressions. A user may get all but what she liked in
  training, and an item again until she has clicked on it.
  """
  if problem.truth is None:
    raise ValueError('Only a planted world knows its truth.')
  likes = problem.likes().toarray() > 0
  logit = np.asarray(problem.truth, np.float64)
  low, high = -30.0, 30.0
  for _ in range(60):  # bisection
    middle = (low + high) / 2
    too_much = reward_model.sigmoid(logit + middle).mean() > _RATE
    low, high = (low, middle) if too_much else (middle, high)
  chance = reward_model.sigmoid(logit + low)
  allowed = ~likes
  ranked = np.argsort(-np.where(allowed, chance, -1), axis=1, kind='stable')
  wanted = np.zeros(chance.shape, bool)
  np.put_along_axis(wanted, ranked[:, :_WANTED], True, axis=1)
  everyone = np.arange(len(chance))
  return simulator.World(chance, ~likes.any(axis=0), allowed, wanted, everyone)


def impressions_before(
    world: simulator.World, per_user: int, scores: np.ndarray, seed: int
) -> learner.Impressions:
  """What known items were clicked on before: half at random, half of the best.

  Args:
    world: the truth.
    per_user: impressions of each user.
    scores: float [U, I], by which the best were chosen: the first fifth.
    seed: of all draws.
  """
  rng = np.random.default_rng([seed, 2])
  known = np.flatnonzero(~world.is_new)
  half, items = per_user // 2, []
  for row, allowed in enumerate(world.allowed):
    own = known[allowed[known]]
    best = own[np.argsort(-scores[row, own])[: max(len(own) // 5, 1)]]
    items += [rng.choice(own, half), rng.choice(best, per_user - half)]
  item = np.concatenate(items)
  user = np.repeat(np.arange(len(world.chance)), per_user)
  order = rng.permutation(len(user))
  user, item = user[order], item[order]
  click = rng.random(len(user)) < world.chance[user, item]
  return learner.Impressions(user, item, click.astype(np.float64))
