# SPDX-License-Identifier: Apache-2.0
"""Adagrad with one sum for all columns of a row: little state for large tables.

Mudigere et al., "Software-Hardware Co-design for Fast and Scalable Training of
Deep Learning Recommendation Models", ISCA 2022.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class RowSums(NamedTuple):
  """Of each row of a table: float32 [N], the sum of its mean squares."""

  sums: Any


def row_adagrad(
    rate: optax.ScalarOrSchedule, accumulator: float, epsilon: float
) -> optax.GradientTransformation:
  """Of parameters that are tables [N, D], each row has a rate of its own.

  A row of gradient g moves by -rate * g / sqrt(sum + epsilon), once the mean of
  g * g is added to its sum. With D = 1 that is Adagrad. A row whose gradient
  is 0 stays, and so does its sum.

  Args:
    rate: learning rate, by update.
    accumulator: where the sums start, >= 0.
    epsilon: keeps the divisor above 0.
  """

  def init(params: Any) -> RowSums:
    start = lambda x: jnp.full(x.shape[:1], accumulator, x.dtype)
    return RowSums(jax.tree.map(start, params))

  def update(
      grads: Any, state: RowSums, params: Any = None
  ) -> tuple[Any, RowSums]:
    del params
    add = lambda total, g: total + jnp.mean(g * g, axis=1)
    sums = jax.tree.map(add, state.sums, grads)
    scale = lambda g, total: g * jax.lax.rsqrt(total + epsilon)[:, None]
    return jax.tree.map(scale, grads, sums), RowSums(sums)

  return optax.chain(
      optax.GradientTransformation(init, update),
      optax.scale_by_learning_rate(rate),
  )
