# SPDX-License-Identifier: Apache-2.0
"""The losses on labels as loops over Python floats, and numeric gradients."""

import math

import numpy as np


def _log_sigmoid(x):
  return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def _sigmoid(x):
  return math.exp(_log_sigmoid(x))


def _mean(costs):
  """Of (cost, weight); 0 of nothing."""
  total = math.fsum(weight for _, weight in costs)
  return math.fsum(c * w for c, w in costs) / total if total else 0.0


def pointwise(score, label, weight, smoothing=0.0, gamma=0.0, alpha=None):
  costs = []
  for z, y, w in zip(score, label, weight, strict=True):
    if w:
      y = y * (1 - smoothing) + smoothing / 2
      cost = 0.0
      for share, x, part in (
          (y, z, alpha),
          (1 - y, -z, None if alpha is None else 1 - alpha),
      ):
        focus = _sigmoid(-x) ** gamma * (1 if part is None else part)
        cost -= share * focus * _log_sigmoid(x)
      costs.append((cost, w))
  return _mean(costs)


def list_pairs(label, weight, session=None):
  """All (i, j) that are compared."""
  session = np.zeros(len(label)) if session is None else session
  rows = [b for b in range(len(label)) if weight[b] > 0]
  return [
      (i, j)
      for i in rows
      for j in rows
      if label[i] > label[j] and session[i] == session[j]
  ]


def pairwise(
    score,
    label,
    weight,
    kind='logistic',
    margin=0.0,
    temperature=1.0,
    session=None,
    label_margin=False,
    hard_ratio=1.0,
):
  """Pairs sorted by their logits, then taken until the share is full."""
  found = []
  for i, j in list_pairs(label, weight, session):
    needed = label[i] - label[j] if label_margin else margin
    x = (score[i] - score[j]) / temperature - needed
    cost = max(-x, 0.0) if kind == 'hinge' else -_log_sigmoid(x)
    if kind == 'focal':
      cost *= _sigmoid(-x) ** 2
    found.append((x, cost, weight[i]))
  room = hard_ratio * math.fsum(w for _, _, w in found)
  taken = []
  found.sort(key=lambda pair: pair[0])
  while found and room > 1e-12:
    same = [pair for pair in found if pair[0] == found[0][0]]
    found = found[len(same) :]
    together = math.fsum(w for _, _, w in same)
    share = min(1.0, room / together)
    taken += [(cost, share * w) for _, cost, w in same]
    room -= share * together
  return _mean(taken)


def _softmax_cost(first, others):
  largest = max([first, *others])
  total = math.fsum(math.exp(x - largest) for x in [first, *others])
  return largest + math.log(total) - first


def support_vector_softmax(
    positive,
    negative,
    weight,
    margin=0.0,
    gamma=1.0,
    t=1.0,
    mask=None,
    smoothing=0.0,
):
  def magnified(n, first):
    if not smoothing:
      return n if first - n >= 0 else t * n + t - 1
    share = 1 / (1 + math.exp(min((first - n) / smoothing, 700)))
    return (1 - share) * n + share * (t * n + t - 1)

  costs = []
  for b, w in enumerate(weight):
    first = positive[b] - margin
    others = []
    for m, n in enumerate(negative[b]):
      if mask is None or mask[b][m]:
        others.append(gamma * magnified(n, first))
    if w and others:
      costs.append((_softmax_cost(gamma * first, others), w))
  return _mean(costs)


def in_batch_softmax(
    user,
    item,
    weight,
    temperature,
    log_q=None,
    item_id=None,
    history_mask=None,
    item_mask=None,
    sampled=None,
):
  """`sampled`: embeddings, ids and log_q of items behind those of the rows."""
  size = len(weight)
  offered = weight > 0 if item_mask is None else item_mask
  log_q = np.zeros(size) if log_q is None else log_q
  if sampled is not None:
    emb, ids, more_log_q = sampled
    item, log_q = np.concatenate([item, emb]), np.append(log_q, more_log_q)
    offered = np.append(offered, [True] * len(ids))
    item_id = None if item_id is None else np.append(item_id, ids)
  costs = []
  for b in range(size):
    logits = {}
    for j in range(len(item)):
      dot = math.fsum(x * y for x, y in zip(user[b], item[j], strict=True))
      logits[j] = dot / temperature - float(log_q[j])
    others = []
    for j in range(len(item)):
      if j == b or not offered[j]:
        continue
      if item_id is not None and item_id[j] == item_id[b]:
        continue
      if history_mask is not None and history_mask[b][j]:
        continue
      others.append(logits[j])
    if weight[b] and others:
      costs.append((_softmax_cost(logits[b], others), weight[b]))
  return _mean(costs)


def gradient(function, *arrays, step=1e-4):
  """Central differences of fourth order by every entry of float64 arrays."""
  arrays = [np.array(array, np.float64) for array in arrays]
  gradients = [np.zeros_like(array) for array in arrays]
  for array, result in zip(arrays, gradients, strict=True):
    for place in np.ndindex(array.shape):
      start = array[place]
      values = []
      for move in (-2, -1, 1, 2):
        array[place] = start + move * step
        values.append(function(*arrays))
      array[place] = start
      far_below, below, above, far_above = values
      slope = 8 * (above - below) - (far_above - far_below)
      result[place] = slope / (12 * step)
  return gradients
