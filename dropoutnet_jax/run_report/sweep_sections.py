# SPDX-License-Identifier: Apache-2.0
"""Reports of several runs: a sweep over one field, variants side by side."""

from collections.abc import Mapping, Sequence
import math
from typing import Any
import urllib.parse

from dropoutnet_jax import report
from dropoutnet_jax.run_report import document
from dropoutnet_jax.run_report import figures
from dropoutnet_jax.run_report import results_tables
from dropoutnet_jax.run_report import terms


def sweep(
    table: Mapping[str, Any], folders: Sequence[str]
) -> document.Document:
  """A report of a sweep.

  Args:
    table: what sweep.json holds.
    folders: names of the folders of its runs.
  """
  field, values = table['field'], table['values']
  section = document.Section
  is_seed = field.split('.')[-1] == 'seed'
  pictures = [] if is_seed else _pictures(table)
  means = [
      document.Part(name, [_means(split)])
      for name, split in table['splits'].items()
      if 'mean' in split
  ]
  rows: list[list[document.Cell | str]] = [
      [
          document.Cell(f'{field} = {value:g}', href=_page_of(folder)),
          f'{seconds:,.1f}',
      ]
      for value, folder, seconds in zip(values, folders, table['train_seconds'])
  ]
  runs = document.Table(['run', 'seconds of training'], rows)
  return document.Document(
      title=table['experiment'],
      lead=f'{len(values)} runs that differ in {field} alone.',
      sections=[
          section('Curves', pictures),
          section('Means over the runs', means),
          section(
              'The model in each run',
              [
                  document.Part(name, [_series(split, field, values)])
                  for name, split in table['splits'].items()
                  if 'model' in split['methods']
              ],
          ),
          section('Runs', [runs]),
          section('Terms', terms.blocks(_as_results(table['splits']))),
      ],
  )


def _pictures(table: Mapping[str, Any]) -> list[document.Block]:
  """The model's recall and NDCG against the field, a line per test set."""
  values = [float(value) for value in table['values']]
  order = sorted(range(len(values)), key=lambda n: values[n])
  tests = {
      name: split['methods']['model']
      for name, split in table['splits'].items()
      if not name.endswith('_validation') and 'model' in split['methods']
  }
  names = list(dict.fromkeys(n for model in tests.values() for n in model))
  recalls = [name for name in names if name.startswith('recall@')]
  largest = max(recalls, key=lambda n: int(n.partition('@')[2]), default='')
  found: list[document.Block] = []
  for metric in dict.fromkeys((largest, results_tables.main_metric(names))):
    series = {
        name: [
            (
                values[n],
                math.nan if model[metric][n] is None else model[metric][n],
            )
            for n in order
        ]
        for name, model in tests.items()
        if metric in model
    }
    if series:
      label = terms.metric_name(metric)
      picture = figures.curves(
          series, x=table['field'], y=label, from_zero=True
      )
      caption = f"{label} of the model against {table['field']}."
      found.append(document.Figure(picture, caption))
  return [document.Beside(found)] if found else []


def _series(
    split: Mapping[str, Any], field: str, values: Sequence[float]
) -> document.Table:
  """A row per run, a column per metric of the model."""
  model = split['methods']['model']
  names = [name for name in model if not name.startswith(('hit@', 'mrr'))]
  rows = [
      [f'{value:g}', *(results_tables.number(model[n][k]) for n in names)]
      for k, value in enumerate(values)
  ]
  head = [field, *map(terms.metric_name, names)]
  return document.Table(head, rows)


def _means(split: Mapping[str, Any]) -> document.Table:
  """Mean and standard deviation of every method."""
  mean, deviation = split['mean'], split['deviation']
  names = _shown_names(mean)
  rows = [
      [
          method,
          *(
              _spread(mean[method].get(n), deviation[method].get(n))
              for n in names
          ),
      ]
      for method in report.in_order(mean)
  ]
  head = ['method', *map(terms.metric_name, names)]
  caption = 'Mean over the runs, their standard deviation in brackets.'
  return document.Table(head, rows, caption=caption)


def comparison(table: Mapping[str, Any]) -> document.Document:
  """A report of a comparison.

  Args:
    table: what comparison.json holds.
  """
  variants = table['variants']
  seeds = ', '.join(str(seed) for seed in table['seeds'])
  first: Mapping[str, Any] = next(iter(variants.values()), {'splits': {}})
  parts: list[document.Block] = [
      document.Part(name, [_variants(name, variants)])
      for name in first['splits']
  ]
  return document.Document(
      title=table['experiment'],
      lead=f'{len(variants)} variants, each with train.seed {seeds}.',
      sections=[
          document.Section('Results', parts),
          document.Section('Terms', terms.blocks(_as_results(first['splits']))),
      ],
  )


def _variants(split: str, variants: Mapping[str, Any]) -> document.Table:
  """The model of each variant, then the other methods of the first one."""
  found = {
      name: one['splits'][split]
      for name, one in variants.items()
      if split in one['splits']
  }
  first = next(iter(found.values()))
  names = _shown_names(first['mean'])
  rows: list[list[document.Cell | str]] = []
  for name, one in found.items():
    times = [t for t in variants[name].get('step_seconds', []) if t is not None]
    cost = f'{1000 * sum(times) / len(times):.1f}' if times else ''
    rows.append(
        [
            document.Cell(name, href=_page_of(name)),
            *_spreads(one, 'model', names),
            cost,
        ]
    )
  others = [m for m in report.in_order(first['mean']) if m != 'model']
  rows += [[method, *_spreads(first, method, names), ''] for method in others]
  head = ['variant or method', *map(terms.metric_name, names), 'ms per step']
  caption = 'Mean over the seeds, their standard deviation in brackets.'
  return document.Table(head, rows, caption=caption)


def _spreads(
    split: Mapping[str, Any], method: str, names: Sequence[str]
) -> list[str]:
  mean = split['mean'].get(method, {})
  deviation = split['deviation'].get(method, {})
  return [_spread(mean.get(n), deviation.get(n)) for n in names]


def _spread(mean: float | None, deviation: float | None) -> str:
  text = results_tables.number(mean, 4)
  return text if deviation is None else f'{text} ({deviation:.4f})'


def _shown_names(methods: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """Metrics of the tables: all that any method has, but for hits and MRR."""
  names = dict.fromkeys(n for values in methods.values() for n in values)
  left_out = ('hit@', 'mrr', 'rows', 'positives')
  return [
      name
      for name in names
      if not name.startswith(left_out) and not name.endswith('_left_out')
  ]


def _page_of(folder: str) -> str:
  """The page of a run in a folder beside `report`."""
  return f'../{urllib.parse.quote(folder)}/report/index.html'


def _as_results(splits: Mapping[str, Any]) -> dict[str, Any]:
  return {'splits': splits}
