# SPDX-License-Identifier: Apache-2.0
"""Rounds of a recommender that learns what new items are by showing them.

In each round some users come, a policy fills their slates from what is believed
of the items, the truth clicks, and the learner is told. Nothing is trained:
what grows are histories and beliefs. A world is a table of chances, whether it
was planted or is made of ratings (`planted`, `replay`).
"""

import dataclasses
from typing import Protocol

import numpy as np

from dropoutnet_jax.exploring import policies

_MOST_CLICKS = 10  # of an item that are timed
_LOOKED_AT = 512  # users at a time


@dataclasses.dataclass(frozen=True, eq=False)
class World:
  """What is true.

  Attributes:
    chance: float [U, I], of a click when it is shown; 0 and 1 where a log says
      what happened.
    is_new: bool [I], items without training pairs.
    allowed: bool [U, I], what a user may get at all.
    wanted: bool [U, I], the best of each user: what her list should have.
    visitors: int [V], rows of the users who come.
    once: whether a user gets an item once only; else until she clicks.
  """

  chance: np.ndarray
  is_new: np.ndarray
  allowed: np.ndarray
  wanted: np.ndarray
  visitors: np.ndarray
  once: bool = False

  def audience(self) -> np.ndarray:
    """int [I], how many of the visitors want each item."""
    return self.wanted[self.visitors].sum(axis=0)

  def good(self) -> np.ndarray:
    """The quarter of the new items that most visitors want: int [G]."""
    new = np.flatnonzero(self.is_new)
    own = self.audience()[new]
    return new[own >= np.quantile(own, 0.75)]


class Learner(Protocol):
  """What a policy chooses by."""

  def passes(
      self, users: np.ndarray, number: int, rng: np.random.Generator
  ) -> np.ndarray:
    """Scores float32 [T, B, I] of users [B]; T is 1 for `number` 0."""

  def learn(
      self, user: np.ndarray, item: np.ndarray, click: np.ndarray
  ) -> None:
    """Is told of impressions: int [N], int [N], float [N]."""


@dataclasses.dataclass(frozen=True)
class Rounds:
  """How a simulation goes.

  Attributes:
    number: of rounds.
    users: who come in each, without repeats within a round; all users come
      before one comes again.
    places: of each slate.
    passes: that policies get which look at more than the mean.
    look_every: rounds between two looks at the lists of all users.
  """

  number: int
  users: int
  places: int
  passes: int = 16
  look_every: int = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Course:
  """What happened. N rounds, I items.

  Attributes:
    impressions: int [N], places filled so far, at the end of the round.
    value: float [N], expected clicks of what was shown.
    best: float [N], expected clicks of the best slates of these users.
    clicks: float [N].
    new_places: int [N], places that new items got.
    shown: int [I].
    clicked_at: int [I, C], impressions of all items until each had its n-th
      click, -1 for never.
    listed: float [L, I], share of the users who want an item in whose list it
      is, at each look; the first before the first round.
    looks: int [L], impressions so far at each look.
    user_value: float [V, C], expected clicks of each visit of a visitor; NaN
      where she did not come so often.
    user_best: float [V, C], of the best slate of the visit.
    log: of all places: user, item, rank, propensity, click.
  """

  impressions: np.ndarray
  value: np.ndarray
  best: np.ndarray
  clicks: np.ndarray
  new_places: np.ndarray
  shown: np.ndarray
  clicked_at: np.ndarray
  listed: np.ndarray
  looks: np.ndarray
  user_value: np.ndarray
  user_best: np.ndarray
  log: tuple[np.ndarray, ...]


