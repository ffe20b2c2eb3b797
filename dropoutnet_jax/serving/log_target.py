# SPDX-License-Identifier: Apache-2.0
"""A policy as what a log is judged for: `evaluate --logged --policy`.

It chooses as it does for `recommend`: from the same pools, by draws of its own,
of beliefs or of masks, once for a slate. The chance of an item under these is
an unbiased estimate of its chance under all, and so is a weight with it.
"""

import numpy as np

from dropoutnet_jax.exploring import columns
from dropoutnet_jax.exploring import log_value
from dropoutnet_jax.exploring import policies
from dropoutnet_jax.serving import explorer as explorer_lib
from dropoutnet_jax.serving import plans

_DRAWS = 16  # of each place, of which the reward model says the worth


class PolicyTarget:
  """A `log_value.Target`; impressions are not counted, all items are fresh."""

  def __init__(self, explorer: explorer_lib.Explorer, plan: plans.Plan):
    """Calibrates if the policy needs it.

    Args:
      explorer: of the run.
      plan: the policy.

    Raises:
      UserError: if the run has nothing that the plan needs.
    """
    self.note = explorer.check(plan)
    plan = plan.with_seed()
    self.name = (
        f'what policy {plan} would show by the scores of this run, '
        f'drawn with --seed={plan.seed}'
    )
    self._explorer, self._plan = explorer, plan
    self._users, self._items = explorer.ranker.users(), explorer.ranker.items()
    self._is_new = ~explorer.ranker.is_trained(self._items)
    self._rng = np.random.default_rng(plan.seed)
    self.slates = explorer.users_at_a_time(
        plan, len(self._items), explorer_lib.POOL
    )

  def choose(
      self, users: np.ndarray, score: np.ndarray, shown: np.ndarray
  ) -> log_value.Choice:
    """As `log_value.Target`."""
    pool = self._pool(score, shown.shape[1])
    passes = self._explorer.passes(
        self._users.select(users),
        self._items,
        self._is_new,
        pool,
        self._plan,
        self._rng,
    )
    found = policies.judge(
        self._plan.policy,
        passes,
        _columns(pool, shown),
        _DRAWS,
        self._rng,
        is_new=self._is_new[pool.place],
        allowed=pool.allowed,
    )
    row = np.arange(len(users))[:, None, None]
    drawn = pool.mean[row, np.maximum(found.drawn, 0)]
    return log_value.Choice(
        found.propensity.astype(np.float64),
        np.where(found.drawn >= 0, drawn, np.nan),
    )

  def _pool(self, score: np.ndarray, k: int) -> explorer_lib.Pool:
    """As `Explorer.slates` makes them, from scores of all items."""
    size, new = max(explorer_lib.POOL, k), np.flatnonzero(self._is_new)
    whole = size + explorer_lib.NEW
    parts = [(np.arange(score.shape[1]), whole)]
    if score.shape[1] > whole:
      parts = [(parts[0][0], size)]
      if len(new):
        parts.append((new, explorer_lib.NEW))
    found = []
    for items, count in parts:
      place = items[columns.first(score[:, items], min(count, len(items)))]
      own = np.take_along_axis(score, place, axis=1)
      found.append((np.where(np.isfinite(own), place, -1), own))
    return explorer_lib.join_pool(found)


def _columns(pool: explorer_lib.Pool, shown: np.ndarray) -> np.ndarray:
  """Where items [C, k] are in the pools: int [C, k], -1 for what is not."""
  found = np.full(shown.shape, -1)
  for place, item in enumerate(shown.T):
    match = pool.allowed & (pool.place == item[:, None])
    found[:, place] = np.where(match.any(axis=1), match.argmax(axis=1), -1)
  return found
