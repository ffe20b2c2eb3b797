# SPDX-License-Identifier: Apache-2.0
"""Counting above and level with a score: ties, masks, bad scores, compiling."""

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax.evaluation import metrics
from dropoutnet_jax.evaluation import rank_counts


@settings(max_examples=60, deadline=None)
@given(strategies.integers(0, 2**31), strategies.integers(1, 6))
def test_intervals_cut_the_ranks_into_groups_no_wider_than_the_reach(
    seed, steps
):
  """Also where chains of near ties are longer than the reach."""
  rng = np.random.default_rng(seed)
  scores = rng.integers(-20, 21, (4, 40)).astype(np.float32)
  scores[:, 0] = 32.0  # reach is `steps` exactly
  row, column = np.indices(scores.shape).reshape(2, -1)
  found = metrics.rank_intervals(scores, row, column, tolerance=steps / 32)
  for user in range(4):
    groups = {}
    mine = row == user
    for score, *interval in zip(
        scores[user], found.greater[mine], found.tied[mine]
    ):
      groups.setdefault(tuple(interval), []).append(score)
    rank, ends = 0, []
    for (greater, tied), members in sorted(groups.items()):
      assert greater == rank and tied == len(members)
      assert max(members) - min(members) <= steps
      assert not ends or max(members) < ends[-1]
      ends.append(min(members))
      rank += tied
    assert rank == 40
    # As defined: the same score is the highest within reach.
    leader = [
        max(s for s in scores[user] if s <= x + steps) for x in scores[user]
    ]
    greater = [sum(other > one for other in leader) for one in leader]
    tied = [sum(other == one for other in leader) for one in leader]
    assert found.greater[mine].tolist() == greater
    assert found.tied[mine].tolist() == tied


def test_rounding_does_not_break_ties():
  """Ten contents, each of four items, summed in different orders."""
  rng = np.random.default_rng(0)
  user, content = rng.normal(size=(4, 300)), rng.normal(size=(10, 300))
  scores = np.zeros((4, 40), np.float32)
  for n in range(40):
    terms = (user * content[n % 10]).astype(np.float32)
    for m in range(4):
      # A running sum: rounds more than what matrix products do.
      scores[m, n] = np.cumsum(terms[m][rng.permutation(300)])[-1]
  assert len(np.unique(scores[0])) > 20
  row, column = np.indices(scores.shape).reshape(2, -1)
  found = metrics.rank_intervals(scores, row, column, tolerance=1e-5)
  assert set(found.tied) == {4}
  assert set(found.greater) == set(range(0, 40, 4))


def test_tolerance_is_relative_to_the_row():
  scores = np.array([[1000.0, 1.0, 1.0005], [1.0, 0.5, 0.5005]], np.float32)
  row, column = np.array([0, 0, 1, 1]), np.array([1, 2, 1, 2])
  found = metrics.rank_intervals(scores, row, column)
  assert found.tied.tolist() == [2, 2, 1, 1]
  assert found.greater.tolist() == [1, 1, 2, 1]
  found = metrics.rank_intervals(scores, row, column, tolerance=0.0)
  assert found.tied.tolist() == [1, 1, 1, 1]
  # What is not allowed does not stretch the tolerance either.
  allowed = np.array([[False, True, True], [True, True, True]])
  found = metrics.rank_intervals(scores, row, column, allowed)
  assert found.tied.tolist() == [1, 1, 1, 1]
  assert found.greater.tolist() == [1, 0, 2, 1]


def test_masked_candidates_are_as_good_as_absent():
  rng = np.random.default_rng(3)
  scores = rng.integers(-3, 4, (4, 40)).astype(np.float32)
  keep = np.sort(rng.permutation(40)[:30])
  allowed = np.zeros(scores.shape, bool)
  allowed[:, keep] = True
  row, place = np.indices((4, 30)).reshape(2, -1)
  found = metrics.rank_intervals(scores, row, keep[place], allowed)
  expected = metrics.rank_intervals(scores[:, keep], row, place)
  np.testing.assert_array_equal(found.greater, expected.greater)
  np.testing.assert_array_equal(found.tied, expected.tied)


