# SPDX-License-Identifier: Apache-2.0
"""Sweeps: one run per value, shared data, a table and a picture."""

import json
import os
import shutil
import socket
import statistics

import numpy as np
import pytest

from dropoutnet_jax import commands
from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax import report
from dropoutnet_jax import sweeps
from dropoutnet_jax.data import files
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.training import first_start
from dropoutnet_jax.training import loop
from dropoutnet_jax.training import run_folder
from tests import tiny_run

pytestmark = pytest.mark.usefixtures('quick_compilation', 'one_device')


def _sweep(**changes):
  cfg = tiny_run.get_config()
  cfg.train.num_steps = 4
  cfg.train.eval_every = 0
  fields = {'field': 'dropout.item_rate', 'values': (0.0, 0.5)} | changes
  cfg.sweep = config.SweepConfig(**fields)
  return cfg


def _results(folder):
  return json.loads((folder / 'results.json').read_text())


@pytest.fixture(scope='module')
def rates(tmp_path_factory):
  """The folder and the table of a finished sweep over the dropout rate."""
  folder = tmp_path_factory.mktemp('rates') / 'sweep'
  return folder, sweeps.run(_sweep(), str(folder))


@pytest.fixture
def again(rates, tmp_path):
  """A copy of that folder, to be changed."""
  return shutil.copytree(rates[0], tmp_path / 'sweep')


@pytest.fixture
def trained(rates, monkeypatch):
  """The names of the folders that `train` is called with, which is faked."""
  seen = []

  def train(cfg, folder, *unused):
    with run_folder.open_folder(folder, cfg):
      seen.append(os.path.basename(folder))
    return _results(rates[0] / 'dropout.item_rate=0')

  monkeypatch.setattr(commands, 'train', train)
  return seen


def test_runs_every_value_and_shares_what_is_prepared(rates):
  folder, table = rates
  assert table['values'] == [0.0, 0.5]
  parts = [folder / f'dropout.item_rate={value}' for value in ('0', '0.5')]
  for position, part in enumerate(parts):
    results = _results(part)
    assert table['train_seconds'][position] == results['train_seconds']
    for split, found in results['splits'].items():
      assert table['splits'][split]['users'][position] == found['users']
      assert list(found['methods']) == ['model', 'oracle']
      for label, metrics in found['methods'].items():
        for metric, value in metrics.items():
          series = table['splits'][split]['methods'][label][metric]
          assert len(series) == 2 and series[position] == value
  assert 'mean' not in table['splits']['cold_item']
  for name in ('problem.npz', 'features_item.npz', 'features.json'):
    assert len({(part / name).read_bytes() for part in parts}) == 1
  png = (folder / 'sweep.png').read_bytes()
  assert png.startswith(b'\x89PNG') and len(png) > 1000
  assert json.loads((folder / 'sweep.json').read_text()) == table


@pytest.mark.parametrize('mode', ['resident', 'streaming'])
@pytest.mark.parametrize(
    'section, field, same',
    [
        ('objective', 'user_balance', {'resident': True, 'streaming': False}),
        ('train', 'learning_rate', {'resident': True, 'streaming': True}),
        ('data', 'seed', {'resident': False, 'streaming': False}),
    ],
)
def test_runs_share_what_depends_on_the_same_settings(
    tmp_path, mode, section, field, same
):
  runs = []
  for number in (0, 1):
    cfg = _sweep()
    cfg.data.mode = mode
    setattr(getattr(cfg, section), field, number)
    runs.append(sweeps.Run(number, str(tmp_path / str(number)), cfg))
  (tmp_path / '0').mkdir()
  names = ['features.json', 'problem.npz']
  names += ['rows.bin'] * (mode == 'streaming')
  for name in names:
    (tmp_path / '0' / name).write_text(name)
  sweeps.share_problem(*runs)
  assert (tmp_path / '1').exists() == same[mode]
  for name in names if same[mode] else []:
    assert (tmp_path / '1' / name).read_text() == name


def test_finished_runs_are_not_run_again(rates, again, trained):
  assert sweeps.run(_sweep(), str(again)) == rates[1]
  assert not trained


def test_values_can_be_added(again, trained):
  table = sweeps.run(_sweep(values=(0.5, 1.0)), str(again))
  assert trained == ['dropout.item_rate=1'] and table['values'] == [0.5, 1.0]


