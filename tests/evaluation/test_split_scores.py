# SPDX-License-Identifier: Apache-2.0
"""Scores on many devices give what the whole table of them gives."""

import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import parallel
from dropoutnet_jax import table_shards
from dropoutnet_jax.evaluation import metrics
from dropoutnet_jax.evaluation import split_scores
from benchmarks import collectives

pytestmark = pytest.mark.usefixtures('quick_compilation')

USERS, ITEMS = 13, 37  # no axis divides them


def split(scores, model):
  """The same scores on eight devices; padding would be the best of all."""
  mesh = parallel.make_mesh(config.MeshConfig(model=model), 8)
  widths = [(0, -n % 8) for n in scores.shape]
  padded = np.pad(scores, widths, constant_values=99.0)
  placed = table_shards.put_parts(padded, table_shards.SCORES, mesh)
  return split_scores.SplitScores(placed, scores.shape, mesh)


@pytest.fixture(scope='module')
def scores():
  """Of few values, some of them equal but for rounding."""
  rng = np.random.default_rng(0)
  found = rng.integers(-3, 4, (USERS, ITEMS)) / 4
  return np.float32(found * (1 + 1e-7 * rng.integers(0, 3, found.shape)))


@pytest.fixture(scope='module')
def allowed():
  mask = np.random.default_rng(1).random((USERS, ITEMS)) > 0.3
  mask[4] = False  # a user for whom nothing is left
  return mask


@pytest.mark.parametrize('model', [4, 8])
@pytest.mark.parametrize('masked', [False, True])
def test_ranks_and_ties_are_those_of_the_whole(scores, allowed, model, masked):
  mask = allowed if masked else None
  row, column = np.indices(scores.shape).reshape(2, -1)
  order = np.random.default_rng(2).permutation(len(row))[:300]
  row, column = row[order], column[order]
  expected = metrics.rank_intervals(scores, row, column, mask)
  assert len(np.unique(expected.tied)) > 5
  found = split(scores, model).rank_intervals(row, column, mask)
  for one, two in zip(found, expected):
    np.testing.assert_array_equal(one, two)
  nobody = np.zeros(0, int)
  none = split(scores, model).rank_intervals(nobody, nobody, mask)
  assert none.greater.shape == (0,) and none.num_not_finite == 0


@pytest.mark.parametrize('model', [4, 8])
def test_scores_that_are_not_finite_are_counted(scores, allowed, model):
  bad = scores.copy()
  bad[0, 0], bad[3, 36], bad[4, 5] = np.nan, np.inf, -np.inf
  zero = np.zeros(1, int)
  found = split(bad, model).rank_intervals(zero, zero)
  assert found.num_not_finite == 3
  mask = allowed.copy()
  mask[0, 0], mask[3, 36] = True, False
  assert split(bad, model).rank_intervals(zero, zero, mask).num_not_finite == 1


@pytest.mark.parametrize('model', [4, 8])
def test_the_best_and_single_scores(scores, allowed, model):
  whole = split(scores, model)
  np.testing.assert_array_equal(np.asarray(whole), scores)
  masked = np.where(allowed, scores, -np.inf)
  order = np.argsort(-masked, axis=1, kind='stable')[:, :20]
  expected = np.where(np.take_along_axis(allowed, order, 1), order, -1)
  np.testing.assert_array_equal(whole.best(allowed, 20), expected)
  row, column = np.array([12, 0, 12, 5]), np.array([36, 0, 1, 20])
  np.testing.assert_array_equal(whole.at(row, column), scores[row, column])
  with pytest.raises(ValueError, match='column spans 37 to 37'):
    whole.at(row[:1], np.array([ITEMS]))


def test_numbers_of_pairs_travel_and_rows_of_scores_do_not():
  """No collective grows with the candidates."""
  sent = []
  for num_items in (64, 6400):
    whole = split(np.zeros((16, num_items), np.float32), 4)
    pairs = whole._pairs(np.zeros(1, int), np.zeros(1, int))
    mask = whole._allowed(np.ones(whole.shape, bool))
    rank = split_scores._rank.lower(
        whole.values, pairs.placed, mask, (1, num_items, 1e-6), whole.mesh
    )
    best = split_scores._best.lower(
        whole.values, mask, num_items, 5, whole.mesh
    )
    texts = [program.compile().as_text() for program in (rank, best)]
    sent.append([collectives.bytes_by_kind(text) for text in texts])
  assert sent[0] == sent[1]
  # 16 users in two parts: five scores and five columns of each of 4 devices.
  assert sent[0][1]['all-gather'] == 2 * 8 * 5 * 4 * 4 + 16 * 5 * 4
  num_pairs = pairs.placed.shape[2]
  assert sum(sent[0][0].values()) < 4 * 4 * (8 * num_pairs)
