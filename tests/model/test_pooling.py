# SPDX-License-Identifier: Apache-2.0
"""Pooling against loops over tokens; what is no token has no part in it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax.model import pooling

ROWS, TOKENS, WIDTH = 5, 4, 3
_pool = jax.jit(pooling.pool, static_argnums=2)
KINDS = ('sum', 'mean', 'max', 'attention')


def make(seed=0):
  """Row 1 has no token, row 2 a single one, row 3 all."""
  rng = np.random.default_rng(seed)
  emb = rng.normal(size=(ROWS, TOKENS, WIDTH)).astype(np.float32)
  there = rng.random((ROWS, TOKENS)) < 0.6
  there[1], there[2], there[3] = False, np.arange(TOKENS) == 2, True
  weight = np.where(there, rng.uniform(0.2, 3, there.shape), 0)
  query = rng.normal(size=WIDTH).astype(np.float32)
  return emb, weight.astype(np.float32), query


def slow_pool(emb, weight, kind, query):
  out = np.zeros((ROWS, WIDTH))
  for row in range(ROWS):
    tokens = [n for n in range(TOKENS) if weight[row, n] > 0]
    if not tokens:
      continue
    vectors = [emb[row, n].astype(float) for n in tokens]
    share = [float(weight[row, n]) for n in tokens]
    if kind == 'max':
      out[row] = [max(v[d] for v in vectors) for d in range(WIDTH)]
      continue
    if kind == 'attention':
      share = [
          w * np.exp(v @ query / WIDTH**0.5) for w, v in zip(share, vectors)
      ]
    out[row] = sum(w * v for w, v in zip(share, vectors))
    if kind != 'sum':
      out[row] /= sum(share)
  return out


def pool(emb, weight, kind, query):
  return _pool(
      jnp.asarray(emb),
      jnp.asarray(weight),
      kind,
      jnp.asarray(query) if kind == 'attention' else None,
  )


@pytest.mark.parametrize('kind', KINDS)
def test_pooling_matches_loops(kind):
  emb, weight, query = make()
  np.testing.assert_allclose(
      pool(emb, weight, kind, query),
      slow_pool(emb, weight, kind, query),
      rtol=1e-5,
      atol=1e-6,
  )


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('value', [7.0, -1e30])
def test_what_is_no_token_adds_nothing_and_learns_nothing(kind, value):
  """Whatever the table holds for it."""
  emb, weight, query = make()
  other = np.where(weight[..., None] > 0, emb, np.float32(value))

  @jax.grad
  def slope_of(emb):
    return jnp.sum(jnp.sin(pool(emb, weight, kind, query)))

  np.testing.assert_array_equal(
      pool(other, weight, kind, query), pool(emb, weight, kind, query)
  )
  slope, expected = slope_of(other), slope_of(emb)
  np.testing.assert_array_equal(slope, expected)
  np.testing.assert_array_equal(slope[weight == 0], 0)
  np.testing.assert_array_equal(pool(other, weight, kind, query)[1], 0)
  assert np.all(np.abs(slope[3]).sum(axis=0) > 0)


def test_a_query_of_zeros_is_the_mean_and_can_be_learnt():
  emb, weight, query = make()
  zero = np.zeros_like(query)
  np.testing.assert_allclose(
      pool(emb, weight, 'attention', zero),
      pool(emb, weight, 'mean', query),
      rtol=1e-6,
  )
  total = lambda q: jnp.sum(_pool(emb, weight, 'attention', q) ** 2)
  assert np.all(np.abs(jax.grad(total)(jnp.asarray(zero))) > 1e-3)


def test_attention_of_extreme_logits_is_finite():
  emb, weight, query = make()
  emb[3, 0] *= 1e4
  value, slope = jax.value_and_grad(
      lambda q: jnp.sum(_pool(emb, weight, 'attention', q))
  )(jnp.asarray(query * 1e3))
  assert np.isfinite(value) and np.all(np.isfinite(slope))


@pytest.mark.parametrize('kind', KINDS)
def test_a_feature_of_no_columns_is_zeros(kind):
  emb, weight, query = make()
  found = pool(emb[:, :0], weight[:, :0], kind, query)
  np.testing.assert_array_equal(found, np.zeros((ROWS, WIDTH)))


def test_wrong_use():
  emb, weight, query = make()
  with pytest.raises(ValueError, match="'attention', which needs one"):
    pooling.pool(emb, weight, 'attention')
  with pytest.raises(ValueError, match="'attention', which needs one"):
    pooling.pool(emb, weight, 'mean', query)
  with pytest.raises(ValueError, match="Unknown pooling 'median'"):
    pooling.pool(emb, weight, 'median')
