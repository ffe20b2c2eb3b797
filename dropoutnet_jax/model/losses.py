# SPDX-License-Identifier: Apache-2.0
"""Training losses: pure functions from arrays to one scalar.

Every loss is a masked weighted mean, 0 with zero gradient on an empty set; it
knows no model, config or device.
"""

import functools

import jax
import jax.numpy as jnp


def weighted_mean(value: jax.Array, weight: jax.Array) -> jax.Array:
  """Mean of value under weight, of one shape; 0, gradient 0, if all are 0.

  Raises:
    ValueError: if the shapes differ: broadcasting [B] against [B, 1] is the
      classic silent mistake.
  """
  if value.shape != weight.shape:
    raise ValueError(f'Shapes differ: {value.shape} and {weight.shape}.')
  total = jnp.sum(weight)
  # Masked before the product: 0 * inf would be NaN, also in the gradient.
  masked = jnp.where(weight > 0, value, 0.0) * weight
  return jnp.sum(masked) / jnp.where(total > 0, total, 1.0)


def teacher(
    user_emb: jax.Array,
    item_emb: jax.Array,
    target: jax.Array,
    weight: jax.Array,
) -> jax.Array:
  """Mean squared gap to the teacher's scores of pairs (equation 2).

  Volkovs, Yu & Poutanen, "DropoutNet", NIPS 2017.

  Args:
    user_emb: [B, R], row b belongs to pair b.
    item_emb: [B, R].
    target: [B], the teacher's score of each pair.
    weight: [B] >= 0, 0 for padding.

  Returns:
    float32 [].

  Raises:
    ValueError: if the shapes do not pair up.
  """
  if user_emb.shape != item_emb.shape:
    raise ValueError(f'Shapes differ: {user_emb.shape}, {item_emb.shape}.')
  score = jnp.sum(user_emb * item_emb, axis=-1, dtype=jnp.float32)
  return weighted_mean((score - target) ** 2, weight)


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


def teacher_block(
    user_emb: jax.Array,
    item_emb: jax.Array,
    target: jax.Array,
    weight: jax.Array,
    dtype: jnp.dtype = jnp.dtype('float32'),
) -> jax.Array:
  """The same regression over all pairs of a block of users and items.

  Args:
    user_emb: [U, R], each user of the block once.
    item_emb: [I, R], each item of the block once.
    target: [U, I], the teacher's scores.
    weight: [U, I] >= 0, 0 for pairs that do not count.
    dtype: of the factors of the three products (scores and both gradients),
      which are most of the work of a large block; sums are float32.

  Returns:
    float32 [].

  Raises:
    ValueError: if the shapes do not pair up.
  """
  score = block_scores(user_emb, item_emb, dtype)
  if score.shape != target.shape:
    raise ValueError(f'Shapes differ: {score.shape} and {target.shape}.')
  return weighted_mean((score - target) ** 2, weight)


def positive_weight(target: jax.Array, strength: float) -> jax.Array:
  """1 + strength * max(target, 0): stands in for oversampled top items.

  The published pairs are half each user's top items by teacher score, half
  random ones. Over a whole block the same emphasis is a weight that grows with
  the score.
  """
  return 1.0 + strength * jnp.maximum(target, 0.0)
