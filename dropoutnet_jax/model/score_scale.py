# SPDX-License-Identifier: Apache-2.0
"""Scale and bias between a cosine and a logit, learnt within bounds.

A cosine alone lies in [-1, 1]: as a logit it can say no probability below 0.27,
and cross entropy stays above 0.31 however good the ranking. A free scale can
run away. So the parameter is any number and the scale a smooth function of it.
"""

import math

import jax
import jax.numpy as jnp

from dropoutnet_jax.model import loss_inputs


def bounded_scale(raw: jax.Array, low: float, high: float) -> jax.Array:
  """A scale in [low, high] from any number: float32, of raw's shape.

  low (high / low)^sigmoid(raw): a step of the parameter changes the scale by a
  factor, largest at raw 0, where the scale is the geometric mean of the bounds.

  Args:
    raw: the parameter.
    low: above 0.
    high: above low.

  Raises:
    ValueError: unless 0 < low < high.
  """
  _check_bounds(low, high)
  share = jax.nn.sigmoid(jnp.asarray(raw, jnp.float32))
  # The power may round to just outside.
  return jnp.clip(low * jnp.exp(math.log(high / low) * share), low, high)


def raw_scale(scale: float, low: float, high: float) -> float:
  """The parameter at which `bounded_scale` is a scale: where to start.

  Raises:
    ValueError: unless 0 < low < scale < high.
  """
  _check_bounds(low, high)
  loss_inputs.check_number('scale', scale, above=low, below=high)
  share = math.log(scale / low) / math.log(high / low)
  return math.log(share / (1 - share))


def bounded_bias(raw: jax.Array, bound: float) -> jax.Array:
  """A bias in [-bound, bound] from any number: float32, of raw's shape.

  It is the parameter itself near 0.

  Raises:
    ValueError: unless bound > 0.
  """
  loss_inputs.check_number('bound', bound, above=0.0)
  return bound * jnp.tanh(jnp.asarray(raw, jnp.float32) / bound)


def raw_bias(bias: jax.Array, bound: float) -> jax.Array:
  """The parameter at which `bounded_bias` is a bias: where to start.

  Args:
    bias: any numbers; those outside of 0.9 times the bound are taken for its
      ends, so that the start is no place without a slope.
    bound: above 0.

  Raises:
    ValueError: unless bound > 0.
  """
  loss_inputs.check_number('bound', bound, above=0.0)
  share = jnp.clip(jnp.asarray(bias, jnp.float32) / bound, -0.9, 0.9)
  return bound * jnp.arctanh(share)


def _check_bounds(low: float, high: float) -> None:
  loss_inputs.check_number('low', low, above=0.0)
  loss_inputs.check_number('high', high, above=low)
