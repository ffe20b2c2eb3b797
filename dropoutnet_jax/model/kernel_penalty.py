# SPDX-License-Identifier: Apache-2.0
"""L2 of the kernels of both towers; biases, norms and tables are left alone."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

_TOWERS = ('user_tower', 'item_tower')


def penalty(params: Mapping[str, Any]) -> jax.Array:
  """Half the sum of squares of all kernels of the towers: float32 []."""
  towers = {name: params[name] for name in _TOWERS if name in params}
  total = jnp.zeros(())
  for path, leaf in jax.tree.leaves_with_path(towers):
    if path[-1].key == 'kernel':
      total += jnp.sum(jnp.square(leaf)) / 2
  return total
