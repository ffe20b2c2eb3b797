# SPDX-License-Identifier: Apache-2.0
"""Curves and intervals as SVG elements for a page, the same bytes every time.

Lines and letters take the colour of the text around them, so that one picture
is right on a light and on a dark page. Nothing in a picture points out of it.
"""

from collections.abc import Mapping, Sequence
import contextlib
import io
import math
import re
from typing import Any, NamedTuple
import warnings

import matplotlib
from matplotlib import figure as figure_lib
from matplotlib import ticker

from dropoutnet_jax.run_report import document

_INK = '#0a0b0c'  # stands for the colour of the text of the page
_MODEL = '#d1495b'
_COLORS = (
    '#3d85c6',
    '#2a9d8f',
    '#c98a1b',
    '#8e6bbf',
    '#7b8794',
    '#b5651d',
    '#6aa84f',
    '#c27ba0',
)
_MARKERS = 's^Dv<>pXh'
_MOST_MARKED = 30  # points of a curve that are marked one by one
_SETTINGS = {
    'axes.edgecolor': _INK,
    'axes.labelcolor': _INK,
    'axes.titlesize': 'medium',
    'axes.spines.right': False,
    'axes.spines.top': False,
    'font.family': 'sans-serif',
    'font.size': 10,
    'grid.alpha': 0.2,
    'grid.color': _INK,
    'legend.frameon': False,
    'svg.fonttype': 'none',
    'svg.hashsalt': 'report',
    'text.color': _INK,
    'text.parse_math': False,
    'xtick.color': _INK,
    'ytick.color': _INK,
}
# Left out by None: they would change with the time and the version.
_NO_METADATA = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))

Points = Sequence[tuple[float, float]]


class Bar(NamedTuple):
  """One method: its value, and an interval around it if it is known."""

  label: str
  value: float
  interval: tuple[float, float] | None = None


def curves(
    series: Mapping[str, Points],
    *,
    x: str,
    y: str,
    log: bool = False,
    vertical: tuple[float, str] | None = None,
    from_zero: bool = False,
) -> str:
  """Lines of points (x, y), the one named 'model' first among them.

  Args:
    series: by label; points in the order of x, NaN is a gap.
    x: label of the axis.
    y: label of the axis.
    log: whether y is logarithmic, if all of it is positive.
    vertical: (x, label) of a line to draw.
    from_zero: whether y begins at 0.
  """
  with _drawing((6.4, 3.7)) as (axes, result):
    lines, labels = [], []
    for number, (label, points) in enumerate(series.items()):
      marked = len(points) <= _MOST_MARKED
      style = _style(label, number)
      (line,) = axes.plot(
          [point[0] for point in points],
          [point[1] for point in points],
          color=style['color'],
          marker=style['marker'] if marked else '',
          markersize=5,
          linewidth=2.4 if label == 'model' else 1.5,
      )
      lines.append(line)
      labels.append(document.printable(label))
    values = [v for points in series.values() for _, v in points]
    known = [value for value in values if math.isfinite(value)]
    if log and known and min(known) > 0 and max(known) > 3 * min(known):
      axes.set_yscale('log')
      axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
      axes.yaxis.set_major_formatter(ticker.FormatStrFormatter('%.3g'))
      axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    elif from_zero:
      axes.set_ylim(bottom=0)
    if vertical is not None:
      line = axes.axvline(vertical[0], color=_INK, alpha=0.5, linestyle=':')
      lines.append(line)
      labels.append(vertical[1])
    places = [place for points in series.values() for place, _ in points]
    if all(float(place).is_integer() for place in places):
      axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.set_xlabel(document.printable(x))
    axes.set_ylabel(y)
    axes.grid()
    # Given by hand: Matplotlib leaves out labels that begin with '_'.
    axes.legend(lines, labels, fontsize='small')
  return result[0]


def points(
    series: Mapping[str, Points],
    *,
    x: str,
    y: str,
    log_x: bool = False,
    line: tuple[str, Points] | None = None,
) -> str:
  """Points (x, y) by label, each on its own.

  Args:
    series: by label.
    x: label of the axis.
    y: label of the axis.
    log_x: whether x is logarithmic; all of it is positive then.
    line: (label, points) of a line of steps through all of them.
  """
  with _drawing((6.4, 3.7)) as (axes, result):
    if line is not None:
      axes.step(*zip(*line[1]), where='post', color=_MODEL, label=line[0])
    for number, (label, found) in enumerate(series.items()):
      style = _style(label, number)
      axes.scatter(
          *zip(*found),
          color=style['color'],
          marker=style['marker'],
          label=label,
          alpha=0.85,
          zorder=2,
      )
    if log_x:
      axes.set_xscale('log')
    axes.set_xlabel(document.printable(x))
    axes.set_ylabel(document.printable(y))
    axes.grid()
    if line is not None or series:
      axes.legend(fontsize='small')
  return result[0]


