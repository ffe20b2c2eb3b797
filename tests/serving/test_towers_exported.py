# SPDX-License-Identifier: Apache-2.0
"""Towers of all kinds as StableHLO and as steps on NumPy: the same numbers."""

import dataclasses

import jax
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import config_model
from dropoutnet_jax.model import towers
from dropoutnet_jax.serving import numpy_runtime
from dropoutnet_jax.serving import numpy_towers
from dropoutnet_jax.serving import tower_export
from dropoutnet_jax.serving import tower_steps

VARIANTS = {
    'paper': dict(tower='paper', hidden=(6, 5)),
    'paper, linear': dict(tower='paper', hidden=(), normalize=True),
    'modern': dict(tower='modern', hidden=(6, 5), residual_preference=True),
    'modern, linear': dict(tower='modern', hidden=(), residual_preference=True),
    'modern, from zero': dict(
        tower='modern',
        hidden=(6,),
        activation='tanh',
        layer_norm=False,
        zero_users=True,
    ),
    'groups': dict(
        tower='groups', hidden=(5,), group_hidden=(6, 4), activation='relu'
    ),
    'groups, each its own': dict(
        tower='groups',
        activation='selu',
        scale_embeddings=False,
        groups=config_model.GroupsConfig(
            user_content=(3,),
            user_tower=(0,),
            no_batch_norm=('user_preference', 'user_content'),
        ),
        hidden=(5,),
        group_hidden=(4,),
    ),
    'groups, linear': dict(
        tower='groups', hidden=(), group_hidden=(), normalize=True
    ),
}


def _with_pooling(table, kind):
  """Tokens of content pooled in another way."""
  features = tuple(
      dataclasses.replace(feature, pooling=kind)
      for feature in table.tokens.features
  )
  tokens = dataclasses.replace(table.tokens, features=features)
  return dataclasses.replace(table, tokens=tokens)


def _random(network, side, inputs, features):
  """Weights that nothing has trained; variances are positive."""
  shapes = jax.eval_shape(
      lambda: _apply(network.init, side, inputs, features, jax.random.key(0))
  )
  rng = np.random.default_rng(0)
  draw = lambda x: rng.uniform(0.2, 1.2, x.shape).astype(np.float32)
  signed = lambda x: draw(x) * rng.choice([-1, 1], x.shape).astype(np.float32)
  return {
      kind: jax.tree.map(signed if kind == 'params' else draw, tree)
      for kind, tree in shapes.items()
  }


def _apply(run, side, inputs, features, first):
  tokens = lambda name: (
      tower_export.tokens_lib.Tokens(
          inputs[f'{name}_ids'], inputs[f'{name}_weights'], features[name]
      )
      if f'{name}_ids' in inputs
      else None
  )
  preference = tower_export.input_dropout.Preference(
      inputs['preference'],
      inputs['present'],
      inputs.get('preference_columns'),
      tokens('preference'),
  )
  content = tower_export.tower_inputs.Content(
      inputs['content'], tokens('content')
  )
  return run(first, preference, content, method=f'embed_{side}s')


@pytest.mark.parametrize(
    'side, name, pooling',
    [
        ('item', 'paper', 'mean'),
        ('item', 'paper, linear', 'sum'),
        ('item', 'modern', 'attention'),
        ('item', 'modern, linear', 'max'),
        ('item', 'modern, from zero', 'mean'),
        ('user', 'modern, from zero', 'attention'),
        ('item', 'groups', 'attention'),
        ('user', 'groups, linear', 'sum'),
        ('user', 'groups, each its own', 'mean'),
        ('item', 'groups, each its own', 'mean'),
    ],
)
def test_towers(shop, side, name, pooling):
  model = shop.model
  rows = model.users() if side == 'user' else model.items()
  table = _with_pooling(model.row_tables.read(side, rows).table, pooling)
  settings = config.ModelConfig(rank=4, **VARIANTS[name])
  network = towers.TwoTower(settings)
  features = tower_export.token_features(table)
  inputs = {k: np.asarray(v) for k, v in tower_export.inputs_of(table).items()}
  variables = _random(network, side, inputs, features)
  run = lambda variables: _apply(
      network.apply, side, inputs, features, variables
  )
  expected = jax.jit(run)(variables).dense
  weights = tower_export.weights_of(variables, side, features)
  steps = tower_steps.of_tower(settings, side, weights, inputs, features)
  runtime = object.__new__(numpy_runtime.Model)
  runtime.manifest = {'sides': {side: {'steps': steps}}}
  runtime._weights = weights
  found = runtime.tower(side, inputs)
  size = np.abs(np.asarray(expected)).max()
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * size)
  assert found.dtype == np.float32 and found.std() > 0
  data = tower_export.serialize(network, side, weights, inputs, features)
  tower = jax.export.deserialize(bytearray(data))
  assert tower.platforms == ('cpu', 'cuda', 'tpu')
  for count in (1, 7) if name == 'paper' else (7,):
    some = {key: value[:count] for key, value in inputs.items()}
    made = tower.call(weights, some)
    np.testing.assert_allclose(made, expected[:count], rtol=0, atol=1e-5 * size)


@pytest.mark.parametrize('name', config_model.ACTIVATIONS)
def test_activations(name):
  """Far from 0 as well, where careless ones overflow."""
  x = np.array([[-300, -4, -0.5, -1e-4, 0, 1e-4, 0.5, 4, 300]], np.float32)
  found = numpy_towers._MAPS[name](x)
  np.testing.assert_allclose(
      found, getattr(jax.nn, name)(x), rtol=1e-5, atol=1e-6
  )


def test_rows_without_anything():
  """No division by zero on NumPy: a row without tokens, without preference."""
  model = object.__new__(numpy_runtime.Model)
  ids = np.zeros((2, 3), np.int32)
  weights = np.zeros((2, 3), np.float32)
  model._weights = {'table': np.ones((4, 2)), 'query': np.ones(2)}
  for pooling in ('sum', 'mean', 'max', 'attention'):
    names = ['table', 'query'] if pooling == 'attention' else ['table']
    step = {
        'do': 'pool',
        'of': ['ids', 'weights'],
        'to': 'embedding',
        'columns': [0, 3],
        'pooling': pooling,
        'scale': 1.5,
        'weights': names,
    }
    model.manifest = {'sides': {'user': {'steps': [step]}}}
    found = model.tower('user', {'ids': ids, 'weights': weights})
    np.testing.assert_array_equal(found, np.zeros((2, 2)))
  np.testing.assert_array_equal(numpy_towers.unit(np.zeros((1, 2))), [[0, 0]])
