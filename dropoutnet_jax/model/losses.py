# SPDX-License-Identifier: Apache-2.0
"""Training losses: pure functions from arrays to one scalar.

Every loss is a masked weighted mean in float32, 0 with zero gradient on an
empty set; it knows no model, config or device. Inputs may be of any float type.
For the losses on labels, rows of weight 0 are as good as removed, whatever they
hold, and `effective_rows` counts what the mean is over. Labels and weights are
data: no gradient goes to them.
"""

import functools

import jax
import jax.numpy as jnp

from dropoutnet_jax.model import batch_softmax
from dropoutnet_jax.model import block_products
from dropoutnet_jax.model import loss_inputs
from dropoutnet_jax.model import pairs
from dropoutnet_jax.model import row_chunks


def weighted_mean(value: jax.Array, weight: jax.Array) -> jax.Array:
  """Mean of value under weight, of one shape; 0, gradient 0, if all are 0.

  Raises:
    ValueError: if the shapes differ: broadcasting [B] against [B, 1] is the
      classic silent mistake.
  """
  loss_inputs.check_same_shape(value=value, weight=weight)
  value, weight = value.astype(jnp.float32), weight.astype(jnp.float32)
  total = jnp.sum(weight)
  # Masked before the product: 0 * inf would be NaN, also in the gradient.
  masked = jnp.where(weight > 0, value, 0.0) * weight
  return _divided(jnp.sum(masked), total)


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
  user_emb, item_emb, target = (
      loss_inputs.kept(x, weight) for x in (user_emb, item_emb, target)
  )
  score = jnp.sum(user_emb * item_emb, axis=-1)
  return weighted_mean((score - target) ** 2, weight)


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
  score = block_products.block_scores(user_emb, item_emb, dtype)
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


def pointwise(
    score: jax.Array,
    label: jax.Array,
    weight: jax.Array,
    *,
    label_smoothing: float = 0.0,
    focal_gamma: float | None = None,
    focal_alpha: float | None = None,
) -> jax.Array:
  """Binary cross entropy of logits, optionally focal.

  With p = sigmoid(score) and y the smoothed label, a row costs

    -y alpha (1 - p)^gamma log p - (1 - y) (1 - alpha) p^gamma log(1 - p),

  Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017. The gradient
  goes through the powers too.

  Args:
    score: [B], logits.
    label: [B] in [0, 1].
    weight: [B] >= 0, 0 for padding.
    label_smoothing: in [0, 1), moves labels by this share towards 1/2.
    focal_gamma: >= 0, takes weight from rows that are right; None is 0.
    focal_alpha: in (0, 1), weight of the positive part; None is no weights.

  Returns:
    float32 [].

  Raises:
    ValueError: if shapes differ or an option is out of its range.
  """
  loss_inputs.check_number(
      'label_smoothing', label_smoothing, least=0.0, below=1.0
  )
  loss_inputs.check_same_shape(score=score, label=label, weight=weight)
  label, weight = jax.lax.stop_gradient((label, weight))
  score = loss_inputs.kept(score, weight)
  label = loss_inputs.kept(label, weight)
  label += label_smoothing * (0.5 - label)
  # Each part from what is small where it matters: no difference of large ones.
  positive = label * jax.nn.softplus(-score)
  negative = (1 - label) * jax.nn.softplus(score)
  if focal_gamma is not None:
    loss_inputs.check_number('focal_gamma', focal_gamma, least=0.0)
    # A power of a logarithm: at p = 0 the power rule divides by 0.
    positive *= jnp.exp(-focal_gamma * jax.nn.softplus(score))
    negative *= jnp.exp(-focal_gamma * jax.nn.softplus(-score))
  if focal_alpha is not None:
    loss_inputs.check_number('focal_alpha', focal_alpha, above=0.0, below=1.0)
    positive, negative = focal_alpha * positive, (1 - focal_alpha) * negative
  return weighted_mean(positive + negative, weight)


