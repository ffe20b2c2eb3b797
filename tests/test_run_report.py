# SPDX-License-Identifier: Apache-2.0
"""The report of a run: what it says, and that nobody's names can break it."""

import copy
import dataclasses
import errno
import html
from html import parser as html_parser
import json
import os
import pathlib
import re
import xml.etree.ElementTree

import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import commands
from dropoutnet_jax import errors
from dropoutnet_jax.data import files
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import examples
from dropoutnet_jax.run_report import document
from dropoutnet_jax.run_report import figures
from dropoutnet_jax.run_report import html_page
from dropoutnet_jax.run_report import markdown_page
from dropoutnet_jax.run_report import pages
from tests import tiny_run

pytestmark = pytest.mark.usefixtures(
    'quick_compilation', 'one_device', 'pictures'
)

_HOSTILE = '<script>alert("1")</script> & `x` | *y* \x00\x1b[31m\n# z'
_VOID = {'meta', 'br', 'hr', 'img', 'input', 'link'}


class _Checker(html_parser.HTMLParser):
  """Collects what a page consists of; every tag must be closed in order."""

  def __init__(self):
    super().__init__()
    self.open, self.tags, self.attributes, self.text = [], [], [], ''

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += [(tag, name, value) for name, value in attrs]
    if tag not in _VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):  # within pictures alone
    assert 'svg' in self.open
    self.attributes += [(tag, name, value) for name, value in attrs]

  def handle_endtag(self, tag):
    assert self.open and self.open.pop() == tag, tag

  def handle_data(self, data):
    if 'style' not in self.open:
      self.text += data


