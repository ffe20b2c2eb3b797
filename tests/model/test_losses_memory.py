# SPDX-License-Identifier: Apache-2.0
"""Large batches: no array of all pairs, the same on many devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax.model import losses
from dropoutnet_jax.model import row_chunks
from tests import compilation


def _in_batch(user, item, weight, label):
  ids = jnp.int32(label) * jnp.arange(len(label))
  return losses.in_batch_softmax(
      user, item, weight, temperature=0.1, item_id=ids
  )


def _hard_pairs(user, item, weight, label):
  score = jnp.sum(user * item, axis=-1)
  return losses.pairwise(score, label, weight, hard_ratio=0.3)


LOSSES = {'in batch': _in_batch, 'hard pairs': _hard_pairs}


def _arrays(size, rank=4):
  rng = np.random.default_rng(0)
  user, item = (
      jnp.array(rng.normal(size=(size, rank)), jnp.float32) for _ in range(2)
  )
  label = jnp.array(rng.integers(0, 2, size), jnp.float32)
  return user, item, jnp.ones(size), label


@pytest.mark.parametrize('name', LOSSES)
def test_a_large_batch_keeps_no_array_of_all_pairs(name, monkeypatch):
  monkeypatch.setattr(row_chunks, 'MOST_PAIRS', 2**18)
  step = jax.jit(jax.value_and_grad(LOSSES[name], argnums=(0, 1)))
  arrays = _arrays(2048)
  compiled = step.lower(*arrays).compile(compilation.USUAL_CODE)
  # A chunk needs a few arrays of its pairs; all pairs would take 16 MiB.
  used = compiled.memory_analysis().temp_size_in_bytes
  assert used < 4 * (4 * row_chunks.MOST_PAIRS)
  value, grads = compiled(*arrays)
  assert np.isfinite(value)
  assert all(np.all(np.isfinite(grad)) for grad in grads)


@pytest.mark.parametrize('name', LOSSES)
def test_a_batch_split_over_devices_costs_the_same(name, monkeypatch):
  monkeypatch.setattr(row_chunks, 'MOST_PAIRS', 1)
  monkeypatch.setattr(row_chunks, 'LEAST_ROWS', 16)
  arrays = _arrays(64)
  step = jax.jit(jax.value_and_grad(LOSSES[name], argnums=(0, 1)))
  mesh = jax.make_mesh((8,), ('data',), (jax.sharding.AxisType.Auto,))
  split = jax.NamedSharding(mesh, jax.P('data'))
  with compilation.quick_compilation():
    value, grads = step(*arrays)
    many_value, many_grads = step(*(jax.device_put(x, split) for x in arrays))
  np.testing.assert_allclose(many_value, value, rtol=1e-6)
  for many, one in zip(many_grads, grads, strict=True):
    np.testing.assert_allclose(many, one, rtol=1e-5, atol=1e-7)
