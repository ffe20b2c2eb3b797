# SPDX-License-Identifier: Apache-2.0
"""What histories of new rows are worth: factors and statistics.

A copy of this file lies in every export, beside `numpy_runtime.py`, which calls
it; it needs NumPy and SciPy alone.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse

_CLIP = 5.0  # standard deviations
_MOST = 2**30  # of a count
_ENTRIES = 2**24  # of dense histories at a time


def fold_in(
    factors: np.ndarray, met: Any, confidence: float, regularization: float
) -> np.ndarray:
  """One half-step of implicit ALS for histories [N, M] of 1s: [N, P]."""
  if not met.nnz:
    return np.zeros((met.shape[0], factors.shape[1]))
  factors = factors.astype(np.float64)
  gram = factors.T @ factors + regularization * np.eye(factors.shape[1])
  value = np.zeros((met.shape[0], factors.shape[1]))
  for row in range(met.shape[0]):
    own = factors[met.indices[met.indptr[row] : met.indptr[row + 1]]]
    if own.any():
      right = (1 + confidence) * own.sum(axis=0)
      value[row] = np.linalg.solve(gram + confidence * own.T @ own, right)
  return value


def left(number: np.ndarray, smoothing: float) -> np.ndarray:
  """Shares [N] of what content predicts that so many likes [N] leave."""
  return np.where(number > 0, smoothing / np.maximum(smoothing + number, 1), 1)


def expected(
    content: np.ndarray,
    number: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    size: int,
    smoothing: float,
) -> Any:
  """Histories that content [N, D] lets expect: csr_array [N, I].

  The `size` largest weights of each, as much as so many likes [N] leave.
  """
  parts, share = [], left(number, smoothing)
  cut = max(len(bias) - size, 0)
  step = max(_ENTRIES // max(len(bias), 1), 1)
  for begin in range(0, len(content), step):
    rows = slice(begin, begin + step)
    found = content[rows] @ weights + bias
    if cut:
      small = np.argpartition(found, cut, axis=1)[:, :cut]
      np.put_along_axis(found, small, 0, axis=1)
    found = np.maximum(found, 0) * share[rows, None]
    parts.append(scipy.sparse.csr_array(found))
  if not parts:
    return scipy.sparse.csr_array((0, len(bias)))
  return scipy.sparse.vstack(parts, format='csr')


def counted(number: np.ndarray, about: Mapping[str, Any]) -> np.ndarray:
  """Statistics of new rows with so many reactions [N]."""
  mean, std, prior, rate_std, usual = (
      np.array(about[x]) for x in ('mean', 'std', 'prior', 'rate_std', 'usual')
  )
  smoothing = about['smoothing']
  more = np.minimum(usual * (1 + number[:, None] / smoothing), _MOST)
  shown = np.round(more)
  parts = [(np.log1p(shown) - mean) / std]
  if about['has_rates']:
    hits = (more + smoothing) * prior
    misses = np.maximum(shown - more * prior, 0) + smoothing * (1 - prior)
    rate = np.log(hits / misses) - np.log(prior / (1 - prior))
    parts.append(rate / rate_std)
  value = np.clip(np.hstack(parts), -_CLIP, _CLIP)
  return np.where(number[:, None] > 0, value, 0).astype(np.float32)
