# SPDX-License-Identifier: Apache-2.0
"""Scales of preference, fitted on the training and kept with the run."""

from typing import Any

import flax.struct
import jax.numpy as jnp
import numpy as np

_CLIP = 5.0  # standard deviations; as published


@flax.struct.dataclass
class Scaler:
  """Scales preference rows [B, P] for the tower.

  'standard' standardises each column and clips at 5, as published; 'row'
  gives rows of norm 1; 'unit' rows whose entries have about unit variance;
  'none' leaves them. Kept with the run, so that entities that come later are
  scaled the same way. The mean is there whatever the kind.
  """

  mean: Any  # float32 [P]
  scale: Any  # float32 [P]
  kind: str = flax.struct.field(pytree_node=False)

  def __call__(self, x: Any) -> Any:
    """float32 [B, P] -> float32 [B, P]."""
    if self.kind == 'standard':
      x = (x - self.mean[None, :]) / self.scale[None, :]
      return jnp.clip(x, -_CLIP, _CLIP)
    if self.kind in ('row', 'unit'):
      square = jnp.sum(x * x, axis=-1, keepdims=True)
      size = 1.0 if self.kind == 'row' else x.shape[-1] ** 0.5
      return x * (size / jnp.sqrt(jnp.where(square > 0, square, 1.0)))
    return x


def fit(values: np.ndarray, kind: str) -> Scaler:
  """Fits on the rows of present entities, float32 [N, P]."""
  width = values.shape[1]
  mean, scale = np.zeros(width, np.float32), np.ones(width, np.float32)
  if len(values):
    mean = values.mean(axis=0, dtype=np.float64).astype(np.float32)
    if kind == 'standard':
      deviation = values.std(axis=0, dtype=np.float64).astype(np.float32)
      scale = np.where(deviation > 1e-8, deviation, 1.0).astype(np.float32)
  return Scaler(mean, scale, kind)
