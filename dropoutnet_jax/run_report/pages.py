# SPDX-License-Identifier: Apache-2.0
"""`report/` in a run folder: a page, the same as Markdown, and its data."""

from collections.abc import Callable
import contextlib
import json
import os
from typing import Any

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import files
from dropoutnet_jax.run_report import document
from dropoutnet_jax.run_report import exploring_sections
from dropoutnet_jax.run_report import html_page
from dropoutnet_jax.run_report import markdown_page
from dropoutnet_jax.run_report import results_tables
from dropoutnet_jax.run_report import run_sections
from dropoutnet_jax.run_report import sweep_sections
from dropoutnet_jax.run_report import terms
from dropoutnet_jax.run_report import tuning_sections
from dropoutnet_jax.training import telemetry

FOLDER = 'report'
PAGE = 'index.html'
_TEXT = 'report.md'
_DATA = 'data.json'


def write_run(
    workdir: str,
    cfg: config.Config,
    results: dict[str, Any],
    extra: dict[str, Any],
) -> str:
  """Writes the report of a run; for the writing process.

  Args:
    workdir: the run folder; metrics.jsonl is read from it, and where they are
      exploring.json and off_policy.json.
    cfg: its configuration.
    results: what results.json holds.
    extra: what only a report shows, each part optional: 'command' that trained
      the run, 'facts' of data and model, 'users' of `examples.collect`. It is
      kept beside the page.

  Returns:
    The path of the page.

  Raises:
    UserError: if it can't be written; the old report is whole then.
  """
  made = run_document(workdir, cfg, results, extra)
  return _write(workdir, made, extra)


def run_document(
    workdir: str,
    cfg: config.Config,
    results: dict[str, Any],
    extra: dict[str, Any],
) -> document.Document:
  """What `write_run` writes."""
  rows = telemetry.read_metrics(workdir, results.get('last_step'))
  facts = extra.get('facts', {})
  section = document.Section
  return document.Document(
      title=results['experiment'],
      lead=(
          f'A DropoutNet recommender for {cfg.data.name}, after '
          f"{results['step']:,} steps: what went in, how it learnt, and how "
          'well it serves whom.'
      ),
      sections=[
          section('In short', run_sections.summary(results)),
          section('Results', results_tables.blocks(results)),
          section(
              'First interactions',
              results_tables.warm_up(results.get('warm_up', {})),
          ),
          section('Users', run_sections.users(extra.get('users', {}))),
          section(
              'Exploring',
              exploring_sections.blocks(
                  _load(workdir, 'exploring.json'),
                  _load(workdir, 'off_policy.json'),
                  results['step'],
              ),
          ),
          section('Training', run_sections.course(rows, results['step'])),
          section('Data', run_sections.data(results, facts)),
          section('Configuration', run_sections.settings(cfg)),
          section(
              'Machine',
              run_sections.machine(results, facts, extra.get('command', '')),
          ),
          section('Terms', terms.blocks(results)),
      ],
  )


def write_sweep(workdir: str, table: dict[str, Any], folders: list[str]) -> str:
  """Writes the report of a sweep; as `write_run`.

  Args:
    workdir: of the sweep.
    table: what sweep.json holds.
    folders: names of the folders of its runs, in the order of the values.
  """
  return _write(workdir, sweep_sections.sweep(table, folders), {})


def write_comparison(workdir: str, table: dict[str, Any]) -> str:
  """Writes the report of a comparison; as `write_run`.

  Args:
    workdir: of the comparison, with a folder for each variant.
    table: what comparison.json holds.
  """
  return _write(workdir, sweep_sections.comparison(table), {})


def write_tuning(workdir: str, table: dict[str, Any], best_folder: str) -> str:
  """Writes the report of a study; as `write_run`.

  Args:
    workdir: of the study.
    table: what tuning.json holds.
    best_folder: name of the folder of the winner's run.
  """
  return _write(workdir, tuning_sections.study(table, best_folder), {})


def say_where(write: Callable[[], str]) -> str:
  """Calls one of the above; returns a sentence on where the report is.

  What it is of is finished and written: a report that can't be is no failure.
  """
  try:
    return f'A report is in {write()}'
  except errors.UserError as error:
    return f'There is no report, though all else is written: {error}'


def command_of(workdir: str) -> str:
  """The command that an earlier report names, or ''."""
  return str(_load(workdir, FOLDER, _DATA).get('command', ''))


def write_again(workdir: str, cfg: config.Config) -> str:
  """Writes the report of an evaluated run anew, with what is new in its folder.

  Returns:
    The path of the page.

  Raises:
    UserError: if it can't be written.
  """
  results = _load(workdir, 'results.json')
  return write_run(workdir, cfg, results, _load(workdir, FOLDER, _DATA))


def off_policy_text(found: dict[str, Any]) -> str:
  """What off_policy.json holds, as Markdown."""
  blocks = exploring_sections.off_policy(found)
  section = document.Section('What a log says', blocks)
  lead = 'What the lists of this run would be worth, from what others saw.'
  return markdown_page.render(
      document.Document('Off-policy estimates', lead, [section])
  )


def _load(workdir: str, *names: str) -> dict[str, Any]:
  """The object in a JSON file of a run folder; {} where there is none."""
  with contextlib.suppress(OSError, ValueError, TypeError):
    with open(os.path.join(workdir, *names), encoding='utf-8') as file:
      found = json.load(file)
      return found if isinstance(found, dict) else {}
  return {}


def _write(workdir: str, made: document.Document, extra: dict[str, Any]) -> str:
  folder = os.path.join(workdir, FOLDER)
  try:
    os.makedirs(folder, exist_ok=True)
  except OSError as error:
    raise errors.UserError(
        f'{folder} cannot be written: {error.strerror}.'
    ) from error
  if extra:
    files.write_json(os.path.join(folder, _DATA), extra)
  files.write_text(os.path.join(folder, _TEXT), markdown_page.render(made))
  path = os.path.join(folder, PAGE)
  files.write_text(path, html_page.render(made))
  return path
