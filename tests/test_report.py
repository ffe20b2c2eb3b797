# SPDX-License-Identifier: Apache-2.0
"""Tables: their order, what is bold, and what ends up in a file."""

import io
import itertools
import os
import sys

from matplotlib import axes as axes_lib
from matplotlib import image
import numpy as np
import pytest

from dropoutnet_jax import experiment
from dropoutnet_jax import report
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.evaluation import sparse_file
from dropoutnet_jax.evaluation import sparse_fit
from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import run_folder
from tests import command_line

_CITEULIKE = """
from dropoutnet_jax import config


def get_config():
  return config.Config(
      name='papers',
      data=config.DataConfig(
          name='citeulike-a', warm_share=0.0, cold_item_share=0.25
      ),
      features=config.FeaturesConfig(item=[config.Feature(column='tags')]),
      teacher=config.TeacherConfig(rank=3, num_iterations=1),
      model=config.ModelConfig(tower='paper', hidden=(5,), rank=2),
      train=config.TrainConfig(batch_size=12),
  )
"""


def _results(**splits: dict) -> dict:
  return {
      'experiment': 'tiny',
      'step': 40,
      'train_seconds': 1.25,
      'examples_per_second': 1234567.8,
      'splits': splits,
  }


def _split(**methods: tuple[float, float]) -> dict:
  return {
      'users': 1234,
      'candidates': 5678,
      'methods': {
          name: {'recall@20': a, 'ndcg@20': b, 'hit@20': 0.5, 'mrr': 0.5}
          for name, (a, b) in methods.items()
      },
  }


def _cells(results: dict) -> list[list[str]]:
  """The rows of the table, markup included."""
  table = report.results_table(results)
  columns = [list(column.cells) for column in table.columns]
  return [list(map(str, row)) for row in zip(*columns, strict=True)]


def _printed(capsys, function, *arguments) -> str:
  function(*arguments)
  return capsys.readouterr().out


def test_rows_and_bold_values():
  split = _split(
      random=(0.1, 0.1),
      mine=(0.4, 0.5),
      teacher=(0.45, 0.25),
      model=(0.5, 0.4),
      oracle=(0.9, 0.9),
  )
  rows = _cells(_results(cold_item=split))
  assert rows == [
      ['cold_item', 'oracle', '0.900', '0.900'],
      ['1,234 users', 'model', '[bold]0.500[/]', '0.400'],
      ['5,678 candidates', 'teacher', '0.450', '0.250'],
      ['', 'random', '0.100', '0.100'],
      ['', 'mine', '0.400', '[bold]0.500[/]'],
  ]


def test_labelled_rows_have_columns_of_their_own():
  split = _split(model=(0.5, 0.1), random=(0.4, 0.2))
  split['labelled'] = {
      'model': {'auc': 0.75, 'gauc': None, 'log_loss': 0.5},
      'random': {'auc': 0.5, 'gauc': 0.25},
  }
  rows = _cells(_results(warm=split, cold_item=_split(model=(0.3, 0.3))))
  assert rows[:2] == [
      ['warm', 'model', '[bold]0.500[/]', '0.100', '[bold]0.750[/]', ''],
      ['1,234 users', 'random', '0.400', '[bold]0.200[/]', '0.500']
      + ['[bold]0.250[/]'],
  ]
  assert rows[3] == ['cold_item', 'model', *['[bold]0.300[/]'] * 2, '', '']


def test_ties_are_all_bold_and_short_splits_are_whole():
  rows = _cells(_results(warm=_split(model=(0.5, 0.1), random=(0.5, 0.2))))
  assert rows == [
      ['warm', 'model', '[bold]0.500[/]', '0.100'],
      ['1,234 users', 'random', '[bold]0.500[/]', '[bold]0.200[/]'],
      ['5,678 candidates', '', '', ''],
  ]


def test_no_splits():
  assert report.shown_metrics(_results()) == []
  assert not _cells(_results())


def test_a_file_gets_no_control_characters(capsys):
  split = _split(model=(0.5, 0.1), random=(0.5, 0.2))
  out = _printed(capsys, report.print_results, _results(warm=split))
  assert 'tiny: step 40, 1.2 s of training, 1,234,568 pairs/s' in out
  assert not [c for c in out if ord(c) < 32 and c != '\n']
  assert '[bold]' not in out and '0.500' in out


def test_a_file_is_as_wide_as_it_needs_to_be(capsys):
  names = [f'{m}@{k}' for m in ('recall', 'ndcg') for k in range(1000, 1020)]
  split = _split()
  split['methods']['model'] = dict.fromkeys(names, 0.5)
  out = _printed(capsys, report.print_results, _results(warm=split))
  for name in names:
    assert name in out
  notes = ['A sentence that is said ' + 'again and ' * 60 + 'again.']
  assert notes[0] + '\n' == _printed(capsys, report.print_facts, {'x': notes})


