# SPDX-License-Identifier: Apache-2.0
"""tuning.json: what is known of a study, for its report and for programs."""

import os
from typing import Any

from dropoutnet_jax import config
from dropoutnet_jax import space
from dropoutnet_jax.tuning import spaces
from dropoutnet_jax.tuning import study as study_lib
from dropoutnet_jax.tuning import trials as trials_lib

FILE = 'tuning.json'


def metric_of(cfg: config.Config) -> str:
  """What trials are compared by, for people."""
  name = cfg.train.select_by
  if not name:
    return 'mean NDCG'
  return (
      f'-{name}' if name.endswith(('log_loss', 'calibration_error')) else name
  )


def make(
    study: study_lib.Study,
    cfg: config.Config,
    entries: list[space.Entry],
    workdir: str,
) -> dict[str, Any]:
  """The part of the table that the trials give.

  Returns:
    'experiment', 'metric', 'fields' as in `spaces.as_data`, 'trials' by number
    with 'state' ('complete', 'pruned', 'failed', 'running'), 'value' (the best
    of its curve, or None), 'step' of that, 'last_step', 'seconds', 'point',
    'why' it failed; 'best', a number or None; 'own', the number of the trial of
    the experiment itself or None; 'importances' by field; 'seconds' in which
    anything ran.
  """
  trials = study.trials()
  own = spaces.own_point(cfg, entries)
  rows = [_row(study, trial, workdir) for trial in trials]
  best = study.best()
  return {
      'experiment': cfg.name,
      'metric': metric_of(cfg),
      'fields': spaces.as_data(entries),
      'trials': rows,
      'best': None if best is None else best.number,
      'own': 0 if rows and own is not None else None,
      'importances': study.importances(),
      'seconds': round(study_lib.seconds(trials), 1),
  }


def _row(study: study_lib.Study, trial: Any, workdir: str) -> dict[str, Any]:
  curve = trials_lib.curve(folder_of(workdir, trial.number))
  step, value = max(curve, key=lambda x: (x[1], -x[0]), default=(None, None))
  state = {'FAIL': 'failed'}.get(trial.state.name, trial.state.name.lower())
  return {
      'number': trial.number,
      'state': state,
      'value': trial.value if state == 'complete' else value,
      'step': step,
      'last_step': curve[-1][0] if curve else None,
      'seconds': round(study_lib.seconds([trial]), 1),
      'point': {
          name: list(value) if isinstance(value, tuple) else value
          for name, value in study.point_of(trial).items()
      },
      'why': trial.user_attrs.get('why', ''),
  }


def folder_of(workdir: str, number: int) -> str:
  """The folder of a trial."""
  return os.path.join(workdir, 'trials', f'{number:04d}')
