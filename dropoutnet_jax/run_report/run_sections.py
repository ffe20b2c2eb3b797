# SPDX-License-Identifier: Apache-2.0
"""The sections of a run's report that are no tables of results."""

from collections.abc import Mapping, Sequence
from typing import Any

from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax import report
from dropoutnet_jax.run_report import document
from dropoutnet_jax.run_report import figures
from dropoutnet_jax.run_report import results_tables
from dropoutnet_jax.run_report import terms
from dropoutnet_jax.training import run_folder

_MOST_POINTS = 400  # of a curve; more are not seen
_TABLE_POINTS = 10


def summary(results: dict[str, Any]) -> list[document.Block]:
  """The outcome in sentences, one for each test set."""
  metric = results_tables.main_metric(report.shown_metrics(results))
  items = [
      _sentence(name, split, metric)
      for name, split in results['splits'].items()
      if not name.endswith('_validation') and 'model' in split['methods']
  ]
  if results.get('stopped_early'):
    items.append(f"Training stopped early: {results['stopped_early']}.")
  if results.get('last_step', results['step']) != results['step']:
    items.append(
        f"Shown is the best checkpoint, after step {results['step']:,} of "
        f"{results['last_step']:,}."
    )
  return [document.Bullets(items)] if items else []


def _sentence(name: str, split: dict[str, Any], metric: str) -> str:
  methods = split['methods']
  value = methods['model'].get(metric)
  text = f'{name}: {terms.metric_name(metric)} of the model is '
  text += results_tables.number(value)
  between = split.get('intervals', {}).get('model', {}).get(metric)
  if between:
    text += f' (95 % interval {between[0]:.3f} to {between[1]:.3f})'
  text += f" over {split['users']:,} users"
  other = results_tables.best_other(methods, metric)
  if other:
    best = results_tables.number(methods[other].get(metric))
    text += f'; the best other method, {other}, has {best}'
    gap = split.get('paired', {}).get(other, {}).get(metric)
    if gap:
      text += (
          f" ({gap['better']:.0%} of the users are better off with the model, "
          f"{gap['worse']:.0%} worse)"
      )
  if 'oracle' in methods:
    best = results_tables.number(methods['oracle'].get(metric))
    text += f'; the oracle, which knows the truth, has {best}'
  return text + '.'


def course(
    rows: Sequence[Mapping[str, Any]], best_step: int
) -> list[document.Block]:
  """Losses and validation against the step, from metrics.jsonl."""
  found: list[document.Block] = []
  names = list(dict.fromkeys(name for row in rows for name in row))
  losses = [name for name in names if name.startswith('loss/')]
  if 'loss/total' in losses and len(losses) == 2:
    losses = ['loss/total']  # the other one is the same
  series = {n.removeprefix('loss/'): _points(rows, n) for n in losses}
  if series:
    picture = figures.curves(series, x='step', y='loss', log=True)
    found.append(
        document.Figure(picture, 'Training loss, by its terms if several.')
    )
  chosen = _validation_names(names)
  held = {label: _points(rows, name) for label, name in chosen.items()}
  if held:
    metric = next(iter(chosen.values())).rsplit('/', 1)[1]
    picture = figures.curves(
        held,
        x='step',
        y=terms.metric_name(metric),
        vertical=(best_step, 'shown here'),
    )
    found.append(
        document.Figure(
            picture,
            f'{terms.metric_name(metric)} on the validation sets while it '
            'trained; the dotted line is the checkpoint that is shown here.',
        )
    )
  if found:
    found = [document.Beside(found)]
  columns = {f'loss {label}': points for label, points in series.items()}
  columns |= held
  if columns:
    table = _course_table(columns)
    found.append(document.Fold('The same as a table', [table]))
  return found


def _validation_names(names: Sequence[str]) -> dict[str, str]:
  """{set: name} of one metric of each validation set in metrics.jsonl."""
  by_set: dict[str, list[str]] = {}
  for name in names:
    parts = name.split('/')
    if len(parts) == 3 and parts[0] == 'validation':
      by_set.setdefault(parts[1], []).append(parts[2])
  metric = results_tables.main_metric([n for x in by_set.values() for n in x])
  return {
      label: f'validation/{label}/{metric}'
      for label, known in by_set.items()
      if metric in known
  }


