# SPDX-License-Identifier: Apache-2.0
"""The support-vector-guided softmax against loops and a published value."""

import functools
import math

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax.model import effective_rows
from dropoutnet_jax.model import losses
from tests.model import slow_losses

SMALL = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)

pytestmark = pytest.mark.usefixtures('quick_compilation')


def test_the_published_value():
  """Of EasyRec's unit test of this loss, whose two shifts are both 3."""
  user = [
      [0.1, 0.5, 0.3],
      [0.8, -0.1, 0.3],
      [0.28, 0.3, 0.9],
      [0.37, 0.45, 0.93],
      [-0.7, 0.15, 0.03],
      [0.18, 0.9, -0.3],
  ]
  item = [
      [0.1, -0.5, 0.3],
      [0.8, -0.31, 0.3],
      [0.7, -0.45, 0.15],
      [0.08, -0.31, -0.9],
      [-0.7, 0.85, 0.03],
      [0.18, 0.89, -0.3],
  ]
  user, item = (
      x / np.linalg.norm(x, axis=1, keepdims=True)
      for x in (np.float32(user), np.float32(item))
  )
  label = jnp.array([1.0, 1, 0, 0, 1, 1])
  positive = np.sum(user * item, axis=1)
  rolled = np.sum(user * np.roll(item, 3, axis=0), axis=1)
  got = losses.support_vector_softmax(
      jnp.array(positive), jnp.stack([rolled, rolled], axis=1), label
  )
  np.testing.assert_allclose(got, 0.485771735, rtol=3e-7)


def _support_rows(seed, size=5, negatives=4, scale=1.0):
  rng = np.random.default_rng(seed)
  weight = rng.integers(0, 3, size) * rng.uniform(0.5, 1, size)
  return (
      np.float32(rng.normal(size=size) * scale),
      np.float32(rng.normal(size=(size, negatives)) * scale),
      np.float32(weight),
      rng.random((size, negatives)) < 0.6,
  )


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize(
    'options',
    [
        {},
        {'gamma': 20.0},
        {'margin': 0.3, 't': 1.5},
        {'margin': 0.1, 'gamma': 5.0, 't': 1.2},
        {'margin': 0.1, 't': 1.5, 'smoothing': 0.5},
    ],
    ids=str,
)
def test_support_vectors_equal_the_loop(options, masked):
  loss = jax.jit(
      jax.value_and_grad(
          functools.partial(losses.support_vector_softmax, **options),
          argnums=(0, 1),
      )
  )
  slow = functools.partial(slow_losses.support_vector_softmax, **options)
  for seed in range(6):
    scale = 10.0 ** (seed - 1)
    *rows, mask = _support_rows(seed, scale=scale)
    mask = mask if masked else None
    positive, negative, weight = (np.float64(x) for x in rows)
    value, grads = loss(*rows, mask=mask)
    SMALL(value, slow(positive, negative, weight, mask=mask))
    expected = slow_losses.gradient(
        lambda p, n: slow(p, n, weight, mask=mask),
        positive,
        negative,
        step=min(1e-4, 1e-2 / options.get('gamma', 1)),
    )
    for grad, right in zip(grads, expected, strict=True):
      SMALL(grad, right)


def test_support_vectors_by_hand():
  positive, negative = jnp.array([0.5]), jnp.array([[0.1, 0.4]])
  loss = functools.partial(
      losses.support_vector_softmax, positive, negative, jnp.ones(1)
  )
  expected = math.log(math.exp(0.5) + math.exp(0.1) + math.exp(0.4)) - 0.5
  np.testing.assert_allclose(loss(), expected, rtol=1e-6)
  # With a margin of 0.2 the second is hard: 0.4 -> 1.5 * 0.4 + 0.5.
  logits = np.exp(10 * np.array([0.3, 0.1, 1.1]))
  np.testing.assert_allclose(
      loss(margin=0.2, t=1.5, gamma=10.0),
      -math.log(logits[0] / logits.sum()),
      rtol=1e-6,
  )
  # At the bound a negative is not hard.
  got = losses.support_vector_softmax(
      jnp.array([0.5]), jnp.array([[0.5]]), jnp.ones(1), t=3.0
  )
  np.testing.assert_allclose(got, math.log(2), rtol=1e-6)


