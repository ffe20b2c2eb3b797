# SPDX-License-Identifier: Apache-2.0
"""`reproduce`: named experiments over seeds, and what moved since last time.

Every run is a process of its own, `run.py train` on one experiment with one
seed, so that its peak of memory is its own and a killed `reproduce` goes on
where it was. This process computes nothing and uses no device: Linux counts
into the peak of a new process what the one was that started it.
"""

import ast
from collections.abc import Sequence
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import experiment
from dropoutnet_jax import moves
from dropoutnet_jax import results_table
from dropoutnet_jax import sweeps
from dropoutnet_jax.data import sources
from dropoutnet_jax.training import results as results_lib
from dropoutnet_jax.training import run_folder

# In the order of the table.
EXPERIMENTS = (
    'quickstart',
    'citeulike_a_cold',
    'citeulike_a_cold_sparse',
    'citeulike_a_end_to_end',
    'citeulike_a_full',
    'citeulike_a_full_warm',
    'citeulike_a_warm',
    'citeulike_a_cold_published',
    'citeulike_t_cold',
    'citeulike_t_end_to_end',
    'citeulike_t_full',
    'movielens_cold_item',
    'movielens_cold_user',
    'movielens_end_to_end',
    'movielens_impressions',
    'movielens_quadrants',
)
LEFT_OUT = {
    'dropout_rate': 'a sweep, which draws a picture',
    'movielens_losses': 'a comparison, with seeds and a table of its own',
    'movielens_rolled_negatives': (
        'a comparison, with seeds and a table of its own'
    ),
    'own_tables': 'a template for data of your own',
}


@dataclasses.dataclass(frozen=True)
class Request:
  """What is asked for; the fields are the flags of that name.

  Attributes:
    program: path of run.py, beside the folder of the experiments.
    data_dir: folder with one folder per data set; None downloads them.
    workdir: the run of an experiment and a seed is in
      `workdir/EXPERIMENT/train.seed=SEED`; None is runs/reproduce.
    compile_cache: folder for compiled programs.
    experiments: names, or 'all'.
    seeds: whole numbers, as text.
    output: the table, in Markdown; None is RESULTS.md beside the experiments.
    check: compares alone, and leaves the table as it is.
  """

  program: str
  data_dir: str | None
  workdir: str | None
  compile_cache: str = ''
  experiments: Sequence[str] = ('all',)
  seeds: Sequence[str] = ('0', '1', '2')
  output: str | None = None
  check: bool = False

  def path_of(self, name: str) -> str:
    """Path of an experiment, or of the table beside it."""
    folder = os.path.dirname(os.path.abspath(self.program))
    return os.path.join(folder, 'experiments', name)


class _Part(NamedTuple):
  """An experiment with its runs, one for each seed."""

  name: str
  path: str
  cfg: config.Config
  runs: list[sweeps.Run]


def run(request: Request) -> int:
  """Runs what is not finished, says what moved, and writes the table.

  Rows of experiments that were not asked for stay as they are. The table is
  written when all runs are done; each can be repeated without losing others.

  Returns:
    The exit status: 1 if a check has found that a value moved, else 0.

  Raises:
    UserError: for what cannot be run or written, before the first run where
      that can be known; with what a run said, if one fails.
  """
  names, seeds = choose(request.experiments), parse_seeds(request.seeds)
  output = request.output or os.path.relpath(request.path_of('RESULTS.md'))
  if not request.check:
    results_table.check_output(output)
  table = results_table.load(output)
  if request.check and not table:
    raise errors.UserError(
        f'--check: there is no table at {output} to compare with; name '
        'another --output, or leave --check out to make it.'
    )
  parts = [_prepare(request, name, seeds) for name in names]
  entries, moved = {}, []
  for part in parts:
    entry = _reproduce(request, part, seeds)
    if moves.show(part.name, table.get(part.name), entry):
      moved.append(part.name)
    entries[part.name] = entry
  if moved:
    print(f'Moved since {output} was written: {", ".join(moved)}.')
  elif table:
    print(f'Nothing of {output} moved.')
  if not request.check:
    results_table.write(output, _in_order(table | entries))
    print(f'Written to {output} and {results_table.json_path(output)}')
  return int(bool(moved) and request.check)


def _in_order(entries: dict[str, Any]) -> dict[str, Any]:
  """Entries in the order of the list, others after them."""
  names = [name for name in EXPERIMENTS if name in entries]
  return {name: entries[name] for name in dict.fromkeys([*names, *entries])}


def choose(experiments: Sequence[str]) -> list[str]:
  """Names of the experiments asked for, each once.

  Raises:
    UserError: for an unknown name, and for one that is no single run.
  """
  names: list[str] = []
  for name in experiments:
    if name in LEFT_OUT:
      raise errors.UserError(
          f'--experiments={name}: it is {LEFT_OUT[name]}. Leave it out, or '
          f'train it: python run.py --config=experiments/{name}.py'
      )
    if name != 'all' and name not in EXPERIMENTS:
      raise errors.UserError(
          f'--experiments={name}: there is no such experiment; there are all, '
          f'{", ".join(EXPERIMENTS)}.{errors.did_you_mean(name, EXPERIMENTS)}'
      )
    names += EXPERIMENTS if name == 'all' else [name]
  if not names:
    raise errors.UserError(
        f'--experiments is empty; name all, or of {", ".join(EXPERIMENTS)}.'
    )
  return list(dict.fromkeys(names))


