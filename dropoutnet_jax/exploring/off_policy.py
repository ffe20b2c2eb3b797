# SPDX-License-Identifier: Apache-2.0
"""What a policy would be worth, from the log of another one.

The log says of each place of a slate what was shown there, with what chance
given the places before it, and what came of it. Three estimates of what the
target policy would have had:

  ips    rewards times weight, target chance / logged chance: unbiased where the
         log could have shown all that the target shows (Horvitz & Thompson,
         JASA 1952);
  snips  the same over the sum of the weights instead of the number of places:
         a little bias, less variance, never outside of the rewards
         (Swaminathan & Joachims, NeurIPS 2015);
  dr     a reward model's value of what the target shows, and the weighted
         errors that the model made on what the log shows: unbiased if either
         weights or model are right (Dudik, Langford & Li, ICML 2011).

Two views. 'place': the mean reward of a place, where the places before it are
those of the log; its weight is one ratio. 'slate': the reward of a whole slate
of the target; weights are products over the places so far (Precup, Sutton &
Singh, ICML 2000; for dr Jiang & Li, ICML 2016), and soon few of them count.

Knows arrays alone: no file, model or policy.
"""

import dataclasses
from typing import Any

import numpy as np

from dropoutnet_jax.evaluation import bootstrap

NAMES = ('ips', 'snips', 'dr')
VIEWS = ('place', 'slate')
SMALL = 100.0  # effective places below which an interval is not to be trusted


@dataclasses.dataclass(frozen=True, eq=False)
class Log:
  """N places that were filled by one policy and are judged for another.

  Attributes:
    user: int [N], numbers of users, from 0; bootstrap draws them.
    slate: int [N], numbers of slates, from 0, each of one user.
    rank: int [N], from 1; each once in a slate.
    propensity: float64 [N] in (0, 1], of the policy that filled the place.
    reward: float64 [N].
    target: float64 [N] in [0, 1], chance of the same item under the target,
      given the same places before.
    predicted: float64 [N], reward of the item by a model that was not fitted on
      this user.
    expected: float64 [N], mean of such rewards over what the target would show
      at this place.
  """

  user: np.ndarray
  slate: np.ndarray
  rank: np.ndarray
  propensity: np.ndarray
  reward: np.ndarray
  target: np.ndarray
  predicted: np.ndarray
  expected: np.ndarray

  def __len__(self) -> int:
    return len(self.user)

  def select(self, rows: np.ndarray) -> 'Log':
    """Some places: bool or int [C]."""
    fields = (field.name for field in dataclasses.fields(self))
    return Log(*(getattr(self, name)[rows] for name in fields))

  def whole_slates(self) -> 'Log':
    """Slates that have all ranks from 1 to their last one, in their order."""
    order = np.lexsort((self.rank, self.slate))
    slate, rank = self.slate[order], self.rank[order]
    place = np.arange(len(slate)) - np.searchsorted(slate, slate) + 1
    is_broken = np.zeros(int(slate.max(initial=-1)) + 1, bool)
    is_broken[slate[rank != place]] = True
    return self.select(order[~is_broken[slate]])


@dataclasses.dataclass(frozen=True, eq=False)
class _Sums:
  """Sums over the places of each user, in one part or one for each rank.

  Attributes:
    weighted: float64 [U, G], weight times reward.
    weight: float64 [U, G].
    robust: float64 [U, G], the terms of dr.
    reward: float64 [U, G].
    count: float64 [U], places or slates that the view divides by.
    whole: float64 [U, G], what weights are expected to sum up to.
  """

  weighted: np.ndarray
  weight: np.ndarray
  robust: np.ndarray
  reward: np.ndarray
  count: np.ndarray
  whole: np.ndarray


def estimate(
    log: Log, view: str, num_draws: int, clip: float = 0.0, seed: int = 0
) -> dict[str, Any]:
  """Estimates of one view, with 95 % intervals by draws of users.

  Args:
    log: at least one place.
    view: one of VIEWS.
    num_draws: of the bootstrap (Efron, 1979), at least 1.
    clip: the largest weight; 0 for none. Lower ones trade variance for bias.
    seed: of the draws.

  Returns:
    'logged' and one entry for each of NAMES: 'value', 'low', 'high'; of the
    latter also 'gain', 'gain_low' and 'gain_high' over what was logged, under
    the same draws. 'places', 'slates' and 'users' that count; 'effective', the
    number of places of equal weight that would say as much (Kish, 1965; of a
    slate those of its worst rank); 'mean_weight' with 'low' and 'high', which
    is 1 where the log could have shown all that the target shows and nothing
    is clipped; 'clipped', the share of places whose weight was cut.

  Raises:
    ValueError: for another view or no place.
  """
  if view not in VIEWS:
    raise ValueError(f'{view!r} is no view; there are {VIEWS}.')
  if view == 'slate':
    log = log.whole_slates()
  if not len(log):
    raise ValueError('There is no place to estimate from.')
  before, weight = _weights(log, view)
  clipped = weight > clip if clip else np.zeros(len(log), bool)
  if clip:
    before, weight = np.minimum(before, clip), np.minimum(weight, clip)
  part = log.rank - 1 if view == 'slate' else np.zeros(len(log), np.int64)
  sums = _sum(log, part, before, weight)
  point = _values(sums, np.ones((1, len(sums.count))))
  drawn = _draw(sums, num_draws, seed)
  found: dict[str, Any] = {}
  for name in ('logged', *NAMES):
    found[name] = _described(point[name], drawn[name])
    if name != 'logged':
      gain = _described(
          point[name] - point['logged'], drawn[name] - drawn['logged']
      )
      keys = {'value': 'gain', 'low': 'gain_low', 'high': 'gain_high'}
      found[name] |= {keys[key]: value for key, value in gain.items()}
  return found | {
      'places': len(log),
      'slates': len(np.unique(log.slate)),
      'users': len(sums.count),
      'effective': _effective(part, weight),
      'mean_weight': _described(point['mean_weight'], drawn['mean_weight']),
      'clipped': float(clipped.mean()),
  }


