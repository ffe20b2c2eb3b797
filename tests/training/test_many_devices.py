# SPDX-License-Identifier: Apache-2.0
"""What many devices change: where rows lie, and a note; not the numbers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import parallel
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.training import loop
from dropoutnet_jax.training import results as results_lib
from dropoutnet_jax.training import runtime as runtime_lib
from tests import tiny_run
from tests import toy_tokens


def run_steps(cfg, problem, num_devices):
  """Five steps: (runtime, state, losses)."""
  runtime = runtime_lib.build(cfg, problem, num_devices=num_devices)
  state, losses = runtime.train_steps()(
      runtime.fresh_state(), runtime.tables, jnp.int32(5)
  )
  return runtime, state, losses


@pytest.mark.parametrize('pairing', ['blocks', 'published'])
def test_split_tables_train_and_score_like_one_device(problem, pairing):
  """Two devices along 'data', four along 'model'."""
  learnt = pairing == 'published'  # both take it in alike
  if learnt:
    problem = toy_tokens.with_tokens(problem)
  found = []
  for num_devices, model in ((1, 1), (8, 4)):
    cfg = tiny_run.changed(
        mesh={'model': model},
        objective={'pairing': pairing, 'block_users': 16},
        # Adam makes steps of its rate of what is 0 but for rounding.
        train={
            'batch_size': 16 * 24,
            'steps_per_dispatch': 5,
            'learning_rate': 1e-3,
        },
    )
    cfg.objective.embedding_regularization = 0.1 * learnt
    runtime, state, losses = run_steps(cfg, problem, num_devices)
    for name in ('content', 'preference', 'factors', 'history_total'):
      table = getattr(runtime.tables.item, name)
      rows = table.sharding.shard_shape(table.shape)[0]
      assert rows == -(-len(problem.item.ids) // model)
    if learnt:
      table = runtime.tables.user.features.tokens.id
      rows = table.sharding.shard_shape(table.shape)[0]
      assert rows == -(-len(problem.user.ids) // model)
    for leaf in jax.tree.leaves(state):
      assert leaf.is_fully_replicated
    # The next call finds the state where the compiled program expects it.
    steps = runtime.train_steps()
    assert steps._cache_size() == 1
    for _ in range(2):
      state, more = steps(state, runtime.tables, jnp.int32(2))
    assert steps._cache_size() == 1
    name, held_out = next(iter(problem.split.evaluation.items()))
    score = runtime.scorer(state).methods()['model'](
        protocol.quadrant_of(name), held_out
    )
    scores = score(np.unique(held_out.user)[:8])
    found.append(
        (
            losses,
            jax.tree.map(lambda x: x[:2], more),
            state.params,
            state.batch_stats,
            np.asarray(scores),
        )
    )
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      *found,
  )


def test_a_batch_that_is_not_split_is_noted(problem):
  cfg = tiny_run.changed(
      objective={'block_users': 16}, train={'batch_size': 16 * 25}
  )
  notes = runtime_lib.build(cfg, problem, num_devices=8).notes()
  assert len(notes) == 1
  assert notes[0].startswith('25 rows of a batch cannot be split over 8')
  assert not runtime_lib.build(cfg, problem, num_devices=1).notes()


def test_results_are_computed_by_the_writer_alone(
    compiled, problem, monkeypatch
):
  """The process that waits makes no baseline and gets all results."""
  state, outcome = compiled.fresh_state(), loop.Outcome(3, 1.5)
  expected, per_user = results_lib.evaluate(compiled, state, outcome)
  assert set(per_user) == set(expected['splits'])
  assert expected['splits'] and expected['step'] == 0
  text = json.dumps(expected)
  monkeypatch.setattr(parallel, 'on_writer', lambda work: None)
  monkeypatch.setattr(
      parallel, 'from_writer', lambda own: text if own is None else own
  )

  def refuse(runtime):
    raise AssertionError('computed twice')

  monkeypatch.setattr(results_lib, 'make_baselines', refuse)
  assert results_lib.evaluate(compiled, state, outcome) == (expected, {})
