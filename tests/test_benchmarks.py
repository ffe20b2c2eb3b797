# SPDX-License-Identifier: Apache-2.0
"""Parts of the comparisons: fair opponents, clocks, tables, messages.

The comparisons themselves take minutes; `run.py bench` runs them.
"""

import builtins
import copy
import dataclasses
import functools
import importlib
import json
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import comparison
from benchmarks import jax_dropoutnet
from benchmarks import memory
from benchmarks import suite
from benchmarks import task
from benchmarks import teacher
from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.data import schema
from dropoutnet_jax.model import input_dropout
from dropoutnet_jax.model import losses
from dropoutnet_jax.model import towers
from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import runtime as runtime_lib

_HIDDEN, _RANK = (7,), 5


def _config() -> config.Config:
  feature = config.Feature
  return config.Config(
      data=config.DataConfig(
          synthetic=config.SyntheticConfig(
              num_users=60, num_items=80, likes_per_user=12.0
          )
      ),
      features=config.FeaturesConfig(item=[feature(column='tags', rank=8)]),
      teacher=config.TeacherConfig(rank=4, num_iterations=2),
      dropout=config.DropoutConfig(item_rate=0.7),
      model=config.ModelConfig(tower='paper', hidden=_HIDDEN, rank=_RANK),
      train=config.TrainConfig(
          batch_size=900, num_steps=20, steps_per_dispatch=4
      ),
      objective=config.ObjectiveConfig(top_items=10, random_items=10),
  )


@pytest.fixture(scope='module')
def problem():
  return prepare.prepare(_config(), None, None)


@pytest.fixture(scope='module')
def runtime(problem):
  return runtime_lib.build(_config(), problem, num_devices=1)


@pytest.fixture(scope='module')
def untrained(runtime):
  """Our side and, on the host, its state before the first step."""
  side = jax_dropoutnet.JaxDropoutNet(runtime)
  return side, jax.device_get(side._state)


@pytest.fixture
def our_side(runtime, untrained):
  """Our side before its first step; compiled once for all tests."""
  side, state = copy.copy(untrained[0]), untrained[1]
  side._state = parallel.place(state, runtime.mesh)
  return side


@pytest.fixture(scope='module')
def peer():
  """The PyTorch module; skips where PyTorch is not installed."""
  torch = pytest.importorskip('torch', reason="needs pip install '.[bench]'")
  torch.set_num_threads(1)  # of such small arrays threads make nothing faster
  return importlib.import_module('benchmarks.torch_dropoutnet')


def _random_variables(width: int):
  """Variables of both paper towers, running statistics among them."""
  rng = np.random.default_rng(3)
  model = towers.TwoTower(_config().model)
  preference = input_dropout.Preference(
      jnp.zeros((1, width)), jnp.ones((1,), bool)
  )
  content = jnp.zeros((1, 0))
  variables = jax.jit(model.init)(
      jax.random.key(0), preference, content, preference, content
  )
  # Positive, since variances are among them.
  draw = lambda x: rng.uniform(0.2, 1.2, x.shape).astype(np.float32)
  return model, jax.tree.map(draw, variables)


def _copy_into(tower, params, stats):
  """Writes a Flax paper tower's numbers into a PyTorch tower."""
  import torch  # pylint: disable=g-import-not-at-top

  tensor = lambda x: torch.from_numpy(np.array(x))
  dense = [layer for layer in tower if isinstance(layer, torch.nn.Linear)]
  norms = [layer for layer in tower if isinstance(layer, torch.nn.BatchNorm1d)]
  assert len(dense) == len(norms) + 1 == len(params) - len(norms)
  with torch.no_grad():
    for number, layer in enumerate(dense):
      found = params[f'Dense_{number}']
      layer.weight.copy_(tensor(found['kernel'].T))  # transposed there
      assert (layer.bias is None) == ('bias' not in found)
      if layer.bias is not None:
        layer.bias.copy_(tensor(found['bias']))
    for number, layer in enumerate(norms):
      name = f'BatchNorm_{number}'
      layer.weight.copy_(tensor(params[name]['scale']))
      layer.bias.copy_(tensor(params[name]['bias']))
      layer.running_mean.copy_(tensor(stats[name]['mean']))
      layer.running_var.copy_(tensor(stats[name]['var']))


