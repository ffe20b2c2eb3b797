# SPDX-License-Identifier: Apache-2.0
"""A trained run that learns of new items without being trained again.

Items of the training are what the towers say. Of a new item the towers say the
mean of a belief (see `posterior`), from content alone; how wide it is comes of
input dropout: the embeddings of known items with their preference dropped, less
those with it, are what content does not tell. How much of that, how much of a
level, and what a score means in log-odds are fitted once on impressions of
known items from before, which are taken for new ones in turn.
"""

import dataclasses
import itertools

import numpy as np

from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.exploring import posterior
from dropoutnet_jax.exploring import reward_model
from dropoutnet_jax.exploring import told_towers

_SHARES = (0.03, 0.1, 0.3, 1.0, 3.0)
_LEVELS = (0.01, 0.1, 0.3, 1.0)  # variances, log-odds squared
_PARTS = 8  # updates while the log is gone through once
_LEAST = 1e-4  # of a variance, lest a covariance be singular


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
    link: log-odds of a click from a score.
    covariance: float64 [R + 1, R + 1], of a new item's embedding and level, the
      latter in log-odds.
  """

  users: np.ndarray
  items: np.ndarray
  is_new: np.ndarray
  link: reward_model.RewardModel
  covariance: np.ndarray

  def inputs(self, user: np.ndarray) -> np.ndarray:
    """What the beliefs see of users [N]: float64 [N, R + 1]."""
    own = self.link.slope * self.users[user]
    return np.concatenate([own, np.ones((len(user), 1))], axis=1)


def prepare(scorer: model_scores.Scorer, before: Impressions) -> Knowledge:
  """Fits link and covariance on impressions of known items.

  Args:
    scorer: the towers of a run; a sparse part is left out.
    before: impressions of known items, in the order of their time.
  """
  towers = told_towers.ToldTowers(scorer)
  users, items = towers.users, towers.items
  table = towers.tables['item']
  known = np.flatnonzero(table.present)
  bare = told_towers.without_preference(table.select(known))
  dropped = told_towers.embed(scorer, bare, 'item')
  score = np.sum(users[before.user] * items[before.item], axis=1)
  link = reward_model.fit(score, before.click, is_logistic=True)
  # What a content score means may be less than what a whole one does.
  residual = items[known] - dropped
  spread = residual.T @ residual / len(known)
  make = lambda share, level: _covariance(spread, share, level)
  known_to = Knowledge(users, items, ~table.present, link, make(1.0, 1.0))
  place = np.full(len(items), -1)
  place[known] = np.arange(len(known))
  best = max(
      itertools.product(_SHARES, _LEVELS),
      key=lambda pair: _likelihood(
          known_to, dropped, place, before, make(*pair)
      ),
  )
  return dataclasses.replace(known_to, covariance=make(*best))


def _covariance(spread: np.ndarray, share: float, level: float) -> np.ndarray:
  size = len(spread)
  found = np.zeros((size + 1, size + 1))
  least = _LEAST * np.trace(spread) / size + 1e-12
  found[:size, :size] = share * spread + least * np.eye(size)
  found[size, size] = level
  return found


def _likelihood(
    known: Knowledge,
    dropped: np.ndarray,
    place: np.ndarray,
    before: Impressions,
    covariance: np.ndarray,
) -> float:
  """Log-likelihood of clicks, each part predicted from those before it."""
  mean = np.pad(dropped, ((0, 0), (0, 1)))
  belief = posterior.start(mean, covariance)
  total = 0.0
  bounds = np.linspace(0, len(before.user), _PARTS + 1).astype(int)
  for a, b in zip(bounds, bounds[1:]):
    own = place[before.item[a:b]]
    inputs, click = known.inputs(before.user[a:b]), before.click[a:b]
    logit = np.einsum('nd,nd->n', inputs, belief.mean[own]) + known.link.offset
    # A mean over the belief is flatter than the chance at its mean.
    spread = np.einsum(
        'nd,nde,ne->n', inputs, np.linalg.inv(belief.precision)[own], inputs
    )
    chance = reward_model.sigmoid(logit / np.sqrt(1 + np.pi / 8 * spread))
    chance = np.clip(chance, 1e-9, 1 - 1e-9)
    total += float(
        np.sum(click * np.log(chance) + (1 - click) * np.log1p(-chance))
    )
    belief = posterior.update(belief, own, inputs, known.link.offset, click)
  return total


class Learner:
  """New items by their beliefs, all else by the towers; a `simulator.Learner`.

  The towers are told of clicks (`told_towers`). The belief has what they say
  for its mean, learns the level, and gets narrower with every impression.

  Attributes:
    belief: of the new items.
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
    users = known.users if self._towers is None else self._towers.users
    self._known = dataclasses.replace(known, users=users)
    self._new = np.flatnonzero(known.is_new)
    self._place = np.full(len(known.is_new), -1)
    self._place[self._new] = np.arange(len(self._new))
    mean = np.pad(known.items[self._new], ((0, 0), (0, 1)))
    self.belief = posterior.start(mean, known.covariance)

  def passes(
      self, users: np.ndarray, number: int, rng: np.random.Generator
  ) -> np.ndarray:
    inputs = self._known.inputs(users)
    score = inputs[:, :-1] @ self._known.items.T
    items = self.belief.mean[None]
    if number:
      items = posterior.draw(rng, self.belief, number)
    found = np.repeat(score[None].astype(np.float32), len(items), axis=0)
    found[:, :, self._new] = inputs @ items.transpose(0, 2, 1)
    return found

  def learn(
      self, user: np.ndarray, item: np.ndarray, click: np.ndarray
  ) -> None:
    own = self._place[item]
    is_new = own >= 0
    inputs = self._known.inputs(user[is_new])  # as they were when it was shown
    free = slice(None)
    if self._towers is not None:
      rows = self._towers.tell(user[click > 0], item[click > 0])
      mean = self.belief.mean.copy()
      mean[self._place[rows], :-1] = self._towers.items[rows]
      self.belief = self.belief._replace(mean=mean)
      free = slice(inputs.shape[1] - 1, None)  # the level
    self.belief = posterior.update(
        self.belief,
        own[is_new],
        inputs,
        self._known.link.offset,
        click[is_new],
        free,
    )
