# SPDX-License-Identifier: Apache-2.0
"""A trained run that shows items on purpose: slates by a policy.

Passes under masks cost a whole embedding each (draws of beliefs do not), and so
the policy chooses from a pool: the 200 best of each user by the mean (or k, if
that is more), and of the items without training pairs the 500 best of her. What
is not in it is not shown, not by epsilon either; chances are of what is in it,
and exact.
"""

from collections.abc import Iterable, Iterator
import functools
from typing import NamedTuple

import numpy as np
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax.exploring import calibration_file
from dropoutnet_jax.exploring import observed as observed_lib
from dropoutnet_jax.exploring import policies
from dropoutnet_jax.exploring import uncertainty
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.serving import believer as believer_lib
from dropoutnet_jax.serving import plans
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import rows as rows_lib

POOL, NEW = 200, 500
_COMPILED = 8192  # items of a call, at most, that is compiled for ahead
_USERS = 256  # whose passes are made at a time, at most


class Slates(NamedTuple):
  """The slates of some of the users that were asked about.

  Attributes:
    users: which of them, C.
    item: int32 [C, k], places among the candidates in the order in which they
      are shown; -1 fills up where there are fewer.
    score: float32 [C, k], of the model; -inf where it is filled up.
    propensity: float32 [C, k], the chance of the item at its place given those
      before it; 0 where it is filled up.
  """

  users: slice
  item: np.ndarray
  score: np.ndarray
  propensity: np.ndarray


class Pool(NamedTuple):
  """What users may be shown.

  Attributes:
    place: int [C, P], among the items, each once; anything where not allowed.
    mean: float32 [C, P], scores without masks; finite.
    allowed: bool [C, P].
  """

  place: np.ndarray
  mean: np.ndarray
  allowed: np.ndarray


