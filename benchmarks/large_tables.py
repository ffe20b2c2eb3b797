# SPDX-License-Identifier: Apache-2.0
"""Time of a step beside the size of the tables that it looks rows up in.

python -m benchmarks.large_tables --rows=20000000
python run.py bench --suite=tables

Every item has a learnt embedding, in a table whose rows are split over eight
devices, virtual ones of the CPU. Two such runs train in turns on batches of one
size, one of them with few items. Times are those of whole steps, optimiser and
all: batches are drawn, ids looked up, rows gathered, moved and put back.
"""

import argparse
from concurrent import futures
import multiprocessing
import statistics
import sys

import jax
import numpy as np
import scipy.sparse

from benchmarks import comparison
from benchmarks import jax_dropoutnet
from benchmarks import suite
from benchmarks import turns
from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import impressions
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import tokens as tokens_lib
from dropoutnet_jax.training import results as results_lib
from dropoutnet_jax.training import runtime as runtime_lib

_ROWS = 2_000_000
_FEW = 200_000  # of the other table
_WIDTH = 64
_USERS = 20_000
_PAIRS = 1_000_000
_BATCH = 8192
_DEVICES = 8  # along the axis 'model'
_OPTIMIZER = 'row_adagrad'
_ROUNDS = 7
_SECONDS = 4.0  # of each side in each round, about
_BAR = 1 / 1.2


def run(data_dir: str | None, num_rows: int = _ROWS) -> comparison.Comparison:
  """Measures in a process of its own, which has eight devices.

  Args:
    data_dir: of the other suites; nothing is read from it.
    num_rows: of the large table.
  """
  del data_dir
  spawn = multiprocessing.get_context('spawn')
  with futures.ProcessPoolExecutor(1, spawn, split_cpu) as pool:
    return pool.submit(measure, num_rows).result()


def split_cpu() -> None:
  """Makes virtual devices of the CPU, in a process that has used none yet."""
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', _DEVICES)


def measure(
    num_rows: int, optimizer: str = _OPTIMIZER
) -> comparison.Comparison:
  """The comparison, on the devices of this process."""
  sides = tuple(
      Side(rows, make_runtime(rows, optimizer)) for rows in (num_rows, _FEW)
  )
  found = turns.measure(sides, _ROUNDS, _SECONDS)
  many, few = (
      statistics.median(1000 * _BATCH / rate for rate in rates)
      for rates in found
  )
  ratio = statistics.median(a / b for a, b in zip(*found))
  times = [[1000 * _BATCH / rate for rate in rates] for rates in found]
  spread = ' and '.join(f'{min(x):.1f} to {max(x):.1f}' for x in times)
  large = sides[0]
  return comparison.Comparison(
      f'A table of {num_rows:,} rows x {_WIDTH}, batch {_BATCH:,}',
      f'{_FEW:,} rows',
      [comparison.Row('ms per step', many, few, ratio, _BAR)],
      [
          f'Medians of {_ROUNDS} rounds in turns: {spread} ms.',
          f'{_DEVICES} devices, {optimizer}. Each has '
          f'{large.state_bytes / 1e6:,.0f} MB of parameters and of what the '
          f'optimiser keeps; a step needs {large.temp_bytes / 1e6:,.0f} MB '
          'beside them.',
          f'Memory of the process: {results_lib.peak_memory() / 1e9:.1f} GB '
          'at the peak.',
      ],
  )


class Side(jax_dropoutnet.JaxDropoutNet):
  """Trains with one size of the table.

  Attributes:
    state_bytes: of the state, on one device.
    temp_bytes: what a step allocates, on one device.
  """

  def __init__(self, num_rows: int, runtime: runtime_lib.Runtime):
    print(f'{num_rows:,} rows: compiling ...', flush=True)
    super().__init__(runtime)
    self.state_bytes = sum(
        leaf.addressable_data(0).nbytes for leaf in jax.tree.leaves(self._state)
    )
    memory = self._train_steps.memory_analysis()
    self.temp_bytes = memory.temp_size_in_bytes


def make_runtime(
    num_rows: int, optimizer: str = _OPTIMIZER
) -> runtime_lib.Runtime:
  """A run with so many items, whose ids are all that is known of them."""
  cfg = make_config(optimizer)
  rng = np.random.default_rng(0)
  draw = lambda number: rng.integers(0, number, _PAIRS).astype(np.int32)
  pairs = schema.Interactions(
      draw(_USERS),
      draw(num_rows),
      label=(rng.random(_PAIRS) < 0.3).astype(np.float32),
  )
  problem = problem_lib.Problem(
      _make_side('user', _USERS),
      _make_side('item', num_rows),
      schema.Split(pairs, {}),
      schema.Factors(
          np.zeros((_USERS, 0), np.float32),
          np.zeros((num_rows, 0), np.float32),
          np.zeros(_USERS, bool),
          np.zeros(num_rows, bool),
      ),
      labelled=impressions.Labelled(pairs),
  )
  return runtime_lib.build(cfg, problem)


def _make_side(name: str, number: int) -> problem_lib.Side:
  """Rows with an embedding each, and nothing else."""
  feature = tokens_lib.TokenFeature(
      name, name, 0, 1, number + 1, _WIDTH, 'sum', _WIDTH**-0.5
  )
  return problem_lib.Side(
      np.arange(number),
      np.zeros((number, 0), np.float32),
      scipy.sparse.csr_array((number, 0), dtype=np.float32),
      tokens_lib.Tokens(
          np.arange(1, number + 1, dtype=np.int32)[:, None],
          np.ones((number, 1), np.float32),
          (feature,),
      ),
  )


def make_config(optimizer: str = _OPTIMIZER) -> config.Config:
  """A small network, so that the table has to keep up with it."""
  feature = config.Feature
  ids = lambda name: [feature(name, 'category', embedding=_WIDTH)]
  cfg = config.Config(
      name='large_tables',
      features=config.FeaturesConfig(
          preference='none', user=ids('user'), item=ids('item')
      ),
      model=config.ModelConfig(hidden=(64,), rank=32),
      objective=config.ObjectiveConfig(
          teacher=0.0,
          pointwise=1.0,
          pairing='interactions',
          mask_known=False,
      ),
      train=config.TrainConfig(
          batch_size=_BATCH,
          num_steps=1_000_000,
          steps_per_dispatch=20,
          embedding_optimizer=optimizer,
      ),
      evaluation=config.EvaluationConfig(baselines=('random',)),
      mesh=config.MeshConfig(model=_DEVICES),
  )
  cfg.validate()
  return cfg


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--rows', type=int, default=_ROWS)
  parser.add_argument(
      '--optimizer', choices=config.ROW_OPTIMIZERS, default=_OPTIMIZER
  )
  given = parser.parse_args()
  split_cpu()
  suite.show(measure(given.rows, given.optimizer))


if __name__ == '__main__':
  try:
    main()
  except errors.UserError as error:
    sys.exit(f'benchmarks.large_tables: {error}')
