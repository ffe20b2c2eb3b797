# SPDX-License-Identifier: Apache-2.0
"""Kills one of two processes of a run, again and again: is it the same run?

  python -m tests.training.kills --kills=10

trains the tiny experiment with two processes that nobody disturbs, and once
more with two of which one, either, gets SIGKILL at a random moment: every other
time while they start, else some steps later. The other must end by itself, and
the same command goes on from the last checkpoint. At the end state, log and
problem of both runs must be equal bit for bit.
"""

import argparse
import pathlib
import random
import signal
import statistics
import tempfile
import time

from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.training import runtime as runtime_lib
from tests import compilation
from tests import tiny_run
from tests.training import test_processes

_STEPS = 200  # more than the kills leave time for
_MOST_SAVED = 5  # checkpoints between a start and a kill


def _start(
    launcher: tiny_run.Launcher, workdir: pathlib.Path
) -> list[tiny_run.Run]:
  steps = f'--config.train.num_steps={_STEPS}'
  return test_processes.start_two(launcher, workdir, steps)


def _finish(runs: list[tiny_run.Run]) -> None:
  for run in runs:
    assert run.finish() == 0, run.output()


def _kill_one(
    launcher: tiny_run.Launcher,
    workdir: pathlib.Path,
    rng: random.Random,
    start_seconds: float,
) -> float:
  """Starts, kills one; returns after how many seconds the other has ended."""
  runs = _start(launcher, workdir)
  before = max(runs[0].newest_step(), 0)
  if start_seconds:
    time.sleep(rng.uniform(0.0, start_seconds))
  else:
    every = tiny_run.get_config().train.checkpoint_every
    runs[0].wait_for_step(before + every * rng.randint(1, _MOST_SAVED))
    time.sleep(rng.uniform(0.0, 0.05))
  victim = rng.randrange(2)
  runs[victim].process.kill()
  killed = time.monotonic()
  assert runs[victim].finish() == -signal.SIGKILL, runs[victim].output()
  other = runs[1 - victim]
  status = other.finish()
  seconds = time.monotonic() - killed
  assert status in (2, -signal.SIGABRT), other.output()
  moment = 'at the start' if start_seconds else 'in training'
  print(
      f'killed process {victim} {moment}; newest checkpoint '
      f'{runs[0].newest_step()}; the other ended after {seconds:.1f} s',
      flush=True,
  )
  assert before <= runs[0].newest_step() < _STEPS
  return seconds


def run(folder: pathlib.Path, kills: int, seed: int) -> list[float]:
  """Kills so often; raises AssertionError if the run is another one.

  Args:
    folder: empty, for runs and logs.
    kills: how often.
    seed: of the moments.

  Returns:
    Seconds after which each other process has ended.
  """
  launcher, rng = tiny_run.Launcher(folder), random.Random(seed)
  whole, workdir = folder / 'whole', folder / 'run'
  begin = time.monotonic()
  undisturbed = _start(launcher, whole)
  undisturbed[0].wait_for_step(0)
  start_seconds = time.monotonic() - begin
  _finish(undisturbed)
  seconds = [
      _kill_one(launcher, workdir, rng, start_seconds * (number % 2 == 0))
      for number in range(kills)
  ]
  last = _start(launcher, workdir)
  saved = last[0].newest_step()
  _finish(last)
  # Kills may all have come before the first step that was saved.
  told = f'Resuming {workdir} after step' in last[0].output()
  assert told == (saved > 0), last[0].output()
  runtime = runtime_lib.build(
      tiny_run.get_config(), problem_lib.load(str(whole)), num_devices=1
  )
  test_processes.assert_same_run(workdir, whole, runtime.fresh_state(), _STEPS)
  return seconds


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--kills', type=int, default=10)
  parser.add_argument('--seed', type=int, default=0)
  given = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    compilation.keep_programs(pathlib.Path(folder) / 'xla')
    seconds = run(pathlib.Path(folder), given.kills, given.seed)
  print(
      f'{given.kills} kills of one of two processes: the run is the same, bit '
      f'for bit. The other one ended after {statistics.median(seconds):.1f} s '
      f'(median; {min(seconds):.1f} to {max(seconds):.1f}).'
  )


if __name__ == '__main__':
  main()
