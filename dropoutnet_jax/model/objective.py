# SPDX-License-Identifier: Apache-2.0
"""What is minimised: terms by name, each with its weight and its rows.

Between the losses, which know arrays, and the step, which knows a batch: here
targets are formed from the teacher's factors and preferences from tables.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dropoutnet_jax import config
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.model import effective_rows
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.model import input_dropout
from dropoutnet_jax.model import losses
from dropoutnet_jax.model import negatives


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
) -> dict[str, jax.Array]:
  """Loss terms over single pairs; all arrays [B, ...], row b is pair b."""
  target = jnp.sum(user_factors * item_factors, axis=-1)
  weight = jnp.ones_like(target)
  return {'teacher': losses.teacher(user.dense, item.dense, target, weight)}


class Terms(NamedTuple):
  """Loss terms by name, and how many rows (or pairs) each is a mean over."""

  value: dict[str, jax.Array]
  rows: dict[str, jax.Array]


def label_terms(
    settings: config.ObjectiveConfig,
    user: jax.Array,
    item: jax.Array,
    rows: tables_lib.LabelledRows,
    history: jax.Array | None,
    known: jax.Array | None,
    log_frequency: jax.Array,
    key: jax.Array,
) -> Terms:
  """Loss terms of a batch of labelled rows.

  Args:
    settings: weights and options of the terms.
    user: [B, R], embedding of each row's user.
    item: [B, R], of its item.
    rows: the batch.
    history: int32 [B, L], what each row's user likes, padded with -1; None
      counts that as negatives.
    known: bool [B, B], the same for the items of the batch; needed for
      'in_batch_softmax' alone.
    log_frequency: float32 [B], log of each item's share of the positive rows.
    key: draws the negatives.
  """
  label, weight = rows.label, rows.weight
  positive = jnp.where(label > 0, weight, 0.0)
  score = jnp.sum(user * item, axis=-1, dtype=jnp.float32)
  value, count = {}, {}
  if settings.pointwise:
    value['pointwise'] = losses.pointwise(
        score / settings.temperature,
        label,
        weight,
        label_smoothing=settings.label_smoothing,
        focal_gamma=settings.focal_gamma or None,
    )
    count['pointwise'] = effective_rows.pointwise(weight)
  if settings.pairwise:
    value['pairwise'] = losses.pairwise(
        score,
        label,
        weight,
        kind=settings.pairwise_kind,
        margin=settings.pairwise_margin,
        temperature=settings.temperature,
        hard_ratio=settings.hard_ratio,
    )
    count['pairwise'] = effective_rows.pairwise(label, weight)
  if settings.softmax:
    shifts = negatives.roll_shifts(key, len(score), settings.num_negatives)
    mask = negatives.valid_negatives(rows.item, shifts, history)
    value['softmax'] = losses.support_vector_softmax(
        score,
        negatives.rolled_scores(user, item, shifts),
        positive,
        margin=settings.margin,
        gamma=1.0 / settings.temperature,
        t=settings.support_vector,
        mask=mask,
    )
    count['softmax'] = effective_rows.support_vector_softmax(positive, mask)
  if settings.in_batch_softmax:
    # An item that was shown in vain is a negative of others like any other.
    masks = {
        'item_id': rows.item,
        'history_mask': known,
        'item_mask': weight > 0,
    }
    value['in_batch_softmax'] = losses.in_batch_softmax(
        user,
        item,
        positive,
        log_q=settings.log_q * log_frequency if settings.log_q else None,
        temperature=settings.temperature,
        **masks,
    )
    count['in_batch_softmax'] = effective_rows.in_batch_softmax(
        positive, **masks
    )
  return Terms(value, count)


def total(
    settings: config.ObjectiveConfig, terms: dict[str, jax.Array]
) -> jax.Array:
  """Sum of the terms under their configured weights."""
  return sum(
      (getattr(settings, name) * value for name, value in terms.items()),
      jnp.zeros(()),
  )