def _both_towers(peer, width: int):
  model, variables = _random_variables(width)
  sides = {}
  for side in ('user', 'item'):
    sides[side] = peer.Tower(width, _HIDDEN, _RANK)
    name = f'{side}_tower'
    _copy_into(
        sides[side], variables['params'][name], variables['batch_stats'][name]
    )
  return model, variables, sides


def test_torch_tower_is_the_paper_tower(peer):
  import torch  # pylint: disable=g-import-not-at-top

  value = np.random.default_rng(4).normal(size=(9, 11)).astype(np.float32)
  model, variables, sides = _both_towers(peer, width=11)
  for side, tower in sides.items():
    embed = jax.jit(functools.partial(model.apply, method=f'embed_{side}s'))
    preference = input_dropout.Preference(value, np.ones((9,), bool))
    expected = embed(variables, preference, np.zeros((9, 0))).dense
    tower.eval()
    with torch.no_grad():
      found = tower(torch.from_numpy(value)).numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_torch_step_is_the_flax_step(peer):
  """Loss, both gradients and running statistics of one training step."""
  import torch  # pylint: disable=g-import-not-at-top

  rng = np.random.default_rng(5)
  user, item = rng.normal(size=(2, 16, 11)).astype(np.float32)
  target = rng.normal(size=16).astype(np.float32)
  model, variables, sides = _both_towers(peer, width=11)

  def flax_loss(params):
    emb, stats = {}, {}
    for side, value in (('user', user), ('item', item)):
      emb[side], updated = model.apply(
          {'params': params, 'batch_stats': variables['batch_stats']},
          input_dropout.Preference(value, np.ones((16,), bool)),
          np.zeros((16, 0)),
          train=True,
          method=f'embed_{side}s',
          mutable=['batch_stats'],
      )
      stats[side] = updated['batch_stats'][f'{side}_tower']
    loss = losses.teacher(
        emb['user'].dense, emb['item'].dense, target, jnp.ones(16)
    )
    return loss, stats

  grad_fn = jax.jit(jax.value_and_grad(flax_loss, has_aux=True))
  (expected, stats), grads = grad_fn(variables['params'])
  for tower in sides.values():
    tower.train()
  loss = peer.loss_fn(
      sides['user'](torch.from_numpy(user)),
      sides['item'](torch.from_numpy(item)),
      torch.from_numpy(target),
  )
  loss.backward()
  np.testing.assert_allclose(loss.item(), expected, rtol=1e-5)
  for side, tower in sides.items():
    for layer, name in ((0, 'Dense_0'), (3, 'Dense_1')):
      wanted = np.asarray(grads[f'{side}_tower'][name]['kernel']).T
      found = tower[layer].weight.grad.numpy()
      scale = np.abs(wanted).max()
      np.testing.assert_allclose(found, wanted, atol=1e-5 * scale, rtol=1e-3)
    # PyTorch's running variance is the unbiased one, the mean is alike.
    np.testing.assert_allclose(
        tower[1].running_mean.numpy(),
        stats[side]['BatchNorm_0']['mean'],
        rtol=1e-5,
        atol=1e-6,
    )


def test_pairs_are_drawn_as_published(peer, runtime):
  import torch  # pylint: disable=g-import-not-at-top

  tables, settings = runtime.tables, runtime.cfg.objective
  targets = np.asarray(tables.target_items)
  score = np.asarray(tables.user.factors) @ np.asarray(tables.item.factors).T
  users = np.asarray(tables.train_users)[:6]
  pairs = peer.PublishedPairs(tables, settings, 10)
  user, item, target = (
      x.numpy() for x in pairs.draw(torch.from_numpy(users.copy()).long())
  )
  assert len(user) == len(users) * 20
  np.testing.assert_allclose(target, score[user, item], rtol=1e-4, atol=1e-6)
  assert set(item) <= set(targets), 'cold items are nobody else targets'
  assert len(set(targets)) < score.shape[1], 'there are cold items'
  for row in users:
    drawn = item[user == row]
    best = targets[np.argsort(-score[row, targets])[:10]]
    assert set(best) <= set(drawn)
    assert len(set(drawn) - set(best)) > 2, 'and random ones'


