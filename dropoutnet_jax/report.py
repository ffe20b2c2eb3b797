# SPDX-License-Identifier: Apache-2.0
"""Tables and plots of what a run wrote."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import itertools
import math
from typing import Any

from matplotlib import figure as figure_lib
from rich import box
from rich import console as rich_console
from rich import markup
from rich import table as rich_table

from dropoutnet_jax.data import files

_ORDER = (
    'oracle',
    'ideal_popularity',
    'model',
    'tower',
    'content_ridge',
    'linear_content',
    'content_knn',
    'teacher',
    'ease',
    'popularity',
    'random',
)
NOT_SHOWN = ('hit', 'mrr')  # in tables: how names of such metrics begin
_SHOWN_ITEMS = 5  # of each list
_FILE_WIDTH = 10_000  # of a line in a file: nothing is cut off or wrapped


def in_order(methods: Iterable[str]) -> list[str]:
  """Names of methods in the order of all tables; unknown ones come last."""
  place = {name: number for number, name in enumerate(_ORDER)}
  return sorted(methods, key=lambda name: place.get(name, len(place)))


def shown_metrics(results: dict[str, Any]) -> list[str]:
  """Metric names that a table shows: recall and NDCG at each cut-off."""
  for split in results['splits'].values():
    for values in split['methods'].values():
      return [name for name in values if not name.startswith(NOT_SHOWN)]
  return []


def results_table(results: dict[str, Any]) -> rich_table.Table:
  """One table: a row per split and method, the best method of each bold."""
  names = shown_metrics(results)
  if any('labelled' in found for found in results['splits'].values()):
    names += ['auc', 'gauc']
  title = (
      f"{markup.escape(results['experiment'])}: step {results['step']}, "
      f"{results['train_seconds']:.1f} s of training, "
      f"{results['examples_per_second']:,.0f} pairs/s"
  )
  table = _new_table(title, names)
  for split, found in results['splits'].items():
    labelled = found.get('labelled', {})
    methods = {
        name: values | labelled.get(name, {})
        for name, values in found['methods'].items()
    }
    heads = [
        split,
        f"{found['users']:,} users",
        f"{found['candidates']:,} candidates",
    ]

    def show(label: str, name: str, methods: Any = methods) -> str:
      value = methods[label].get(name)
      return '' if value is None else f'{value:.3f}'

    _add_split(table, heads, methods, names, show)
  return table


def seeds_table(table: dict[str, Any]) -> rich_table.Table:
  """One table: mean and standard deviation over the seeds of a sweep.

  Args:
    table: what sweep.json holds.
  """
  names = shown_metrics(table)
  seeds = ', '.join(str(value) for value in table['values'])
  title = (
      f"{markup.escape(table['experiment'])}: mean (standard deviation) over "
      f"{table['field']} = {seeds}"
  )
  grid = _new_table(title, names)
  for split, found in table['splits'].items():
    mean, deviation = found['mean'], found['deviation']

    def show(
        label: str, name: str, mean: Any = mean, deviation: Any = deviation
    ) -> str:
      spread = deviation[label][name]
      return f'{mean[label][name]:.4f}' + (
          '' if spread is None else f' ({spread:.4f})'
      )

    heads = [
        split,
        span(found['users']) + ' users',
        span(found['candidates']) + ' candidates',
    ]
    _add_split(grid, heads, mean, names, show)
  return grid


def comparison_table(table: dict[str, Any]) -> rich_table.Table:
  """One table: a row per split and variant, with the cost of a step.

  Args:
    table: what comparison.json holds.
  """
  variants = table['variants']
  first = next(iter(variants.values()))
  names = shown_metrics(first)
  splits = list(first['splits'])
  with_labels = [s for s in splits if 'labelled' in first['splits'][s]]
  names += ['auc', 'gauc'] * bool(with_labels)
  seeds = ', '.join(str(seed) for seed in table['seeds'])
  grid = _new_table(
      f"{markup.escape(table['experiment'])}: mean (standard deviation) over "
      f'train.seed = {seeds}',
      [*names, 'ms/step'],
  )
  for split in splits:
    found = {name: one['splits'][split] for name, one in variants.items()}
    _add_variants(grid, split, found, names, variants)
  return grid


def _add_variants(
    grid: rich_table.Table,
    split: str,
    found: Mapping[str, Any],
    names: Sequence[str],
    variants: Mapping[str, Any],
) -> None:
  """Adds the rows of a split: the model of each variant, then the baselines."""
  rows = {name: (part, 'model') for name, part in found.items()}
  baseline = next(iter(found.values()))
  rows |= {
      label: (baseline, label)
      for label in baseline['mean']
      if label not in ('model', *rows)
  }
  means = [part['mean'].get('model', {}) for part in found.values()]
  best = {
      name: max((m[name] for m in means if m.get(name) is not None), default=0)
      for name in names
  }
  heads = [
      split,
      span(baseline['users']) + ' users',
      span(baseline['candidates']) + ' candidates',
  ]
  for head, label in itertools.zip_longest(heads, rows, fillvalue=''):
    if not label:
      grid.add_row(head)
      continue
    part, method = rows[label]
    cells = []
    for name in names:
      value = part['mean'].get(method, {}).get(name)
      if value is None:
        cells.append('')
        continue
      spread = part['deviation'][method].get(name)
      text = f'{value:.4f}' + ('' if spread is None else f' ({spread:.4f})')
      is_best = method == 'model' and value == best[name]
      cells.append(f'[bold]{text}[/]' if is_best else text)
    times = variants[label]['step_seconds'] if method == 'model' else []
    known = [1000 * time for time in times if time is not None]
    cost = f'{sum(known) / len(known):.1f}' if known else ''
    grid.add_row(head, markup.escape(label), *cells, cost)
  grid.add_section()


def span(counts: Sequence[int]) -> str:
  """'1,234', or '1,200-1,234' where runs differ."""
  return '-'.join(f'{x:,}' for x in sorted({min(counts), max(counts)}))


def _new_table(title: str, names: Sequence[str]) -> rich_table.Table:
  table = rich_table.Table(title=title, box=box.SIMPLE_HEAD)
  table.add_column('split')
  table.add_column('method')
  for name in names:
    table.add_column(name, justify='right')
  return table


def _add_split(
    table: rich_table.Table,
    heads: Sequence[str],
    methods: Mapping[str, Mapping[str, float | None]],
    names: Sequence[str],
    show: Callable[[str, str], str],
) -> None:
  """Adds the rows of a split, a method each, the best of a column bold.

  Args:
    table: to add to.
    heads: for the first column, one below the other.
    methods: {method: {metric: value}}, which decide what is best.
    names: of the metrics shown.
    show: (method, metric) -> text of a cell.
  """
  order = in_order(methods)
  rated = [values for name, values in methods.items() if name != 'oracle']
  best = {
      name: max((v[name] or 0.0 for v in rated if name in v), default=0.0)
      for name in names
  }
  for head, label in itertools.zip_longest(heads, order, fillvalue=''):
    cells = []
    for name in names if label else ():
      text = show(label, name)
      bold = label != 'oracle' and methods[label].get(name) == best[name]
      cells.append(f'[bold]{text}[/]' if bold and text else text)
    table.add_row(head, label, *cells)
  table.add_section()


def print_results(results: dict[str, Any]) -> None:
  """Prints the table, as wide as it needs to be, also into a file."""
  _console().print(results_table(results))


def print_seeds(table: dict[str, Any]) -> None:
  """Prints mean and deviation over the seeds of a sweep."""
  _console().print(seeds_table(table))


def print_comparison(table: dict[str, Any]) -> None:
  """Prints the variants of a comparison side by side."""
  _console().print(comparison_table(table))


def print_against(found: Mapping[str, Any], one: str, other: str) -> None:
  """Prints what `per_user.compare` found: one run less the other."""
  title = f'{one} less {other}, the model of each user by user'
  grid = rich_table.Table(title=markup.escape(title), box=box.SIMPLE_HEAD)
  grid.add_column('split')
  for name in ('metric', 'difference', '95 % between', 'better', 'worse'):
    grid.add_column(name, justify='right')
  for split, part in found.items():
    heads = [split, f"{part['users']:,} users"]
    rows = [
        (
            metric,
            f"{gap['difference']:+.4f}",
            f"{gap['low']:+.4f} and {gap['high']:+.4f}",
            f"{100 * gap['better']:.1f} %",
            f"{100 * gap['worse']:.1f} %",
        )
        for metric, gap in part['metrics'].items()
    ]
    for head, row in itertools.zip_longest(heads, rows, fillvalue=''):
      grid.add_row(head, *row)
    grid.add_section()
  _console().print(grid)


def print_lists(
    lists: Sequence[tuple[str, Sequence[tuple[str, float]]]], num_users: int
) -> None:
  """Prints the beginning of the lists of some users.

  Args:
    lists: (user, [(item, score), ...]), best first.
    num_users: of all that there are.
  """
  title = f'the first {len(lists):,} of {num_users:,} users'
  table = rich_table.Table(title=title, box=box.SIMPLE_HEAD)
  table.add_column('user')
  most = max((len(items) for _, items in lists), default=0)
  for rank in range(1, min(most, _SHOWN_ITEMS) + 1):
    table.add_column(f'{rank}')
  for user, items in lists:
    cells = [f'{item} ({score:.3g})' for item, score in items[:_SHOWN_ITEMS]]
    table.add_row(*(markup.escape(cell) for cell in (user, *cells)))
  _console().print(table)


def print_rows(
    title: str, head: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
  """Prints a table of split, method and a column for each metric."""
  table = _new_table(markup.escape(title), head[2:])
  for row in rows:
    table.add_row(*(markup.escape(cell) for cell in row))
  _console().print(table)


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
      table.add_row(markup.escape(name), markup.escape(shown(value)))
    console.print(table)


def plot_sweep(table: dict[str, Any], path: str) -> None:
  """Draws the model's recall at the largest cut-off over the field, as PNG.

  Over the dropout rate this is figure 3 of the DropoutNet paper: what cold
  rows gain and what warm rows lose.

  Args:
    table: what sweep.json holds.
    path: of the picture.

  Raises:
    UserError: if the picture can't be written.
  """
  figure = figure_lib.Figure(figsize=(6, 4), layout='constrained')
  axes = figure.subplots()
  values = table['values']
  order = sorted(range(len(values)), key=lambda n: values[n])
  for split, found in table['splits'].items():
    if split.endswith('_validation'):
      continue
    model = found['methods']['model']
    name = max(
        (m for m in model if m.startswith('recall@')),
        key=lambda m: int(m.split('@')[1]),
    )
    # A run without this split has none of its metrics: a gap in the curve.
    curve = [math.nan if x is None else x for x in model[name]]
    axes.plot(
        [values[n] for n in order],
        [curve[n] for n in order],
        marker='o',
        label=split,
    )
    axes.set_ylabel(name)
  axes.set_xlabel(table['field'])
  axes.set_title(table['experiment'])
  axes.set_ylim(bottom=0)
  axes.grid(alpha=0.3)
  axes.legend()
  files.write(path, lambda file: figure.savefig(file, format='png', dpi=150))


def shown(value: Any) -> str:
  """A value of `print_facts` as text: shares as percentages."""
  if isinstance(value, dict):
    return ', '.join(f'{name} {shown(v)}' for name, v in value.items())
  if isinstance(value, (tuple, list)):
    return ' / '.join(shown(v) for v in value)
  if isinstance(value, float):
    return f'{value:.2%}'
  return f'{value:,}' if isinstance(value, int) else str(value)


def _console() -> rich_console.Console:
  console = rich_console.Console(highlight=False)
  if not console.is_terminal:
    console.width = _FILE_WIDTH
  return console
