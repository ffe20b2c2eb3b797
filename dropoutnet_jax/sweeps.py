# SPDX-License-Identifier: Apache-2.0
"""Sweeps: one run per value of a field, in folders of one run folder.

All runs share the prepared data where the field does not change it; a killed
sweep goes on with the run that it was in.
"""

import json
import os
import shutil
from typing import Any

from dropoutnet_jax import commands
from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax import parallel
from dropoutnet_jax import report
from dropoutnet_jax.data import files
from dropoutnet_jax.data import problem as problem_lib

_SECTIONS_THAT_PREPARE = ('data', 'features', 'teacher')


def run(
    cfg: config.Config, workdir: str, data_dir: str | None = None
) -> dict[str, Any] | None:
  """Runs every value, then writes sweep.json and sweep.png.

  Args:
    cfg: with `sweep.values`; validated for every value before the first run.
    workdir: of the sweep; run n is in `workdir/FIELD=VALUE`.
    data_dir: folder with one folder per data set.

  Returns:
    {'field', 'values', 'splits': {split: {metric: [per value]}}}, or None if a
    signal ended a run.
  """
  configs = [config_tree.swept(cfg, value) for value in cfg.sweep.values]
  shares = cfg.sweep.field.split('.')[0] not in _SECTIONS_THAT_PREPARE
  found, first = [], ''
  for value, one in zip(cfg.sweep.values, configs, strict=True):
    folder = os.path.join(workdir, f'{cfg.sweep.field}={value:g}')
    print(f'{cfg.sweep.field} = {value:g}', flush=True)
    if first and shares and not os.path.exists(folder):
      _share_problem(first, folder, one)
    results = _finished(folder) or commands.train(one, folder, data_dir)
    if results is None:
      return None
    found.append(results)
    first = first or folder
  table = _collect(cfg, found)
  if parallel.is_writer():
    files.write_json(os.path.join(workdir, 'sweep.json'), table)
    path = os.path.join(workdir, 'sweep.png')
    report.plot_sweep(table, path)
    print(f'Written to {path}')
  return table


def _share_problem(source: str, target: str, cfg: config.Config) -> None:
  """Starts a run folder with the prepared data of another one."""
  os.makedirs(target)
  files.write_text(
      os.path.join(target, 'config.json'), config_tree.to_json(cfg)
  )
  for name in os.listdir(source):
    if name.startswith(('features', problem_lib.FILE)):
      shutil.copy(os.path.join(source, name), target)


def _finished(folder: str) -> dict[str, Any] | None:
  """Results of a run that is done, or None."""
  path = os.path.join(folder, 'results.json')
  if not os.path.exists(path):
    return None
  with open(path, encoding='utf-8') as file:
    return json.load(file)


def _collect(cfg: config.Config, found: list[dict[str, Any]]) -> dict[str, Any]:
  splits: dict[str, dict[str, list[float]]] = {}
  for results in found:
    for split, values in results['splits'].items():
      model = values['methods']['model']
      for metric, value in model.items():
        series = splits.setdefault(split, {}).setdefault(metric, [])
        series.append(value)
  return {
      'experiment': cfg.name,
      'field': cfg.sweep.field,
      'values': list(cfg.sweep.values),
      'splits': splits,
  }