def pairwise(
    score: jax.Array,
    label: jax.Array,
    weight: jax.Array,
    *,
    kind: str = 'logistic',
    margin: float = 0.0,
    temperature: float | jax.Array = 1.0,
    session: jax.Array | None = None,
    label_margin: bool = False,
    hard_ratio: float = 1.0,
    over_rows: row_chunks.OverRows = row_chunks.on_one_device,
) -> jax.Array:
  """Cost of the ordered pairs of a batch, label_i > label_j.

  With x = (score_i - score_j) / temperature - margin, a pair costs

    logistic: log(1 + exp(-x)), Burges et al., "RankNet", ICML 2005;
    hinge: max(-x, 0);
    focal: sigmoid(-x)^2 log(1 + exp(-x)), after Lin et al., ICCV 2017.

  A pair's weight is that of row i; rows of weight 0 are in no pair.

  Args:
    score: [B].
    label: [B].
    weight: [B] >= 0. Pairs are counted by `effective_rows`.
    kind: one of pairs.KINDS.
    margin: what a difference must exceed, after the temperature.
    temperature: positive; may be learnt.
    session: int [B], pairs are within one, as within a user; None is over the
      whole batch.
    label_margin: the margin of a pair is label_i - label_j.
    hard_ratio: in (0, 1], the share of all weight of pairs that is kept, the
      pairs with the smallest x first. Pairs at the bound share what is left,
      so the order of rows does not matter.
    over_rows: how rows are split over devices.

  Returns:
    float32 [].

  Raises:
    ValueError: if shapes differ or an option is out of its range.
  """
  if kind not in pairs.KINDS:
    raise ValueError(f'kind is {kind!r}; it must be one of {pairs.KINDS}.')
  if label_margin and margin:
    raise ValueError(f'Give margin ({margin}) or label_margin, not both.')
  loss_inputs.check_number('margin', margin)
  loss_inputs.check_number('temperature', temperature, above=0.0)
  loss_inputs.check_number('hard_ratio', hard_ratio, above=0.0, most=1.0)
  rows = pairs.make_rows(label, weight, session)
  loss_inputs.check_same_shape(score=score, weight=weight)
  score = loss_inputs.kept(score, weight)
  temperature = jnp.asarray(temperature, jnp.float32)
  total = jnp.sum(rows.weight * pairs.counts(rows))
  selection = None
  if hard_ratio < 1.0:
    order = score / temperature - rows.label if label_margin else score
    rows = jax.lax.stop_gradient(rows._replace(order=order))
    total *= hard_ratio
    selection = pairs.hardest(rows, total, over_rows)
  value = row_chunks.sum_over_rows(
      functools.partial(pairs.chunk_sum, kind, margin, label_margin),
      (score, temperature),
      score,
      (rows, selection),
      rows,
      least_chunks=1 if selection is None else 2,
      over_rows=over_rows,
  )
  return _divided(value, total)


def support_vector_softmax(
    positive: jax.Array,
    negative: jax.Array,
    weight: jax.Array,
    *,
    margin: float = 0.0,
    gamma: float | jax.Array = 1.0,
    t: float = 1.0,
    mask: jax.Array | None = None,
    smoothing: float = 0.0,
) -> jax.Array:
  """Softmax of a positive among its negatives, hard ones magnified.

  With s0 = positive - margin, a negative n is kept where s0 - n >= 0 and is
  t n + t - 1 elsewhere; a row costs -log softmax(gamma [s0, n...])_0. Which
  negatives are hard is a constant for the gradient, and at the bound the value
  jumps if t > 1. Wang et al., "Support Vector Guided Softmax Loss for Face
  Recognition", 2018; scores are cosines there.

  Args:
    positive: [B], scores of the rows' own items.
    negative: [B, M], scores of other items.
    weight: [B] >= 0, 0 for rows that are no positives, or padding.
    margin: taken from the positive's score.
    gamma: positive, the inverse of a temperature; may be learnt.
    t: at least 1; 1 leaves hard negatives as they are.
    mask: bool [B, M], the negatives that count; None is all. Others get a
      probability of exactly 0. A row without any is left out of the mean.
    smoothing: width in which a negative becomes hard, by the share sigmoid((n -
      s0) / smoothing), so that no value jumps; 0 is as published.

  Returns:
    float32 [].

  Raises:
    ValueError: if shapes do not fit or an option is out of its range.
  """
  loss_inputs.check_number('margin', margin)
  loss_inputs.check_number('smoothing', smoothing, least=0.0)
  loss_inputs.check_number('gamma', gamma, above=0.0)
  loss_inputs.check_number('t', t, least=1.0)
  loss_inputs.check_same_shape(positive=positive, weight=weight)
  if mask is None:
    mask = jnp.ones(negative.shape, bool)
  loss_inputs.check_same_shape(negative=negative, mask=mask)
  weight = batch_softmax.weight_with_negative(weight, mask)
  counted = mask & (weight > 0)[:, None]
  positive = loss_inputs.kept(positive, weight) - margin
  negative = loss_inputs.kept(negative, counted)
  if smoothing:
    hard = jax.nn.sigmoid((negative - positive[:, None]) / smoothing)
    negative += hard * (t - 1) * (negative + 1)
  else:
    hard = positive[:, None] - negative < 0
    negative = jnp.where(hard, t * negative + t - 1, negative)
  gap = gamma * (negative - positive[:, None])
  cost = batch_softmax.log_one_plus_sum_exp(jnp.where(counted, gap, -jnp.inf))
  return weighted_mean(cost, weight)


