# SPDX-License-Identifier: Apache-2.0
"""Runs that are stopped and killed from outside end as if nothing had been.

What two processes do that nobody kills is in test_two_runs.py too.
"""

import json
import os
import pathlib
import random
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.training import checkpoints as checkpoints_lib
from dropoutnet_jax.training import state as state_lib
from dropoutnet_jax.training import telemetry
from tests import tiny_run

LONG_STEPS = 100  # more than ten kills leave time for
LONG = f'--config.train.num_steps={LONG_STEPS}'
CLOCK = (
    'seconds',
    'examples_per_second',
    'step_seconds',
)  # differ from run to run


@pytest.fixture(scope='module')
def whole(launcher, tmp_path_factory):
  """The folder of a run that nobody has disturbed."""
  run = launcher.start(tmp_path_factory.mktemp('whole') / 'run')
  assert run.finish() == 0, run.output()
  assert 'Written to' in run.output()
  return run.workdir


@pytest.fixture(scope='module')
def template(compiled):
  return compiled.fresh_state()


def last_of(workdir, template, num_steps=tiny_run.NUM_STEPS):
  """The last state of a run and all rows of its log but for the clock."""
  saved = checkpoints_lib.Checkpoints(str(workdir), read_only=True)
  assert saved.latest_step() == num_steps
  state = saved.restore(num_steps, template)
  saved.close()
  rows = telemetry.read_metrics(str(workdir))
  for row in rows:
    for name in CLOCK:
      row.pop(name, None)
  return state, rows


def assert_same_run(workdir, whole, template, num_steps=tiny_run.NUM_STEPS):
  """Last state, all rows of the log and the problem, bit for bit."""
  states, rows = zip(
      *(last_of(f, template, num_steps) for f in (workdir, whole))
  )
  for part in ('params', 'batch_stats', 'opt_state', 'ema_params', 'step'):
    one, two = (jax.tree.leaves(getattr(state, part)) for state in states)
    assert one
    for a, b in zip(one, two, strict=True):
      assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), part
  assert rows[0] == rows[1]
  for name in ('features_user.npz', 'features_item.npz', 'config.json'):
    one, two = (pathlib.Path(folder) / name for folder in (workdir, whole))
    assert one.read_bytes() == two.read_bytes()
  factors = [problem_lib.load(str(f)).factors for f in (workdir, whole)]
  np.testing.assert_array_equal(factors[0].user, factors[1].user)


def wait_until(run, moment, step):
  """Waits for a moment or a saved step, whichever comes first."""
  while time.monotonic() < moment and run.newest_step() < step:
    assert run.process.is_alive(), run.output()
    time.sleep(0.002)


def test_killed_at_ten_random_moments(launcher, template, tmp_path):
  """Every other kill falls into the start, the others anywhere.

  The run is so long that it cannot end before the tenth kill: each comes at
  the latest with a step of its own. DROPOUTNET_KILL_SEED repeats a draw.
  """
  seed = os.environ.get('DROPOUTNET_KILL_SEED') or os.urandom(4).hex()
  print(f'DROPOUTNET_KILL_SEED={seed}')  # shown where the test fails
  rng = random.Random(seed)
  whole, workdir = tmp_path / 'whole', tmp_path / 'run'
  undisturbed = launcher.start(whole, LONG)
  assert undisturbed.finish() == 0, undisturbed.output()
  kills = []
  for number in range(10):
    run = launcher.start(workdir, LONG)
    before = max(run.newest_step(), 0)
    if number % 2 == 0:  # a moment of the start
      wait_until(run, time.monotonic() + rng.uniform(0.0, 2.0), before + 4)
    else:  # some steps later, somewhere between two saves
      run.wait_for_step(before + rng.randint(1, 5))
      time.sleep(rng.uniform(0.0, 0.01))
    run.process.kill()
    assert run.finish() == -signal.SIGKILL, run.output()
    kills.append(run.newest_step())
    print('newest checkpoints at the kills:', kills)
    assert kills == sorted(kills)  # nothing that was saved gets lost
  assert len(kills) == 10 and len(set(kills)) >= 5
  run = launcher.start(workdir, LONG)
  assert run.finish() == 0, run.output()
  assert_same_run(workdir, whole, template, LONG_STEPS)
  names = os.listdir(workdir / 'checkpoints')
  assert all(name.isdigit() for name in names), names
  assert not [n for n in os.listdir(workdir) if n.endswith('.tmp')]


