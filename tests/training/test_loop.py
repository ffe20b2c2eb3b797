# SPDX-License-Identifier: Apache-2.0
"""The loop: exact resume, early stopping, the best checkpoint, bad losses."""

import json
import math
import os
import re

import hypothesis
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.training import checkpoints as checkpoints_lib
from dropoutnet_jax.training import loop
from dropoutnet_jax.training import runtime as runtime_lib
from dropoutnet_jax.training import signals
from dropoutnet_jax.training import telemetry
from dropoutnet_jax.training import validation
from tests import stop_after
from tests import tiny_run

CLOCK = (
    'seconds',
    'examples_per_second',
    'step_seconds',
)  # differ from run to run


def run(runtime, workdir, stop=None):
  os.makedirs(workdir, exist_ok=True)
  return loop.run(runtime, str(workdir), stop or signals.StopRequest())


def saved_steps(workdir):
  saved = checkpoints_lib.Checkpoints(str(workdir), read_only=True)
  steps = sorted(saved.numbers())
  best = saved.best_step()
  saved.close()
  return steps, best


def restored(runtime, workdir, step=None):
  saved = checkpoints_lib.Checkpoints(str(workdir), read_only=True)
  step = saved.latest_step() if step is None else step
  state = saved.restore(step, runtime.fresh_state())
  saved.close()
  return state


def rows(workdir):
  return [
      {name: value for name, value in row.items() if name not in CLOCK}
      for row in telemetry.read_metrics(str(workdir))
  ]


def assert_same_run(runtime, workdir, other):
  """Every array of the last states bit for bit, and all that was logged."""
  one, two = restored(runtime, workdir), restored(runtime, other)
  jax.tree.map(np.testing.assert_array_equal, one, two)
  assert rows(workdir) == rows(other)


@pytest.fixture
def planned(monkeypatch):
  """Replaces validation by planned values of 'cold_item/ndcg@5' by step."""

  def plan(**values):
    by_step = {int(name[1:]): value for name, value in values.items()}

    def validate(runtime, state):
      del runtime
      return {'cold_item/ndcg@5': by_step[int(state.step)]}

    monkeypatch.setattr(validation, 'validate', validate)

  return plan


@pytest.fixture(scope='module')
def whole(compiled, tmp_path_factory):
  """Folder and outcome of an uninterrupted run."""
  folder = tmp_path_factory.mktemp('whole')
  return folder, run(compiled, folder)


def test_an_uninterrupted_run_logs_and_saves_when_due(compiled, whole):
  folder, outcome = whole
  assert (outcome.step, outcome.reason, outcome.interrupted) == (40, '', False)
  assert outcome.seconds > 0
  logged = rows(folder)
  assert [row['step'] for row in logged] == list(range(4, 41, 4))
  for row in logged:
    names = {'loss/total', 'loss/teacher', 'gradient_norm'} & row.keys()
    assert len(names) == 3
    assert ('validation/selection' in row) == (row['step'] in (20, 40))
  assert logged[-1]['loss/total'] < logged[0]['loss/total']
  steps, best = saved_steps(folder)
  assert set(steps) == {36, 40, best} and best in (20, 40)
  last = restored(compiled, folder)
  assert int(last.step) == 40
  averaged = jax.tree.leaves(last.ema_params)
  assert not np.array_equal(averaged[-1], jax.tree.leaves(last.params)[-1])


def test_a_run_stopped_again_and_again_is_the_same_run(
    compiled, whole, tmp_path
):
  """Also where a kill has torn a line, or left lines without a checkpoint."""
  path, outcomes = tmp_path / 'metrics.jsonl', []
  while not outcomes or outcomes[-1].interrupted:
    stop = stop_after.StopAfter(1 + len(outcomes))
    outcomes.append(run(compiled, tmp_path, stop))
    late = {'step': outcomes[-1].step + 1, 'seconds': 9e9, 'loss/total': -1.0}
    if outcomes[-1].interrupted:
      with path.open('a') as file:
        file.write(json.dumps(late) + '\n{"step": 39, "seconds": 1.5, "los')
  stops = [outcome.step for outcome in outcomes]
  assert stops == sorted(set(stops)) and len(stops) > 5
  assert outcomes[0].reason == 'SIGTERM came'
  assert not outcomes[-1].reason  # the signal of the last step came too late
  assert_same_run(compiled, tmp_path, whole[0])
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  seconds = [row['seconds'] for row in lines]
  assert seconds == sorted(seconds)  # they count all parts of the run


