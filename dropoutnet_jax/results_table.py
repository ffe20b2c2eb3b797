# SPDX-License-Identifier: Apache-2.0
"""The table of `reproduce`: Markdown to read, and JSON to compare with.

RESULTS.json holds every value of every seed, RESULTS.md beside it is made from
that alone. An entry is what all runs of one experiment gave:

  {'title': ..., 'seeds': [0, 1, 2], 'date': '2026-01-31', 'command': ...,
   'devices': 'cpu:1', 'cores': 2, 'versions': {'jax': ...},
   'seconds': {'prepare': [per seed], 'train': [...], 'evaluate': [...]},
   'peak_memory_bytes': [per seed], 'peak_device_memory_bytes': [per seed],
   'splits': {split: {'users': [per seed], 'candidates': [per seed],
                      'methods': {method: {metric: [per seed]}}}}}
"""

from collections.abc import Mapping, Sequence
import json
import os
import re
import statistics
import tempfile
from typing import Any, NamedTuple

from dropoutnet_jax import errors
from dropoutnet_jax import report
from dropoutnet_jax import sweeps
from dropoutnet_jax.data import files

# Of results.json, beside the splits.
NEEDED = frozenset(
    {
        'devices',
        'evaluate_seconds',
        'peak_device_memory_bytes',
        'peak_memory_bytes',
        'prepare_seconds',
        'train_seconds',
        'versions',
    }
)
_FORMAT = 1
_LABELLED = ('auc', 'gauc')
_HEADER = """# Results

Written by `python run.py reproduce`, which compares new runs with this table
before it changes it; the numbers of each seed are in `{json}`.

Values are means over the seeds, standard deviations in brackets; the best
method of a split is bold. Seconds are preparation, training and evaluation
together. Memory is the peak of the process that ended the run. `DIR` is the
folder with one folder per data set.
"""


class Summary(NamedTuple):
  """Of the runs that have a value; the deviation takes two of them."""

  mean: float
  deviation: float | None

  def text(self, form: str = '.4f') -> str:
    """'0.2893 (0.0011)'."""
    spread = self.deviation
    return f'{self.mean:{form}}' + (
        '' if spread is None else f' ({spread:{form}})'
    )


def summarize(values: Sequence[float | None]) -> Summary | None:
  """Mean and deviation over seeds; None where no run has a value."""
  known = [value for value in values if value is not None]
  if not known:
    return None
  spread = statistics.stdev(known) if len(known) > 1 else None
  return Summary(statistics.fmean(known), spread)


def make_entry(
    found: Sequence[dict[str, Any]], facts: Mapping[str, Any]
) -> dict[str, Any]:
  """The entry of an experiment.

  Args:
    found: what results.json of each run holds.
    facts: title, seeds, date, command and cores.
  """
  seconds = {
      'prepare': [sum(run['prepare_seconds'].values()) for run in found],
      'train': [run['train_seconds'] for run in found],
      'evaluate': [run['evaluate_seconds'] for run in found],
  }
  rounded = {
      part: [round(value, 1) for value in values]
      for part, values in seconds.items()
  }
  names = list(dict.fromkeys(name for run in found for name in run['versions']))
  return {
      **facts,
      'devices': _joined(run['devices'] for run in found),
      'versions': {
          name: _joined(run['versions'].get(name) for run in found)
          for name in names
      },
      'seconds': rounded,
      'peak_memory_bytes': [run['peak_memory_bytes'] for run in found],
      'peak_device_memory_bytes': [
          run['peak_device_memory_bytes'] for run in found
      ],
      'splits': _test_splits(found),
  }


def _joined(values: Any) -> str:
  """The value of all runs, or their values where they differ."""
  return ', '.join(dict.fromkeys(str(value) for value in values))