def simulate(
    world: World,
    learner: Learner,
    policy: policies.Policy,
    rounds: Rounds,
    seed: int,
) -> Course:
  """Plays the rounds; the same for the same arguments.

  Args:
    world: the truth.
    learner: as it is before the first round; it learns.
    policy: fills the slates.
    rounds: how many, how large.
    seed: of visits, chances and clicks. Visits do not depend on the policy.
  """
  num_items = world.chance.shape[1]
  rng = np.random.default_rng([seed, 1])
  left = world.allowed.copy()
  shown = np.zeros(num_items, np.int64)
  tally = _Tally(num_items)
  visits = _visits(world.visitors, rounds, seed)
  most = int(np.bincount(np.concatenate(visits)).max())
  values = np.full((len(world.chance), most), np.nan)
  bests, came = values.copy(), np.zeros(len(world.chance), np.int64)
  looks, listed = [0], [_look(world, learner)]
  rows, log = [], []
  for number, users in enumerate(visits):
    draws = rounds.passes if policy.needs_passes else 0
    slates = policies.choose(
        policy,
        learner.passes(users, draws, rng),
        rounds.places,
        rng,
        is_new=world.is_new,
        impressions=shown,
        allowed=left[users],
    )
    is_filled = slates.item >= 0
    place, _ = np.nonzero(is_filled)
    user, item = users[place], slates.item[is_filled]
    truth = world.chance[user, item]
    click = (rng.random(len(truth)) < truth).astype(np.float64)
    value = np.bincount(place, truth, minlength=len(users))
    best = _best(world.chance[users], left[users], rounds.places)
    values[users, came[users]], bests[users, came[users]] = value, best
    came[users] += 1
    np.add.at(shown, item, 1)
    gone = slice(None) if world.once else click > 0
    left[user[gone], item[gone]] = False
    tally.add(item, click)
    learner.learn(user, item, click)
    new_places = int(world.is_new[item].sum())
    rows.append((value.sum(), best.sum(), click.sum(), new_places, len(item)))
    rank = np.nonzero(is_filled)[1] + 1
    log.append((user, item, rank, slates.propensity[is_filled], click))
    if (number + 1) % rounds.look_every == 0 or number + 1 == len(visits):
      looks.append(tally.impressions)
      listed.append(_look(world, learner))
  value, best, clicks, new_places, places = np.array(rows).T
  return Course(
      impressions=np.cumsum(places).astype(np.int64),
      value=value,
      best=best,
      clicks=clicks,
      new_places=new_places.astype(np.int64),
      shown=shown,
      clicked_at=tally.clicked_at,
      listed=np.array(listed),
      looks=np.array(looks),
      user_value=values[world.visitors],
      user_best=bests[world.visitors],
      log=tuple(np.concatenate(part) for part in zip(*log)),
  )


class _Tally:
  """When items got their clicks, in impressions of all items."""

  def __init__(self, num_items: int):
    self.impressions = 0
    self.clicked_at = np.full((num_items, _MOST_CLICKS), -1)
    self._clicks = np.zeros(num_items, np.int64)

  def add(self, item: np.ndarray, click: np.ndarray) -> None:
    for place in np.flatnonzero(click > 0):
      own = item[place]
      if self._clicks[own] < _MOST_CLICKS:
        self.clicked_at[own, self._clicks[own]] = self.impressions + place + 1
      self._clicks[own] += 1
    self.impressions += len(item)


def _visits(
    visitors: np.ndarray, rounds: Rounds, seed: int
) -> list[np.ndarray]:
  """Users of each round: one order of all after another.

  Where the number of a round does not divide theirs, others are left out of
  each order.
  """
  rng = np.random.default_rng([seed, 0])
  size = min(rounds.users, len(visitors))
  whole = len(visitors) // size * size
  found: list[np.ndarray] = []
  while len(found) < rounds.number:
    found += list(rng.permutation(visitors)[:whole].reshape(-1, size))
  return found[: rounds.number]


def _best(chance: np.ndarray, left: np.ndarray, places: int) -> np.ndarray:
  """Expected clicks [B] of the best slates from what is left [B, I]."""
  values = np.where(left, chance, 0.0)
  places = min(places, values.shape[1])
  top = np.partition(values, values.shape[1] - places, axis=1)
  return top[:, values.shape[1] - places :].sum(axis=1)


def _look(world: World, learner: Learner) -> np.ndarray:
  """Share [I] of the visitors who want an item in whose list it is.

  A list is as long as what the user wants, the best by the mean of what she
  may get, whatever she has met since.
  """
  hits = np.zeros(world.chance.shape[1])
  for begin in range(0, len(world.visitors), _LOOKED_AT):
    users = world.visitors[begin : begin + _LOOKED_AT]
    scores = learner.passes(users, 0, np.random.default_rng(0))[0]
    scores = np.where(world.allowed[users], scores, -np.inf)
    wanted = world.wanted[users]
    order = np.argsort(-scores, axis=1, kind='stable')
    place = np.argsort(order, axis=1)
    hits += np.sum(wanted & (place < wanted.sum(axis=1, keepdims=True)), axis=0)
  return hits / np.maximum(world.audience(), 1)