def parse_seeds(seeds: Sequence[str]) -> list[int]:
  """The seeds as numbers.

  Raises:
    UserError: if there are none, one is no whole number, or one comes twice.
  """
  text = ','.join(seeds)
  wanted = 'expected whole numbers from 0 on, each once, such as 0,1,2.'
  if not seeds or not all(x.isascii() and x.isdecimal() for x in seeds):
    raise errors.UserError(f'--seeds={text}: {wanted}')
  numbers = [int(seed) for seed in seeds]
  if len(set(numbers)) < len(numbers):
    raise errors.UserError(f'--seeds={text}: {wanted}')
  return numbers


def _prepare(request: Request, name: str, seeds: list[int]) -> _Part:
  """Loads an experiment and checks all that can be before hours of runs."""
  path = request.path_of(f'{name}.py')
  workdir = request.workdir or os.path.join('runs', 'reproduce')
  cfg = experiment.load(path)
  cfg.sweep = config.SweepConfig(
      'train.seed', tuple(float(seed) for seed in seeds)
  )
  runs = sweeps.make_runs(cfg, os.path.join(workdir, name))
  for one in runs:
    run_folder.check_same_experiment(one.folder, one.cfg)
  unfinished = not all(_finished(one) for one in runs)
  if unfinished and request.data_dir and cfg.data.name != 'synthetic':
    sources.find_folder(cfg.data.name, pathlib.Path(request.data_dir))
  return _Part(name, path, cfg, runs)


def _reproduce(
    request: Request, part: _Part, seeds: list[int]
) -> dict[str, Any]:
  """The entry of an experiment, from its finished runs and from new ones."""
  found, dates = [], []
  for seed, one in zip(seeds, part.runs, strict=True):
    label = f'{part.name}, seed {seed}'
    results = _finished(one)
    if results is None:
      print(f'{label}: running in {one.folder}', flush=True)
      _train(request, part.path, one.folder, seed, label)
      results = _finished(one)
    else:
      print(f'{label}: taken from {one.folder}{_age(results)}', flush=True)
    if results is None:
      raise errors.UserError(
          f'{label}: {one.folder} has no results of a whole run. Name another '
          '--workdir and repeat the command.'
      )
    found.append(results)
    dates.append(os.path.getmtime(os.path.join(one.folder, 'results.json')))
  return results_table.make_entry(
      found,
      {
          'title': _title(part.path),
          'seeds': seeds,
          'date': time.strftime('%Y-%m-%d', time.gmtime(max(dates))),
          'command': _command(part, seeds),
          'cores': os.cpu_count(),
      },
  )


def _finished(one: sweeps.Run) -> dict[str, Any] | None:
  """Results of a run that is done, with all that the table tells of it."""
  results = sweeps.finished(one)
  if results is None or not results_table.NEEDED <= results.keys():
    return None  # training it, which is done, evaluates it anew
  return results


def _age(results: dict[str, Any]) -> str:
  """What to know of a finished run that other versions have made."""
  now = results_lib.versions()
  differing = [
      f'{name} {version}'
      for name, version in results['versions'].items()
      if now.get(name) != version
  ]
  if not differing:
    return ''
  return (
      f' (made with {errors.listed(differing, 3, "packages")}; another '
      '--workdir repeats it with what is installed)'
  )


def _title(path: str) -> str:
  """The first line of an experiment: what it shows."""
  tree = ast.parse(pathlib.Path(path).read_text(encoding='utf-8'))
  return (ast.get_docstring(tree) or '').partition('\n')[0]


def _command(part: _Part, seeds: list[int]) -> str:
  """What repeats all runs of an experiment."""
  words = [
      'python run.py reproduce',
      f'--experiments={part.name}',
      f'--seeds={",".join(str(seed) for seed in seeds)}',
  ]
  if part.cfg.data.name != 'synthetic':
    words.append('--data_dir=DIR')
  return ' '.join(words)


def _train(
    request: Request, path: str, folder: str, seed: int, label: str
) -> None:
  """Trains and evaluates one run, in a process of its own.

  Raises:
    UserError: if that fails, with what it said.
    KeyboardInterrupt: if a signal came; the run has been asked to save, and
      has ended.
  """
  command = [
      sys.executable,
      request.program,
      'train',
      f'--config={path}',
      f'--workdir={folder}',
      f'--compile_cache={request.compile_cache}',
      f'--config.train.seed={seed}',
  ]
  if request.data_dir is not None:
    command.append(f'--data_dir={request.data_dir}')
  with tempfile.TemporaryFile('w+', encoding='utf-8', errors='replace') as file:
    # In a group of its own: a signal from a terminal would reach it twice, and
    # the second one kills.
    with subprocess.Popen(command, stderr=file, process_group=0) as process:
      number = _wait(process)
    file.seek(0)
    said = file.read()
  if number:
    raise KeyboardInterrupt(number)
  _check_end(process.returncode, said, label)


def _wait(process: subprocess.Popen[bytes]) -> int:
  """Waits for the end, handing signals on; returns the last one, or 0."""
  number = 0
  while True:
    try:
      process.wait()
      return number
    except KeyboardInterrupt as error:
      number = error.args[0] if error.args else signal.SIGINT
      process.send_signal(number)


def _check_end(status: int, said: str, label: str) -> None:
  """Prints warnings of a run that has ended well.

  Raises:
    UserError: if it has not; with its message where it has one.
  """
  before, _, message = said.rpartition('run.py: ')
  if status == 2 and message:
    sys.stderr.write(before)
    raise errors.UserError(f'{label}: {message.strip()}')
  sys.stderr.write(said)
  if status < 0:
    raise errors.UserError(
        f'{label}: {signal.Signals(-status).name} ended its process. If nobody '
        'sent that, memory ran out; free some. The same command goes on.'
    )
  if status:
    raise errors.UserError(
        f'{label}: its process ended with status {status}; what it said is '
        'above. The same command goes on.'
    )
