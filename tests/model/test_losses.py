# SPDX-License-Identifier: Apache-2.0
"""Losses against arithmetic that a reader can redo, and slow references."""

import jax
import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np
import pytest

from dropoutnet_jax.model import block_products
from dropoutnet_jax.model import losses


def test_teacher_by_hand():
  user = jnp.array([[1.0, 2.0], [0.0, 1.0]])
  item = jnp.array([[3.0, 4.0], [5.0, 6.0]])
  target = jnp.array([10.0, 8.0])  # scores are 11 and 6: gaps 1 and -2
  assert losses.teacher(user, item, target, jnp.ones(2)) == (1 + 4) / 2
  assert losses.teacher(user, item, target, jnp.array([1.0, 0.0])) == 1
  assert losses.teacher(user, item, target, jnp.array([3.0, 1.0])) == 7 / 4


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('shape', [(1, 1, 1), (3, 5, 2), (7, 4, 16)])
def test_block_is_the_mean_over_all_its_pairs(seed, shape):
  users, items, rank = shape
  rng = np.random.default_rng(seed)
  user, item = rng.normal(size=(users, rank)), rng.normal(size=(items, rank))
  target = rng.normal(size=(users, items))
  weight = rng.integers(0, 3, size=(users, items)).astype(float)
  weight[0, 0] = 1
  total = 0.0
  for u in range(users):
    for i in range(items):
      gap = sum(user[u, r] * item[i, r] for r in range(rank)) - target[u, i]
      total += weight[u, i] * gap**2
  got = losses.teacher_block(*map(jnp.float32, (user, item, target, weight)))
  np.testing.assert_allclose(got, total / weight.sum(), rtol=1e-5)
  pairs = [(u, i) for u in range(users) for i in range(items)]
  rows = np.array(pairs)
  same = losses.teacher(
      jnp.float32(user[rows[:, 0]]),
      jnp.float32(item[rows[:, 1]]),
      jnp.float32(target.ravel()),
      jnp.float32(weight.ravel()),
  )
  np.testing.assert_allclose(got, same, rtol=1e-5)


def test_empty_set_gives_zero_loss_and_zero_gradient():
  value, grad = jax.value_and_grad(losses.weighted_mean)(
      jnp.array([1.0, jnp.inf]), jnp.zeros(2)
  )
  np.testing.assert_array_equal(np.r_[value, grad], np.zeros(3))


def test_masked_rows_are_as_good_as_removed():
  rng = np.random.default_rng(0)
  user, item = (jnp.float32(rng.normal(size=(6, 3))) for _ in range(2))
  target = jnp.float32(rng.normal(size=6))
  weight = jnp.array([1.0, 0.0, 2.0, 0.0, 1.0, 1.0])
  keep = np.flatnonzero(weight)
  loss = jax.value_and_grad(losses.teacher, argnums=(0, 1))
  value, grads = loss(user, item, target, weight)
  fewer, fewer_grads = loss(user[keep], item[keep], target[keep], weight[keep])
  np.testing.assert_allclose(value, fewer, rtol=1e-6)
  for grad, expected in zip(grads, fewer_grads, strict=True):
    np.testing.assert_allclose(grad[keep], expected, rtol=1e-6)
    np.testing.assert_array_equal(grad[np.flatnonzero(weight == 0)], 0)


def test_finite_for_large_scores():
  user = jnp.full((2, 1), 1e2)
  value, grad = jax.value_and_grad(losses.teacher)(
      user, user, jnp.zeros(2), jnp.ones(2)
  )
  assert np.isfinite(value) and np.all(np.isfinite(grad))


def test_gradients_match_finite_differences():
  rng = np.random.default_rng(1)
  user, item = (jnp.float32(rng.normal(size=(4, 3))) for _ in range(2))
  target = jnp.float32(rng.normal(size=(4, 4)))
  weight = losses.positive_weight(target, 3.0)
  check_grads(
      lambda u, i: losses.teacher_block(u, i, target, weight),
      (user, item),
      order=1,
      modes=['rev'],
      rtol=2e-2,
  )


def _rounded(x):
  return np.asarray(jnp.asarray(x).astype(jnp.bfloat16), np.float64)


def test_block_scores_and_their_gradients_round_factors_and_nothing_else():
  rng = np.random.default_rng(2)
  user, item = (jnp.float32(rng.normal(size=(n, 6))) for n in (4, 5))
  cotangent = jnp.float32(rng.normal(size=(4, 5)))
  dtype = jnp.dtype('bfloat16')
  score, vjp = jax.vjp(
      lambda u, i: block_products.block_scores(u, i, dtype), user, item
  )
  assert score.dtype == jnp.float32
  np.testing.assert_allclose(
      score, _rounded(user) @ _rounded(item).T, rtol=1e-5, atol=1e-6
  )
  assert np.abs(score - np.asarray(user) @ item.T).max() > 1e-4
  user_grad, item_grad = vjp(cotangent)
  assert user_grad.dtype == item_grad.dtype == jnp.float32
  expected = _rounded(cotangent) @ _rounded(item)
  np.testing.assert_allclose(user_grad, expected, rtol=1e-5, atol=1e-6)
  expected = _rounded(cotangent).T @ _rounded(user)
  np.testing.assert_allclose(item_grad, expected, rtol=1e-5, atol=1e-6)


def test_all_three_products_of_a_block_are_of_the_asked_type():
  loss = lambda u, i: losses.teacher_block(
      u, i, jnp.ones((3, 5)), jnp.ones((3, 5)), jnp.dtype('bfloat16')
  )
  grad = jax.jit(jax.grad(loss, argnums=(0, 1)))
  text = grad.lower(jnp.ones((3, 2)), jnp.ones((5, 2))).as_text()
  products = [line for line in text.splitlines() if 'dot_general' in line]
  assert len(products) == 3
  for line in products:
    operands = line.split(' : ')[-1].split('->')[0]
    assert operands.count('bf16') == 2 and 'f32' not in operands


def test_positive_weight_by_hand():
  got = losses.positive_weight(jnp.array([-1.0, 0.0, 0.5]), 30.0)
  np.testing.assert_allclose(got, [1.0, 1.0, 16.0])


@pytest.mark.parametrize('weight', [jnp.ones((2, 1)), jnp.ones(3)])
def test_silent_broadcasting_is_refused(weight):
  with pytest.raises(ValueError, match='Shapes differ'):
    losses.weighted_mean(jnp.ones(2), weight)


def test_unpaired_embeddings_are_refused():
  with pytest.raises(ValueError, match='Shapes differ'):
    losses.teacher(jnp.ones((2, 3)), jnp.ones((1, 3)), jnp.ones(2), jnp.ones(2))