def _test_splits(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Test sets with the metrics that are shown, values of all runs in a list."""
  splits = {}
  for name, part in sweeps.collect(list(found)).items():
    if name.endswith('_validation'):
      continue
    methods: dict[str, dict[str, list[float | None]]] = {}
    for method, values in part['methods'].items():
      values = values | {
          metric: of_label
          for metric, of_label in part.get('labelled', {})
          .get(method, {})
          .items()
          if metric in _LABELLED
      }
      methods[method] = {
          metric: [None if x is None else round(x, 6) for x in numbers]
          for metric, numbers in values.items()
          if not metric.startswith(report.NOT_SHOWN)
      }
    splits[name] = part | {'methods': methods}
    splits[name].pop('labelled', None)
  return splits


def total_seconds(entry: Mapping[str, Any]) -> list[float]:
  """Of each run: preparation, training and evaluation."""
  return [sum(parts) for parts in zip(*entry['seconds'].values(), strict=True)]


def json_path(output: str) -> str:
  """Of the JSON beside a table: RESULTS.json beside RESULTS.md."""
  return os.path.splitext(output)[0] + '.json'


def load(output: str) -> dict[str, Any]:
  """The entries of a table by experiment; none where there is no table yet.

  Args:
    output: path of the Markdown.

  Raises:
    UserError: if the JSON is damaged or missing beside its Markdown.
  """
  path = json_path(output)
  try:
    with open(path, encoding='utf-8') as file:
      found = json.load(file)
    if found['format'] != _FORMAT:
      raise ValueError(f"format {found['format']!r} of another version")
    entries = dict(found['experiments'])
    markdown(entries, path)  # what can be shown is whole
  except FileNotFoundError as error:
    if os.path.exists(output):
      raise errors.UserError(
          f'{output} is there without {path}, which it is made from. Restore '
          'that, or name another --output.'
      ) from error
    return {}
  except OSError as error:
    raise errors.UserError(
        f'{path} cannot be read: {error.strerror}. Name another --output.'
    ) from error
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise errors.UserError(
        f'{path} is damaged ({type(error).__name__}: {errors.cause(error)}). '
        'Restore it, or name another --output.'
    ) from error
  return entries


def check_output(output: str) -> None:
  """Raises UserError where a table cannot be written, before hours of runs."""
  if not output.endswith('.md'):
    raise errors.UserError(
        f'--output={output}: the table is Markdown; let its name end in .md.'
    )
  folder = os.path.dirname(output) or '.'
  if not os.path.isdir(folder):
    raise errors.UserError(
        f'--output={output}: there is no folder {folder}. Make it, or correct '
        'the path.'
    )
  if os.path.isdir(output):
    raise errors.UserError(f'--output={output} is a folder; name a file in it.')
  try:
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise errors.UserError(
        f'--output={output} cannot be written: {error.strerror}. Choose '
        'another one.'
    ) from error


def write(output: str, entries: Mapping[str, Any]) -> None:
  """Writes the JSON and the Markdown made from it, each whole or not at all."""
  tree = {'format': _FORMAT, 'experiments': entries}
  text = json.dumps(tree, indent=1, allow_nan=False) + '\n'
  # The values of all seeds on one line: a shorter file, and readable changes.
  text = re.sub(
      r'\[\n[-+.\deEnul,\s]+\]',
      lambda match: json.dumps(json.loads(match[0])),
      text,
  )
  path = json_path(output)
  _write(path, text)
  _write(output, markdown(entries, path))


def _write(path: str, text: str) -> None:
  files.write(path, lambda file: file.write(text.encode()), '--output')


def markdown(entries: Mapping[str, Any], path: str) -> str:
  """The table as text: a section for each experiment.

  Args:
    entries: by experiment.
    path: of the JSON.
  """
  parts = [_HEADER.format(json=os.path.basename(path)), _overview(entries)]
  parts += [_section(name, entry) for name, entry in entries.items()]
  return '\n'.join(parts)


def _overview(entries: Mapping[str, Any]) -> str:
  rows = []
  for name, entry in entries.items():
    device = summarize(entry['peak_device_memory_bytes'])
    on_device = f', {device.mean / 1e9:.2f} on the device' if device else ''
    rows.append(
        [
            f'[{name}](#{name})',
            ', '.join(str(seed) for seed in entry['seeds']),
            _text(total_seconds(entry), '.0f'),
            f"{_text(_giga(entry['peak_memory_bytes']), '.2f')}{on_device}",
            f"{entry['devices']}, {entry['cores']} cores",
            entry['date'],
        ]
    )
  head = ['experiment', 'seeds', 'seconds', 'peak GB', 'devices', 'date']
  return _grid(head, rows)


def _section(name: str, entry: Mapping[str, Any]) -> str:
  """Title, command, a row for each split and method, and what it took."""
  metrics = shown_metrics(entry)
  rows = []
  for split, part in entry['splits'].items():
    head = (
        f"{split}: {report.span(part['users'])} users, "
        f"{report.span(part['candidates'])} candidates"
    )
    best = _best(part['methods'])
    for method in report.in_order(part['methods']):
      cells = []
      for metric in metrics:
        found = summarize(part['methods'][method].get(metric, []))
        text = found.text() if found else ''
        is_best = method != 'oracle' and found and found.mean == best[metric]
        cells.append(f'**{text}**' if is_best else text)
      rows.append([head, method, *cells])
      head = ''
  parts = ', '.join(
      f"{part} {_text(values, '.1f')}"
      for part, values in entry['seconds'].items()
  )
  versions = ', '.join(f'{n} {v}' for n, v in entry['versions'].items())
  return f"""## {name}

{entry['title']}

```sh
{entry['command']}
```

{_grid(['split', 'method', *metrics], rows)}
Seconds: {parts}. Versions: {versions}.
"""


def shown_metrics(*entries: Mapping[str, Any]) -> list[str]:
  """Metrics of any method and split, those of all rows first."""
  return list(
      dict.fromkeys(
          metric
          for entry in entries
          for part in entry['splits'].values()
          for values in part['methods'].values()
          for metric in values
      )
  )


def _best(methods: Mapping[str, Any]) -> dict[str, float]:
  """The best mean of each metric; the oracle is no competitor."""
  best: dict[str, float] = {}
  for method, values in methods.items():
    for metric, numbers in values.items():
      found = summarize(numbers)
      if found and method != 'oracle':
        best[metric] = max(best.get(metric, found.mean), found.mean)
  return best


def _text(values: Sequence[float | None], form: str) -> str:
  found = summarize(values)
  return found.text(form) if found else ''


def _giga(values: Sequence[int]) -> list[float]:
  return [value / 1e9 for value in values]


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """A table in Markdown."""
  lines = [head, ['---'] * len(head), *rows]
  return ''.join(f'| {" | ".join(line)} |\n' for line in lines)
