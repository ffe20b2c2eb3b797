# SPDX-License-Identifier: Apache-2.0
"""The tables of results.json as parts of a report.

Everything but the means is optional: an interval, a comparison or a slice that
is not there is not shown.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any

from dropoutnet_jax import report
from dropoutnet_jax.run_report import document
from dropoutnet_jax.run_report import figures
from dropoutnet_jax.run_report import terms

Values = Mapping[str, Mapping[str, float | None]]  # by method and metric


def main_metric(names: Sequence[str]) -> str:
  """NDCG at 20, else the first NDCG, else the first of all."""
  ndcg = [name for name in names if name.startswith('ndcg@')]
  if 'ndcg@20' in ndcg:
    return 'ndcg@20'
  return (ndcg or list(names) or [''])[0]


def best_other(methods: Values, metric: str) -> str:
  """The best method that is no part of the model and no oracle, or ''."""
  others = [m for m in methods if m not in ('model', 'tower', 'oracle')]
  return max(others, key=lambda m: methods[m].get(metric) or 0.0, default='')


def number(value: float | None, digits: int = 3) -> str:
  return '' if value is None else f'{value:.{digits}f}'


def blocks(results: dict[str, Any]) -> list[document.Block]:
  """A part for each test set, then the validation sets, folded."""
  names = report.shown_metrics(results)
  found: list[document.Block] = []
  validation: list[document.Block] = []
  for name, split in results['splits'].items():
    part = document.Part(name, _split_blocks(name, split, names))
    is_test = not name.endswith('_validation')
    (found if is_test else validation).append(part)
  if validation:
    found.append(
        document.Fold('Validation sets, which training looked at', validation)
    )
  return found


def _split_blocks(
    name: str, split: dict[str, Any], names: Sequence[str]
) -> list[document.Block]:
  methods, metric = split['methods'], main_metric(names)
  text = terms.split_name(name)
  pairs = f", {split['pairs']:,} held-out pairs" if 'pairs' in split else ''
  at_most = ' at most' if name.startswith('warm') else ''
  counts = (
      f"{split['users']:,} users, {split['candidates']:,} candidates each"
      f'{at_most}{pairs}.'
  )
  found: list[document.Block] = [
      document.Text(
          f'{text[:1].upper()}{text[1:]}. {counts}' if text else counts
      )
  ]
  intervals = split.get('intervals', {})
  caption = 'Means over users; the best of each column is bold'
  if intervals:
    caption += '; below them 95 % intervals (bootstrap over users)'
  shown: list[document.Block] = [
      values_table(methods, names, intervals, caption + '.')
  ]
  if metric and not name.endswith('_validation'):
    shown.append(_bars(name, methods, metric, intervals))
  found.append(document.Beside(shown))
  found += _paired(split.get('paired', {}), metric)
  labelled = split.get('labelled', {})
  if labelled:
    columns = list(dict.fromkeys(n for one in labelled.values() for n in one))
    table = values_table(labelled, columns, {}, best=False)
    found.append(document.Fold('Metrics of labelled interactions', [table]))
  found += _mixed(split.get('mixed', {}))
  for by, bins in split.get('slices', {}).items():
    found.append(_slices(by, bins, metric))
  return found


def _bars(
    name: str,
    methods: Values,
    metric: str,
    intervals: Mapping[str, Mapping[str, Any]],
) -> document.Figure:
  bars = [
      figures.Bar(
          method,
          methods[method].get(metric) or 0.0,
          intervals.get(method, {}).get(metric),
      )
      for method in report.in_order(methods)
  ]
  label = terms.metric_name(metric)
  picture = figures.intervals(bars, label)
  return document.Figure(picture, f'{label} on {name}, all methods.')


def values_table(
    methods: Values,
    names: Sequence[str],
    intervals: Mapping[str, Mapping[str, Sequence[float]]],
    caption: str = '',
    best: bool = True,
) -> document.Table:
  """A row per method and a column per metric."""
  rows: list[list[document.Cell | str]] = []
  top = {
      name: max(
          (v.get(name) or 0.0 for m, v in methods.items() if m != 'oracle'),
          default=0.0,
      )
      for name in names
  }
  for method in report.in_order(methods):
    row: list[document.Cell | str] = [method]
    for name in names:
      value = methods[method].get(name)
      between = intervals.get(method, {}).get(name)
      is_best = best and method != 'oracle' and value == top[name]
      is_count = isinstance(value, int)
      row.append(
          document.Cell(
              f'{value:,}' if is_count else number(value),
              strong=is_best and value is not None,
              note='–'.join(map(number, between)) if between else '',
          )
      )
    rows.append(row)
  head = ['method', *map(terms.metric_name, names)]
  return document.Table(head, rows, caption=caption)


def _paired(
    paired: Mapping[str, Mapping[str, Mapping[str, float]]], metric: str
) -> list[document.Block]:
  """The model less each other method, user by user."""
  rows = []
  for method in report.in_order(paired):
    gap = paired[method].get(metric)
    if gap is None:
      continue
    rows.append(
        [
            method,
            f"{gap['difference']:+.3f}",
            f"{gap['low']:+.3f} to {gap['high']:+.3f}",
            f"{gap['better']:.1%}",
            f"{gap['worse']:.1%}",
        ]
    )
  if not rows:
    return []
  head = ['model less', 'difference', '95 % interval', 'better', 'worse']
  caption = (
      f'{terms.metric_name(metric)} of the model less that of another method, '
      'user by user; shares of the users who are better and worse off with the '
      'model.'
  )
  return [document.Table(head, rows, caption=caption)]


def _mixed(mixed: Mapping[str, Any]) -> list[document.Block]:
  """New and known items as candidates of one list."""
  if not mixed:
    return []
  methods = mixed['methods']
  names = list(dict.fromkeys(n for one in methods.values() for n in one))
  names = [name for name in names if not name.startswith(('hit@', 'mrr'))]
  caption = (
      f"New and known items in one list: {mixed['candidates']:,} candidates, "
      f"{mixed['cold']:,} of them new."
  )
  table = values_table(methods, names, {}, caption, best=False)
  return [document.Fold('Among all items, known ones too', [table])]


def _slices(by: str, bins: Mapping[str, Any], metric: str) -> document.Block:
  """A row per slice, a column per method."""
  labels = list(
      dict.fromkeys(m for one in bins.values() for m in one['methods'])
  )
  methods = report.in_order(labels)
  rows = [
      [
          name,
          f"{one['users']:,}",
          f"{one['pairs']:,}",
          *(number(one['methods'].get(m, {}).get(metric)) for m in methods),
      ]
      for name, one in bins.items()
  ]
  by = by.replace('_', ' ')
  caption = f'{terms.metric_name(metric)} of users and pairs by {by}.'
  table = document.Table([by, 'users', 'pairs', *methods], rows, 1, caption)
  return document.Fold(f'By {by}', [table])


def warm_up(curves: Mapping[str, Any]) -> list[document.Block]:
  """What a new row's first interactions are worth, a part for each side."""
  return [_curve(side, curve) for side, curve in curves.items() if curve]


