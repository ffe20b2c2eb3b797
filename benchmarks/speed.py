# SPDX-License-Identifier: Apache-2.0
"""Pairs per second: blocks of this package against batches of PyTorch.

Both train the same network on the same tables, one after the other in turns,
so that a busy machine slows both. Compilation, first batches and PyTorch's
drawing of its pairs are not counted.
"""

import statistics
import time

from benchmarks import comparison
from benchmarks import jax_dropoutnet
from benchmarks import task
from benchmarks import torch_dropoutnet
from dropoutnet_jax.training import runtime as runtime_lib

_ROUNDS = 5
_SECONDS = 3.0  # of each side in each round, about
_BAR = 500.0


def run(data_dir: str | None) -> comparison.Comparison:
  """Measures both sides; see `task.load_problem` for the data."""
  problem = task.load_problem(data_dir)
  runtime = runtime_lib.build(task.load_config(), problem)
  threads = torch_dropoutnet.use_fastest_threads(runtime.cfg, runtime.tables)
  sides = (
      jax_dropoutnet.JaxDropoutNet(runtime),
      torch_dropoutnet.TorchDropoutNet(runtime.cfg, runtime.tables, seed=0),
  )
  found = measure(sides, _ROUNDS, _SECONDS)
  ours, other = (statistics.median(rates) for rates in found)
  ratio = statistics.median(a / b for a, b in zip(*found))
  spread = ' and '.join(f'{min(r):,.0f} to {max(r):,.0f}' for r in found)
  return comparison.Comparison(
      'Training speed on citeulike-a',
      'PyTorch, batch 100',
      [comparison.Row('pairs per second', ours, other, ratio, _BAR)],
      [
          f'Medians of {_ROUNDS} rounds in turns: {spread} pairs/s.',
          f'{task.num_threads()} CPUs, all used by dropoutnet_jax; PyTorch '
          f'is fastest here with {threads} of them.',
      ],
  )


def measure(
    sides: tuple[task.Contestant, ...], num_rounds: int, seconds: float
) -> list[list[float]]:
  """Pairs per second of each side in each round, [sides][rounds].

  Args:
    sides: they train in turns.
    num_rounds: turns that count; one more, before them, sets the lengths.
    seconds: about how long a turn is.
  """
  num_steps = []
  for side in sides:
    side.train(2)  # whatever is made at the first call
    rate = pairs_per_second(side, 10)
    num_steps.append(max(1, round(rate * seconds / side.pairs_per_step)))
  rounds = [
      [pairs_per_second(side, count) for side, count in zip(sides, num_steps)]
      for _ in range(num_rounds)
  ]
  return [list(rates) for rates in zip(*rounds)]


def pairs_per_second(side: task.Contestant, num_steps: int) -> float:
  """Of num_steps steps."""
  begin = time.perf_counter()
  side.train(num_steps)
  return num_steps * side.pairs_per_step / (time.perf_counter() - begin)