class Explorer:
  """Fills slates with a trained run.

  Attributes:
    ranker: the run.
    believer: what it believes of new items.
  """

  def __init__(
      self, ranker: recommender_lib.Ranker, workdir: str | None = None
  ):
    """Reads and compiles nothing yet.

    Args:
      ranker: the run.
      workdir: its folder, which has or gets the calibration; None for none.
    """
    self.ranker, self._workdir = ranker, workdir
    self.believer = believer_lib.Believer(ranker, workdir)

  @functools.cached_property
  def calibration(self) -> calibration_file.Calibration:
    """Of the run folder, made if it is not there: seconds to a minute.

    Raises:
      UserError: if the run was trained without input dropout.
    """
    model = self.ranker
    return calibration_file.obtain(
        self._workdir, model.cfg, model.problem, model.scorer, model.step
    )

  @functools.cached_property
  def _uncertainty(self) -> uncertainty.Uncertainty:
    return uncertainty.Uncertainty(self.ranker.cfg, self.ranker.scorer)

  def check(self, plan: plans.Plan) -> str:
    """What is to be said of a plan, or ''.

    Raises:
      UserError: if the run has nothing that the plan needs.
    """
    if not plan.policy.needs_passes:
      return ''
    if plan.reads_beliefs:
      return self.believer.fitted.note
    return self.calibration.note

  def prepare(self, user_counts: Iterable[int], spread: str) -> None:
    """Calibrates, and compiles passes, which otherwise the first slates do.

    Args:
      user_counts: of the calls of `fill` that are to come.
      spread: one of `plans.SPREADS`.

    Raises:
      UserError: by masks as `calibration`, and for an export.
    """
    if spread == 'belief':
      self.believer.prepare(user_counts)
    else:
      self._prepare_masks(user_counts)

  def _prepare_masks(self, user_counts: Iterable[int]) -> None:
    spread, model = self._uncertainty, self.ranker
    _ = self.calibration  # which is made when it is first asked for
    users, items = model.users(), model.items()
    for count in sorted({uncertainty.padded_size(n) for n in user_counts}):
      most = min(count * (POOL + NEW), len(items), _COMPILED)
      someone = self._users(users.select(np.zeros(count, int)))
      pool = np.zeros((count, 1), int)
      for size in sorted({uncertainty.padded_size(n + 1) for n in range(most)}):
        some = self._items(items.select(np.zeros(size, int)))
        spread.passes(someone, some, pool, 1, 0)

  def slate_parts(
      self,
      parts: Iterable[tuple[rows_lib.Rows, scipy.sparse.csr_array | None]],
      items: rows_lib.Rows,
      k: int,
      plan: plans.Plan,
      observed: observed_lib.Observed | None = None,
  ) -> Iterator[tuple[rows_lib.Rows, Slates]]:
    """`slates` for users who come in parts, each with what it excludes.

    Yields:
      A part of the users, and the slates of some of them.
    """
    plan, across, first = plan.with_seed(), self.ranker.candidates(items), 0
    for users, exclude in parts:
      for found in self.slates(
          users, items, k, plan, exclude, across, None, observed, first
      ):
        yield users, found
      first += len(users)

  def slates(
      self,
      users: rows_lib.Rows,
      items: rows_lib.Rows,
      k: int,
      plan: plans.Plan,
      exclude: scipy.sparse.csr_array | None = None,
      across: embeddings.Embedding | None = None,
      impressions: np.ndarray | None = None,
      observed: observed_lib.Observed | None = None,
      first: int = 0,
  ) -> Iterator[Slates]:
    """Fills a slate for every user.

    Args:
      users: N, in any order.
      items: J candidates, in any order.
      k: places of each slate.
      plan: how; with a seed the same users and items get the same slates.
      exclude: csr_array [N, J], stored where a user must not get an item.
      across: what `Ranker.candidates` makes of the items, where that is kept.
      impressions: int [J], how often each item was shown; None for never.
      observed: what came of it, for beliefs, by ids of items; None for nothing.
      first: users of the same seed before these, whose draws are others.

    Yields:
      The slates of some users after those of others, in their order.

    Raises:
      UserError: as `Ranker.recommend` and `check`.
    """
    self.check(plan)
    plan, model = plan.with_seed(), self.ranker
    across = model.candidates(items) if across is None else across
    is_new = ~model.is_trained(items)
    size = max(POOL, k)
    parts = [(items, np.arange(len(items)), across, size + NEW)]
    if len(items) > size + NEW:
      parts = [parts[0][:3] + (size,)]
      if is_new.any():
        place = np.flatnonzero(is_new)
        new = items.select(place)
        parts.append((new, place, model.candidates(new), NEW))
    step = self.users_at_a_time(plan, len(items), size)
    for begin in range(0, len(users), step):
      chosen = slice(begin, min(begin + step, len(users)))
      some = users.select(chosen)
      found = []
      for candidates, place, embedded, count in parts:
        banned = None if exclude is None else exclude[chosen][:, place]
        count = min(count, len(candidates))
        lists = model.recommend(some, candidates, count, banned, embedded)
        item, score = _joined(lists)
        found.append((np.where(item >= 0, place[item], -1), score))
      rng = np.random.default_rng([plan.seed or 0, first + begin])
      filled = self.fill(
          some,
          items,
          join_pool(found),
          k,
          plan,
          rng,
          is_new,
          impressions,
          observed,
      )
      yield Slates(chosen, *filled)

  def fill(
      self,
      users: rows_lib.Rows,
      items: rows_lib.Rows,
      pool: Pool,
      k: int,
      plan: plans.Plan,
      rng: np.random.Generator,
      is_new: np.ndarray,
      impressions: np.ndarray | None = None,
      observed: observed_lib.Observed | None = None,
  ) -> policies.Slates:
    """Slates of few users from their pools.

    Args:
      users: C.
      items: J, what the pools are of.
      pool: of each user.
      k: places of each slate.
      plan: how.
      rng: all chance is drawn from it.
      is_new: bool [J].
      impressions: int [J]; None for never.
      observed: as in `slates`.

    Returns:
      Slates, whose items are places among the J.
    """
    passes = self.passes(users, items, is_new, pool, plan, rng, observed)
    shown = policies.choose(
        plan.policy,
        passes,
        k,
        rng,
        is_new=is_new[pool.place],
        impressions=None if impressions is None else impressions[pool.place],
        allowed=pool.allowed,
    )
    item = np.take_along_axis(pool.place, np.maximum(shown.item, 0), axis=1)
    item = np.where(shown.item >= 0, item, -1).astype(np.int32)
    # Means of centred passes have rounding; these are the model's scores.
    score = np.take_along_axis(pool.mean, np.maximum(shown.item, 0), axis=1)
    score = np.where(shown.item >= 0, score, -np.inf).astype(np.float32)
    return policies.Slates(item, score, shown.propensity)

  def users_at_a_time(self, plan: plans.Plan, num_items: int, size: int) -> int:
    """How many users' pools of `size` and the new items' passes fit."""
    if not plan.has_spread or plan.spread == 'belief':
      return _USERS
    most = self._uncertainty.most_items(plan.passes)
    if num_items <= most:
      return _USERS
    return int(np.clip(most // (size + NEW), 1, _USERS))

  def passes(
      self,
      users: rows_lib.Rows,
      items: rows_lib.Rows,
      is_new: np.ndarray,
      pool: Pool,
      plan: plans.Plan,
      rng: np.random.Generator,
      observed: observed_lib.Observed | None = None,
  ) -> np.ndarray:
    """What a policy looks at: float32 [T, C, P], one pass where it needs none.

    Args:
      users: as in `fill`, and so are all others.
      items: J.
      is_new: bool [J].
      pool: of each user.
      plan: how.
      rng: masks and draws come of it.
      observed: as in `slates`.

    Raises:
      UserError: if scores are not finite.
    """
    if not plan.has_spread:
      return pool.mean[None]
    if plan.spread == 'belief':
      passes = self.believer.passes(
          users,
          items,
          is_new,
          pool.place,
          pool.mean,
          plan.passes,
          rng,
          observed,
      )
    else:
      passes = self._masked(users, items, pool, plan, rng)
    if not np.isfinite(passes).all():
      raise errors.UserError(
          f'Some scores by {plan.spread} are not finite, for users from '
          f'{users.ids[0]} on; slates of such scores mean nothing.'
      )
    return passes

  def _masked(
      self,
      users: rows_lib.Rows,
      items: rows_lib.Rows,
      pool: Pool,
      plan: plans.Plan,
      rng: np.random.Generator,
  ) -> np.ndarray:
    """Passes under masks of input dropout."""
    used, place = np.unique(pool.place, return_inverse=True)
    passes = self._uncertainty.passes(
        self._users(users),
        self._items(items.select(used)),
        place.reshape(pool.place.shape),
        plan.passes,
        int(rng.integers(2**31)),
    )
    return uncertainty.centred(pool.mean, passes, self.calibration.scale)

  def _users(self, users: rows_lib.Rows) -> uncertainty.Users:
    known = self.ranker.row_tables.read('user', users)
    part = self.ranker.sparse_of_users(users, known)
    return uncertainty.Users(
        known.table, self._count(0, users, known.more), part
    )

  def _items(self, items: rows_lib.Rows) -> uncertainty.Items:
    known = self.ranker.row_tables.read('item', items)
    count = self._count(1, items, known.more)
    return uncertainty.Items(
        known.table, count, items.preference_row(), known.sparse, known.whole
    )

  def _count(
      self,
      side: int,
      rows: rows_lib.Rows,
      more: scipy.sparse.csr_array | None,
  ) -> np.ndarray:
    """Interactions of training and since: int [N]."""
    row = rows.preference_row()
    trained = np.append(self.ranker.problem.like_counts()[side], 0)
    return trained[row] + (0 if more is None else np.diff(more.indptr))


def _joined(
    lists: Iterator[recommender_lib.Lists],
) -> tuple[np.ndarray, np.ndarray]:
  """Lists of some users after those of others, as one."""
  found = list(lists)
  return (
      np.concatenate([one.item for one in found]),
      np.concatenate([one.score for one in found]),
  )


def join_pool(found: list[tuple[np.ndarray, np.ndarray]]) -> Pool:
  """Joins lists (places [C, P], -1 for none, scores) into pools.

  Each item once, in the order of the candidates, so that of equal scores the
  first one wins.
  """
  place = np.concatenate([place for place, _ in found], axis=1)
  mean = np.concatenate([score for _, score in found], axis=1)
  order = np.argsort(place, axis=1, kind='stable')
  place = np.take_along_axis(place, order, axis=1)
  mean = np.take_along_axis(mean, order, axis=1)
  allowed = place >= 0
  allowed[:, 1:] &= place[:, 1:] != place[:, :-1]
  return Pool(np.maximum(place, 0), np.where(allowed, mean, 0), allowed)
