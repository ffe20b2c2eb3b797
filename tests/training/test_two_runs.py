# SPDX-License-Identifier: Apache-2.0
"""Whole runs of two processes are those of one: logs, states, tables.

Two processes of two devices each stream rows from where one process was
stopped, and the other way round; and they train on labels with a sparse part.
One device does the same. At last they embed a folder of files, each its share.
`two_runs.py` is what the two do, and `stuck_ridge.py` what they cannot.
"""

from collections.abc import Iterator
import functools
import json
import os
import pathlib
import shutil

import jax
import numpy as np
import pyarrow as pa
from pyarrow import parquet
import pytest

from dropoutnet_jax import commands
from dropoutnet_jax import serving_commands
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.evaluation import content_ridge
from dropoutnet_jax.training import checkpoints as checkpoints_lib
from dropoutnet_jax.training import runtime as runtime_lib
from dropoutnet_jax.training import state as state_lib
from dropoutnet_jax.training import telemetry
from tests import streamed_tables as toy
from tests import tiny_run
from tests.training import stuck_ridge
from tests.training import two_runs

CLOCK = ('seconds', 'examples_per_second', 'step_seconds')
# Of results.json, what is no outcome of the training.
CIRCUMSTANCES = (
    'train_seconds',
    'examples_per_second',
    'prepare_seconds',
    'evaluate_seconds',
    'peak_memory_bytes',
    'peak_device_memory_bytes',
    'devices',
    'notes',  # of rows that so many devices cannot share
)


