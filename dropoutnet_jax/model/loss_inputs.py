# SPDX-License-Identifier: Apache-2.0
"""Checks of what the losses are given, and rows of weight 0 made harmless."""

import math
from typing import Any

import jax
import jax.numpy as jnp


def check_same_shape(**arrays: jax.Array) -> None:
  """Raises ValueError, naming all, unless the arrays have one shape.

  Broadcasting [B] against [B, 1] is the classic silent mistake.
  """
  if len({array.shape for array in arrays.values()}) > 1:
    found = ', '.join(f'{name} {arrays[name].shape}' for name in arrays)
    raise ValueError(f'Shapes differ: {found}.')


def check_number(
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> None:
  """Raises ValueError unless above < value < below and least <= value <= most.

  An array may hold anything, since its value is not known under jit; it must be
  a scalar.
  """
  if isinstance(value, jax.Array):
    if value.shape:
      raise ValueError(f'{name} has shape {value.shape}; it must be a scalar.')
    return
  if above < value < below and least <= value <= most:
    return
  bounds = {'above': above, 'at least': least, 'at most': most, 'below': below}
  rule = [f'{text} {x:g}' for text, x in bounds.items() if math.isfinite(x)]
  raise ValueError(
      f'{name} is {value}; it must be {" and ".join(rule) or "finite"}.'
  )


def kept(value: jax.Array, where: jax.Array) -> jax.Array:
  """The value in float32, zero where it does not count.

  What padding holds then reaches neither value nor gradient, not even NaN.

  Args:
    value: [B] or [B, R].
    where: [B] or of the value's shape; counts where it is positive or True.
  """
  counted = where > 0
  counted = counted.reshape(counted.shape + (1,) * (value.ndim - counted.ndim))
  return jnp.where(counted, value.astype(jnp.float32), 0.0)
