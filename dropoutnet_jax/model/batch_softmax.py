# SPDX-License-Identifier: Apache-2.0
"""Softmax of each row's item among the items of its batch, by chunks of rows.

Every item of the batch is a negative of a row, but for the row's own, the same
item in another row, known positives of the row's user and items not offered;
and so is every sampled item, under the same conditions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dropoutnet_jax.data import batches
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
    history: bool [B, B + S] or None, the column's item is a known positive of
      the row's user. Or int32 [B, L], places of these among the items.
    first: int32 [B + S], of the items, where a history has places: the first
      place of each one's item.
  """

  weight: jax.Array
  item_id: jax.Array
  log_q: jax.Array
  offered: jax.Array
  history: jax.Array | None = None
  first: jax.Array | None = None


class Sampled(NamedTuple):
  """S items beside those of the batch, which all rows share.

  Attributes:
    emb: [S, R].
    item_id: int [S].
    log_q: [S], what is subtracted from their logits; data.
  """

  emb: jax.Array
  item_id: jax.Array
  log_q: jax.Array


def prepare(
    weight: jax.Array,
    log_q: jax.Array | None,
    item_id: jax.Array | None,
    history_mask: jax.Array | batches.Places | None,
    item_mask: jax.Array | None,
    sampled: Sampled | None = None,
    over_rows: row_chunks.OverRows = row_chunks.on_one_device,
) -> tuple[Rows, Rows]:
  """Checks and completes what `losses.in_batch_softmax` is given.

  A history may be given as places instead of a mask, which then is made chunk
  by chunk: no device ever holds B x B of anything.

  Returns:
    B rows, of weight 0 where there is no negative, and the B + S items that
    they are compared with.

  Raises:
    ValueError: if shapes do not fit.
  """
  rows = _make_rows(weight, log_q, item_id, item_mask)
  items = rows
  if sampled is not None:
    loss_inputs.check_same_shape(
        item_id=sampled.item_id, log_q=sampled.log_q, emb=sampled.emb[:, 0]
    )
    # Without ids every item is one of its own.
    other_id = sampled.item_id
    if item_id is None:
      other_id = len(weight) + jnp.arange(len(other_id))
    items = Rows(
        jnp.pad(rows.weight, (0, len(other_id))),
        jnp.concatenate([rows.item_id, other_id]),
        jnp.concatenate([rows.log_q, jax.lax.stop_gradient(sampled.log_q)]),
        jnp.pad(rows.offered, (0, len(other_id)), constant_values=True),
    )
  expected = (len(weight), len(items.item_id))
  if isinstance(history_mask, batches.Places):
    loss_inputs.check_same_shape(
        first=history_mask.first, item_id=items.item_id
    )
    items = items._replace(first=history_mask.first)
    history_mask = history_mask.liked
  elif history_mask is not None and history_mask.shape != expected:
    size = '[B, B]' if sampled is None else '[B, B + S]'
    raise ValueError(
        f'history_mask is {history_mask.shape}; it must be {size}, here '
        f'{expected}.'
    )
  rows = rows._replace(history=history_mask)
  has_negative = row_chunks.map_rows(
      lambda items, rows: jnp.any(negatives(rows, items), axis=1),
      items,
      rows,
      len(items.item_id),
      over_rows,
  )
  return rows._replace(weight=rows.weight * has_negative), items


def join(item_emb: jax.Array, sampled: Sampled | None) -> jax.Array:
  """Embeddings of the items that rows are compared with: [B + S, R]."""
  if sampled is None:
    return item_emb
  return jnp.concatenate([item_emb, sampled.emb])


def _make_rows(
    weight: jax.Array,
    log_q: jax.Array | None,
    item_id: jax.Array | None,
    item_mask: jax.Array | None,
) -> Rows:
  size = weight.shape[0]
  if item_id is None:
    item_id = jnp.arange(size)
  offered = weight > 0 if item_mask is None else item_mask
  log_q = jnp.zeros(size) if log_q is None else log_q
  loss_inputs.check_same_shape(
      weight=weight, log_q=log_q, item_id=item_id, item_mask=offered
  )
  log_q = jax.lax.stop_gradient(log_q)
  log_q = loss_inputs.kept(log_q, offered | (weight > 0))
  weight = loss_inputs.kept(jax.lax.stop_gradient(weight), weight)
  return Rows(weight, item_id, log_q, offered)


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
  """Where an item of B + S is a negative of a row of C: bool [C, B + S].

  Never a row's own item: its id is the same.
  """
  other = rows.item_id[:, None] != items.item_id[None, :]
  other &= items.offered[None, :]
  if rows.history is None:
    return other
  if items.first is None:
    return other & ~rows.history
  return other & ~batches.Places(items.first, rows.history).likes()


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
    item_emb: [B + S, R]; what does not count is made 0 here, since what is
      computed of it before could be split over devices and travel again.
    row_emb: of users and of their own items, [C, R] each; users are divided by
      the temperature.
    items: B + S of them.
    rows: C of the batch.
  """
  user_emb, own_emb = row_emb
  item_emb = loss_inputs.kept(item_emb, items.offered | (items.weight > 0))
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
