# SPDX-License-Identifier: Apache-2.0
"""Which users, which candidates, which masks: the rules of every table.

A method is anything that scores the candidates of an evaluation set for a
chunk of users. Ranks come from counting, never from a sorted list, so ties
count as if they were broken at random and constant scores give chance level.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import metrics
from dropoutnet_jax.evaluation import split_scores

# user rows int32 [C] -> scores float32 [C, I] of the set's candidates, an array
# or `SplitScores`.
ScoreFn = Callable[[np.ndarray], Any]
# (users of a chunk, scores [C, I], allowed [C, I] or None): the chunk may be
# padded.
Watch = Callable[[int, Any, np.ndarray | None], None]
# (quadrant, set) -> the scores of one method on that set.
Method = Callable[[str, schema.EvaluationSet], ScoreFn]

RULES = {
    'candidates': 'all candidates of the split, none sampled',
    'users': 'those with a relevant candidate; others are counted apart',
    'mask': "warm: a user's training items leave her candidates",
    'warm_up': (
        'of each cold row up to half of its held-out pairs are shown and leave '
        'the candidates; the others are to be found at every point'
    ),
    'ties': 'expected value over a random order of tied items',
    'recall': (
        'hits / number of relevant candidates, as in the code of DropoutNet, '
        'of Heater and of ColdRec'
    ),
    'ndcg': 'ideal DCG cut at K, as in the code of Heater and of ColdRec',
    'recall_min': 'hits / min(K, number of relevant candidates)',
    'pooled_recall': (
        'hits / relevant candidates over all users together: the hit ratio of '
        'ColdRec'
    ),
    'precision': 'hits / K',
}


def quadrant_of(name: str) -> str:
  """The quadrant of a split name: 'cold_item_validation' -> 'cold_item'."""
  return name.removesuffix('_validation')


@dataclasses.dataclass(frozen=True)
class Ranks:
  """Where one method ranks the held-out pairs of one set.

  Attributes:
    users: int32 [U], rows of the users with a relevant candidate, ascending.
    group: int64 [N], which of these users each pair is of, ascending.
    item: int32 [N], row of its item.
    greater: int32 [N], candidates above it.
    tied: int32 [N], candidates level with it, itself included.
    num_allowed: int64 [U], candidates that are ranked for each user.
  """

  users: np.ndarray
  group: np.ndarray
  item: np.ndarray
  greater: np.ndarray
  tied: np.ndarray
  num_allowed: np.ndarray

  def select(self, pairs: np.ndarray) -> 'Ranks':
    """The ranks of some pairs, bool [N], and of the users who have some."""
    kept, group = np.unique(self.group[pairs], return_inverse=True)
    return Ranks(
        self.users[kept],
        group,
        self.item[pairs],
        self.greater[pairs],
        self.tied[pairs],
        self.num_allowed[kept],
    )

  def pair_metrics(
      self, settings: config.EvaluationConfig
  ) -> dict[str, np.ndarray]:
    """What each pair adds to 'recall@20' and 'ndcg@20': float64 [N] each."""
    return metrics.pair_metrics(
        self.group, self.greater, self.tied, tuple(settings.cutoffs)
    )

  def user_metrics(
      self, settings: config.EvaluationConfig
  ) -> dict[str, np.ndarray]:
    """'recall@20', 'ndcg@20', 'hit@20', 'mrr' and so on: float64 [U] each."""
    return metrics.user_metrics(
        self.group,
        self.greater,
        self.tied,
        self.num_allowed,
        tuple(settings.cutoffs),
        tuple(settings.more_metrics),
    )


def evaluate(
    score: ScoreFn,
    held_out: schema.EvaluationSet,
    likes: scipy.sparse.csr_array,
    settings: config.EvaluationConfig,
    what: str,
) -> dict[str, float]:
  """Mean metrics of one method over the users of one set; see `rank`.

  Returns:
    'recall@20', 'ndcg@20', 'hit@20', 'mrr' and so on.
  """
  ranks = rank(score, held_out, likes, settings, what)
  return metrics.summary(ranks.user_metrics(settings))


def rank(
    score: ScoreFn,
    held_out: schema.EvaluationSet,
    likes: scipy.sparse.csr_array,
    settings: config.EvaluationConfig,
    what: str,
    watch: Watch | None = None,
) -> Ranks:
  """Ranks the held-out pairs of one set by one method.

  Args:
    score: scores of the candidates for a chunk of users.
    held_out: relevant pairs and candidates.
    likes: [U, I] training pairs, for the mask.
    settings: chunk size.
    what: method and set, for the error message.
    watch: sees the scores of each chunk of users, for whoever wants more of
      them than ranks.

  Raises:
    UserError: if a score is not finite.
  """
  user, column = relevant_pairs(held_out)
  users, group = np.unique(user, return_inverse=True)
  order = np.argsort(group, kind='stable')
  group, column = group[order], column[order]
  greater = np.zeros(len(column), np.int32)
  tied = np.zeros(len(column), np.int32)
  num_allowed = np.full(len(users), len(held_out.candidates), np.int64)
  size = min(settings.users_per_chunk, max(len(users), 1))
  starts = np.searchsorted(group, np.arange(0, len(users) + size, size))
  for number, begin in enumerate(range(0, len(users), size)):
    part = slice(starts[number], starts[number + 1])
    rows = users[begin : begin + size]
    padded = padded_users(rows, size)
    scores = score(padded)
    allowed = None
    if held_out.exclude_train:
      allowed = allowed_candidates(likes, padded, held_out.candidates)
      num_allowed[begin : begin + size] = allowed.sum(axis=1)[: len(rows)]
    own = group[part] - begin
    if isinstance(scores, split_scores.SplitScores):
      found = scores.rank_intervals(own, column[part], allowed)
    else:
      found = metrics.rank_intervals(scores, own, column[part], allowed)
    if found.num_not_finite:
      raise errors.UserError(
          f'{found.num_not_finite} scores of {what} are not finite, for users '
          f'among rows {rows[0]} to {rows[-1]}; metrics of such scores mean '
          'nothing.'
      )
    greater[part], tied[part] = found.greater, found.tied
    if watch is not None:
      watch(len(rows), scores, allowed)
  item = held_out.candidates[column]
  return Ranks(users, group, item, greater, tied, num_allowed)


def with_rows(
    likes: scipy.sparse.csr_array,
    rows: np.ndarray,
    shown: scipy.sparse.csr_array,
) -> scipy.sparse.csr_array:
  """Likes [U, I] with those [C, I] of some users [C] on top."""
  place = scipy.sparse.csr_array(
      (np.ones(len(rows), np.float32), (rows, np.arange(len(rows)))),
      shape=(likes.shape[0], len(rows)),
  )
  return scipy.sparse.csr_array(likes + place @ shown)


def padded_users(rows: np.ndarray, size: int) -> np.ndarray:
  """Users [C], the first one repeated up to `size`: chunks of one shape."""
  return np.concatenate([rows, np.repeat(rows[:1], size - len(rows))])


def relevant_pairs(
    held_out: schema.EvaluationSet,
) -> tuple[np.ndarray, np.ndarray]:
  """User row and candidate column of the held-out pairs on candidates."""
  column = np.searchsorted(held_out.candidates, held_out.item)
  column = np.minimum(column, len(held_out.candidates) - 1)
  known = held_out.candidates[column] == held_out.item
  return held_out.user[known], column[known]


def allowed_candidates(
    likes: scipy.sparse.csr_array, rows: np.ndarray, candidates: np.ndarray
) -> np.ndarray:
  """bool [C, I]: False at a user's training items."""
  part = likes[rows]
  mask = np.ones((len(rows), likes.shape[1]), bool)
  mask[np.repeat(np.arange(len(rows)), np.diff(part.indptr)), part.indices] = 0
  return mask[:, candidates]


def describe_set(held_out: schema.EvaluationSet) -> dict[str, int]:
  """Counts of a set for results.json."""
  user, _ = relevant_pairs(held_out)
  users = len(np.unique(user))
  return {
      'users': users,
      'users_without_relevant': len(np.unique(held_out.user)) - users,
      'candidates': len(held_out.candidates),
      'pairs': len(user),
  }
