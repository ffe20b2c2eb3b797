# SPDX-License-Identifier: Apache-2.0
"""Ranking in all four quadrants, beside a hybrid of feature embeddings.

One model of each kind for known and new users and films of MovieLens 100K, on
the same splits, features and training pairs. The settings of the other side
(`feature_sums.Settings`) were chosen on the validation sets of these splits.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile

from benchmarks import comparison
from benchmarks import feature_sums
from benchmarks import task
from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import experiment
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.training import prepare

EXPERIMENT = os.path.join('experiments', 'movielens_quadrants.py')
METRIC = 'ndcg@20'
_SPLITS = (0, 1, 2)
_BAR = 1.1  # where something is new; what is known may not be worse
Metrics = dict[str, float]  # by quadrant


def run(data_dir: str | None) -> comparison.Comparison:
  """Trains both on each split; test sets, means over the splits."""
  ours, others = [], []
  for split in _SPLITS:
    cfg = experiment.load(str(task.ROOT / EXPERIMENT))
    cfg.data.seed = split
    ours.append(_ours(split, data_dir))
    problem = prepare.prepare(cfg, data_dir, None)
    others.append(measure(cfg, problem, feature_sums.Settings(), split))
    _say(split, ours[-1], others[-1])
  return summarize(ours, others)


def measure(
    cfg: config.Config,
    problem: problem_lib.Problem,
    settings: feature_sums.Settings,
    seed: int,
) -> Metrics:
  """Trains the other side and ranks each test set by it."""
  fitted = feature_sums.fit(problem, settings, seed)
  likes = problem.likes()
  return {
      name: protocol.evaluate(
          fitted.method(name, held_out),
          held_out,
          likes,
          cfg.evaluation,
          f'the hybrid on {name}',
      )[METRIC]
      for name, held_out in problem.split.evaluation.items()
      if name == protocol.quadrant_of(name)
  }


def summarize(
    ours: list[Metrics], others: list[Metrics]
) -> comparison.Comparison:
  """Means over splits of both, by quadrant."""
  rows = []
  for name in ours[0]:
    own, other = (
        statistics.mean(x[name] for x in side) for side in (ours, others)
    )
    bar = 1.0 if name == 'warm' else _BAR
    row = comparison.Row(f'{METRIC}, {name}', own, other, own / other, bar)
    rows.append(row)
  return comparison.Comparison(
      'Known and new users and films of MovieLens 100K',
      'feature sums, WARP',
      rows,
      [f'Means over data.seed {", ".join(map(str, _SPLITS))}.'],
  )


def _ours(split: int, data_dir: str | None) -> Metrics:
  """Trains the experiment in a process of its own."""
  with tempfile.TemporaryDirectory() as folder:
    workdir = os.path.join(folder, 'run')
    command = [
        sys.executable,
        str(task.ROOT / 'run.py'),
        f'--config={task.ROOT / EXPERIMENT}',
        f'--workdir={workdir}',
        f'--config.data.seed={split}',
        '--config.evaluation.baselines=()',
    ]
    if data_dir is not None:
      command.append(f'--data_dir={data_dir}')
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
      raise errors.UserError(
          f'{" ".join(command)} ended with status {done.returncode}: '
          f'{done.stderr.strip()[-500:]}'
      )
    with open(os.path.join(workdir, 'results.json'), encoding='utf-8') as file:
      splits = json.load(file)['splits']
  return {
      name: found['methods']['model'][METRIC]
      for name, found in splits.items()
      if name == protocol.quadrant_of(name)
  }


def _say(split: int, ours: Metrics, others: Metrics) -> None:
  parts = [f'{name} {ours[name]:.3f} / {others[name]:.3f}' for name in ours]
  print(f'split {split}, ours / hybrid: {", ".join(parts)}', flush=True)
