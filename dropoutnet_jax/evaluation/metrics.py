# SPDX-License-Identifier: Apache-2.0
"""Ranking metrics, with ties counted as if broken at random.

A held-out pair is known by its interval of ranks: how many candidates score
more, and how many share its score. Every metric is the exact expectation over
all orders of the tied candidates, so the order of rows in a file never
matters and constant scores get chance level. This module sees scores and
counts; which users and candidates are ranked is decided by its caller.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from dropoutnet_jax.evaluation import rank_counts

_count = jax.jit(rank_counts.count)


# Other fractions of hits [U], by the number of relevant candidates [U] and K.
# The mean over users of the pooled one is hits / relevant over all users.
MORE: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    'recall_min': lambda hits, relevant, k: hits / np.minimum(relevant, k),
    'precision': lambda hits, relevant, k: hits / k,
    'pooled_recall': lambda hits, relevant, k: hits / np.mean(relevant),
}


class RankIntervals(NamedTuple):
  """Where held-out pairs rank among the candidates of their user.

  Attributes:
    greater: int32 [N], candidates that score more than the pair's.
    tied: int32 [N], candidates of the same score, itself included; 0 for a
      pair whose own candidate is not allowed.
    num_not_finite: allowed scores of the chunk that are NaN or infinite. The
      intervals mean nothing unless this is 0.
  """

  greater: np.ndarray
  tied: np.ndarray
  num_not_finite: int


def rank_intervals(
    scores: jax.Array | np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    allowed: jax.Array | np.ndarray | None = None,
    tolerance: float = 1e-6,
) -> RankIntervals:
  """Counts the candidates above and level with each held-out pair.

  Two scores are tied if the highest score within reach above them, where
  reach is `tolerance` times the largest magnitude of the row, is the same one.
  So candidates whose scores differ only by rounding are tied (unless another
  score lies about one reach above them), scores further apart than the reach
  never are, and being tied is transitive, which comparing each two scores with
  a tolerance would not be.

  The number of pairs is padded inside, so that chunks of one shape [C, I]
  share one compiled program whatever the number of their pairs.

  Args:
    scores: [C, I], users of a chunk by candidates; compared as float32.
    row: int [N], the chunk's row of each pair.
    column: int [N], the candidate of each pair.
    allowed: bool [C, I], False where a candidate is not ranked for a user;
      None allows all.
    tolerance: relative to the largest magnitude among a user's allowed scores.

  Returns:
    The intervals, on the host.

  Raises:
    ValueError: if shapes do not fit or a pair lies outside of the scores.
  """
  row, column = np.asarray(row), np.asarray(column)
  check_pairs(scores.shape, row, column, allowed)
  pairs = np.zeros((2, rank_counts.padded_size(len(row))), np.int32)
  pairs[:, : len(row)] = row, column
  counts, num_not_finite = _count(scores, pairs, len(row), allowed, tolerance)
  greater, tied = np.asarray(counts)[:, : len(row)]
  return RankIntervals(greater, tied, int(num_not_finite))


def check_pairs(
    shape: tuple[int, ...],
    row: np.ndarray,
    column: np.ndarray,
    allowed: jax.Array | np.ndarray | None,
) -> None:
  """Raises ValueError as `rank_intervals`, of scores of this shape."""
  if len(shape) != 2 or (allowed is not None and allowed.shape != shape):
    found = None if allowed is None else allowed.shape
    raise ValueError(f'scores {shape} and allowed {found} must both be [C, I].')
  if row.ndim != 1 or row.shape != column.shape:
    raise ValueError(
        f'row {row.shape} and column {column.shape} must both be [N].'
    )
  for name, index, size in (
      ('row', row, shape[0]),
      ('column', column, shape[1]),
  ):
    if len(index) and not 0 <= index.min() <= index.max() < size:
      # JAX would clamp or wrap the index and count for another pair.
      raise ValueError(
          f'{name} spans {index.min()} to {index.max()}; scores {shape} allow '
          f'0 to {size - 1}.'
      )


def user_metrics(
    user_of_pair: np.ndarray,
    greater: np.ndarray,
    tied: np.ndarray,
    num_candidates: np.ndarray,
    cutoffs: Sequence[int],
    more: Sequence[str] = (),
) -> dict[str, np.ndarray]:
  """Expected recall, NDCG, hit rate and reciprocal rank of each user.

  Recall divides by the number of the user's pairs, NDCG by the DCG of the
  ideal ranking cut at K; the gain of a pair is 1, its discount
  1 / log2(rank + 1) with ranks from 1 (Jarvelin & Kekalainen, TOIS 2002).

  Args:
    user_of_pair: int [N], numbers below U; each user has a pair, in any order,
      and no pair occurs twice.
    greater: int [N], from `rank_intervals`.
    tied: int [N], from `rank_intervals`.
    num_candidates: int [U], candidates that are ranked for each user.
    cutoffs: the K.
    more: names of MORE.

  Returns:
    float64 [U] by name: 'recall@K', 'ndcg@K' and 'hit@K' for each K, 'mrr', the
    reciprocal rank of the first of the user's pairs, and for each K what `more`
    names.

  Raises:
    ValueError: if a user has no pair or intervals contradict each other.
  """
  user = np.asarray(user_of_pair)
  greater = np.asarray(greater, np.int64)
  tied = np.asarray(tied, np.int64)
  num_users = len(num_candidates)
  relevant = np.bincount(user, minlength=num_users)
  _check_users(user, greater, tied, relevant, np.asarray(num_candidates))

  metrics: dict[str, np.ndarray] = {}
  variants: dict[str, np.ndarray] = {}
  for cutoff in cutoffs:
    hits = np.bincount(user, _hits(greater, tied, cutoff), num_users)
    metrics[f'recall@{cutoff}'] = hits / relevant
    variants |= {
        f'{name}@{cutoff}': MORE[name](hits, relevant, cutoff) for name in more
    }
  for cutoff in cutoffs:
    gain = np.bincount(user, _gains(greater, tied, cutoff), num_users)
    metrics[f'ndcg@{cutoff}'] = gain / _ideal(relevant, cutoff)
  first = _first_pair_metrics(user, greater, tied, num_users, cutoffs)
  return metrics | first | variants


def pair_metrics(
    user_of_pair: np.ndarray,
    greater: np.ndarray,
    tied: np.ndarray,
    cutoffs: Sequence[int],
) -> dict[str, np.ndarray]:
  """What each pair adds to its user's recall and NDCG.

  Args:
    user_of_pair: as for `user_metrics`, as the others.
    greater: int [N].
    tied: int [N].
    cutoffs: the K.

  Returns:
    float64 [N] by name, 'recall@K' and 'ndcg@K' for each K, which sum to the
    `user_metrics` of those names.
  """
  user = np.asarray(user_of_pair)
  relevant = np.bincount(user)[user]
  found = {}
  for cutoff in cutoffs:
    found[f'recall@{cutoff}'] = _hits(greater, tied, cutoff) / relevant
    gain = _gains(greater, tied, cutoff)
    found[f'ndcg@{cutoff}'] = gain / _ideal(relevant, cutoff)
  return found


def _hits(greater: np.ndarray, tied: np.ndarray, cutoff: int) -> np.ndarray:
  """How probably each pair is among the first K: float64 [N]."""
  return np.clip(cutoff - greater, 0, tied) / tied  # ranks of the interval


def _gains(greater: np.ndarray, tied: np.ndarray, cutoff: int) -> np.ndarray:
  """Expected discount of each pair, 0 beyond K: float64 [N]."""
  first, last = (np.minimum(x, cutoff) for x in (greater, greater + tied))
  dcg = _dcg(cutoff)
  return (dcg[last] - dcg[first]) / tied


def _ideal(relevant: np.ndarray, cutoff: int) -> np.ndarray:
  """The DCG of so many pairs at the top of a list that ends at K."""
  return _dcg(cutoff)[np.minimum(relevant, cutoff)]


def _dcg(most: int) -> np.ndarray:
  """Sums of the first 0, 1, ..., `most` discounts."""
  discount = 1.0 / np.log2(np.arange(most) + 2.0)
  return np.concatenate([[0.0], np.cumsum(discount)])


def _check_users(
    user: np.ndarray,
    greater: np.ndarray,
    tied: np.ndarray,
    relevant: np.ndarray,
    num_candidates: np.ndarray,
) -> None:
  """Raises ValueError if no ranking could have these intervals."""
  if not user.shape == greater.shape == tied.shape:
    shapes = f'{user.shape}, {greater.shape} and {tied.shape}'
    raise ValueError(f'user, greater and tied must all be [N], not {shapes}.')
  if len(relevant) > len(num_candidates):
    raise ValueError(
        f'user_of_pair goes up to {len(relevant) - 1}, but num_candidates has '
        f'{len(num_candidates)} users.'
    )
  if not relevant.all():
    raise ValueError(
        f'User {np.flatnonzero(relevant == 0)[0]} has no held-out pair; leave '
        'such users out and count them apart.'
    )
  wrong = (tied < 1) | (greater < 0) | (greater + tied > num_candidates[user])
  order = np.lexsort((greater, user))
  before, after = order[:-1], order[1:]
  same_user = user[before] == user[after]
  same_group = same_user & (greater[before] == greater[after])
  overlap = greater[before] + tied[before] > greater[after]
  wrong[after] |= same_user & ~same_group & overlap
  wrong[after] |= same_group & (tied[before] != tied[after])
  starts_group = np.ones(len(order), bool)
  starts_group[1:] = ~same_group
  group = np.cumsum(starts_group)
  wrong[order] |= np.bincount(group)[group] > tied[order]
  if wrong.any():
    pair = int(np.flatnonzero(wrong)[0])
    raise ValueError(
        f'Pair {pair} of user {user[pair]} has {greater[pair]} candidates '
        f'above and {tied[pair]} tied of {num_candidates[user[pair]]}: it is '
        'not allowed, occurs twice or contradicts another pair.'
    )


def _first_pair_metrics(
    user: np.ndarray,
    greater: np.ndarray,
    tied: np.ndarray,
    num_users: int,
    cutoffs: Sequence[int],
) -> dict[str, np.ndarray]:
  """Hit rate and reciprocal rank: both ask for the first pair alone.

  It lies in the user's best tie group, whatever follows that group. The m
  pairs among its t candidates sit at random places (without replacement), so
  the first place has a negative hypergeometric law.
  """
  best = np.full(num_users, np.iinfo(np.int64).max)
  np.minimum.at(best, user, greater)
  in_best = greater == best[user]
  size = np.zeros(num_users, np.int64)
  size[user[in_best]] = tied[in_best]
  pairs = np.bincount(user[in_best], minlength=num_users)

  metrics = {f'hit@{k}': (best < k).astype(np.float64) for k in cutoffs}
  metrics['mrr'] = 1.0 / (best + 1.0)
  # Where all of the group are the user's, the first place is certain.
  unsure = np.flatnonzero(size > pairs)
  groups = np.stack([best, size, pairs])[:, unsure]
  kinds, kind_of_user = np.unique(groups, axis=1, return_inverse=True)
  values = {name: np.zeros(kinds.shape[1]) for name in metrics}
  for kind, (start, ties, among) in enumerate(kinds.T):
    law = _first_place(int(ties), int(among))
    ranks = start + 1.0 + np.arange(len(law))
    values['mrr'][kind] = np.sum(law / ranks)
    for k in cutoffs:
      values[f'hit@{k}'][kind] = np.sum(law[: max(k - start, 0)])
  for name, value in values.items():
    metrics[name][unsure] = value[kind_of_user]
  return metrics


def _first_place(ties: int, among: int) -> np.ndarray:
  """Law of the first of `among` random places out of `ties`, from place 0.

  Returns:
    float64 [ties - among + 1], probabilities that sum to 1.
  """
  left = ties - np.arange(ties - among + 1.0)  # places not yet passed
  missed = np.cumprod(1.0 - among / left[:-1])
  return np.concatenate([[1.0], missed]) * (among / left)


def summary(metrics: dict[str, np.ndarray]) -> dict[str, float]:
  """Means over users of what `user_metrics` returns.

  Raises:
    ValueError: if there are no users.
  """
  for name, values in metrics.items():
    if not len(values):
      raise ValueError(f'{name} has no users to average over.')
  return {name: float(np.mean(values)) for name, values in metrics.items()}
