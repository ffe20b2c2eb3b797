# SPDX-License-Identifier: Apache-2.0
"""Metrics for rows with a label: clicked or not, at least 4 stars or not.

Exact and independent of the order of rows: tied scores count half, and share a
bin. A metric that the rows do not define is None, never a made-up number: AUC
with labels of one kind alone, precision where nothing is predicted, anything
of no rows. Rows of weight 0 are as good as removed. Scores are logits; what
made them is not known here.
"""

from typing import NamedTuple

import numpy as np
from scipy import special


class GroupedAuc(NamedTuple):
  """Mean AUC over groups.

  Attributes:
    value: the mean, None where no group has one.
    num_groups: groups with labels of both kinds.
    num_left_out: groups with labels of one kind, which have no AUC.
  """

  value: float | None
  num_groups: int
  num_left_out: int


def auc(
    score: np.ndarray, label: np.ndarray, weight: np.ndarray | None = None
) -> float | None:
  """Probability that a positive row scores more than a negative one.

  Ties count half.

  Args:
    score: [N], finite; logits or anything that grows with them.
    label: [N], each 0 or 1.
    weight: [N] >= 0, None is 1 for all.

  Returns:
    The area under the ROC curve; None if labels are of one kind.

  Raises:
    ValueError: if shapes differ or a value is not allowed.
  """
  score, label, weight = _checked(score, label, weight)
  if label.all() or not label.any():
    return None
  from sklearn import metrics as sklearn_metrics  # costs a start some seconds

  area = sklearn_metrics.roc_auc_score(label, score, sample_weight=weight)
  return float(area)


def grouped_auc(
    score: np.ndarray,
    label: np.ndarray,
    group: np.ndarray,
    weight: np.ndarray | None = None,
    weigh_by: str = 'rows',
) -> GroupedAuc:
  """Mean of the AUC within groups, such as users or sessions (GAUC).

  AUC over all rows rewards a model that knows which users like everything;
  within a user only the order of items counts.

  Args:
    score: [N], finite.
    label: [N], each 0 or 1.
    group: [N], numbers or names.
    weight: [N] >= 0, None is 1 for all.
    weigh_by: a group weighs as much as its 'rows' or its 'positives' together,
      or as any other of the 'groups'.

  Raises:
    ValueError: if shapes differ, a value is not allowed or `weigh_by` unknown.
  """
  if weigh_by not in ('rows', 'positives', 'groups'):
    raise ValueError(
        f"weigh_by must be 'rows', 'positives' or 'groups': {weigh_by!r}"
    )
  group, shape = np.asarray(group), np.shape(score)
  score, label, weight_of_row = _checked(score, label, weight)
  if group.shape != shape:
    raise ValueError(f'Shapes differ: {shape} and {group.shape}.')
  group = group if weight is None else group[np.asarray(weight) > 0]
  area, positives, negatives = _areas(score, label, group, weight_of_row)
  known = (positives > 0) & (negatives > 0)
  count = int(known.sum())
  if not count:
    return GroupedAuc(None, 0, len(known))
  of_group = {
      'rows': positives + negatives,
      'positives': positives,
      'groups': np.ones(len(known)),
  }[weigh_by]
  value = np.average(area[known], weights=of_group[known])
  return GroupedAuc(float(value), count, len(known) - count)