@pytest.mark.parametrize(
    'change, named',
    [('num_steps', 'num_steps (4 there, 5 now)'), ('log_every', 'log_every')],
)
def test_other_settings_do_not_get_the_old_table(again, change, named):
  cfg = _sweep()
  setattr(cfg.train, change, getattr(cfg.train, change) + 1)
  with pytest.raises(errors.UserError) as caught:
    sweeps.run(cfg, str(again))
  message = str(caught.value)
  assert 'dropout.item_rate=0 holds another experiment' in message
  assert named in message


@pytest.mark.parametrize(
    'content',
    [
        '{"last_st',
        '3',
        '{}',
        '{"last_step": 4, "stopped_early": ""}',
        # `evaluate` leaves results of any step.
        '{"last_step": 2, "stopped_early": "", "splits": {"warm": {}}}',
    ],
)
def test_results_that_are_damaged_or_of_the_middle_are_no_end(
    again, trained, content
):
  (again / 'dropout.item_rate=0.5' / 'results.json').write_text(content)
  sweeps.run(_sweep(), str(again))
  assert trained == ['dropout.item_rate=0.5']


def test_a_damaged_run_is_evaluated_anew(rates, again):
  path = again / 'dropout.item_rate=0.5' / 'results.json'
  path.write_text('{"last_st')
  assert sweeps.run(_sweep(), str(again))['splits'] == rates[1]['splits']
  assert json.loads(path.read_text())['last_step'] == 4


def test_a_run_that_stopped_early_is_done(again, trained):
  path = again / 'dropout.item_rate=0' / 'results.json'
  results = json.loads(path.read_text())
  results |= {'last_step': 2, 'stopped_early': 'no better validation'}
  path.write_text(json.dumps(results))
  sweeps.run(_sweep(), str(again))
  assert not trained


@pytest.mark.parametrize('name', ['thesis.txt', 'config.json', 'train.seed=0'])
def test_a_foreign_folder_is_refused_and_left_as_it_was(tmp_path, name):
  (tmp_path / name).write_text('all of it')
  with pytest.raises(errors.UserError) as caught:
    sweeps.run(_sweep(), str(tmp_path))
  assert (
      f'{tmp_path} holds {name}, which is no part of a sweep over '
      'dropout.item_rate. Choose an empty or new --workdir.'
  ) == str(caught.value)
  assert os.listdir(tmp_path) == [name]


def test_a_copy_of_the_problem_is_whole_or_not_there(
    rates, again, trained, monkeypatch
):
  """Whoever is killed while copying leaves nothing that counts as prepared."""
  folder = again / 'dropout.item_rate=0.75'
  copied, real = [], shutil.copyfileobj

  def copy(source, target):
    copied.append(os.path.basename(source.name))
    assert not (folder / copied[-1]).exists()
    real(source, target)

  def link(source, target):
    raise OSError('a disk without links')

  monkeypatch.setattr(os, 'link', link)
  monkeypatch.setattr(shutil, 'copyfileobj', copy)
  sweeps.run(_sweep(values=(0.0, 0.75)), str(again))
  assert trained == ['dropout.item_rate=0.75']
  assert len(copied) > 1 and copied[-1] == problem_lib.FILE
  expected = (rates[0] / 'dropout.item_rate=0' / copied[-1]).read_bytes()
  assert (folder / copied[-1]).read_bytes() == expected


def test_a_start_that_was_killed_while_copying_goes_on(again, trained):
  folder = again / 'dropout.item_rate=0.75'
  folder.mkdir()
  (folder / 'problem.npz.123.tmp').write_bytes(b'half')
  sweeps.run(_sweep(values=(0.0, 0.75)), str(again))
  assert trained == ['dropout.item_rate=0.75']
  assert problem_lib.load(str(folder)).user.ids.size == 60
  assert not [name for name in os.listdir(folder) if name.endswith('.tmp')]


# Seeds.


