# SPDX-License-Identifier: Apache-2.0
"""Whether scores and their spread mean what they say, on held-out new items.

From the pairs of users with new items, which training has not seen, come

  * the chance of a like as a monotone map of the score, one for all users:
    isotonic regression (Zadrozny & Elkan, KDD 2002) over bins of scores, with
    straight lines between them;
  * the scale of the spread. A new item that is better than its content says is
    liked more by all users, so that its number of likes tells. Of that number
    passes and chance give a distribution: the scale is that of the lowest
    continuous ranked probability score (Gneiting & Raftery, JASA 2007), on
    roots, which vary by chance alike for rare and for frequent likes. Log-odds
    of a like move with the score by the slope of a logistic regression; the
    expectation over all items is kept.

The tables are of items that the numbers in them were not fitted on: two halves
of the items, each told by the fit of the other. Quantiles that are put right
after the fact are those of Kuleshov, Fenner & Ermon (ICML 2018).
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from dropoutnet_jax.exploring import uncertainty

_KNOTS = 64  # bins of the map
_SCALES = tuple(0.1 * 1.6**n for n in range(14))  # tried first, up to 45
_FINER = (1.25, 1.1, 1.05)  # then, around the best
_DRAWS = 4  # of chance, for each pass
_NEWTON = 20  # steps to keep the expectation
_PAIRS = 1 << 16  # that the scale is fitted on, times passes
_EDGES = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
_SPREAD_BINS = 5
_LEAST_ITEMS = 10  # of a fit
_NORMAL = 1.96  # deviations of an interval of 95 %


class Fit(NamedTuple):
  """What is fitted.

  Attributes:
    score: float64 [K], ascending.
    chance: float64 [K], of a like at these scores, ascending.
    slope: log-odds of a like for a score that is higher by 1, at least 0.
    scale: of the deviations of passes, at least 0.
  """

  score: np.ndarray
  chance: np.ndarray
  slope: float
  scale: float

  def chance_of(self, score: np.ndarray) -> np.ndarray:
    """Of a like, float64 of the same shape."""
    return np.interp(score, self.score, self.chance)


class Pairs(NamedTuple):
  """Held-out pairs: U users with J new items, T passes.

  Attributes:
    mean: float32 [U, J], scores without masks.
    passes: float32 [T, U, J], scores under masks.
    liked: bool [U, J].
  """

  mean: np.ndarray
  passes: np.ndarray
  liked: np.ndarray

  def items(self, which: np.ndarray) -> 'Pairs':
    """Some of the items, int [C]."""
    return Pairs(
        self.mean[:, which], self.passes[:, :, which], self.liked[:, which]
    )

  def some_users(self, most: int, seed: int) -> 'Pairs':
    """At most so many pairs, of users that are drawn."""
    users, items = self.liked.shape
    if users * items <= most:
      return self
    rng = np.random.default_rng(seed)
    some = rng.choice(users, max(most // items, 1), replace=False)
    return Pairs(self.mean[some], self.passes[:, some], self.liked[some])

  @property
  def can_be_fitted(self) -> bool:
    """Whether there are enough of both kinds."""
    liked = self.liked.any(axis=0).sum()
    enough = liked >= 2 and self.liked.shape[1] >= _LEAST_ITEMS
    return bool(enough and not self.liked.all() and len(self.passes) > 1)


def fit(pairs: Pairs, seed: int) -> Fit:
  """Fits the map and the scale on pairs that can be fitted.

  Args:
    pairs: held out.
    seed: of the users whose passes are looked at, where these are many.
  """
  score, chance = _map(pairs)
  fitted = Fit(score, chance, _slope(pairs), 0.0)
  if not fitted.slope:  # scores say nothing of likes, nor does their spread
    return fitted
  pairs = pairs.some_users(_PAIRS, seed)
  score_of = lambda scale: _Predicted.of(
      fitted._replace(scale=scale), pairs
  ).score(seed)
  scores = {scale: score_of(scale) for scale in (0.0, *_SCALES)}
  best = min(scores, key=lambda scale: scores[scale])
  for factor in _FINER if best else ():
    for scale in (best / factor, best * factor):
      scores[scale] = score_of(scale)
    best = min(scores, key=lambda scale: scores[scale])
  return fitted._replace(scale=float(best))


def _map(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
  """Scores [K] and the chance of a like there [K]."""
  from sklearn import isotonic  # costs every start a second

  score, liked = pairs.mean.ravel().astype(np.float64), pairs.liked.ravel()
  order = np.argsort(score, kind='stable')
  # Few of the likeliest pairs have most of the likes.
  share = 1 - np.geomspace(1, 1e-3, _KNOTS + 1)
  edges = np.unique((share * len(order)).astype(int))
  edges = np.append(edges, len(order))
  parts = [order[a:b] for a, b in zip(edges[:-1], edges[1:]) if b > a]
  center = np.array([score[part].mean() for part in parts])
  chance = isotonic.IsotonicRegression().fit_transform(
      center,
      np.array([liked[part].mean() for part in parts]),
      sample_weight=np.array([len(part) for part in parts], float),
  )
  return center, chance


def _slope(pairs: Pairs) -> float:
  """Of a logistic regression of likes on scores; 0 where it is negative."""
  from sklearn import linear_model  # likewise

  score = pairs.mean.ravel().astype(np.float64)
  width = score.std() or 1.0
  model = linear_model.LogisticRegression(C=1e6)
  model.fit(((score - score.mean()) / width)[:, None], pairs.liked.ravel())
  return max(float(model.coef_[0, 0]) / width, 0.0)


class _Predicted(NamedTuple):
  """Shares of users who like an item.

  Attributes:
    observed: [J].
    expected: [T, J], by each pass.
    deviation: [T, J], of what is chance.
  """

  observed: np.ndarray
  expected: np.ndarray
  deviation: np.ndarray

  @classmethod
  def of(cls, fitted: Fit, pairs: Pairs) -> '_Predicted':
    """By a map that was fitted on these items or on others."""
    expected = fitted.chance_of(pairs.mean)
    total = expected.mean()
    odds = special.logit(np.clip(expected, 1e-6, 1 - 1e-6)).astype(np.float32)
    moved = uncertainty.centred(
        np.zeros_like(pairs.mean), pairs.passes, fitted.scale
    )
    moved = odds + np.float32(fitted.slope) * moved
    shift = 0.0
    for _ in range(_NEWTON):
      chance = special.expit(moved + np.float32(shift))
      slope = np.mean(chance * (1 - chance))
      step = (total - chance.mean()) / max(slope, 1e-12)
      shift += float(np.clip(step, -1, 1))
      if abs(step) < 1e-3:
        break
    variance = np.mean(chance * (1 - chance), axis=1) / len(odds)
    return cls(
        pairs.liked.mean(axis=0),
        chance.mean(axis=1, dtype=np.float64),
        np.sqrt(np.maximum(variance, 1e-12)),
    )

  def score(self, seed: int) -> float:
    """Continuous ranked probability score of the roots; lower is better."""
    noise = np.random.default_rng(seed).normal(
        size=(_DRAWS, *self.expected.shape)
    )
    drawn = self.expected + self.deviation * noise
    drawn = np.sqrt(np.maximum(drawn, 0))
    off = np.abs(drawn - np.sqrt(self.observed)).mean(axis=(0, 1))
    # Of two passes, also of the same one: centred passes are apart enough.
    num_passes, num_items = self.expected.shape
    within = sum(_differences(drawn[:, n]) for n in range(num_passes))
    between = _differences(drawn.reshape(-1, num_items)) - within
    apart = between / _DRAWS**2 + within / (_DRAWS * (_DRAWS - 1))
    return float(np.mean(off - apart / num_passes**2))

  def deviations(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How far from its mean a share is expected to be, and is: [J] each."""
    noise = np.random.default_rng(seed).normal(size=self.expected.shape)
    mean = self.expected.mean(axis=0)
    drawn = self.expected + self.deviation * noise
    return np.abs(drawn - mean).mean(axis=0), np.abs(self.observed - mean)