def _areas(
    score: np.ndarray, label: np.ndarray, group: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """AUC, weight of positives and of negatives of each group: float64 [G].

  All groups in one sort: a call of a library for each of a million users would
  take minutes. AUC is NaN for groups of one kind.
  """
  _, group = np.unique(group, return_inverse=True)
  order = np.lexsort((score, group))
  score, label, group, weight = (
      x[order] for x in (score, label, group, weight)
  )
  starts = np.ones(len(score), bool)  # a group, or a new score within it
  starts[1:] = (group[1:] != group[:-1]) | (score[1:] != score[:-1])
  first = np.flatnonzero(starts)
  tie_group = group[first]
  sums = lambda x: np.bincount(np.cumsum(starts) - 1, x, len(first))
  positive, negative = sums(weight * label), sums(weight * ~label)
  num_groups = int(group.max(initial=-1)) + 1
  positives = np.bincount(tie_group, positive, num_groups)
  negatives = np.bincount(tie_group, negative, num_groups)
  # Negatives below each tie, counted from the start of its group.
  before_group = np.cumsum(negatives) - negatives
  below = np.cumsum(negative) - negative - before_group[tie_group]
  won = positive * (below + negative / 2)
  with np.errstate(invalid='ignore'):
    area = np.bincount(tie_group, won, num_groups) / (positives * negatives)
  return area, positives, negatives


def log_loss(
    score: np.ndarray, label: np.ndarray, weight: np.ndarray | None = None
) -> float | None:
  """Mean cross-entropy of labels under logits, in nats.

  From logits, without probabilities between: those of large logits would be
  rounded to 0 and 1, and the loss to infinity.

  Args:
    score: [N], logits, finite.
    label: [N], each 0 or 1.
    weight: [N] >= 0, None is 1 for all.

  Returns:
    None if there are no rows.

  Raises:
    ValueError: if shapes differ or a value is not allowed.
  """
  score, label, weight = _checked(score, label, weight)
  if not len(score):
    return None
  loss = np.logaddexp(0.0, np.where(label, -score, score))
  return float(np.average(loss, weights=weight))


def calibration_error(
    score: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    bins: str = 'mass',
    num_bins: int = 15,
) -> float | None:
  """Expected calibration error: how far probabilities are from label rates.

  The mean over bins, by weight, of the gap between the mean probability and
  the share of positives (Naeini et al., AAAI 2015).

  Args:
    score: [N], logits, finite.
    label: [N], each 0 or 1.
    weight: [N] >= 0, None is 1 for all.
    bins: 'mass' (each has about the same weight of rows: right for rare
      positives, whose probabilities all lie near 0) or 'width' (each has the
      same length of [0, 1]).
    num_bins: how many; more see finer errors and more noise.

  Returns:
    None if there are no rows.

  Raises:
    ValueError: if shapes differ or a value is not allowed.
  """
  if bins not in ('mass', 'width') or num_bins < 1:
    raise ValueError(
        f"bins must be 'mass' or 'width' and at least 1: {bins!r}, {num_bins}"
    )
  score, label, weight = _checked(score, label, weight)
  if not len(score):
    return None
  probability = special.expit(score)
  share = probability
  if bins == 'mass':
    # By the middle of a tie, so that equal scores share a bin.
    _, tie = np.unique(score, return_inverse=True)
    mass = np.bincount(tie, weight)
    share = ((np.cumsum(mass) - mass / 2) / mass.sum())[tie]
  bin_of_row = np.minimum((share * num_bins).astype(np.int64), num_bins - 1)
  gap = np.bincount(bin_of_row, weight * (probability - label))
  return float(np.abs(gap).sum() / weight.sum())


def precision_recall(
    score: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    threshold: float = 0.5,
) -> tuple[float | None, float | None]:
  """Precision and recall of rows whose probability is at least a threshold.

  Args:
    score: [N], logits, finite.
    label: [N], each 0 or 1.
    weight: [N] >= 0, None is 1 for all.
    threshold: a probability in [0, 1].

  Returns:
    Precision, None if no row reaches the threshold, and recall, None if no
    label is positive.

  Raises:
    ValueError: if shapes differ or a value is not allowed.
  """
  if not 0.0 <= threshold <= 1.0:
    raise ValueError(f'threshold must be in [0, 1]: {threshold}')
  score, label, weight = _checked(score, label, weight)
  from sklearn import metrics as sklearn_metrics  # likewise

  predicted = special.expit(score) >= threshold
  given = {'sample_weight': weight, 'zero_division': np.nan}
  precision = recall = None
  if predicted.any():
    precision = float(
        sklearn_metrics.precision_score(label, predicted, **given)
    )
  if label.any():
    recall = float(sklearn_metrics.recall_score(label, predicted, **given))
  return precision, recall


def summary(
    score: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray | None = None,
    group: np.ndarray | None = None,
    session: np.ndarray | None = None,
    threshold: float = 0.5,
) -> dict[str, float | None]:
  """All metrics of labelled rows by name.

  Args:
    score: [N], logits, finite.
    label: [N], each 0 or 1.
    weight: [N] >= 0, None is 1 for all.
    group: [N], mostly the user of each row; None leaves 'gauc' out.
    session: [N], of each row; None leaves 'session_gauc' out.
    threshold: of precision and recall, a probability.

  Returns:
    'auc', 'gauc' and 'session_gauc' (weighted by rows), 'gauc_left_out' and
    'session_gauc_left_out' (groups with labels of one kind), 'log_loss',
    'calibration_error' (bins of equal mass), 'precision@0.5' and 'recall@0.5'
    (named by the threshold), 'rows' and 'positives' (counts of rows of
    positive weight). None where the rows do not define a metric.

  Raises:
    ValueError: if shapes differ or a value is not allowed.
  """
  rows = (score, label, weight)
  precision, recall = precision_recall(*rows, threshold=threshold)
  found: dict[str, float | None] = {'auc': auc(*rows)}
  for name, groups in (('gauc', group), ('session_gauc', session)):
    if groups is not None:
      grouped = grouped_auc(score, label, groups, weight)
      found[name] = grouped.value
      found[f'{name}_left_out'] = grouped.num_left_out
  _, counted, _ = _checked(*rows)
  return found | {
      'log_loss': log_loss(*rows),
      'calibration_error': calibration_error(*rows),
      f'precision@{threshold:g}': precision,
      f'recall@{threshold:g}': recall,
      'rows': len(counted),
      'positives': int(counted.sum()),
  }


def _checked(
    score: np.ndarray, label: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """float64, bool and float64 [M]: the rows of positive weight."""
  score = np.asarray(score, np.float64)
  label = np.asarray(label)
  weight = np.ones(score.shape) if weight is None else weight
  weight = np.asarray(weight, np.float64)
  if not (score.ndim == 1 and score.shape == label.shape == weight.shape):
    shapes = f'{score.shape}, {label.shape} and {weight.shape}'
    raise ValueError(f'score, label and weight must all be [N], not {shapes}.')
  for name, values, ok, rule in (
      ('score', score, np.isfinite(score), 'finite'),
      ('label', label, (label == 0) | (label == 1), '0 or 1'),
      ('weight', weight, (weight >= 0) & (weight < np.inf), 'finite and >= 0'),
  ):
    if not ok.all():
      row = int(np.flatnonzero(~ok)[0])
      raise ValueError(f'{name} of row {row} is {values[row]}, not {rule}.')
  keep = weight > 0
  return score[keep], label[keep].astype(bool), weight[keep]
