# SPDX-License-Identifier: Apache-2.0
"""The prior of a run's beliefs: fitted when first asked for, and kept.

`belief.json` of its folder holds it, of one checkpoint; of another it is made
anew. It needs neither masks nor towers that they fit into, so that exports have
one as well. Impressions are made of the new items of the validation split:
every pair of a user with one of them is one, with a click where she likes it.
"""

import dataclasses
import json
import os
import time

import numpy as np

from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.exploring import belief as belief_lib
from dropoutnet_jax.exploring import belief_fit
from dropoutnet_jax.exploring import held_out
from dropoutnet_jax.exploring import keeping
from dropoutnet_jax.exploring import reward_model
from dropoutnet_jax.model import embeddings

FILE = 'belief.json'
_ASKED = 1000  # users and items that the link is fitted on, at most
_SEEN = 300  # of both, whose pairs are impressions
_LEAST = 10  # new items of a fit


@dataclasses.dataclass(frozen=True)
class Fitted:
  """What `belief.json` holds; see `belief.Prior`.

  Attributes:
    step: of the checkpoint.
    slope: log-odds of a like for a score that is higher by 1; 0 where scores
      say nothing, and then nothing is believed beside them.
    offset: log-odds of a like at score 0.
    share: of the variance along the directions.
    level: variance of the level.
    directions: R lists of q numbers.
    users: whose likes it is fitted on.
    items: which of them.
    seconds: that it took.
    note: what is to be said of it, or ''.
  """

  step: int
  slope: float
  offset: float
  share: float
  level: float
  directions: list[list[float]]
  users: int = 0
  items: int = 0
  seconds: float = 0.0
  note: str = ''

  def prior(self) -> belief_lib.Prior:
    """What is believed before the first impression.

    Raises:
      ValueError: if the numbers are none.
    """
    link = reward_model.RewardModel(self.slope, self.offset, True)
    directions = np.array(self.directions, np.float64)
    numbers = np.array([self.slope, self.share, self.level, self.offset])
    is_fine = np.isfinite(numbers).all() and np.isfinite(directions).all()
    if directions.ndim != 2 or not is_fine or numbers[:3].min() < 0:
      raise ValueError('These are no numbers of a prior.')
    return belief_lib.Prior(directions, self.share, self.level, link)


def make(
    problem: problem_lib.Problem, scorer: model_scores.Scorer, step: int
) -> Fitted:
  """Fits on the new items of the validation split; nothing is written.

  Where there are none, the meaning of scores is that of known items as if they
  were new, and all is believed to be unknown that their preference changes.

  Raises:
    UserError: if scores are not finite.
  """
  begin, rng = time.perf_counter(), np.random.default_rng(step)
  new, note = held_out.new_items(problem), ''
  if new is not None and len(new.candidates) >= _LEAST:
    asked = held_out.ask(scorer, new, _ASKED, _ASKED, rng)
  else:
    note = (
        f'{held_out.NONE}, or too few: what is not known of a new item is '
        'taken from what training changed in known ones, as a guess.'
    )
    asked = _as_if_new(problem, scorer, rng)
    held_out.check_finite(asked.mean)
  known = problem.split.train_rows()[1]
  directions = belief_fit.directions(scorer, known, belief_lib.DIRECTIONS)
  link = reward_model.fit(
      asked.mean.ravel(), asked.liked.ravel().astype(np.float64), True
  )
  prior = belief_lib.Prior(directions, 1.0, 1.0, link)
  if not (link.is_logistic and link.slope > 0):
    which = 'new items' if not note else 'known items, as if they were new,'
    note = (
        f'Scores of {which} say nothing of who likes them: nothing is believed '
        'beside them, and with spread belief thompson and ucb are greedy.'
    )
    offset = float(np.clip(link.offset, 1e-6, 1 - 1e-6))
    if not link.is_logistic:  # a share of likes
      offset = float(np.log(offset / (1 - offset)))
    link = reward_model.RewardModel(0.0, offset, True)
    prior = belief_lib.Prior(directions, 0.0, 0.0, link)
  elif not note:
    some = asked.some(_SEEN, _SEEN, rng)
    prior = belief_fit.fit(directions, link, _impressions(scorer, some, rng))
  return Fitted(
      step,
      link.slope,
      link.offset,
      prior.share,
      prior.level,
      directions.tolist(),
      len(asked.users),
      len(asked.items),
      round(time.perf_counter() - begin, 3),
      note,
  )


