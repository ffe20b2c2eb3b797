# SPDX-License-Identifier: Apache-2.0
"""Rows read as steps need them against rows that are on the devices.

The same model, batches and rows on both sides, in turns; each turn of the
streaming side begins with a new reader, so that nothing is read ahead while the
other side trains. What preparing, the first batch and memory come to is in the
remarks and in rows of their own.

  python -m benchmarks.streaming --rows=50000000
"""

import argparse
import dataclasses
import functools
import os
import pathlib
import statistics
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from benchmarks import comparison
from benchmarks import jax_dropoutnet
from benchmarks import memory
from benchmarks import suite
from benchmarks import turns
from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.data import files
from dropoutnet_jax.data import row_file
from dropoutnet_jax.data import streamed_split
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.training import loop
from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import runtime as runtime_lib

_ROWS = 2_000_000
_ROWS_PER_FILE = 5_000_000
_USERS, _ITEMS = 200_000, 100_000
_WIDTH = 32  # of the content of either side
_BATCH = 65_536
_ROUNDS = 5
_SECONDS = 6.0  # of each side in each round, about
_RATE_BAR = 0.8
_MEGABYTES_BAR = 2000.0
_FIRST_BATCH_BAR = 5.0  # seconds


def run(data_dir: str | None, num_rows: int = _ROWS) -> comparison.Comparison:
  """Writes tables of so many rows, measures, and removes them.

  Args:
    data_dir: of the other suites; nothing is read from it.
    num_rows: of the interactions.
  """
  del data_dir
  with tempfile.TemporaryDirectory() as folder:
    return measure(folder, num_rows)


def measure(folder: str, num_rows: int) -> comparison.Comparison:
  """As `run`, in a folder that keeps the tables for another time."""
  write_tables(folder, num_rows)
  cfg = make_config(folder, num_rows)
  print('Measuring the memory of a whole run ...', flush=True)
  peak = _peak_megabytes(folder, num_rows)
  print('Preparing ...', flush=True)
  with tempfile.TemporaryDirectory(dir=folder) as workdir:
    begin = time.perf_counter()
    problem = prepare.prepare(cfg, None, workdir)
    prepared = time.perf_counter() - begin
    runtime = runtime_lib.build(cfg, problem)
    first = _first_batch(runtime, workdir)
    sides = (
        _Streaming(runtime, workdir),
        jax_dropoutnet.JaxDropoutNet(_resident(runtime, workdir)),
    )
    found = turns.measure(sides, _ROUNDS, _SECONDS)
  ours, other = (statistics.median(rates) for rates in found)
  ratio = statistics.median(a / b for a, b in zip(*found))
  spread = ' and '.join(f'{min(r):,.0f} to {max(r):,.0f}' for r in found)
  streamed = problem.split.streamed
  assert streamed is not None
  parts = ', '.join(f'{k} {v:.1f} s' for k, v in problem.seconds.items())
  return comparison.Comparison(
      f'Streaming {num_rows:,} interactions, batch {_BATCH:,}',
      'reference',
      [
          comparison.Row(
              'rows per second (reference: resident)',
              ours,
              other,
              ratio,
              _RATE_BAR,
          ),
          comparison.Row(
              'peak MB of a whole run (reference: the bar)',
              peak,
              _MEGABYTES_BAR,
              _MEGABYTES_BAR / peak,
              1.0,
          ),
          comparison.Row(
              's to the first batches (reference: the bar)',
              first,
              _FIRST_BATCH_BAR,
              _FIRST_BATCH_BAR / first,
              1.0,
          ),
      ],
      [
          f'Medians of {_ROUNDS} rounds in turns: {spread} rows/s.',
          f'Prepared once in {prepared:.1f} s ({parts}); '
          f'{streamed.num_rows:,} rows are trained on.',
          f'First batches: those of {cfg.train.steps_per_dispatch} steps, on '
          'the device, from the start of the reader.',
      ],
  )


def write_tables(folder: str, num_rows: int) -> None:
  """Parquet files: interactions in parts, users and items with content.

  Some items and users are met far more often than others. Parts of interactions
  that are there are left alone.
  """
  path = pathlib.Path(folder)
  inside = path / f'interactions-{num_rows}'
  inside.mkdir(parents=True, exist_ok=True)
  for side, number in (('user', _USERS), ('item', _ITEMS)):
    rng = np.random.default_rng([0, number])
    content = rng.normal(size=number * _WIDTH).astype(np.float32)
    columns = {
        f'{side}_id': pa.array(np.arange(number) + 1000),
        'content': pa.FixedSizeListArray.from_arrays(pa.array(content), _WIDTH),
    }
    parquet.write_table(pa.table(columns), path / f'{side}s.parquet')
  for part, begin in enumerate(range(0, num_rows, _ROWS_PER_FILE)):
    size = min(_ROWS_PER_FILE, num_rows - begin)
    target = inside / f'part-{part:04}.parquet'
    if target.exists():
      continue
    rng = np.random.default_rng([1, part])
    draw = lambda number: (rng.random(size) ** 2 * number).astype(np.int64)
    columns = {
        'user_id': pa.array(draw(_USERS) + 1000),
        'item_id': pa.array(draw(_ITEMS) + 1000),
        'label': pa.array((rng.random(size) < 0.3).astype(np.int8)),
    }
    write = functools.partial(
        parquet.write_table, pa.table(columns), row_group_size=1 << 20
    )
    files.write(str(target), write)  # whole: another start takes it as it is


