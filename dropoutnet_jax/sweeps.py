# SPDX-License-Identifier: Apache-2.0
"""Sweeps: one run per value of a field, in folders of one folder.

All runs share the prepared data where the field does not change it; a killed
sweep goes on with the run that it was in. Over seeds the outcome is a table of
means and standard deviations, over any other number a picture.
"""

import contextlib
import functools
import json
import os
import statistics
from typing import Any, NamedTuple

from dropoutnet_jax import commands
from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax import report
from dropoutnet_jax.data import files
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import streamed_split
from dropoutnet_jax.run_report import pages
from dropoutnet_jax.training import first_start
from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import run_folder

_TABLE = 'sweep.json'
_PICTURE = 'sweep.png'


class Run(NamedTuple):
  """One run of a sweep: the value of the field, of the field's type."""

  value: float
  folder: str
  cfg: config.Config

  def name(self) -> str:
    return os.path.basename(self.folder)


def run(
    cfg: config.Config,
    workdir: str,
    data_dir: str | None = None,
    profile: bool = False,
) -> dict[str, Any] | None:
  """Runs every value, then writes sweep.json and shows the outcome.

  Args:
    cfg: with `sweep.values`; validated for every value before the first run.
    workdir: of the sweep; run n is in `workdir/FIELD=VALUE`.
    data_dir: folder with one folder per data set.
    profile: every run writes a device trace of one dispatch.

  Returns:
    What sweep.json holds; None on processes that write no files. `splits` is
    {split: {'users': [per run], 'candidates': [per run], 'methods': {method:
    {metric: [per run]}}}}, with 'labelled' like 'methods' where there are
    labels; over seeds also 'mean' and 'deviation', {method: {metric: value}},
    of both. A run without a split or a method has None there.

  Raises:
    UserError: for a value that the field can't have, a folder of something
      else, and whatever `commands.train` finds.
  """
  runs = make_runs(cfg, workdir)
  parallel.on_writer(lambda: _check_folders(cfg, workdir, runs))
  found = []
  for one in runs:
    commands.say(one.name().replace('=', ' = '))
    results = parallel.on_writer(functools.partial(finished, one))
    if not parallel.anywhere(results is not None):
      share_problem(runs[0], one)
      results = commands.train(one.cfg, one.folder, data_dir, profile)
    found.append(results or {})
  return parallel.on_writer(lambda: _conclude(cfg, workdir, runs, found))


def make_runs(cfg: config.Config, workdir: str) -> list[Run]:
  """The runs in order, each with a folder of its own.

  Raises:
    UserError: for an unknown field, and a value out of range or repeated.
  """
  field = cfg.sweep.field
  hint = config_tree.check_field(cfg, field)
  runs: dict[str, Run] = {}
  for value in cfg.sweep.values:
    if hint in (int, bool) and value == hint(value):
      value = hint(value)  # values are numbers of any kind: 1.0 is seed 1
    text = f'{value:g}'
    if float(text) != value:  # digits that :g leaves out
      text = repr(value)
    folder = os.path.join(workdir, f'{field}={text}')
    if folder in runs:
      raise errors.UserError(
          f'config.sweep.values holds {text} twice; each value is one run.'
      )
    runs[folder] = Run(value, folder, config_tree.swept(cfg, value))
  return list(runs.values())


def _check_folders(cfg: config.Config, workdir: str, runs: list[Run]) -> None:
  """Raises UserError if something else is in the way of any of the runs."""
  field = cfg.sweep.field
  names = sorted(os.listdir(workdir)) if os.path.isdir(workdir) else []
  others = [
      name
      for name in names
      if name not in ('.lock', _TABLE, _PICTURE, pages.FOLDER)
      and not name.startswith(f'{field}=')
      and not name.endswith(files.TEMPORARY)
  ]
  if others:
    raise errors.UserError(
        f'{workdir} holds {", ".join(others[:3])}, which is no part of a sweep '
        f'over {field}. Choose an empty or new --workdir.'
    )
  for one in runs:
    run_folder.check_same_experiment(one.folder, one.cfg)