def _harm(curve: Mapping[str, Any], metric: str, name: str) -> str:
  """Where more history made a method worse, beyond noise; a sentence."""
  if not any('more' in point for point in curve.values()):
    return ''
  worse = [
      f'{method} at {count} ({more[metric]["difference"]:+.4f})'
      for count, point in curve.items()
      for method, more in point.get('more', {}).items()
      if more[metric]['high'] < 0
  ]
  if not worse:
    return (
        f' No method has a lower {name} at any point than at the one before, '
        'beyond noise (95 % of bootstrap samples of users and items).'
    )
  return (
      f' More history lowers the {name}, beyond noise (95 % of bootstrap '
      f'samples of users and items), of {", ".join(worse)}.'
  )


def _curve(side: str, curve: Mapping[str, Any]) -> document.Part:
  first = next(iter(curve.values()))
  methods = report.in_order(
      dict.fromkeys(m for point in curve.values() for m in point['methods'])
  )
  metric = main_metric(list(next(iter(first['methods'].values()), {})))
  values: dict[str, dict[str, float | None]] = {
      method: {
          count: point['methods'].get(method, {}).get(metric)
          for count, point in curve.items()
      }
      for method in methods
  }
  name = terms.metric_name(metric)
  rows = [
      [
          count,
          f"{point['shown_mean']:.2f}",
          *(number(values[method][count]) for method in methods),
      ]
      for count, point in curve.items()
  ]
  picture = figures.curves(
      {
          method: [
              (float(count), math.nan if value is None else value)
              for count, value in values[method].items()
          ]
          for method in methods
      },
      x=f'interactions shown of each new {side}',
      y=name,
      from_zero=True,
  )
  text = (
      f'Of each new {side} some held-out interactions are shown to the model, '
      'which is not trained again; it then ranks for the others, '
      f"the same {first['pairs']:,} pairs at every point."
  )
  text += _harm(curve, metric, name)
  caption = f'{name} against the interactions shown of each new {side}.'
  head = ['shown', 'in the mean', *methods]
  return document.Part(
      f'New {side}s',
      [
          document.Text(text),
          document.Beside(
              [
                  document.Figure(picture, caption),
                  document.Table(head, rows, 1, f'{name}.'),
              ]
          ),
      ],
  )
