# SPDX-License-Identifier: Apache-2.0
"""The commands on one tiny run.

Mistakes that end with one message are listed in test_run.py; here is what no
argument brings about: full disks, locks, and runs that are finished.
"""

import errno
import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import types

import jax
import pytest

from dropoutnet_jax import commands
from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.data import files
from dropoutnet_jax.training import loop
from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import read_data
from tests import command_line

_ARGUMENTS = ('--config=tiny.py', '--workdir=run')


# What differs between two evaluations of one state.
_TIMINGS = (
    'train_seconds',
    'evaluate_seconds',
    'examples_per_second',
    'peak_memory_bytes',
)


def _results(folder: pathlib.Path) -> dict:
  results = json.loads((folder / 'results.json').read_text())
  return {name: v for name, v in results.items() if name not in _TIMINGS}


def _raise(error: BaseException):
  def function(*unused_args, **unused_kwargs):
    raise error

  return function


# Finished runs.


@pytest.mark.parametrize(
    'command', ['train --config=tiny.py', 'evaluate'], ids=['train', 'evaluate']
)
def test_a_finished_run_is_evaluated_again(finished, command):
  expected = _results(finished)
  before = command_line.snapshot(finished)
  (finished / 'results.json').unlink()
  ended = command_line.call(*command.split(), '--workdir=run')
  assert (ended.status, ended.err) == (0, '')
  says = 'run is finished (all 4 steps are done); evaluating it.' in ended.out
  assert says == command.startswith('train')
  assert 'Written to run/results.json' in ended.out
  assert _results(finished) == expected
  assert expected['last_step'] == 4 and expected['stopped_early'] == ''
  after = command_line.snapshot(finished)
  # These tell how long it took.
  for name in ('results.json', *(n for n in before if n.startswith('report/'))):
    assert before.pop(name) and after.pop(name)
  assert after == before


def test_a_run_takes_all_devices(finished, monkeypatch):
  """To the same end as one of them, which other tests here take."""
  sizes, make_mesh = [], parallel.make_mesh

  def make_and_tell(*given, **more):
    mesh = make_mesh(*given, **more)
    sizes.append(mesh.size)
    return mesh

  monkeypatch.setattr(parallel, 'make_mesh', make_and_tell)
  ended = command_line.call(
      '--config=tiny.py', '--workdir=wide', all_devices=True
  )
  assert (ended.status, ended.err) == (0, '')
  assert set(sizes) == {8}
  found, alone = _results(finished.parent / 'wide'), _results(finished)
  assert found['splits'].keys() == alone['splits'].keys()
  for name, split in alone['splits'].items():
    expected = split['methods']['model']
    assert found['splits'][name]['methods']['model'] == pytest.approx(
        expected, rel=1e-4, abs=1e-5
    )


def test_an_evaluation_keeps_how_sure_scores_are(finished):
  path = finished / 'config.json'
  cfg = json.loads(path.read_text())
  cfg['evaluation']['exploring'] = True
  path.write_text(json.dumps(cfg))
  ended = command_line.call('evaluate', '--workdir=run')
  assert (ended.status, ended.err) == (0, '')
  found = json.loads((finished / 'exploring.json').read_text())
  assert found['step'] == _results(finished)['step']
  assert found['note'] and found['note'] in ended.out


def test_a_run_is_compared_with_another_user_by_user(finished):
  shutil.copytree(finished, 'other')
  other = pathlib.Path('other')
  ended = command_line.call('evaluate', '--workdir=run', '--against=other')
  assert (ended.status, ended.err) == (0, '')
  assert 'run less other, the model of each user by user' in ended.out
  assert '+0.0000 and +0.0000' in ended.out
  (other / 'per_user.npz').unlink()
  ended = command_line.call('evaluate', '--workdir=run', '--against=other')
  command_line.check(ended, 2, 'other has no per_user.npz, which evaluating')


def test_a_folder_that_cannot_be_written_costs_only_the_file(
    finished, monkeypatch
):
  denied = OSError(errno.EROFS, os.strerror(errno.EROFS))
  real = files.write

  def write(path, fill):
    real(path, _raise(denied) if path.endswith('results.json') else fill)

  monkeypatch.setattr(files, 'write', write)
  ended = command_line.call('evaluate', '--workdir=run')
  message = 'run/results.json cannot be written: Read-only file system. The tab'
  command_line.check(ended, 2, message)
  assert 'popularity' in ended.out and 'Written to' not in ended.out


def test_a_run_that_stopped_early_is_finished(finished):
  path = finished / 'results.json'
  results = json.loads(path.read_text())
  shutil.rmtree(finished / 'checkpoints' / '4')
  results |= {'last_step': 2, 'stopped_early': 'no better validation'}
  path.write_text(json.dumps(results))
  ended = command_line.call(*_ARGUMENTS)
  assert 'run is finished (no better validation); evaluating' in ended.out
  found = _results(finished)
  assert found['stopped_early'] == 'no better validation'
  assert (found['step'], found['last_step']) == (2, 2)


