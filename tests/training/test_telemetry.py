# SPDX-License-Identifier: Apache-2.0
"""What a run writes and says: whole lines, few lines, no carriage returns."""

import builtins
import errno
import io
import json
import math
import os
import sys

import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.training import telemetry


def write_rows(folder, steps, start=0):
  writer = telemetry.MetricsWriter(str(folder), start)
  for step in steps:
    writer.write(step, {'loss/total': step / 10})
  writer.close()


def steps_of(folder):
  return [row['step'] for row in telemetry.read_metrics(str(folder))]


def test_one_json_object_a_line_with_step_and_seconds_first(tmp_path):
  writer = telemetry.MetricsWriter(str(tmp_path), 0)
  writer.write(3, {'loss/total': 0.1 + 0.2, 'validation/mrr': 1})
  # Readable at once, not only after the end.
  (line,) = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  writer.close()
  row = json.loads(line)
  assert list(row)[:2] == ['step', 'seconds']
  assert row['step'] == 3 and 0 <= row['seconds'] < 60
  assert row['loss/total'] == 0.1 + 0.2  # not rounded


def test_what_json_does_not_know_is_left_out(tmp_path):
  writer = telemetry.MetricsWriter(str(tmp_path), 0)
  writer.write(1, {'a': math.nan, 'b': -math.inf, 'c': 2.0})
  writer.close()
  (row,) = telemetry.read_metrics(str(tmp_path))
  assert set(row) == {'step', 'seconds', 'c'}


@pytest.mark.parametrize(
    'torn',
    [b'', b'{', b'{"step": 5, "seconds"', b'\0\0\0', b'\xff\xfe']
    + [b'{"step": 4}\n', b'[1]\n', b'{"step": "x", "seconds": 1}\n', b'\n']
    + [b'{"step": 1e999, "seconds": 1}\n', b'{"step": 4, "seconds": "1"}\n'],
)
def test_a_torn_line_ends_the_reading_and_goes_away(tmp_path, torn):
  write_rows(tmp_path, [1, 2, 3])
  with (tmp_path / 'metrics.jsonl').open('ab') as file:
    file.write(torn)
  assert steps_of(tmp_path) == [1, 2, 3]
  write_rows(tmp_path, [4], start=3)
  assert steps_of(tmp_path) == [1, 2, 3, 4]
  for line in (tmp_path / 'metrics.jsonl').read_text().splitlines():
    json.loads(line)


def test_rows_after_the_checkpoint_are_forgotten(tmp_path):
  write_rows(tmp_path, [2, 4, 6, 8])
  assert [r['step'] for r in telemetry.read_metrics(str(tmp_path), 5)] == [2, 4]
  write_rows(tmp_path, [6], start=4)
  assert steps_of(tmp_path) == [2, 4, 6]


def test_seconds_go_on_where_the_earlier_part_stopped(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 2, "seconds": 100.5}\n')
  writer = telemetry.MetricsWriter(str(tmp_path), 2)
  assert 100.5 <= writer.seconds() < 160
  writer.close()


def test_no_file_is_no_rows(tmp_path):
  assert telemetry.read_metrics(str(tmp_path)) == []


def test_tensorboard_gets_the_same_values(tmp_path):
  write_rows(tmp_path, [1, 2])
  (name,) = os.listdir(tmp_path / 'tensorboard')
  content = (tmp_path / 'tensorboard' / name).read_bytes()
  assert name.startswith('events.out.tfevents')
  assert content.count(b'loss/total') == 2


def test_tensorboard_does_not_bring_pytorch_along(tmp_path, monkeypatch):
  """A quarter of a gigabyte and seconds of every start, where installed."""
  for name in list(sys.modules):
    if name.split('.')[0] in ('tensorboardX', 'torch'):
      monkeypatch.delitem(sys.modules, name)
  write_rows(tmp_path, [1])
  assert 'tensorboardX' in sys.modules and 'torch' not in sys.modules