def _prepare_and_make_up(cfg, folder, data_dir, unused_profile):
  """A run that is over at once, with results that depend on the seed."""
  with first_start.open_folder(folder, cfg):
    commands.load_or_prepare(cfg, folder, data_dir)
  rng = np.random.default_rng(cfg.train.seed)
  labels = ('model', 'teacher', 'random')
  methods = {x: {'recall@5': rng.random(), 'mrr': 0.5} for x in labels}
  methods['oracle'] = {'recall@5': 0.75, 'mrr': 0.75}
  part = {'users': 9, 'candidates': 7, 'methods': methods}
  results = {
      'last_step': cfg.train.num_steps,
      'stopped_early': '',
      'train_seconds': 1.5,
      'splits': {'cold_item': part, 'warm': part},
  }
  files.write_json(os.path.join(folder, 'results.json'), results)
  return results


@pytest.fixture(scope='module')
def seeds(tmp_path_factory):
  """The folder and the table of a sweep over two seeds."""
  folder = tmp_path_factory.mktemp('seeds')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(commands, 'train', _prepare_and_make_up)
    cfg = _sweep(field='train.seed', values=(3.0, 4.0))
    return folder, sweeps.run(cfg, str(folder))


def test_every_seed_has_a_teacher_and_an_svd_of_its_own(seeds):
  folder, table = seeds
  assert table['values'] == [3, 4]
  assert all(isinstance(value, int) for value in table['values'])
  factors = []
  for seed in table['values']:
    part = folder / f'train.seed={seed}'
    factors.append(problem_lib.load(str(part)).factors.item)
  assert np.abs(factors[0] - factors[1]).max() > 1e-3


def test_seeds_end_in_means_and_deviations_of_every_method(seeds):
  folder, table = seeds
  found = table['splits']['cold_item']
  assert set(found['methods']) == {'model', 'teacher', 'random', 'oracle'}
  for label, metrics in found['methods'].items():
    for metric, values in metrics.items():
      assert found['mean'][label][metric] == pytest.approx(np.mean(values))
      assert found['deviation'][label][metric] == pytest.approx(
          np.std(values, ddof=1)
      )
  assert found['deviation']['random']['recall@5'] > 0
  assert found['deviation']['oracle']['recall@5'] == 0
  assert json.loads((folder / 'sweep.json').read_text()) == table
  assert not (folder / 'sweep.png').exists()


def test_the_table_of_seeds_is_printed(seeds, capsys):
  folder, table = seeds
  cfg = _sweep(field='train.seed', values=(3, 4))
  assert sweeps.run(cfg, str(folder)) == table  # 3 and 3.0 are one seed
  out = capsys.readouterr().out
  title = ' '.join(out.split())  # wrapped to the width of the table
  assert 'tiny: mean (standard deviation) over train.seed = 3, 4' in title
  values = table['splits']['cold_item']['methods']['model']['recall@5']
  spread = statistics.stdev(values)
  assert f'{statistics.fmean(values):.4f} ({spread:.4f})' in out
  assert out.splitlines()[-2:] == [
      f'Written to {folder}/sweep.json',
      f'A report is in {folder}/report/index.html',
  ]


def _fake_results(**splits):
  return {'train_seconds': 1.0, 'last_step': 4, 'splits': splits}


def test_runs_without_a_split_or_a_method_leave_gaps(tmp_path, monkeypatch):
  """A share of 0 leaves out a split."""
  part = lambda x: {
      'users': 9,
      'candidates': 7,
      'methods': {'model': {'recall@5': x}},
  }
  found = [_fake_results(), _fake_results(warm=part(0.5))]
  monkeypatch.setattr(commands, 'train', lambda *unused: found.pop(0))
  cfg = _sweep(field='data.warm_share', values=(0.0, 0.25))
  warm = sweeps.run(cfg, str(tmp_path))['splits']['warm']
  assert warm['methods']['model']['recall@5'] == [None, 0.5]
  assert warm['users'] == [0, 9]
  assert (tmp_path / 'sweep.png').exists()


def test_one_seed_has_no_deviation(tmp_path, monkeypatch):
  part = {'users': 9, 'candidates': 7, 'methods': {'model': {'recall@5': 0.5}}}
  results = _fake_results(warm=part)
  monkeypatch.setattr(commands, 'train', lambda *unused: results)
  cfg = _sweep(field='train.seed', values=(7.0,))
  warm = sweeps.run(cfg, str(tmp_path))['splits']['warm']
  assert warm['mean'] == {'model': {'recall@5': 0.5}}
  assert warm['deviation'] == {'model': {'recall@5': None}}


# Values.


