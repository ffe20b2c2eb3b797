# SPDX-License-Identifier: Apache-2.0
"""Runs on labelled rows with every option on: devices, resuming, the log."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.evaluation import baselines
from dropoutnet_jax.evaluation import labelled as labelled_metrics
from dropoutnet_jax.evaluation import row_scores
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.model import label_objective
from dropoutnet_jax.model import objective_params
from dropoutnet_jax.training import batch_loss
from dropoutnet_jax.training import loop
from dropoutnet_jax.training import results as results_lib
from dropoutnet_jax.training import runtime as runtime_lib
from dropoutnet_jax.training import signals
from dropoutnet_jax.training import state as state_lib
from dropoutnet_jax.training import step_batch
from dropoutnet_jax.training import telemetry
from dropoutnet_jax.training import validation
from tests import stop_after
from tests import tiny_run
from tests.training import test_loop

TERMS = ('pointwise', 'pairwise', 'softmax', 'in_batch_softmax')
STEPS = 6


def _config(**sections):
  """Every option on that does not exclude another."""
  cfg = tiny_run.get_config()
  cfg.model.normalize = True
  cfg.objective = config.ObjectiveConfig(
      teacher=0.1,
      pairing='interactions',
      learn_weights=True,
      sampling='epochs',
      group_rows=2,
      num_negatives=5,
      num_impressions=2,
      num_sampled=8,
      sampling_power=0.5,
      num_hard=6,
      pairwise_within='session',
      **dict.fromkeys(TERMS, 1.0),
  )
  cfg.train = config.TrainConfig(
      batch_size=240,
      num_steps=STEPS,
      steps_per_dispatch=3,
      log_every=3,
      eval_every=0,
      checkpoint_every=3,
      ema=0.9,
      # An offset of all items has no slope, of whose rounding Adam makes steps.
      optimizer='sgd',
      learning_rate=0.1,
  )
  for section, fields in sections.items():
    for name, value in fields.items():
      setattr(getattr(cfg, section), name, value)
  cfg.validate()
  return cfg


@pytest.fixture(scope='module', name='runtime')
def _runtime(labelled):
  """On one device; its steps compile once."""
  return runtime_lib.build(_config(), labelled, num_devices=1)


def test_eight_devices_train_like_one_with_all_options(runtime, labelled):
  found = []
  for number in (1, 8):
    many = runtime
    if number > 1:
      many = runtime_lib.build(runtime.cfg, labelled, num_devices=number)
    state, logged = many.train_steps()(
        many.fresh_state(), many.tables, jnp.int32(2)
    )
    found.append(jax.device_get((logged, state)))
  (logged, one), (others, eight) = found
  assert set(logged) == set(batch_loss.metric_names(runtime.cfg))
  for name, values in logged.items():
    assert np.isfinite(values[:2]).all(), name
    np.testing.assert_allclose(
        others[name][:2], values[:2], rtol=1e-4, atol=1e-6, err_msg=name
    )
  for term in TERMS:
    assert (logged[f'rows/{term}'][:2] > 0).all()
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_a_run_that_was_cut_is_the_uninterrupted_one(
    runtime, tmp_path, monkeypatch
):
  monkeypatch.setattr(validation, 'validate', lambda runtime, state: {})
  for name, stops in (('whole', []), ('cut', [1])):
    (tmp_path / name).mkdir()
    for number in stops:
      stop = stop_after.StopAfter(number)
      assert loop.run(runtime, str(tmp_path / name), stop).interrupted
    outcome = loop.run(runtime, str(tmp_path / name), signals.StopRequest())
    assert outcome.step == STEPS and not outcome.interrupted
  test_loop.assert_same_run(runtime, tmp_path / 'cut', tmp_path / 'whole')
  rows = telemetry.read_metrics(str(tmp_path / 'whole'))
  for row in rows:
    assert 0.1 < row['scale'] < 20 and -2 < row['bias'] < 0
    for term in ('teacher', *TERMS):
      assert row[f'weight/{term}'] > 0
  last = test_loop.restored(runtime, tmp_path / 'whole')
  # Averaged like all other parameters.
  learnt, averaged = last.params['objective'], last.ema_params['objective']
  assert learnt['scale'] != averaged['scale']
  assert set(learnt['log_variance']) == {'teacher', *TERMS}


def test_the_last_batch_of_an_epoch_has_fewer_rows(runtime):
  """120 groups of two rows each, the first of which are of the epoch."""
  draw = jax.jit(functools.partial(step_batch.batch_of_step, runtime.cfg))
  size = len(runtime.tables.rows.user)
  last, left = divmod(size, 120)
  assert left
  for step, real in ((last - 1, 120), (last, left), (last + 1, 120)):
    batch = draw(runtime.tables, jnp.int32(step))
    assert int(batch.is_real.sum()) == 2 * real
    assert not np.any(np.asarray(batch.weight)[~np.asarray(batch.is_real)])


class Spy:
  """In place of the model: keeps what it is given, embeds nothing."""

  def __init__(self, rank=4):
    self.rank, self.seen = rank, {}

  def apply(self, variables, preference, content, method, **unused):
    del variables
    self.seen[method] = preference, content.dense
    shape = (len(content.dense), self.rank)
    return embeddings.Embedding(jnp.ones(shape) / 2), {}


def test_further_items_are_embedded_with_those_of_the_rows(
    labelled, monkeypatch
):
  """In one call of the tower, dropped as often, corrected as they are drawn."""
  cfg = _config(
      dropout={
          'kind': 'exclusive',
          'drop_item': 0.2,
          'drop_both': 0.1,
          'drop_user': 0.0,
          'user_transform': 0.1,
      },
      objective={'num_sampled': 400, 'sampling_power': 0.5},
  )
  runtime = runtime_lib.build(cfg, labelled, num_devices=1)
  model = Spy()
  loss_fn = batch_loss.make_loss_fn(cfg, model, runtime.tables, runtime.mesh)
  compared = []

  def keep(settings, logit, batch, *unused):
    del settings, logit, unused
    compared.append(batch)
    none = dict.fromkeys(TERMS, jnp.float32(1.0))
    return label_objective.Terms(none, none)

  monkeypatch.setattr(label_objective, 'label_terms', keep)

  @jax.jit
  def see(params, tables, step):
    loss_fn(params, {}, tables, step)
    return model.seen['embed_users'], model.seen['embed_items'], compared[-1]

  (user, _), (item, content), found = see(
      objective_params.create(cfg, runtime.tables.rows),
      runtime.tables,
      jnp.int32(2),
  )
  assert len(user.present) == 240
  assert len(item.present) == len(content) == 240 * 3 + 400
  table, rows = runtime.tables.item, runtime.tables.shown.value
  np.testing.assert_array_equal(content[:240], table.content[found.rows.item])
  shown = {tuple(row) for row in np.asarray(table.content[rows]).tolist()}
  assert {tuple(row) for row in np.asarray(content[240:720]).tolist()} <= shown
  for part in (item.present[:720], item.present[720:]):
    share = float(jnp.mean(part))
    assert abs(share - 0.7) < 4 * math.sqrt(0.7 * 0.3 / len(part))
  assert not np.any(np.asarray(item.value)[~np.asarray(item.present)])
  sampled = np.asarray(found.sampled.item_id)
  np.testing.assert_array_equal(content[720:], table.content[sampled])
  # Both say how often an item is expected for each of the 240 rows.
  expected = runtime.tables.popularity.log_probability[sampled]
  np.testing.assert_allclose(
      found.sampled.log_q, expected + math.log(400 / 240), rtol=1e-5
  )
  np.testing.assert_array_equal(
      found.log_frequency, runtime.tables.log_frequency[found.rows.item]
  )
  liked = labelled.likes().toarray() > 0
  across = np.concatenate([found.rows.item, sampled])
  np.testing.assert_array_equal(
      found.known, liked[np.asarray(found.rows.user)][:, across]
  )


def test_probabilities_are_those_of_the_learnt_logits(runtime, labelled):
  """Of the averaged parameters, which the embeddings are of too."""
  rng = np.random.default_rng(1)
  held_out = labelled.split.evaluation['cold_item']
  rows = labelled.split.train.select(np.zeros(0, int))
  rows = dataclasses.replace(
      rows,
      user=held_out.user,
      item=rng.permutation(held_out.item),
      label=np.float32(rng.random(len(held_out)) < 0.5),
  )
  cfg, state = runtime.cfg, runtime.fresh_state()
  learnt = jax.tree.map(lambda x: x + 1, state.ema_params['objective'])
  state = dataclasses.replace(
      state, ema_params=state.ema_params | {'objective': learnt}
  )
  scorer = runtime.scorer(state)
  methods = scorer.methods() | {'random': baselines.make_random(0)}
  found = results_lib._label_metrics(
      cfg, methods, 'cold_item', rows, scorer.variables['params']
  )
  score = row_scores.score_rows(methods['model'], 'cold_item', rows, 100)
  logit = objective_params.logit(cfg, state.ema_params)
  expected = labelled_metrics.summary(
      np.asarray(logit(score)), rows.label, group=rows.user
  )
  assert found['model'] == pytest.approx(expected, rel=1e-5)
  assert 'log_loss' not in found['random']
  before = objective_params.logit(cfg, state.params)
  assert float(before.temperature) != float(logit.temperature)
  # With a sparse part beside them, the towers alone were trained to say it.
  methods = {'model': methods['random'], 'tower': methods['model']}
  found = results_lib._label_metrics(
      cfg, methods, 'cold_item', rows, state.ema_params
  )
  assert found['tower'] == pytest.approx(expected, rel=1e-5)
  assert 'log_loss' not in found['model']


def test_names_of_learnt_parameters(runtime):
  names = state_lib.by_name(runtime.fresh_state().params)
  assert [name for name in names if name.startswith('objective/')] == [
      'objective/bias',
      *(f'objective/log_variance/{t}' for t in sorted(('teacher', *TERMS))),
      'objective/scale',
  ]
