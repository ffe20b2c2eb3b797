# SPDX-License-Identifier: Apache-2.0
"""What is believed of new items beside their scores: their taste, and a level.

Of a new item content tells the score; what it does not tell is believed to be
Gaussian. Known items say how: their embeddings with the preference dropped,
less those with it, mostly lie along few directions. A belief is of how far an
item is from its score along these, and of a level, by which all users like it
more or less: q + 1 numbers, whitened, so that before the first impression they
are standard normal of every item and nothing need be kept of it. Log-odds of a
click are linear in them,

  slope (score + share^1/2 u D x) + level^1/2 x_level + offset,

with D the directions and u the tower embedding of the user. Impressions narrow
it (`posterior`). With all directions it is the belief of the whole embedding.
"""

import dataclasses

import numpy as np

from dropoutnet_jax.exploring import posterior
from dropoutnet_jax.exploring import reward_model
from dropoutnet_jax.exploring import uncertainty

DIRECTIONS = 8
_PRODUCTS = 1 << 22  # of users with items at a time: 16 MB


@dataclasses.dataclass(frozen=True, eq=False)
class Prior:
  """What is believed before the first impression.

  Attributes:
    directions: float64 [R, q], each as long as what is not known along it.
    share: of its variance, at least 0.
    level: variance of the level in log-odds, at least 0.
    link: log-odds of a click from a score.
  """

  directions: np.ndarray
  share: float
  level: float
  link: reward_model.RewardModel

  @property
  def width(self) -> int:
    """Numbers of a belief: q + 1."""
    return self.directions.shape[1] + 1

  def inputs(self, users: np.ndarray) -> np.ndarray:
    """What of users [N, R] a belief sees: float64 [N, q]."""
    return np.asarray(users, np.float64) @ self.directions

  def seen(self, inputs: np.ndarray) -> np.ndarray:
    """By how much log-odds of users [N, q] move with x: float64 [N, q + 1]."""
    taste = self.link.slope * np.sqrt(self.share) * inputs
    level = np.full((len(inputs), 1), np.sqrt(self.level))
    return np.concatenate([taste, level], axis=1)

  def start(self, number: int) -> posterior.Belief:
    """The beliefs of so many items that nobody was shown."""
    return posterior.start(np.zeros((number, self.width)), np.eye(self.width))


def directions_of(residual: np.ndarray, number: int) -> np.ndarray:
  """The principal directions of residuals around 0.

  Args:
    residual: float [N, R], what preference changes in embeddings.
    number: q, at most R.

  Returns:
    float64 [R, q]: with q = R, D D' is the second moment of the residuals.
  """
  residual = np.asarray(residual, np.float64)
  moment = residual.T @ residual / max(len(residual), 1)
  value, vector = np.linalg.eigh(moment)
  first = np.argsort(-value, kind='stable')[:number]
  return vector[:, first] * np.sqrt(np.maximum(value[first], 0))


def passes(
    prior: Prior,
    items: posterior.Belief,
    users: np.ndarray,
    place: np.ndarray,
    mean: np.ndarray,
    number: int,
    rng: np.random.Generator,
) -> np.ndarray:
  """Draws of scores; of an item the same for all users.

  Args:
    prior: of all items.
    items: of J new ones.
    users: float [C, q], `Prior.inputs` of them.
    place: int [C, P], which of the J items a score is of; -1 for items that
      nothing more is believed of.
    mean: float32 [C, P], the scores.
    number: of draws; 0 gives the mean of what is believed.
    rng: draws.

  Returns:
    float32 [T, C, P], in units of the score, centred as by
    `uncertainty.centred`.
  """
  unit = 1 / prior.link.slope if prior.link.slope > 0 else 0.0
  x = np.zeros((number + 1, len(items.mean) + 1, prior.width), np.float32)
  x[0, :-1] = items.mean  # and the last one is an item that stays as it is
  if number:
    x[1:, :-1] = posterior.draw(rng, items, number) - items.mean
  moved = _of_pairs((unit * prior.seen(users)).astype(np.float32), x, place)
  mean = mean + moved[0]
  return uncertainty.centred(mean, moved[1:], 1.0) if number else mean[None]


def _of_pairs(seen: np.ndarray, x: np.ndarray, place: np.ndarray) -> np.ndarray:
  """Products of users [C, D] with T times J items of theirs: [T, C, P].

  Those of a user with all items are a matrix product, which is faster than to
  gather the items of each; of a part of the users at a time.
  """
  found = np.empty((len(x), *place.shape), np.float32)
  count, flat = x.shape[1], x.reshape(-1, x.shape[2])
  step = max(_PRODUCTS // len(flat), 1)
  for begin in range(0, len(seen), step):
    part = slice(begin, begin + step)
    products = seen[part] @ flat.T
    cell = place[part] % count  # of -1 the last one
    cell += len(flat) * np.arange(len(cell))[:, None]
    for number, one in enumerate(found):
      # All of them are inside; with 'raise' NumPy would make a copy.
      np.take(products, cell + number * count, out=one[part], mode='clip')
  return found