def test_a_little_smoothing_is_the_jump_almost_everywhere():
  positive, negative = jnp.array([0.5]), jnp.array([[0.3, 0.7]])
  loss = functools.partial(
      losses.support_vector_softmax, positive, negative, jnp.ones(1), t=2.0
  )
  np.testing.assert_allclose(loss(smoothing=1e-3), loss(), rtol=1e-6)
  assert loss(smoothing=1.0) > loss(t=1.0)
  # At the bound a negative is half as hard: 0.5 + 1.5 / 2.
  got = losses.support_vector_softmax(
      positive, positive[None], jnp.ones(1), t=2.0, smoothing=0.1
  )
  np.testing.assert_allclose(got, math.log(1 + math.exp(0.75)), rtol=1e-6)


def test_a_masked_negative_has_no_probability():
  """The gradient by a negative is gamma times its probability."""
  *rows, mask = _support_rows(1, size=6)
  rows[1] = np.where(mask, rows[1], 50.0)  # would win if it counted
  rows[2][:] = 1.0
  grad = jax.grad(losses.support_vector_softmax, argnums=1)(
      *map(jnp.array, rows), mask=jnp.array(mask)
  )
  np.testing.assert_array_equal(grad[~mask], 0)
  assert np.all(grad[mask] > 0)


def test_a_tiny_cost_is_not_lost():
  got = losses.support_vector_softmax(
      jnp.array([1.0]), jnp.array([[-1.0, -1.0]]), jnp.ones(1), gamma=20.0
  )
  np.testing.assert_allclose(got, 2 * math.exp(-40), rtol=1e-5)


def test_a_row_without_negatives_is_left_out():
  positive, negative, _, _ = map(jnp.array, _support_rows(2, size=3))
  mask = jnp.array([[True] * 4, [False] * 4, [True] * 4])
  weight = jnp.array([1.0, 5.0, 2.0])
  got = losses.support_vector_softmax(positive, negative, weight, mask=mask)
  keep = jnp.array([0, 2])
  expected = losses.support_vector_softmax(
      positive[keep], negative[keep], weight[keep]
  )
  np.testing.assert_allclose(got, expected, rtol=1e-6)
  assert effective_rows.support_vector_softmax(weight, mask) == 2
  weight = weight.at[0].set(0)
  assert effective_rows.support_vector_softmax(weight, mask) == 1


@pytest.mark.parametrize(
    'weight, counts, negatives',
    [(0.0, True, 4), (1.0, False, 4), (1.0, True, 0)],
    ids=['no positive', 'all masked', 'no negatives'],
)
@pytest.mark.parametrize('fill', [1.0, 1e4, math.nan])
def test_no_support_vectors_cost_nothing(weight, counts, negatives, fill):
  value, grads = jax.value_and_grad(
      losses.support_vector_softmax, argnums=(0, 1)
  )(
      jnp.full(2, fill),
      jnp.full((2, negatives), fill),
      jnp.full(2, weight),
      mask=jnp.full((2, negatives), counts),
  )
  assert value == 0
  for grad in grads:
    np.testing.assert_array_equal(grad, 0)


@hypothesis.given(
    seed=st.integers(0, 10**6), shift=st.integers(-64, 64).map(float)
)
@hypothesis.settings(max_examples=30)
def test_softmax_ignores_a_shift_and_the_order_of_negatives(seed, shift):
  *rows, mask = map(jnp.array, _support_rows(seed))
  value = losses.support_vector_softmax(*rows, mask=mask)
  shifted = losses.support_vector_softmax(
      rows[0] + shift, rows[1] + shift, rows[2], mask=mask
  )
  SMALL(shifted, value)
  order = np.random.default_rng(seed).permutation(4)
  SMALL(
      losses.support_vector_softmax(
          rows[0], rows[1][:, order], rows[2], mask=mask[:, order]
      ),
      value,
  )


@pytest.mark.parametrize(
    'options, message',
    [
        ({'gamma': 0.0}, 'gamma is 0.0; it must be above 0'),
        ({'t': 0.5}, 't is 0.5; it must be at least 1'),
        ({'smoothing': -1.0}, 'smoothing is -1.0; it must be at least 0'),
        ({'margin': math.nan}, 'margin is nan; it must be finite'),
        ({'mask': jnp.ones((3, 1), bool)}, r'Shapes differ: .*mask \(3, 1\)'),
        ({'weight': jnp.ones(1)}, r'Shapes differ: .*weight \(1,\)'),
        ({'negative': jnp.ones(3)}, r'mask \(3,\) must be \[B\] and \[B, M\]'),
        ({'negative': jnp.ones((1, 4))}, r'weight \(3,\) and mask \(1, 4\)'),
    ],
)
def test_wrong_support_vector_options_are_refused(options, message):
  given = dict(
      positive=jnp.ones(3), negative=jnp.ones((3, 4)), weight=jnp.ones(3)
  )
  with pytest.raises(ValueError, match=message):
    losses.support_vector_softmax(**{**given, **options})