def _differences(values: np.ndarray) -> np.ndarray:
  """Absolute differences of all pairs of rows [N, J], added up: [J]."""
  count = len(values)
  weight = 2 * np.arange(count) - count + 1
  return weight @ np.sort(values, axis=0)


@dataclasses.dataclass(frozen=True)
class Table:
  """Predictions for items that they were not fitted on.

  Attributes:
    bins: of pairs by their chance of a like: 'predicted', 'observed', 'low'
      and 'high' (95 %, items drawn anew), 'pairs'.
    spread_bins: of items by their spread: the mean absolute deviation of the
      share of users who like an item, 'predicted' and 'observed', 'pairs',
      'items'.
  """

  bins: list[dict[str, Any]]
  spread_bins: list[dict[str, Any]]


def table(pairs: Pairs, seed: int) -> Table:
  """Each half of the items told by what was fitted on the other.

  Args:
    pairs: held out.
    seed: of the halves.

  Returns:
    Empty tables where a half is too small to be fitted.
  """
  order = np.random.default_rng(seed).permutation(pairs.liked.shape[1])
  halves = order[::2], order[1::2]
  parts = [pairs.items(half) for half in halves]
  if not all(part.can_be_fitted for part in parts):
    return Table([], [])
  fits = [fit(part, seed) for part in parts[::-1]]
  chance = np.concatenate(
      [one.chance_of(part.mean) for one, part in zip(fits, parts)], axis=1
  )
  liked = np.concatenate([part.liked for part in parts], axis=1)
  some = [part.some_users(_PAIRS, seed) for part in parts]
  deviations = [
      _Predicted.of(one, part).deviations(seed) for one, part in zip(fits, some)
  ]
  expected, found = np.concatenate(deviations, axis=1)
  return Table(
      _bins(chance, liked), _spread_bins(expected, found, len(some[0].liked))
  )


def _bins(chance: np.ndarray, liked: np.ndarray) -> list[dict[str, Any]]:
  """Of pairs [U, J] by their chance, the likeliest ones in small bins."""
  edges = np.unique(np.quantile(chance, _EDGES))
  place = np.clip(np.searchsorted(edges, chance, 'right') - 1, 0, None)
  place = np.minimum(place, max(len(edges) - 2, 0))
  found = []
  for number in range(max(len(edges) - 1, 1)):
    inside = place == number
    pairs = int(inside.sum())
    if not pairs:
      continue
    observed = liked[inside].mean()
    # Likes of an item go together: deviations are added up by item.
    by_item = np.sum((liked - observed) * inside, axis=0)
    margin = _NORMAL * np.sqrt(np.sum(by_item**2)) / pairs
    found.append(
        {
            'predicted': float(chance[inside].mean()),
            'observed': float(observed),
            'low': float(max(observed - margin, 0)),
            'high': float(min(observed + margin, 1)),
            'pairs': pairs,
        }
    )
  return found


def _spread_bins(
    expected: np.ndarray, found: np.ndarray, num_users: int
) -> list[dict[str, Any]]:
  """Of items [J] by the deviation that is expected of them."""
  order = np.argsort(expected, kind='stable')
  number = max(min(_SPREAD_BINS, len(order) // _LEAST_ITEMS), 1)
  return [
      {
          'predicted': float(expected[part].mean()),
          'observed': float(found[part].mean()),
          'pairs': len(part) * num_users,
          'items': len(part),
      }
      for part in np.array_split(order, number)
  ]