def warnings(found: dict[str, Any], view: str) -> list[str]:
  """What is not to be trusted of an `estimate`, one sentence each."""
  told, mean = [], found['mean_weight']
  if found['effective'] < SMALL:
    told.append(
        f'{view}: the effective sample is {found["effective"]:.1f} of '
        f'{found["places"]:,} places: what this run would show was hardly ever '
        'shown, and neither values nor intervals are to be trusted. Log more, '
        'or explore more while logging.'
    )
  if found['clipped'] or mean['low'] <= 1 <= mean['high']:
    return told
  between = (
      f'{view}: the mean weight is {mean["value"]:.3f} (95 % between '
      f'{mean["low"]:.3f} and {mean["high"]:.3f}) and should be 1: '
  )
  if mean['value'] > 1:
    told.append(
        f'{between}the propensities of the log are not those of its items, or '
        'it lacks places. ips and dr are biased then.'
    )
  else:
    # What has a small chance comes rarely and then weighs much: an interval
    # of a log without it knows nothing of it.
    told.append(
        f'{between}some of what is judged was never shown, since the log could '
        'not show it (one whose policy has an epsilon can) or only with small '
        'chances; or its propensities are not those of its items. ips and dr '
        'lack that part.'
    )
  return told


def _weights(log: Log, view: str) -> tuple[np.ndarray, np.ndarray]:
  """Weights [N] of the places before and of these and those before.

  Of the view 'slate' the log is whole and in the order of the slates.
  """
  ratio = log.target / log.propensity
  if view == 'place':
    return np.ones(len(log)), ratio
  weight = ratio.copy()
  for rank in range(2, int(log.rank.max()) + 1):
    at = np.flatnonzero(log.rank == rank)
    weight[at] *= weight[at - 1]
  before = np.where(log.rank > 1, np.roll(weight, 1), 1.0)
  return before, weight


def _sum(
    log: Log, part: np.ndarray, before: np.ndarray, weight: np.ndarray
) -> _Sums:
  users, user = np.unique(log.user, return_inverse=True)
  shape = len(users), int(part.max()) + 1
  cell = user * shape[1] + part

  def total(values: np.ndarray) -> np.ndarray:
    flat = np.bincount(cell, values, minlength=shape[0] * shape[1])
    return flat.reshape(shape)

  if shape[1] == 1:
    count = np.bincount(user).astype(np.float64)
  else:
    first = log.rank == 1
    count = np.bincount(user[first], minlength=shape[0]).astype(np.float64)
  robust = before * log.expected + weight * (log.reward - log.predicted)
  return _Sums(
      weighted=total(weight * log.reward),
      weight=total(weight),
      robust=total(robust),
      reward=total(log.reward),
      count=count,
      whole=total(np.ones(len(log))),
  )


def _values(sums: _Sums, times: np.ndarray) -> dict[str, np.ndarray]:
  """Each estimate [D] where users count so many times, [D, U].

  A part without weight adds nothing to snips.
  """
  count = times @ sums.count
  weight, weighted = times @ sums.weight, times @ sums.weighted
  whole = times @ sums.whole
  # Slates are of different lengths: a rank is divided by those that have it,
  # and counts as often as there are such slates.
  share = whole / count[:, None]
  known = np.where(weight > 0, weight, 1.0)
  snips = np.where(weight > 0, weighted / known, 0.0)
  return {
      'logged': np.sum(times @ sums.reward, axis=1) / count,
      'ips': np.sum(weighted, axis=1) / count,
      'snips': np.sum(share * snips, axis=1),
      'dr': np.sum(times @ sums.robust, axis=1) / count,
      'mean_weight': weight.sum(axis=1) / whole.sum(axis=1),
  }


def _draw(sums: _Sums, num_draws: int, seed: int) -> dict[str, np.ndarray]:
  """The same [D] under draws of users with replacement."""
  parts = [
      _values(sums, times)
      for times in bootstrap.draws(len(sums.count), num_draws, seed)
  ]
  return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _described(point: np.ndarray, drawn: np.ndarray) -> dict[str, float]:
  low, high = bootstrap.bounds(drawn).tolist()
  return {'value': float(point[0]), 'low': low, 'high': high}


def _effective(part: np.ndarray, weight: np.ndarray) -> float:
  """(sum of weights)^2 / sum of squares, of the worst part."""
  total, square = np.bincount(part, weight), np.bincount(part, weight**2)
  known = np.where(square > 0, square, 1.0)
  return float(np.min(np.where(square > 0, total**2 / known, 0.0)))


def best_left(
    score: np.ndarray, slates: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """What a greedy list has at each place, given the places before in the log.

  Args:
    score: float [S, J], -inf for what is no candidate.
    slates: int [S, k], columns that were shown; -1 where none was, or one that
      is no candidate.

  Returns:
    The best column that is left, int [S, k], -1 where there is none; and its
    score, float64 [S, k], NaN where there is none.
  """
  item = np.full(slates.shape, -1)
  value = np.full(slates.shape, np.nan)
  left, rows = np.array(score, np.float64), np.arange(len(slates))
  for place, shown in enumerate(slates.T):
    best = left.argmax(axis=1)
    known = np.isfinite(left[rows, best])
    item[known, place] = best[known]
    value[known, place] = left[rows, best][known]
    left[rows[shown >= 0], shown[shown >= 0]] = -np.inf
  return item, value
