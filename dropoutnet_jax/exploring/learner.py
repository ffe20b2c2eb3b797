# SPDX-License-Identifier: Apache-2.0
"""A trained run that learns of new items without being trained again.

What the service does, in the simulator: items of the training are what the
towers say. Of a new item the towers say the score, and what is not known of it
is a belief (`belief`) that every impression narrows (`observed`). Here the
belief is fitted on impressions of known items from before the first round,
which are taken for new ones in turn.
"""

import dataclasses

import numpy as np

from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.exploring import belief as belief_lib
from dropoutnet_jax.exploring import belief_fit
from dropoutnet_jax.exploring import observed
from dropoutnet_jax.exploring import reward_model
from dropoutnet_jax.exploring import told_towers


@dataclasses.dataclass(frozen=True, eq=False)
class Impressions:
  """N impressions from before: rows of users and items, and clicks."""

  user: np.ndarray
  item: np.ndarray
  click: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Knowledge:
  """What is known before the first round.

  Attributes:
    users: float64 [U, R], embeddings.
    items: float64 [I, R], embeddings; of new items from content.
    is_new: bool [I].
    prior: of new items.
  """

  users: np.ndarray
  items: np.ndarray
  is_new: np.ndarray
  prior: belief_lib.Prior


def prepare(
    scorer: model_scores.Scorer,
    before: Impressions,
    number: int = belief_lib.DIRECTIONS,
) -> Knowledge:
  """Fits link and prior on impressions of known items.

  Args:
    scorer: the towers of a run; a sparse part is left out.
    before: impressions of known items, in the order of their time.
    number: directions of a belief.
  """
  towers = told_towers.ToldTowers(scorer)
  users, items = towers.users, towers.items
  table = towers.tables['item']
  known = np.flatnonzero(table.present)
  own = users[before.user]
  # What a content score means may be less than what a whole one does.
  link = reward_model.fit(
      np.sum(own * items[before.item], axis=1), before.click, is_logistic=True
  )
  place = np.searchsorted(known, before.item)
  bare = belief_fit.embed_bare(scorer, table.select(known))
  pairs = belief_fit.Pairs(
      place, own, np.sum(own * bare[place], axis=1), before.click
  )
  directions = belief_fit.directions(scorer, known, number)
  prior = belief_fit.fit(directions, link, pairs)
  return Knowledge(users, items, ~table.present, prior)


class Learner:
  """New items by their beliefs, all else by the towers; a `simulator.Learner`.

  The towers are told of clicks (`told_towers`). The belief has what they say
  for its mean, learns the level, and gets narrower with every impression.

  Attributes:
    observed: what was shown.
  """

  def __init__(
      self, known: Knowledge, scorer: model_scores.Scorer | None = None
  ):
    """Starts from what is known.

    Args:
      known: before the first round; it stays as it is.
      scorer: whose towers are told; None leaves all to the beliefs.
    """
    self._towers = None if scorer is None else told_towers.ToldTowers(scorer)
    self._known = known
    self._new = np.flatnonzero(known.is_new)
    self._place = np.full(len(known.is_new), -1)
    self._place[self._new] = np.arange(len(self._new))
    self.observed = observed.Observed(known.prior, scorer is not None)

  def passes(
      self, users: np.ndarray, number: int, rng: np.random.Generator
  ) -> np.ndarray:
    own, items = self._embeddings()
    mean = (own[users] @ items.T).astype(np.float32)
    return belief_lib.passes(
        self._known.prior,
        self.observed.of(self._new.tolist()),
        self._known.prior.inputs(own[users]),
        np.broadcast_to(self._place, mean.shape),
        mean,
        number,
        rng,
    )

  def learn(
      self, user: np.ndarray, item: np.ndarray, click: np.ndarray
  ) -> None:
    users, items = self._embeddings()  # as they were when it was shown
    self.observed.add(
        [n if self._known.is_new[n] else None for n in item.tolist()],
        self._known.prior.inputs(users[user]),
        np.sum(users[user] * items[item], axis=1),
        click,
    )
    if self._towers is not None:
      self._towers.tell(user[click > 0], item[click > 0])

  def _embeddings(self) -> tuple[np.ndarray, np.ndarray]:
    """Of all users and items, as the towers have them now."""
    told = self._known if self._towers is None else self._towers
    return told.users, told.items
