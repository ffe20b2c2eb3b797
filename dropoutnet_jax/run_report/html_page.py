# SPDX-License-Identifier: Apache-2.0
"""A document as one HTML file that needs nothing else: no script, no network.

Every text is escaped here and nowhere else. Figures are put in as they are.
"""

from collections.abc import Sequence
import html

from dropoutnet_jax.run_report import document
from dropoutnet_jax.run_report import page_style

_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p class="lead">{lead}</p>
</header>
<nav aria-label="Contents">
<ul>
{contents}
</ul>
</nav>
<main>
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_END = '</main>\n</body>\n</html>\n'


def render(page: document.Document) -> str:
  """The whole file."""
  sections = page.filled()
  contents = [
      f'<li><a href="#part{n}">{_text(section.title)}</a></li>'
      for n, section in enumerate(sections)
  ]
  head = _HEAD.format(
      policy=_POLICY,
      style=page_style.CSS,
      title=_text(page.title),
      lead=_text(page.lead),
      contents='\n'.join(contents),
  )
  body = [
      f'<section id="part{n}">\n<h2>{_text(section.title)}</h2>\n'
      f'{_blocks(section.blocks)}</section>\n'
      for n, section in enumerate(sections)
  ]
  return _own_ids(head + ''.join(body)) + _END


def _own_ids(page: str) -> str:
  """Gives each picture names of its own: they are drawn one by one."""
  before, *pictures = page.split('<svg ')
  for number, picture in enumerate(pictures):
    svg, end, rest = picture.partition('</svg>')
    for opening in (' id="', 'url(#', 'href="#'):
      svg = svg.replace(opening, f'{opening}figure{number}-')
    pictures[number] = svg + end + rest
  return '<svg role="img" '.join([before, *pictures])


def _text(text: str) -> str:
  return html.escape(document.printable(text))


def _blocks(blocks: Sequence[document.Block]) -> str:
  return ''.join(map(_block, blocks))


def _block(block: document.Block) -> str:
  if isinstance(block, document.Text):
    if block.kind == 'code':
      return f'<pre><code>{_text(block.text)}</code></pre>\n'
    return f'<p>{_text(block.text)}</p>\n'
  if isinstance(block, document.Bullets):
    items = ''.join(f'<li>{_text(item)}</li>\n' for item in block.items)
    return f'<ul>\n{items}</ul>\n'
  if isinstance(block, document.Figure):
    caption = f'<figcaption>{_text(block.caption)}</figcaption>'
    return f'<figure>\n{block.svg}\n{caption}\n</figure>\n'
  if isinstance(block, document.Fold):
    attribute = ' open' if block.is_open else ''
    return (
        f'<details{attribute}>\n<summary>{_text(block.title)}</summary>\n'
        f'{_blocks(block.blocks)}</details>\n'
    )
  if isinstance(block, document.Beside):
    parts = ''.join(f'<div>\n{_block(one)}</div>\n' for one in block.blocks)
    return f'<div class="beside">\n{parts}</div>\n'
  if isinstance(block, document.Part):
    return f'<h3>{_text(block.title)}</h3>\n{_blocks(block.blocks)}'
  return _table(block)


def _table(table: document.Table) -> str:
  """A table that scrolls within the page where it is too wide."""
  caption = ''
  if table.caption:
    caption = f'<caption>{_text(table.caption)}</caption>\n'
  head = ''.join(
      f'<th scope="col"{_align(n, table)}>{_text(name)}</th>'
      for n, name in enumerate(table.head)
  )
  rows = ''.join(_row(row, table) for row in table.rows)
  return (
      f'<div class="scroll" tabindex="0">\n<table>\n{caption}'
      f'<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n'
      '</div>\n'
  )


def _row(row: Sequence[document.Cell | str], table: document.Table) -> str:
  cells = []
  for number, one in enumerate(map(document.cell, row)):
    text = _text(one.text)
    if one.href:
      text = f'<a href="{_text(one.href)}">{text}</a>'
    if one.strong:
      text = f'<strong>{text}</strong>'
    if one.mark:
      text = f'<mark>{text}</mark>'
    if one.note:
      text += f'<small>{_text(one.note)}</small>'
    cells.append(f'<td{_align(number, table)}>{text}</td>')
  return f'<tr>{"".join(cells)}</tr>\n'


def _align(column: int, table: document.Table) -> str:
  return '' if column < table.left else ' class="number"'
