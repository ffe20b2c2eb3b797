# SPDX-License-Identifier: Apache-2.0
"""Pooling: the embeddings of a row's tokens become one vector per feature.

A token of weight 0 is none: it adds exactly zero and has no gradient. A row
without any token becomes a vector of zeros, whatever the pooling.
"""

import jax
import jax.numpy as jnp


def pool(
    emb: jax.Array,
    weight: jax.Array,
    kind: str,
    query: jax.Array | None = None,
) -> jax.Array:
  """Pools the embeddings of one feature.

  Args:
    emb: float32 [B, W, D], of each token.
    weight: float32 [B, W] >= 0.
    kind: 'sum', weighted; 'mean', weighted; 'max', of each number over the
      tokens that there are; 'attention', the mean under weights times
      exp(embedding . query / sqrt(D)).
    query: float32 [D], for 'attention' alone.

  Returns:
    float32 [B, D].

  Raises:
    ValueError: an unknown kind, or a query where none belongs.
  """
  if (query is not None) != (kind == 'attention'):
    raise ValueError("A query is for pooling 'attention', which needs one.")
  there = weight > 0
  if kind == 'max':
    value = jnp.where(there[..., None], emb, -jnp.inf)
    some = jnp.any(there, axis=1)[:, None]
    return jnp.where(some, jnp.max(value, axis=1, initial=-jnp.inf), 0.0)
  if query is not None:
    logit = jnp.sum(emb * query[None, None], axis=-1) / emb.shape[-1] ** 0.5
    largest = jnp.max(logit, axis=1, where=there, initial=-jnp.inf)
    largest = jnp.where(jnp.any(there, axis=1), largest, 0.0)[:, None]
    # What is not there must not overflow either, or 0 times its slope is NaN.
    logit = jnp.where(there, logit - jax.lax.stop_gradient(largest), 0.0)
    weight = weight * jnp.exp(logit)
  elif kind not in ('sum', 'mean'):
    raise ValueError(f'Unknown pooling {kind!r}.')
  total = jnp.sum(weight[..., None] * emb, axis=1)
  if kind == 'sum':
    return total
  size = jnp.sum(weight, axis=1)[:, None]
  return total / jnp.where(size > 0, size, 1.0)
