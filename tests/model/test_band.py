# SPDX-License-Identifier: Apache-2.0
"""Bands of scores against the definition of a rolled negative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax.model import band
from tests import compilation


def _slow(user, item, first, num):
  """Every entry from its definition, in float64."""
  size = len(user)
  return np.array(
      [
          [user[b] @ item[(b - first - m) % size] for m in range(num)]
          for b in range(size)
      ]
  )


def _embeddings(size, width=3):
  rng = np.random.default_rng([size, width])
  return rng.normal(size=(2, size, width))


@pytest.mark.parametrize(
    'size, first, num',
    [(1, 0, 1), (7, 1, 6), (8, 3, 4), (9, 8, 4), (10, 1, 3), (6, 0, 6)],
)
def test_scores_are_those_of_rolled_items(size, first, num):
  user, item = _embeddings(size)
  found = band.consecutive_scores(
      jnp.float32(user), jnp.float32(item), jnp.int32(first), num
  )
  expected = _slow(user, item, first, num)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  rolled = np.stack(
      [np.sum(user * np.roll(item, first + m, 0), 1) for m in range(num)], 1
  )
  np.testing.assert_allclose(expected, rolled, rtol=1e-12)


@pytest.mark.parametrize('length', [1, 2, 4, 6, 12])
@pytest.mark.parametrize('first, num', [(1, 4), (3, 7)])
def test_parts_of_the_rows_are_those_of_all(length, first, num):
  """As devices have them; the parts of the items' gradient are added."""
  user, item = map(jnp.float32, _embeddings(12))
  score = lambda u, i, n: band.consecutive_scores(u, i, first, num, n)
  square = lambda u, i, n: jnp.sum(score(u, i, n) ** 2)
  found, grads = [], []
  for n in range(0, 12, length):
    rows = user[n : n + length]
    found.append(score(rows, item, jnp.int32(n)))
    grads.append(jax.grad(square, argnums=(0, 1))(rows, item, n))
  whole = jax.grad(square, argnums=(0, 1))(user, item, 0)
  same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
  same(np.concatenate(found), score(user, item, 0))
  same(np.concatenate([own for own, _ in grads]), whole[0])
  same(sum(other for _, other in grads), whole[1])


def test_gradients_are_those_of_the_definition():
  size, first, num = 11, 2, 4
  user, item = _embeddings(size)
  weight = np.random.default_rng(0).normal(size=(size, num))

  def total(user, item):
    score = band.consecutive_scores(user, item, jnp.int32(first), num)
    return jnp.sum(jnp.float32(weight) * score)

  grads = jax.grad(total, argnums=(0, 1))(jnp.float32(user), jnp.float32(item))
  expected = np.zeros_like(user), np.zeros_like(item)
  for b in range(size):
    for m in range(num):
      other = (b - first - m) % size
      expected[0][b] += weight[b, m] * item[other]
      expected[1][other] += weight[b, m] * user[b]
  for found, slow in zip(grads, expected, strict=True):
    np.testing.assert_allclose(found, slow, rtol=1e-5, atol=1e-5)


def test_no_table_of_all_rows_and_negatives_is_made():
  size, width, num = 512, 16, 64
  shape = jax.ShapeDtypeStruct((size, width), jnp.float32)

  def grads(user, item):
    score = lambda u, i: jnp.sum(band.consecutive_scores(u, i, 1, num) ** 2)
    return jax.grad(score, argnums=(0, 1))(user, item)

  lowered = jax.jit(grads).lower(shape, shape)
  compiled = lowered.compile(compilation.USUAL_CODE)
  memory = compiled.memory_analysis().temp_size_in_bytes
  assert memory < 4 * size * num * width


def test_first_shifts_are_uniform_over_all_that_fit():
  keys = jax.random.split(jax.random.key(0), 6000)
  draw = jax.vmap(lambda key: band.first_shift(key, 8, 5))
  values, counts = np.unique(draw(keys), return_counts=True)
  np.testing.assert_array_equal(values, [1, 2, 3])  # the last shift is 7
  np.testing.assert_allclose(counts, 2000, rtol=0.1)


@pytest.mark.parametrize('num', [0, 8])
def test_shifts_that_do_not_fit_are_refused(num):
  with pytest.raises(ValueError, match=r'num must be in \[1, 7\]'):
    band.first_shift(jax.random.key(0), 8, num)


@pytest.mark.parametrize('num', [0, 5])
def test_a_number_out_of_range_is_refused(num):
  with pytest.raises(ValueError, match=r'num must be in \[1, 4\]'):
    band.consecutive_scores(jnp.ones((4, 2)), jnp.ones((4, 2)), 1, num)


def test_shapes_that_differ_are_refused():
  with pytest.raises(ValueError, match='Shapes differ'):
    band.consecutive_scores(jnp.ones((4, 2)), jnp.ones((3, 2)), 1, 2)
