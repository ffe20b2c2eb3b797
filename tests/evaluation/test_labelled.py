# SPDX-License-Identifier: Apache-2.0
"""Metrics of labelled rows against loops over pairs, hand and sklearn."""

import itertools
import math

from hypothesis import given
from hypothesis import strategies
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from dropoutnet_jax.evaluation import labelled


def slow_auc(score, label, weight):
  """Over all pairs of a positive and a negative row."""
  won, total = [0.0], [0.0]
  for i, j in itertools.product(range(len(score)), repeat=2):
    if label[i] == 1 and label[j] == 0:
      pair = weight[i] * weight[j]
      won.append(pair * (1.0 if score[i] > score[j] else 0.0))
      won.append(pair * (0.5 if score[i] == score[j] else 0.0))
      total.append(pair)
  return math.fsum(won) / math.fsum(total) if math.fsum(total) else None


def slow_grouped_auc(score, label, group, weight, weigh_by='rows'):
  rows_of = {}
  for row, name in enumerate(group):
    if weight[row]:
      rows_of.setdefault(name, []).append(row)
  values, weights, left_out = [], [], 0
  for rows in rows_of.values():
    area = slow_auc(*([x[row] for row in rows] for x in (score, label, weight)))
    if area is None:
      left_out += 1
      continue
    values.append(area)
    positives = sum(weight[row] for row in rows if label[row])
    every = sum(weight[row] for row in rows)
    choice = {'rows': every, 'positives': positives, 'groups': 1.0}
    weights.append(choice[weigh_by])
  if not values:
    return None, 0, left_out
  value = sum(v * w for v, w in zip(values, weights)) / sum(weights)
  return value, len(values), left_out


def sigmoid(z):
  return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def slow_calibration_error(score, label, weight, bins, num_bins):
  total = sum(weight)
  gap = [0.0] * num_bins
  for i, z in enumerate(score):
    share = sigmoid(z)
    if bins == 'mass':
      below = sum(w for w, other in zip(weight, score) if other < z)
      level = sum(w for w, other in zip(weight, score) if other == z)
      share = (below + level / 2) / total
    number = min(int(share * num_bins), num_bins - 1)
    gap[number] += weight[i] * (sigmoid(z) - label[i])
  return sum(map(abs, gap)) / total


def random_rows(seed, num_rows=60, num_scores=12):
  """Scores with ties, labels, weights with zeros and groups."""
  rng = np.random.default_rng(seed)
  score = rng.choice(rng.normal(size=num_scores) * 3, num_rows)
  label = (rng.random(num_rows) < 0.4).astype(np.int32)
  weight = rng.choice([0.0, 0.5, 1.0, 2.0], num_rows)
  group = rng.integers(0, 15, num_rows)
  return score, label, weight, group


ROWS = strategies.lists(
    strategies.tuples(
        strategies.sampled_from([-2.0, -0.5, 0.0, 0.25, 3.0]),
        strategies.integers(0, 1),
        strategies.sampled_from([0.0, 1.0, 3.0]),
        strategies.sampled_from(['a', 'b', 'c']),
    ),
    min_size=1,
    max_size=12,
)


def test_auc_by_hand():
  score = [3.0, 1.0, 2.0, 1.0]
  # Pairs: 3 beats 2 and 1; 1 loses to 2 and ties with 1.
  assert labelled.auc(score, [1, 1, 0, 0]) == (1 + 1 + 0 + 0.5) / 4
  # The tie counts thrice: 2.5 of 4 becomes 1 + 3 + 3 * 0.5 of 8.
  assert labelled.auc(score, [1, 1, 0, 0], [1, 1, 1, 3]) == (1 + 3 + 1.5) / 8


@given(ROWS)
def test_auc_is_the_share_of_ordered_pairs(rows):
  score, label, weight, group = zip(*rows)
  expected = slow_auc(score, label, weight)
  got = labelled.auc(score, label, weight)
  assert got == (expected if expected is None else pytest.approx(expected))
  for weigh_by in ('rows', 'positives', 'groups'):
    found = labelled.grouped_auc(score, label, group, weight, weigh_by)
    slow = slow_grouped_auc(score, label, group, weight, weigh_by)
    assert found[1:] == slow[1:]
    assert found.value == (
        slow[0] if slow[0] is None else pytest.approx(slow[0])
    )


@pytest.mark.parametrize('seed', range(5))
def test_random_rows_against_loops_and_sklearn(seed):
  score, label, weight, group = random_rows(seed)
  got = labelled.auc(score, label, weight)
  assert got == pytest.approx(slow_auc(score, label, weight), abs=1e-12)
  for weigh_by in ('rows', 'positives', 'groups'):
    found = labelled.grouped_auc(score, label, group, weight, weigh_by)
    slow = slow_grouped_auc(score, label, group, weight, weigh_by)
    assert found == pytest.approx(slow, abs=1e-12)
  probability = np.array([sigmoid(z) for z in score])
  got = labelled.log_loss(score, label, weight)
  expected = sklearn_metrics.log_loss(label, probability, sample_weight=weight)
  assert got == pytest.approx(expected, rel=1e-12)
  for bins, num_bins in itertools.product(('mass', 'width'), (1, 4, 15)):
    got = labelled.calibration_error(
        score, label, weight, bins=bins, num_bins=num_bins
    )
    slow = slow_calibration_error(score, label, weight, bins, num_bins)
    assert got == pytest.approx(slow, abs=1e-12)


