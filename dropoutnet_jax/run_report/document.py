# SPDX-License-Identifier: Apache-2.0
"""What a report consists of: sections of texts, tables and figures.

Plain text throughout: whoever renders it escapes it. The page and the Markdown
file are two renderings of one document, and so cannot say different things.
"""

from collections.abc import Sequence
import dataclasses
from typing import NamedTuple, Union


class Cell(NamedTuple):
  """One cell of a table.

  Attributes:
    text: what it says.
    strong: the best of its kind.
    mark: highlighted.
    note: said in small letters below.
    href: of another page, relative; '' is no link.
  """

  text: str
  strong: bool = False
  mark: bool = False
  note: str = ''
  href: str = ''


@dataclasses.dataclass(frozen=True)
class Text:
  """One paragraph; of the kind 'code' a command."""

  text: str
  kind: str = 'plain'


@dataclasses.dataclass(frozen=True)
class Bullets:
  """Sentences, each on its own."""

  items: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Table:
  """Rows of cells.

  Attributes:
    head: names of the columns.
    rows: as many cells each.
    left: leading columns that hold words; the others hold numbers.
    caption: what it shows, or ''.
  """

  head: Sequence[str]
  rows: Sequence[Sequence[Cell | str]]
  left: int = 1
  caption: str = ''


@dataclasses.dataclass(frozen=True)
class Figure:
  """A picture.

  Attributes:
    svg: an <svg> element.
    caption: what it shows; also for those who do not see it.
  """

  svg: str
  caption: str


@dataclasses.dataclass(frozen=True)
class Fold:
  """Blocks that a reader may want to skip."""

  title: str
  blocks: Sequence['Block']
  is_open: bool = False


@dataclasses.dataclass(frozen=True)
class Part:
  """Blocks under a heading within a section."""

  title: str
  blocks: Sequence['Block']


@dataclasses.dataclass(frozen=True)
class Beside:
  """Blocks that stand side by side where there is room."""

  blocks: Sequence['Block']


Block = Union[Text, Bullets, Table, Figure, Fold, Part, Beside]


@dataclasses.dataclass(frozen=True)
class Section:
  """An entry of the table of contents."""

  title: str
  blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True)
class Document:
  """A whole report.

  Attributes:
    title: of the page.
    lead: one sentence below it.
    sections: in order; those without blocks are left out.
  """

  title: str
  lead: str
  sections: Sequence[Section]

  def filled(self) -> list[Section]:
    return [section for section in self.sections if section.blocks]


def cell(value: Cell | str) -> Cell:
  """A cell of what a table holds."""
  return value if isinstance(value, Cell) else Cell(value)


def printable(text: str) -> str:
  """Text without control characters, which neither file may hold."""
  return ''.join(
      c if c.isprintable() or c == ' ' else ' ' if c.isspace() else '\ufffd'
      for c in text
  )