def test_values_take_the_type_of_the_field(tmp_path, monkeypatch):
  seen = []

  def train(cfg, folder, data_dir, profile):
    seen.append((cfg, os.path.basename(folder), data_dir, profile))
    os.makedirs(folder, exist_ok=True)
    return _fake_results()

  monkeypatch.setattr(commands, 'train', train)
  monkeypatch.setattr(report, 'plot_sweep', lambda *unused: None)
  for field, values in {
      'train.batch_size': (1234567.0, 8),
      'model.normalize': (0, 1.0),
      'train.learning_rate': (0.1234567891, 1),
  }.items():
    folder = str(tmp_path / field)
    sweeps.run(_sweep(field=field, values=values), folder, 'd', profile=True)
  sizes = [cfg.train.batch_size for cfg, *_ in seen[:2]]
  assert sizes == [1234567, 8] and isinstance(sizes[0], int)
  assert [cfg.model.normalize for cfg, *_ in seen[2:4]] == [False, True]
  assert [cfg.train.learning_rate for cfg, *_ in seen[4:]] == [0.1234567891, 1]
  assert [name for _, name, *_ in seen] == [
      'train.batch_size=1234567',
      'train.batch_size=8',
      'model.normalize=0',
      'model.normalize=1',
      'train.learning_rate=0.1234567891',
      'train.learning_rate=1',
  ]
  assert all(rest == ['d', True] for _, _, *rest in seen)


@pytest.mark.parametrize(
    'field, values, message',
    [
        ('dropout.item_rate', (0.0, 1.5), 'dropout.item_rate is 1.5'),
        ('train.seed', (0.0, 1.5), 'train.seed is 1.5; it must be a whole'),
        ('train.seed', (1, 1.0), 'config.sweep.values holds 1 twice'),
        ('model.normalize', (0.5,), 'normalize is 0.5; it must be True or F'),
        ('model.tower', (1.0,), 'model.tower is 1.0; it must be text'),
        ('dropout.item_rat', (0.5,), "Did you mean 'item_rate'"),
    ],
)
def test_a_value_or_field_that_cannot_be_stops_before_the_first_run(
    tmp_path, field, values, message
):
  with pytest.raises(errors.UserError) as caught:
    sweeps.run(_sweep(field=field, values=values), str(tmp_path / 'new'))
  assert message in str(caught.value)
  assert not (tmp_path / 'new').exists()


def test_a_swept_configuration_is_no_sweep_and_leaves_the_first_alone():
  cfg = _sweep()
  one = config_tree.swept(cfg, 0.25)
  assert one.dropout.item_rate == 0.25 and not one.sweep.values
  assert cfg.dropout.item_rate == 0.5 and cfg.sweep.values


# Processes and signals.


def test_a_signal_ends_the_sweep(tmp_path, monkeypatch):
  def interrupted(unused_runtime, workdir, *unused):
    os.makedirs(os.path.join(workdir, 'checkpoints', '2'))
    return loop.Outcome(2, 1.0, 'SIGTERM came', True)

  monkeypatch.setattr(loop, 'run', interrupted)
  with pytest.raises(errors.Interrupted):
    sweeps.run(_sweep(), str(tmp_path))
  assert os.listdir(tmp_path) == ['dropout.item_rate=0']


def test_two_processes_sweep_as_one(tmp_path):
  """They make each folder once, and one of them prints and writes."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    port = probe.getsockname()[1]
  launcher = tiny_run.Launcher(tmp_path)
  runs = [
      launcher.start(
          tmp_path / 'sweep',
          f'--coordinator=127.0.0.1:{port}',
          '--num_processes=2',
          f'--process_id={process}',
          '--config.train.num_steps=2',
          '--config.train.eval_every=0',
          # Changes no program: the second run finds all in the cache.
          '--config.sweep.field=train.keep_checkpoints',
          '--config.sweep.values=(1, 2)',
      )
      for process in (0, 1)
  ]
  for run in runs:
    assert run.finish() == 0, run.output()
  out = runs[0].output()
  for line in ('train.keep_checkpoints = 2\n', 'sweep.png\n'):
    assert out.count(line) == 1
  assert runs[1].own_lines() == []
  table = json.loads((tmp_path / 'sweep' / 'sweep.json').read_text())
  one, two = table['splits']['cold_item']['methods']['model']['recall@5']
  assert table['values'] == [1, 2] and one == two
