# SPDX-License-Identifier: Apache-2.0
"""The first columns of many orders, and draws of columns by their chances."""

import numpy as np


def first(scores: np.ndarray, k: int) -> np.ndarray:
  """Columns of the k largest, descending, equal ones in their order.

  Args:
    scores: [..., J]; -inf is no candidate.
    k: at most; J where that is less.
  """
  size = scores.shape[-1]
  k = min(k, size)
  # The k-th largest; of those that equal it the first ones.
  edge = np.partition(scores, size - k, axis=-1)[..., size - k, None]
  above, equal = scores > edge, scores == edge
  missing = k - above.sum(axis=-1, keepdims=True)
  chosen = above | (equal & (np.cumsum(equal, axis=-1) <= missing))
  columns = np.nonzero(chosen)[-1].reshape(*scores.shape[:-1], k)
  found = np.take_along_axis(scores, columns, axis=-1)
  order = np.argsort(-found, axis=-1, kind='stable')
  return np.take_along_axis(columns, order, axis=-1)


def draw_evenly(
    chance: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
  """Columns by their chances [B, J], in even steps from one draw: [B, draws].

  Each comes as often as its chance says, less than one time more or less.
  """
  total = np.cumsum(chance, axis=-1)
  point = (np.arange(draws) + rng.random((len(chance), 1))) / max(draws, 1)
  # Rows one behind the other, each in a stretch of its own.
  begin = 2.0 * np.arange(len(chance))[:, None]
  known = np.maximum(total[:, -1:], 1e-12)
  at = np.searchsorted(
      (begin + total / known).ravel(), (begin + point).ravel(), side='right'
  )
  column = at.reshape(point.shape) - np.arange(len(chance))[:, None] * (
      chance.shape[1]
  )
  return np.where(
      total[:, -1:] > 0, np.clip(column, 0, chance.shape[1] - 1), -1
  )