class FullDisk(io.StringIO):

  def write(self, text):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told(tmp_path):
  writer = telemetry.MetricsWriter(str(tmp_path), 0)
  writer._file.close()
  writer._file = FullDisk()
  with pytest.raises(errors.UserError) as caught:
    writer.write(1, {'x': 1.0})
  writer.close()
  assert 'metrics.jsonl cannot be written: No space left' in str(caught.value)


def test_a_read_only_folder_is_told(tmp_path, monkeypatch):
  def refuse(path, *unused, **also_unused):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

  monkeypatch.setattr(builtins, 'open', refuse)
  with pytest.raises(errors.UserError, match='Read-only file system'):
    telemetry.MetricsWriter(str(tmp_path), 0)


class Clock:
  """Stands in for time.monotonic, a second a call or more."""

  def __init__(self, monkeypatch):
    self.now = 1000.0
    monkeypatch.setattr(telemetry.time, 'monotonic', lambda: self.now)


def test_without_a_terminal_at_most_a_line_a_minute(monkeypatch, capsys):
  clock = Clock(monkeypatch)
  progress = telemetry.Progress(10_000, 0, pairs_per_step=100)
  for step in range(1, 1801):  # half an hour, a dispatch a second
    clock.now += 1
    progress.update(step, 0.5)
  progress.close()
  out = capsys.readouterr().out
  lines = out.splitlines()
  assert 25 <= len(lines) <= 30
  assert '\r' not in out and '\x1b' not in out
  assert lines[0] == 'step 61 of 10000  loss 0.5  100 pairs/s  9,939 s left'


def test_anything_can_be_counted(monkeypatch, capsys):
  clock = Clock(monkeypatch)
  bar = telemetry.Bar('recommend', 'user', 5000)
  clock.now += 100
  assert bar.show(2000, lambda rate: f'{rate:.0f} users/s') == 20
  bar.close()
  out = capsys.readouterr().out
  assert out == 'user 2000 of 5000  20 users/s  150 s left\n'


def test_a_number_that_nobody_knows_has_no_end(monkeypatch, capsys):
  clock = Clock(monkeypatch)
  bar = telemetry.Bar('embed', 'user', None, file=sys.stderr)
  clock.now += 100
  bar.show(2000, lambda rate: f'{rate:.0f} users/s')
  bar.close()
  told = capsys.readouterr()
  assert (told.out, told.err) == ('', 'user 2000  20 users/s\n')


def test_evaluations_are_lines_of_their_own(monkeypatch, capsys):
  Clock(monkeypatch)
  progress = telemetry.Progress(100, 0, 10)
  progress.update(1, 0.5)
  progress.say('step 1: loss 0.5, validation 0.1')
  progress.close()
  assert capsys.readouterr().out == 'step 1: loss 0.5, validation 0.1\n'


def test_rates_are_of_this_part_of_the_run(monkeypatch):
  clock = Clock(monkeypatch)
  progress = telemetry.Progress(100, start=50, pairs_per_step=1000)
  clock.now += 2
  progress.update(60, 0.5)
  assert progress.pairs_per_second() == pytest.approx(10 * 1000 / 2)
  progress.close()


class Terminal(io.StringIO):

  def isatty(self):
    return True


def test_a_terminal_gets_one_bar(monkeypatch):
  screen = Terminal()
  monkeypatch.setattr(sys, 'stdout', screen)
  monkeypatch.setenv('TERM', 'xterm')
  assert telemetry.is_terminal()
  progress = telemetry.Progress(10, 0, 100)
  progress.update(4, 0.125)
  progress.say('step 4: a line above')
  progress.close()
  shown = screen.getvalue()
  assert 'step 4: a line above' in shown and 'loss 0.125' in shown
  assert 'step 4 of 10' not in shown


@pytest.mark.parametrize('term', ['dumb', None])
def test_a_dumb_terminal_is_none(monkeypatch, term):
  monkeypatch.setattr(sys, 'stdout', Terminal())
  if term is None:
    monkeypatch.delenv('TERM', raising=False)
  else:
    monkeypatch.setenv('TERM', term)
  assert not telemetry.is_terminal()
