# SPDX-License-Identifier: Apache-2.0
"""Peak resident memory of a whole run, from raw files to results.json.

A process of its own for each variant, with few steps: memory does not grow
with their number.
"""

from collections.abc import Sequence
import os
import pathlib
import subprocess
import sys
import tempfile

from benchmarks import comparison
from benchmarks import task
from dropoutnet_jax import config
from dropoutnet_jax import errors

_NUM_STEPS = 20
_BAR_MEGABYTES = 2000.0
_LEFT_OUT = 'content_ridge'
# Linux counts what a process was before it became another program as well, so
# that a child of this large process would look as large. A small process in
# between starts the command and reports on it.
_LAUNCHER = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:], stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


def run(data_dir: str | None) -> comparison.Comparison:
  """Trains and evaluates with and without content ridge."""
  kept = tuple(name for name in config.BASELINES if name != _LEFT_OUT)
  variants = {
      'with every baseline': config.BASELINES,
      f'without {_LEFT_OUT}': kept,
  }
  rows = []
  for name, baselines in variants.items():
    print(f'Training {task.EXPERIMENT} {name} ...', flush=True)
    with tempfile.TemporaryDirectory() as workdir:
      flags = _flags(data_dir, baselines)
      peak = peak_of_training(task.ROOT / task.EXPERIMENT, workdir, flags) / 1e6
    rows.append(
        comparison.Row(
            f'peak MB, {name}',
            peak,
            _BAR_MEGABYTES,
            _BAR_MEGABYTES / peak,
            bar=1.0,
        )
    )
  return comparison.Comparison(
      f'Peak resident memory of {task.EXPERIMENT}',
      'at most',
      rows,
      [
          f'The whole of run.py train with {_NUM_STEPS} steps: raw files, '
          'features, teacher, compilation, training, evaluation.'
      ],
  )


def _flags(data_dir: str | None, baselines: tuple[str, ...]) -> list[str]:
  flags = [
      f'--config.train.num_steps={_NUM_STEPS}',
      f'--config.evaluation.baselines={baselines!r}',
  ]
  return flags if data_dir is None else [*flags, f'--data_dir={data_dir}']


def peak_of_training(
    experiment: pathlib.Path, workdir: str, flags: Sequence[str] = ()
) -> int:
  """Peak resident bytes of run.py train.

  Args:
    experiment: its file.
    workdir: in which the folder of the run is made.
    flags: further ones.

  Raises:
    UserError: with its last words, if it fails.
  """
  return peak_bytes(
      [
          sys.executable,
          str(task.ROOT / 'run.py'),
          'train',
          f'--config={experiment}',
          f'--workdir={os.path.join(workdir, "run")}',
          '--compile_cache=',  # compilation takes memory too
          *flags,
      ]
  )


def peak_bytes(command: list[str]) -> int:
  """Peak resident bytes of a command and of what it starts.

  Raises:
    UserError: with the command's last words, if it fails.
  """
  done = subprocess.run(
      [sys.executable, '-c', _LAUNCHER, *command],
      capture_output=True,
      text=True,
      check=False,
  )
  if done.returncode:
    raise errors.UserError(
        f'{" ".join(command)} ended with status {done.returncode}: '
        f'{done.stderr.strip()[-500:]}'
    )
  peak = int(done.stdout)
  return peak if sys.platform == 'darwin' else peak * 1024
