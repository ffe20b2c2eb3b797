# SPDX-License-Identifier: Apache-2.0
"""The in-batch softmax with sampled items beside those of the batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax.model import batch_softmax
from dropoutnet_jax.model import losses
from dropoutnet_jax.model import row_chunks
from tests.model import slow_losses

pytestmark = pytest.mark.usefixtures('quick_compilation')
SIZE, SAMPLED, RANK = 6, 4, 2


def _batch(seed):
  """Rows (weights float64, for the loop), options and sampled items."""
  rng = np.random.default_rng(seed)
  draw = lambda rows: np.float32(rng.integers(-16, 17, (rows, RANK)) / 8)
  rows = draw(SIZE), draw(SIZE), np.float64(rng.integers(0, 3, SIZE))
  masks = {
      'log_q': np.float32(rng.uniform(-8, 0, SIZE)),
      'item_id': np.int32(rng.integers(0, SIZE, SIZE)),
      'history_mask': rng.random((SIZE, SIZE + SAMPLED)) < 0.3,
      'item_mask': rng.random(SIZE) < 0.8,
  }
  ids = np.int32(rng.integers(0, SIZE, SAMPLED))
  log_q = np.float32(rng.uniform(-8, 0, SAMPLED))
  return rows, masks, (draw(SAMPLED), ids, log_q)


@pytest.mark.parametrize('chunks', [False, True])
def test_sampled_items_are_in_the_loop(chunks, monkeypatch):
  if chunks:
    monkeypatch.setattr(row_chunks, 'MOST_PAIRS', 1)
    monkeypatch.setattr(row_chunks, 'LEAST_ROWS', 2)

  @functools.partial(jax.value_and_grad, argnums=(0, 1, 2))
  def loss(user, item, emb, weight, masks, ids, log_q):
    sampled = batch_softmax.Sampled(emb, ids, log_q)
    return losses.in_batch_softmax(
        user, item, weight, temperature=0.5, sampled=sampled, **masks
    )

  loss = jax.jit(loss)
  for seed in range(4):
    (user, item, weight), masks, (emb, ids, log_q) = _batch(seed)
    value, grads = loss(user, item, emb, np.float32(weight), masks, ids, log_q)

    def slow(user, item, emb):
      return slow_losses.in_batch_softmax(
          user, item, weight, 0.5, sampled=(emb, ids, log_q), **masks
      )

    exact = [np.float64(x) for x in (user, item, emb)]
    np.testing.assert_allclose(value, slow(*exact), rtol=1e-5, atol=1e-6)
    expected = slow_losses.gradient(slow, *exact, step=1e-4)
    for grad, right in zip(grads, expected, strict=True):
      np.testing.assert_allclose(grad, right, rtol=1e-4, atol=1e-5)


def test_sampled_items_alone_make_a_negative_of_one_row():
  """Costs softplus of the gap to the sampled item, which is rarer by 1."""
  loss = functools.partial(
      jax.jit(losses.in_batch_softmax),
      jnp.array([[2.0]]),
      jnp.array([[1.0]]),
      jnp.ones(1),
      temperature=jnp.float32(1.0),
      log_q=jnp.array([-1.0]),
      item_id=jnp.array([3]),
  )
  sampled = lambda number: batch_softmax.Sampled(
      jnp.array([[1.0]]), jnp.array([number]), jnp.array([-2.0])
  )
  assert loss(sampled=sampled(3)) == 0
  np.testing.assert_allclose(
      loss(sampled=sampled(4)), np.logaddexp(0, 1.0), rtol=1e-6
  )
  known = jnp.array([[False, True]])
  assert loss(sampled=sampled(4), history_mask=known) == 0


def test_without_ids_every_item_is_one_of_its_own():
  (user, item, _), _, (emb, _, log_q) = _batch(0)
  weight = jnp.ones(SIZE)
  found = jax.jit(losses.in_batch_softmax)(
      user,
      item,
      weight,
      temperature=1.0,
      sampled=batch_softmax.Sampled(emb, jnp.zeros(SAMPLED, int), log_q),
  )
  expected = slow_losses.in_batch_softmax(
      user, item, np.ones(SIZE), 1.0, sampled=(emb, range(SAMPLED), log_q)
  )
  np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    'options, message',
    [
        (
            {'history_mask': jnp.ones((6, 6), bool)},
            r'history_mask is \(6, 6\); it must be \[B, B \+ S\], here \(6, 10',
        ),
        (
            {
                'sampled': batch_softmax.Sampled(
                    jnp.ones((4, 2)), jnp.ones(3, int), jnp.ones(4)
                )
            },
            r'Shapes differ: item_id \(3,\), log_q \(4,\), emb \(4,\)',
        ),
    ],
)
def test_wrong_shapes(options, message):
  rows, _, sampled = _batch(0)
  given = {'sampled': batch_softmax.Sampled(*sampled)} | options
  with pytest.raises(ValueError, match=message):
    losses.in_batch_softmax(*rows, temperature=1.0, **given)
