# SPDX-License-Identifier: Apache-2.0
"""Several pairs of towers as one model: each learns alone, scores are means.

Networks that differ in their first weights and batches are better together
than any of them (Hansen & Salamon 1990; Lakshminarayanan et al. 2017). Here M
of them are one model: their embeddings lie side by side over the root of M, so
that one dot product is the mean of theirs.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax

from dropoutnet_jax import config

# A prime apart, lest members of one run be those of a run with the next seed.
_SEEDS_APART = 7919


def join(dense: jax.Array) -> jax.Array:
  """Embeddings of M members [..., M, R] as those of the model: [..., M R]."""
  num, rank = dense.shape[-2:]
  if num > 1:
    dense = dense * num**-0.5
  return dense.reshape(*dense.shape[:-2], num * rank)


def config_of(cfg: config.Config, member: int) -> config.Config:
  """The experiment whose batches and dropout a member sees: another seed."""
  if not member:
    return cfg
  seed = cfg.train.seed + member * _SEEDS_APART
  return dataclasses.replace(
      cfg, train=dataclasses.replace(cfg.train, seed=seed)
  )


def mean_loss(
    loss: Callable[[int, Any], tuple[jax.Array, tuple[Any, Any]]],
    stats: Any,
    num: int,
) -> tuple[jax.Array, tuple[Any, Any]]:
  """Mean of the losses and metrics of all members, with all their statistics.

  Args:
    loss: (member, batch statistics) -> (loss, (statistics, metrics)).
    stats: batch statistics before the step.
    num: members.
  """
  values = []
  for member in range(num):
    value, (stats, metrics) = loss(member, stats)
    values.append((value, metrics))
  if num == 1:
    (value, metrics), *_ = values
    return value, (stats, metrics)
  mean = jax.tree.map(lambda *x: sum(x[1:], x[0]) / num, *values)
  return mean[0], (stats, mean[1])
