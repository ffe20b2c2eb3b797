# SPDX-License-Identifier: Apache-2.0
"""What a run says while it goes: metrics.jsonl, TensorBoard, the terminal."""

from collections.abc import Callable, Mapping
import contextlib
import json
import math
import operator
import os
import sys
import time
from typing import Any, TextIO

from rich import console as rich_console
from rich import progress as rich_progress

from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.data import files

_QUIET_SECONDS = 60.0  # between plain lines where there is no terminal


def read_metrics(
    workdir: str, up_to: int | None = None
) -> list[dict[str, Any]]:
  """Lines of metrics.jsonl with step <= up_to, up to the first torn one."""
  path = os.path.join(workdir, 'metrics.jsonl')
  rows: list[dict[str, Any]] = []
  if not os.path.exists(path):
    return rows
  with open(path, 'rb') as file:
    for line in file:
      try:
        row = json.loads(line)
        step, _ = operator.index(row['step']), math.fabs(row['seconds'])
      except (ValueError, TypeError, KeyError):
        break  # killed while it was written, or damaged later
      if up_to is None or step <= up_to:
        rows.append(row)
  return rows


def _make_board(folder: str, purge_step: int) -> Any:
  """A TensorBoard writer, without what tensorboardX imports for others.

  It imports PyTorch wherever that is installed: seconds of every start and
  hundreds of megabytes, for scalars that need none of it.
  """
  missing = object()
  before = sys.modules.get('torch', missing)
  if before is missing:
    sys.modules['torch'] = None  # type: ignore[assignment]
  try:
    import tensorboardX  # pylint: disable=import-outside-toplevel
  finally:
    if before is missing:
      del sys.modules['torch']
  return tensorboardX.SummaryWriter(folder, purge_step=purge_step)


class MetricsWriter:
  """Appends to metrics.jsonl and to TensorBoard files.

  One of all processes writes; on the others it only knows the time.
  """

  def __init__(self, workdir: str, start_step: int):
    """Opens both; forgets what an interrupted run wrote after `start_step`.

    Raises:
      UserError: if the files can't be written.
    """
    self._path = os.path.join(workdir, 'metrics.jsonl')
    kept = read_metrics(workdir, start_step)
    self._before = kept[-1]['seconds'] if kept else 0.0
    self._start = time.monotonic()
    self._file = None
    if not parallel.is_writer():
      return
    lines = ''.join(json.dumps(row) + '\n' for row in kept)
    files.write_text(self._path, lines)
    try:
      self._file = open(self._path, 'a', encoding='utf-8')
      self._board = _make_board(
          os.path.join(workdir, 'tensorboard'), start_step + 1
      )
    except OSError as error:
      raise self._cannot_write(error) from error

  def seconds(self) -> float:
    """Seconds of training so far, earlier parts of the run included."""
    return self._before + time.monotonic() - self._start

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """One line: step, seconds and the values; NaN is left out of JSON.

    Raises:
      UserError: if it can't be written.
    """
    if self._file is None:
      return
    finite = {
        name: float(value)
        for name, value in values.items()
        if math.isfinite(value)
    }
    row = {'step': step, 'seconds': round(self.seconds(), 3)} | finite
    try:
      self._file.write(json.dumps(row) + '\n')
      self._file.flush()
    except OSError as error:
      raise self._cannot_write(error) from error
    for name, value in finite.items():
      self._board.add_scalar(name, value, step)

  def _cannot_write(self, error: OSError) -> errors.UserError:
    return errors.UserError(
        f'{error.filename or self._path} cannot be written: {error.strerror}. '
        'Free space or choose another --workdir.'
    )

  def close(self) -> None:
    if self._file is None:
      return
    with contextlib.suppress(OSError):  # a full disk has been told already
      self._file.close()
    self._board.close()


def is_terminal(file: TextIO | None = None) -> bool:
  """Whether a bar may redraw its line: never into files or a dumb terminal.

  Args:
    file: that it is shown on; None is the standard output.
  """
  file = sys.stdout if file is None else file
  return file.isatty() and os.environ.get('TERM', 'dumb') != 'dumb'


class Bar:
  """A bar on a terminal; elsewhere a plain line a minute, from one process."""

  def __init__(
      self,
      what: str,
      unit: str,
      total: int | None,
      start: int = 0,
      file: TextIO | None = None,
  ):
    """Begins to show.

    Args:
      what: is done, beside the bar.
      unit: that is counted, for plain lines: 'step' gives 'step 3 of 10'.
      total: number of them at the end; None where nobody knows.
      start: number of them that are done already.
      file: to show it on; None is the standard output.
    """
    self._unit, self._total, self._start = unit, total, start
    self._file = sys.stdout if file is None else file
    self._begin = self._last = time.monotonic()
    self._bar = None
    self._quiet = not parallel.is_writer()
    if is_terminal(self._file) and not self._quiet:
      self._bar = rich_progress.Progress(
          rich_progress.TextColumn(what),
          rich_progress.BarColumn(),
          rich_progress.MofNCompleteColumn(),
          rich_progress.TextColumn('{task.fields[text]}'),
          rich_progress.TimeRemainingColumn(),
          transient=True,
          console=None if file is None else rich_console.Console(file=file),
      )
      self._task = self._bar.add_task(
          what, total=total, completed=start, text=''
      )
      self._bar.start()

  def show(self, done: int, describe: Callable[[float], str]) -> float:
    """Shows that so many are done; returns how many a second that were.

    Args:
      done: of `total`.
      describe: from the number a second to the text beside the bar.
    """
    now = time.monotonic()
    rate = (done - self._start) / max(now - self._begin, 1e-9)
    text = describe(rate)
    if self._bar is not None:
      self._bar.update(self._task, completed=done, text=text)
    elif now - self._last > _QUIET_SECONDS and not self._quiet:
      self._last = now
      end = ''
      if self._total is not None:
        left = (self._total - done) / max(rate, 1e-9)
        text, end = f'{text}  {left:,.0f} s left', f' of {self._total}'
      line = f'{self._unit} {done}{end}  {text}'
      print(line, file=self._file, flush=True)
    return rate

  def say(self, text: str) -> None:
    """A line of its own, above the bar where there is one."""
    if self._bar is not None:
      self._bar.console.print(text, highlight=False)
    elif not self._quiet:
      print(text, file=self._file, flush=True)

  def close(self) -> None:
    if self._bar is not None:
      self._bar.stop()


class Progress(Bar):
  """Of a training: its steps, its loss and its speed."""

  def __init__(self, total: int, start: int, pairs_per_step: int):
    super().__init__('train', 'step', total, start)
    self._pairs, self._rate = pairs_per_step, 0.0

  def update(self, step: int, loss: float) -> None:
    """Shows the loss and the pairs per second after `step` steps."""
    self._rate = self.show(
        step,
        lambda rate: f'loss {loss:.4g}  {rate * self._pairs:,.0f} pairs/s',
    )

  def pairs_per_second(self) -> float:
    """Of this process's part of the run, compilation included."""
    return self._rate * self._pairs