def _checked(page: str) -> _Checker:
  """Parses a page: balanced, self-contained, without repeated ids."""
  checker = _Checker()
  checker.feed(page)
  checker.close()
  assert not checker.open
  assert not {'script', 'iframe', 'object', 'link', 'img'} & set(checker.tags)
  ids = [value for _, name, value in checker.attributes if name == 'id']
  assert len(set(ids)) == len(ids)
  for tag, name, value in checker.attributes:
    assert not name.startswith('on')
    if name in ('src', 'href', 'xlink:href', 'data', 'action'):
      assert name == 'href' and tag in ('a', 'use'), (tag, name)
      assert '://' not in value and not value.startswith('//')
      if value.startswith('#'):
        assert value[1:] in ids, value
    for pointed in re.findall(r'url\(#([^)]*)\)', value or ''):
      assert pointed in ids
  assert '@import' not in page and 'url(h' not in page
  return checker


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A finished run with a few baselines."""
  folder = tmp_path_factory.mktemp('report') / 'run'
  cfg = tiny_run.changed(
      evaluation={'baselines': ('random', 'popularity')},
      train={'num_steps': 8, 'eval_every': 4},
  )
  commands.train(cfg, str(folder))
  return folder, cfg


@pytest.fixture
def parts(run):
  """Configuration, results and what only the report shows: to be changed."""
  folder, cfg = run
  results = json.loads((folder / 'results.json').read_text())
  extra = json.loads((folder / 'report' / 'data.json').read_text())
  return cfg, results, extra


def _optional(results: dict) -> dict:
  """The results with everything that another version may add."""
  results = copy.deepcopy(results)
  for split in results['splits'].values():
    methods = split['methods']
    split['intervals'] = {
        label: {name: [value / 2, value * 2] for name, value in values.items()}
        for label, values in methods.items()
    }
    gap = {'difference': 0.125, 'low': -0.25, 'high': 0.5}
    gap |= {'better': 0.75, 'worse': 0.125}
    split['paired'] = {
        label: dict.fromkeys(values, gap)
        for label, values in methods.items()
        if label != 'model'
    }
    one = {'users': 1234, 'pairs': 5678, 'methods': methods}
    split['slices'] = {'item_popularity': {'0': one, '2-4': one}}
    mixed = {'cold_share@20': 0.875, 'gini@20': 0.5, 'distinct_lists': 4321}
    split['mixed'] = {
        'candidates': 80,
        'cold': 20,
        'methods': {label: v | mixed for label, v in methods.items()},
    }
    split['labelled'] = {'model': {'auc': 0.7125, 'gauc': None, 'rows': 9876}}
  results['embedding_rank'] = {'user': 3.25, 'item': 2.75}
  results['chosen'] = {'content_ridge': {'item': {'lambda': 3.0}}}
  results['stopped_early'] = 'no better validation'
  return results


def test_a_run_writes_its_report(run, parts):
  folder, _ = run
  assert sorted(os.listdir(folder / 'report')) == [
      'data.json',
      'index.html',
      'report.md',
  ]
  page = (folder / 'report' / 'index.html').read_text(encoding='utf-8')
  text = _checked(page).text
  markdown = (folder / 'report' / 'report.md').read_text(encoding='utf-8')
  _, results, extra = parts
  for split, found in results['splits'].items():
    value = f"{found['methods']['model']['ndcg@5']:.3f}"
    assert value in text and value in markdown
    assert split in text
  for note in results['notes']:
    assert ' '.join(note.split()) in text
  for title in ('In short', 'Results', 'First interactions', 'Users') + (
      'Training',
      'Data',
      'Configuration',
      'Machine',
      'Terms',
  ):
    assert f'<h2>{title}</h2>' in page and f'## {title}\n' in markdown
    assert f'>{title}</a>' in page  # table of contents
  assert extra['command'].startswith('python ')
  for known in (extra['command'], results['versions']['jax'], 'popularity'):
    assert html.escape(known) in page
  assert '<mark>&#x27;tiny&#x27;</mark>' in page
  assert 'pairs per second' in text
  # Losses, validation, the warm-up of items, and the one test set.
  assert page.count('<svg ') == 4


def test_users_and_their_lists(run, parts):
  folder, _ = run
  _, results, extra = parts
  problem = problem_lib.load(str(folder))
  assert set(extra['users']) == {'cold_item'}
  likes = problem.likes()
  for name, chosen in extra['users'].items():
    held_out = problem.split.evaluation[name]
    best, worst = chosen['best'], chosen['worst']
    assert chosen['metric'] == 'ndcg@5'
    assert 0 < len(worst) <= len(best) <= 5
    ids = [one['id'] for one in best + worst]
    assert len(set(ids)) == len(ids)
    values = [one['value'] for one in best]
    assert values == sorted(values, reverse=True)
    assert max(one['value'] for one in worst) <= min(values)
    mean = results['splits'][name]['methods']['model']['ndcg@5']
    assert worst[0]['value'] <= mean <= best[0]['value']
    for one in best + worst:
      user = problem.user.ids.tolist().index(one['id'])
      assert one['train'] == likes[[user]].nnz
      items = held_out.item[held_out.user == user]
      wanted = set(problem.item.ids[items].tolist())
      assert one['relevant'] == len(wanted)
      assert {item['id'] for item in one['held_out']} <= wanted
      listed = [item['id'] for item in one['listed']]
      assert len(set(listed)) == len(listed) == 10
      assert set(listed) <= set(problem.item.ids[held_out.candidates])
      for item in one['listed']:
        assert item['hit'] == (item['id'] in wanted)
        assert item['words'].startswith('genre=')


class _Scores:
  """Stands for a model: a random score of each pair, no two alike."""

  def __init__(self, problem):
    shape = len(problem.user.ids), len(problem.item.ids)
    order = np.random.default_rng(0).permutation(shape[0] * shape[1])
    self._score = order.reshape(shape).astype(np.float32)

  def methods(self):
    return {
        'model': lambda quadrant, held_out: lambda rows: self._score[rows][
            :, held_out.candidates
        ]
    }


def test_lists_are_those_that_the_metric_is_of(run):
  folder, cfg = run
  problem = problem_lib.load(str(folder))
  held_out = problem.split.evaluation['cold_item']
  liked = problem.split.train.select(np.arange(20))
  everything = np.arange(len(problem.item.ids), dtype=np.int32)
  # A warm set beside it: what is known of a user leaves her list.
  sets = {
      'cold_item': held_out,
      'warm': schema.EvaluationSet(
          held_out.user, held_out.item, everything, exclude_train=True
      ),
      'warm_validation': held_out,
      'cold_user': schema.EvaluationSet(
          held_out.user[:0], held_out.item[:0], everything
      ),
  }
  split = dataclasses.replace(problem.split, train=liked, evaluation=sets)
  problem = dataclasses.replace(problem, split=split)
  found = examples.collect(problem, _Scores(problem), cfg.evaluation)
  assert list(found) == ['cold_item', 'warm']
  known = set(zip(problem.user.ids[liked.user], problem.item.ids[liked.item]))
  for chosen in found.values():
    assert len(chosen['best']) == len(chosen['worst']) == 5
    for one in chosen['best'] + chosen['worst']:
      hits = [item['hit'] for item in one['listed']][:5]
      gain = sum(hit / np.log2(rank + 2) for rank, hit in enumerate(hits))
      ideal = sum(1 / np.log2(r + 2) for r in range(min(5, one['relevant'])))
      assert one['value'] == pytest.approx(gain / ideal, abs=1e-6)
      for item in one['listed']:
        assert (one['id'], item['id']) not in known and not item['words']


def test_best_and_worst():
  value = np.array([0.5, 1.0, 1.0, 0.0, 0.0, 0.25])
  best, worst = examples.choose(value, np.array([3, 3, 9, 3, 9, 1]))
  assert (best, worst) == ([2, 1, 0], [4, 3, 5])
  many = np.linspace(0, 1, 30)
  best, worst = examples.choose(many, np.where(np.arange(30) % 2, 5, 2))
  assert best == [29, 27, 25, 23, 21] and worst == [1, 3, 5, 7, 9]
  assert examples.choose(np.zeros(1), np.ones(1, int)) == ([0], [])


def test_words_of_the_content():
  sparse = scipy.sparse.csr_array(np.array([[0.1, 0.9, 0.0], [0, 0, 0]], 'f'))
  side = problem_lib.Side(np.array(['a', 'b']), np.zeros((2, 0)), sparse)
  describe = examples.content_words(side, ['genre=x', 'tags=y', 'tags=z'])
  assert (describe(0), describe(1)) == ('tags=y, genre=x', '')
  assert examples.content_words(side, ['genre=x'])(0) == 'genre=x'


def test_everything_optional_is_shown(run, parts):
  cfg, results, extra = parts
  page = html_page.render(
      pages.run_document(str(run[0]), cfg, _optional(results), extra)
  )
  text = _checked(page).text
  for shown in (
      '95 % interval',
      '+0.125',
      '-0.250 to +0.500',
      '75.0%',
      '75% of the users are better off with the model, 12% worse',
      'By item popularity',
      '2-4',
      '5,678',
      '80 candidates, 20 of them new',
      '0.875',
      '4,321',
      '0.713' if f'{0.7125:.3f}' == '0.713' else '0.712',
      '9,876',
      'effective rank of user embeddings',
      'content_ridge.item.lambda',
      'Training stopped early: no better validation.',
  ):
    assert shown in text, shown
  assert '<small>' in page


def test_everything_optional_may_be_missing(tmp_path, parts):
  """Also what every run writes today: older results stay readable."""
  cfg, results, _ = parts
  kept = ('experiment', 'step', 'train_seconds', 'examples_per_second')
  least = {name: results[name] for name in kept}
  least['splits'] = {}
  for splits in ({}, {'warm': results['splits']['cold_item']}):
    made = pages.run_document(
        str(tmp_path), cfg, least | {'splits': splits}, {}
    )
    _checked(html_page.render(made))
    assert markdown_page.render(made).startswith('# tiny\n')


def test_hostile_names(run, parts):
  cfg, results, extra = copy.deepcopy(parts)
  cfg.name = results['experiment'] = _HOSTILE
  results = _optional(results)
  results['notes'].append(_HOSTILE)
  results['versions'][_HOSTILE] = _HOSTILE
  split = results['splits'].pop('cold_item')
  split['methods'][_HOSTILE] = split['methods']['model']
  split['slices'] = {
      _HOSTILE: {_HOSTILE: split['slices']['item_popularity']['0']}
  }
  results['splits'][_HOSTILE] = split
  extra['command'] = _HOSTILE
  for chosen in extra['users'].values():
    for one in chosen['best'] + chosen['worst']:
      one['id'] = _HOSTILE
      for item in one['listed'] + one['held_out']:
        item['id'] = item['words'] = _HOSTILE
  made = pages.run_document(str(run[0]), cfg, results, extra)
  page, markdown = html_page.render(made), markdown_page.render(made)
  assert '<script>alert("1")</script>' in _checked(page).text
  # The command stands in a block of code, where nothing means anything.
  lines = [line for line in markdown.splitlines() if line[:4] != '    ']
  markdown = '\n'.join(lines)
  for text in (page, markdown):
    assert '<script' not in text
    assert not [c for c in text if ord(c) < 32 and c != '\n']
  assert '\n# z' not in markdown and '| *y*' not in markdown
  lines = [line for line in markdown.splitlines() if line.startswith('|')]
  assert len(lines) > 50 and all(line.endswith('|') for line in lines)


def test_tables_of_markdown_have_as_many_cells_as_columns():
  table = document.Table(
      ['a|b', 'c'],
      [[_HOSTILE, document.Cell('1', strong=True, note='0–2')]],
  )
  page = document.Document('t', 'l', [document.Section('s', [table])])
  lines = markdown_page.render(page).splitlines()[-3:]
  assert lines[:2] == ['| a\\|b | c |', '| --- | ---: |']
  assert lines[2].endswith(' | **1** (0–2) |')
  for line in lines:
    assert len(re.findall(r'(?<!\\)\|', line)) == 3


def test_the_same_bytes_again(run, parts, tmp_path):
  cfg, results, extra = parts
  names = ('index.html', 'report.md', 'data.json')
  found = []
  for _ in range(2):
    page = pathlib.Path(pages.write_run(str(run[0]), cfg, results, extra))
    found.append([page.with_name(name).read_bytes() for name in names])
  assert found[0] == found[1]


def test_pictures_point_at_nothing_outside():
  points = [(0, 0.125), (1, float('nan')), (2, 0.5)]
  svg = figures.curves(
      {'model': points, '_<b> $x^2$ \u6f22': points},
      x='$n$',
      y='y',
      vertical=(1, 'here'),
  )
  root = xml.etree.ElementTree.fromstring(svg)
  assert root.tag == 'svg' and root.get('viewBox')
  assert '://' not in svg and 'currentColor' in svg
  assert '$x^2$' in svg and '&lt;b&gt;' in svg
  bars = [figures.Bar('model', 0.5, (0.25, 0.75)), figures.Bar('other', 0.0)]
  assert '0.500' in figures.intervals(bars, 'NDCG@20')


def test_a_report_that_cannot_be_written_is_no_failure(
    run, monkeypatch, capsys
):
  folder, cfg = run
  before = (folder / 'report' / 'index.html').read_bytes()
  real = files.write

  def write(path, fill):
    if path.endswith('index.html'):
      full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
      raise errors.UserError(f'{path} cannot be written: {full.strerror}.')
    real(path, fill)

  monkeypatch.setattr(files, 'write', write)
  results = commands.evaluate(str(folder))
  out = capsys.readouterr().out
  assert 'Written to' in out and results['splits']
  assert out.splitlines()[-1].startswith(
      'There is no report, though all else is written: '
  )
  assert 'index.html cannot be written: No space left' in out
  assert (folder / 'report' / 'index.html').read_bytes() == before
  monkeypatch.undo()
  command = pages.command_of(str(folder))
  commands.evaluate(str(folder))
  assert pages.command_of(str(folder)) == command  # that of the training


def test_a_file_in_the_way(run, parts, tmp_path):
  cfg, results, extra = parts
  (tmp_path / 'report').write_text('mine')
  said = pages.say_where(
      lambda: pages.write_run(str(tmp_path), cfg, results, extra)
  )
  assert said.startswith('There is no report') and 'report cannot be' in said
  assert (tmp_path / 'report').read_text() == 'mine'
  assert pages.command_of(str(tmp_path)) == ''


def test_half_written_files_go(run, parts):
  folder, cfg = run
  half = folder / 'report' / 'index.html.123.tmp'
  half.write_text('<ht')
  (folder / 'report' / 'notes.tmp').write_text('mine')
  pages.write_run(str(folder), cfg, *parts[1:])
  assert not half.exists()
  (folder / 'report' / 'notes.tmp').unlink()


def _sweep(field: str) -> dict:
  methods = {
      label: {'recall@5': [0.5, None], 'recall@20': [0.25, 0.5]}
      | {'ndcg@20': [0.1, 0.2], 'mrr': [0.1, 0.2]}
      for label in ('model', 'random')
  }
  split = {'users': [1, 2], 'candidates': [3, 4], 'methods': methods}
  return {
      'experiment': _HOSTILE,
      'field': field,
      'values': [0.5, 0.0],
      'train_seconds': [1.5, 2.5],
      'splits': {'cold_item': split, 'warm': split},
  }


def test_a_sweep(tmp_path):
  table = _sweep('dropout.item_rate')
  folders = ['dropout.item_rate=0.5', 'dropout.item_rate=0']
  path = pages.write_sweep(str(tmp_path), table, folders)
  page = pathlib.Path(path).read_text(encoding='utf-8')
  checker = _checked(page)
  assert page.count('<svg ') == 2  # recall at the largest cut-off, and NDCG
  links = [
      v for tag, name, v in checker.attributes if (tag, name) == ('a', 'href')
  ]
  assert '../dropout.item_rate%3D0.5/report/index.html' in links
  assert 'dropout.item_rate = 0.5' in checker.text
  assert 'Means over the runs' not in checker.text


def _means() -> dict:
  mean = {
      'model': {'recall@20': 0.25, 'ndcg@20': 0.125, 'auc': None, 'mrr': 0.5},
      'random': {'recall@20': 0.1, 'ndcg@20': 0.1},
  }
  spread = {m: dict.fromkeys(values, 0.0625) for m, values in mean.items()}
  spread['random']['ndcg@20'] = None
  return {'mean': mean, 'deviation': spread}


def test_a_sweep_over_seeds(tmp_path):
  table = _sweep('train.seed')
  table['splits']['warm'] |= _means()
  path = pages.write_sweep(str(tmp_path), table, ['a', 'b'])
  page = pathlib.Path(path).read_text(encoding='utf-8')
  text = _checked(page).text
  assert '<svg ' not in page and 'Means over the runs' in text
  assert '0.2500 (0.0625)' in text and '0.1000<' in page


def test_a_comparison(tmp_path):
  one = {'splits': {'warm': {'methods': {}} | _means()}, 'step_seconds': [0.25]}
  table = {
      'experiment': 'losses',
      'seeds': [0, 1],
      'variants': {_HOSTILE: one, 'b': {**one, 'step_seconds': [None]}},
  }
  path = pages.write_comparison(str(tmp_path), table)
  text = _checked(pathlib.Path(path).read_text(encoding='utf-8')).text
  assert '2 variants, each with train.seed 0, 1.' in text
  assert '250.0' in text and '0.2500 (0.0625)' in text