def _impressions(
    scorer: model_scores.Scorer, asked: held_out.Asked, rng: np.random.Generator
) -> belief_fit.Pairs:
  """Every pair is one, in an order that is drawn."""
  order = rng.permutation(asked.liked.size)
  user, item = np.divmod(order, len(asked.items))
  return belief_fit.Pairs(
      item,
      user_towers(scorer, asked.users)[user],
      asked.mean[user, item].astype(np.float64),
      asked.liked[user, item].astype(np.float64),
  )


def user_towers(scorer: model_scores.Scorer, rows: np.ndarray) -> np.ndarray:
  """What scores have of the towers of users, with its weight: [U, R]."""
  found = scorer.embedder('user', scorer.variables, scorer.tables.user, rows)
  return found * (1.0 if scorer.sparse is None else scorer.tower_weight)


def _as_if_new(
    problem: problem_lib.Problem,
    scorer: model_scores.Scorer,
    rng: np.random.Generator,
) -> held_out.Asked:
  """Known users and items, of which content alone is known."""
  rows = problem.split.train_rows()
  users, items = (held_out.draw(rng, own, _ASKED) for own in rows)
  bare = belief_fit.embed_bare(scorer, scorer.tables.item.select(items))
  if scorer.sparse is None or scorer.content is None:
    mean = user_towers(scorer, users) @ bare.T
  else:
    tower = scorer.embedder('user', scorer.variables, scorer.tables.user, users)
    user = scorer.sparse.embed_users(
        users, tower, scorer.content, scorer.tower_weight
    )
    item = scorer.sparse.embed_items(
        np.full(len(items), -1),
        scorer.content[items],
        bare.astype(np.float32),
    )
    mean = np.asarray(embeddings.score(user, item))
  liked = problem.likes()[users][:, items].toarray() > 0
  return held_out.Asked(users, items, mean.astype(np.float32), liked)


def write(workdir: str, found: Fitted) -> None:
  """Keeps it in the run folder; raises UserError where that can't be."""
  keeping.write(workdir, FILE, found)


def read(
    workdir: str | None, step: int, rank: int | None = None
) -> Fitted | None:
  """What the folder has of this checkpoint; None without, or if damaged.

  Args:
    workdir: the folder; None where there is none.
    step: of the checkpoint.
    rank: R of its towers, which directions must have; None for any.
  """
  if workdir is None:
    return None
  try:
    with open(os.path.join(workdir, FILE), encoding='utf-8') as file:
      found = Fitted(**json.load(file))
    found_rank = len(found.prior().directions)
  except (OSError, ValueError, TypeError):
    return None
  is_fine = found.step == step and rank in (None, found_rank)
  return found if is_fine else None


def obtain(
    workdir: str | None,
    problem: problem_lib.Problem,
    scorer: model_scores.Scorer,
    step: int,
    rank: int | None = None,
) -> Fitted:
  """That of the folder, or a new one, which is kept where it can be.

  Args:
    workdir: the folder of a run or an export; None where there is none.
    problem: of the run.
    scorer: likewise.
    step: of the checkpoint.
    rank: as in `read`.

  Raises:
    UserError: if scores are not finite.
  """
  return keeping.obtain(
      workdir,
      FILE,
      read(workdir, step, rank),
      lambda: make(problem, scorer, step),
  )
