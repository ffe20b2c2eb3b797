# SPDX-License-Identifier: Apache-2.0
"""What each label loss is a mean over: rows, pairs, rows with a negative.

A loss over nothing is 0, which looks like a perfect one; its count tells them
apart. Takes the same arrays as the functions of `losses`.
"""

import jax
import jax.numpy as jnp

from dropoutnet_jax.model import batch_softmax
from dropoutnet_jax.model import pairs


def pointwise(weight: jax.Array) -> jax.Array:
  """Rows of weight [B] > 0: float32 []."""
  return jnp.sum(weight > 0, dtype=jnp.float32)


def pairwise(
    label: jax.Array, weight: jax.Array, session: jax.Array | None = None
) -> jax.Array:
  """Ordered pairs, before a hard_ratio takes some: float32 []."""
  counts = pairs.counts(pairs.make_rows(label, weight, session))
  return jnp.sum(counts, dtype=jnp.float32)


def support_vector_softmax(weight: jax.Array, mask: jax.Array) -> jax.Array:
  """Rows of weight [B] > 0 with a negative in mask [B, M]: float32 []."""
  return pointwise(batch_softmax.weight_with_negative(weight, mask))


def in_batch_softmax(rows: batch_softmax.Rows) -> jax.Array:
  """Rows of `batch_softmax.prepare`, of weight > 0 with a negative: []."""
  return pointwise(rows.weight)
