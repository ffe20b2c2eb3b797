# SPDX-License-Identifier: Apache-2.0
"""What a run's slates would be worth, from a log of what was shown.

The target says what the run would show at each place of the log, given what was
shown before. The greedy one: the item with the highest score among those that
the user is not known to have met in training and that are not yet in the slate,
with chance 1. What the run does not know, it would not show: such places stay
in the log, with weight 0.
"""

from typing import Any, NamedTuple, Protocol

import numpy as np

from dropoutnet_jax import errors
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.exploring import logged
from dropoutnet_jax.exploring import off_policy
from dropoutnet_jax.exploring import reward_model

FILE = 'off_policy.json'
_SLATES = 512  # judged at a time, at most


class Choice(NamedTuple):
  """What a target would do at the places of C slates of length k.

  Attributes:
    chance: float64 [C, k], of what was shown, given the places before it.
    drawn: float64 [C, k, D], scores of what it would show there, as often as
      their chances say; NaN where nothing is left.
  """

  chance: np.ndarray
  drawn: np.ndarray


class Target(Protocol):
  """Whose slates are judged.

  Attributes:
    name: of it, for a sentence that says what is judged.
    note: what is to be said of it, or ''.
    slates: that it judges at a time, at most.
  """

  name: str
  note: str
  slates: int

  def choose(
      self, users: np.ndarray, score: np.ndarray, shown: np.ndarray
  ) -> Choice:
    """What it would do.

    Args:
      users: int [C], rows of the run.
      score: float [C, I], of all items; -inf for what the user has met.
      shown: int [C, k], rows of items; -1 for what the run does not know.
    """


class Greedy:
  """The best item that is left."""

  name = 'the best item that is left at each place, by this run'
  note = ''
  slates = _SLATES

  def choose(
      self, users: np.ndarray, score: np.ndarray, shown: np.ndarray
  ) -> Choice:
    """As `Target`."""
    del users
    best, value = off_policy.best_left(score, shown)
    chance = ((best == shown) & (best >= 0)).astype(np.float64)
    return Choice(chance, value[..., None])


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
    target: Target | None = None,
    num_draws: int = 1000,
) -> dict[str, Any]:
  """The content of off_policy.json.

  Args:
    problem: the data of the run.
    scorer: its model.
    rows: the log; see `read`.
    path: where it is.
    clip: the largest weight; None for none.
    target: whose slates are judged; None for greedy ones.
    num_draws: of the bootstrap over users.

  Returns:
    'log', 'target', 'clip', 'notes', 'warnings', counts, and of each view of
    `off_policy` what its `estimate` returns.

  Raises:
    UserError: if scores are not finite.
  """
  target = target or Greedy()
  notes = [*rows.notes, *filter(None, [target.note])]
  log, num_met = _make_log(problem, scorer, rows, target)
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
      'target': target.name,
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
    target: Target,
) -> tuple[off_policy.Log, int]:
  """The places of known users, and how many show what was met."""
  is_known = rows.user >= 0
  user, slate = rows.user[is_known], rows.slate[is_known]
  item, rank = rows.item[is_known], rows.rank[is_known]
  reward = rows.reward[is_known]
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
  own, chance, drawn = _ask(problem, scorer, target, user[first], shown)
  own, chance, drawn = (x[slate, place] for x in (own, chance, drawn))
  is_left = np.isfinite(drawn)  # one who has met everything gets nothing
  predicted, expected = reward_model.cross_fit(
      user, own, reward, np.where(is_left, drawn, 0.0), item >= 0
  )
  likes = problem.likes()
  num_met = int(np.sum((item >= 0) & (likes[user, np.maximum(item, 0)] > 0)))
  log = off_policy.Log(
      user=user,
      slate=slate,
      rank=rank,
      propensity=rows.propensity[is_known],
      reward=reward,
      target=chance,
      predicted=predicted,
      expected=np.where(is_left, expected, 0.0).mean(axis=-1),
  )
  return log, num_met


def _ask(
    problem: problem_lib.Problem,
    scorer: model_scores.Scorer,
    target: Target,
    users: np.ndarray,
    shown: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Scores of what was shown [S, k], and both arrays of a `Choice`.

  Raises:
    UserError: if scores are not finite.
  """
  asked = np.unique(users).astype(np.int32)
  everything = np.arange(len(problem.item.ids), dtype=np.int32)
  held_out = schema.EvaluationSet(
      asked, np.zeros(len(asked), np.int32), everything
  )
  score_rows = scorer.methods()['model']('warm', held_out)
  likes, found = problem.likes(), []
  size = min(target.slates, _SLATES)
  for begin in range(0, len(users), size):
    chosen, places = users[begin : begin + size], shown[begin : begin + size]
    values = np.array(score_rows(chosen.astype(np.int32)))
    if not np.isfinite(values).all():
      raise errors.UserError(
          'Some scores of this run are not finite, so that it has no lists. '
          'Train again with a lower config.train.learning_rate.'
      )
    own = np.take_along_axis(values, np.maximum(places, 0), axis=1)
    values[likes[chosen].tocoo().coords] = -np.inf
    found.append((own, *target.choose(chosen, values, places)))
  own, chance, drawn = (np.concatenate(parts) for parts in zip(*found))
  return np.where(shown >= 0, own, 0.0), chance, drawn
