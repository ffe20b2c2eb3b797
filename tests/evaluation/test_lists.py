# SPDX-License-Identifier: Apache-2.0
"""Lists of new and known items: exposure, coverage, inequality, collapse."""

import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.evaluation import lists
from dropoutnet_jax.evaluation import protocol

SETTINGS = config.EvaluationConfig(cutoffs=(2, 5))


def _evaluate(problem, mixed, table):
  is_new = np.isin(
      mixed.candidates, problem.split.evaluation['cold_item'].candidates
  )
  return is_new, lists.evaluate(
      lambda rows: table[rows][:, mixed.candidates],
      mixed,
      is_new,
      problem.likes(),
      SETTINGS,
      'a table',
  )


def test_all_items_are_candidates_of_the_same_users(problem):
  held_out = problem.split.evaluation['cold_item']
  mixed = lists.mixed_set(problem, held_out, 0)
  _, trained = problem.split.train_rows()
  assert set(mixed.candidates) == {*held_out.candidates, *trained}
  assert mixed.exclude_train
  assert len(mixed) == len(protocol.relevant_pairs(held_out)[0])


def test_of_many_users_some_are_drawn(problem, monkeypatch):
  monkeypatch.setattr(lists, 'MOST_USERS', 4)
  held_out = problem.split.evaluation['cold_item']
  mixed = lists.mixed_set(problem, held_out, 0)
  assert len(np.unique(mixed.user)) == 4
  assert np.isin(mixed.user, held_out.user).all()
  other = lists.mixed_set(problem, held_out, 1)
  assert set(mixed.user) != set(other.user)


def test_what_lists_hold_is_counted(problem):
  held_out = problem.split.evaluation['cold_item']
  mixed = lists.mixed_set(problem, held_out, 0)
  table = np.random.default_rng(0).random((30, 40)).astype(np.float32)
  is_new, found = _evaluate(problem, mixed, table)
  likes = problem.likes().toarray()
  top, new = [], 0
  for user in np.unique(mixed.user):
    allowed = [i for i in mixed.candidates if not likes[user, i]]
    best = sorted(allowed, key=lambda i, user=user: -table[user, i])[:2]
    top.append(frozenset(best))
    new += sum(i in held_out.candidates for i in best)
  shown = [sum(i in best for best in top) for i in mixed.candidates]
  assert found['cold_share@2'] == pytest.approx(new / (2 * len(top)))
  assert found['coverage@2'] == pytest.approx(np.mean(np.array(shown) > 0))
  assert found['distinct_lists'] == len(set(top))
  assert found['gini@2'] == pytest.approx(lists.gini(np.array(shown)))
  assert {'recall@2', 'ndcg@5', 'mrr'} <= found.keys()
  assert is_new.sum() == len(held_out.candidates)


def test_one_list_for_all_is_told(problem):
  held_out = problem.split.evaluation['cold_item']
  mixed = lists.mixed_set(problem, held_out, 0)
  table = np.zeros((30, 40), np.float32)
  table[:, held_out.candidates[:2]] = 1
  _, found = _evaluate(problem, mixed, table)
  assert found['distinct_lists'] == 1 and found['cold_share@2'] == 1
  size = len(mixed.candidates)
  assert found['coverage@2'] == pytest.approx(2 / size)
  assert found['gini@2'] == pytest.approx(1 - 2 / size)


def test_gini():
  assert lists.gini(np.array([3, 3, 3, 3])) == pytest.approx(0)
  assert lists.gini(np.array([0, 0, 0, 5])) == pytest.approx(0.75)
  counts = np.random.default_rng(0).integers(0, 9, 30)
  gaps = np.abs(counts[:, None] - counts[None]).mean()
  assert lists.gini(counts) == pytest.approx(gaps / (2 * counts.mean()))


def test_effective_rank():
  assert lists.effective_rank([np.eye(3, 5), np.eye(5)[3:]]) == pytest.approx(5)
  line = np.outer(np.arange(9.0), [1.0, 2.0])
  assert lists.effective_rank([line]) == pytest.approx(1)
  assert lists.effective_rank([np.zeros((3, 2))]) == 0
  two = np.diag([1.0, 1.0, 1e-9])
  assert lists.effective_rank([two]) == pytest.approx(2)