def test_names_are_no_markup(capsys):
  results = _results(warm=_split(model=(0.5, 0.1)))
  results['experiment'] = 'a[/b] [red]'
  out = _printed(capsys, report.print_results, results)
  assert 'a[/b] [red]: step 40' in out
  facts = {'data': {'u [i]': 1, 'x[/]': '[bold]'}, 'notes': ['[red] [/x]']}
  out = _printed(capsys, report.print_facts, facts)
  for text in ('u [i]', 'x[/]', '[bold]', '[red] [/x]'):
    assert text in out


def test_facts(capsys):
  facts = {
      'data': {'users': 12345, 'density': 0.0123, 'text': 'x'},
      'splits': {'cold_item': {'users': 3, 'pairs': 1000}},
      'features': {'both': (1, 2, 3)},
  }
  out = _printed(capsys, report.print_facts, facts)
  lines = [' '.join(line.split()) for line in out.splitlines()]
  for line in (
      'data',
      'users 12,345',
      'density 1.23%',
      'text x',
      'cold_item users 3, pairs 1,000',
      'both 1 / 2 / 3',
  ):
    assert line in lines


def test_a_terminal_sees_bold(monkeypatch):
  class Terminal(io.StringIO):

    def isatty(self):
      return True

  monkeypatch.setenv('TERM', 'xterm')
  for name in ('NO_COLOR', 'FORCE_COLOR', 'TTY_COMPATIBLE'):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setattr(sys, 'stdout', Terminal())
  split = _split(model=(0.5, 0.1), random=(0.4, 0.2))
  report.print_results(_results(warm=split))
  out = sys.stdout.getvalue()  # type: ignore[attr-defined]
  assert '\x1b[1m0.500\x1b[0m' in out and '\x1b[1m0.400' not in out


def _sweep_table(field, values, **splits):
  """What sweep.json holds, from {split: {method: {metric: [per run]}}}."""
  num_runs = len(values)
  found = {
      split: {
          'users': [1234] * num_runs,
          'candidates': [1000, 1200, 1100][:num_runs],
          'methods': methods,
      }
      for split, methods in splits.items()
  }
  return {
      'experiment': 'tiny',
      'field': field,
      'values': values,
      'splits': found,
  }


def test_a_plot_of_a_sweep(tmp_path):
  metrics = {'recall@5': [0.1, 0.2], 'recall@20': [None, 0.4], 'mrr': [0, 0]}
  methods = {'model': metrics, 'random': metrics}
  field = 'dropout.item_rate'
  table = _sweep_table(field, [0.0, 0.5], warm=methods, cold_both=methods)
  path = tmp_path / 'sweep.png'
  report.plot_sweep(table, str(path))
  height, width, _ = image.imread(path).shape
  assert (width, height) == (900, 600)
  assert os.listdir(tmp_path) == ['sweep.png']  # written beside and renamed


def test_a_plot_goes_from_left_to_right(tmp_path, monkeypatch):
  drawn = []
  monkeypatch.setattr(
      axes_lib.Axes,
      'plot',
      lambda self, x, y, **options: drawn.append((x, y, options['label'])),
  )
  monkeypatch.setattr(axes_lib.Axes, 'legend', lambda self: None)
  metrics = {'recall@5': [9, 9, 9], 'recall@20': [0.1, 0.2, 0.3]}
  table = _sweep_table(
      'dropout.item_rate',
      [1.0, 0.0, 0.5],
      cold_item={'model': metrics},
      cold_item_validation={'model': metrics},
  )
  report.plot_sweep(table, str(tmp_path / 'sweep.png'))
  assert drawn == [([0.0, 0.5, 1.0], [0.2, 0.3, 0.1], 'cold_item')]


def test_a_table_of_seeds(capsys):
  methods = {
      label: {'recall@5': [0.0] * 3, 'mrr': [0.0] * 3}
      for label in ('random', 'model', 'oracle')
  }
  table = _sweep_table('train.seed', [0, 1, 2], warm=methods)
  table['splits']['warm']['mean'] = {
      'random': {'recall@5': 0.1},
      'model': {'recall@5': 0.57541},
      'oracle': {'recall@5': 0.9},
  }
  table['splits']['warm']['deviation'] = {
      'random': {'recall@5': None},
      'model': {'recall@5': 0.00123},
      'oracle': {'recall@5': 0.0},
  }
  columns = [list(x.cells) for x in report.seeds_table(table).columns]
  assert [list(map(str, row)) for row in zip(*columns, strict=True)] == [
      ['warm', 'oracle', '0.9000 (0.0000)'],
      ['1,234 users', 'model', '[bold]0.5754 (0.0012)[/]'],
      ['1,000-1,200 candidates', 'random', '0.1000'],
  ]
  out = ' '.join(_printed(capsys, report.print_seeds, table).split())
  title = 'tiny: mean (standard deviation) over train.seed = 0, 1, 2'
  assert title in out and '0.5754 (0.0012)' in out and '[bold]' not in out


# What `describe` says, on data whose numbers are known.


