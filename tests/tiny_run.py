# SPDX-License-Identifier: Apache-2.0
"""A tiny experiment, and real processes of run.py that train it.

This file is an experiment itself (`--config=tests/tiny_run.py`), so that tests
within one process and runs of the command line share one set of settings. The
processes are forked from one that has its imports done: they start in a
second, and can be killed without hurting anybody else.
"""

import atexit
from collections.abc import Mapping, Sequence
import multiprocessing
import os
import pathlib
import re
import runpy
import socket
import sys
import time
from typing import Any

import jax

from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax import space
from tests import compilation
from tests import spared

ROOT = pathlib.Path(__file__).resolve().parents[1]
NUM_STEPS = 40
_PATIENCE = 240.0  # seconds for anything that a process is waited for
# Pieces of "[Gloo] Rank 1 is connected to 3 peer ranks. Expected number of
# connected peer ranks is : 3": threads of one process print it piece by piece,
# so that the pieces of two lines come in any order.
_GLOO = re.compile(
    r'\[Gloo\] Rank | is connected to | peer ranks\. '
    r'|Expected number of connected peer ranks is : '
)
# All that run.py imports for the commands that tests start.
_PRELOADED = (
    'absl.app',
    'dropoutnet_jax.commands',
    'dropoutnet_jax.experiment',
    'dropoutnet_jax.serving_commands',
    'ml_collections.config_flags',
    'tensorboardX',
)


def get_config() -> config.Config:
  feature = config.Feature
  world = config.SyntheticConfig(
      num_users=60, num_items=80, likes_per_user=12.0
  )
  return config.Config(
      name='tiny',
      data=config.DataConfig(warm_share=0.0, synthetic=world),
      features=config.FeaturesConfig(
          user=[feature(column='region', kind='category')],
          item=[feature(column='genre', kind='category')],
      ),
      teacher=config.TeacherConfig(rank=4, num_iterations=2),
      dropout=config.DropoutConfig(user_transform_rate=0.2),
      model=config.ModelConfig(tower='paper', hidden=(8,), rank=4),
      objective=config.ObjectiveConfig(top_items=10, random_items=10),
      train=config.TrainConfig(
          batch_size=400,
          num_steps=NUM_STEPS,
          learning_rate=1e-2,
          ema=0.9,
          steps_per_dispatch=3,
          log_every=4,
          eval_every=20,
          checkpoint_every=4,
      ),
      evaluation=config.EvaluationConfig(
          cutoffs=(5,), baselines=(), warm_up_counts=(0, 2)
      ),
  )


def get_space() -> list[space.Entry]:
  return [
      space.Float('train.learning_rate', 1e-3, 1e-1, log=True),
      space.Float('dropout.item_rate', 0.0, 0.9),
  ]


def changed(**sections: Mapping[str, Any]) -> config.Config:
  """The tiny experiment with some fields of some sections changed."""
  cfg = get_config()
  for section, fields in sections.items():
    for name, value in fields.items():
      config_tree.check_field(cfg, f'{section}.{name}')
      setattr(getattr(cfg, section), name, value)
  cfg.validate()
  return cfg


def own_lines(output: str) -> list[str]:
  """What our program has printed, without Gloo's account of its ranks.

  Args:
    output: all that a process has printed.

  Returns:
    Its lines; none that are empty or bare numbers.
  """
  lines = [_GLOO.sub('', line) for line in output.splitlines()]
  return [line for line in lines if not re.fullmatch(r'[\d\s]*', line)]


class Run:
  """One process of `python run.py ...` on the tiny experiment."""

  def __init__(self, workdir: pathlib.Path, process: Any, log: pathlib.Path):
    self.workdir, self.process, self._log = workdir, process, log

  def output(self) -> str:
    """All that the process has printed."""
    return self._log.read_text() if self._log.exists() else ''

  def own_lines(self) -> list[str]:
    return own_lines(self.output())

  def finish(self) -> int:
    """Waits for the end; returns the exit status."""
    self.process.join(_PATIENCE)
    assert not self.process.is_alive(), self.output()
    return self.process.exitcode

  def wait_for_step(self, step: int) -> None:
    """Waits for a checkpoint of this step or a later one, or for the end."""
    deadline = time.monotonic() + _PATIENCE
    while self.newest_step() < step and self.process.is_alive():
      assert time.monotonic() < deadline, self.output()
      time.sleep(0.005)

  def newest_step(self) -> int:
    """Of the whole checkpoints; -1 without one."""
    folder = self.workdir / 'checkpoints'
    names = os.listdir(folder) if folder.exists() else []
    return max((int(name) for name in names if name.isdigit()), default=-1)


def free_port() -> int:
  """A port of this machine that nobody listens to."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


class Launcher:
  """Starts runs, which share what is compiled with each other and the tests."""

  def __init__(self, folder: pathlib.Path):
    self._logs, self._count = folder, 0
    self._context = multiprocessing.get_context('forkserver')
    self._context.set_forkserver_preload([__name__, *_PRELOADED])

  def start(
      self,
      workdir: pathlib.Path,
      *argv: str,
      num_devices: int = 1,
      command: str = 'train',
  ) -> Run:
    """Starts `python run.py --workdir=... *argv` on so many CPU devices."""
    arguments = (
        *([f'--config={__file__}'] if command == 'train' else [command]),
        f'--workdir={workdir}',
        '--compile_cache=',  # see `settings`
        *argv,
    )
    return self.start_script(ROOT / 'run.py', workdir, arguments, num_devices)

  def start_script(
      self,
      script: pathlib.Path,
      workdir: pathlib.Path,
      argv: Sequence[str],
      num_devices: int = 1,
  ) -> Run:
    """Starts `python script *argv` on so many CPU devices."""
    self._count += 1
    log = self._logs / f'log{self._count}.txt'
    settings = {
        'jax_platforms': 'cpu',
        'jax_num_cpu_devices': num_devices,
        'jax_disable_most_optimizations': True,  # halves the compilation
    } | compilation.kept_programs()
    process = self._context.Process(
        target=_run, args=(script, argv, str(log), settings), daemon=True
    )
    process.start()
    return Run(workdir, process, log)


def _run(
    script: pathlib.Path,
    argv: Sequence[str],
    log: str,
    settings: Mapping[str, Any],
) -> None:
  """Becomes `python script *argv`, with its output in a file."""
  with open(log, 'w', encoding='utf-8') as file:
    for descriptor in (1, 2):
      os.dup2(file.fileno(), descriptor)
  for name, value in settings.items():
    jax.config.update(name, value)
  spared.collect_rarely()
  spared.draw_nothing().__enter__()
  sys.argv = [script.name, *argv]
  try:
    runpy.run_path(str(script), run_name='__main__')
  finally:
    atexit._run_exitfuncs()  # which children of multiprocessing leave out