def test_pairs_come_in_whole_batches_from_all_users(peer, runtime, monkeypatch):
  monkeypatch.setattr(peer, '_USERS_PER_DRAW', 16)
  pairs = iter(peer.PublishedPairs(runtime.tables, runtime.cfg.objective, 10))
  users: set[int] = set()
  # An epoch: half of the 20 pairs of each user, in batches of 10.
  for _ in range(len(runtime.tables.train_users)):
    user, item, target = next(pairs)
    assert user.shape == item.shape == target.shape == (10,)
    users |= set(user.tolist())
  assert users == set(np.asarray(runtime.tables.train_users).tolist())


def test_torch_drops_exact_shares_of_preference_alone(peer, runtime):
  import torch  # pylint: disable=g-import-not-at-top

  model = peer.TorchDropoutNet(runtime.cfg, runtime.tables, seed=0)
  rows = torch.from_numpy(np.array(runtime.tables.target_items)[:21]).long()
  table = runtime.tables.item
  width = table.preference.shape[1]
  value = model.batch_input('item', rows).numpy()
  dropped = ~value[:, :width].any(axis=1)
  assert dropped.sum() == 14  # the floor of 0.7 * 21
  kept = np.asarray(table.preference)[rows.numpy()][~dropped]
  np.testing.assert_array_equal(value[~dropped, :width], kept)
  content = np.asarray(table.content)[rows.numpy()]
  np.testing.assert_array_equal(value[:, width:], content)
  # Users have no content here, so they keep their preference, as in ours.
  users = torch.arange(10)
  value = model.batch_input('user', users).numpy()
  np.testing.assert_array_equal(
      value, np.asarray(runtime.tables.user.preference)[:10]
  )


def test_both_sides_train_and_are_scored_alike(
    peer, runtime, our_side, problem
):
  other = peer.TorchDropoutNet(runtime.cfg, runtime.tables, seed=0)
  sides = (our_side, other)
  for side in sides:
    side.train(6)
    assert 0.0 <= task.recall(side, problem) <= 1.0
    emb = side.embed('item', np.arange(5))
    assert emb.shape == (5, _RANK) and emb.dtype == np.float32
  assert other.pairs_per_step == 100


def test_our_side_cuts_turns_into_dispatches(runtime, our_side):
  """5 and then 2 steps in dispatches of at most 4: the run of 4 and 3."""
  expected = jax.tree.map(jnp.copy, our_side._state)
  for count in (4, 3):
    expected, _ = our_side._train_steps(
        expected, runtime.tables, jnp.int32(count)
    )
  our_side.train(5)
  our_side.train(2)
  assert int(our_side._state.step) == 7
  jax.tree.map(np.testing.assert_array_equal, our_side._state, expected)
  rows = np.arange(7)
  np.testing.assert_array_equal(
      our_side.embed('user', rows),
      runtime.embedder(
          'user', expected.eval_variables(), runtime.tables.user, rows
      ),
  )
  assert our_side.compile_seconds > 0
  assert our_side.pairs_per_step == 30 * 30


def test_our_side_starts_again_where_it_started(our_side):
  first = jax.tree.map(np.array, our_side._state)
  rows, seen = np.arange(7), []
  for _ in range(2):
    our_side.restart()
    jax.tree.map(np.testing.assert_array_equal, our_side._state, first)
    our_side.train(3)
    seen.append(our_side.embed('user', rows))
  np.testing.assert_array_equal(*seen)


def test_our_side_does_not_pass_over_a_loss_that_is_not_finite(
    our_side,
):
  state = our_side._state
  our_side._state = state.replace(
      params=jax.tree.map(lambda x: x * jnp.nan, state.params)
  )
  with pytest.raises(RuntimeError, match='not finite at step 0'):
    our_side.train(2)


def test_recall_by_hand():
  """Two users, each with one cold paper of 150; identity embeddings."""

  class Fixed:
    pairs_per_step = 1

    def train(self, num_steps):
      del num_steps

    def embed(self, side, rows):
      # User 3 scores items by their row, user 8 the other way round.
      if side == 'user':
        return np.where(rows == 3, 1.0, -1.0).astype(np.float32)[:, None]
      return rows.astype(np.float32)[:, None]

  held_out = schema.EvaluationSet(
      np.array([3, 8], np.int32),
      np.array([140, 140], np.int32),
      np.arange(150, dtype=np.int32),
  )
  split = types.SimpleNamespace(evaluation={'cold_item': held_out})
  fake = types.SimpleNamespace(split=split, likes=lambda: None)
  # 140 is the 10th best of user 3 and the 141st of user 8.
  assert task.recall(Fixed(), fake) == 0.5