@pytest.fixture(scope='module', autouse=True)
def one_device() -> Iterator[None]:
  """For all that is trained in the process of the tests."""
  build = functools.partial(runtime_lib.build, num_devices=1)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(runtime_lib, 'build', build)
    yield


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Tables, rows to embed, and a streaming run that one process has begun."""
  path = tmp_path_factory.mktemp('two')
  toy.write(path)
  write_new_items(path / two_runs.NEW_ITEMS)
  workdir = path / two_runs.BEGUN_BY_ONE
  two_runs.begin(toy.make_config(path), workdir, is_told=True)
  return path


def write_new_items(folder):
  """50 of them, in two files whose rows come in groups."""
  folder.mkdir()
  table = pa.table(
      {
          'item_id': np.arange(50) + 1000,
          'size': np.linspace(-1, 1, 50),
          'tags': [[f't{n % 20}', f't{n % 7}'] for n in range(50)],
      }
  )
  for name, part in (('a', table[:13]), ('b', table[13:])):
    parquet.write_table(part, folder / f'{name}.parquet', row_group_size=9)


@pytest.fixture(scope='module')
def two(folder, launcher):
  """The folder when two processes have done their part in it."""
  assert stopped_at(folder / two_runs.BEGUN_BY_ONE) == 2
  address = f'127.0.0.1:{tiny_run.free_port()}'
  script = pathlib.Path(two_runs.__file__)
  runs = [
      launcher.start_script(
          script, folder, (address, str(n), str(folder)), num_devices=2
      )
      for n in range(2)
  ]
  for run in runs:
    assert run.finish() == 0, run.output()
  said = runs[0].output()
  assert f'Resuming {folder / two_runs.BEGUN_BY_ONE} after step 2.' in said
  assert 'A signal to another process came; saved after step 2 of 10' in said
  assert '50 item(s), 50 of them new' in said
  assert '00000-of-00002.parquet and 1 more beside it' in said
  for line in ('Resuming', 'saved after', 'item(s)', 'Written'):
    assert line not in runs[1].output()  # one process speaks for all
  return folder


def stopped_at(workdir):
  return checkpoints_lib.Checkpoints(str(workdir), True).latest_step()


def outcome_of(workdir, cfg):
  """Log and results without the circumstances, and the last state by name."""
  log = [
      {name: x for name, x in row.items() if name not in CLOCK}
      for row in telemetry.read_metrics(str(workdir))
  ]
  results = json.loads((workdir / 'results.json').read_text())
  results = {k: v for k, v in results.items() if k not in CIRCUMSTANCES}
  flat = {
      jax.tree_util.keystr(path): x
      for path, x in jax.tree_util.tree_leaves_with_path(results)
  }
  runtime = runtime_lib.build(cfg, problem_lib.load(str(workdir)))
  saved = checkpoints_lib.Checkpoints(str(workdir), read_only=True)
  state = saved.restore(10, runtime.abstract_state())
  return log, flat, state_lib.by_name(jax.device_get(state))


def assert_same_run(found, expected):
  """Losses, parameters and every number of the tables."""
  assert found[0] and len(found[1]) > 100
  assert found[0] == [pytest.approx(row, rel=1e-5) for row in expected[0]]
  assert found[1].keys() == expected[1].keys()
  for name, value in expected[1].items():
    if isinstance(value, (str, bool)):
      assert found[1][name] == value, name
    else:
      assert found[1][name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
  assert found[2].keys() == expected[2].keys()
  for name, value in expected[2].items():
    if not name.startswith('opt_state'):
      gap = np.linalg.norm(found[2][name] - value)
      assert gap <= 1e-5 * np.linalg.norm(value), name


@pytest.fixture(scope='module')
def streamed(folder):
  """What one device comes to that nobody has stopped."""
  cfg, workdir = toy.make_config(folder), folder / 'streamed'
  commands.train(cfg, str(workdir))
  return outcome_of(workdir, cfg)


def test_two_processes_go_on_with_the_stream_of_one(two, streamed):
  found = outcome_of(two / two_runs.BEGUN_BY_ONE, toy.make_config(two))
  assert_same_run(found, streamed)


def test_one_process_goes_on_with_the_stream_of_two(two, streamed):
  """Of whom one alone was told to stop."""
  cfg, workdir = toy.make_config(two), two / two_runs.BEGUN_BY_TWO
  assert stopped_at(workdir) == 2
  commands.train(cfg, str(workdir))
  assert_same_run(outcome_of(workdir, cfg), streamed)


def test_each_reads_its_own_half_of_every_batch_once(two):
  for process in range(2):
    told = json.loads((two / f'{process}.json').read_text())
    assert told['rows'] == [32] * 8  # of 64 rows in each step from 2 on


def test_labels_and_a_sparse_part_come_to_the_same(two, monkeypatch):
  """Where neither process has a whole table of features or of scores."""
  monkeypatch.setattr(content_ridge, 'Solver', two_runs.SOLVER)
  cfg, workdir = two_runs.labelled_config(two, model=1), two / 'alone'
  commands.train(cfg, str(workdir))
  found, expected = (
      outcome_of(x, cfg) for x in (two / two_runs.LABELLED, workdir)
  )
  results = json.loads((two / two_runs.LABELLED / 'results.json').read_text())
  assert results['devices'] == 'cpu:4'
  names = ' '.join(found[1])
  for part in ('tower', 'content_ridge', 'log_loss', 'warm_up', 'teacher'):
    assert part in names, part
  assert_same_run(found, expected)


def test_content_ridge_is_solved_on_the_devices_of_both(two):
  told = [json.loads((two / f'{n}.json').read_text()) for n in range(2)]
  assert told[0]['solves'] == told[1]['solves']
  assert len(told[0]['solves']) > 3  # of each lambda, and the chosen one
  assert all(x == [0, 1] for x in told[0]['solves'])


def test_both_leave_when_content_ridge_gets_nowhere(two, launcher, tmp_path):
  workdir = shutil.copytree(two / two_runs.LABELLED, tmp_path / 'run')
  address = f'127.0.0.1:{tiny_run.free_port()}'
  script = pathlib.Path(stuck_ridge.__file__)
  runs = [
      launcher.start_script(
          script,
          workdir,
          (
              'evaluate',
              f'--workdir={workdir}',
              '--compile_cache=',
              f'--coordinator={address}',
              '--num_processes=2',
              f'--process_id={n}',
          ),
          num_devices=2,
      )
      for n in range(2)
  ]
  for run in runs:
    assert run.finish() == 2, run.output()
    assert 'Traceback' not in run.output()
  said = 'run.py: Content ridge by conjugate gradients is at a residual of'
  assert said in runs[0].output()
  assert 'after 1 steps' in runs[0].output()
  assert runs[1].own_lines() == [
      'run.py: Process 0 has stopped; its message says why.'
  ]


def test_they_embed_a_folder_of_files(two):
  """A file each, which together are that of one process."""
  names = [f'items-0000{n}-of-00002.parquet' for n in range(2)]
  assert sorted(os.listdir(two / two_runs.EMBEDDED)) == names
  parts = [parquet.read_table(two / two_runs.EMBEDDED / name) for name in names]
  assert [len(part) for part in parts] == [25, 25]
  serving_commands.embed(
      str(two / two_runs.LABELLED),
      str(two / 'one.parquet'),
      items=str(two / two_runs.NEW_ITEMS),
  )
  one = parquet.read_table(two / 'one.parquet')
  both = pa.concat_tables(parts)
  assert both.schema == one.schema and both['item_id'] == one['item_id']
  assert 'dense' in one.column_names and len(one.column_names) > 2
  for name in one.column_names[1:]:
    for found, expected in zip(both[name].to_pylist(), one[name].to_pylist()):
      np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
