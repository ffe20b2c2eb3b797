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
import scipy.sparse

from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.evaluation import warm_up
from dropoutnet_jax.exploring import posterior
from dropoutnet_jax.exploring import reward_model

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


def embed(
    scorer: model_scores.Scorer,
    side: str,
    rows: np.ndarray,
    with_preference: bool,
) -> np.ndarray:
  """Tower embeddings float64 [N, R], the preference of the rows in or out."""
  if not with_preference:
    table = getattr(scorer.tables, side)
    nothing = np.zeros((len(rows), table.preference.shape[1]), np.float32)
    scorer = scorer.with_preference(
        side, rows, nothing, np.zeros(len(rows), bool)
    )
  table = getattr(scorer.tables, side)
  found = scorer.embedder(side, scorer.variables, table, rows)
  return found.astype(np.float64)


def prepare(
    problem: problem_lib.Problem,
    scorer: model_scores.Scorer,
    before: Impressions,
) -> Knowledge:
  """Fits link and covariance on impressions of known items.

  Args:
    problem: the data of the run.
    scorer: its towers; a sparse part is left out.
    before: impressions of known items, in the order of their time.
  """
  everyone = np.arange(len(problem.user.ids))
  everything = np.arange(len(problem.item.ids))
  users = embed(scorer, 'user', everyone, True)
  items = embed(scorer, 'item', everything, True)
  is_known = np.asarray(scorer.tables.item.present, bool)
  known = np.flatnonzero(is_known)
  dropped = embed(scorer, 'item', known, False)
  score = np.sum(users[before.user] * items[before.item], axis=1)
  link = reward_model.fit(score, before.click, is_logistic=True)
  # What a content score means may be less than what a whole one does.
  residual = items[known] - dropped
  spread = residual.T @ residual / len(known)
  make = lambda share, level: _covariance(spread, share, level)
  known_to = Knowledge(users, items, ~is_known, link, make(1.0, 1.0))
  place = np.full(len(everything), -1)
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

  The towers are told through the transform of Algorithm 1: what a new item is
  to them is the mean of the factors of those who clicked on it, and likewise
  of a new user. The belief has this for its mean, learns the level, and gets
  narrower with every impression.

  Attributes:
    belief: of the new items.
  """

  def __init__(
      self,
      known: Knowledge,
      scorer: model_scores.Scorer | None = None,
      width: float = 1.0,
  ):
    """Starts from what is known.

    Args:
      known: before the first round; it stays as it is.
      scorer: that is told of clicks; None leaves all to the beliefs.
      width: factor on the deviations of what is drawn.
    """
    self._known = dataclasses.replace(known, users=known.users.copy())
    self._scorer, self._width = scorer, width
    self._new = np.flatnonzero(known.is_new)
    self._place = np.full(len(known.is_new), -1)
    self._place[self._new] = np.arange(len(self._new))
    mean = np.pad(known.items[self._new], ((0, 0), (0, 1)))
    self.belief = posterior.start(mean, known.covariance)
    self._clicks = np.zeros((len(known.users), len(known.items)), np.float32)

  def passes(
      self, users: np.ndarray, number: int, rng: np.random.Generator
  ) -> np.ndarray:
    known = self._known
    inputs = known.inputs(users)
    score = inputs[:, :-1] @ known.items.T
    items = self.belief.mean[None]
    if number:
      drawn = posterior.draw(rng, self.belief, number)
      items = items + self._width * (drawn - items)
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
    if self._scorer is not None:
      self._tell(user[click > 0], item[click > 0])
      free = slice(self._known.users.shape[1], None)  # the level
    self.belief = posterior.update(
        self.belief,
        own[is_new],
        inputs,
        self._known.link.offset,
        click[is_new],
        free,
    )

  def _tell(self, user: np.ndarray, item: np.ndarray) -> None:
    """Has the towers embed again which new rows got clicks."""
    assert self._scorer is not None
    self._clicks[user, item] = 1
    items = np.unique(item[self._known.is_new[item]])
    if len(items):
      mean = self.belief.mean.copy()
      mean[self._place[items], :-1] = told(
          self._scorer, 'item', items, self._clicks[:, items].T
      )
      self.belief = self.belief._replace(mean=mean)
    is_known = np.asarray(self._scorer.tables.user.present, bool)
    users = np.unique(user[~is_known[user]])
    if len(users):
      self._known.users[users] = told(
          self._scorer, 'user', users, self._clicks[users]
      )


def told(
    scorer: model_scores.Scorer, side: str, rows: np.ndarray, met: np.ndarray
) -> np.ndarray:
  """Embeddings float64 [C, R] of new rows with histories [C, M] of 0 and 1."""
  table = getattr(scorer.tables, side)
  other = getattr(scorer.tables, 'user' if side == 'item' else 'item')
  means = warm_up.history_means(
      table, scipy.sparse.csr_array(met), np.asarray(other.factors)
  )
  return embed(scorer.with_preference(side, rows, *means), side, rows, True)
