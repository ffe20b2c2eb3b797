# SPDX-License-Identifier: Apache-2.0
"""What lists of new and known items together look like.

Metrics over new items alone do not say whether anybody gets to see them: beside
known ones a model may hide them all, or push them whatever they are.
"""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import metrics
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.evaluation import split_scores

MOST_USERS = 1000  # scores of all items cost most; so many users tell enough


def mixed_set(
    problem: problem_lib.Problem, held_out: schema.EvaluationSet, seed: int
) -> schema.EvaluationSet:
  """A set of new items with the training items as candidates beside them.

  Args:
    problem: the data of the run.
    held_out: of a quadrant with new items.
    seed: draws up to MOST_USERS of its users.
  """
  users = np.unique(protocol.relevant_pairs(held_out)[0])
  if len(users) > MOST_USERS:
    rng = np.random.default_rng(seed)
    users = rng.choice(users, MOST_USERS, replace=False)
  mine = np.isin(held_out.user, users)
  _, trained = problem.split.train_rows()
  return schema.EvaluationSet(
      held_out.user[mine],
      held_out.item[mine],
      np.union1d(held_out.candidates, trained).astype(np.int32),
      exclude_train=True,
  )


def evaluate(
    score: protocol.ScoreFn,
    held_out: schema.EvaluationSet,
    is_new: np.ndarray,
    likes: scipy.sparse.csr_array,
    settings: config.EvaluationConfig,
    what: str,
) -> dict[str, float | int]:
  """Metrics of one method, and what its lists of the first cut-off hold.

  Args:
    score: scores of the candidates for a chunk of users.
    held_out: relevant pairs and candidates.
    is_new: bool [I], of the candidates.
    likes: [U, I] training pairs, for the mask.
    settings: cut-offs and chunk size.
    what: method and set, for the error message.

  Returns:
    The metrics of the ranking; 'cold_share@K', of new items in the lists,
    'coverage@K', the share of all candidates that some list has, 'gini@K', how
    unequally candidates are shown (0 is equally, 1 is always the same one), and
    'distinct_lists', taken as sets.
  """
  k = min(settings.cutoffs[0], len(held_out.candidates))
  top: list[np.ndarray] = []

  def watch(count: int, scores: Any, allowed: np.ndarray | None) -> None:
    if isinstance(scores, split_scores.SplitScores):
      best = scores.best(allowed, k)
    else:
      best = np.asarray(_best(scores, allowed, k))
    top.append(best[:count])

  ranks = protocol.rank(score, held_out, likes, settings, what, watch)
  found: dict[str, float | int] = dict(
      metrics.summary(ranks.user_metrics(settings))
  )
  lists = np.concatenate(top)
  shown = np.bincount(lists[lists >= 0], minlength=len(is_new))
  sets = np.unique(np.sort(lists, axis=1), axis=0)
  name = settings.cutoffs[0]
  return found | {
      f'cold_share@{name}': float(shown[is_new].sum() / shown.sum()),
      f'coverage@{name}': float(np.mean(shown > 0)),
      f'gini@{name}': gini(shown),
      'distinct_lists': len(sets),
  }


def gini(count: np.ndarray) -> float:
  """Gini coefficient of counts >= 0, not all 0: 0 where all are the same."""
  ordered = np.sort(count).astype(np.float64)
  place = np.arange(1, len(ordered) + 1)
  total = ordered.sum()
  size = len(ordered)
  return float((2 * (place @ ordered) / total - size - 1) / size)


def effective_rank(blocks: Iterable[np.ndarray]) -> float:
  """How many directions embeddings use: 1 if all lie on one line.

  They come as blocks [n, R], one at least. It is the exponential of the entropy
  of the squared singular values, as shares of their sum (Roy & Vetterli, "The
  effective rank", EUSIPCO 2007).
  """
  gram: Any = sum(emb.T.astype(np.float64) @ emb for emb in blocks)
  values = np.maximum(np.linalg.eigvalsh(gram), 0.0)
  total = values.sum()
  if not total:
    return 0.0
  share = values[values > 0] / total
  return float(np.exp(-np.sum(share * np.log(share))))


def _best(scores: Any, allowed: np.ndarray | None, k: int) -> jax.Array:
  """Columns int32 [C, k] of the highest scores [C, I], -1 for none."""
  scores = jnp.asarray(scores)
  if allowed is not None:
    scores = jnp.where(allowed, scores, -jnp.inf)
  value, column = jax.lax.top_k(scores, k)
  return jnp.where(jnp.isfinite(value), column, -1)