def test_resuming_compiles_nothing_new(compiled, tmp_path):
  train_steps = compiled.train_steps()
  before = max(train_steps._cache_size(), 1)
  run(compiled, tmp_path, stop_after.StopAfter(3))
  run(compiled, tmp_path, stop_after.StopAfter(2))
  assert train_steps._cache_size() == before == 1


def test_a_finished_run_changes_nothing(compiled, whole):
  folder, _ = whole
  before = (folder / 'metrics.jsonl').read_bytes()
  outcome = run(compiled, folder)
  assert (outcome.step, outcome.interrupted) == (40, False)
  assert (folder / 'metrics.jsonl').read_bytes() == before


def test_a_resumed_run_says_so(compiled, tmp_path, capsys):
  run(compiled, tmp_path, stop_after.StopAfter(4))
  assert 'Resuming' not in capsys.readouterr().out
  run(compiled, tmp_path, stop_after.StopAfter(1))
  assert f'Resuming {tmp_path} after step 8.' in capsys.readouterr().out


def test_a_profile_of_one_dispatch(make_runtime, tmp_path):
  runtime = make_runtime(num_steps=40, eval_every=0)
  loop.run(runtime, str(tmp_path), stop_after.StopAfter(2), profile=True)
  traces = [
      name for _, _, names in os.walk(tmp_path / 'profile') for name in names
  ]
  assert traces


def test_patience_stops_and_the_best_checkpoint_stays(
    make_runtime, planned, tmp_path
):
  planned(_4=0.1, _8=0.5, _12=0.2, _16=0.5, _20=0.3, _24=0.9)
  runtime = make_runtime(eval_every=4, patience=3, keep_checkpoints=1)
  outcome = run(runtime, tmp_path)
  assert outcome.step == 20 and not outcome.interrupted
  assert outcome.reason == (
      'no better validation than 0.5000 (step 8) in 3 evaluations'
  )
  # An equal value is no better one: 16 renews no patience. Of the best two
  # the later is kept, and beside it the newest.
  steps, best = saved_steps(tmp_path)
  assert best in (8, 16) and steps == [best, 20]
  # Started again, it knows that it is done.
  again = run(runtime, tmp_path)
  assert (again.step, again.reason) == (20, outcome.reason)
  assert saved_steps(tmp_path) == (steps, best)


@pytest.mark.parametrize('dispatches', [1, 7, 9, 12])
def test_patience_counts_across_interruptions(
    make_runtime, planned, tmp_path, dispatches
):
  planned(_4=0.1, _8=0.5, _12=0.2, _16=0.4, _20=0.3, _24=0.9)
  runtime = make_runtime(eval_every=4, patience=3)
  run(runtime, tmp_path, stop_after.StopAfter(dispatches))
  assert run(runtime, tmp_path).step == 20


def test_better_validation_renews_patience(make_runtime, planned, tmp_path):
  planned(_10=0.1, _20=0.0, _30=0.2, _40=0.1)
  runtime = make_runtime(eval_every=10, patience=2, keep_checkpoints=1)
  outcome = run(runtime, tmp_path)
  assert (outcome.step, outcome.reason) == (40, '')
  assert saved_steps(tmp_path) == ([30, 40], 30)


def test_validation_that_is_not_finite_neither_counts_nor_stops(
    make_runtime, planned, tmp_path
):
  planned(_10=0.1, _20=math.nan, _30=math.nan, _40=0.05)
  runtime = make_runtime(eval_every=10, patience=2)
  outcome = run(runtime, tmp_path, stop_after.StopAfter(20))
  assert outcome.interrupted
  outcome = run(runtime, tmp_path)
  assert (outcome.step, outcome.reason) == (40, '')
  logged = [row for row in rows(tmp_path) if row['step'] == 20]
  assert 'validation/selection' not in logged[0]
  assert saved_steps(tmp_path)[1] == 10


def test_without_validation_sets_the_newest_is_the_best(
    make_runtime, monkeypatch, tmp_path
):
  monkeypatch.setattr(validation, 'validate', lambda runtime, state: {})
  runtime = make_runtime(eval_every=10, patience=1)
  assert run(runtime, tmp_path).step == 40
  assert saved_steps(tmp_path) == ([0, 40], 40)


