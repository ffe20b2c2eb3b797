# SPDX-License-Identifier: Apache-2.0
"""Slices: what they count, against means over their users and pairs."""

import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.evaluation import slices

SETTINGS = config.EvaluationConfig(cutoffs=(2,))


def _ranks(table, held_out, likes):
  return protocol.rank(
      lambda rows: table[rows][:, held_out.candidates],
      held_out,
      likes,
      SETTINGS,
      'a table',
  )


@pytest.fixture(name='world')
def fixture_world():
  """Three users with 0, 1 and 3 likes; items with 0, 1 and 4 tags."""
  ids = np.arange(3), np.arange(6)
  tags = scipy.sparse.csr_array(
      np.float32([[0] * 4, [0] * 4, [1, 0, 0, 0], [1] * 4, [1] * 4, [1] * 4])
  )
  none = scipy.sparse.csr_array((3, 4), dtype=np.float32)
  empty = lambda rows: np.zeros((rows, 0), np.float32)
  train = schema.Interactions(np.int32([1, 2, 2, 2]), np.int32([3, 3, 4, 5]))
  held_out = schema.EvaluationSet(
      np.int32([0, 0, 1, 2]), np.int32([0, 2, 2, 1]), np.int32([0, 1, 2])
  )
  problem = problem_lib.Problem(
      problem_lib.Side(ids[0], empty(3), none),
      problem_lib.Side(ids[1], empty(6), tags),
      schema.Split(train, {'cold_item': held_out}),
      schema.Factors(empty(3), empty(6), np.zeros(3, bool), np.zeros(6, bool)),
  )
  table = np.float32([[3, 2, 1], [3, 2, 1], [1, 3, 2]])
  table = np.hstack([table, np.zeros((3, 3), np.float32)])
  return problem, _ranks(table, held_out, problem.likes())


def test_numbers_of_each_pair(world):
  problem, ranks = world
  found = slices.kinds(problem, ranks)
  # Pairs (0, 0), (0, 2), (1, 2), (2, 1); nobody has content of users.
  assert {name: number.tolist() for name, number in found.items()} == {
      'user_history': [0, 0, 1, 3],
      'item_content': [0, 1, 1, 0],
      'item_popularity': [1, 2, 2, 1],
  }


def test_slices_are_means_over_their_users_and_pairs(world):
  problem, ranks = world
  kinds = slices.kinds(problem, ranks)
  table = slices.evaluate({'mine': ranks}, kinds, SETTINGS)
  assert {kind: list(found) for kind, found in table.items()} == {
      'user_history': ['0', '1', '2-4'],
      'item_content': ['0', '1'],
      'item_popularity': ['1', '2-4'],
  }
  # User 0 ranks item 0 first and item 2 last; user 1 has item 2 last.
  recall = lambda kind, name: table[kind][name]['methods']['mine']['recall@2']
  assert recall('user_history', '0') == 0.5
  assert recall('user_history', '1') == 0.0
  assert recall('user_history', '2-4') == 1.0
  assert recall('item_content', '0') == 1.0  # of users 0 and 2
  assert recall('item_content', '1') == 0.0
  counts = [
      (part['users'], part['pairs']) for part in table['item_content'].values()
  ]
  assert counts == [(2, 2), (2, 2)]


def test_every_pair_is_in_one_slice_of_each_kind(problem):
  held_out = problem.split.evaluation['cold_item']
  table = np.random.default_rng(0).random((30, 40)).astype(np.float32)
  ranks = _ranks(table, held_out, problem.likes())
  kinds = slices.kinds(problem, ranks)
  assert 'item_popularity' in kinds
  for found in slices.evaluate({'x': ranks}, kinds, SETTINGS).values():
    assert sum(part['pairs'] for part in found.values()) == len(ranks.item)
