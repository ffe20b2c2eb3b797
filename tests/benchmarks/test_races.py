# SPDX-License-Identifier: Apache-2.0
"""Clocks, looks and medians of the races, and our side of them."""

import importlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import task
from benchmarks import turns
from dropoutnet_jax.data import schema


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


def test_sides_train_in_turns_of_one_length(monkeypatch):
  clock = _Clock()
  monkeypatch.setattr(turns, 'time', clock)
  fast, slow = _Runner(clock, 0.01, 1000), _Runner(clock, 0.5, 100)
  found = turns.measure((fast, slow), num_rounds=3, seconds=2.0)
  np.testing.assert_allclose(found, [[1e5] * 3, [200.0] * 3])
  assert fast.turns == [2, 10, 200, 200, 200]
  assert slow.turns == [2, 10, 4, 4, 4]
