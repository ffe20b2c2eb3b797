# SPDX-License-Identifier: Apache-2.0
"""Metrics of labelled rows for any method of the tables."""

from collections.abc import Callable

import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import labelled
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.evaluation import split_scores

# What scores that are no logits allow.
_ORDER_METRICS = (
    'auc',
    'gauc',
    'gauc_left_out',
    'session_gauc',
    'session_gauc_left_out',
    'rows',
    'positives',
)


def labels(rows: schema.Interactions) -> np.ndarray:
  """1 where there was a reaction, else 0: float64 [N]."""
  if rows.label is None:
    return np.ones(len(rows))
  return (rows.label > 0).astype(np.float64)


def score_rows(
    method: protocol.Method,
    quadrant: str,
    rows: schema.Interactions,
    users_per_chunk: int,
) -> np.ndarray:
  """Score of each row: float32 [N].

  A method scores users against candidates, here the items of the rows; chunks
  of users bound the memory.
  """
  candidates, column = np.unique(rows.item, return_inverse=True)
  users, group = np.unique(rows.user, return_inverse=True)
  score = method(
      quadrant,
      schema.EvaluationSet(rows.user, rows.item, candidates.astype(np.int32)),
  )
  found = np.zeros(len(rows), np.float32)
  size = min(users_per_chunk, max(len(users), 1))
  for begin in range(0, len(users), size):
    part = users[begin : begin + size]
    mine = np.flatnonzero((group >= begin) & (group < begin + size))
    scores = score(protocol.padded_users(part, size))
    row = group[mine] - begin
    if isinstance(scores, split_scores.SplitScores):
      found[mine] = scores.at(row, column[mine])
    else:
      found[mine] = np.asarray(scores)[row, column[mine]]
  return found


def evaluate(
    method: protocol.Method,
    quadrant: str,
    rows: schema.Interactions,
    settings: config.EvaluationConfig,
    logit: Callable[[np.ndarray], np.ndarray] | None,
) -> dict[str, float | int | None]:
  """Metrics of one method on labelled rows, GAUC by user and by session.

  Args:
    method: any of the tables.
    quadrant: what is cold in the rows.
    rows: with labels; above 0 is a reaction.
    settings: users that are scored at once; threshold of precision and recall.
    logit: makes logits of scores [N]; None where nothing does, and only the
      order of scores counts.
  """
  score = score_rows(method, quadrant, rows, settings.users_per_chunk)
  found = labelled.summary(
      score if logit is None else logit(score),
      labels(rows),
      weight=rows.weight,
      group=rows.user,
      session=rows.session,
      threshold=settings.threshold,
  )
  if logit is None:
    found = {name: found[name] for name in _ORDER_METRICS if name in found}
  return found
