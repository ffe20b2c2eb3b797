# SPDX-License-Identifier: Apache-2.0
"""Comparisons: several variants of an experiment, each over the same seeds.

Every variant is a sweep over the seeds in a folder of its own, so that a killed
comparison goes on where it was. Data that a seed has prepared serves all
variants that do not ask for other data.
"""

import os
import statistics
from typing import Any

from dropoutnet_jax import commands
from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax import report
from dropoutnet_jax import sweeps
from dropoutnet_jax.data import files
from dropoutnet_jax.run_report import pages
from dropoutnet_jax.training import telemetry

_TABLE = 'comparison.json'
# Fields of the data that leave the test sets as they are.
_SAME_TEST = ('data.validation', 'data.drop_leaks')


def run(
    cfg: config.Config,
    workdir: str,
    data_dir: str | None = None,
    profile: bool = False,
) -> dict[str, Any] | None:
  """Runs every variant with every seed, writes comparison.json, shows it.

  Args:
    cfg: with `comparison.variants`; all are validated before the first run.
    workdir: of the comparison; the run of a variant and a seed is in
      `workdir/VARIANT/train.seed=SEED`.
    data_dir: folder with one folder per data set.
    profile: every run writes a device trace of one dispatch.

  Returns:
    What comparison.json holds; None on processes that write no files.
    `variants` is {variant: what its sweep.json holds}, with 'step_seconds',
    the median time of a step in each run, compilation left out.

  Raises:
    UserError: for a variant that sets what cannot be, a folder of something
      else, and whatever `commands.train` finds.
  """
  if cfg.sweep.values:
    raise errors.UserError(
        'config.sweep.values and config.comparison.variants are both set; a '
        'comparison sweeps over config.comparison.seeds. Empty one of them.'
    )
  variants = _make_variants(cfg)
  parallel.on_writer(lambda: _check_folder(cfg, workdir))
  first: list[sweeps.Run] = []
  found: dict[str, Any] = {}
  for variant in cfg.comparison.variants:
    name, one = variant.name, variants[variant.name]
    commands.say(f'variant {name!r}')
    folder = os.path.join(workdir, name)
    runs = sweeps.make_runs(one, folder)
    first = first or runs
    for had, new in zip(first, runs, strict=True):
      sweeps.share_problem(had, new)
    table = sweeps.run(one, folder, data_dir, profile)
    if table is not None:
      times = [_step_seconds(r.folder, r.cfg.train.num_steps) for r in runs]
      found[name] = table | {'step_seconds': times}
  return parallel.on_writer(lambda: _conclude(cfg, workdir, found))


def _make_variants(cfg: config.Config) -> dict[str, config.Config]:
  """The sweep of each variant, in order."""
  variants = {}
  for number, variant in enumerate(cfg.comparison.variants):
    _check_comparable(variant, f'config.comparison.variants[{number}]')
    try:
      one = config_tree.varied(cfg, variant.settings)
    except errors.UserError as error:
      raise errors.UserError(
          f'config.comparison.variants[{number}] ({variant.name!r}): {error}'
      ) from error
    one.sweep = config.SweepConfig(
        'train.seed', tuple(float(seed) for seed in cfg.comparison.seeds)
    )
    variants[variant.name] = one
  return variants


def _check_comparable(variant: config.Variant, field: str) -> None:
  """Refuses settings that make a row of the table something else."""
  for setting in variant.settings:
    name = setting.partition('=')[0]
    if name == 'train.seed':
      advice = 'every variant has all of config.comparison.seeds; set those'
    elif name.startswith('data.') and name not in _SAME_TEST:
      advice = (
          'its rows would be tested on other pairs than the others; compare '
          'runs of one split'
      )
    else:
      continue
    raise errors.UserError(
        f'{field} ({variant.name!r}) sets {setting!r}: {advice}.'
    )


def _check_folder(cfg: config.Config, workdir: str) -> None:
  """Raises UserError if something else is in the way."""
  names = sorted(os.listdir(workdir)) if os.path.isdir(workdir) else []
  own = {
      _TABLE,
      pages.FOLDER,
      *(variant.name for variant in cfg.comparison.variants),
  }
  others = [
      name
      for name in names
      if name not in own and not name.endswith(files.TEMPORARY)
  ]
  if others:
    raise errors.UserError(
        f'{workdir} holds {errors.listed(others, 3)}, which is no variant of '
        'this comparison. Choose an empty or new --workdir.'
    )


def _step_seconds(folder: str, last: int) -> float | None:
  """Median time of a step of a run; None where it is not known.

  The first dispatch compiles, and is left out.
  """
  rows = telemetry.read_metrics(folder, last)
  times = [row['step_seconds'] for row in rows if 'step_seconds' in row]
  return statistics.median(times[1:]) if times[1:] else None


def _conclude(
    cfg: config.Config, workdir: str, found: dict[str, Any]
) -> dict[str, Any]:
  table = {
      'experiment': cfg.name,
      'seeds': list(cfg.comparison.seeds),
      'variants': found,
  }
  path = os.path.join(workdir, _TABLE)
  files.write_json(path, table)
  report.print_comparison(table)
  print(f'Written to {path}', flush=True)
  print(
      pages.say_where(lambda: pages.write_comparison(workdir, table)),
      flush=True,
  )
  return table
