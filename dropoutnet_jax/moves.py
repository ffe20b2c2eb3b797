# SPDX-License-Identifier: Apache-2.0
"""What moved between two tables of results, by more than chance explains.

Over several seeds, chance is three standard deviations of a run, the larger
one of both tables, and never less than the digits that tables show; a single
run tells nothing of chance, and 0.002 stands for it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from dropoutnet_jax import report
from dropoutnet_jax import results_table

_DEVIATIONS = 3.0
_LEAST = 0.0005
_SINGLE_RUN = 0.002


class Move(NamedTuple):
  """One value of two tables.

  Attributes:
    before: in the earlier table; None where it has none.
    now: in the later one.
    verdict: 'same', 'up', 'down', 'new' or 'gone'.
  """

  before: results_table.Summary | None
  now: results_table.Summary | None
  verdict: str

  def text(self) -> str:
    """'0.2893' if it is the same, else also what it was."""
    if self.now is None:
      return f'gone ({self.before.mean:.4f})' if self.before else ''
    if self.before is None or self.verdict == 'same':
      return f'{self.now.mean:.4f} {self.verdict}'
    return f'{self.now.mean:.4f} {self.verdict} ({self.before.mean:.4f})'


def compare(
    before: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[tuple[str, str, str], Move]:
  """Every value of one experiment by (split, method, metric).

  Args:
    before: its entry in the earlier table.
    now: its entry in the later one.
  """
  old, new = _values(before), _values(now)
  return {
      key: _move(old.get(key), new.get(key))
      for key in dict.fromkeys([*new, *old])
  }


def _values(
    entry: Mapping[str, Any],
) -> dict[tuple[str, str, str], results_table.Summary]:
  found = {}
  for split, part in entry['splits'].items():
    for method in report.in_order(part['methods']):
      for metric, numbers in part['methods'][method].items():
        summary = results_table.summarize(numbers)
        if summary is not None:
          found[split, method, metric] = summary
  return found


def _move(
    before: results_table.Summary | None, now: results_table.Summary | None
) -> Move:
  if before is None or now is None:
    return Move(before, now, 'new' if before is None else 'gone')
  change = now.mean - before.mean
  if abs(change) <= _noise(before, now):
    return Move(before, now, 'same')
  return Move(before, now, 'up' if change > 0 else 'down')


def _noise(before: results_table.Summary, now: results_table.Summary) -> float:
  spreads = [x.deviation for x in (before, now) if x.deviation is not None]
  if not spreads:
    return _SINGLE_RUN
  return max(_DEVIATIONS * max(spreads), _LEAST)


def show(
    name: str, before: Mapping[str, Any] | None, now: Mapping[str, Any]
) -> bool:
  """Prints the values of an experiment and what became of them.

  Args:
    name: of the experiment.
    before: its entry in the earlier table; None where it has none.
    now: its entry in the later one.

  Returns:
    Whether a value moved up, down or away.
  """
  found = compare(before or {'splits': {}}, now)
  verdicts = [move.verdict for move in found.values()]
  counts = {x: verdicts.count(x) for x in ('same', 'up', 'down', 'new', 'gone')}
  told = ', '.join(f'{n} {x}' for x, n in counts.items() if n)
  metrics = list(dict.fromkeys(metric for *_, metric in found))
  rows, last = [], ''
  for split, method in dict.fromkeys(key[:2] for key in found):
    moves = [found.get((split, method, metric)) for metric in metrics]
    head = '' if split == last else split
    rows.append(
        [head, method, *(move.text() if move else '' for move in moves)]
    )
    last = split
  report.print_rows(
      f'{name}: {told or "no values"}', ['split', 'method', *metrics], rows
  )
  for line in costs(before, now) + differences(before, now):
    print(f'  {line}')
  return any(verdict in ('up', 'down', 'gone') for verdict in verdicts)


def costs(
    before: Mapping[str, Any] | None, now: Mapping[str, Any]
) -> list[str]:
  """Seconds and memory of a run, and by what they have changed."""
  lines = []
  for what, unit, scale, of in (
      ('seconds', '', 1.0, results_table.total_seconds),
      ('peak memory', ' GB', 1e9, lambda entry: entry['peak_memory_bytes']),
  ):
    here = results_table.summarize(of(now))
    there = results_table.summarize(of(before)) if before else None
    if here is None:
      continue
    line = f'{what} {here.mean / scale:.4g}{unit}'
    if there is not None and there.mean:
      line += (
          f', {there.mean / scale:.4g}{unit} before: '
          f'{here.mean / there.mean:.2f} times'
      )
    lines.append(line)
  return lines


def differences(
    before: Mapping[str, Any] | None, now: Mapping[str, Any]
) -> list[str]:
  """What else is not as it was, and may be why a value moved."""
  if before is None:
    return []
  old, new = _circumstances(before), _circumstances(now)
  return [
      f'{name} {new.get(name, "none")}, {old.get(name, "none")} before'
      for name in dict.fromkeys([*old, *new])
      if old.get(name) != new.get(name)
  ]


def _circumstances(entry: Mapping[str, Any]) -> dict[str, str]:
  found = {
      'seeds': ', '.join(str(seed) for seed in entry['seeds']),
      'devices': f"{entry['devices']}, {entry['cores']} cores",
  }
  for split, part in entry['splits'].items():
    for what in ('users', 'candidates'):
      found[f'{split}: {what}'] = report.span(part[what])
  return found | entry['versions']
