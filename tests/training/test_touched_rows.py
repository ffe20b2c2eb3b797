# SPDX-License-Identifier: Apache-2.0
"""Steps that move the rows they look up, beside loops and beside dense ones."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import parallel
from dropoutnet_jax import table_shards
from dropoutnet_jax.model import embedding_rows
from dropoutnet_jax.training import optimizers
from dropoutnet_jax.training import resident
from dropoutnet_jax.training import state as state_lib
from dropoutnet_jax.training import step_batch
from dropoutnet_jax.training import steps
from dropoutnet_jax.training import touched_rows
from tests import tiny_run
from tests import toy_tokens

ROWS, WIDTH, BATCH, STEPS = 256, 3, 6, 8
NAMES = ('loss/total', 'gradient_norm')
# Ids of each step, in shards of 64 rows: at their edges, twice, in some steps.
LOOKED_UP = np.random.default_rng(0).choice(
    [0, 1, 63, 64, 127, 128, 191, 192, 255], (STEPS, BATCH)
)
TARGETS = np.random.default_rng(1).normal(size=(STEPS, BATCH, WIDTH))
START = np.random.default_rng(2).normal(size=(ROWS, WIDTH)).astype(np.float32)


def loss_fn(params, stats, tables, step, ids=None):
  """Squares of what is looked up, times a parameter that is no table."""
  table = embedding_rows.of_params(params, ids)['it']
  gap = params['scale'] * table[tables['id'][step]] - tables['target'][step]
  loss = jnp.sum(gap * gap) + jnp.where(step == tables['bad'], jnp.inf, 0.0)
  return loss, (stats, {'loss/total': loss})


def find(tables, step):
  ids = jnp.unique(tables['id'][step], size=BATCH, fill_value=ROWS)
  return {'it': ids.astype(jnp.int32)}


def make_settings(optimizer):
  made = config.TrainConfig(
      optimizer='adagrad',
      learning_rate=0.1,
      schedule='linear',
      num_steps=2 * STEPS,
      steps_per_dispatch=STEPS,
      embedding_optimizer=optimizer,
      embedding_learning_rate=0.5,
      embedding_parameters='embeddings/it',
  )
  made.validate()
  return made


@functools.cache
def make_steps(optimizer, devices=(1, 1)):
  """Compiled steps, and what makes their first state."""
  num_devices, model = devices
  mesh = parallel.make_mesh(config.MeshConfig(model=model), num_devices)
  settings = make_settings(optimizer)
  made = optimizers.make_optimizer(settings)
  how = {}
  if settings.touches_rows:
    how = {'find': find, 'mesh': mesh}
  train = steps.make_train_steps(loss_fn, made, settings, NAMES, **how)

  def start():
    params = {'embeddings': {'it': jnp.array(START)}, 'scale': jnp.float32(1)}
    state = state_lib.TrainState(
        jnp.int32(0), params, {}, made.init(params), {}, {}
    )
    place = lambda path, x: (
        parallel.replicated(mesh)
        if state_lib.table_of(path) is None
        else table_shards.split_rows(x.shape, mesh)
    )
    return jax.device_put(state, jax.tree_util.tree_map_with_path(place, state))

  return train, start


def make_tables(ids=LOOKED_UP, bad=-1):
  return {
      'id': jnp.asarray(ids),
      'target': jnp.asarray(TARGETS, jnp.float32),
      'bad': jnp.int32(bad),
  }


def run(optimizer, devices=(1, 1), **given):
  train, start = make_steps(optimizer, devices)
  return train(start(), make_tables(**given), jnp.int32(STEPS))


def slow_steps(optimizer, s):
  """Row by row, in float64: the table, the scale, norms of gradients.

  The scale is moved by Adagrad.
  """
  table, scale, norms = START.astype(float), 1.0, []
  first, second = np.zeros((2, ROWS, WIDTH))
  sums, of_scale = np.full(ROWS, s.accumulator), s.accumulator
  for step, (ids, target) in enumerate(zip(LOOKED_UP, TARGETS)):
    share = 1 - step / (2 * STEPS)
    gap = scale * table[ids] - target
    slope = 2 * np.sum(gap * table[ids])
    square = slope**2
    for row in set(ids.tolist()):
      g = 2 * scale * gap[ids == row].sum(axis=0)
      square += (g * g).sum()
      rate = share * s.embedding_learning_rate
      if optimizer == 'row_adagrad':
        sums[row] += (g * g).mean()
        table[row] -= rate * g / np.sqrt(sums[row] + 1e-7)
        continue
      first[row] += (1 - s.momentum) * (g - first[row])
      second[row] += 0.001 * (g * g - second[row])
      mean = first[row] / (1 - s.momentum ** (step + 1))
      root = np.sqrt(second[row] / (1 - 0.999 ** (step + 1)))
      table[row] -= rate * mean / (root + 1e-8)
    norms.append(square**0.5)
    of_scale += slope**2
    scale -= share * s.learning_rate * slope / np.sqrt(of_scale + 1e-7)
  return table, scale, norms


@pytest.mark.parametrize('devices', [(1, 1), (8, 4)])
@pytest.mark.parametrize('optimizer', config.ROW_OPTIMIZERS)
def test_steps_match_loops_over_rows(optimizer, devices):
  state, metrics = run(optimizer, devices)
  settings = make_settings(optimizer)
  table, scale, norms = slow_steps(optimizer, settings)
  found = np.asarray(state.params['embeddings']['it'])
  np.testing.assert_allclose(found, table, rtol=2e-4, atol=1e-5)
  np.testing.assert_allclose(state.params['scale'], scale, rtol=1e-4)
  np.testing.assert_allclose(metrics['gradient_norm'], norms, rtol=1e-4)
  others = np.setdiff1d(np.arange(ROWS), LOOKED_UP)
  np.testing.assert_array_equal(found[others], START[others])
  table = state.params['embeddings']['it']
  assert table.is_fully_replicated == (devices == (1, 1))
  # Whatever the optimiser keeps of a row lies where the row does.
  for name, leaf in state_lib.by_name(state.opt_state).items():
    if name.endswith('/it'):
      assert leaf.sharding.spec == table.sharding.spec


def test_rows_that_all_steps_look_up_move_as_with_dense_adam():
  ids = np.tile(np.arange(BATCH) + 61, (STEPS, 1))  # over the edge of a shard
  state, metrics = run('lazy_adam', (8, 4), ids=ids)
  dense, expected = run('adam', ids=ids)
  for name in NAMES:
    np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
      state.params,
      dense.params,
  )


@pytest.mark.parametrize('optimizer', config.ROW_OPTIMIZERS)
def test_steps_in_two_calls_and_a_bad_one(optimizer):
  """Bit for bit; a step that is not finite leaves all rows as they were."""
  whole, _ = run(optimizer)
  state, metrics = run(optimizer, bad=5)
  np.testing.assert_array_equal(
      np.isfinite(metrics['loss/total'])[:6], [1] * 5 + [0]
  )
  assert int(state.step) == 5
  train, _ = make_steps(optimizer)
  state, _ = train(state, make_tables(), jnp.int32(3))
  jax.tree.map(np.testing.assert_array_equal, state, whole)
  assert train._cache_size() == 1


# Which rows a step touches.


def tokens_of(side, rows):
  """Ids of a table of makers in some rows, by loops."""
  found = set()
  for tokens in (side.tokens, side.features and side.features.tokens):
    for feature in tokens.features if tokens is not None else ():
      if feature.table == 'maker':
        found |= set(tokens.id[rows][:, feature.start : feature.stop].flat)
  return found


@pytest.mark.parametrize(
    'objective',
    [
        {'pairing': 'blocks', 'block_users': 4},
        {'pairing': 'published'},
        {'pairing': 'interactions', 'teacher': 0.0, 'pointwise': 1.0},
        {
            'pairing': 'interactions',
            'teacher': 0.0,
            'softmax': 1.0,
            'num_negatives': 4,
            'in_batch_softmax': 1.0,
            'num_sampled': 16,
            'num_impressions': 2,
        },
    ],
)
def test_what_a_step_looks_up_is_found(labelled, objective):
  large = dataclasses.replace(toy_tokens.MAKER[0], num_ids=300)
  problem = toy_tokens.with_tokens(labelled, item_content=(large,))
  cfg = tiny_run.changed(objective=objective, train={'batch_size': 16})
  tables = resident.make_tables(cfg, problem)
  find_ids = touched_rows.make_find(cfg, ['maker'], None)
  if_fewer = touched_rows.make_find(cfg, ['maker'], None, if_fewer=True)
  rows = functools.partial(step_batch.rows_of_step, cfg)
  for step in (0, 3):
    ids = np.asarray(jax.jit(find_ids)(tables, jnp.int32(step))['maker'])
    some = jax.eval_shape(if_fewer, tables, jnp.int32(step))
    assert ('maker' in some) == (len(ids) < large.num_rows)
    users, items = jax.jit(rows)(tables, jnp.int32(step))
    if 'num_sampled' in objective:
      assert len(items) == 16 + 16 * 2 + 16
    expected = (
        {0} | tokens_of(tables.user, users) | tokens_of(tables.item, items)
    )
    some = ids[ids < large.num_rows]
    np.testing.assert_array_equal(some, sorted(expected))
    assert np.all(ids[len(some) :] == large.num_rows)