class _Clock:
  """Time that passes only when told to."""

  def __init__(self):
    self.now = 0.0

  def perf_counter(self) -> float:
    return self.now


class _Runner:
  """Trains at a fixed rate on a fake clock."""

  def __init__(self, clock, seconds_per_step, pairs_per_step=100):
    self.clock, self.seconds_per_step = clock, seconds_per_step
    self.pairs_per_step, self.steps = pairs_per_step, 0
    self.turns = []

  def train(self, num_steps):
    self.turns.append(num_steps)
    self.steps += num_steps
    self.clock.now += num_steps * self.seconds_per_step

  def embed(self, side, rows):
    raise NotImplementedError


@pytest.fixture
def accuracy(peer):
  del peer  # the module imports it
  return importlib.import_module('benchmarks.accuracy')


@pytest.fixture
def speed(peer):
  del peer
  return importlib.import_module('benchmarks.speed')


def test_race_stops_at_the_recall_and_does_not_time_the_looks(
    accuracy, monkeypatch
):
  clock = _Clock()
  monkeypatch.setattr(accuracy, 'time', clock)
  runner = _Runner(clock, seconds_per_step=0.5)

  def recall(side):
    clock.now += 1000.0
    return 0.01 * side.steps

  found = accuracy.race(runner, recall, steps_per_look=10)
  assert found == accuracy.Finish(25.0, 5000, 0.5, True)


def test_races_again_from_the_start(accuracy, monkeypatch):
  clock = _Clock()
  monkeypatch.setattr(accuracy, 'time', clock)
  runner = _Runner(clock, seconds_per_step=0.25)

  def restart():
    runner.steps = 0
    runner.seconds_per_step *= 2

  monkeypatch.setattr(runner, 'restart', restart, raising=False)
  found = accuracy.race_again(runner, lambda side: 0.25 * side.steps, 3)
  assert [finish.seconds for finish in found] == [1.0, 2.0, 4.0]
  assert {finish.pairs for finish in found} == {200}


def test_accuracy_takes_the_median_of_its_races(accuracy, monkeypatch):
  """Two before the other's race and three after it, with each seed."""
  events = []

  class Ours:
    compile_seconds = 1.0

    def __init__(self, runtime):
      assert runtime.cfg.train.batch_size == accuracy._OUR_BATCH_SIZE

  def race_again(side, recall, num_turns):
    events.append(num_turns)
    seconds = {2: (9.0, 1.0), 3: (2.0, 8.0, 3.0)}[num_turns]
    return [accuracy.Finish(s, 100, 0.5, True) for s in seconds]

  def race(side, recall, steps_per_look):
    events.append('other')
    return accuracy.Finish(300.0, 100, 0.48, True)

  fake = types.SimpleNamespace
  monkeypatch.setattr(accuracy.task, 'load_problem', lambda data_dir: None)
  monkeypatch.setattr(
      accuracy.runtime_lib, 'build', lambda cfg, _: fake(cfg=cfg, tables=None)
  )
  monkeypatch.setattr(accuracy.jax_dropoutnet, 'JaxDropoutNet', Ours)
  torch_side = accuracy.torch_dropoutnet
  monkeypatch.setattr(torch_side, 'use_fastest_threads', lambda *_: 1)
  monkeypatch.setattr(torch_side, 'TorchDropoutNet', lambda *_: None)
  monkeypatch.setattr(accuracy, 'race_again', race_again)
  monkeypatch.setattr(accuracy, 'race', race)
  found = accuracy.run('somewhere')
  assert events == [2, 'other', 3] * 3
  assert (found.rows[0].ours, found.rows[0].ratio) == (3.0, 100.0)
  assert 'medians of 5 races' in found.notes[-1]


def test_race_gives_up_after_its_time(accuracy, monkeypatch):
  clock = _Clock()
  monkeypatch.setattr(accuracy, 'time', clock)
  runner = _Runner(clock, seconds_per_step=100.0)
  found = accuracy.race(runner, lambda side: 0.1, steps_per_look=5)
  assert found == accuracy.Finish(1500.0, 1500, 0.1, False)


