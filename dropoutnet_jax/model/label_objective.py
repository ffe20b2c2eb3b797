# SPDX-License-Identifier: Apache-2.0
"""What is minimised on labelled rows: the terms, each with its rows."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dropoutnet_jax import config
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.model import band
from dropoutnet_jax.model import batch_softmax
from dropoutnet_jax.model import effective_rows
from dropoutnet_jax.model import losses
from dropoutnet_jax.model import negatives
from dropoutnet_jax.model import objective_params
from dropoutnet_jax.model import rolled


class Terms(NamedTuple):
  """Loss terms by name, and how many rows (or pairs) each is a mean over."""

  value: dict[str, jax.Array]
  rows: dict[str, jax.Array]


class Shown(NamedTuple):
  """M items of each row that its user was shown in vain.

  Attributes:
    emb: [B, M, R].
    is_real: bool [B, M], False where there are no more of them.
  """

  emb: jax.Array
  is_real: jax.Array


class Batch(NamedTuple):
  """Embeddings of B labelled rows, and what they are compared with.

  Attributes:
    user: [B, R], of each row's user.
    item: [B, R], of its item.
    rows: the labelled rows.
    log_frequency: float32 [B], log of each item's share of all rows.
    history: what each row's user likes, see `negatives.not_in_history`; None
      counts that as negatives.
    known: bool [B, B + S], the same for the items of the batch and the sampled
      ones; needed for 'in_batch_softmax' alone.
    sampled: S items for all rows, with what their logits lose beside
      log_frequency; or None.
    shown: items for each row, or None.
  """

  user: jax.Array
  item: jax.Array
  rows: tables_lib.LabelledRows
  log_frequency: jax.Array
  history: jax.Array | None = None
  known: jax.Array | None = None
  sampled: batch_softmax.Sampled | None = None
  shown: Shown | None = None


def label_terms(
    settings: config.ObjectiveConfig,
    logit: objective_params.Logit,
    batch: Batch,
    key: jax.Array,
) -> Terms:
  """Loss terms of a batch of labelled rows.

  Args:
    settings: weights and options of the terms.
    logit: how scores become logits.
    batch: what they are computed from.
    key: draws the rolled negatives.
  """
  rows = batch.rows
  score = jnp.sum(batch.user * batch.item, axis=-1, dtype=jnp.float32)
  value, count = {}, {}
  if settings.pointwise:
    value['pointwise'] = losses.pointwise(
        logit(score),
        rows.label,
        rows.weight,
        label_smoothing=settings.label_smoothing,
        focal_gamma=settings.focal_gamma or None,
        focal_alpha=settings.focal_alpha or None,
    )
    count['pointwise'] = effective_rows.pointwise(rows.weight)
  if settings.pairwise:
    value['pairwise'], count['pairwise'] = _pairwise(
        settings, logit.temperature, score, rows
    )
  if settings.softmax:
    value['softmax'], count['softmax'] = _softmax(
        settings, logit.temperature, score, batch, key
    )
  if settings.in_batch_softmax:
    value['in_batch_softmax'], count['in_batch_softmax'] = _in_batch_softmax(
        settings, logit.temperature, batch
    )
  return Terms(value, count)


_Term = tuple[jax.Array, jax.Array]  # value, rows


def _positive(rows: tables_lib.LabelledRows) -> jax.Array:
  """Weight of the rows with a reaction, 0 of the others: float32 [B]."""
  return jnp.where(rows.label > 0, rows.weight, 0.0)


def _pairwise(
    settings: config.ObjectiveConfig,
    temperature: float | jax.Array,
    score: jax.Array,
    rows: tables_lib.LabelledRows,
) -> _Term:
  """Rows of a batch, a user or a session against each other."""
  within = {'batch': None, 'user': rows.user, 'session': rows.session}
  session = within[settings.pairwise_within]
  weight = rows.weight
  if not settings.pairwise_weights:
    weight = jnp.where(weight > 0, 1.0, 0.0)
  value = losses.pairwise(
      score,
      rows.label,
      weight,
      kind=settings.pairwise_kind,
      margin=settings.pairwise_margin,
      temperature=temperature,
      session=session,
      label_margin=settings.pairwise_label_margin,
      hard_ratio=settings.hard_ratio,
  )
  return value, effective_rows.pairwise(rows.label, weight, session)


def _softmax(
    settings: config.ObjectiveConfig,
    temperature: float | jax.Array,
    score: jax.Array,
    batch: Batch,
    key: jax.Array,
) -> _Term:
  """Rows with a reaction against rolled, sampled and shown items."""
  rows, positive = batch.rows, _positive(batch.rows)
  shifts, rolled_score = _rolled(settings, batch, key)
  rules = (rows.item, batch.history, rows.is_real, settings.mask_same_item)
  own_item, *rest = rules
  scores = [rolled_score]
  masks = [negatives.valid_negatives(own_item, shifts, *rest)]
  if batch.sampled is not None:
    sampled = batch.sampled
    scores.append(negatives.mixed_scores(batch.user, sampled.emb))
    masks.append(negatives.valid_candidates(sampled.item_id, *rules))
  if batch.shown is not None:
    # None of these is liked, so that none is the row's own item either.
    scores.append(negatives.own_scores(batch.user, batch.shown.emb))
    masks.append(batch.shown.is_real)
  negative, mask = (jnp.concatenate(x, axis=1) for x in (scores, masks))
  if settings.num_hard:
    negative, mask = negatives.hardest(negative, mask, settings.num_hard)
  value = losses.support_vector_softmax(
      score,
      negative,
      positive,
      margin=settings.margin,
      gamma=1.0 / temperature,
      t=settings.support_vector,
      mask=mask,
      smoothing=settings.support_vector_smoothing,
  )
  return value, effective_rows.support_vector_softmax(positive, mask)


def _rolled(
    settings: config.ObjectiveConfig, batch: Batch, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Shifts int32 [M], and scores with items rolled by them, [B, M]."""
  size, num = len(batch.user), settings.num_negatives
  if settings.shifts == 'consecutive' and num:
    first = band.first_shift(key, size, num)
    shifts = first + jnp.arange(num, dtype=jnp.int32)
    return shifts, band.consecutive_scores(batch.user, batch.item, first, num)
  shifts = rolled.roll_shifts(
      key, size, num, settings.shifts == 'with_replacement'
  )
  return shifts, rolled.rolled_scores(batch.user, batch.item, shifts)


def _in_batch_softmax(
    settings: config.ObjectiveConfig,
    temperature: float | jax.Array,
    batch: Batch,
) -> _Term:
  """Rows with a reaction against all items of the batch, and sampled ones."""
  sampled, log_q = batch.sampled, None
  if settings.log_q:
    log_q = settings.log_q * batch.log_frequency
  if sampled is not None:
    sampled = sampled._replace(log_q=settings.log_q * sampled.log_q)
  # An item that was shown in vain is a negative of others like any other.
  rows, items = batch_softmax.prepare(
      _positive(batch.rows),
      log_q,
      batch.rows.item if settings.mask_same_item else None,
      batch.known,
      batch.rows.weight > 0,
      sampled,
  )
  value = losses.prepared_softmax(
      batch.user,
      batch.item,
      rows,
      items,
      None if sampled is None else sampled.emb,
      temperature=temperature,
  )
  return value, effective_rows.in_batch_softmax(rows)