def make_config(folder: str, num_rows: int) -> config.Config:
  """A small model, so that reading has to keep up with it."""
  path = pathlib.Path(folder)
  content = [config.Feature(column='content', kind='dense')]
  cfg = config.Config(
      name='streaming',
      data=config.DataConfig(
          name='tables',
          mode='streaming',
          cold_item_share=0.01,
          warm_share=0.0,
          tables=config.TablesConfig(
              interactions=str(path / f'interactions-{num_rows}'),
              users=str(path / 'users.parquet'),
              items=str(path / 'items.parquet'),
          ),
      ),
      features=config.FeaturesConfig(
          preference='none', user=content, item=content
      ),
      model=config.ModelConfig(hidden=(64,), rank=32),
      objective=config.ObjectiveConfig(
          teacher=0.0,
          pointwise=1.0,
          pairing='interactions',
          mask_known=False,
          sampling='epochs',
      ),
      train=config.TrainConfig(
          batch_size=_BATCH, num_steps=1_000_000, steps_per_dispatch=20
      ),
      evaluation=config.EvaluationConfig(
          baselines=('random',), bootstrap=0, mixed=False, slices=False
      ),
  )
  cfg.validate()
  return cfg


class _Streaming:
  """Trains on batches that come in, as the loop does."""

  def __init__(self, runtime: runtime_lib.Runtime, workdir: str):
    self._runtime, self._workdir = runtime, workdir
    self._state, self._step = runtime.fresh_state(), 0
    self.pairs_per_step = runtime.pairs_per_step

  def train(self, num_steps: int) -> None:
    """Does num_steps steps with a reader of its own and waits for them."""
    runtime, settings = self._runtime, self._runtime.cfg.train
    train_steps = runtime.train_steps()
    last = self._step + num_steps
    stop = lambda step: min(last, loop.next_stop(step, settings))
    feed = runtime.feed(self._workdir, self._step)
    coming = feed.tables(self._step, stop(self._step))
    while self._step < last:
      begin, self._step = self._step, stop(self._step)
      count = jnp.int32(self._step - begin)
      self._state, _ = train_steps(self._state, coming, count)
      if self._step < last:
        coming = feed.tables(self._step, stop(self._step))
      jax.block_until_ready(self._state)
    feed.close()
    if int(self._state.step) != last:
      raise RuntimeError(f'Not finite at step {int(self._state.step)}.')


def _first_batch(runtime: runtime_lib.Runtime, workdir: str) -> float:
  """Seconds until the batches of a first call are on the devices."""
  begin = time.perf_counter()
  feed = runtime.feed(workdir, 0)
  end = loop.next_stop(0, runtime.cfg.train)
  jax.block_until_ready(feed.tables(0, end).rows)
  seconds = time.perf_counter() - begin
  feed.close()
  return seconds


def _resident(
    runtime: runtime_lib.Runtime, workdir: str
) -> runtime_lib.Runtime:
  """The same run with all rows on the devices."""
  path = os.path.join(workdir, streamed_split.FILE)
  rows = np.fromfile(path, row_file.ROW)
  names = row_file.ROW.names or ()
  columns = (np.ascontiguousarray(rows[name]) for name in names)
  placed = parallel.place(tables_lib.LabelledRows(*columns), runtime.mesh)
  tables = dataclasses.replace(runtime.tables, rows=placed)
  return dataclasses.replace(runtime, tables=tables)


def _peak_megabytes(folder: str, num_rows: int) -> float:
  """Peak resident memory of run.py train with these tables and few steps."""
  cfg = make_config(folder, num_rows)
  cfg.train.num_steps = 60
  file = pathlib.Path(folder, 'experiment.py')
  lines = (
      'import json',
      'from dropoutnet_jax import config_tree',
      f'TEXT = {config_tree.to_json(cfg)!r}',
      'get_config = lambda: config_tree.from_dict(json.loads(TEXT))',
  )
  file.write_text('\n'.join(lines), encoding='utf-8')
  with tempfile.TemporaryDirectory(dir=folder) as workdir:
    return memory.peak_of_training(file, workdir) / 1e6


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--rows', type=int, default=_ROWS)
  parser.add_argument(
      '--folder', help='keeps the tables there, for another time'
  )
  given = parser.parse_args()
  if given.folder is None:
    found = run(None, given.rows)
  else:
    found = measure(given.folder, given.rows)
  suite.show(found)


if __name__ == '__main__':
  try:
    main()
  except errors.UserError as error:
    sys.exit(f'benchmarks.streaming: {error}')