def calibration(
    found: Sequence[tuple[float, float, float | None, float | None]],
    *,
    x: str,
    y: str,
) -> str:
  """What was found against what was said, beside the line of equality.

  Args:
    found: (said, found, low, high), the interval of what was found or None.
    x: label of what was said.
    y: label of what was found.
  """
  with _drawing((4.6, 3.9)) as (axes, result):
    most = max(max(a, b, high or 0.0) for a, b, _, high in found)
    axes.plot([0, most], [0, most], color=_INK, alpha=0.5, linestyle=':')
    for said, _, low, high in found:
      if low is not None and high is not None:
        axes.plot([said, said], [low, high], color=_INK, linewidth=1.2)
    places = [point[:2] for point in found]
    axes.plot(*zip(*places), color=_MODEL, marker='o', linewidth=1.5)
    axes.set_xlabel(document.printable(x))
    axes.set_ylabel(document.printable(y))
    axes.grid()
  return result[0]


def intervals(bars: Sequence[Bar], metric: str) -> str:
  """One row per method: its value, and its interval if there is one."""
  size = (6.4, 0.9 + 0.32 * len(bars))
  with _drawing(size) as (axes, result):
    for row, bar in enumerate(bars):
      color = _MODEL if bar.label == 'model' else _COLORS[4]
      axes.barh(row, bar.value, height=0.6, color=color, alpha=0.75)
      end = bar.value
      if bar.interval is not None:
        axes.plot(bar.interval, [row, row], color=_INK, linewidth=1.5)
        end = max(end, bar.interval[1])
      axes.annotate(
          f'{bar.value:.3f}',
          (end, row),
          xytext=(4, 0),
          textcoords='offset points',
          verticalalignment='center',
          fontsize='small',
      )
    labels = [document.printable(bar.label) for bar in bars]
    axes.set_yticks(range(len(bars)), labels)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.margins(x=0.12)
    axes.set_xlabel(metric)
    axes.grid(axis='x')
    axes.set_axisbelow(True)
  return result[0]


def _style(label: str, number: int) -> dict[str, Any]:
  if label == 'model':
    return {'color': _MODEL, 'marker': 'o'}
  return {
      'color': _COLORS[number % len(_COLORS)],
      'marker': _MARKERS[number % len(_MARKERS)],
  }


@contextlib.contextmanager
def _drawing(size: tuple[float, float]) -> Any:
  """Axes to draw on, and a list that holds the SVG afterwards."""
  result: list[str] = []
  settings: Any = _SETTINGS
  with matplotlib.rc_context(settings), warnings.catch_warnings():
    # Letters that the font lacks: the reader's browser has its own.
    warnings.filterwarnings('ignore', 'Glyph', UserWarning)
    figure = figure_lib.Figure(figsize=size, layout='constrained')
    yield figure.subplots(), result
    file = io.StringIO()
    figure.savefig(file, format='svg', transparent=True, metadata=_NO_METADATA)
  result.append(_element(file.getvalue()))


def _element(text: str) -> str:
  """The <svg> element of a file, without what names other documents."""
  text = text[text.index('<svg') :].rstrip()
  text = re.sub(r'\s*<metadata>.*?</metadata>', '', text, flags=re.DOTALL)
  text = re.sub(r'\s*<defs>\s*<style.*?</defs>', '', text, 1, re.DOTALL)
  text = re.sub(r' font-family: [^;]*;', '', text)  # that of the page
  text = re.sub(r'\sxmlns(:xlink)?="[^"]*"', '', text)
  text = text.replace('xlink:href="#', 'href="#')
  text = re.sub(r'<(svg[^>]*) width="[^"]*pt"', r'<\1', text, count=1)
  text = re.sub(r'<(svg[^>]*) height="[^"]*pt"', r'<\1', text, count=1)
  # Groups are numbered in every picture alike; nothing points at them.
  text = re.sub(r'<g id="[^"]*">', '<g>', text)
  return text.replace(_INK, 'currentColor')
