# SPDX-License-Identifier: Apache-2.0
"""Steps of an optimiser on given gradients."""

import jax
import jax.numpy as jnp

from dropoutnet_jax.training import optimizers


def descend(settings, gradients, params):
  """Parameters after each step, for gradients [steps, ...] without a loss."""
  optimizer = optimizers.make_optimizer(settings)

  def step(carry, gradient):
    params, state = carry
    updates, state = optimizer.update(gradient, state, params)
    params = jax.tree.map(jnp.add, params, updates)
    return (params, state), params

  carry = (params, optimizer.init(params))
  return jax.jit(lambda: jax.lax.scan(step, carry, gradients)[1])()
