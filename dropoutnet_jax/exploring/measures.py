# SPDX-License-Identifier: Apache-2.0
"""What a simulation was worth: clicks, and when good new items were found.

  clicks      expected clicks of a user in her first hundred impressions
  lost        those of the best slates less `clicks`
  early, late  clicks lost to the best slates per hundred impressions, in the
              first and in the last tenth of the rounds (regret per round)
  found       impressions of all items, in thousands, until a good new item had
              its n-th click; all impressions where it never had
  unfound     share of the good new items that never had
  listed      the same until the item is in the list of half of the users who
              want it: what is known of it, not what was shown
  unlisted    share that never is
  new         share of the impressions that new items got
  gini        of the impressions of all items

Good are the quarter of the new items that most users want (`World.good`).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from dropoutnet_jax.evaluation import bootstrap
from dropoutnet_jax.evaluation import lists
from dropoutnet_jax.exploring import simulator

NAMES = (
    'clicks',
    'lost',
    'early',
    'late',
    'found',
    'unfound',
    'listed',
    'unlisted',
    'new',
    'gini',
)
FIRST = 100  # impressions of a user
_HALF = 0.5  # of those who want an item


def measure(
    world: simulator.World,
    course: simulator.Course,
    places: int,
    num_clicks: int,
) -> dict[str, float]:
  """All of NAMES of one simulation.

  Args:
    world: the truth.
    course: what happened.
    places: of a slate; a hundred are a whole number of slates.
    num_clicks: by which an item is found.
  """
  good = world.good()
  visits = slice(0, FIRST // places)
  clicks = np.nansum(course.user_value[:, visits], axis=1).mean()
  best = np.nansum(course.user_best[:, visits], axis=1).mean()
  tenth = max(len(course.value) // 10, 1)
  filled = np.diff(course.impressions, prepend=0)
  regret = lambda part: float(
      100 * np.sum((course.best - course.value)[part]) / filled[part].sum()
  )
  total = int(course.impressions[-1])
  at = course.clicked_at[good, num_clicks - 1]
  found = np.where(at < 0, total, at)
  is_listed = course.listed[:, good] >= _HALF
  first = course.looks[is_listed.argmax(axis=0)]
  ever = is_listed.any(axis=0)
  return {
      'clicks': float(clicks),
      'lost': float(best - clicks),
      'early': regret(slice(0, tenth)),
      'late': regret(slice(-tenth, None)),
      'found': float(found.mean()) / 1000,
      'unfound': float(np.mean(at < 0)),
      'listed': float(np.where(ever, first, total).mean()) / 1000,
      'unlisted': float(np.mean(~ever)),
      'new': float(course.new_places.sum()) / total,
      'gini': lists.gini(course.shown),
  }


def summarize(
    found: Sequence[Mapping[str, float]], num_draws: int = 2000
) -> dict[str, tuple[float, float, float]]:
  """Mean over worlds and its 95 % bootstrap interval: (value, low, high)."""
  values = {name: np.array([one[name] for one in found]) for name in found[0]}
  bounds = bootstrap.intervals(values, num_draws)
  return {
      name: (float(value.mean()), bounds[name][0], bounds[name][1])
      for name, value in values.items()
  }


def sooner(
    curve: Sequence[Sequence[Mapping[str, float]]],
    other: Sequence[Mapping[str, float]],
    name: str,
    num_draws: int = 2000,
) -> tuple[float, float, float]:
  """How much less time a policy takes than a family of others of equal clicks.

  The family's time is read off its curve of time against clicks, at the clicks
  of the policy, between neighbours on a straight line. Beyond the ends of the
  curve it is that of the end: who has more clicks than all of the family is
  compared with the member of most.

  Args:
    curve: of each member of the family, what was measured in each world.
    other: of the policy, in the same worlds.
    name: of the time.
    num_draws: of worlds, with replacement.

  Returns:
    1 - time / time of the family at equal clicks, with a 95 % interval.
  """
  clicks = np.array([[w['clicks'] for w in member] for member in curve])
  times = np.array([[w[name] for w in member] for member in curve])
  own_clicks = np.array([w['clicks'] for w in other])
  own_time = np.array([w[name] for w in other])
  count = len(other)

  def value(worlds: np.ndarray) -> float:
    x, y = clicks[:, worlds].mean(axis=1), times[:, worlds].mean(axis=1)
    order = np.argsort(x)
    matched = np.interp(own_clicks[worlds].mean(), x[order], y[order])
    return float(1 - own_time[worlds].mean() / matched)

  rng = np.random.default_rng([0, count])
  drawn = [value(rng.integers(count, size=count)) for _ in range(num_draws)]
  low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
  return value(np.arange(count)), low, high
