# SPDX-License-Identifier: Apache-2.0
"""What is minimised on labelled rows: the terms, each with its rows."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dropoutnet_jax import config
from dropoutnet_jax.data import batches
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.model import band
from dropoutnet_jax.model import batch_softmax
from dropoutnet_jax.model import effective_rows
from dropoutnet_jax.model import losses
from dropoutnet_jax.model import negatives
from dropoutnet_jax.model import objective_params
from dropoutnet_jax.model import rolled
from dropoutnet_jax.model import row_chunks


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


class Across(NamedTuple):
  """What every row of a batch is compared with, whole on each device.

  Attributes:
    item: [B, R], of the rows' items.
    rows: the labelled rows.
    log_frequency: float32 [B].
  """

  item: jax.Array
  rows: tables_lib.LabelledRows
  log_frequency: jax.Array


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
      ones, or their places; needed for 'in_batch_softmax' alone.
    sampled: S items for all rows, with what their logits lose beside
      log_frequency; or None.
    shown: items for each row, or None.
    across: where rows are split over devices, what is not; None elsewhere.
  """

  user: jax.Array
  item: jax.Array
  rows: tables_lib.LabelledRows
  log_frequency: jax.Array
  history: jax.Array | None = None
  known: jax.Array | batches.Places | None = None
  sampled: batch_softmax.Sampled | None = None
  shown: Shown | None = None
  across: Across | None = None

  def everything(self) -> Across:
    """What rows are compared with."""
    own = Across(self.item, self.rows, self.log_frequency)
    return own if self.across is None else self.across


def label_terms(
    settings: config.ObjectiveConfig,
    logit: objective_params.Logit,
    batch: Batch,
    key: jax.Array,
    over_rows: row_chunks.OverRows = row_chunks.on_one_device,
) -> Terms:
  """Loss terms of a batch of labelled rows.

  Args:
    settings: weights and options of the terms.
    logit: how scores become logits.
    batch: what they are computed from.
    key: draws the rolled negatives.
    over_rows: how rows are split over devices.
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
    value['pointwise'] *= _divisor_change(settings, rows.weight)
  if settings.pairwise:
    value['pairwise'], count['pairwise'] = _pairwise(
        settings, logit.temperature, score, rows, over_rows
    )
  if settings.softmax:
    temperature = settings.softmax_temperature or logit.temperature
    value['softmax'], count['softmax'] = _softmax(
        settings, temperature, score, batch, key, over_rows
    )
    value['softmax'] *= _divisor_change(settings, _positive(rows))
  if settings.in_batch_softmax:
    value['in_batch_softmax'], count['in_batch_softmax'] = _in_batch_softmax(
        settings, logit.temperature, batch, over_rows
    )
    value['in_batch_softmax'] *= _divisor_change(settings, _positive(rows))
  return Terms(value, count)


_Term = tuple[jax.Array, jax.Array]  # value, rows


def _positive(rows: tables_lib.LabelledRows) -> jax.Array:
  """Weight of the rows with a reaction, 0 of the others: float32 [B]."""
  return jnp.where(rows.label > 0, rows.weight, 0.0)


def _divisor_change(
    settings: config.ObjectiveConfig, weight: jax.Array
) -> float | jax.Array:
  """Makes a mean by weights [B] a sum that is divided by the rows with one."""
  if settings.divide_by == 'weights':
    return 1.0
  return jnp.sum(weight) / jnp.maximum(jnp.sum(weight > 0), 1)


def _pairwise(
    settings: config.ObjectiveConfig,
    temperature: float | jax.Array,
    score: jax.Array,
    rows: tables_lib.LabelledRows,
    over_rows: row_chunks.OverRows,
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
      over_rows=over_rows,
  )
  return value, effective_rows.pairwise(rows.label, weight, session)


def _softmax(
    settings: config.ObjectiveConfig,
    temperature: float | jax.Array,
    score: jax.Array,
    batch: Batch,
    key: jax.Array,
    over_rows: row_chunks.OverRows,
) -> _Term:
  """Rows with a reaction against rolled, sampled and shown items."""
  rows, positive = batch.rows, _positive(batch.rows)
  rules = (rows.item, batch.history, rows.is_real, settings.mask_same_item)
  rolled_item, is_real, rolled_score = _rolled(settings, batch, key, over_rows)
  scores = [rolled_score]
  masks = [negatives.valid_candidates(rolled_item, *rules)]
  if is_real is not None:
    masks[0] &= is_real
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
    num_hard = settings.num_hard
    hardest = lambda _, rows: negatives.hardest(rows[0], rows[1], num_hard)
    negative, mask = over_rows(hardest)(None, (negative, mask))
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


class _Rolled(NamedTuple):
  """The items of rolled rows: numbers, whether they are none of padding (None:
  all are), and scores, [B, M] each.
  """

  item: jax.Array
  is_real: jax.Array | None
  score: jax.Array


def _rolled(
    settings: config.ObjectiveConfig,
    batch: Batch,
    key: jax.Array,
    over_rows: row_chunks.OverRows,
) -> _Rolled:
  """Scores of rows with items rolled by random shifts."""
  size, num = len(batch.user), settings.num_negatives
  is_run = settings.shifts == 'consecutive' and num > 0
  if is_run:
    first = band.first_shift(key, size, num)
    shifts = first + jnp.arange(num, dtype=jnp.int32)
  else:
    repeats = settings.shifts == 'with_replacement'
    shifts = rolled.roll_shifts(key, size, num, repeats)

  def part(
      whole: tuple[Across, jax.Array], own: tuple[jax.Array, jax.Array]
  ) -> _Rolled:
    (across, shifts), (user, row) = whole, own
    if is_run:
      score = band.consecutive_scores(user, across.item, shifts[0], num, row[0])
    else:
      score = rolled.rolled_scores(user, across.item, shifts, row[0])
    taken = lambda x: None if x is None else rolled.roll(x, shifts, row)
    item = rolled.roll(across.rows.item, shifts, row)
    return _Rolled(item, taken(across.rows.is_real), score)

  row = jnp.arange(size, dtype=jnp.int32)
  whole = (batch.everything(), shifts)
  return over_rows(part)(whole, (batch.user, row))


def _in_batch_softmax(
    settings: config.ObjectiveConfig,
    temperature: float | jax.Array,
    batch: Batch,
    over_rows: row_chunks.OverRows,
) -> _Term:
  """Rows with a reaction against all items of the batch, and sampled ones."""
  sampled, log_q, whole = batch.sampled, None, batch.everything()
  if settings.log_q:
    log_q = settings.log_q * whole.log_frequency
  if sampled is not None:
    sampled = sampled._replace(log_q=settings.log_q * sampled.log_q)
  # An item that was shown in vain is a negative of others like any other.
  rows, items = batch_softmax.prepare(
      _positive(whole.rows),
      log_q,
      whole.rows.item if settings.mask_same_item else None,
      batch.known,
      whole.rows.weight > 0,
      sampled,
      over_rows,
  )
  value = losses.prepared_softmax(
      batch.user,
      batch.item,
      batch_softmax.join(whole.item, sampled),
      rows,
      items,
      temperature=temperature,
      over_rows=over_rows,
  )
  return value, effective_rows.in_batch_softmax(rows)
