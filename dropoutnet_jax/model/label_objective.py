# SPDX-License-Identifier: Apache-2.0
"""What is minimised on labelled rows: the terms, each with its rows."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dropoutnet_jax import config
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.model import effective_rows
from dropoutnet_jax.model import losses
from dropoutnet_jax.model import negatives
from dropoutnet_jax.model import rolled


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
    shifts = rolled.roll_shifts(key, len(score), settings.num_negatives)
    mask = negatives.valid_negatives(rows.item, shifts, history)
    value['softmax'] = losses.support_vector_softmax(
        score,
        rolled.rolled_scores(user, item, shifts),
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
