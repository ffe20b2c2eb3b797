# SPDX-License-Identifier: Apache-2.0
"""How sure a mean over users is, and a difference of two.

Users are drawn again with replacement (Efron, 1979): the same draws for every
method and metric of a set, so that differences are paired. What varies is the
sample of users; the seed of the training and the split do not. Where what is
compared was done to items, as in the warm-up curve of new ones, all users see
the same few, and these are drawn again as well.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

_LEVEL = 0.95
_BLOCK = 2**22  # counts held at once


def intervals(
    values: Mapping[str, np.ndarray], num_draws: int, seed: int = 0
) -> dict[str, list[float]]:
  """Bounds between which 95 % of the bootstrap means lie.

  All values are looked at under the same draws of users, which cost most.

  Args:
    values: float64 [U] by name, U at least 1.
    num_draws: samples of the users.
    seed: of the draws.

  Returns:
    [low, high] by name.
  """
  if not values:
    return {}
  columns = np.stack(list(values.values()), axis=1)
  num_users = len(columns)
  means = [
      count @ columns / num_users for count in draws(num_users, num_draws, seed)
  ]
  return _by_name(values, np.concatenate(means))


def _by_name(names: Iterable[str], means: np.ndarray) -> dict[str, list[float]]:
  """[low, high] of the columns of means [D, names]."""
  return dict(zip(names, bounds(means).T.tolist(), strict=True))


def draws(
    num_users: int, num_draws: int, seed: int = 0
) -> Iterator[np.ndarray]:
  """How often each user is in each sample: int64 [D, U], some after others."""
  rng = np.random.default_rng([seed, num_users])
  share = np.full(num_users, 1 / num_users)
  size = max(1, _BLOCK // num_users)
  for begin in range(0, num_draws, size):
    yield rng.multinomial(num_users, share, min(size, num_draws - begin))


def bounds(drawn: np.ndarray) -> np.ndarray:
  """Between which 95 % of the values [D, ...] lie: float64 [2, ...]."""
  return np.quantile(drawn, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], axis=0)


def differences(
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]],
    num_draws: int,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
  """One value less another, user by user.

  Args:
    pairs: by name two float64 [U], of the same users in the same order.
    num_draws: samples of the users.
    seed: of the draws.

  Returns:
    By name the 'difference' of the means, its interval ('low', 'high'), and the
    shares of users with whom the first is 'better' and 'worse'.
  """
  gap = {name: one - other for name, (one, other) in pairs.items()}
  found = intervals(gap, num_draws, seed)
  return {name: describe(value, found[name]) for name, value in gap.items()}


def describe(gap: np.ndarray, interval: list[float]) -> dict[str, float]:
  """One of `differences`, of users float64 [U]."""
  return {
      'difference': float(gap.mean()),
      'low': interval[0],
      'high': interval[1],
      'better': float(np.mean(gap > 0)),
      'worse': float(np.mean(gap < 0)),
  }


def two_way(
    values: Mapping[str, np.ndarray],
    user: np.ndarray,
    item: np.ndarray,
    num_draws: int,
    seed: int = 0,
) -> dict[str, list[float]]:
  """As `intervals`, where users and items are both a sample.

  Each are drawn again by themselves, and a pair counts as often as its user
  times its item (the pigeonhole bootstrap; Owen, Annals of Applied Statistics
  2007). It is a little wide: what varies from pair to pair counts twice.

  Args:
    values: float64 [N] by name, what each pair adds to the mean over users,
      times their number: the mean is the sum over U.
    user: int [N], numbers below U, each of which occurs.
    item: int [N], numbers below I, each of which occurs.
    num_draws: samples of both.
    seed: of the draws.

  Returns:
    [low, high] by name.
  """
  if not values:
    return {}
  columns = np.stack(list(values.values()), axis=1)
  num_users, num_items = int(user.max()) + 1, int(item.max()) + 1
  rng = np.random.default_rng([seed, num_users, num_items])
  shares = [np.full(n, 1 / n) for n in (num_users, num_items)]
  size = max(1, _BLOCK // len(user))
  sums = []
  for begin in range(0, num_draws, size):
    number = min(size, num_draws - begin)
    users, items = (rng.multinomial(len(p), p, number) for p in shares)
    sums.append((users[:, user] * items[:, item]) @ columns)
  return _by_name(values, np.concatenate(sums) / num_users)


def nested(flat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """{'a/b': value} as {'a': {'b': value}}: by method and metric."""
  found: dict[str, dict[str, Any]] = {}
  for name, value in flat.items():
    method, metric = name.split('/')
    found.setdefault(method, {})[metric] = value
  return found