def test_signals_save_and_leave_cleanly(launcher, whole, template, tmp_path):
  workdir, saved = tmp_path / 'run', 0
  for number in (signal.SIGTERM, signal.SIGINT):
    run = launcher.start(workdir)
    run.wait_for_step(saved + 3)
    os.kill(run.process.pid, number)
    assert run.finish() == 128 + number, run.output()
    assert saved < run.newest_step() < tiny_run.NUM_STEPS
    if saved:
      assert f'Resuming {workdir} after step {saved}.' in run.output()
    saved = run.newest_step()
    assert (
        f'{number.name} came; saved after step {saved} of '
        f'{tiny_run.NUM_STEPS}. The same command goes on from there.'
    ) in run.output()
    assert 'Traceback' not in run.output()
    assert not (workdir / 'results.json').exists()
  run = launcher.start(workdir)
  assert run.finish() == 0, run.output()
  assert f'Resuming {workdir} after step {saved}.' in run.output()
  assert (workdir / 'results.json').exists()
  assert_same_run(workdir, whole, template)


def methods_of(results):
  """Split, method and metrics of results.json, flat."""
  return {
      (split, method, name): value
      for split, found in results['splits'].items()
      for method, values in found['methods'].items()
      for name, value in values.items()
  }


def start_two(launcher, workdir, *argv):
  """Two processes with two devices each, joined over a free port."""
  port = tiny_run.free_port()
  return [
      launcher.start(
          workdir,
          f'--coordinator=127.0.0.1:{port}',
          '--num_processes=2',
          f'--process_id={process}',
          *argv,
          num_devices=2,
      )
      for process in (0, 1)
  ]


def assert_equal_but_for_rounding(workdir, whole, template):
  """Losses of all steps that are logged, and the last state."""
  states, rows = zip(*(last_of(f, template) for f in (workdir, whole)))
  assert rows[0] == [pytest.approx(row, rel=1e-5, abs=1e-6) for row in rows[1]]
  for part in ('params', 'batch_stats', 'ema_params'):
    one, two = (state_lib.by_name(getattr(state, part)) for state in states)
    for name, value in two.items():
      gap = np.linalg.norm(one[name] - value)
      assert gap <= 1e-5 * np.linalg.norm(value), (part, name)


@pytest.mark.parametrize(
    'output',
    [
        '[Gloo] Rank 1 is connected to 3 peer ranks. Expected number of '
        'connected peer ranks is : 3\n',
        # Of two threads at once.
        '[Gloo] Rank [Gloo] Rank 11 is connected to  is connected to 33 peer'
        ' ranks. Expected number of connected peer ranks is : 3\n peer ranks. '
        'Expected number of connected peer ranks is : \n3\n\n',
    ],
)
def test_what_gloo_says_is_not_ours(output):
  assert tiny_run.own_lines(output) == []
  assert tiny_run.own_lines(f'{output}step 3\n{output}') == ['step 3']


@pytest.fixture(scope='module')
def joined(launcher, tmp_path_factory):
  """The folder of a run of two processes, of which one got a signal."""
  workdir = tmp_path_factory.mktemp('joined') / 'run'
  runs = start_two(launcher, workdir)
  runs[0].wait_for_step(2)
  os.kill(runs[1].process.pid, signal.SIGTERM)
  for run in runs:
    assert run.finish() == 128 + signal.SIGTERM, run.output()
  stopped = runs[0].newest_step()
  assert 2 <= stopped < tiny_run.NUM_STEPS
  assert f'saved after step {stopped} of' in runs[0].output()
  assert runs[1].own_lines() == []

  runs = start_two(launcher, workdir)
  for run in runs:
    assert run.finish() == 0, run.output()
  assert f'Resuming {workdir} after step {stopped}.' in runs[0].output()
  assert 'Written to' in runs[0].output()
  assert runs[1].own_lines() == []
  return workdir


