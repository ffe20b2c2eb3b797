# SPDX-License-Identifier: Apache-2.0
"""Softmax of each row's item among the items of its batch, by chunks of rows.

Every item of the batch is a negative of a row, but for the row's own, the same
item in another row, known positives of the row's user and items not offered.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dropoutnet_jax.model import block_products
from dropoutnet_jax.model import loss_inputs
from dropoutnet_jax.model import row_chunks


class Rows(NamedTuple):
  """B rows of a batch, or C of them.

  Attributes:
    weight: float32 [B] >= 0.
    item_id: int [B].
    log_q: float32 [B], what is subtracted from an item's logits.
    offered: bool [B], the row's item may be a negative of others.
    history: bool [B, B] or None, the column's item is a known positive of the
      row's user.
  """

  weight: jax.Array
  item_id: jax.Array
  log_q: jax.Array
  offered: jax.Array
  history: jax.Array | None


def make_rows(
    weight: jax.Array,
    log_q: jax.Array | None,
    item_id: jax.Array | None,
    history_mask: jax.Array | None,
    item_mask: jax.Array | None,
) -> Rows:
  """Checks and completes what `losses.in_batch_softmax` is given.

  Raises:
    ValueError: if shapes do not fit.
  """
  size = weight.shape[0]
  if item_id is None:
    item_id = jnp.arange(size)
  offered = weight > 0 if item_mask is None else item_mask
  log_q = jnp.zeros(size) if log_q is None else log_q
  loss_inputs.check_same_shape(
      weight=weight, log_q=log_q, item_id=item_id, item_mask=offered
  )
  if history_mask is not None and history_mask.shape != (size, size):
    raise ValueError(
        f'history_mask is {history_mask.shape}; it must be [B, B], here '
        f'{(size, size)}.'
    )
  log_q = jax.lax.stop_gradient(log_q)
  log_q = loss_inputs.kept(log_q, offered | (weight > 0))
  weight = loss_inputs.kept(jax.lax.stop_gradient(weight), weight)
  return Rows(weight, item_id, log_q, offered, history_mask)


def total_weight(rows: Rows) -> jax.Array:
  """Weight of all rows that have a negative: float32 []."""

  def chunk_weight(
      shared: None, none: None, items: Rows, rows: Rows
  ) -> jax.Array:
    del shared, none
    return jnp.sum(weight_with_negative(rows.weight, negatives(rows, items)))

  items = rows._replace(history=None)
  return row_chunks.sum_over_rows(chunk_weight, None, None, items, rows)


def weight_with_negative(weight: jax.Array, mask: jax.Array) -> jax.Array:
  """Weight [B] in float32, 0 for rows without a negative in mask [B, M].

  Raises:
    ValueError: if shapes do not fit.
  """
  if mask.ndim != 2 or weight.shape != mask.shape[:1]:
    raise ValueError(
        f'weight {weight.shape} and mask {mask.shape} must be [B] and [B, M].'
    )
  weight = jax.lax.stop_gradient(weight)
  return loss_inputs.kept(weight, jnp.any(mask, axis=1) & (weight > 0))


def negatives(rows: Rows, items: Rows) -> jax.Array:
  """Where an item of B is a negative of a row of C: bool [C, B].

  Never a row's own item: its id is the same.
  """
  other = rows.item_id[:, None] != items.item_id[None, :]
  other &= items.offered[None, :]
  return other if rows.history is None else other & ~rows.history


def chunk_sum(
    dtype: jnp.dtype,
    item_emb: jax.Array,
    row_emb: tuple[jax.Array, jax.Array],
    items: Rows,
    rows: Rows,
) -> jax.Array:
  """Weighted sum of the rows' costs, 0 without a negative: float32 [].

  Args:
    dtype: of the factors of the products.
    item_emb: [B, R].
    row_emb: of users and of their own items, [C, R] each; users are divided by
      the temperature.
    items: of the batch.
    rows: C of them.
  """
  user_emb, own_emb = row_emb
  own = jnp.sum(user_emb * own_emb, axis=-1) - rows.log_q
  logit = block_products.block_scores(user_emb, item_emb, dtype)
  gap = logit - items.log_q[None, :] - own[:, None]
  cost = log_one_plus_sum_exp(jnp.where(negatives(rows, items), gap, -jnp.inf))
  return jnp.sum(cost * rows.weight)


def log_one_plus_sum_exp(gap: jax.Array) -> jax.Array:
  """log(1 + sum exp(gap)) over the last axis; an entry may be -inf.

  Cost of a softmax whose positive has logit 0, exact when it is tiny too.
  """
  largest = jax.lax.stop_gradient(jnp.max(gap, axis=-1, initial=0.0))
  rest = jnp.sum(jnp.exp(gap - largest[..., None]), axis=-1)
  return largest + jnp.log1p(rest + jnp.expm1(-largest))
