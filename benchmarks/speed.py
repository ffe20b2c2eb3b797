# SPDX-License-Identifier: Apache-2.0
"""Pairs per second: blocks of this package against batches of PyTorch.

Both train the same network on the same tables, one after the other in turns,
so that a busy machine slows both. Compilation, first batches and PyTorch's
drawing of its pairs are not counted.
"""

import statistics

from benchmarks import comparison
from benchmarks import jax_dropoutnet
from benchmarks import task
from benchmarks import torch_dropoutnet
from benchmarks import turns
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
  found = turns.measure(sides, _ROUNDS, _SECONDS)
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