def _points(
    rows: Sequence[Mapping[str, Any]], name: str
) -> list[tuple[float, float]]:
  """(step, value), thinned to what can be seen; the last one stays."""
  points = [(row['step'], row[name]) for row in rows if name in row]
  stride = -(-len(points) // _MOST_POINTS) or 1
  return points[::-1][::stride][::-1]


def _course_table(
    columns: Mapping[str, Sequence[tuple[float, float]]],
) -> document.Table:
  values = {label: dict(points) for label, points in columns.items()}
  steps = sorted({step for one in values.values() for step in one})
  held = [s for s in steps if all(s in one for one in values.values())]
  steps = held or steps
  stride = -(-len(steps) // _TABLE_POINTS) or 1
  rows = [
      [
          f'{step:,.0f}',
          *(
              f'{one[step]:.4g}' if step in one else ''
              for one in values.values()
          ),
      ]
      for step in steps[::-1][::stride][::-1]
  ]
  return document.Table(['step', *values], rows, 0)


def data(
    results: dict[str, Any], facts: Mapping[str, Any]
) -> list[document.Block]:
  """What was read, what is held out, and what the audit has to say."""
  found: list[document.Block] = []
  for section in ('data', 'splits', 'features'):
    if not facts.get(section):
      continue
    values = facts[section]
    if section == 'splits':
      counts = list(dict.fromkeys(n for one in values.values() for n in one))
      head = ['evaluation set', *(name.replace('_', ' ') for name in counts)]
      rows = [
          [name, *(f'{one[n]:,}' if n in one else '' for n in counts)]
          for name, one in values.items()
      ]
      found.append(document.Table(head, rows))
    else:
      found.append(_facts_table(section, values))
  notes = results.get('notes', [])
  text = (
      'Before the first step a leakage audit looks for training pairs among '
      'the held-out ones, rows of cold sets in training, and cold rows with '
      'factors of the teacher. A leak stops the run, or is mended where '
      'data.drop_leaks says so and is then told here.'
  )
  found.append(
      document.Part(
          'What the readers, the split and the audit said',
          [document.Text(text), document.Bullets(notes)],
      )
  )
  return found


def _facts_table(head: str, values: Mapping[str, Any]) -> document.Table:
  rows = [[name, report.shown(value)] for name, value in values.items()]
  return document.Table([head, ''], rows)


def users(found: Mapping[str, Any]) -> list[document.Block]:
  """The best and the worst users of each test set."""
  blocks: list[document.Block] = []
  for name, chosen in found.items():
    parts: list[document.Block] = []
    for kind in ('best', 'worst'):
      folds = [
          _user(one, chosen['metric'], is_open=number == 0)
          for number, one in enumerate(chosen[kind])
      ]
      if folds:
        label = terms.metric_name(chosen['metric'])
        parts += [document.Text(f'{kind.title()} by {label}:'), *folds]
    if parts:
      blocks.append(document.Part(name, parts))
  if blocks:
    text = (
        'Of each test set the users whom the model serves best and worst, and '
        'the first items of their lists. ✓ marks hits: items of the list that '
        'are held out, so that the user chose them and the model did not know. '
        'Users with three held-out items or more are preferred; of equal ones '
        'those with more stand first. Equal scores are listed in the order of '
        'the items, while metrics count them as if in a random order.'
    )
    blocks.insert(0, document.Text(text))
  return blocks


def _user(one: Mapping[str, Any], metric: str, is_open: bool) -> document.Block:
  listed = one['listed']
  has_words = any(item['words'] for item in (*listed, *one['held_out']))
  hits = sum(item['hit'] for item in listed)
  title = (
      f"User {one['id']}: {terms.metric_name(metric)} {one['value']:.3f}, "
      f"{one['train']:,} training items, {hits} of {one['relevant']:,} "
      f'held-out items among the first {len(listed)}'
  )
  more = one['relevant'] - len(one['held_out'])
  held_out = 'Held out' + (f', with {more:,} more' if more else '')
  tables = [
      _items_table('rank', listed, 'First in the list.', has_words),
      _items_table('', one['held_out'], f'{held_out}.', has_words),
  ]
  return document.Fold(title, [document.Beside(tables)], is_open)


def _items_table(
    rank: str, items: Sequence[Mapping[str, Any]], caption: str, has_words: bool
) -> document.Table:
  """Items in their order, numbered where the order is a rank; hits marked."""
  rows: list[list[document.Cell | str]] = [
      [
          *([str(number)] if rank else []),
          '✓' if item['hit'] else '',
          document.Cell(item['id'], mark=item['hit']),
          *([item['words']] if has_words else []),
      ]
      for number, item in enumerate(items, 1)
  ]
  head = [*([rank] if rank else []), 'hit', 'item']
  head += ['content'] if has_words else []
  return document.Table(head, rows, len(head), caption)


def settings(cfg: config.Config) -> list[document.Block]:
  """The configuration, first what differs from the defaults."""
  values, known = config_tree.fields(cfg), _defaults(cfg)
  rows: dict[str, list[document.Cell | str]] = {
      name: [name, repr(value), repr(known[name])]
      for name, value in values.items()
  }
  changed = [name for name in values if values[name] != known[name]]
  for name in changed:
    rows[name][1] = document.Cell(repr(values[name]), mark=True)
  head = ['field', 'value', 'default']
  same = [rows[name] for name in values if name not in changed]
  text = (
      f'{len(changed)} of {len(values)} settings differ from the defaults. '
      'Each can be set on the command line as --config.FIELD=VALUE.'
  )
  return [
      document.Text(text),
      document.Table(head, [rows[name] for name in changed], 3),
      document.Fold(
          'Settings that are the defaults', [document.Table(head, same, 3)]
      ),
  ]


def _defaults(cfg: config.Config) -> dict[str, Any]:
  """The default of every field that a configuration has."""
  plain = config.Config()
  plain.features.user = [config.Feature() for _ in cfg.features.user]
  plain.features.item = [config.Feature() for _ in cfg.features.item]
  plain.comparison.variants = [
      config.Variant() for _ in cfg.comparison.variants
  ]
  return config_tree.fields(plain)


def machine(
    results: dict[str, Any], facts: Mapping[str, Any], command: str
) -> list[document.Block]:
  """The command, the devices, seconds, memory and versions."""
  found: list[document.Block] = []
  if command:
    found.append(document.Text('This command made the run:'))
    found.append(document.Text(command, 'code'))
  prepare = results.get('prepare_seconds', {})
  peak = results.get('peak_device_memory_bytes')
  rows = [
      ['seed', str(results['seed']) if 'seed' in results else ''],
      ['steps', f"{results.get('last_step', results['step']):,}"],
      ['devices', results.get('devices', '')],
      *([f'preparing: {part}', f'{s:.1f} s'] for part, s in prepare.items()),
      ['training', f"{results['train_seconds']:.1f} s"],
      ['pairs per second', f"{results['examples_per_second']:,.0f}"],
      ['evaluation', _if_known(results.get('evaluate_seconds'), '{:.1f} s')],
      ['peak memory', _megabytes(results.get('peak_memory_bytes'))],
      ['peak memory of a device', _megabytes(peak)],
  ]
  rank = results.get('embedding_rank', {})
  rows += [
      [f'effective rank of {s} embeddings', f'{x:.1f}'] for s, x in rank.items()
  ]
  found.append(document.Table(['', ''], [row for row in rows if row[1]]))
  if facts.get('model'):
    found.append(_facts_table('model', facts['model']))
  chosen = run_folder.flatten(results.get('chosen', {}))
  if any(chosen.values()):
    rows = [
        [name, report.shown(v) if isinstance(v, str) else f'{v}']
        for name, v in chosen.items()
    ]
    table = document.Table(['chosen on held-out training rows', ''], rows)
    found.append(document.Fold('Settings of the baselines', [table]))
  versions = [[name, x] for name, x in results.get('versions', {}).items()]
  found.append(document.Table(['package', 'version'], versions, 2))
  return found


def _megabytes(size: int | None) -> str:
  return '' if size is None else f'{size / 1e6:,.0f} MB'


def _if_known(value: float | None, form: str) -> str:
  return '' if value is None else form.format(value)