def assert_same_results(workdir, whole):
  """The tables of a run of four devices, and of one."""
  results = json.loads((workdir / 'results.json').read_text())
  assert results['devices'] == 'cpu:4'
  alone = json.loads((whole / 'results.json').read_text())
  found, expected = methods_of(results), methods_of(alone)
  assert found.keys() == expected.keys() and found
  for key, value in found.items():
    assert value == pytest.approx(expected[key], abs=1e-5), key
  assert results['warm_up'].keys() == alone['warm_up'].keys()
  assert results['embedding_rank'] == alone['embedding_rank']


def test_two_processes_train_like_one(joined, whole, template):
  """Also where a signal to one of them has stopped both on the way."""
  workdir = joined
  assert_same_results(workdir, whole)
  assert not [name for name in os.listdir(workdir) if name.endswith('.tmp')]
  assert_equal_but_for_rounding(workdir, whole, template)


def test_two_processes_evaluate_tables_that_none_has_whole(
    launcher, joined, whole, tmp_path
):
  """Their four devices have a quarter of each; the run goes on on that mesh."""
  workdir = shutil.copytree(joined, tmp_path / 'run')
  (workdir / 'results.json').unlink()
  shutil.rmtree(workdir / 'report')
  runs = start_two(launcher, workdir, '--config.mesh.model=4')
  for run in runs:
    assert run.finish() == 0, run.output()
  assert 'is finished (all 40 steps are done)' in runs[0].output()
  assert runs[1].own_lines() == []
  assert_same_results(workdir, whole)
  assert (workdir / 'report' / 'index.html').exists()
  kept = json.loads((workdir / 'config.json').read_text())
  assert kept['mesh'] == {'model': 4}


def test_when_one_of_two_is_killed_the_other_ends_and_both_go_on(
    launcher, joined, template, tmp_path
):
  """As two that nobody has killed, bit for bit."""
  workdir = tmp_path / 'run'
  runs = start_two(launcher, workdir)
  runs[0].wait_for_step(5)
  runs[0].process.kill()
  assert runs[0].finish() == -signal.SIGKILL
  status, said = runs[1].finish(), runs[1].output()
  if status == 2:  # our program has noticed first
    assert 'run.py: Another process of this run has ended' in said
  else:  # or JAX's threads
    assert status == -signal.SIGABRT and 'another task died' in said, said
  runs = start_two(launcher, workdir)
  for run in runs:
    assert run.finish() == 0, run.output()
  assert f'Resuming {workdir} after step' in runs[0].output()
  assert_same_run(workdir, joined, template)


def test_killed_on_four_devices_it_goes_on_on_two(
    launcher, whole, template, tmp_path
):
  workdir = tmp_path / 'run'
  run = launcher.start(workdir, num_devices=4)
  run.wait_for_step(10)
  run.process.kill()
  assert run.finish() == -signal.SIGKILL
  assert run.newest_step() < tiny_run.NUM_STEPS
  run = launcher.start(workdir, num_devices=2)
  assert run.finish() == 0, run.output()
  assert f'Resuming {workdir} after step' in run.output()
  assert_equal_but_for_rounding(workdir, whole, template)


def test_both_processes_leave_when_the_writer_cannot_go_on(launcher, tmp_path):
  (tmp_path / 'photo.jpg').write_text('precious')
  runs = start_two(launcher, tmp_path)
  for run in runs:
    assert run.finish() == 2, run.output()
    assert 'Traceback' not in run.output()
  assert 'is no run folder' in runs[0].output()
  assert runs[1].own_lines() == [
      'run.py: Process 0 has stopped; its message says why.'
  ]
  assert os.listdir(tmp_path) == ['photo.jpg']
