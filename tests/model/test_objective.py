# SPDX-License-Identifier: Apache-2.0
"""Terms against loops over pairs; histories without the pair in training."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.data import scaler as scaler_lib
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.model import objective

WIDTH = 3


def normal(seed, *shape):
  values = np.random.default_rng(seed).normal(size=shape)
  return values.astype(np.float32)


def emb(seed, rows):
  return embeddings.Embedding(jnp.asarray(normal(seed, rows, WIDTH)))


def make_side(kind='none'):
  """Five rows; row 2 has no preference, row 4 no history."""
  present = np.array([True, True, False, True, True])
  count = np.array([3, 1, 2, 4, 0], np.int32)
  history = [normal(10 + row, count[row], WIDTH) for row in range(5)]
  means = [h.mean(axis=0) for h in history if len(h)]
  side = types.SimpleNamespace(
      preference=jnp.asarray(normal(1, 5, WIDTH) * present[:, None]),
      present=jnp.asarray(present),
      history_total=jnp.asarray([h.sum(axis=0) for h in history]),
      history_count=jnp.asarray(count),
      history_scaler=scaler_lib.fit(np.array(means), kind),
  )
  return side, history


def test_preference_is_the_rows_own():
  side, _ = make_side()
  got = objective.preference(side, jnp.array([3, 2, 3]))
  np.testing.assert_array_equal(got.present, [True, False, True])
  np.testing.assert_array_equal(got.value, side.preference[np.array([3, 2, 3])])
  np.testing.assert_array_equal(got.value[1], 0)


@pytest.mark.parametrize('kind', ['none', 'standard', 'row'])
def test_history_without_what_is_trained_on(kind):
  """Row by row: none, some and all of the history left out."""
  side, history = make_side(kind)
  rows = [0, 0, 0, 1, 3, 4]
  left = [[], [1], [0, 2], [0], [0, 1, 3], []]
  left_out = [history[row][part].sum(axis=0) for row, part in zip(rows, left)]
  got = objective.history_preference(
      side,
      jnp.array(rows),
      jnp.asarray(left_out),
      jnp.array([len(part) for part in left]),
  )
  for number, (row, part) in enumerate(zip(rows, left)):
    remaining = np.delete(history[row], part, axis=0)
    assert bool(got.present[number]) == bool(len(remaining))
    expected = np.zeros((1, WIDTH))
    if len(remaining):
      expected = side.history_scaler(remaining.mean(axis=0, keepdims=True))
    np.testing.assert_allclose(
        got.value[number], expected[0], rtol=1e-4, atol=1e-5
    )


def test_nothing_left_is_exactly_zero_though_the_scaler_shifts():
  side, history = make_side('standard')
  got = objective.history_preference(
      side,
      jnp.array([1, 4]),
      jnp.asarray([history[1].sum(axis=0), np.zeros(WIDTH)]),
      jnp.array([1, 0]),
  )
  assert np.abs(side.history_scaler(np.zeros((1, WIDTH)))).min() > 0
  np.testing.assert_array_equal(got.value, np.zeros((2, WIDTH)))
  np.testing.assert_array_equal(got.present, [False, False])


@pytest.mark.parametrize('strength', [0.0, 30.0])
def test_block_terms_are_a_weighted_mean_over_all_pairs(strength):
  user, item = emb(0, 4), emb(1, 5)
  user_factors, item_factors = normal(2, 4, 2), normal(3, 5, 2)
  settings = config.ObjectiveConfig(positive_weight=strength)
  terms = objective.block_terms(
      settings, user, item, user_factors, item_factors
  )
  above = below = 0.0
  for u in range(4):
    for i in range(5):
      target = float(np.dot(user_factors[u], item_factors[i]))
      weight = 1 + strength * max(target, 0)
      score = float(np.dot(user.dense[u], item.dense[i]))
      above += weight * (score - target) ** 2
      below += weight
  assert list(terms) == ['teacher']
  np.testing.assert_allclose(terms['teacher'], above / below, rtol=1e-5)


def test_pair_terms_are_the_mean_over_the_pairs():
  user, item = emb(0, 6), emb(1, 6)
  user_factors, item_factors = normal(2, 6, 2), normal(3, 6, 2)
  terms = objective.pair_terms(user, item, user_factors, item_factors)
  gaps = [
      np.dot(user.dense[b], item.dense[b])
      - np.dot(user_factors[b], item_factors[b])
      for b in range(6)
  ]
  expected = sum(float(gap) ** 2 for gap in gaps) / 6
  np.testing.assert_allclose(terms['teacher'], expected, rtol=1e-5)
  weight = np.array([1, 2, 0, 0.5, 0, 0], np.float32)
  terms = objective.pair_terms(
      user, item, user_factors, item_factors, jnp.asarray(weight)
  )
  expected = np.dot(weight, np.square(gaps)) / weight.sum()
  np.testing.assert_allclose(terms['teacher'], expected, rtol=1e-5)


def test_block_without_emphasis_is_all_of_its_pairs():
  """Both ways to draw pairs minimise the same thing."""
  user, item = emb(0, 3), emb(1, 4)
  user_factors, item_factors = normal(2, 3, 2), normal(3, 4, 2)
  block = lambda user, item: objective.block_terms(
      config.ObjectiveConfig(positive_weight=0.0),
      user,
      item,
      user_factors,
      item_factors,
  )['teacher']
  u, i = np.divmod(np.arange(12), 4)
  pairs = lambda user, item: objective.pair_terms(
      embeddings.Embedding(user.dense[u]),
      embeddings.Embedding(item.dense[i]),
      user_factors[u],
      item_factors[i],
  )['teacher']
  for one, other in zip(
      jax.tree.leaves(jax.value_and_grad(block, argnums=(0, 1))(user, item)),
      jax.tree.leaves(jax.value_and_grad(pairs, argnums=(0, 1))(user, item)),
      strict=True,
  ):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('weight', [0.0, 1.0, 2.5])
def test_total_is_under_the_configured_weights(weight):
  settings = config.ObjectiveConfig(teacher=weight)
  total = objective.total(settings, {'teacher': jnp.float32(3.0)})
  assert float(total) == weight * 3
  assert float(objective.total(settings, {})) == 0
