# SPDX-License-Identifier: Apache-2.0
"""What a run's slates would be worth, from a log of what was shown.

The target says what the run would show at each place of the log, given what was
shown before. The greedy one: the item with the highest score among those that
the user is not known to have met in training and that are not yet in the slate,
with chance 1. What the run does not know, it would not show: such places stay
in the log, with weight 0.
"""

from collections.abc import Iterator
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
_SCORES = 1 << 25  # of slates times items at a time: 256 MB, in float64
_PLACES = 1 << 18  # of slates times the places of the longest, at a time


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
  slate = np.unique(slate, return_inverse=True)[1]
  # Ranks may be far apart; what counts is the order of the places.
  order = np.lexsort((rank, slate))
  place = np.empty(len(order), np.int64)
  begin = np.searchsorted(slate[order], slate[order])
  place[order] = np.arange(len(order)) - begin
  own, chance, drawn = _ask(problem, scorer, target, user, slate, place, item)
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
    user: np.ndarray,
    slate: np.ndarray,
    place: np.ndarray,
    item: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Scores of what was shown [N], and both arrays of a `Choice` for it.

  Raises:
    UserError: if scores are not finite.
  """
  asked = np.unique(user).astype(np.int32)
  everything = np.arange(len(problem.item.ids), dtype=np.int32)
  held_out = schema.EvaluationSet(
      asked, np.zeros(len(asked), np.int32), everything
  )
  score_rows = scorer.methods()['model']('warm', held_out)
  likes = problem.likes()
  own, order, found = np.zeros(len(item)), [], []
  most = min(target.slates, max(_SCORES // len(everything), 1))
  for rows in _chunks(slate, most):
    slates, row = np.unique(slate[rows], return_inverse=True)
    chosen = np.empty(len(slates), np.int32)
    chosen[row] = user[rows]
    shown = np.full((len(slates), int(place[rows].max()) + 1), -1)
    shown[row, place[rows]] = item[rows]
    values = np.array(score_rows(chosen))
    if not np.isfinite(values).all():
      raise errors.UserError(
          'Some scores of this run are not finite, so that it has no lists. '
          'Train again with a lower config.train.learning_rate.'
      )
    own[rows] = values[row, np.maximum(item[rows], 0)]
    values[likes[chosen].tocoo().coords] = -np.inf
    choice = target.choose(chosen, values, shown)
    order.append(rows)
    found.append([x[row, place[rows]] for x in choice])
  # From the order of the chunks to that of the log.
  back = np.argsort(np.concatenate(order))
  chance, drawn = (np.concatenate(parts)[back] for parts in zip(*found))
  return np.where(item >= 0, own, 0.0), chance, drawn


def _chunks(slate: np.ndarray, most: int) -> Iterator[np.ndarray]:
  """Places int [C] of whole slates of about the same length.

  Args:
    slate: int [N], from 0.
    most: slates at a time; fewer of long ones.
  """
  length = np.bincount(slate)
  by_length = np.argsort(length, kind='stable')
  rank = np.empty(len(length), np.int64)
  rank[by_length] = np.arange(len(length))
  order = np.argsort(rank[slate], kind='stable')
  ends = np.concatenate([[0], np.cumsum(length[by_length])])
  begin = 0
  while begin < len(length):
    end = begin + 1
    while end < min(begin + most, len(length)):
      if (end + 1 - begin) * length[by_length[end]] > _PLACES:
        break
      end += 1
    yield order[ends[begin] : ends[end]]
    begin = end
