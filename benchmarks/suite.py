# SPDX-License-Identifier: Apache-2.0
"""Comparisons with other software, and their tables.

python run.py bench [--data_dir=DIR] [--suite=speed,labels,...]

A plain folder beside the package: nothing in the package imports it, and what
it compares with comes with pip install '.[bench]'. Times mean something on a
quiet machine; ratios, measured in turns, on a busy one too.
"""

from collections.abc import Sequence
import importlib
import os

import jax
from rich import console as rich_console

from benchmarks import comparison
from benchmarks import task
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.data import files
from dropoutnet_jax.training import results as results_lib

# Each is a module here with run(data_dir) -> Comparison. They are imported
# only when asked for, since some need extras.
SUITES = (
    'speed',
    'labels',
    'accuracy',
    'hybrid',
    'teacher',
    'memory',
    'streaming',
    'tables',
    'search',
    'serve',
    'explore',
)
_MODULES = {'tables': 'large_tables'}  # of another name than the suite
FOLDER = os.path.join('runs', 'bench')


def run(suites: Sequence[str], data_dir: str | None) -> None:
  """Runs suites, prints a table each and writes runs/bench/bench.json.

  Args:
    suites: names, or 'all'.
    data_dir: folder that holds citeulike-a; None downloads it.

  Raises:
    UserError: for an unknown suite, missing data or a missing extra.
  """
  names = choose(suites)
  # What compiling costs is measured, so nothing may come from the cache.
  jax.config.update('jax_enable_compilation_cache', False)
  found = {}
  for name in names:
    module = importlib.import_module(f'benchmarks.{_MODULES.get(name, name)}')
    found[name] = module.run(data_dir)
    show(found[name])
    write(found)  # after each: a later suite may fail


def choose(suites: Sequence[str]) -> list[str]:
  """Names of the suites asked for, each once.

  Raises:
    UserError: for an unknown name.
  """
  names: list[str] = []
  for name in suites:
    if name != 'all' and name not in SUITES:
      raise errors.UserError(
          f'--suite={name}: there is no such suite; there are all, '
          f'{", ".join(SUITES)}.{errors.did_you_mean(name, SUITES)}'
      )
    names += SUITES if name == 'all' else [name]
  if not names:
    raise errors.UserError(f'--suite is empty; name {", ".join(SUITES)}.')
  return list(dict.fromkeys(names))


def show(found: comparison.Comparison) -> None:
  """Prints one suite's table and remarks."""
  console = rich_console.Console(highlight=False)
  if not console.is_terminal:
    console = rich_console.Console(highlight=False, width=120)
  console.print(comparison.make_table(found))
  for note in found.notes:
    console.print(f'  {note}')
  for grid in found.grids:
    console.print(comparison.make_grid(grid))


def write(found: dict[str, comparison.Comparison]) -> None:
  """Writes bench.json, whole or not at all."""
  files.make_folder(FOLDER, 'Call bench from a folder that can be written.')
  path = os.path.join(FOLDER, 'bench.json')
  files.write_json(
      path,
      {
          'devices': parallel.describe_devices(),
          'cpus': task.num_threads(),
          'versions': results_lib.versions(),
          'suites': {name: value.as_dict() for name, value in found.items()},
      },
  )
  print(f'Written to {path}')
