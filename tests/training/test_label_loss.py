# SPDX-License-Identifier: Apache-2.0
"""Steps on labelled rows: what the towers see and what the terms are given."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import parallel
from dropoutnet_jax.data import batches
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.model import label_objective
from dropoutnet_jax.model import losses
from dropoutnet_jax.model import objective_params
from dropoutnet_jax.training import batch_loss
from dropoutnet_jax.training import resident
from dropoutnet_jax.training import runtime as runtime_lib
from dropoutnet_jax.training import step_batch
from tests import tiny_run

TERMS = ('pointwise', 'pairwise', 'softmax', 'in_batch_softmax')


def _rows(seed=0, size=40):
  rng = np.random.default_rng(seed)
  return tables_lib.LabelledRows(
      jnp.asarray(rng.integers(0, 6, size), jnp.int32),
      jnp.asarray(rng.integers(0, 9, size), jnp.int32),
      jnp.asarray(rng.random(size) < 0.5, jnp.float32),
      jnp.asarray(rng.random(size), jnp.float32),
  )


def _embeddings(seed=0, size=40):
  rng = np.random.default_rng(seed)
  return [jnp.asarray(rng.normal(size=(size, 5)), jnp.float32) for _ in 'ui']


def _history():
  rng = np.random.default_rng(1)
  history = np.full((6, 9), -1, np.int32)
  for row in range(6):
    liked = np.sort(rng.choice(9, row, replace=False))
    history[row, :row] = liked
  return history


@pytest.mark.parametrize('seed', [0, 1])
def test_batch_likes_with_repeated_rows_and_items(seed):
  rows, history = _rows(seed), _history()
  found = batches.batch_likes(jnp.asarray(history)[rows.user], rows.item, 9)
  for a, user in enumerate(rows.user.tolist()):
    liked = set(history[user].tolist())
    expected = [item in liked for item in rows.item.tolist()]
    assert found[a].tolist() == expected


def test_terms_are_the_losses_with_their_masks():
  """Each term alone, as a user of the losses would call them."""
  settings = config.ObjectiveConfig(
      teacher=0.0,
      pairing='interactions',
      temperature=0.5,
      log_q=0.5,
      num_negatives=39,
      **dict.fromkeys(TERMS, 1.0),
  )
  rows, (user, item), history = _rows(), _embeddings(), _history()
  known = batches.batch_likes(jnp.asarray(history)[rows.user], rows.item, 9)
  log_q = jnp.log(jnp.arange(1.0, 41.0))
  terms = jax.jit(functools.partial(label_objective.label_terms, settings))
  liked = jnp.asarray(history)[rows.user]
  batch = label_objective.Batch(user, item, rows, log_q, liked, known)
  found = terms(objective_params.Logit(0.5), batch, jax.random.key(0))
  assert set(found.value) == set(found.rows) == set(TERMS)
  score = jnp.sum(user * item, axis=1)
  positive = jnp.where(rows.label > 0, rows.weight, 0)
  expected = {
      'pointwise': losses.pointwise(score / 0.5, rows.label, rows.weight),
      'pairwise': losses.pairwise(
          score, rows.label, rows.weight, temperature=0.5
      ),
  }
  # All shifts are drawn: every other row is a negative of each.
  same = rows.item[:, None] == rows.item[None, :]
  valid = ~(same | known)
  others = ~np.eye(40, dtype=bool)
  scores = (user @ item.T)[others].reshape(40, 39)
  expected['softmax'] = losses.support_vector_softmax(
      score, scores, positive, gamma=2.0, mask=valid[others].reshape(40, 39)
  )
  logits = user @ item.T / 0.5 - 0.5 * log_q[None]
  own = jnp.diagonal(logits)
  rest = jnp.where(valid, logits, -jnp.inf)
  cost = jnp.logaddexp(own, jax.nn.logsumexp(rest, axis=1)) - own
  weight = positive * valid.any(axis=1)
  expected['in_batch_softmax'] = jnp.sum(weight * cost) / jnp.sum(weight)
  for name, value in expected.items():
    np.testing.assert_allclose(
        found.value[name], value, rtol=1e-5, err_msg=name
    )
  assert int(found.rows['softmax']) == int(jnp.sum(weight > 0))
  assert int(found.rows['pointwise']) == 40


class Spy:
  """In place of the model: embeds preferences, keeps what it is given."""

  def __init__(self):
    self.seen = []

  def apply(self, variables, preference, content, **unused):
    del variables
    self.seen.append((preference, content))
    return embeddings.Embedding(preference.value[:, :1] * 0 + 1.0), {}


def test_histories_leave_out_the_row_that_is_trained_on(problem):
  """With histories as preference also rows that are taken as they are."""
  cfg = tiny_run.get_config()
  cfg.features.preference = 'history'
  cfg.model.preference_scaling = 'none'
  cfg.dropout = config.DropoutConfig(user_rate=0.0, item_rate=0.0)
  cfg.objective = config.ObjectiveConfig(
      teacher=0.0, softmax=1.0, num_negatives=4, pairing='interactions'
  )
  cfg.validate()
  tables = jax.tree.map(jnp.asarray, resident.make_tables(cfg, problem))
  model = Spy()
  mesh = parallel.make_mesh(config.MeshConfig(), 1)
  loss_fn = batch_loss.make_loss_fn(cfg, model, tables, mesh)
  _, (_, metrics) = loss_fn({}, {}, tables, jnp.int32(3))
  assert set(metrics) | {'gradient_norm'} == set(batch_loss.metric_names(cfg))
  rows = step_batch.batch_of_step(cfg, tables, jnp.int32(3))
  likes = problem.likes().toarray() > 0
  content = {'user': problem.user.dense, 'item': problem.item.dense}
  (user, _), (item, _) = model.seen
  user, item, rows = jax.device_get((user, item, rows))
  for row, (u, i) in enumerate(zip(rows.user, rows.item)):
    assert likes[u, i]
    for found, mine, other in (
        (user, likes[u] & (np.arange(likes.shape[1]) != i), content['item']),
        (item, likes[:, i] & (np.arange(likes.shape[0]) != u), content['user']),
    ):
      assert found.present[row] == mine.any()
      expected = other[mine].mean(axis=0) if mine.any() else 0.0
      np.testing.assert_allclose(found.value[row], expected, atol=1e-5)


def test_evaluation_sees_whole_histories(problem):
  cfg = tiny_run.get_config()
  cfg.features.preference = 'history'
  cfg.model.preference_scaling = 'unit'
  cfg.objective.teacher = 0.0
  tables = resident.make_tables(cfg, problem)
  likes = problem.likes().toarray() > 0
  mean = likes @ problem.item.dense / np.maximum(likes.sum(axis=1), 1)[:, None]
  size = np.linalg.norm(mean, axis=1, keepdims=True)
  expected = mean / np.where(size > 0, size, 1) * mean.shape[1] ** 0.5
  np.testing.assert_allclose(tables.user.preference, expected, atol=1e-5)
  np.testing.assert_array_equal(tables.user.present, likes.any(axis=1))


def test_one_device_is_eight_on_labels(problem):
  """Negatives come from the global batch, whatever the number of devices.

  All terms and options together are in test_label_options.py.
  """
  cfg = tiny_run.get_config()
  cfg.objective = config.ObjectiveConfig(
      teacher=0.0, pairing='interactions', num_negatives=8, softmax=1.0
  )
  cfg.features.statistics = (0.0,)
  cfg.train.batch_size = 64
  # An offset of all items has no slope, of whose rounding Adam makes steps.
  cfg.train.optimizer, cfg.train.learning_rate = 'sgd', 0.1
  cfg.train.steps_per_dispatch = 3
  found = []
  for number in (1, 8):
    runtime = runtime_lib.build(cfg, problem, num_devices=number)
    state, metrics = runtime.train_steps()(
        runtime.fresh_state(), runtime.tables, 3
    )
    found.append((jax.device_get(state.params), metrics['loss/softmax']))
  np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-4)
  assert np.isfinite(found[0][1]).all()
  for a, b in zip(jax.tree.leaves(found[0][0]), jax.tree.leaves(found[1][0])):
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize('hidden', [(), (7,)])
def test_towers_start_as_content_knn(problem, hidden):
  """Before the first step: cosine of an item and the mean of a history."""
  cfg = tiny_run.get_config()
  cfg.features.preference = 'history'
  cfg.features.user = []
  cfg.objective = config.ObjectiveConfig(
      teacher=0.0, in_batch_softmax=1.0, pairing='interactions'
  )
  width = problem.item.dense.shape[1]
  cfg.model = config.ModelConfig(
      tower='modern',
      hidden=hidden,
      rank=width,
      normalize=True,
      residual_preference=True,
      preference_scaling='unit',
  )
  cfg.validate()
  alone = problem_lib.Side(
      problem.user.ids,
      np.zeros((len(problem.user.ids), 0), np.float32),
      problem.user.sparse,
  )
  world = dataclasses.replace(problem, user=alone)
  runtime = runtime_lib.build(cfg, world, num_devices=1)
  scorer = runtime.scorer(runtime.fresh_state())
  held_out = problem.split.evaluation['cold_item']
  users = np.unique(held_out.user)
  found = scorer.methods()['model']('cold_item', held_out)(users)
  likes = problem.likes().toarray() > 0
  mean = likes[users] @ problem.item.dense
  unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
  expected = unit(mean) @ unit(problem.item.dense[held_out.candidates]).T
  np.testing.assert_allclose(found, expected, atol=1e-5)