def test_scores_that_are_not_finite_are_counted():
  scores = np.zeros((4, 40), np.float32)
  scores[0, 1], scores[1, 2], scores[2, 3] = np.nan, np.inf, -np.inf
  zero = np.zeros(1, int)
  assert metrics.rank_intervals(scores, zero, zero).num_not_finite == 3
  allowed = np.isfinite(scores)
  found = metrics.rank_intervals(scores, zero, zero, allowed)
  assert (found.greater[0], found.tied[0], found.num_not_finite) == (0, 39, 0)
  allowed[2, 3] = True
  assert metrics.rank_intervals(scores, zero, zero, allowed).num_not_finite == 1


def test_signed_zeros_negatives_and_extremes_are_ordered():
  scores = [[-3.4e38, -1.0, -0.0, 0.0, 1e-30, 2.0, 3.4e38]]
  column = np.arange(7)
  found = metrics.rank_intervals(
      np.array(scores, np.float32), np.zeros(7, int), column, tolerance=0.0
  )
  assert found.num_not_finite == 0
  assert found.greater.tolist() == [6, 5, 3, 3, 2, 1, 0]
  assert found.tied.tolist() == [1, 1, 2, 2, 1, 1, 1]


def test_bfloat16_scores_tie_where_they_are_equal():
  scores = jnp.asarray([[1.0, 1.001, 0.5]], jnp.bfloat16)
  found = metrics.rank_intervals(scores, np.zeros(3, int), np.arange(3))
  assert found.greater.tolist() == [0, 0, 2]
  assert found.tied.tolist() == [2, 2, 1]


@pytest.mark.parametrize('num_items', (3, 130_000, 300_000))
def test_blocks_of_pairs_join_up(num_items):
  """From many pairs at once to one at a time, as candidates grow."""
  rng = np.random.default_rng(0)
  scores = rng.permuted(np.arange(num_items * 2.0)).reshape(2, num_items)
  row, column = rng.integers(0, 2, 5), rng.integers(0, num_items, 5)
  found = metrics.rank_intervals(
      scores.astype(np.float32), row, column, tolerance=0.0
  )
  expected = np.sum(scores[row] > scores[row, column][:, None], axis=1)
  np.testing.assert_array_equal(found.greater, expected)
  assert set(found.tied) == {1}


def test_number_of_pairs_does_not_recompile(monkeypatch):
  traced = []
  original = rank_counts._around

  def counted(*arrays):
    traced.append(1)
    return original(*arrays)

  monkeypatch.setattr(rank_counts, '_around', counted)
  scores = np.arange(33.0).reshape(3, 11)  # a shape no other test has
  for number, num_pairs in enumerate((0, 1, 5, 1000, 2**14)):
    row = np.arange(num_pairs) % 3
    found = metrics.rank_intervals(scores, row, np.full(num_pairs, 4))
    assert found.greater.shape == found.tied.shape == (num_pairs,)
    assert np.all(found.greater == 6) and np.all(found.tied == 1)
    if number == 0:
      first = len(traced)
  assert len(traced) == first > 0
  found = metrics.rank_intervals(
      scores, np.zeros(2**14 + 1, int), np.full(16385, 4)
  )
  assert np.all(found.greater == 6) and len(found.greater) == 16385
  assert len(traced) > first


def test_a_pair_that_is_not_allowed_is_refused():
  allowed = np.array([[True, True, False]])
  found = metrics.rank_intervals(
      np.zeros((1, 3)), np.zeros(2, int), np.array([0, 2]), allowed
  )
  assert found.tied.tolist() == [2, 0]
  with pytest.raises(ValueError, match='Pair 1 of user 0 .* not allowed'):
    metrics.user_metrics(
        np.zeros(2, int), found.greater, found.tied, np.array([2]), (1,)
    )


@pytest.mark.parametrize(
    'row, column, allowed, message',
    (
        ([2], [0], None, r'row spans 2 to 2; scores \(2, 3\) allow 0 to 1'),
        ([0, -1], [0, 0], None, 'row spans -1 to 0'),
        ([0], [3], None, 'column spans 3 to 3; .* allow 0 to 2'),
        ([0, 1], [0], None, r'row \(2,\) and column \(1,\) must both be'),
        ([0], [0], np.ones((2, 2), bool), r'allowed \(2, 2\) must both be'),
    ),
)
def test_shapes_and_pairs_are_checked(row, column, allowed, message):
  with pytest.raises(ValueError, match=message):
    metrics.rank_intervals(np.zeros((2, 3)), row, column, allowed)
