# SPDX-License-Identifier: Apache-2.0
"""Metrics against all orders of tied candidates, closed forms and laws."""

import fractions
import itertools
import math

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.evaluation import metrics


def one_order(order, relevant, cutoffs):
  """Metrics of one strict ranking, a list of candidates, best first."""
  ranks = [n for n, item in enumerate(order, start=1) if item in relevant]
  values = {'mrr': 1 / ranks[0]}
  for k in cutoffs:
    dcg = sum(1 / math.log2(rank + 1) for rank in ranks if rank <= k)
    ideal = [
        1 / math.log2(n + 1) for n in range(1, len(relevant) + 1) if n <= k
    ]
    values[f'recall@{k}'] = sum(rank <= k for rank in ranks) / len(relevant)
    values[f'ndcg@{k}'] = dcg / sum(ideal)
    values[f'hit@{k}'] = float(any(rank <= k for rank in ranks))
  return values


def all_orders(groups):
  """Every strict ranking that breaks the ties of groups, best group first."""
  shuffled = [list(itertools.permutations(group)) for group in groups]
  for parts in itertools.product(*shuffled):
    yield list(itertools.chain(*parts))


def mean_over_orders(groups, relevant, cutoffs):
  rows = [one_order(o, relevant, cutoffs) for o in all_orders(groups)]
  return {k: math.fsum(row[k] for row in rows) / len(rows) for k in rows[0]}


def weak_orders(num_items):
  """Items 0, 1, ... cut into consecutive groups in every way."""
  for ends in itertools.product((False, True), repeat=num_items - 1):
    groups = [[0]]
    for item, is_new in enumerate(ends, start=1):
      groups = (
          groups + [[item]] if is_new else [*groups[:-1], groups[-1] + [item]]
      )
    yield groups


def intervals_of(groups, items):
  """Greater and tied of items, by counting."""
  found = []
  for item in items:
    place = next(n for n, group in enumerate(groups) if item in group)
    found.append((sum(map(len, groups[:place])), len(groups[place])))
  return found


def measure(scores, row, column, cutoffs, allowed=None):
  """rank_intervals, then user_metrics, every row being a user."""
  scores = np.asarray(scores, np.float32)
  found = metrics.rank_intervals(scores, row, column, allowed)
  assert found.num_not_finite == 0
  num_candidates = np.full(len(scores), scores.shape[1])
  if allowed is not None:
    num_candidates = allowed.sum(axis=1)
  return metrics.user_metrics(
      row, found.greater, found.tied, num_candidates, cutoffs
  )


