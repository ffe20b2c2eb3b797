# SPDX-License-Identifier: Apache-2.0
"""What a benchmark found: rows of ours against another's, and their table.

Knows neither what was measured nor how.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

from rich import box
from rich import table as rich_table


@dataclasses.dataclass(frozen=True)
class Row:
  """One measure on both sides.

  Attributes:
    measure: what was measured, with its unit.
    ours: of this package.
    other: of what it is compared with.
    ratio: how many times better ours is; 0 where ours did not get there.
    bar: the least ratio aimed at, or None.
    is_bound: whether `other` was cut off, so that it and `ratio` are the
      least that they can be.
  """

  measure: str
  ours: float
  other: float
  ratio: float
  bar: float | None = None
  is_bound: bool = False

  @property
  def met(self) -> bool | None:
    """Whether the bar is reached; None without one."""
    return None if self.bar is None else self.ratio >= self.bar


@dataclasses.dataclass(frozen=True)
class Grid:
  """A table of more than two sides: columns by name, rows of words."""

  title: str
  head: Sequence[str]
  rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Rows of one suite, the name of the other side, remarks, further tables."""

  title: str
  other: str
  rows: Sequence[Row]
  notes: Sequence[str] = ()
  grids: Sequence[Grid] = ()

  def as_dict(self) -> dict[str, Any]:
    """For bench.json."""
    tree = dataclasses.asdict(self)
    for row, found in zip(tree['rows'], self.rows):
      row['met'] = found.met
    return tree


def make_table(comparison: Comparison) -> rich_table.Table:
  """Both sides beside each other, the ratio, and the bar it is held to."""
  table = rich_table.Table(title=comparison.title, box=box.SIMPLE_HEAD)
  table.add_column('measure')
  for name in ('dropoutnet_jax', comparison.other, 'times better', 'bar', ''):
    table.add_column(name, justify='right')
  for row in comparison.rows:
    least = '> ' if row.is_bound else ''
    verdict = {None: '', True: 'reached', False: '[bold]missed[/]'}[row.met]
    table.add_row(
        row.measure,
        shown(row.ours),
        least + shown(row.other),
        least + shown(row.ratio),
        '' if row.bar is None else shown(row.bar),
        verdict,
    )
  return table


def make_grid(grid: Grid) -> rich_table.Table:
  """A table of more than two sides."""
  table = rich_table.Table(title=grid.title, box=box.SIMPLE_HEAD)
  for place, name in enumerate(grid.head):
    table.add_column(name, justify='right' if place else 'left')
  for row in grid.rows:
    table.add_row(*row)
  return table


def shown(value: float) -> str:
  """1,234,567 or 12.3 or 0.0479: three digits that mean something, or more."""
  if abs(value) >= 100:
    return f'{value:,.0f}'
  return f'{value:.3g}'