def test_results_of_an_earlier_step_say_nothing_about_the_end(finished):
  path = finished / 'results.json'
  results = json.loads(path.read_text())
  results |= {'last_step': 2, 'stopped_early': 'no better validation'}
  path.write_text(json.dumps(results))
  assert commands._past_outcome('run').reason == ''
  path.write_text('{"last_st')  # of a killed run, if it were not renamed
  assert commands._past_outcome('run') == loop.Outcome(
      4, commands._past_outcome('run').seconds
  )


def test_nothing_but_the_table_is_printed(tmp_path_factory):
  """No control characters and no redrawn lines where there is no terminal."""
  run = command_line.finished_run(tmp_path_factory)
  text = (run.parent / 'out.txt').read_text()
  assert not [c for c in text if ord(c) < 32 and c != '\n' or ord(c) == 127]
  assert text.splitlines()[-2:] == [
      'Written to run/results.json',
      'A report is in run/report/index.html',
  ]


# Disks, locks, interrupts: nothing half-written.


def _is_as_new(folder: pathlib.Path) -> bool:
  return sorted(os.listdir(folder)) == ['factors.npz', 'tiny.py']


def test_a_disk_that_fills_up_while_preparing(folder, monkeypatch):
  real, written = files.write, []

  def write(path, fill):
    if path.endswith('problem.npz'):
      fill = _raise(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    written.append(os.path.basename(path))
    real(path, fill)

  monkeypatch.setattr(files, 'write', write)
  ended = command_line.call(*_ARGUMENTS)
  message = 'run/problem.npz cannot be written: No space left on device. Free'
  command_line.check(ended, 2, message)
  assert written[0] == 'config.json' and written[-1] == 'problem.npz'
  assert _is_as_new(folder)


@pytest.fixture
def small_disk(folder):
  """Mounts a file system of 64 KiB, or skips the test."""
  disk = folder / 'disk'
  disk.mkdir()
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', str(disk)]
  try:
    subprocess.run(mount, check=True, capture_output=True)
  except (OSError, subprocess.CalledProcessError):
    pytest.skip('needs the right to mount a file system')
  yield disk
  subprocess.run(['umount', str(disk)], check=True)


def test_a_full_disk(small_disk):
  ended = command_line.call('--config=tiny.py', '--workdir=disk/run')
  message = 'cannot be written: No space left on device. Free space or choose'
  command_line.check(ended, 2, message)
  assert not os.listdir(small_disk)


def test_too_little_space_for_checkpoints(folder, monkeypatch):
  usage = shutil.disk_usage(folder)._replace(free=2**19)
  monkeypatch.setattr(shutil, 'disk_usage', lambda unused_path: usage)
  ended = command_line.call(*_ARGUMENTS)
  command_line.check(ended, 2, 'run.py: run: 0.5 MB are free, but the checkp')
  assert _is_as_new(folder)


def test_a_calibration_that_cannot_be_is_told_before_training(folder):
  rates = ('user_rate', 'item_rate')
  ended = command_line.call(
      *_ARGUMENTS,
      '--config.evaluation.exploring',
      *(f'--config.dropout.{name}=0' for name in rates),
  )
  command_line.check(ended, 2, 'This run was trained without input dropout')
  assert _is_as_new(folder)


def test_a_disk_that_fills_up_while_training(folder, monkeypatch):
  """Orbax wraps it; libraries' threads would write more, so it ends at once."""
  full = ValueError('Error writing "x": No space left on device [code=28]')
  wrapped = RuntimeError('saving failed')
  wrapped.__cause__ = full
  monkeypatch.setattr(loop, 'run', _raise(wrapped))
  ends = []
  monkeypatch.setattr(os, '_exit', lambda status: ends.append(status))
  said = []
  monkeypatch.setattr('builtins.print', lambda *text, **_: said.extend(text))
  with pytest.raises(RuntimeError, match='saving failed'):
    command_line.call(*_ARGUMENTS)
  assert ends == [2]
  assert said[-1] == (
      'run.py: run: No space left on device. Free some and run again.'
  )


def test_a_run_folder_in_use(finished):
  before = command_line.snapshot(finished)
  with open(finished / '.lock', 'a') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    ended = command_line.call(*_ARGUMENTS)
  command_line.check(ended, 2, 'run is in use by another run. Wait for it, or')
  assert command_line.snapshot(finished) == before


@pytest.mark.parametrize(
    'number, error',
    [
        (signal.SIGINT, KeyboardInterrupt()),
        (signal.SIGTERM, KeyboardInterrupt(signal.SIGTERM)),
    ],
)
def test_an_interrupt_while_preparing(folder, monkeypatch, number, error):
  seen = []

  def interrupted(*unused_args):
    seen.extend(os.listdir('run'))
    raise error

  monkeypatch.setattr(read_data.splits, 'make_split', interrupted)
  ended = command_line.call(*_ARGUMENTS)
  message = f'run.py: {signal.Signals(number).name} came; the same command'
  command_line.check(ended, 128 + number, message)
  assert 'config.json' in seen
  assert _is_as_new(folder)


def test_a_start_killed_while_preparing_binds_nobody(folder, monkeypatch):
  """SIGKILL leaves config.json; nothing was trained with those settings."""
  real = prepare.prepare

  def killed(*unused_args):
    shutil.copytree('run', 'left')
    raise errors.UserError('no.')

  monkeypatch.setattr(prepare, 'prepare', killed)
  assert command_line.call(*_ARGUMENTS).status == 2
  assert 'config.json' in os.listdir('left')
  os.rename('left', 'run')
  monkeypatch.setattr(prepare, 'prepare', real)
  end = loop.Outcome(2, 1.0, 'SIGTERM came', True)

  def stopped(*unused_args):
    os.makedirs('run/checkpoints/2')
    return end

  monkeypatch.setattr(loop, 'run', stopped)
  ended = command_line.call(*_ARGUMENTS, '--config.train.seed=7')
  assert (ended.status, ended.err) == (128 + signal.SIGTERM, '')
  assert 'SIGTERM came; saved after step 2 of 4.' in ended.out
  kept = json.loads((folder / 'run' / 'config.json').read_text())
  assert kept['train']['seed'] == 7


def test_an_empty_folder_of_the_user_stays(folder, monkeypatch):
  (folder / 'run').mkdir()
  monkeypatch.setattr(prepare, 'prepare', _raise(errors.UserError('no.')))
  assert command_line.call(*_ARGUMENTS).status == 2
  assert os.listdir(folder / 'run') == ['.lock']
  ended = command_line.call(*_ARGUMENTS, '--config.train.seed=1')
  command_line.check(ended, 2, 'no.')  # and not: holds another experiment


def test_new_parents_go_as_well(folder, monkeypatch):
  monkeypatch.setattr(prepare, 'prepare', _raise(errors.UserError('no.')))
  command_line.call('--config=tiny.py', '--workdir=a/b/run')
  assert _is_as_new(folder)


def test_an_error_after_the_first_checkpoint_takes_nothing(
    finished, monkeypatch
):
  before = command_line.snapshot(finished)
  monkeypatch.setattr(commands, 'build', _raise(errors.UserError('no.')))
  command_line.check(command_line.call(*_ARGUMENTS), 2, 'no.')
  assert command_line.snapshot(finished) == before


def test_sets_that_are_all_empty_are_told_before_training():
  none = types.SimpleNamespace(split=types.SimpleNamespace(evaluation={}))
  with pytest.raises(errors.UserError, match='Nothing is held out, so that'):
    commands.check_evaluation(config.Config(), none)  # type: ignore[arg-type]


def test_defects_keep_their_traceback(folder, monkeypatch):
  for error in (ZeroDivisionError(), OSError(errno.EIO, 'Input/output error')):
    monkeypatch.setattr(commands, 'train', _raise(error))
    with pytest.raises(type(error)):
      command_line.call(*_ARGUMENTS)
  full = OSError(errno.EROFS, 'Read-only file system', 'cache/x')
  monkeypatch.setattr(commands, 'train', _raise(full))
  ended = command_line.call(*_ARGUMENTS)
  command_line.check(ended, 2, 'run.py: cache/x: Read-only file system.')


# The compile cache.


@pytest.fixture
def cache_settings(monkeypatch):
  """Trains nothing, and restores what --compile_cache sets."""
  names = (
      'jax_compilation_cache_dir',
      'jax_persistent_cache_min_compile_time_secs',
  )
  before = {name: getattr(jax.config, name) for name in names}
  monkeypatch.setattr(commands, 'train', lambda *unused_args: None)
  yield lambda: getattr(jax.config, names[0])
  for name, value in before.items():
    jax.config.update(name, value)


@pytest.mark.parametrize('how', ['makedirs', 'open'])
def test_a_read_only_home_costs_only_the_compile_cache(
    folder, monkeypatch, cache_settings, how
):
  """The folder can't be made, or it is there and nothing can be written."""
  before = cache_settings()
  denied = OSError(errno.EACCES, os.strerror(errno.EACCES), 'home')
  if how == 'makedirs':
    real = os.makedirs

    def makedirs(path, *rest, **options):
      if str(path).startswith('home'):
        raise denied
      real(path, *rest, **options)

    monkeypatch.setattr(os, 'makedirs', makedirs)
  else:
    monkeypatch.setattr(tempfile, 'TemporaryFile', _raise(denied))
  ended = command_line.call(*_ARGUMENTS, compile_cache='home/xla')
  assert (ended.status, ended.err) == (0, '')
  assert ended.out.startswith(
      'Compiled programs are not kept: home/xla cannot be written (Permission '
      'denied). Name another folder with --compile_cache.\n'
  )
  assert cache_settings() == before


def test_a_compile_cache_is_used(folder, cache_settings):
  ended = command_line.call(*_ARGUMENTS, compile_cache='home/xla')
  assert (ended.status, ended.err) == (0, '')
  assert 'Compiled programs' not in ended.out
  assert cache_settings() == 'home/xla'
