# SPDX-License-Identifier: Apache-2.0
"""How real processes of `run.py` begin and end."""

import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from benchmarks import suite
from tests import command_line


@pytest.fixture(autouse=True)
def heeded_interrupts():
  """A test run in the background of a shell ignores SIGINT; its runs do not.

  A process inherits what is ignored, but not what is handled.
  """
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


def _start(*arguments: str, env: Any = None) -> subprocess.Popen:
  return subprocess.Popen(
      [sys.executable, str(command_line.ROOT / 'run.py'), *arguments],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env=env,
  )


def test_help_lists_the_commands(folder):
  process = _start('--help')
  out, err = process.communicate()
  assert (process.returncode, err) == (0, '')
  for command in ('train ', 'evaluate ', 'describe ', 'reproduce ', 'bench '):
    assert f'\n  {command}' in out
  assert '--workdir' in out and '--data_dir' in out
  assert "(default: 'experiments/quickstart.py')" in out
  assert '\n  --config.train.seed=0\n' in out
  assert "\n  --config.features.item[0].column='genre'\n" in out
  words = ' '.join(out.split())  # lines are broken anywhere
  assert ', '.join(suite.SUITES[:-1]) + f' and {suite.SUITES[-1]}.' in words


@pytest.mark.parametrize(
    'arguments, message',
    [
        (
            ['--config.train.batch_sise=512'],
            "no field 'batch_sise'. Did you mean 'batch_size'?",
        ),
        (['--config.train.batch_size=1.5'], 'expected a whole number.'),
        (['--workdirr=x'], "Unknown command line flag 'workdirr'"),
        (['trian'], "'trian' is no command"),
        (['evaluate', '--workdir=none'], 'none is no run folder: none/config'),
    ],
)
def test_a_mistake_in_a_real_process(folder, arguments, message):
  process = _start(*arguments, '--compile_cache=')
  out, err = process.communicate()
  command_line.check(
      command_line.Ended(process.returncode, out, err), 2, message
  )
  assert out == '' and err.count('\n') == 1  # nothing of absl, JAX or XLA
  assert 'runs' not in os.listdir(folder)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_a_real_process(folder, number):
  (folder / 'slow.py').write_text(
      'import time\nprint("here", flush=True)\ntime.sleep(60)\n'
  )
  process = _start('--config=slow.py')
  assert process.stdout is not None and process.stdout.readline() == 'here\n'
  process.send_signal(number)
  out, err = process.communicate()
  command_line.check(
      command_line.Ended(process.returncode, out, err),
      128 + number,
      f'run.py: {number.name} came; the same command starts again',
  )


def test_an_interrupt_of_the_imports_has_no_traceback(folder):
  """Python's own handler would print one, before anything has begun."""
  (folder / 'sitecustomize.py').write_text(
      'import os, signal, sys\n'
      'class Finder:\n'
      '  def find_spec(self, name, path=None, target=None):\n'
      '    if name == "absl":\n'
      '      os.kill(os.getpid(), signal.SIGINT)\n'
      'sys.meta_path.insert(0, Finder())\n'
  )
  process = _start('--help', env=os.environ | {'PYTHONPATH': str(folder)})
  out, err = process.communicate()
  assert (process.returncode, out, err) == (-signal.SIGINT, '', '')


def test_damaged_checkpoints_in_a_real_process(finished):
  """Threads of libraries, and a page of JSON, have nothing to add."""
  saved = finished / 'checkpoints'
  numbers = sorted(map(int, os.listdir(saved)))
  assert numbers[-1] == 4
  for number in reversed(numbers):
    for path in (saved / str(number) / 'default' / 'd').iterdir():
      os.truncate(path, 100)
    process = _start('evaluate', '--workdir=run', '--compile_cache=')
    out, err = process.communicate()
    if number > numbers[0]:
      assert process.returncode == 0, err
      assert err.startswith('Warning: checkpoint ') and 'Traceback' not in err
      assert f'checkpoint {number} in ' in err
  ended = command_line.Ended(process.returncode, out, err)
  command_line.check(ended, 2, 'run.py: Checkpoint ')
  assert err.count('\n') == 1 and 'fall back to an older one.' in err


def test_output_that_nobody_reads(folder):
  process = _start('--help')
  assert process.stdout is not None and process.stderr is not None
  process.stdout.close()
  with process.stderr:
    assert process.stderr.read() == ''
  assert process.wait() == 128 + signal.SIGPIPE
