# SPDX-License-Identifier: Apache-2.0
"""Scores of all pairs of a block, with factors of a chosen type.

These products are most of the work of a step over a large block, forwards and
backwards. It knows no loss.
"""

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def block_scores(
    user_emb: jax.Array, item_emb: jax.Array, dtype: jnp.dtype
) -> jax.Array:
  """Dot products of rows [U, R] and [I, R]: float32 [U, I].

  Factors are rounded to dtype, forwards and backwards: the gradient that JAX
  derives would multiply the float32 cotangent at full width.
  """
  return _rounded_matmul(user_emb, item_emb.T, dtype)


def _rounded_matmul(a: jax.Array, b: jax.Array, dtype: jnp.dtype) -> jax.Array:
  return jnp.matmul(
      a.astype(dtype), b.astype(dtype), preferred_element_type=jnp.float32
  )


def _block_scores_forward(
    user_emb: jax.Array, item_emb: jax.Array, dtype: jnp.dtype
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return block_scores(user_emb, item_emb, dtype), (user_emb, item_emb)


def _block_scores_backward(
    dtype: jnp.dtype,
    embeddings: tuple[jax.Array, jax.Array],
    gradient: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  user_emb, item_emb = embeddings
  return (
      _rounded_matmul(gradient, item_emb, dtype).astype(user_emb.dtype),
      _rounded_matmul(gradient.T, user_emb, dtype).astype(item_emb.dtype),
  )


block_scores.defvjp(_block_scores_forward, _block_scores_backward)
