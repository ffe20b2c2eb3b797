# SPDX-License-Identifier: Apache-2.0
"""Metrics of labelled rows for any method of the tables."""

from collections.abc import Callable

import numpy as np

from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import labelled
from dropoutnet_jax.evaluation import protocol

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
    scores = np.asarray(score(protocol.padded_users(part, size)))
    found[mine] = scores[group[mine] - begin, column[mine]]
  return found


def evaluate(
    method: protocol.Method,
    quadrant: str,
    rows: schema.Interactions,
    users_per_chunk: int,
    logit: Callable[[np.ndarray], np.ndarray] | None,
) -> dict[str, float | int | None]:
  """Metrics of one method on labelled rows, GAUC by user and by session.

  Args:
    method: any of the tables.
    quadrant: what is cold in the rows.
    rows: with labels; above 0 is a reaction.
    users_per_chunk: scored at once.
    logit: makes logits of scores [N]; None where nothing does, and only the
      order of scores counts.
  """
  score = score_rows(method, quadrant, rows, users_per_chunk)
  label = np.ones(len(rows)) if rows.label is None else rows.label > 0
  found = labelled.summary(
      score if logit is None else logit(score),
      np.asarray(label, np.float64),
      weight=rows.weight,
      group=rows.user,
      session=rows.session,
  )
  if logit is None:
    found = {name: found[name] for name in _ORDER_METRICS if name in found}
  return found
