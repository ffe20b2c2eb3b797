# SPDX-License-Identifier: Apache-2.0
"""How wide beliefs are before the first impression: fitted on impressions.

Directions are those along which known items move when their preference is
dropped. How much of that is unknown of a new item, and how much of a level, is
what predicts impressions best, each part of them from those before it.
"""

from collections.abc import Sequence
import dataclasses
import functools
import itertools

import numpy as np

from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.exploring import belief as belief_lib
from dropoutnet_jax.exploring import held_out
from dropoutnet_jax.exploring import posterior
from dropoutnet_jax.exploring import reward_model
from dropoutnet_jax.exploring import told_towers

SHARES: Sequence[float] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
LEVELS: Sequence[float] = (0.01, 0.1, 0.3, 1.0, 3.0)  # log-odds squared
_PARTS = 8  # updates while the impressions are gone through once
_MOST = 20_000  # known items that directions are of


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
  """N impressions of items that are taken for new, in the order of their time.

  Attributes:
    item: int [N], numbers from 0.
    users: float64 [N, R], tower embeddings of who saw them.
    score: float64 [N], of an item as if it were new.
    click: float64 [N].
  """

  item: np.ndarray
  users: np.ndarray
  score: np.ndarray
  click: np.ndarray


def directions(
    scorer: model_scores.Scorer, known: np.ndarray, number: int, seed: int = 0
) -> np.ndarray:
  """What content does not tell of items: float64 [R, q].

  Args:
    scorer: of a run.
    known: int [K], items with training pairs; of many, some are drawn.
    number: q.
    seed: of those.

  Raises:
    UserError: if embeddings are not finite.
  """
  if len(known) > _MOST:
    rng = np.random.default_rng(seed)
    known = np.sort(rng.choice(known, _MOST, replace=False))
  table = scorer.tables.item.select(known)
  whole = told_towers.embed(scorer, table, 'item')
  residual = whole - embed_bare(scorer, table)
  held_out.check_finite(residual)
  return belief_lib.directions_of(residual, number)


def embed_bare(
    scorer: model_scores.Scorer, table: tables_lib.SideTable
) -> np.ndarray:
  """Items as if they were new: float64 [N, R]."""
  return told_towers.embed(
      scorer, told_towers.without_preference(table), 'item'
  )


def fit(
    directions_: np.ndarray, link: reward_model.RewardModel, pairs: Pairs
) -> belief_lib.Prior:
  """The share and the variance of the level that predict clicks best.

  Args:
    directions_: float64 [R, q].
    link: log-odds of a click from a score.
    pairs: impressions.
  """
  inputs = np.asarray(pairs.users, np.float64) @ directions_
  make = lambda place: belief_lib.Prior(
      directions_, SHARES[place[0]], LEVELS[place[1]], link
  )
  value = functools.cache(lambda place: likelihood(make(place), inputs, pairs))
  # From the middle of the grid on, to whichever neighbour is better.
  best: tuple[int, ...] = (len(SHARES) // 2, len(LEVELS) // 2)
  while True:
    near = [
        range(max(x - 1, 0), min(x + 2, len(axis)))
        for x, axis in zip(best, (SHARES, LEVELS))
    ]
    found = max((best, *itertools.product(*near)), key=value)
    if found == best:
      break
    best = found
  return make(best)


def likelihood(
    prior: belief_lib.Prior, inputs: np.ndarray, pairs: Pairs
) -> float:
  """Log-likelihood of clicks, each part predicted from those before it.

  Args:
    prior: before the first part.
    inputs: float64 [N, q], `Prior.inputs` of the users.
    pairs: impressions.
  """
  belief = prior.start(int(pairs.item.max(initial=-1)) + 1)
  seen = prior.seen(inputs)
  base = prior.link.slope * pairs.score + prior.link.offset
  total = 0.0
  bounds = np.linspace(0, len(pairs.item), _PARTS + 1).astype(int)
  for a, b in zip(bounds, bounds[1:]):
    own, x, click = pairs.item[a:b], seen[a:b], pairs.click[a:b]
    logit = base[a:b] + np.einsum('nd,nd->n', x, belief.mean[own])
    covariance = np.linalg.inv(belief.precision)
    spread = np.einsum('nd,nd->n', _times(x, covariance, own), x)
    # A mean over the belief is flatter than the chance at its mean.
    chance = reward_model.sigmoid(logit / np.sqrt(1 + np.pi / 8 * spread))
    chance = np.clip(chance, 1e-9, 1 - 1e-9)
    total += float(
        np.sum(click * np.log(chance) + (1 - click) * np.log1p(-chance))
    )
    belief = posterior.update(belief, own, x, base[a:b], click)
  return total


def _times(x: np.ndarray, matrix: np.ndarray, own: np.ndarray) -> np.ndarray:
  """x[n] @ matrix[own[n]], item by item: [N, D]."""
  order = np.argsort(own, kind='stable')
  found = np.empty_like(x)
  for rows in np.split(order, np.flatnonzero(np.diff(own[order])) + 1):
    if len(rows):
      found[rows] = x[rows] @ matrix[own[rows[0]]]
  return found
