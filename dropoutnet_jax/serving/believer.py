# SPDX-License-Identifier: Apache-2.0
"""What a trained run believes of new items, as policies look at it.

Draws cost little more than plain lists: nothing is embedded but the users.
"""

from collections.abc import Iterable
import functools

import numpy as np

from dropoutnet_jax.exploring import belief as belief_lib
from dropoutnet_jax.exploring import belief_file
from dropoutnet_jax.exploring import observed as observed_lib
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import rows as rows_lib


class Believer:
  """Draws scores of new items; those of known ones are as they are."""

  def __init__(self, ranker: recommender_lib.Ranker, workdir: str | None):
    """Reads nothing yet.

    Args:
      ranker: the run.
      workdir: its folder, which has or gets the prior; None for none.
    """
    self._ranker, self._workdir = ranker, workdir

  @functools.cached_property
  def fitted(self) -> belief_file.Fitted:
    """Of the folder, made if it is not there: in seconds.

    Raises:
      UserError: if scores are not finite.
    """
    ranker = self._ranker
    return belief_file.obtain(
        self._workdir,
        ranker.problem,
        ranker.scorer,
        ranker.step,
        ranker.cfg.model.rank,
    )

  @functools.cached_property
  def prior(self) -> belief_lib.Prior:
    """What is believed of an item that nobody was shown."""
    return self.fitted.prior()

  def is_fitted(self) -> bool:
    """Whether the prior is there without being made."""
    if 'fitted' in self.__dict__:
      return True
    step, rank = self._ranker.step, self._ranker.cfg.model.rank
    return belief_file.read(self._workdir, step, rank) is not None

  def inputs(self, users: rows_lib.Rows) -> np.ndarray:
    """What beliefs see of users [C]: float64 [C, q]."""
    scorer = self._ranker.scorer
    known = self._ranker.row_tables.read('user', users)
    tower = self._ranker.embed_table('user', known.table)
    weight = 1.0 if scorer.sparse is None else scorer.tower_weight
    return self.prior.inputs(weight * tower)

  def prepare(self, user_counts: Iterable[int]) -> None:
    """Fits, and compiles for so many users."""
    users = self._ranker.users()
    for count in sorted({rows_lib.padded_size(n) for n in user_counts}):
      self.inputs(users.select(np.zeros(count, int)))

  def passes(
      self,
      users: rows_lib.Rows,
      items: rows_lib.Rows,
      is_new: np.ndarray,
      place: np.ndarray,
      mean: np.ndarray,
      number: int,
      rng: np.random.Generator,
      observed: observed_lib.Observed | None = None,
  ) -> np.ndarray:
    """Scores as they may be.

    Args:
      users: C.
      items: J.
      is_new: bool [J].
      place: int [C, P], which of the items a score is of.
      mean: float32 [C, P], the scores.
      number: of draws, T.
      rng: draws.
      observed: impressions of items by their ids; None for none.

    Returns:
      float32 [T, C, P].
    """
    own, used = np.full(len(items), -1), np.unique(place)
    new = used[is_new[used]]
    own[new] = np.arange(len(new))
    if observed is None:
      belief = self.prior.start(len(new))
    else:
      belief = observed.of(items.ids[new].tolist())
    return belief_lib.passes(
        self.prior, belief, self.inputs(users), own[place], mean, number, rng
    )
