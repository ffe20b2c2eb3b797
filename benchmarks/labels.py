# SPDX-License-Identifier: Apache-2.0
"""Cost of learning from labels: rolled negatives, and the whole batch.

A step with many negatives beside one with few, both on the towers of
citeulike-a; and the softmax over all items of a batch beside the dense products
that it cannot do without, at the rate that this machine multiplies matrices.
"""

from collections.abc import Callable
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import comparison
from benchmarks import jax_dropoutnet
from benchmarks import task
from benchmarks import turns
from dropoutnet_jax import config
from dropoutnet_jax.model import losses
from dropoutnet_jax.training import runtime as runtime_lib

_BATCH = 4096
_FEW, _MANY = 4, 256
_ROUNDS = 7
_SECONDS = 2.0  # of each side in each round, about
_STEP_BAR = 1 / 1.3
_RATE_BAR = 0.6
# Products of [B, B] with [B, R] in a loss and its gradient.
_PRODUCTS = 3


def run(data_dir: str | None) -> comparison.Comparison:
  """Measures both; see `task.load_problem` for the data."""
  problem = task.load_problem(data_dir)
  sides = tuple(
      jax_dropoutnet.JaxDropoutNet(
          runtime_lib.build(make_config(number), problem)
      )
      for number in (_MANY, _FEW)
  )
  many, few = turns.measure(sides, _ROUNDS, _SECONDS)
  per_step = lambda rates: 1000 * _BATCH / statistics.median(rates)
  rank = task.load_config().model.rank
  softmax, product = softmax_rate(_BATCH, rank)
  return comparison.Comparison(
      f'Learning from labels, batch {_BATCH:,}',
      'reference',
      [
          comparison.Row(
              f'ms per step, {_MANY} rolled negatives (reference: {_FEW})',
              per_step(many),
              per_step(few),
              statistics.median(a / b for a, b in zip(many, few)),
              _STEP_BAR,
          ),
          comparison.Row(
              'GFLOP/s, softmax over the batch (reference: matrix products)',
              softmax,
              product,
              softmax / product,
              _RATE_BAR,
          ),
      ],
      [
          f'Medians of {_ROUNDS} rounds in turns. The softmax has its gradient '
          f'with it; only its {_PRODUCTS} matrix products are counted, rank '
          f'{rank}.'
      ],
  )


def make_config(num_negatives: int) -> config.Config:
  """The experiment of the other suites, learning from likes alone."""
  cfg = task.load_config()
  cfg.objective = config.ObjectiveConfig(
      teacher=0.0,
      softmax=1.0,
      pairing='interactions',
      num_negatives=num_negatives,
  )
  cfg.train.batch_size = _BATCH
  cfg.validate()
  return cfg


def softmax_rate(size: int, rank: int) -> tuple[float, float]:
  """GFLOP/s of the in-batch softmax with its gradient, and of products.

  The product is [B, R] with [R, B], the shape that the softmax needs; both are
  timed in turns.
  """
  user, item = jax.random.normal(jax.random.key(0), (2, size, rank)) / rank**0.5
  weight = jnp.ones(size)
  loss = jax.jit(
      jax.value_and_grad(
          lambda u, i: losses.in_batch_softmax(u, i, weight, temperature=0.1),
          argnums=(0, 1),
      )
  )
  product = jax.jit(lambda u, i: u @ i.T)
  flops = 2.0e-9 * size * size * rank
  rates = []
  for _ in range(_ROUNDS + 1):  # the first compiles
    rates.append(
        (
            _PRODUCTS * flops / _seconds(loss, user, item),
            flops / _seconds(product, user, item),
        )
    )
  softmax, products = zip(*rates[1:])
  return statistics.median(softmax), statistics.median(products)


def _seconds(function: Callable[..., Any], *arguments: jax.Array) -> float:
  begin = time.perf_counter()
  jax.block_until_ready(function(*arguments))
  return time.perf_counter() - begin
