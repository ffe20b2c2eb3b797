# SPDX-License-Identifier: Apache-2.0
"""Tables and plots of what a run wrote."""

import itertools
from typing import Any

from matplotlib import figure as figure_lib
from rich import box
from rich import console as rich_console
from rich import markup
from rich import table as rich_table

_ORDER = (
    'oracle',
    'model',
    'tower',
    'content_ridge',
    'linear_content',
    'content_knn',
    'teacher',
    'popularity',
    'random',
)
_FILE_WIDTH = 10_000  # of a line in a file: nothing is cut off or wrapped


def shown_metrics(results: dict[str, Any]) -> list[str]:
  """Metric names that a table shows: recall and NDCG at each cut-off."""
  for split in results['splits'].values():
    for values in split['methods'].values():
      return [name for name in values if not name.startswith(('hit', 'mrr'))]
  return []


def results_table(results: dict[str, Any]) -> rich_table.Table:
  """One table: a row per split and method, the best method of each bold."""
  names = shown_metrics(results)
  title = (
      f"{markup.escape(results['experiment'])}: step {results['step']}, "
      f"{results['train_seconds']:.1f} s of training, "
      f"{results['examples_per_second']:,.0f} pairs/s"
  )
  table = rich_table.Table(title=title, box=box.SIMPLE_HEAD)
  table.add_column('split')
  table.add_column('method')
  for name in names:
    table.add_column(name, justify='right')
  for split, found in results['splits'].items():
    methods = found['methods']
    order = [name for name in _ORDER if name in methods]
    order += [name for name in methods if name not in _ORDER]
    best = {
        name: max(
            values[name]
            for label, values in methods.items()
            if label != 'oracle'
        )
        for name in names
    }
    heads = [
        split,
        f"{found['users']:,} users",
        f"{found['candidates']:,} candidates",
    ]
    for head, label in itertools.zip_longest(heads, order, fillvalue=''):
      values = methods.get(label, {})
      cells = [
          f'[bold]{value:.3f}[/]'
          if label != 'oracle' and value == best[name]
          else f'{value:.3f}'
          for name, value in values.items()
          if name in names
      ]
      table.add_row(head, label, *cells)
    table.add_section()
  return table


def print_results(results: dict[str, Any]) -> None:
  """Prints the table, as wide as it needs to be, also into a file."""
  _console().print(results_table(results))


def print_facts(facts: dict[str, Any]) -> None:
  """Prints what `describe` found: a section per key, notes as sentences."""
  console = _console()
  for section, values in facts.items():
    if isinstance(values, list):
      for sentence in values:
        console.print(sentence, markup=False)
      continue
    table = rich_table.Table(
        title=section, box=box.SIMPLE_HEAD, show_header=False
    )
    for name, value in values.items():
      table.add_row(markup.escape(name), markup.escape(_shown(value)))
    console.print(table)


def plot_sweep(table: dict[str, Any], path: str) -> None:
  """Draws recall at the largest cut-off against the swept field, as PNG.

  Over the dropout rate this is figure 3 of the DropoutNet paper: what cold
  rows gain and what warm rows lose.
  """
  figure = figure_lib.Figure(figsize=(6, 4), layout='constrained')
  axes = figure.subplots()
  for split, metrics in table['splits'].items():
    if split.endswith('_validation'):
      continue
    name = max(
        (m for m in metrics if m.startswith('recall@')),
        key=lambda m: int(m.split('@')[1]),
    )
    axes.plot(table['values'], metrics[name], marker='o', label=split)
    axes.set_ylabel(name)
  axes.set_xlabel(table['field'])
  axes.set_title(table['experiment'])
  axes.set_ylim(bottom=0)
  axes.grid(alpha=0.3)
  axes.legend()
  figure.savefig(path, dpi=150)


def _shown(value: Any) -> str:
  if isinstance(value, dict):
    return ', '.join(f'{name} {_shown(v)}' for name, v in value.items())
  if isinstance(value, tuple):
    return ' / '.join(_shown(v) for v in value)
  if isinstance(value, float):
    return f'{value:.2%}'
  return f'{value:,}' if isinstance(value, int) else str(value)


def _console() -> rich_console.Console:
  console = rich_console.Console(highlight=False)
  if not console.is_terminal:
    console.width = _FILE_WIDTH
  return console
