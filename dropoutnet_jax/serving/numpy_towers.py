# SPDX-License-Identifier: Apache-2.0
"""The steps of a tower, as the manifest of an export names them.

A copy of this file lies in every export, beside `numpy_runtime.py`, which calls
it; it needs NumPy alone.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

_GELU = (8 / np.pi) ** 0.5
_SELU = (1.0507009873554805, 1.6732632423543772)


def unit(x: np.ndarray) -> np.ndarray:
  """Rows [N, F] of norm 1, or 0."""
  norm = np.linalg.norm(x, axis=1, keepdims=True)
  return x / np.where(norm > 0, norm, 1)


def _dense(x: list, weights: list, step: Mapping[str, Any]) -> np.ndarray:
  return x[0] @ weights[0] + (weights[1] if len(weights) > 1 else 0)


def _batch_norm(x: list, weights: list, step: Mapping[str, Any]) -> np.ndarray:
  scale, bias, mean, var = weights
  return (x[0] - mean) / np.sqrt(var + step['epsilon']) * scale + bias


def _layer_norm(x: list, weights: list, step: Mapping[str, Any]) -> np.ndarray:
  gap = x[0] - x[0].mean(axis=1, keepdims=True)
  var = np.mean(gap * gap, axis=1, keepdims=True)
  return gap / np.sqrt(var + step['epsilon']) * weights[0] + weights[1]


def _pool(x: list, weights: list, step: Mapping[str, Any]) -> np.ndarray:
  """Embeddings of tokens, pooled; nothing of a row that has none."""
  columns = slice(*step['columns'])
  weight, emb = x[1][:, columns], weights[0][x[0][:, columns]]
  there = weight > 0
  if step['pooling'] == 'max':
    value = np.where(there[..., None], emb, -np.inf).max(
        axis=1, initial=-np.inf
    )
    return step['scale'] * np.where(there.any(axis=1)[:, None], value, 0)
  if step['pooling'] == 'attention':
    logit = emb @ weights[1] / emb.shape[2] ** 0.5
    logit = np.where(there, logit, -np.inf)
    largest = logit.max(axis=1, initial=-1e30, keepdims=True)
    weight = weight * np.where(there, np.exp(logit - largest), 0)
  total = np.sum(weight[..., None] * emb, axis=1)
  if step['pooling'] != 'sum':
    size = weight.sum(axis=1, keepdims=True)
    total = total / np.where(size > 0, size, 1)
  return step['scale'] * total


_elu: Any = lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
_sigmoid: Any = lambda x: (1 + np.tanh(x / 2)) / 2
_MAPS: dict[str, Any] = {
    'unit': unit,
    'tanh': np.tanh,
    'relu': lambda x: np.maximum(x, 0),
    'gelu': lambda x: x * _sigmoid(_GELU * (x + 0.044715 * x**3)),
    'elu': _elu,
    'selu': lambda x: _SELU[0] * np.where(x > 0, x, _SELU[1] * _elu(x)),
    'silu': lambda x: x * _sigmoid(x),
    'sigmoid': _sigmoid,
}
STEPS: dict[str, Any] = {
    'join': lambda x, weights, step: np.concatenate(x, axis=1),
    'add': lambda x, weights, step: sum(x),
    'column': lambda x, weights, step: x[0].astype(np.float32)[:, None],
    'map': lambda x, weights, step: _MAPS[step['by']](x[0]),
    'dense': _dense,
    'batch_norm': _batch_norm,
    'layer_norm': _layer_norm,
    'pool': _pool,
}
