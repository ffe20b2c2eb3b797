# SPDX-License-Identifier: Apache-2.0
"""Whole runs of two processes are those of one: logs, states, tables.

Two processes of two devices each stream rows, go on where one process was
stopped and the other way round, and train on labels with a sparse part. One
process of eight devices does the same; `two_runs.py` is what the two do.
"""

import json
import pathlib

import jax
import numpy as np
import pytest

from dropoutnet_jax import commands
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.training import checkpoints as checkpoints_lib
from dropoutnet_jax.training import runtime as runtime_lib
from dropoutnet_jax.training import state as state_lib
from dropoutnet_jax.training import telemetry
from tests import streamed_tables as toy
from tests import tiny_run
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


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Tables, and a streaming run that one process has begun."""
  path = tmp_path_factory.mktemp('two')
  toy.write(path)
  workdir = path / two_runs.BEGUN_BY_ONE
  two_runs.begin(toy.make_config(path), workdir, is_told=True)
  return path


@pytest.fixture(scope='module')
def alone(folder):
  """Folders of the runs of one process, by the name of those of two."""
  configs = {
      two_runs.STREAMED: toy.make_config(folder),
      two_runs.LABELLED: two_runs.labelled_config(folder),
  }
  found = {}
  for name, cfg in configs.items():
    found[name] = folder / f'alone_{name}'
    commands.train(cfg, str(found[name]))
  return found


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
  begun = folder / two_runs.BEGUN_BY_ONE
  assert f'Resuming {begun} after step 2.' in said
  assert 'A signal to another process came; saved after step 2 of 10' in said
  assert 'is finished (all 10 steps are done); evaluating it.' in said
  return folder


def stopped_at(workdir):
  saved = checkpoints_lib.Checkpoints(str(workdir), read_only=True)
  return saved.latest_step()


def outcome_of(workdir, cfg):
  """Log and results without the circumstances, and the last state by name."""
  log = [
      {name: x for name, x in row.items() if name not in CLOCK}
      for row in telemetry.read_metrics(str(workdir))
  ]
  results = json.loads((workdir / 'results.json').read_text())
  devices = results['devices']
  results = {k: v for k, v in results.items() if k not in CIRCUMSTANCES}
  flat = {
      jax.tree_util.keystr(path): x
      for path, x in jax.tree_util.tree_leaves_with_path(results)
  }
  runtime = runtime_lib.build(cfg, problem_lib.load(str(workdir)))
  saved = checkpoints_lib.Checkpoints(str(workdir), read_only=True)
  state = saved.restore(10, runtime.abstract_state())
  return log, flat, state_lib.by_name(jax.device_get(state)), devices


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
def streamed_alone(alone, folder):
  return outcome_of(alone[two_runs.STREAMED], toy.make_config(folder))


def test_they_stream_as_one(two, streamed_alone):
  found = outcome_of(two / two_runs.STREAMED, toy.make_config(two))
  assert (found[3], streamed_alone[3]) == ('cpu:4', 'cpu:8')
  assert_same_run(found, streamed_alone)


def test_each_reads_its_own_half_of_every_batch_once(two):
  for process in range(2):
    sizes = json.loads((two / f'{process}.json').read_text())
    assert sizes == [32] * 10


def test_a_streaming_run_goes_on_with_other_processes(two, streamed_alone):
  """Begun by one and ended by two, begun by two and ended by one."""
  cfg = toy.make_config(two)
  found = outcome_of(two / two_runs.BEGUN_BY_ONE, cfg)
  assert found[3] == 'cpu:4'
  assert_same_run(found, streamed_alone)
  workdir = two / two_runs.BEGUN_BY_TWO
  assert stopped_at(workdir) == 2
  commands.train(cfg, str(workdir))
  found = outcome_of(workdir, cfg)
  assert found[3] == 'cpu:8'
  assert_same_run(found, streamed_alone)


@pytest.mark.parametrize('name', [two_runs.LABELLED, two_runs.SPLIT])
def test_labels_and_a_sparse_part_come_to_the_same(two, alone, name):
  """Evaluated by process 0, and by both where none has a whole table."""
  cfg = two_runs.labelled_config(two)
  found = outcome_of(two / name, cfg)
  expected = outcome_of(alone[two_runs.LABELLED], cfg)
  assert (found[3], expected[3]) == ('cpu:4', 'cpu:8')
  names = ' '.join(found[1])
  for part in ('tower', 'content_ridge', 'log_loss', 'warm_up', 'teacher'):
    assert part in names, part
  assert_same_run(found, expected)
