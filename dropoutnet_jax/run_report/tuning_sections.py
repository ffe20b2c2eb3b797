# SPDX-License-Identifier: Apache-2.0
"""The report of a study: what was found, what mattered, what was tried."""

from collections.abc import Mapping
import math
import statistics
from typing import Any
import urllib.parse

from dropoutnet_jax.run_report import document
from dropoutnet_jax.run_report import figures
from dropoutnet_jax.run_report import results_tables
from dropoutnet_jax.run_report import terms

Table = Mapping[str, Any]
_STATES = ('complete', 'pruned', 'failed', 'running')


def study(table: Table, best_folder: str) -> document.Document:
  """A report of a study.

  Args:
    table: what tuning.json holds.
    best_folder: name of the folder of the winner's run.
  """
  section = document.Section
  trials = table['trials']
  return document.Document(
      title=f"{table['experiment']}, tuned",
      lead=(
          f"{len(trials)} trials of {len(table['fields'])} settings, compared "
          f"by {table['metric']} on the validation sets."
      ),
      sections=[
          section('In short', _summary(table, best_folder)),
          section('The winner on the test sets', _tests(table, best_folder)),
          section('History', _history(table)),
          section('What mattered', _importances(table)),
          section('Settings and values', _settings(table)),
          section('Trials', _trials(table)),
          section('Cost', [document.Bullets(_costs(table))]),
          section('Terms', terms.blocks({'splits': table.get('splits', {})})),
      ],
  )


def _summary(table: Table, best_folder: str) -> list[document.Block]:
  rows = table['trials']
  best = rows[table['best']]
  own = None if table['own'] is None else rows[table['own']]
  at = '' if best['step'] is None else f", at step {best['step']:,}"
  sentences = [
      f"Trial {best['number']} is the best: {table['metric']} "
      f"{best['value']:.4f} on the validation sets{at}."
  ]
  if own is None:
    sentences.append(
        'The settings of the experiment itself are outside the space, so that '
        'no trial has them.'
    )
  elif own['value'] is not None and own is not best:
    gain = best['value'] - own['value']
    sentences.append(
        f"The experiment itself, trial {own['number']}, has "
        f"{own['value']:.4f}: {gain:.4f} less. The winner is the best of "
        f'{len(rows)}, so that part of this is luck; what it is worth stands '
        'in the test sets, which nothing was chosen by.'
    )
  point = own['point'] if own else {}
  settings = [
      [name, _shown(value), _shown(point[name]) if name in point else '']
      for name, value in best['point'].items()
  ]
  head = ['setting', 'winner', 'experiment']
  return [
      document.Bullets(sentences),
      document.Table(head, settings),
      document.Text(
          f"The winner as an experiment file: {table.get('file', '')}. Its "
          f'run, with results on the test sets, is in {best_folder}/. The '
          'command of this study:'
      ),
      document.Text(table.get('command', ''), 'code'),
  ]


def _tests(table: Table, best_folder: str) -> list[document.Block]:
  """The winner beside the best other method of each set."""
  found: list[list[document.Cell | str]] = []
  href = f'../{urllib.parse.quote(best_folder)}/report/index.html'
  for name, split in table.get('splits', {}).items():
    methods = split['methods']
    if name.endswith('_validation') or 'model' not in methods:
      continue
    metric = results_tables.main_metric(list(methods['model']))
    other = results_tables.best_other(methods, metric)
    found.append(
        [
            document.Cell(name, href=href),
            terms.metric_name(metric),
            results_tables.number(methods['model'][metric], 4),
            other,
            results_tables.number(methods.get(other, {}).get(metric), 4),
        ]
    )
  if not found:
    return []
  head = ['test set', 'metric', 'winner', 'best other method', 'its value']
  caption = 'Evaluated once, after the winner was chosen.'
  return [document.Table(head, found, left=2, caption=caption)]


def _history(table: Table) -> list[document.Block]:
  best, line = -math.inf, []
  for row in table['trials']:
    if row['state'] == 'complete':
      best = max(best, row['value'])
    line.append((row['number'], best if math.isfinite(best) else math.nan))
  series = _by_state(table, lambda row: row['number'])
  picture = figures.points(
      series, x='trial', y=table['metric'], line=('best so far', line)
  )
  caption = (
      'The best value of each trial in the order in which they began, and the '
      'best of all so far.'
  )
  return [document.Figure(picture, caption)]


