# SPDX-License-Identifier: Apache-2.0
"""Policies that show items in order to learn about them, with exact chances.

A slate is filled place by place, and no item comes twice. At each place, where
R items are left,

  1. with chance epsilon any of them is shown, each with chance 1 / R;
  2. else, with chance new_share, the place is kept for new items: each takes
     part with the chance of its decay, and the best that does is shown;
  3. else, and where no new item takes part, the best of all is shown.

Best is by the mean of the passes ('greedy', 'epsilon'), by the mean and `width`
standard deviations on top ('ucb'), or by one of the T passes, which each place
draws anew ('thompson': Thompson, Biometrika 1933; passes with other masks of
input dropout are draws from an approximate posterior: Gal & Ghahramani, ICML
2016). Chances of all three are known: the propensity of an item is the chance
of it at its place given the items before it, and the product over places is
that of the slate.

Decay is 0.5^(impressions / half_life), of each new item by its own impressions:
new items that were shown leave the kept places to others, and their boost.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from dropoutnet_jax import errors
from dropoutnet_jax.exploring import columns

KINDS = ('greedy', 'epsilon', 'ucb', 'thompson')
MOST = 1e6  # deviations; with more of them, float32 is soon at its end
_EPSILON = 0.1  # of the kind of that name


@dataclasses.dataclass(frozen=True)
class Policy:
  """How a slate is filled.

  Attributes:
    kind: one of KINDS.
    epsilon: chance that a place shows any item that is left, uniformly; None is
      0.1 for 'epsilon' and 0 for the others.
    width: of 'ucb', standard deviations above the mean; of 'thompson', factor
      on the deviations of the passes from it.
    new_share: chance that a place is kept for new items, where there are any.
    boost: added to the scores of new items, in standard deviations of the mean
      scores of a user's candidates.
    half_life: impressions after which new_share and boost of an item are
      halved.
  """

  kind: str
  epsilon: float | None = None
  width: float = 1.0
  new_share: float = 0.0
  boost: float = 0.0
  half_life: float = 100.0

  def __post_init__(self) -> None:
    """Raises UserError for a value that no policy can have."""
    if self.kind not in KINDS:
      raise errors.UserError(
          f'{self.kind!r} is no policy; there are {", ".join(KINDS)}.'
          + errors.did_you_mean(str(self.kind), KINDS)
      )
    for name in ('epsilon', 'new_share'):
      value = getattr(self, name)
      if value is not None and not 0 <= value <= 1:
        raise errors.UserError(
            f'{name} of the policy is {value}; it is a chance, from 0 to 1.'
        )
    for name in ('width', 'boost'):
      value = getattr(self, name)
      if not 0 <= value <= MOST:
        raise errors.UserError(
            f'{name} of the policy is {value}; it is a number of standard '
            f'deviations, from 0 to {MOST:,.0f}.'
        )
    if not (math.isfinite(self.half_life) and self.half_life > 0):
      raise errors.UserError(
          f'half_life of the policy is {self.half_life}; it is a number of '
          'impressions above 0.'
      )

  @property
  def floor(self) -> float:
    """Epsilon, or what the kind has where it was left out."""
    if self.epsilon is not None:
      return self.epsilon
    return _EPSILON if self.kind == 'epsilon' else 0.0

  def __str__(self) -> str:
    """The kind, and what is not as by default: 'thompson new_share=0.2'."""
    words = [self.kind]
    for field in dataclasses.fields(self)[1:]:
      value = getattr(self, field.name)
      if value != field.default:
        words.append(f'{field.name}={value:g}')
    return ' '.join(words)

  @property
  def needs_passes(self) -> bool:
    """Whether it looks at more than the mean."""
    return self.kind in ('ucb', 'thompson')


class Slates(NamedTuple):
  """What is shown to B users.

  Attributes:
    item: int32 [B, k], columns of the candidates in the order of the places; -1
      where none is left.
    score: float32 [B, k], means over the passes, without a boost; -inf where
      none is left.
    propensity: float32 [B, k], the chance of the item at its place given those
      before it; 0 where none is left.
  """

  item: np.ndarray
  score: np.ndarray
  propensity: np.ndarray


def decay(impressions: np.ndarray, half_life: float) -> np.ndarray:
  """What impressions have left of new_share and boost: in [0, 1]."""
  return 0.5 ** (np.asarray(impressions, np.float64) / half_life)


def choose(
    policy: Policy,
    passes: np.ndarray,
    k: int,
    rng: np.random.Generator,
    *,
    is_new: np.ndarray | None = None,
    impressions: np.ndarray | None = None,
    allowed: np.ndarray | None = None,
) -> Slates:
  """Fills slates.

  Args:
    policy: how.
    passes: float32 [T, B, J], finite scores of B users and J candidates under
      each of T masks; of T = 1 'ucb' and 'thompson' are greedy. Of equal scores
      the first candidate is the best.
    k: places of each slate.
    rng: all chance is drawn from it.
    is_new: bool [J] or [B, J]; None for none.
    impressions: how often each was shown, [J] or [B, J]; None for never.
    allowed: bool [J] or [B, J], what a user may get; None for all.

  Raises:
    ValueError: for other shapes, k below 1, or scores that are not finite.
  """
  if k < 1:
    raise ValueError(f'k is {k}; it must be at least 1.')
  if passes.ndim == 3 and not passes.shape[2]:
    none = np.zeros((passes.shape[1], k), np.float32)
    return Slates(none.astype(np.int32) - 1, none - np.inf, none)
  filling = _Filling(policy, passes, k, is_new, impressions, allowed)
  item = np.empty((passes.shape[1], k), np.int64)
  propensity = np.empty(item.shape)
  for place in range(k):
    item[:, place] = filling.draw(rng)
    propensity[:, place] = filling.take(item[:, place])
  score = np.take_along_axis(filling.mean, np.maximum(item, 0), axis=1)
  return Slates(
      item.astype(np.int32),
      np.where(item >= 0, score, -np.inf).astype(np.float32),
      propensity.astype(np.float32),
  )


class Judged(NamedTuple):
  """What a policy would have done at the places of slates of another one.

  Attributes:
    propensity: float32 [B, k], its chance of the item that was shown there,
      given those before it; 0 for what it may not show.
    drawn: int [B, k, D], columns that it would show there, each as often as its
      chance says; -1 where none is left.
  """

  propensity: np.ndarray
  drawn: np.ndarray


def judge(
    policy: Policy,
    passes: np.ndarray,
    item: np.ndarray,
    draws: int,
    rng: np.random.Generator,
    *,
    is_new: np.ndarray | None = None,
    impressions: np.ndarray | None = None,
    allowed: np.ndarray | None = None,
) -> Judged:
  """What a policy would have done in place of another that has shown slates.

  Args:
    policy: the one that is asked about.
    passes: as in `choose`.
    item: int [B, k], columns of the candidates, each once in a row; -1 where
      none was left, or one that is no candidate.
    draws: D, of each place.
    rng: the draws come of it.
    is_new: as in `choose`.
    impressions: as in `choose`.
    allowed: as in `choose`.
  """
  filling = _Filling(
      policy, passes, item.shape[1], is_new, impressions, allowed
  )
  propensity = np.zeros(item.shape, np.float32)
  drawn = np.empty((*item.shape, draws), np.int64)
  for place, column in enumerate(item.T):
    drawn[:, place] = columns.draw_evenly(filling.chance, draws, rng)
    propensity[:, place] = filling.take(column)
  return Judged(propensity, drawn)


class _Filling:
  """Slates of B users while they are filled.

  Of T' orders (one, or one for each pass) the first k candidates are kept: with
  fewer than k taken, the best that is left is among them.

  Attributes:
    mean: float32 [B, J], over the passes.
    chance: float64 [B, J], of the candidates at the next place.
  """

  def __init__(
      self,
      policy: Policy,
      passes: np.ndarray,
      k: int,
      is_new: np.ndarray | None,
      impressions: np.ndarray | None,
      allowed: np.ndarray | None,
  ):
    if passes.ndim != 3 or not passes.shape[0]:
      raise ValueError(f'passes are {passes.shape}, not [T, B, J].')
    if not np.isfinite(passes).all():
      raise ValueError('Some scores of the passes are not finite.')
    self._policy, shape = policy, passes.shape[1:]
    spread = lambda x, default: np.broadcast_to(
        default if x is None else x, shape
    )
    self._left = np.array(spread(allowed, True), bool)
    fresh = decay(spread(impressions, 0), policy.half_life)
    fresh = np.where(spread(is_new, False) & self._left, fresh, 0)
    self.mean = passes.mean(axis=0, dtype=np.float64).astype(np.float32)
    orders = self._orders_by(passes)
    if policy.boost:
      orders = orders + policy.boost * fresh * _deviation(self.mean, self._left)
    self._best = columns.first(np.where(self._left, orders, -np.inf), k)
    self._rows = np.arange(shape[0])
    self._new = self._kept = None
    new = np.flatnonzero(fresh.any(axis=0))
    if policy.new_share and len(new):
      order = np.argsort(-orders[:, :, new], axis=-1, kind='stable')
      self._new = new[order]
      self._kept = np.take_along_axis(fresh[None], self._new, axis=-1)
    self.chance = self._chances()

  def _orders_by(self, passes: np.ndarray) -> np.ndarray:
    """What the candidates are ordered by: [T', B, J]."""
    if self._policy.kind == 'thompson':
      if self._policy.width == 1:
        return passes
      return self.mean + self._policy.width * (passes - self.mean)
    if self._policy.kind == 'ucb':
      return (self.mean + self._policy.width * passes.std(axis=0))[None]
    return self.mean[None]

  def _best_left(self) -> np.ndarray:
    """The best of each order that is left: [T', B]; -1 for none."""
    left = np.take_along_axis(self._left[None], self._best, axis=-1)
    place = left.argmax(axis=-1)[..., None]
    best = np.take_along_axis(self._best, place, axis=-1)
    has_any = np.take_along_axis(left, place, axis=-1)
    return np.where(has_any, best, -1)[..., 0]

  def _wins(self) -> np.ndarray | None:
    """Chances that a new item gets a kept place, along orders: [T', B, C].

    It takes part, and none that is better does. What is missing to 1 is the
    chance that none takes part.
    """
    if self._new is None or self._kept is None:
      return None
    left = np.take_along_axis(self._left[None], self._new, axis=-1)
    takes_part = self._kept * left
    none_yet = np.cumprod(1 - takes_part, axis=-1)
    before = np.ones_like(none_yet)
    before[..., 1:] = none_yet[..., :-1]
    return takes_part * before

  def draw(self, rng: np.random.Generator) -> np.ndarray:
    """Items [B] for the next place; -1 where none is left."""
    rows, policy = self._rows, self._policy
    order = rng.integers(len(self._best), size=len(rows))
    uniform, kept, which = rng.random((3, len(rows)))
    item = self._best_left()[order, rows]
    wins = self._wins()
    if wins is not None and self._new is not None:
      total = np.cumsum(wins[order, rows], axis=-1)
      is_new = (kept < policy.new_share) & (which < total[:, -1])
      place = np.argmax(total > which[:, None], axis=-1)
      item = np.where(is_new, self._new[order, rows, place], item)
    some = np.flatnonzero((uniform < policy.floor) & (item >= 0))
    if len(some):
      number = np.cumsum(self._left[some], axis=-1)
      # What drew the new item is drawn again: that one is not shown here.
      chosen = np.floor(which[some] * number[:, -1])
      item[some] = np.argmax(number > chosen[:, None], axis=-1)
    return item

  def _chances(self) -> np.ndarray:
    policy, left = self._policy, self._left
    best = self._best_left()
    found = self._summed(best, np.full(best.shape, 1 / len(best)))
    wins = self._wins()
    if wins is not None and self._new is not None:
      none = 1 - wins.sum(axis=-1).mean(axis=0)
      kept = self._summed(self._new, wins / len(wins)) + none[:, None] * found
      found = policy.new_share * kept + (1 - policy.new_share) * found
    any_of = left / np.maximum(left.sum(axis=-1, keepdims=True), 1)
    return policy.floor * any_of + (1 - policy.floor) * found

  def _summed(self, item: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Chances [T', B, ...] of items added up over orders: [B, J]."""
    rows, size = self._left.shape
    row = self._rows.reshape(1, -1, *[1] * (item.ndim - 2))
    cell = np.where(item >= 0, row * size + item, rows * size)
    total = np.bincount(cell.ravel(), chance.ravel(), rows * size + 1)
    return total[:-1].reshape(rows, size)

  def take(self, item: np.ndarray) -> np.ndarray:
    """Fills a place with items [B], -1 for none; their chances, float64 [B]."""
    rows, place = self._rows, np.maximum(item, 0)
    is_left = (item >= 0) & self._left[rows, place]
    chance = np.where(is_left, self.chance[rows, place], 0.0)
    self._left[rows[is_left], item[is_left]] = False
    self.chance = self._chances()
    return chance


def _deviation(mean: np.ndarray, allowed: np.ndarray) -> np.ndarray:
  """Standard deviation of a user's scores of what she may get: [B, 1]."""
  count = np.maximum(allowed.sum(axis=-1, keepdims=True), 1)
  center = np.sum(mean, axis=-1, keepdims=True, where=allowed) / count
  square = np.sum((mean - center) ** 2, axis=-1, keepdims=True, where=allowed)
  return np.sqrt(square / count)