def test_expectation_over_every_weak_order_and_relevant_set():
  """16 weak orders of five candidates times 31 sets of relevant ones."""
  cutoffs = (1, 2, 3, 5, 9)
  user, greater, tied, expected = [], [], [], []
  for groups in weak_orders(5):
    for size in range(1, 6):
      for relevant in itertools.combinations(range(5), size):
        for above, level in intervals_of(groups, relevant):
          user.append(len(expected))
          greater.append(above)
          tied.append(level)
        expected.append(mean_over_orders(groups, relevant, cutoffs))
  assert len(expected) == 16 * 31
  found = metrics.user_metrics(
      np.array(user), greater, tied, np.full(len(expected), 5), cutoffs
  )
  assert set(found) == set(expected[0])
  for name, values in found.items():
    assert values.dtype == np.float64
    truth = [row[name] for row in expected]
    np.testing.assert_allclose(values, truth, rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize('seed', (0, 1, 2))
@pytest.mark.parametrize(
    'num_users, num_items, share', ((1, 1, 1.0), (7, 30, 0.2), (40, 101, 0.03))
)
def test_distinct_scores_match_sorted_lists(num_users, num_items, share, seed):
  rng = np.random.default_rng(seed)
  order = rng.permuted(np.tile(np.arange(num_items), (num_users, 1)), axis=1)
  relevant = rng.random(order.shape) < share
  relevant[np.arange(num_users), rng.integers(0, num_items, num_users)] = True
  row, column = np.nonzero(relevant)
  shuffle = rng.permutation(len(row))  # pairs come in any order
  # A candidate's score falls with its place in the order.
  scores = -np.argsort(order, axis=1) * 0.25 - 3.0
  found = measure(scores, row[shuffle], column[shuffle], (1, 5, 20, 200))
  for user in range(num_users):
    truth = one_order(
        order[user].tolist(),
        set(np.flatnonzero(relevant[user])),
        (1, 5, 20, 200),
    )
    for name, value in truth.items():
      assert found[name][user] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize('constant', (0.0, -0.0, 1.0, -7.5, 3e38, 1e-30))
def test_constant_scores_give_chance_level(constant):
  num_items, cutoff = 40, 8
  relevant = [(0, [0]), (1, [39]), (2, [0, 1, 2]), (3, list(range(40)))]
  row = np.array([user for user, items in relevant for _ in items])
  column = np.concatenate([items for _, items in relevant])
  found = measure(np.full((4, num_items), constant), row, column, (cutoff,))
  chance = cutoff / num_items
  np.testing.assert_allclose(found['recall@8'], chance, atol=1e-12)
  missed = math.comb(37, cutoff) / math.comb(40, cutoff)
  expected = [chance, chance, 1 - missed, 1.0]
  np.testing.assert_allclose(found['hit@8'], expected, atol=1e-12)
  harmonic = sum(1 / n for n in range(1, 41)) / 40
  np.testing.assert_allclose(found['mrr'][:2], harmonic, atol=1e-12)
  assert found['mrr'][3] == 1.0
  discounts = [1 / math.log2(n + 1) for n in range(1, cutoff + 1)]
  expected = [sum(discounts) / 40] * 2 + [sum(discounts) * 3 / 40]
  expected[2] /= sum(discounts[:3])
  np.testing.assert_allclose(found['ndcg@8'][:3], expected, atol=1e-12)


@pytest.mark.parametrize(
    'ties, among', ((17_000, 1), (17_000, 100), (300, 250))
)
def test_large_tie_groups_against_exact_fractions(ties, among):
  start, cutoff = 6, 26
  found = metrics.user_metrics(
      np.zeros(among, int),
      np.full(among, start),
      np.full(among, ties),
      np.array([ties + start]),
      (cutoff,),
  )
  ways = math.comb(ties, among)
  missed = fractions.Fraction(math.comb(ties - (cutoff - start), among), ways)
  assert found['hit@26'][0] == pytest.approx(float(1 - missed), abs=1e-12)
  count, mrr = math.comb(ties - 1, among - 1), 0.0
  for place in range(ties - among + 1):
    mrr += count / ways / (start + place + 1)
    # C(n - 1, r) from C(n, r), without building it anew
    left = ties - 1 - place
    count = count * (left - among + 1) // left if left else 0
  assert found['mrr'][0] == pytest.approx(mrr, abs=1e-12)


def test_positives_first_and_last_in_the_file_give_the_same():
  scores = np.zeros((4, 40))
  scores[:, 20:25] = 1.0
  row = np.repeat([0, 1, 2, 3], 4)
  column = np.array([0, 1, 2, 20, 37, 38, 39, 24] * 2)
  for name, values in measure(scores, row, column, (3, 10)).items():
    np.testing.assert_allclose(values, values[0], atol=1e-15, err_msg=name)


def test_users_without_positives_are_not_averaged_over():
  """Seven of ten users have a positive, ranked first: the mean is 1."""
  scores = np.tile(np.arange(12.0), (10, 1))
  users = np.array([0, 1, 3, 4, 6, 7, 9])
  found = metrics.rank_intervals(scores, users, np.full(7, 11))
  means = metrics.summary(
      metrics.user_metrics(
          np.arange(7), found.greater, found.tied, np.full(7, 12), (5,)
      )
  )
  assert means == {'recall@5': 1.0, 'ndcg@5': 1.0, 'hit@5': 1.0, 'mrr': 1.0}


def test_no_hits_are_exactly_zero():
  scores = np.tile(-np.arange(40.0), (4, 1))
  found = measure(scores, np.arange(4), np.array([20, 25, 29, 39]), (1, 20))
  for name, values in found.items():
    if name != 'mrr':
      assert values.tolist() == [0.0] * 4, name
  np.testing.assert_allclose(found['mrr'], [1 / 21, 1 / 26, 1 / 30, 1 / 40])


def test_cutoff_beyond_the_candidates_and_many_positives():
  scores = np.array([[3.0, 2.0, 1.0]])
  found = measure(scores, np.zeros(2, int), np.array([0, 2]), (1, 100))
  assert found['recall@1'] == [0.5]
  assert found['ndcg@1'] == [1.0]  # the ideal is cut at K too
  assert found['recall@100'] == [1.0]
  expected = (1 + 1 / math.log2(4)) / (1 + 1 / math.log2(3))
  np.testing.assert_allclose(found['ndcg@100'], expected, atol=1e-15)


@settings(max_examples=60, deadline=None)
@given(strategies.integers(0, 2**31), strategies.integers(1, 6))
def test_order_of_candidates_and_pairs_does_not_matter(seed, levels):
  rng = np.random.default_rng(seed)
  scores = rng.integers(0, levels, (4, 40)).astype(np.float32)
  allowed = rng.random(scores.shape) < 0.8
  allowed[:, 0] = True
  relevant = allowed & (rng.random(scores.shape) < 0.2)
  relevant[:, 0] = True
  row, column = np.nonzero(relevant)
  expected = measure(scores, row, column, (1, 4), allowed)
  moved, pairs = rng.permutation(40), rng.permutation(len(row))
  found = measure(
      scores[:, moved],
      row[pairs],
      np.argsort(moved)[column][pairs],
      (1, 4),
      allowed[:, moved],
  )
  for name, values in expected.items():
    assert np.all((values >= 0) & (values <= 1 + 1e-12)), name
    np.testing.assert_allclose(found[name], values, atol=1e-12, err_msg=name)


@settings(max_examples=30, deadline=None)
@given(strategies.integers(0, 2**31), strategies.integers(1, 6))
def test_pairs_add_up_to_their_users(seed, levels):
  rng = np.random.default_rng(seed)
  scores = rng.integers(0, levels, (5, 30)).astype(np.float32)
  relevant = rng.random(scores.shape) < 0.3
  relevant[:, 0] = True
  row, column = np.nonzero(relevant)
  ranks = metrics.rank_intervals(scores, row, column, None)
  whole = metrics.user_metrics(
      row, ranks.greater, ranks.tied, np.full(5, 30), (1, 3, 50)
  )
  parts = metrics.pair_metrics(row, ranks.greater, ranks.tied, (1, 3, 50))
  assert set(parts) == {n for n in whole if n.startswith(('recall', 'ndcg'))}
  for name, values in parts.items():
    assert np.all(values >= 0)
    np.testing.assert_allclose(
        np.bincount(row, values), whole[name], atol=1e-12
    )


@pytest.mark.parametrize(
    'user, greater, tied, num_candidates, message',
    (
        ([0, 2], [0, 0], [1, 1], [5, 5, 5], 'User 1 has no held-out pair'),
        ([0, 1], [0, 0], [1, 1], [5], 'goes up to 1, but .* has 1 users'),
        ([0, 0], [0], [1], [5], r'must all be \[N\]'),
        ([0], [-1], [1], [5], 'Pair 0 of user 0 has -1 candidates above'),
        ([0], [3], [3], [5], '3 tied of 5'),
        ([0, 0], [2, 2], [1, 1], [5], 'occurs twice'),
        ([0, 0], [2, 2], [3, 2], [5], 'contradicts another pair'),
        ([0, 0], [1, 2], [3, 2], [5], 'contradicts another pair'),
        ([0, 0, 0], [2, 2, 2], [2, 2, 2], [5], 'occurs twice'),
    ),
)
def test_impossible_intervals_are_refused(
    user, greater, tied, num_candidates, message
):
  with pytest.raises(ValueError, match=message):
    metrics.user_metrics(
        np.array(user), greater, tied, np.array(num_candidates), (2,)
    )


def test_variants_divide_the_same_hits_by_something_else():
  # User 0 has 3 pairs on ranks 1, 2 and 9, user 1 one on rank 2 or 3.
  found = metrics.user_metrics(
      np.array([0, 0, 0, 1]),
      np.array([0, 1, 8, 1]),
      np.array([1, 1, 1, 2]),
      np.array([10, 10]),
      (2,),
      tuple(metrics.MORE),
  )
  hits = np.array([2, 0.5])
  np.testing.assert_allclose(found['recall_min@2'], hits / [2, 1])
  np.testing.assert_allclose(found['precision@2'], hits / 2)
  # Hits over pairs, of all users together.
  np.testing.assert_allclose(found['pooled_recall@2'].mean(), 2.5 / 4)
  assert set(metrics.MORE) == set(config.METRIC_VARIANTS)


def test_summary_is_the_mean_over_users():
  means = metrics.summary({'mrr': np.array([1.0, 0.5, 0.0]), 'x': np.ones(2)})
  assert means == {'mrr': 0.5, 'x': 1.0}
  assert all(type(value) is float for value in means.values())


def test_no_users_have_no_mean():
  none = np.zeros(0, int)
  found = metrics.user_metrics(none, none, none, none, (5,))
  assert {len(values) for values in found.values()} == {0}
  with pytest.raises(ValueError, match='recall@5 has no users'):
    metrics.summary(found)