@pytest.mark.parametrize('seed', range(3))
def test_one_group_is_all_rows(seed):
  """The own sort within groups and the library's curve agree."""
  score, label, weight, _ = random_rows(seed, 3000, 700)
  found = labelled.grouped_auc(score, label, np.zeros(3000), weight)
  expected = labelled.auc(score, label, weight)
  assert found == (pytest.approx(expected, abs=1e-12), 1, 0)


def test_grouped_auc_does_not_reward_knowing_the_group():
  """Each group is ranked backwards, yet its level tells groups apart."""
  score = np.array([5.0, 6.0, 7.0, 8.0, 1.0, 2.0, 3.0, 4.0])
  label = np.array([1, 1, 1, 0, 1, 0, 0, 0])
  group = np.repeat(['likes', 'not'], 4)
  assert labelled.auc(score, label) == 9 / 16
  assert labelled.grouped_auc(score, label, group) == (0.0, 2, 0)


def test_groups_weigh_as_asked():
  score = [2.0, 1.0, 1.0, 2.0, 3.0, 0.0]
  label = [1, 0, 1, 0, 0, 1]
  group = [7, 7, 9, 9, 9, 8]  # 7 is right, 9 wrong, 8 has no negative
  weigh = lambda by, weight=None: labelled.grouped_auc(
      score, label, group, weight, by
  )
  assert weigh('rows') == (pytest.approx(2 / 5), 2, 1)
  assert weigh('positives') == (pytest.approx(1 / 2), 2, 1)
  assert weigh('groups') == (pytest.approx(1 / 2), 2, 1)
  assert weigh('positives', [3, 1, 1, 1, 1, 1]).value == pytest.approx(3 / 4)


@pytest.mark.parametrize('seed', range(3))
def test_the_order_of_rows_and_rows_of_weight_zero_change_nothing(seed):
  score, label, weight, group = random_rows(seed)
  expected = labelled.summary(score, label, weight, group, group % 4)
  keep = np.random.default_rng(seed).permutation(np.flatnonzero(weight))
  fewer = [x[keep] for x in (score, label, weight, group, group % 4)]
  assert labelled.summary(*fewer) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize('seed', range(3))
def test_whole_weights_are_repeated_rows(seed):
  score, label, weight, group = random_rows(seed)
  weight = (2 * weight).astype(int)
  expected = labelled.summary(score, label, weight, group)
  many = [np.repeat(x, weight) for x in (score, label)]
  got = labelled.summary(*many, group=np.repeat(group, weight))
  counts = ('rows', 'positives')
  assert [got.pop(x) for x in counts] == [weight.sum(), weight @ label]
  assert [expected.pop(x) for x in counts] == [
      (weight > 0).sum(),
      (weight > 0) @ label,
  ]
  assert got == pytest.approx(expected, abs=1e-12)


def test_log_loss_of_extreme_logits():
  assert labelled.log_loss([0.0], [1]) == math.log(2)
  assert labelled.log_loss([1e4, -1e4], [1, 0]) == 0
  assert labelled.log_loss([1e4, -1e4], [0, 1]) == 1e4
  # To first order e^-50, which 1 - probability could not hold.
  assert labelled.log_loss([50.0], [1]) == pytest.approx(math.exp(-50))


@pytest.mark.parametrize('bins', ['mass', 'width'])
def test_calibration_error_of_known_rates(bins):
  """Of rows at 1 in 4 and 3 in 4, as many are positive, then all of them."""
  score = np.repeat([-math.log(3), math.log(3)], 4)
  label = np.array([1, 0, 0, 0, 1, 1, 1, 0])
  for num_bins in (2, 10):
    error = lambda label: labelled.calibration_error(
        score, label, bins=bins, num_bins=num_bins
    )
    assert error(label) == pytest.approx(0, abs=1e-12)
    assert error(np.ones(8)) == pytest.approx((0.75 + 0.25) / 2)
    assert error(1 - label) == pytest.approx(0.5)


def test_equal_scores_share_a_bin():
  """Else the order of the rows would decide on the error."""
  label = np.array([0] * 50 + [1] * 50)
  assert labelled.calibration_error(np.zeros(100), label) == 0
  assert labelled.calibration_error(np.zeros(100), label[::-1]) == 0