def test_accuracy_summary_by_hand(accuracy):
  finish = accuracy.Finish
  ours = [finish(s, 1000, 0.5, True) for s in (1.0, 2.0, 4.0)]
  others = [finish(s, 500, 0.48, True) for s in (100.0, 120.0, 80.0)]
  rows = accuracy.summarize(ours, others, [1.0, 2.0, 1.0]).rows
  # Ratios by seed 100, 60, 20; with compilation 50, 30, 16.
  assert [row.ours for row in rows] == [2.0, 4.0, 1000]
  assert [row.other for row in rows] == [100.0, 100.0, 500]
  assert [row.ratio for row in rows] == [60.0, 30.0, 0.5]
  assert [row.met for row in rows] == [True, False, None]
  assert not any(row.is_bound for row in rows)


def test_accuracy_summary_where_somebody_does_not_arrive(accuracy):
  there = accuracy.Finish(1.0, 1000, 0.5, True)
  lost = accuracy.Finish(1200.0, 10, 0.2, False)
  row = accuracy.summarize([there], [lost], [0.0]).rows[0]
  assert row.is_bound and row.ratio == 1200.0 and row.met
  row = accuracy.summarize([lost], [there], [0.0]).rows[0]
  assert not row.met and row.ratio == 0.0


def test_speed_measures_in_turns(speed, monkeypatch):
  clock = _Clock()
  monkeypatch.setattr(speed, 'time', clock)
  fast, slow = _Runner(clock, 0.01, 1000), _Runner(clock, 0.5, 100)
  found = speed.measure((fast, slow), num_rounds=3, seconds=2.0)
  np.testing.assert_allclose(found, [[1e5] * 3, [200.0] * 3])
  assert fast.turns == [2, 10, 200, 200, 200]
  assert slow.turns == [2, 10, 4, 4, 4]


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
  each = lambda seconds, recall: {
      'seconds per iteration': seconds,
      'recall@100': recall,
  }
  found = {
      teacher.als.OURS: each(2.0, 0.496),
      teacher.als.EXACT: each(5.0, 0.5),
      teacher.als.GRADIENTS: each(1.0, 0.499),
      'ratio': 2.4,
      'ratio to CG': 0.5,
  }
  monkeypatch.setattr(teacher.als, 'compare', lambda data_dir: found)
  rows = teacher.run('somewhere').rows
  assert [(row.ours, row.other) for row in rows] == [
      (2.0, 5.0),
      (2.0, 1.0),
      (0.496, 0.5),
  ]
  assert [row.ratio for row in rows] == [2.4, 0.5, 0.496 / 0.5]
  assert [row.met for row in rows] == [True, None, True]
  found[teacher.als.OURS]['recall@100'] = 0.494
  assert not teacher.run('somewhere').rows[2].met


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


def test_without_torch_bench_says_what_to_install(monkeypatch):
  monkeypatch.delitem(sys.modules, 'benchmarks.torch_dropoutnet', False)
  real_import = builtins.__import__

  def without_torch(name, *args, **kwargs):
    if name == 'torch':
      raise ImportError('No module named torch')
    return real_import(name, *args, **kwargs)

  monkeypatch.setattr(builtins, '__import__', without_torch)
  with pytest.raises(errors.UserError, match=r"pip install '\.\[bench\]'"):
    importlib.import_module('benchmarks.torch_dropoutnet')


def test_the_experiment_is_the_cold_one():
  cfg = task.load_config()
  cfg.validate()
  assert (cfg.name, cfg.data.split) == ('citeulike_a_cold', 'published-cold')
  assert cfg.model.tower == 'paper', 'PyTorch has the paper tower alone'
  assert not (
      cfg.dropout.user_transform_rate or cfg.dropout.item_transform_rate
  )


def test_optimizer_is_the_published_one(peer):
  """One parameter, two steps, beside Optax."""
  import torch  # pylint: disable=g-import-not-at-top

  layer = torch.nn.Linear(1, 1, bias=False)
  optimizer = peer.make_optimizer(layer)
  reference = optax.sgd(0.005, momentum=0.9)
  value = jnp.float32(layer.weight.item())
  state = reference.init(value)
  for gradient in (2.0, -1.0):
    layer.weight.grad = torch.full((1, 1), gradient)
    optimizer.step()
    update, state = reference.update(jnp.float32(gradient), state)
    value += update
  np.testing.assert_allclose(layer.weight.item(), value, rtol=1e-6)
