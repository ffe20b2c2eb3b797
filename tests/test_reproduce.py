# SPDX-License-Identifier: Apache-2.0
"""`reproduce`: runs over seeds, the table that they make, and what moved.

A program that stands in for run.py writes results at once; its values are read
from plan.json, and what it was called with is kept in calls.jsonl. One run is
trained for real.
"""

import json
import os
import pathlib
import shutil
import signal

import pytest

from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax import experiment
from dropoutnet_jax import moves
from dropoutnet_jax import reproduce
from dropoutnet_jax import results_table
from tests import command_line

_EXPERIMENT = """r'''What {name} shows.

More of it.
'''
from dropoutnet_jax import config


def get_config():
  cfg = config.Config(name='{name}')
  cfg.data.cold_item_share = 0.2
  cfg.features.item = [config.Feature(column='genre', kind='category')]
  cfg.train.num_steps = 7
  return cfg
"""
_PROGRAM = """
import json, os, sys
with open('calls.jsonl', 'a') as file:
  file.write(json.dumps(sys.argv[1:]) + '\\n')
with open('plan.json') as file:
  plan = json.load(file)
flags = dict(x.removeprefix('--').split('=', 1) for x in sys.argv[2:])
seed = int(flags['config.train.seed'])
exec(plan.get('first', ''))
methods = {
    method: {
        'recall@20': value + seed * spread,
        'ndcg@20': value / 2,
        'hit@20': 1.0,
        'mrr': 1.0,
    }
    for method, (value, spread) in plan['methods'].items()
}
part = {'users': 1200, 'candidates': 600, 'methods': methods}
labelled = {name: {'auc': 0.75, 'log_loss': 1.0} for name in methods}
os.makedirs(flags['workdir'], exist_ok=True)
with open(os.path.join(flags['workdir'], 'results.json'), 'w') as file:
  json.dump({
      'last_step': 7,
      'stopped_early': '',
      'train_seconds': 10.0 + seed,
      'prepare_seconds': {'read': 1.5, 'teacher': 2.5},
      'evaluate_seconds': 4.0,
      'peak_memory_bytes': 1500000000,
      'peak_device_memory_bytes': None,
      'devices': 'cpu:1',
      'versions': {'python': '3.11.0', 'jax': plan.get('jax', '0.0.1')},
      'splits': {
          'cold_item': part | {'labelled': labelled},
          'cold_item_validation': part,
      },
  }, file)
"""
_METHODS = {'model': (0.4, 0.01), 'random': (0.05, 0.0)}


class Fake:
  """The stand-in, in the current folder."""

  def __init__(self, folder: pathlib.Path):
    (folder / 'experiments').mkdir()
    (folder / 'run.py').write_text(_PROGRAM)
    for name in ('alpha', 'beta'):
      text = _EXPERIMENT.format(name=name)
      (folder / 'experiments' / f'{name}.py').write_text(text)
    self.plan()

  def plan(self, **plan):
    """What the next runs give."""
    plan = {'methods': _METHODS} | plan
    pathlib.Path('plan.json').write_text(json.dumps(plan))

  def calls(self):
    path = pathlib.Path('calls.jsonl')
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]

  def run(self, *experiments, **changes):
    """Reproduces into RESULTS.md of the current folder."""
    values = {
        'data_dir': None,
        'workdir': 'runs',
        'experiments': experiments or ('all',),
        'seeds': ('0', '1', '2'),
        'output': 'RESULTS.md',
    }
    return reproduce.run(reproduce.Request('run.py', **values | changes))


