# SPDX-License-Identifier: Apache-2.0
"""One trial: a run that looks at validation alone, and stops where it is told.

Its folder is that of a run: a trial that was killed goes on from its last
checkpoint. When it is done, what is left there is config.json and its curve.
"""

from collections.abc import Callable
import copy
import math
import os
import shutil
import signal
from typing import NamedTuple

import jax

from dropoutnet_jax import commands
from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.training import first_start
from dropoutnet_jax.training import loop
from dropoutnet_jax.training import signals
from dropoutnet_jax.training import telemetry
from dropoutnet_jax.tuning import prepared

_SELECTION = 'validation/selection'


class Ended(NamedTuple):
  """How a trial ended.

  Attributes:
    value: the best of its curve; None without a finite one.
    pruned: whether it was told to stop.
  """

  value: float | None
  pruned: bool


def settings(cfg: config.Config) -> config.Config:
  """The experiment as trials run it: nothing for tables that nobody makes."""
  made = copy.deepcopy(cfg)
  made.evaluation.baselines = ()
  made.train.keep_checkpoints = 1
  return made


def run(
    cfg: config.Config,
    folder: str,
    parts: prepared.Prepared,
    watch: Callable[[int, float], bool],
) -> Ended:
  """Trains a trial, or goes on with it, to its end or until it is pruned.

  Args:
    cfg: of the trial.
    folder: of the trial.
    parts: what trials share.
    watch: is told the step and the value of each evaluation; returns whether
      the trial is to be pruned.

  Raises:
    UserError: for settings that cannot be trained.
    Interrupted: if a signal came; the trial is saved.
  """
  pruned = lambda step, value: 'pruned' if watch(step, value) else ''
  try:
    with first_start.open_folder(folder, cfg):
      problem = parts.fill(cfg, folder)
      runtime = commands.build(cfg, problem, folder)
      with signals.StopRequest() as stop:
        outcome = loop.run(runtime, folder, stop, watch=pruned)
  finally:
    jax.clear_caches()  # programs of other settings are of no use any more
  if outcome.interrupted:
    commands.say(
        f'{outcome.reason}; the trial is saved after step {outcome.step}. The '
        'same command goes on from there.'
    )
    raise errors.Interrupted(signal.Signals[stop.name or 'SIGTERM'])
  values = [value for _, value in curve(folder)]
  early = outcome.reason == 'pruned' and outcome.step < cfg.train.num_steps
  return Ended(max(values, default=None), early)


def curve(folder: str) -> list[tuple[int, float]]:
  """(step, value) of the evaluations of a trial."""
  found = [
      (row['step'], row.get(_SELECTION, math.nan))
      for row in telemetry.read_metrics(folder)
  ]
  return [(step, value) for step, value in found if math.isfinite(value)]


def clear(folder: str) -> None:
  """Removes what only a trial that goes on would need."""
  for name in os.listdir(folder) if os.path.isdir(folder) else []:
    path = os.path.join(folder, name)
    if name == 'checkpoints':
      shutil.rmtree(path)
    elif name.endswith(('.npz', '.bin')) or name == 'features.json':
      os.remove(path)
