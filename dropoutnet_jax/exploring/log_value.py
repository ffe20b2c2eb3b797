# SPDX-License-Identifier: Apache-2.0
"""What a run's lists would be worth, from a log of what was shown.

The target is greedy: at each place the item with the highest score among those
that the user is not known to have met in training and that are not yet in the
slate, with chance 1.
"""

from typing import Any

import numpy as np

from dropoutnet_jax import errors
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.exploring import logged
from dropoutnet_jax.exploring import off_policy
from dropoutnet_jax.exploring import reward_model

FILE = 'off_policy.json'


def read(
    problem: problem_lib.Problem, path: str, clip: float | None = None
) -> logged.Rows:
  """The log, checked before a model is loaded.

  Raises:
    UserError: for whatever is wrong with it, or if clip is not above 0.
  """
  if clip is not None and not (np.isfinite(clip) and clip > 0):
    raise errors.UserError(
        f'--clip={clip:g}: the largest weight must be a number above 0.'
    )
  rows = logged.read(path, problem.user.ids, problem.item.ids)
  if not np.any((rows.user >= 0) & (rows.item >= 0)):
    raise errors.UserError(
        f'{path}: no row has both a user and an item that the run knows. Name '
        'a log of what this run, or one of the same data, has shown.'
    )
  return rows


def evaluate(
    problem: problem_lib.Problem,
    scorer: model_scores.Scorer,
    rows: logged.Rows,
    path: str,
    clip: float | None = None,
    num_draws: int = 1000,
) -> dict[str, Any]:
  """The content of off_policy.json.

  Args:
    problem: the data of the run.
    scorer: its model.
    rows: the log; see `read`.
    path: where it is.
    clip: the largest weight; None for none.
    num_draws: of the bootstrap over users.

  Returns:
    'log', 'target', 'clip', 'notes', 'warnings', counts, and of each view of
    `off_policy` what its `estimate` returns.

  Raises:
    UserError: if scores are not finite.
  """
  notes = list(rows.notes)
  log, num_met = _make_log(problem, scorer, rows)
  if num_met:
    notes.append(
        f'{num_met:,} place(s) show what the user has met in training, which '
        'this run would not show.'
    )
  broken = len(np.unique(log.slate)) - len(np.unique(log.whole_slates().slate))
  if broken:
    notes.append(
        f'{broken:,} slate(s) lack a rank between others and count place by '
        'place alone.'
    )
  found: dict[str, Any] = {
      'log': path,
      'target': 'the best item that is left at each place, by this run',
      'clip': clip,
      'places': len(log),
      'slates': len(np.unique(log.slate)),
      'users': len(np.unique(log.user)),
      'same': float(np.mean(log.target)),
      'notes': notes,
      'warnings': [],
  }
  for view in off_policy.VIEWS:
    if view == 'slate' and not len(log.whole_slates()):
      continue
    found[view] = off_policy.estimate(log, view, num_draws, clip or 0.0)
    found['warnings'] += off_policy.warnings(found[view], view)
  return found


def _make_log(
    problem: problem_lib.Problem,
    scorer: model_scores.Scorer,
    rows: logged.Rows,
) -> tuple[off_policy.Log, int]:
  """The places of known users and items, and how many show what was met."""
  is_known = (rows.user >= 0) & (rows.item >= 0)
  user, slate = rows.user[is_known], rows.slate[is_known]
  item, rank = rows.item[is_known], rows.rank[is_known]
  slates, first, slate = np.unique(
      slate, return_index=True, return_inverse=True
  )
  # Ranks may be far apart; what counts is the order of the places.
  order = np.lexsort((rank, slate))
  place = np.empty(len(order), np.int64)
  begin = np.searchsorted(slate[order], slate[order])
  place[order] = np.arange(len(order)) - begin
  shown = np.full((len(slates), int(place.max(initial=-1)) + 1), -1)
  shown[slate, place] = item
  users = user[first]
  everything = np.arange(len(problem.item.ids), dtype=np.int32)
  asked = np.unique(users).astype(np.int32)
  held_out = schema.EvaluationSet(
      asked, np.zeros(len(asked), np.int32), everything
  )
  score_rows = scorer.methods()['model']('warm', held_out)
  likes = problem.likes()

  def score(chosen: np.ndarray) -> np.ndarray:
    values = np.array(score_rows(users[chosen].astype(np.int32)))
    if not np.isfinite(values).all():
      raise errors.UserError(
          'Some scores of this run are not finite, so that it has no lists. '
          'Train again with a lower config.train.learning_rate.'
      )
    own[chosen] = np.take_along_axis(
        values, np.maximum(shown[chosen], 0), axis=1
    )
    met = likes[users[chosen]].tocoo()
    values[met.coords] = -np.inf
    return values

  own = np.zeros(shown.shape)
  best, value = off_policy.best_left(score, shown)
  target = (best[slate, place] == item).astype(np.float64)
  score_of_best = value[slate, place]
  # A user who has met everything would get nothing.
  is_left = np.isfinite(score_of_best)
  reward = rows.reward[is_known]
  predicted, expected = reward_model.cross_fit(
      user,
      own[slate, place],
      reward,
      np.where(is_left, score_of_best, 0.0),
  )
  num_met = int(np.sum(likes[user, item] > 0))
  log = off_policy.Log(
      user=user,
      slate=slate,
      rank=rank,
      propensity=rows.propensity[is_known],
      reward=reward,
      target=target,
      predicted=predicted,
      expected=np.where(is_left, expected, 0.0),
  )
  return log, num_met