def test_precision_and_recall_by_hand():
  logit = lambda p: math.log(p / (1 - p))
  score = [logit(p) for p in (0.9, 0.8, 0.3, 0.2, 0.1)]
  label = [1, 0, 1, 1, 0]
  found = lambda *args, **options: labelled.precision_recall(
      score, label, *args, **options
  )
  assert found() == (1 / 2, 1 / 3)
  assert found(threshold=0.25) == (2 / 3, 2 / 3)
  assert found(threshold=0.0) == (3 / 5, 1.0)
  assert found([1, 2, 3, 4, 5]) == (1 / 3, 1 / 8)
  assert found(threshold=0.95) == (None, 0.0)
  # A row at the threshold counts.
  assert labelled.precision_recall([0.0, -1e-9], [1, 1]) == (1.0, 0.5)
  assert labelled.precision_recall([0.0, -1.0], [0, 0]) == (0.0, None)
  assert labelled.precision_recall([-1.0], [0]) == (None, None)


def test_summary_holds_every_metric():
  score, label, weight, group = random_rows(8)
  session = group // 3
  got = labelled.summary(score, label, weight, group, session, threshold=0.25)
  by_user = labelled.grouped_auc(score, label, group, weight)
  by_session = labelled.grouped_auc(score, label, session, weight)
  precision, recall = labelled.precision_recall(
      score, label, weight, threshold=0.25
  )
  assert got == {
      'auc': labelled.auc(score, label, weight),
      'gauc': by_user.value,
      'gauc_left_out': by_user.num_left_out,
      'session_gauc': by_session.value,
      'session_gauc_left_out': by_session.num_left_out,
      'log_loss': labelled.log_loss(score, label, weight),
      'calibration_error': labelled.calibration_error(score, label, weight),
      'precision@0.25': precision,
      'recall@0.25': recall,
      'rows': (weight > 0).sum(),
      'positives': ((weight > 0) & (label == 1)).sum(),
  }
  assert all(isinstance(value, (int, float)) for value in got.values())


def test_summary_names_its_default_threshold_and_leaves_groups_out():
  assert list(labelled.summary([1.0, -1.0], [1, 0])) == [
      'auc',
      'log_loss',
      'calibration_error',
      'precision@0.5',
      'recall@0.5',
      'rows',
      'positives',
  ]


@pytest.mark.parametrize('label', [0, 1])
def test_labels_of_one_kind_have_no_auc(label):
  got = labelled.summary([0.0, 2.0], [label] * 2, group=[0, 1])
  assert got['auc'] is None and got['gauc'] is None
  assert got['gauc_left_out'] == 2
  assert got['recall@0.5'] == (1.0 if label else None)
  assert got['log_loss'] > 0


@pytest.mark.parametrize('rows', [([], []), ([1.0, 2.0], [0, 1], [0, 0])])
def test_no_rows_have_no_metrics(rows):
  group = np.zeros(len(rows[0]))
  got = labelled.summary(*rows, group=group)
  zero = ('rows', 'positives', 'gauc_left_out')
  assert {name: got.pop(name) for name in zero} == dict.fromkeys(zero, 0)
  assert set(got.values()) == {None}


def test_float32_scores_and_boolean_labels():
  score, label, weight, group = random_rows(2)
  half = labelled.summary(
      np.float32(score), label == 1, np.float32(weight), group
  )
  whole = labelled.summary(
      np.float32(score).astype(float), label, weight, group
  )
  assert half == whole


@pytest.mark.parametrize(
    'score, label, weight, message',
    [
        ([0.0, math.nan], [0, 1], None, 'score of row 1 is nan, not finite'),
        ([math.inf], [1], None, 'score of row 0 is inf'),
        ([0.0], [2], None, 'label of row 0 is 2, not 0 or 1'),
        ([0.0, 0.0], [0, math.nan], None, 'label of row 1 is nan'),
        ([0.0], [1], [-1], 'weight of row 0 is -1.0, not finite and >= 0'),
        ([0.0], [1], [math.nan], 'weight of row 0 is nan'),
        ([0.0, 1.0], [1], None, r'all be \[N\], not \(2,\), \(1,\) and \(2,\)'),
        ([[0.0]], [[1]], None, r'all be \[N\], not \(1, 1\)'),
        (0.0, 1, None, r'all be \[N\], not \(\)'),
    ],
)
def test_wrong_rows(score, label, weight, message):
  for function in (
      labelled.auc,
      labelled.log_loss,
      labelled.calibration_error,
      labelled.precision_recall,
      labelled.summary,
  ):
    with pytest.raises(ValueError, match=message):
      function(score, label, weight)
  with pytest.raises(ValueError, match=message):
    labelled.grouped_auc(score, label, np.zeros(2), weight)


def test_wrong_options():
  rows = ([0.0, 1.0], [0, 1])
  with pytest.raises(ValueError, match=r'Shapes differ: \(2,\) and \(3,\)'):
    labelled.grouped_auc(*rows, [1, 1, 1])
  with pytest.raises(ValueError, match="or 'groups': 'users'"):
    labelled.grouped_auc(*rows, [1, 1], weigh_by='users')
  with pytest.raises(ValueError, match="at least 1: 'quantile', 15"):
    labelled.calibration_error(*rows, bins='quantile')
  with pytest.raises(ValueError, match="at least 1: 'mass', 0"):
    labelled.calibration_error(*rows, num_bins=0)
  with pytest.raises(ValueError, match=r'threshold must be in \[0, 1\]: 1.5'):
    labelled.precision_recall(*rows, threshold=1.5)
