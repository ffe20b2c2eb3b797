# SPDX-License-Identifier: Apache-2.0
"""A document as Markdown: the same texts and tables, for terminals and diffs.

Figures are left out, and what folds on the page is open here.
"""

from collections.abc import Sequence
import re

from dropoutnet_jax.run_report import document

# Underscores within a word, as in cold_item, mean nothing in Markdown.
_SPECIAL = re.compile(r'[\\`*\[\]|~#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])')


def render(page: document.Document) -> str:
  """The whole file."""
  parts = [f'# {_text(page.title)}', _text(page.lead)]
  for section in page.filled():
    parts.append(f'## {_text(section.title)}')
    parts += _blocks(section.blocks)
  return '\n\n'.join(part for part in parts if part) + '\n'


def _text(text: str) -> str:
  text = document.printable(text)
  for sign, name in (('&', '&amp;'), ('<', '&lt;'), ('>', '&gt;')):
    text = text.replace(sign, name)
  return _SPECIAL.sub(lambda found: '\\' + found.group(), text)


def _blocks(blocks: Sequence[document.Block]) -> list[str]:
  """Parts of the file, to be separated by empty lines."""
  parts: list[str] = []
  for block in blocks:
    if isinstance(block, document.Text):
      parts.append(
          _code(block.text) if block.kind == 'code' else _text(block.text)
      )
    elif isinstance(block, document.Bullets):
      parts.append('\n'.join(f'- {_text(item)}' for item in block.items))
    elif isinstance(block, document.Figure):
      parts.append(f'(Figure in index.html: {_text(block.caption)})')
    elif isinstance(block, document.Fold):
      parts += [f'**{_text(block.title)}**', *_blocks(block.blocks)]
    elif isinstance(block, document.Part):
      parts += [f'### {_text(block.title)}', *_blocks(block.blocks)]
    elif isinstance(block, document.Beside):
      parts += _blocks(block.blocks)
    else:
      parts.append(_text(block.caption))
      parts.append(_table(block))
  return [part for part in parts if part]


def _code(text: str) -> str:
  """Indented, so that no fence can end it."""
  return '    ' + document.printable(text)


def _table(table: document.Table) -> str:
  count = len(table.head)
  rule = ['---' if n < table.left else '---:' for n in range(count)]
  rows = [[_cell(document.cell(one)) for one in row] for row in table.rows]
  lines = [[_text(name) for name in table.head], rule, *rows]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _cell(one: document.Cell) -> str:
  text = _text(one.text)
  if one.href and text:
    # In angle brackets an address may hold anything but these.
    address = document.printable(one.href)
    for sign, code in (('<', '%3C'), ('>', '%3E'), ('|', '%7C'), ('\\', '%5C')):
      address = address.replace(sign, code)
    text = f'[{text}](<{address}>)'
  if (one.strong or one.mark) and text:
    text = f'**{text}**'
  return f'{text} ({_text(one.note)})' if one.note else text