def finished(one: Run) -> dict[str, Any] | None:
  """Results of a run that is done with these settings, or None.

  Anything else, damaged results and those of a run in the middle among it, is
  left to `commands.train`, which goes on with the run or evaluates it anew.
  """
  path = os.path.join(one.folder, 'results.json')
  if run_folder.differences(one.folder, one.cfg):
    return None
  with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
    with open(path, encoding='utf-8') as file:
      results = json.load(file)
    all_done = results['last_step'] == one.cfg.train.num_steps
    if (all_done or results['stopped_early']) and results['splits']:
      return results
  return None


def share_problem(source: Run, target: Run) -> None:
  """Starts a run with the prepared data of another one, if it has none.

  Only where both ask for the same data.
  """
  same = prepare.problem_settings(source.cfg) == (
      prepare.problem_settings(target.cfg)
  )
  if source is target or not same:
    return

  def copy() -> None:
    if problem_lib.exists(target.folder):
      return
    names = [n for n in os.listdir(source.folder) if n.startswith('features')]
    # The last one says: prepared.
    for name in (*sorted(names), streamed_split.FILE, problem_lib.FILE):
      path = os.path.join(source.folder, name)
      if os.path.exists(path):
        files.link(path, os.path.join(target.folder, name))

  with first_start.open_folder(target.folder, target.cfg):
    parallel.on_writer(copy)


def _conclude(
    cfg: config.Config,
    workdir: str,
    runs: list[Run],
    found: list[dict[str, Any]],
) -> dict[str, Any]:
  """Writes sweep.json; prints the means over seeds, or draws the curves."""
  table: dict[str, Any] = {
      'experiment': cfg.name,
      'field': cfg.sweep.field,
      'values': [one.value for one in runs],
      'train_seconds': [results['train_seconds'] for results in found],
      'splits': collect(found),
  }
  over_seeds = cfg.sweep.field.split('.')[-1] == 'seed'
  if over_seeds:
    for split in table['splits'].values():
      known = split['methods']
      labelled = split.get('labelled', {})
      known = {name: known[name] | labelled.get(name, {}) for name in known}
      split['mean'] = _over_runs(known, statistics.fmean, 1)
      split['deviation'] = _over_runs(known, statistics.stdev, 2)
  path = os.path.join(workdir, _TABLE)
  files.write_json(path, table)
  if over_seeds:
    report.print_seeds(table)
  elif not isinstance(runs[0].value, bool):
    path = os.path.join(workdir, _PICTURE)
    report.plot_sweep(table, path)
  print(f'Written to {path}', flush=True)
  folders = [one.name() for one in runs]
  print(
      pages.say_where(lambda: pages.write_sweep(workdir, table, folders)),
      flush=True,
  )
  return table


def collect(found: list[dict[str, Any]]) -> dict[str, Any]:
  """Results of all runs, split by split; None where a run has no value."""
  runs = [results['splits'] for results in found]
  splits: dict[str, Any] = {}
  for split in _keys(runs):
    parts = [splits_of_run.get(split, {}) for splits_of_run in runs]
    splits[split] = {
        'users': [part.get('users', 0) for part in parts],
        'candidates': [part.get('candidates', 0) for part in parts],
        'methods': _per_run([part.get('methods', {}) for part in parts]),
    }
    labelled = _per_run([part.get('labelled', {}) for part in parts])
    if labelled:
      splits[split]['labelled'] = labelled
  return splits


def _per_run(runs: list[dict[str, Any]]) -> dict[str, Any]:
  """Values of {method: {metric: value}} of several runs side by side."""
  return {
      label: {
          metric: [run.get(label, {}).get(metric) for run in runs]
          for metric in _keys([run.get(label, {}) for run in runs])
      }
      for label in _keys(runs)
  }


def _keys(trees: list[dict[str, Any]]) -> list[str]:
  """Keys of any of the dicts, in the order of their first appearance."""
  return list({key: None for tree in trees for key in tree})


def _over_runs(
    methods: dict[str, dict[str, list[float | None]]],
    summarize: Any,
    least: int,
) -> dict[str, dict[str, float | None]]:
  """One number for the runs of each metric; None for fewer than `least`."""

  def of(values: list[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return summarize(numbers) if len(numbers) >= least else None

  return {
      label: {metric: of(values) for metric, values in metrics.items()}
      for label, metrics in methods.items()
  }
