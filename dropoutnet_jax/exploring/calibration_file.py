# SPDX-License-Identifier: Apache-2.0
"""The calibration of a run: made when first asked for, kept in its folder.

`exploring.json` holds the scale of the spread, the map from scores to chances
and the tables of `calibration`, of one checkpoint; of another it is made anew.
"""

import dataclasses
import json
import os
import time
from typing import Any

import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.exploring import belief_file
from dropoutnet_jax.exploring import calibration
from dropoutnet_jax.exploring import held_out
from dropoutnet_jax.exploring import keeping
from dropoutnet_jax.exploring import uncertainty

FILE = 'exploring.json'
PASSES = 16
_USERS, _ITEMS = 1000, 1000  # drawn, at most


@dataclasses.dataclass(frozen=True)
class Calibration:
  """What `exploring.json` holds.

  Attributes:
    step: of the checkpoint.
    scale: of the deviations of passes; 1 where it could not be fitted.
    slope: log-odds of a like for a score that is higher by 1.
    map: 'score' and 'chance', the corners of the monotone map.
    bins: see `calibration.Table`.
    spread_bins: likewise.
    users: who were asked.
    items: new ones that they were asked about.
    passes: T.
    seconds: that it took.
    note: why it could not be fitted, or ''.
  """

  step: int
  scale: float = 1.0
  slope: float = 0.0
  map: dict[str, list[float]] = dataclasses.field(default_factory=dict)
  bins: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  spread_bins: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  users: int = 0
  items: int = 0
  passes: int = 0
  seconds: float = 0.0
  note: str = ''


def make(
    cfg: config.Config,
    problem: problem_lib.Problem,
    scorer: model_scores.Scorer,
    step: int,
) -> Calibration:
  """Fits on the new items of the validation split; nothing is written.

  Raises:
    UserError: if the run was trained without input dropout.
  """
  begin = time.perf_counter()
  spread = uncertainty.Uncertainty(cfg, scorer)
  new = held_out.new_items(problem)
  if new is None:
    note = f'{held_out.NONE}: the spread of its scores is as is.'
    return Calibration(step, note=note)
  pairs = _pairs(problem, scorer, spread, new, cfg.train.seed)
  users, items = pairs.liked.shape
  if not pairs.can_be_fitted:
    note = (
        f'{items} new items of the validation split are too few to tell how '
        'sure scores are: the spread is as is.'
    )
    return Calibration(step, users=users, items=items, note=note)
  fitted = calibration.fit(pairs, cfg.train.seed)
  table = calibration.table(pairs, cfg.train.seed)
  note = ''
  if not fitted.scale:
    note = (
        'Held-out new items are liked no more differently than their scores '
        'and chance say: the spread is 0, and thompson and ucb are greedy.'
    )
  return Calibration(
      step,
      fitted.scale,
      fitted.slope,
      {'score': fitted.score.tolist(), 'chance': fitted.chance.tolist()},
      table.bins,
      table.spread_bins,
      users,
      items,
      PASSES,
      round(time.perf_counter() - begin, 3),
      note,
  )


def _pairs(
    problem: problem_lib.Problem,
    scorer: model_scores.Scorer,
    spread: uncertainty.Uncertainty,
    new: schema.EvaluationSet,
    seed: int,
) -> calibration.Pairs:
  """Users of a set with its new items, some of them where there are many."""
  rng = np.random.default_rng(seed)
  asked = held_out.ask(scorer, new, _USERS, _ITEMS, rng)
  users, items = asked.users, asked.items
  counts = problem.like_counts()
  sparse = None if scorer.sparse is None else scorer.sparse.select(users)
  passes = spread.passes(
      uncertainty.Users(
          scorer.tables.user.select(users), counts[0][users], sparse
      ),
      uncertainty.Items(
          scorer.tables.item.select(items),
          counts[1][items],
          items,
          problem.item.sparse[items],
      ),
      np.broadcast_to(np.arange(len(items)), asked.mean.shape),
      PASSES,
      seed,
  )
  return calibration.Pairs(asked.mean, passes, asked.liked)


def keep(
    workdir: str,
    cfg: config.Config,
    problem: problem_lib.Problem,
    scorer: model_scores.Scorer,
    step: int,
) -> list[str]:
  """Makes it anew, and what is believed of new items; what is to be said."""
  found = make(cfg, problem, scorer, step)
  write(workdir, found)
  fitted = belief_file.make(problem, scorer, step)
  belief_file.write(workdir, fitted)
  return [note for note in (found.note, fitted.note) if note]


def write(workdir: str, found: Calibration) -> None:
  """Keeps it in the run folder; raises UserError where that can't be."""
  keeping.write(workdir, FILE, found)


def read(workdir: str, step: int) -> Calibration | None:
  """What the folder has of this checkpoint; None without, or if damaged."""
  try:
    with open(os.path.join(workdir, FILE), encoding='utf-8') as file:
      found = Calibration(**json.load(file))
    scale = float(found.scale)
  except (OSError, ValueError, TypeError):
    return None
  return found if found.step == step and 0 <= scale < np.inf else None


def obtain(
    workdir: str | None,
    cfg: config.Config,
    problem: problem_lib.Problem,
    scorer: model_scores.Scorer,
    step: int,
) -> Calibration:
  """That of the folder, or a new one, which is kept where it can be.

  Args:
    workdir: the run folder; None where there is none.
    cfg: of the run.
    problem: likewise.
    scorer: likewise.
    step: of the checkpoint.

  Raises:
    UserError: if the run was trained without input dropout.
  """
  return keeping.obtain(
      workdir,
      FILE,
      None if workdir is None else read(workdir, step),
      lambda: make(cfg, problem, scorer, step),
  )
