# SPDX-License-Identifier: Apache-2.0
"""Ratings of new users as rounds of a recommender: what a log can replay.

Users whom the run has not trained on come again and again. What they may get is
what they have rated, films of the training and new ones, and whether they like
it is what they said. Every candidate has an answer, so that nothing is rejected
(as in Li, Chu, Langford & Wang, WSDM 2011, where a log has one answer a visit).
The price: users chose what to see, not a policy, and nothing is known of the
films that they did not rate.
"""

import numpy as np

from dropoutnet_jax import errors
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.exploring import learner
from dropoutnet_jax.exploring import simulator

SETS = ('cold_user', 'cold_both')


def make(
    problem: problem_lib.Problem, least: int, seed: int
) -> tuple[simulator.World, learner.Impressions]:
  """A world of the held-out ratings of new users.

  Args:
    problem: with labelled rows of new users, and of new items they have met.
    least: candidates of a user who comes.
    seed: of who comes, and who was there before.

  Returns:
    The world; and the ratings of known items by the other quarter of the new
    users, from which scores get their meaning before the first round.

  Raises:
    UserError: if nothing is held out, or no user has so many candidates.
  """
  held = {} if problem.labelled is None else problem.labelled.evaluation
  parts = [held[name] for name in SETS if name in held and len(held[name])]
  if len(parts) < len(SETS):
    raise errors.UserError(
        'A replay needs held-out impressions of new users, with new items and '
        'with known ones: a data set with labels, config.data.cold_user_share '
        'and cold_item_share above 0.'
    )
  user = np.concatenate([part.user for part in parts])
  item = np.concatenate([part.item for part in parts])
  label = np.concatenate([_labels(part) for part in parts])
  shape = len(problem.user.ids), len(problem.item.ids)
  chance, allowed = np.zeros(shape), np.zeros(shape, bool)
  chance[user, item], allowed[user, item] = label, True
  rng = np.random.default_rng([seed, 3])
  users = rng.permutation(np.unique(user))
  earlier, others = np.split(users, [len(users) // 4])
  visitors = np.sort(others[allowed[others].sum(axis=1) >= least])
  if not len(visitors):
    raise errors.UserError(
        f'No new user has {least} candidates, as many as are shown to each.'
    )
  is_known = problem.likes().sum(axis=0) > 0
  rows = rng.permutation(
      np.flatnonzero(np.isin(user, earlier) & is_known[item])
  )
  before = learner.Impressions(user[rows], item[rows], label[rows])
  world = simulator.World(
      chance, ~is_known, allowed, chance > 0, visitors, once=True
  )
  return world, before


def _labels(part: object) -> np.ndarray:
  label = getattr(part, 'label')
  if label is None:  # all of them are likes
    return np.ones(len(getattr(part, 'user')))
  return (label > 0).astype(np.float64)