def in_batch_softmax(
    user_emb: jax.Array,
    item_emb: jax.Array,
    weight: jax.Array,
    *,
    temperature: float | jax.Array,
    log_q: jax.Array | None = None,
    item_id: jax.Array | None = None,
    history_mask: jax.Array | None = None,
    item_mask: jax.Array | None = None,
    sampled: batch_softmax.Sampled | None = None,
    dtype: jnp.dtype = jnp.dtype('float32'),
) -> jax.Array:
  """Softmax of each row's item among all items of the batch.

  The logit of row b's user and item j is <user_b, item_j> / temperature -
  log_q_j, for the own item too: Yi et al., "Sampling-Bias-Corrected Neural
  Modeling for Large Corpus Item Recommendations", RecSys 2019. Sampled items
  beside them: Yang et al., "Mixed Negative Sampling for Learning Two-tower
  Neural Networks in Recommendations", WWW 2020.

  Args:
    user_emb: [B, R].
    item_emb: [B, R], row b is the positive of user b.
    weight: [B] >= 0, 0 for rows that are no positives, or padding.
    temperature: positive; may be learnt.
    log_q: [B], logarithm of how often each row's item is expected in a batch;
      data. None corrects nothing. A constant beside it changes nothing unless
      some items are sampled.
    item_id: int [B]; the same item in another row is no negative. None takes
      all rows' items for different ones.
    history_mask: bool [B, B + S], True where the column's item is a known
      positive of the row's user and so no negative; its diagonal does not
      matter. S counts the sampled items, which come last.
    item_mask: bool [B], rows whose items may be negatives of others; None is
      those of weight > 0.
    sampled: further items for all rows; None adds none.
    dtype: of the factors of the products, as in `teacher_block`.

  Returns:
    float32 []. A row without a negative is left out of the mean.

  Raises:
    ValueError: if shapes do not fit or the temperature is not positive.
  """
  loss_inputs.check_number('temperature', temperature, above=0.0)
  loss_inputs.check_same_shape(user_emb=user_emb, item_emb=item_emb)
  if weight.shape != user_emb.shape[:1] or user_emb.ndim != 2:
    raise ValueError(
        f'user_emb {user_emb.shape} and weight {weight.shape} must be [B, R] '
        'and [B].'
    )
  rows, items = batch_softmax.prepare(
      weight, log_q, item_id, history_mask, item_mask, sampled
  )
  return prepared_softmax(
      user_emb,
      item_emb,
      batch_softmax.join(item_emb, sampled),
      rows,
      items,
      temperature=temperature,
      dtype=dtype,
  )


def prepared_softmax(
    user_emb: jax.Array,
    item_emb: jax.Array,
    across_emb: jax.Array,
    rows: batch_softmax.Rows,
    items: batch_softmax.Rows,
    *,
    temperature: float | jax.Array,
    dtype: jnp.dtype = jnp.dtype('float32'),
    over_rows: row_chunks.OverRows = row_chunks.on_one_device,
) -> jax.Array:
  """`in_batch_softmax` of what `batch_softmax.prepare` has made: float32 [].

  Args:
    user_emb, item_emb: [B, R], of the rows' users and of their own items.
    across_emb: [B + S, R], of all items.
    rows: B of them.
    items: B + S of them.
    temperature: positive; may be learnt.
    dtype: of the factors of the products.
    over_rows: how rows, but not what is across, are split over devices.
  """
  user_emb = loss_inputs.kept(user_emb, rows.weight) / temperature
  item_emb = loss_inputs.kept(item_emb, rows.offered | (rows.weight > 0))
  value = row_chunks.sum_over_rows(
      functools.partial(batch_softmax.chunk_sum, dtype),
      across_emb,
      (user_emb, item_emb),
      items,
      rows,
      num_columns=len(across_emb),
      over_rows=over_rows,
  )
  return _divided(value, jnp.sum(rows.weight))


def _divided(total: jax.Array, weight: jax.Array) -> jax.Array:
  return total / jnp.where(weight > 0, weight, 1.0)