@pytest.fixture
def papers(tmp_path, monkeypatch):
  """12 users, 16 papers: every third pair, user 0 has one twice."""
  monkeypatch.chdir(tmp_path)
  pairs = [(u, i) for u, i in itertools.product(range(12), range(16))]
  pairs = [(u, i) for u, i in pairs if (u + i) % 3 == 0]
  likes = [[str(i) for u, i in pairs if u == user] for user in range(12)]
  likes[0].append(likes[0][0])
  line = lambda values: f'{len(values)} {" ".join(values)}\n'
  tags = [[str(paper % 4), str(4 + paper % 3)] for paper in range(16)]
  command_line.write(
      tmp_path,
      {
          'papers.py': _CITEULIKE,
          'data/citeulike-a/users.dat': ''.join(map(line, likes)),
          'data/citeulike-a/item-tag.dat': ''.join(map(line, tags)),
          'data/citeulike-a/tags.dat': ''.join(f't{n}\n' for n in range(7)),
      },
  )
  return np.array(pairs)


def test_description(papers, tmp_path):
  before = command_line.snapshot(tmp_path)
  ended = command_line.call('describe', '--config=papers.py', '--data_dir=data')
  assert (ended.status, ended.err) == (0, '')
  assert command_line.snapshot(tmp_path) == before  # it keeps nothing
  lines = [' '.join(line.split()) for line in ended.out.splitlines()]
  # 4 of 16 papers are cold for the test and 4 for validation.
  assert 'users 12' in lines and 'items 16' in lines
  assert 'cold items 50.00%' in lines and 'cold users 0.00%' in lines
  (pairs,) = [line for line in lines if line.startswith('training pairs')]
  count = int(pairs.split()[-1])
  assert f'density {count / (12 * 16):.2%}' in lines
  held_out = 0
  for name in ('cold_item', 'cold_item_validation'):
    (line,) = [x for x in lines if x.startswith(f'{name} users')]
    assert 'candidates 4, pairs' in line
    held_out += int(line.split()[-1])
  assert count + held_out == len(papers)
  # Dense without bias, batch norm, dense; preference 3, content 0 or 7.
  for side, width in (('user', 3), ('item', 3 + 7)):
    size = width * 5 + 2 * 5 + 5 * 2 + 2
    (line,) = [x for x in lines if x.startswith(f'{side} tower')]
    assert int(line.split()[-1]) == size
  assert 'embedding rank 2' in lines
  assert 'item: dense / sparse columns, rows without content 7 / 7 / 0' in lines
  assert (
      'user: dense / sparse columns, rows without content 0 / 0 / 12' in lines
  )
  assert 'users.dat repeats 1 pair(s); each counts once.' in lines
  assert not [c for c in ended.out if ord(c) < 32 and c != '\n']


def test_description_of_a_run_folder(tmp_path_factory, monkeypatch):
  """The folder says what it is of; --config is not needed."""
  run = command_line.finished_run(tmp_path_factory)
  monkeypatch.chdir(run.parent)
  before = command_line.snapshot(run)
  ended = command_line.call('describe', '--workdir=run')
  assert (ended.status, ended.err) == (0, '')
  lines = [' '.join(line.split()) for line in ended.out.splitlines()]
  for line in ('users 60', 'items 80', 'embedding rank 4'):
    assert line in lines
  assert command_line.snapshot(run) == before


@pytest.mark.parametrize('kept', [False, True])
def test_description_of_the_sparse_part(papers, tmp_path, monkeypatch, kept):
  """Beside the towers: histories, both sides of the correction, content."""
  command, fitted = ['describe', '--workdir=run'], []
  if kept:
    cfg = experiment.load('papers.py')
    cfg.model.sparse.enabled = True
    problem = prepare.prepare(cfg, 'data', None)
    with run_folder.open_folder('run', cfg):
      problem_lib.save(problem, 'run')
    part = sparse_fit.fit(problem, cfg.model.sparse, cfg.train.seed)
    sparse_file.save(part, 'run')
    monkeypatch.setattr(sparse_fit, 'fit', lambda *_: fitted.append(1))
  else:
    command = ['describe', '--config=papers.py', '--data_dir=data']
    command.append('--config.model.sparse.enabled=true')
  before = command_line.snapshot(tmp_path)
  ended = command_line.call(*command)
  assert (ended.status, ended.err) == (0, '') and not fitted
  assert command_line.snapshot(tmp_path) == before
  lines = [' '.join(line.split()) for line in ended.out.splitlines()]
  # 7 tags; 8 training papers, so that the correction has rank 7 at most.
  assert 'sparse part: columns / correction rank 7 / 7' in lines
  (line,) = [x for x in lines if x.startswith('sparse part: nonzeros')]
  history, content = (int(text) for text in line.split()[-3::2])
  assert history >= 12 and content == 16 * 2
  assert f'sparse part: fitted numbers {history + 12 * 7 + 7 * 7}' in lines
  (line,) = [x for x in lines if x.startswith('sparse part ')]
  size = int(line.split()[-1].replace(',', ''))
  assert size >= 4 * (2 * history + 12 * 7 + 7 * 7)
  (line,) = [x for x in lines if x.startswith('sparse content of the items')]
  assert int(line.split()[-1]) >= 8 * content
