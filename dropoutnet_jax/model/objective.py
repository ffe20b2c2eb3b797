# SPDX-License-Identifier: Apache-2.0
"""What is minimised: terms by name, each with its weight and its rows.

Between the losses, which know arrays, and the step, which knows a batch: here
targets are formed from the teacher's factors and preferences from tables.
"""

import jax
import jax.numpy as jnp

from dropoutnet_jax import config
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.model import input_dropout
from dropoutnet_jax.model import losses


def preference(
    side: tables_lib.SideTable, rows: jax.Array
) -> input_dropout.Preference:
  """Own preference of rows [B], not dropped."""
  return input_dropout.Preference(side.preference[rows], side.present[rows])


def history_preference(
    side: tables_lib.SideTable,
    rows: jax.Array,
    left_out: jax.Array,
    num_left: jax.Array,
) -> input_dropout.Preference:
  """History mean of rows [B], scaled like a preference of this side.

  Args:
    side: the side that the rows belong to.
    rows: int32 [B].
    left_out: [B, P], unscaled sum over the part of the history in training.
    num_left: int32 [B], its length.
  """
  mean = input_dropout.history_mean(
      side.history_total[rows], side.history_count[rows], left_out, num_left
  )
  scaled = side.history_scaler(mean.value)
  value = jnp.where(mean.present[:, None], scaled, 0.0)
  return input_dropout.Preference(value, mean.present)


def block_terms(
    settings: config.ObjectiveConfig,
    user: embeddings.Embedding,
    item: embeddings.Embedding,
    user_factors: jax.Array,
    item_factors: jax.Array,
    dtype: jnp.dtype = jnp.dtype('float32'),
) -> dict[str, jax.Array]:
  """Loss terms over all pairs of a block.

  Args:
    settings: weights of the terms and of the pairs.
    user: embeddings of the block's U users.
    item: embeddings of the block's I items.
    user_factors: [U, P], the teacher's, unscaled.
    item_factors: [I, P].
    dtype: of the factors of the score product; targets are of float32.
  """
  target = user_factors @ item_factors.T
  weight = losses.positive_weight(target, settings.positive_weight)
  loss = losses.teacher_block(user.dense, item.dense, target, weight, dtype)
  return {'teacher': loss}


def pair_terms(
    user: embeddings.Embedding,
    item: embeddings.Embedding,
    user_factors: jax.Array,
    item_factors: jax.Array,
    weight: jax.Array | None = None,
) -> dict[str, jax.Array]:
  """Loss terms over single pairs; all arrays [B, ...], row b is pair b.

  Args:
    user: embeddings of the users.
    item: embeddings of the items.
    user_factors: [B, P], the teacher's, unscaled.
    item_factors: [B, P].
    weight: [B] >= 0, 0 for padding; None is 1 for all.
  """
  target = jnp.sum(user_factors * item_factors, axis=-1)
  weight = jnp.ones_like(target) if weight is None else weight
  return {'teacher': losses.teacher(user.dense, item.dense, target, weight)}


def total(
    settings: config.ObjectiveConfig, terms: dict[str, jax.Array]
) -> jax.Array:
  """Sum of the terms under their configured weights."""
  return sum(
      (getattr(settings, name) * value for name, value in terms.items()),
      jnp.zeros(()),
  )