@pytest.fixture
def fake(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(reproduce, 'EXPERIMENTS', ('alpha', 'beta'))
  return Fake(tmp_path)


def test_every_seed_is_a_process_and_the_table_says_all_of_it(fake, capsys):
  assert fake.run('alpha', data_dir='data', compile_cache='xla') == 0
  assert fake.calls() == [
      [
          'train',
          f'--config={os.path.abspath("experiments/alpha.py")}',
          f'--workdir=runs/alpha/train.seed={seed}',
          '--compile_cache=xla',
          f'--config.train.seed={seed}',
          '--data_dir=data',
      ]
      for seed in (0, 1, 2)
  ]
  text = pathlib.Path('RESULTS.md').read_text()
  lines = text.splitlines()
  assert (
      '| split | method | recall@20 | ndcg@20 | auc |' in lines
  ), 'neither hit rates nor losses of labels'
  row = '**0.4100 (0.0100)** | **0.2000 (0.0000)** | **0.7500 (0.0000)** |'
  head = '| cold_item: 1,200 users, 600 candidates | model | '
  assert head + row in lines
  # As good as the best is best as well.
  row = (
      '|  | random | 0.0500 (0.0000) | 0.0250 (0.0000) | **0.7500 (0.0000)** |'
  )
  assert row in lines
  assert 'validation' not in text
  assert '## alpha\n\nWhat alpha shows.\n' in text and 'More of it' not in text
  command = 'python run.py reproduce --experiments=alpha --seeds=0,1,2'
  assert command in lines, 'made up data needs no --data_dir'
  (overview,) = [line for line in lines if line.startswith('| [alpha](#alpha)')]
  cells = overview.split(' | ')
  assert cells[1:4] == ['0, 1, 2', '19 (1)', '1.50 (0.00)']
  assert cells[4] == f'cpu:1, {os.cpu_count()} cores'
  assert 'Seconds: prepare 4.0 (0.0), train 11.0 (1.0), evaluate 4.0' in text
  assert 'Versions: python 3.11.0, jax 0.0.1.' in text
  found = json.loads(pathlib.Path('RESULTS.json').read_text())
  entry = found['experiments']['alpha']
  model = entry['splits']['cold_item']['methods']['model']
  assert model['recall@20'] == [0.4, 0.41, 0.42]
  assert '"recall@20": [0.4, 0.41, 0.42]' in (
      pathlib.Path('RESULTS.json').read_text()
  )
  out = capsys.readouterr().out
  assert 'alpha, seed 1: running in runs/alpha/train.seed=1\n' in out
  assert 'alpha: 6 new' in out and 'oved' not in out
  assert out.endswith('Written to RESULTS.md and RESULTS.json\n')


def test_finished_runs_are_not_repeated_and_nothing_has_moved(fake, capsys):
  fake.run('alpha', seeds=('0', '1'))
  before = pathlib.Path('RESULTS.md').read_text()
  shutil.rmtree('runs/alpha/train.seed=1')
  damaged = pathlib.Path('runs/alpha/train.seed=0/results.json')
  capsys.readouterr()
  assert fake.run('alpha', seeds=('0', '1'), check=True) == 0
  assert len(fake.calls()) == 3 and fake.calls()[-1] == fake.calls()[-2]
  out = capsys.readouterr().out
  taken = 'alpha, seed 0: taken from runs/alpha/train.seed=0 (made with python'
  assert taken in out and 'alpha: 6 same' in out
  assert 'Nothing of RESULTS.md moved.\n' in out
  assert '  seconds 18.5, 18.5 before: 1.00 times\n' in out
  assert 'Written' not in out
  # Results that do not tell all that the table shows are made again.
  results = json.loads(damaged.read_text())
  del results['peak_memory_bytes']
  damaged.write_text(json.dumps(results))
  fake.run('alpha', seeds=('0', '1'))
  assert len(fake.calls()) == 4
  assert pathlib.Path('RESULTS.md').read_text() == before


def test_what_moved_is_told_before_the_table_changes(fake, capsys):
  fake.run('alpha')
  before = command_line.snapshot(pathlib.Path('.'))
  fake.plan(methods={'model': (0.3, 0.01), 'teacher': (0.1, 0.0)}, jax='0.0.2')
  capsys.readouterr()
  again = {'workdir': 'new', 'seeds': ('0', '1')}
  assert fake.run('alpha', check=True, **again) == 1
  after = command_line.snapshot(pathlib.Path('.'))
  assert before['RESULTS.md'] == after['RESULTS.md']
  assert before['RESULTS.json'] == after['RESULTS.json']
  out = capsys.readouterr().out
  assert 'alpha: 1 same, 2 down, 3 new, 3 gone' in out
  assert '0.3050 down (0.4100)' in out and '0.7500 same' in out
  assert '0.1000 new' in out and 'gone (0.0500)' in out
  assert '  seeds 0, 1, 0, 1, 2 before\n' in out
  assert '  jax 0.0.2, 0.0.1 before\n' in out
  assert 'peak memory 1.5 GB, 1.5 GB before: 1.00 times\n' in out
  assert 'Moved since RESULTS.md was written: alpha.\n' in out
  assert fake.run('alpha', **again) == 0  # says it, and is no failure
  assert '0.3050 down (0.4100)' in capsys.readouterr().out
  assert '**0.3050 (0.0071)**' in pathlib.Path('RESULTS.md').read_text()


def test_rows_of_other_experiments_stay(fake):
  fake.run('beta')
  beta = results_table.load('RESULTS.md')['beta']
  fake.plan(methods={'model': (0.3, 0.0)})
  fake.run('alpha')
  found = results_table.load('RESULTS.md')
  assert list(found) == ['alpha', 'beta']  # in the order of the list
  assert found['beta'] == beta
  text = pathlib.Path('RESULTS.md').read_text()
  assert text.index('## alpha') < text.index('## beta')
  fake.run('all')
  assert len(fake.calls()) == 6
  assert results_table.load('RESULTS.md') == found


@pytest.mark.parametrize(
    'before, now, verdict',
    [
        ([0.4], [0.4019], 'same'),  # one run says nothing of chance
        ([0.4], [0.4021], 'up'),
        ([0.4], [0.3979], 'down'),
        ([0.39, 0.41], [0.44, 0.44], 'same'),  # deviation 0.014
        ([0.39, 0.41], [0.443, 0.443], 'up'),
        ([0.4, 0.4], [0.37, 0.39], 'same'),  # the larger deviation counts
        ([0.4, 0.4], [0.4004, 0.4004], 'same'),  # no digit that is shown
        ([0.4, 0.4], [0.3994, 0.3994], 'down'),
        ([0.39, 0.41], [0.44], 'same'),
        ([0.4, None], [0.41, None], 'up'),  # one run of two has a value
        ([], [0.4], 'new'),
        ([None], [0.4], 'new'),
        ([0.4], [None, None], 'gone'),
    ],
)
def test_verdicts(before, now, verdict):
  entry = lambda values: {
      'splits': {'warm': {'methods': {'model': {'mrr': values}}}}
  }
  found = moves.compare(entry(before), entry(now))
  assert found['warm', 'model', 'mrr'].verdict == verdict


def test_a_run_that_fails_ends_it_with_what_the_run_said(fake, capfd):
  fake.plan(
      first='if seed:\n'
      '  print("a warning", "run.py: no data. Fetch it.", sep="\\n", '
      'file=sys.stderr)\n'
      '  sys.exit(2)\n'
  )
  with pytest.raises(errors.UserError) as caught:
    fake.run('alpha')
  assert str(caught.value) == 'alpha, seed 1: no data. Fetch it.'
  assert capfd.readouterr().err == 'a warning\n'
  assert not os.path.exists('RESULTS.md')
  fake.plan()
  fake.run('alpha')
  assert len(fake.calls()) == 4  # seed 0 was done


@pytest.mark.parametrize(
    'first, message',
    [
        ('raise ValueError(seed)', 'status 1; what it said is above. The same'),
        ('os.kill(os.getpid(), 9)', 'SIGKILL ended its process. If nobody'),
        ('sys.exit(0)', 'train.seed=0 has no results of a whole run. Name'),
    ],
)
def test_other_ends_of_a_run(fake, first, message, capfd):
  fake.plan(first=first)
  with pytest.raises(errors.UserError) as caught:
    fake.run('alpha')
  assert message in str(caught.value)
  assert ('Traceback' in capfd.readouterr().err) == ('raise' in first)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_handed_to_the_run_which_is_waited_for(fake, number):
  fake.plan(
      first='import signal, time\n'
      'def stop(number, frame):\n'
      '  open("saved", "w").write(str(number))\n'
      '  sys.exit(143)\n'
      f'signal.signal({number:d}, stop)\n'
      f'os.kill(os.getppid(), {number:d})\n'
      'time.sleep(60)\n'
  )

  def interrupt(number, unused_frame):
    raise KeyboardInterrupt(number)

  handler = signal.signal(number, interrupt)
  try:
    with pytest.raises(KeyboardInterrupt) as caught:
      fake.run('alpha')
  finally:
    signal.signal(number, handler)
  assert caught.value.args == (number,)
  assert pathlib.Path('saved').read_text() == str(int(number))


@pytest.mark.parametrize(
    'files, message',
    [
        ({'RESULTS.json': '{"format'}, 'RESULTS.json is damaged (JSONDecodeE'),
        ({'RESULTS.json': '[]'}, 'RESULTS.json is damaged (TypeError'),
        ({'RESULTS.json': '{"format": 9}'}, 'format 9 of another version'),
        (
            {'RESULTS.json': '{"format": 1, "experiments": {"alpha": {}}}'},
            'RESULTS.json is damaged (KeyError',
        ),
        ({'RESULTS.md': 'mine'}, 'RESULTS.md is there without RESULTS.json'),
    ],
)
def test_a_damaged_table_stops_before_the_first_run(fake, files, message):
  command_line.write(pathlib.Path('.'), files)
  before = command_line.snapshot(pathlib.Path('.'))
  with pytest.raises(errors.UserError) as caught:
    fake.run('alpha')
  assert message in str(caught.value) and 'another --output' in str(
      caught.value
  )
  assert command_line.snapshot(pathlib.Path('.')) == before


def test_another_experiment_in_the_folder_stops_before_the_first_run(fake):
  fake.run('beta')
  folder = pathlib.Path('runs/beta/train.seed=2')
  cfg = experiment.load('experiments/beta.py')
  cfg.train.seed = 3
  (folder / 'config.json').write_text(config_tree.to_json(cfg))
  with pytest.raises(errors.UserError, match='it differs in train.seed .3 the'):
    fake.run('all')
  assert len(fake.calls()) == 3


def test_results_of_a_real_run_make_a_table(
    fake, monkeypatch, tmp_path_factory, capsys
):
  finished = command_line.finished_run(tmp_path_factory)
  path = pathlib.Path('experiments/tiny.py')
  path.write_text(command_line.EXPERIMENT)
  monkeypatch.setattr(reproduce, 'EXPERIMENTS', ('tiny',))
  shutil.copytree(finished, 'runs/tiny/train.seed=0')
  assert fake.run('tiny', seeds=('0',)) == 0 and not fake.calls()
  out = capsys.readouterr().out
  assert 'taken from runs/tiny/train.seed=0\n' in out  # of these versions
  entry = results_table.load('RESULTS.md')['tiny']
  results = json.loads((finished / 'results.json').read_text())
  value = results['splits']['cold_item']['methods']['model']['recall@5']
  text = pathlib.Path('RESULTS.md').read_text()
  assert f' {value:.4f} ' in text.replace('**', '')
  assert entry['versions'] == results['versions']
  assert entry['peak_memory_bytes'] == [results['peak_memory_bytes']]
  parts = results['prepare_seconds'].values()
  assert entry['seconds']['prepare'] == [round(sum(parts), 1)]


def test_run_py_reads_the_call_of_a_run(fake, monkeypatch, tmp_path_factory):
  """A folder of another seed shows it without training one more."""
  path = pathlib.Path('experiments/tiny.py')
  path.write_text(command_line.EXPERIMENT)
  monkeypatch.setattr(reproduce, 'EXPERIMENTS', ('tiny',))
  fake.plan(first='sys.exit(0)')
  with pytest.raises(errors.UserError, match='no results of a whole run'):
    fake.run('tiny', seeds=('3',), data_dir='.')
  shutil.copytree(
      command_line.finished_run(tmp_path_factory), 'runs/tiny/train.seed=3'
  )
  (call,) = fake.calls()
  message = 'runs/tiny/train.seed=3 holds another experiment; it differs in tra'
  command_line.check(command_line.call(*call), 2, message)


def test_every_experiment_is_in_the_list_or_left_out_for_a_reason():
  folder = command_line.ROOT / 'experiments'
  known = {*reproduce.EXPERIMENTS, *reproduce.LEFT_OUT}
  assert known == {path.stem for path in folder.glob('*.py')}
  for name in reproduce.EXPERIMENTS:
    cfg = experiment.load(str(folder / f'{name}.py'))
    assert not cfg.sweep.values and not cfg.comparison.variants, name
    assert cfg.data.name != 'tables', name
