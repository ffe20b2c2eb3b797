# SPDX-License-Identifier: Apache-2.0
"""Memory, tables and messages of the comparisons.

The comparisons themselves take minutes; `run.py bench` runs them.
"""

import dataclasses
import json
import sys

import jax
import numpy as np
import pytest

from benchmarks import comparison
from benchmarks import memory
from benchmarks import suite
from benchmarks import task
from benchmarks import teacher
from dropoutnet_jax import errors
from dropoutnet_jax.training import prepare


def test_memory_is_the_childs_alone():
  ballast = np.ones(60_000_000)  # 480 MB here, which must not count
  command = [sys.executable, '-c', "kept = b'x' * 100_000_000"]
  peak = memory.peak_bytes(command)
  assert len(ballast) and 1.0e8 < peak < 1.6e8


def test_memory_of_a_command_that_fails():
  command = [sys.executable, '-c', 'import sys; sys.exit("no such paper")']
  with pytest.raises(errors.UserError, match='status 1: no such paper'):
    memory.peak_bytes(command)


def test_memory_reads_both_variants(monkeypatch):
  commands = []

  def peak_bytes(command):
    commands.append(command)
    return 2_500_000_000 if len(commands) == 1 else 1_000_000_000

  monkeypatch.setattr(memory, 'peak_bytes', peak_bytes)
  rows = memory.run('somewhere').rows
  assert [(row.ours, row.ratio, row.met) for row in rows] == [
      (2500.0, 0.8, False),
      (1000.0, 2.0, True),
  ]
  assert all('--data_dir=somewhere' in command for command in commands)
  texts = [' '.join(command) for command in commands]
  assert ['content_ridge' in text for text in texts] == [True, False]


def test_without_a_folder_the_data_is_downloaded(tmp_path, monkeypatch):
  """Nothing stands between a missing --data_dir and the readers."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(jax.config, 'update', lambda *_: None)
  commands, folders = [], []
  monkeypatch.setattr(
      memory, 'peak_bytes', lambda command: commands.append(command) or 1
  )

  def reads(cfg, data_dir, workdir):
    folders.append(data_dir)
    raise errors.UserError('no network')

  suite.run(['memory'], None)
  assert len(commands) == 2
  assert not any('data_dir' in ' '.join(command) for command in commands)
  monkeypatch.setattr(prepare, 'prepare', reads)
  with pytest.raises(errors.UserError, match='no network'):
    task.load_problem(None)
  assert folders == [None]


def test_teacher_table(monkeypatch):
  def pair(seconds, recall, ratio):
    sides = {
        name: {'seconds per iteration': each[0], 'recall@100': each[1]}
        for name, each in zip(
            (teacher.als.OURS, teacher.als.THEIRS), zip(seconds, recall)
        )
    }
    return {**sides, 'ratio': ratio}

  found = {
      teacher.als.EXACT: pair((2.0, 5.0), (0.496, 0.5), 2.4),
      teacher.als.GRADIENTS: pair((1.25, 1.0), (0.494, 0.5), 0.8),
  }
  monkeypatch.setattr(teacher.als, 'compare', lambda data_dir: found)
  rows = teacher.run('somewhere').rows
  assert [(row.ours, row.other) for row in rows] == [
      (2.0, 5.0),
      (0.496, 0.5),
      (1.25, 1.0),
      (0.494, 0.5),
  ]
  assert [row.ratio for row in rows] == [2.4, 0.496 / 0.5, 0.8, 0.494 / 0.5]
  assert [row.met for row in rows] == [True, True, None, False]


def test_shown_numbers():
  values = (20_345_678.4, 123.4, 99.44, 1.0, 0.47912, 0.0)
  assert [comparison.shown(value) for value in values] == [
      '20,345,678',
      '123',
      '99.4',
      '1',
      '0.479',
      '0',
  ]


def test_table_has_both_sides_ratio_and_bar():
  rows = [
      comparison.Row('pairs per second', 2e7, 2e4, 1000.0, 500.0),
      comparison.Row('seconds', 2.0, 90.0, 45.0, 50.0, is_bound=True),
      comparison.Row('pairs', 3.0, 4.0, 0.75),
  ]
  table = comparison.make_table(comparison.Comparison('t', 'PyTorch', rows))
  cells = [list(column.cells) for column in table.columns]
  assert table.columns[1].header == 'dropoutnet_jax'
  assert table.columns[2].header == 'PyTorch'
  assert list(zip(*cells)) == [
      ('pairs per second', '20,000,000', '20,000', '1,000', '500', 'reached'),
      ('seconds', '2', '> 90', '> 45', '50', '[bold]missed[/]'),
      ('pairs', '3', '4', '0.75', '', ''),
  ]


def test_suites_are_chosen_once_and_in_order():
  assert suite.choose(['all']) == list(suite.SUITES)
  assert suite.choose(['memory', 'speed', 'memory']) == ['memory', 'speed']


@pytest.mark.parametrize(
    'suites, message',
    [
        (['sped'], "--suite=sped: there is no such suite.*'speed'"),
        (['speed', ''], '--suite=: there is no such suite'),
        ([], '--suite is empty'),
    ],
)
def test_what_bench_refuses(suites, message, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(errors.UserError, match=message):
    suite.run(suites, 'somewhere')
  assert not list(tmp_path.iterdir())


def test_run_shows_and_keeps_what_it_finds(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(jax.config, 'update', lambda *_: None)
  row = comparison.Row('peak MB', 1500.0, 2000.0, 4 / 3, 1.0)
  found = comparison.Comparison('Memory', 'at most', [row], ['a remark'])
  monkeypatch.setattr(memory, 'run', lambda data_dir: found)
  suite.run(['memory'], 'somewhere')
  shown = capsys.readouterr().out
  for part in ('Memory', 'peak MB', '1,500', 'reached', 'a remark'):
    assert part in shown
  kept = json.loads((tmp_path / 'runs' / 'bench' / 'bench.json').read_text())
  assert kept['suites']['memory']['rows'] == [
      dataclasses.asdict(row) | {'met': True}
  ]
  assert kept['cpus'] == task.num_threads()


def test_the_experiment_is_the_cold_one():
  cfg = task.load_config()
  cfg.validate()
  assert (cfg.name, cfg.data.split) == ('citeulike_a_cold', 'published-cold')
  assert cfg.model.tower == 'paper', 'PyTorch has the paper tower alone'
  assert not (
      cfg.dropout.user_transform_rate or cfg.dropout.item_transform_rate
  )