def test_validation_happens_at_the_end_if_not_before(
    make_runtime, planned, tmp_path
):
  planned(_40=0.25)
  run(make_runtime(eval_every=0), tmp_path)
  logged = {row['step']: row for row in rows(tmp_path)}
  assert logged[40]['validation/selection'] == 0.25
  assert sum('validation/selection' in row for row in logged.values()) == 1


def test_test_sets_are_not_looked_at_while_training(compiled, monkeypatch):
  seen = []
  monkeypatch.setattr(
      protocol,
      'evaluate',
      lambda score, held_out, *unused: seen.append(held_out) or {'mrr': 0.5},
  )
  evaluation = compiled.problem.split.evaluation
  assert set(evaluation) == {'cold_item', 'cold_item_validation'}
  values = validation.validate(compiled, compiled.fresh_state())
  assert values == {'cold_item/mrr': 0.5}
  assert seen == [evaluation['cold_item_validation']]


SPLITS = {'cold_item/ndcg@20': 0.2, 'warm/ndcg@20': 0.4, 'warm/recall@20': 0.9}


def test_selection_is_the_mean_ndcg_or_what_is_asked_for():
  automatic = config.TrainConfig()
  assert validation.selection_value(SPLITS, automatic) == pytest.approx(0.3)
  chosen = config.TrainConfig(select_by='warm/recall@20')
  assert validation.selection_value(SPLITS, chosen) == 0.9
  assert validation.selection_value({}, chosen) is None
  # Of a loss less is better.
  loss = config.TrainConfig(select_by='warm/log_loss')
  assert validation.selection_value({'warm/log_loss': 0.7}, loss) == -0.7


def test_misspelt_selection_suggests_the_nearest():
  with pytest.raises(errors.UserError) as caught:
    validation.selection_value(
        SPLITS, config.TrainConfig(select_by='warm/recal@20')
    )
  assert "'warm/recal@20', which is no validation metric" in str(caught.value)
  assert "Did you mean 'warm/recall@20'?" in str(caught.value)


PERIOD = st.integers(1, 40)


@hypothesis.given(
    st.integers(1, 120), PERIOD, PERIOD, PERIOD, st.integers(0, 40)
)
@hypothesis.settings(max_examples=100, deadline=None)
def test_dispatches_end_where_something_is_due(last, size, log, save, evaluate):
  """Cuts are the multiples of the periods, from wherever one starts."""
  settings = config.TrainConfig(
      num_steps=last,
      steps_per_dispatch=size,
      log_every=log,
      checkpoint_every=save,
      eval_every=evaluate,
  )
  periods = [size, log, save] + [evaluate] * (evaluate > 0)
  cuts = [
      step
      for step in range(1, last + 1)
      if step == last or any(step % period == 0 for period in periods)
  ]
  for step in range(last):
    stop = loop.next_stop(step, settings)
    assert stop == min(cut for cut in cuts if cut > step)
    assert 1 <= stop - step <= size
  for step in cuts:
    due = loop.is_due(step, evaluate, last)
    assert due == (step == last or (evaluate > 0 and step % evaluate == 0))


def test_a_loss_that_is_not_finite_stops_with_the_cause(
    compiled, problem, tmp_path
):
  cfg = tiny_run.changed(train={'learning_rate': 1e30, 'log_every': 1})
  diverging = runtime_lib.build(cfg, problem, num_devices=1)
  vars(diverging)['fresh_state'] = compiled.fresh_state
  with pytest.raises(errors.UserError) as caught:
    run(diverging, tmp_path)
  message = str(caught.value)
  step = int(re.match(r'Step (\d+): the loss is (inf|nan)', message)[1])
  assert 1 <= step <= 3
  ids = {
      side: set(getattr(diverging.problem, side).ids.tolist())
      for side in ('user', 'item')
  }
  for side in ('user', 'item'):
    named = re.search(f'{side}s ((?:[^;.]|\\.\\d)+)', message)[1]
    found = re.findall(r'([\w-]+) \(embedding \S+, input ([\d.]+),', named)
    assert len(found) == 3, message
    assert {name for name, _ in found} <= ids[side]
  assert 'train.learning_rate 1e+30 too high' in message
  # What was written before is whole.
  for line in (tmp_path / 'metrics.jsonl').read_text().splitlines():
    assert math.isfinite(json.loads(line)['loss/total'])
  steps, _ = saved_steps(tmp_path)
  assert steps and max(steps) <= step
  for saved in steps:
    state = restored(compiled, tmp_path, saved)
    assert int(state.step) == saved
    for leaf in jax.tree.leaves(state):
      assert np.all(np.isfinite(leaf))
