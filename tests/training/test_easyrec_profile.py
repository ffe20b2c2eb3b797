# SPDX-License-Identifier: Apache-2.0
"""A step of the 'easyrec' profile against loops over plain numbers.

The whole loss of a batch: look-ups, dropout of whole rows with what is kept
divided, six networks, cosines, three losses, L2 of kernels and of embeddings.
Only what is drawn (rows, masks, shifts) comes from the functions under test.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import parallel
from dropoutnet_jax import profiles
from dropoutnet_jax.data import scaler as scaler_lib
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.data import tokens as tokens_lib
from dropoutnet_jax.model import input_dropout
from dropoutnet_jax.model import rolled
from dropoutnet_jax.model import tower_inputs
from dropoutnet_jax.model import towers
from dropoutnet_jax.training import batch_loss
from dropoutnet_jax.training import step_batch
from tests.model import slow_losses

pytestmark = pytest.mark.usefixtures('quick_compilation')

SIDES = {'user': 9, 'item': 11}  # rows of each table
BATCH, EMBEDDING = 24, 3
RATES = {'user': 0.25, 'item': 0.5}


def _config():
  features = config.FeaturesConfig(
      user=[config.Feature('tags', embedding=EMBEDDING, pooling='sum')],
      item=[config.Feature('tags', embedding=EMBEDDING, pooling='sum')],
  )
  cfg = profiles.apply(config.Config(features=features), 'easyrec')
  cfg.model.group_hidden, cfg.model.hidden, cfg.model.rank = (5,), (6, 4), 4
  cfg.model.groups = config.GroupsConfig(
      user_preference=(3, 2),
      item_content=(0,),
      item_tower=(7,),
      no_batch_norm=('user_tower', 'item_preference'),
  )
  cfg.dropout.user_rate = RATES['user']
  cfg.objective.pointwise = 0.5
  cfg.objective.pairwise = 2.0
  cfg.objective.softmax = 0.7
  cfg.objective.softmax_temperature = 1 / 20
  cfg.objective.num_negatives = 6
  cfg.objective.margin, cfg.objective.support_vector = 0.1, 1.5
  cfg.objective.kernel_regularization = 1e-2
  cfg.objective.embedding_regularization = 3e-2
  cfg.train.batch_size = BATCH
  cfg.validate()
  return cfg


def _tokens(rng, rows, table):
  """Up to three values of each row; id 0 of weight 0 is none."""
  ids = rng.integers(1, 8, (rows, 3)) * (rng.random((rows, 3)) < 0.7)
  feature = tokens_lib.TokenFeature(
      table, table, 0, 3, num_ids=8, width=EMBEDDING, pooling='sum', std=1.0
  )
  weight = np.where(ids > 0, rng.uniform(0.5, 2.0, ids.shape), 0.0)
  return tokens_lib.Tokens(
      jnp.asarray(ids, jnp.int32), jnp.float32(weight), (feature,)
  )


def _side(rng, name, rows):
  none = scaler_lib.fit(np.zeros((0, 0)), 'none')
  nothing = jnp.zeros((rows, 0), jnp.float32)
  draw = lambda width: jnp.float32(3 * rng.normal(size=(rows, width)))
  return tables_lib.SideTable(
      content=draw(2),
      preference=nothing,
      present=jnp.zeros(rows, bool),
      factors=nothing,
      history_total=nothing,
      history_count=jnp.zeros(rows, jnp.int32),
      preference_scaler=none,
      history_scaler=none,
      tokens=_tokens(rng, rows, f'{name}_content'),
      features=tables_lib.PreferenceFeatures(
          draw(2),
          # One table for both sides, as embedding_name shares it.
          _tokens(rng, rows, 'shared'),
          jnp.ones(rows, bool),
      ),
  )


def _tables(seed=0):
  rng = np.random.default_rng(seed)
  user, item = (_side(rng, name, rows) for name, rows in SIDES.items())
  size = 2 * BATCH
  weight = rng.choice([0.0, 0.5, 1.0, 4.0], size)
  rows = tables_lib.LabelledRows(
      jnp.asarray(rng.integers(0, SIDES['user'], size), jnp.int32),
      jnp.asarray(rng.integers(0, SIDES['item'], size), jnp.int32),
      jnp.asarray(rng.random(size) < 0.4, jnp.float32),
      jnp.float32(weight),
  )
  nothing = jnp.zeros((0, 0), jnp.int32)
  every = [jnp.arange(rows, dtype=jnp.int32) for rows in SIDES.values()]
  log_frequency = jnp.zeros(SIDES['item'])
  return tables_lib.Tables(
      user, item, *every, nothing, nothing, rows, log_frequency
  )


def _looked_up(params, tokens, rows):
  """Sum of the embeddings of each row, and half of all their squares."""
  table = np.float64(params['embeddings'][tokens.features[0].table])
  pooled, square = np.zeros((len(rows), EMBEDDING)), 0.0
  for place, row in enumerate(rows):
    for number, weight in zip(tokens.id[row], tokens.weight[row], strict=True):
      if number:
        pooled[place] += float(weight) * table[number]
        square += math.fsum(table[number] ** 2) / 2
  return pooled, square


def _network(params, x, name, batch_norm):
  """Dense, batch norm of this batch if any, relu; to the last layer."""
  number = 0
  while f'{name}_{number}' in params:
    layer = params[f'{name}_{number}']
    x = x @ np.float64(layer['kernel']) + np.float64(layer.get('bias', 0.0))
    norm = params.get(f'{name}_norm_{number}')
    assert (norm is not None) == batch_norm
    if norm is not None:
      x = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-3)
      x = x * np.float64(norm['scale']) + np.float64(norm['bias'])
    x = np.maximum(x, 0.0)
    number += 1
  return x, number


def _embedded(params, side, name, rows, keep, without_norm):
  """One tower on rows: embeddings of norm 1, and half the squares looked up."""
  params_of = params[f'{name}_tower']
  emb, content_square = _looked_up(params, side.tokens, rows)
  content = np.concatenate([np.float64(side.content)[rows], emb], axis=1)
  emb, square = _looked_up(params, side.features.tokens, rows)
  known = np.concatenate([np.float64(side.features.dense)[rows], emb], axis=1)
  known = known * keep[:, None] / (1 - RATES[name])
  depth, parts = {}, []
  for group, x in (('content', content), ('preference', known)):
    norm = f'{name}_{group}' not in without_norm
    part, depth[group] = _network(params_of, x, group, batch_norm=norm)
    parts.append(part)
  norm = f'{name}_tower' not in without_norm
  joined = np.concatenate(parts, axis=1)
  x, depth['tower'] = _network(params_of, joined, 'joined', batch_norm=norm)
  last = params_of['output']
  x = x @ np.float64(last['kernel']) + np.float64(last['bias'])
  x /= np.sqrt(np.maximum((x**2).sum(axis=1, keepdims=True), 1e-12))
  return x, content_square + square, depth


def _by_rows(mean, weight):
  """What divides by the number of rows, of a mean by their weights."""
  weight = np.float64(weight)
  return mean * weight.sum() / max((weight != 0).sum(), 1)


def _slow_loss(cfg, params, tables, rows, key):
  """Terms of the loss by name, and the depths of the networks."""
  keys = dict(zip(SIDES, jax.random.split(key, 3)[1:], strict=True))
  emb, squares, depths = {}, 0.0, {}
  for name in SIDES:
    states = input_dropout.draw_states(
        keys[name], BATCH, input_dropout.Rates(RATES[name], 0.0)
    )
    keep = np.asarray(states) == input_dropout.AS_IS
    assert 0 < keep.sum() < BATCH
    emb[name], square, depths[name] = _embedded(
        params,
        getattr(tables, name),
        name,
        np.asarray(getattr(rows, name)),
        np.float64(keep),
        cfg.model.groups.no_batch_norm,
    )
    squares += square
  user, item = emb['user'], emb['item']
  score = (user * item).sum(axis=1)
  label, weight = np.float64(rows.label), np.float64(rows.weight)
  shifts = rolled.roll_shifts(
      jax.random.fold_in(key, 3), BATCH, cfg.objective.num_negatives, True
  )
  negative = [
      [math.fsum(user[b] * item[(b - shift) % BATCH]) for shift in shifts]
      for b in range(BATCH)
  ]
  positive = weight * (label > 0)
  kernels = [
      leaf
      for path, leaf in jax.tree.leaves_with_path(params)
      if path[-1].key == 'kernel'
  ]
  terms = {
      'pointwise': _by_rows(
          slow_losses.pointwise(score, label, weight), weight
      ),
      'pairwise': slow_losses.pairwise(
          score, label, np.where(weight > 0, 1.0, 0.0)
      ),
      'softmax': _by_rows(
          slow_losses.support_vector_softmax(
              score, negative, positive, margin=0.1, gamma=20.0, t=1.5
          ),
          positive,
      ),
      'embedding_regularization': squares,
      'kernel_regularization': math.fsum(
          float((np.float64(kernel) ** 2).sum()) / 2 for kernel in kernels
      ),
  }
  return terms, depths


@pytest.fixture(name='world', scope='module')
def fixture_world():
  """The profile, tables, parameters none of which is 0, and the loss."""
  cfg, tables = _config(), _tables()
  model = towers.TwoTower(cfg.model)
  blank = [tower_inputs.blank_row(getattr(tables, name)) for name in SIDES]
  shapes = jax.eval_shape(model.init, jax.random.key(0), *blank[0], *blank[1])
  rng = np.random.default_rng(1)
  variables = jax.tree.map(
      lambda x: jnp.float32(rng.normal(size=x.shape) / 2), shapes
  )
  mesh = parallel.make_mesh(cfg.mesh, num_devices=1)
  loss = jax.jit(batch_loss.make_loss_fn(cfg, model, tables, mesh))
  return cfg, tables, variables, loss


@pytest.mark.parametrize('step', [0, 1, 5])
def test_the_loss_of_a_step_is_that_of_loops(world, step):
  cfg, tables, variables, loss = world
  params = variables['params']
  total, (_, metrics) = loss(
      params, variables['batch_stats'], tables, jnp.int32(step)
  )
  rows = step_batch.batch_of_step(cfg, tables, jnp.int32(step))
  key = step_batch.step_key(cfg, jnp.int32(step))
  terms, depths = _slow_loss(cfg, params, tables, rows, key)
  assert depths == {
      'user': {'content': 1, 'preference': 2, 'tower': 2},
      'item': {'content': 0, 'preference': 1, 'tower': 1},
  }
  expected = 0.0
  for name, value in terms.items():
    found = float(metrics[f'loss/{name}'])
    assert found == pytest.approx(value, rel=1e-5, abs=1e-5), name
    assert value > 0.01, name
    expected += getattr(cfg.objective, name) * value
  assert float(total) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_twice_the_weights_are_twice_the_loss(world):
  """Unlike the default, which knows no unit of weights."""
  cfg, tables, variables, loss = world
  heavy = jnp.float32(2.0) * tables.rows.weight
  twice = tables.replace(rows=tables.rows.replace(weight=heavy))
  given = variables['params'], variables['batch_stats']
  _, (_, once) = loss(*given, tables, jnp.int32(0))
  _, (_, double) = loss(*given, twice, jnp.int32(0))
  for name, factor in (('pointwise', 2), ('softmax', 2), ('pairwise', 1)):
    found, expected = double[f'loss/{name}'], factor * once[f'loss/{name}']
    assert float(found) == pytest.approx(float(expected), rel=1e-5), name
