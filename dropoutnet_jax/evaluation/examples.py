# SPDX-License-Identifier: Apache-2.0
"""Users whom a model serves best and worst, with their lists.

A mean says nothing of what a list looks like. For each test set a few users are
shown: what is held out of them, and what the model puts first.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.evaluation import split_scores
from dropoutnet_jax.evaluation import top_k

_USERS = 5  # of either kind
_RELEVANT = 3  # held-out items at least, if there are enough such users
_LISTED = 10  # items of the model's list
_HELD_OUT = 10  # held-out items that are named
_WORDS = 4  # of an item's content

Describe = Callable[[int], str]  # row of an item -> a few words


def main_metric(settings: config.EvaluationConfig) -> str:
  """By which users are told apart: NDCG at 20, or at the first cut-off."""
  cutoffs = settings.cutoffs
  return f'ndcg@{20 if 20 in cutoffs else cutoffs[0]}'


def content_words(side: problem_lib.Side, names: Sequence[str]) -> Describe:
  """Names the largest entries of a row's sparse content, 'genre=drama'.

  Args:
    side: of the rows.
    names: of the columns of its sparse content; others are not named.
  """

  def describe(row: int) -> str:
    part = slice(side.sparse.indptr[row], side.sparse.indptr[row + 1])
    columns, weights = side.sparse.indices[part], side.sparse.data[part]
    order = np.lexsort((columns, -weights))[:_WORDS]
    known = [n for n in columns[order].tolist() if n < len(names)]
    return ', '.join(names[n] for n in known)

  return describe


def choose(value: np.ndarray, relevant: np.ndarray) -> tuple[list[int], ...]:
  """Places of the best and of the worst users.

  Of equal ones those with more held-out items come first.

  Args:
    value: float [U], the higher the better.
    relevant: int [U], held-out items.

  Returns:
    Best users, best first; worst users, worst first; nobody is in both.
  """
  enough = np.flatnonzero(relevant >= _RELEVANT)
  if len(enough) < 2 * _USERS:
    enough = np.arange(len(value))
  order = enough[np.lexsort((enough, -relevant[enough], -value[enough]))]
  num_best = min(_USERS, (len(order) + 1) // 2)
  best = order[:num_best].tolist()
  rest = np.setdiff1d(enough, best)
  worst = rest[np.lexsort((rest, -relevant[rest], value[rest]))]
  return best, worst[:_USERS].tolist()


def collect(
    problem: problem_lib.Problem,
    scorer: model_scores.Scorer,
    settings: config.EvaluationConfig,
    describe: Describe = lambda row: '',
) -> dict[str, Any]:
  """Best and worst users of every test set.

  Args:
    problem: the data of the run.
    scorer: the trained model.
    settings: cut-offs and chunk size.
    describe: a few words on an item.

  Returns:
    {set: {'metric': its name, 'best': users, 'worst': users}}; a user has 'id',
    'value' of the metric, 'train' (number of training items), 'relevant'
    (number of held-out items), 'held_out' and 'listed' (items: 'id', 'words',
    'hit').
  """
  likes, train = problem.likes(), problem.like_counts()[0]
  metric = main_metric(settings)
  found: dict[str, Any] = {}
  for name, held_out in problem.split.evaluation.items():
    if name != protocol.quadrant_of(name) or not len(held_out):
      continue
    score = scorer.methods()['model'](name, held_out)
    ranks = protocol.rank(score, held_out, likes, settings, f'model on {name}')
    value = ranks.user_metrics(settings)[metric]
    kinds = choose(value, np.bincount(ranks.group, minlength=len(value)))
    places = [place for kind in kinds for place in kind]
    listed = _lists(score, ranks.users[places], held_out, likes)
    users = [
        {
            'id': str(problem.user.ids[ranks.users[place]]),
            'value': float(value[place]),
            'train': int(train[ranks.users[place]]),
            **_items(
                ranks.item[ranks.group == place], items, problem, describe
            ),
        }
        for place, items in zip(places, listed, strict=True)
    ]
    num_best = len(kinds[0])
    found[name] = {
        'metric': metric,
        'best': users[:num_best],
        'worst': users[num_best:],
    }
  return found


def _lists(
    score: protocol.ScoreFn,
    users: np.ndarray,
    held_out: schema.EvaluationSet,
    likes: scipy.sparse.csr_array,
) -> list[np.ndarray]:
  """Rows of the items that the model puts first, for each user."""
  banned = allowed = None
  if held_out.exclude_train:
    allowed = protocol.allowed_candidates(likes, users, held_out.candidates)
    row, column = np.nonzero(~allowed)
    banned = top_k.exclusion_lists(row, column, len(users))
  scores = score(users)
  if isinstance(scores, split_scores.SplitScores):
    columns = scores.best(allowed, min(_LISTED, scores.shape[1]))
  else:
    _, columns = top_k.top_scored(
        lambda rows: scores,
        users,
        _LISTED,
        users_per_chunk=len(users),
        exclude=banned,
    )
  return [held_out.candidates[one[one >= 0]] for one in columns]


def _items(
    relevant: np.ndarray,
    listed: np.ndarray,
    problem: problem_lib.Problem,
    describe: Describe,
) -> dict[str, Any]:
  """Held-out items, those in the list first, and the list of one user."""

  def named(row: int, hit: bool) -> dict[str, Any]:
    words = describe(row)
    return {'id': str(problem.item.ids[row]), 'words': words, 'hit': hit}

  is_listed = np.isin(relevant, listed)
  order = np.lexsort((relevant, ~is_listed))[:_HELD_OUT]
  return {
      'relevant': len(relevant),
      'held_out': [named(int(relevant[n]), bool(is_listed[n])) for n in order],
      'listed': [
          named(int(row), bool(hit))
          for row, hit in zip(listed, np.isin(listed, relevant))
      ],
  }