def _importances(table: Table) -> list[document.Block]:
  values = table['importances']
  if not values:
    return [
        document.Text(
            'Too few trials were run to their end, with too little difference, '
            'to tell which setting mattered.'
        )
    ]
  bars = [figures.Bar(name, value) for name, value in values.items()]
  picture = figures.intervals(bars, 'share of the variance of the values')
  caption = (
      'How much of what differs between whole trials each setting explains, '
      'with its interactions (fANOVA on a forest of regression trees). Within '
      'this space: a setting that mattered little may do so elsewhere. '
      'Settings with a condition are left out.'
  )
  return [document.Figure(picture, caption)]


def _settings(table: Table) -> list[document.Block]:
  """A picture for each setting that is a number; a table for choices."""
  pictures: list[document.Block] = []
  others: list[document.Block] = []
  for field in table['fields']:
    name = field['field']
    if field['kind'] == 'choice':
      others.append(_choice(table, name))
      continue
    series = _by_state(table, lambda row: row['point'].get(name))  # noqa: B023
    if any(series.values()):
      picture = figures.points(
          series, x=name, y=table['metric'], log_x=field['log']
      )
      pictures.append(
          document.Figure(picture, f'Values of the trials against {name}.')
      )
  return [*([document.Beside(pictures)] if pictures else []), *others]


def _choice(table: Table, name: str) -> document.Table:
  found: dict[str, list[float]] = {}
  for row in table['trials']:
    if name in row['point'] and row['state'] == 'complete':
      found.setdefault(_shown(row['point'][name]), []).append(row['value'])
  rows = [
      [
          text,
          str(len(values)),
          f'{max(values):.4f}',
          f'{statistics.median(values):.4f}',
      ]
      for text, values in found.items()
  ]
  return document.Table([name, 'whole trials', 'best', 'median'], rows)


def _trials(table: Table) -> list[document.Block]:
  names = [field['field'] for field in table['fields']]
  rows: list[list[document.Cell | str]] = []
  for row in table['trials']:
    strong = row['number'] == table['best']
    value = results_tables.number(row['value'], 4)
    rows.append(
        [
            document.Cell(str(row['number']), strong=strong),
            document.Cell(row['state'], note=row['why'][:200]),
            document.Cell(value, strong=strong, mark=strong),
            '' if row['last_step'] is None else f"{row['last_step']:,}",
            f"{row['seconds']:,.1f}",
            *(
                _shown(row['point'][n]) if n in row['point'] else ''
                for n in names
            ),
        ]
    )
  head = ['trial', 'end', table['metric'], 'steps', 'seconds', *names]
  counts = [
      f"{sum(row['state'] == state for row in table['trials'])} {state}"
      for state in _STATES
  ]
  text = (
      f'{", ".join(counts)}. A pruned trial did worse than the median of those '
      'before it at the same step; its value is the best until then.'
  )
  return [document.Text(text), document.Table(head, rows, left=2)]


def _costs(table: Table) -> list[str]:
  rows = table['trials']
  pruned = [row for row in rows if row['state'] == 'pruned']
  found = [
      f"{table['seconds']:,.0f} s in which one process or more worked on a "
      f'trial; {sum(row["seconds"] for row in rows):,.0f} s of all trials '
      'together.'
  ]
  if pruned:
    found.append(
        f'{len(pruned)} pruned trials took '
        f'{sum(row["seconds"] for row in pruned):,.0f} s.'
    )
  counts = table.get('prepared', {})
  if counts:
    found.append(
        'Made once for all trials that share their settings: prepared data '
        f'{counts["problem"]}, teachers {counts["teacher"]}, sparse parts '
        f'{counts["sparse"]}.'
    )
  return found


def _by_state(table: Table, x: Any) -> dict[str, list[tuple[float, float]]]:
  """Points (x, value) of the trials by how they ended."""
  found: dict[str, list[tuple[float, float]]] = {}
  for state in ('complete', 'pruned'):
    points = [
        (x(row), row['value'])
        for row in table['trials']
        if row['state'] == state
    ]
    points = [p for p in points if None not in p]
    if points:
      found[state] = points
  return found


def _shown(value: Any) -> str:
  if isinstance(value, float):
    return f'{value:.6g}'
  return str(tuple(value) if isinstance(value, list) else value)
