# SPDX-License-Identifier: Apache-2.0
"""Who is ranked for whom: masks, chunks, chance level, bad scores."""

import dataclasses

import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import protocol


def _settings(**changes):
  return config.EvaluationConfig(cutoffs=(3, 10), **changes)


def _random_scores(seed=0):
  table = np.random.default_rng(seed).random((30, 40)).astype(np.float32)
  return table


def _slow(table, held_out, likes, cutoff):
  """Recall and NDCG by sorting, for scores without ties."""
  recall, ndcg = [], []
  for user in np.unique(held_out.user):
    relevant = set(held_out.item[held_out.user == user].tolist())
    relevant &= set(held_out.candidates.tolist())
    if not relevant:
      continue
    candidates = [
        i
        for i in held_out.candidates.tolist()
        if not (held_out.exclude_train and likes[user, i])
    ]
    ranked = sorted(candidates, key=lambda i: -table[user, i])[:cutoff]
    hits = [item in relevant for item in ranked]
    gain = sum(hit / np.log2(n + 2) for n, hit in enumerate(hits))
    ideal = sum(1 / np.log2(n + 2) for n in range(min(cutoff, len(relevant))))
    recall.append(sum(hits) / len(relevant))
    ndcg.append(gain / ideal)
  return np.mean(recall), np.mean(ndcg)


@pytest.mark.parametrize('quadrant', schema.QUADRANTS)
@pytest.mark.parametrize('chunk', [1, 7, 500])
def test_equals_sorting(problem, quadrant, chunk):
  held_out = problem.split.evaluation[quadrant]
  table = _random_scores()
  likes = problem.likes()
  found = protocol.evaluate(
      lambda rows: table[np.ix_(rows, held_out.candidates)],
      held_out,
      likes,
      _settings(users_per_chunk=chunk),
      'a table',
  )
  for cutoff in (3, 10):
    recall, ndcg = _slow(table, held_out, likes.toarray(), cutoff)
    np.testing.assert_allclose(found[f'recall@{cutoff}'], recall, rtol=1e-9)
    np.testing.assert_allclose(found[f'ndcg@{cutoff}'], ndcg, rtol=1e-9)


def test_constant_scores_are_chance(problem):
  held_out = problem.split.evaluation['cold_item']
  found = protocol.evaluate(
      lambda rows: np.ones((len(rows), len(held_out.candidates))),
      held_out,
      problem.likes(),
      _settings(),
      'constant',
  )
  np.testing.assert_allclose(found['recall@3'], 3 / 10, rtol=1e-9)


def test_users_without_relevant_candidate_are_counted_apart(problem):
  full = problem.split.evaluation['cold_item']
  fewer = dataclasses.replace(full, candidates=full.candidates[:1])
  described = protocol.describe_set(fewer)
  with_hit = len(np.unique(full.user[full.item == full.candidates[0]]))
  assert described['users'] == with_hit
  assert described['users_without_relevant'] == (
      len(np.unique(full.user)) - with_hit
  )
  found = protocol.evaluate(
      lambda rows: np.zeros((len(rows), 1)),
      fewer,
      problem.likes(),
      _settings(),
      'one candidate',
  )
  assert found['recall@3'] == 1.0


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(problem, bad):
  held_out = problem.split.evaluation['cold_item']
  table = np.full((1, len(held_out.candidates)), bad, np.float32)
  with pytest.raises(errors.UserError, match='of the model on cold_item'):
    protocol.evaluate(
        lambda rows: np.repeat(table, len(rows), axis=0),
        held_out,
        problem.likes(),
        _settings(),
        'the model on cold_item',
    )


def test_training_items_are_masked_only_where_the_set_says_so(problem):
  likes = problem.likes()
  rows, candidates = np.array([0, 3]), np.arange(30)
  allowed = protocol.allowed_candidates(likes, rows, candidates)
  np.testing.assert_array_equal(allowed, likes[rows].toarray()[:, :30] == 0)


@pytest.mark.parametrize(
    'name, quadrant',
    [('warm', 'warm'), ('cold_item_validation', 'cold_item')],
)
def test_quadrant_of(name, quadrant):
  assert protocol.quadrant_of(name) == quadrant
