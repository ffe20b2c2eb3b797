# SPDX-License-Identifier: Apache-2.0
"""The tower with a network per group of inputs, against plain arithmetic."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.data import tokens as tokens_lib
from dropoutnet_jax.model import input_dropout
from dropoutnet_jax.model import tower_inputs
from tests.model import test_towers as towers

pytestmark = pytest.mark.usefixtures('quick_compilation')


def slow_groups_tower(variables, groups, widths, train):
  """The network by arithmetic: output and new moments by the layer's name."""
  tree = lambda kind: jax.tree.map(np.float64, variables[kind]['item_tower'])
  params, stats = tree('params'), tree('batch_stats')
  new = {}

  def stack(x, name, count):
    for number in range(count):
      x = x @ params[f'{name}_{number}']['kernel']
      layer = f'{name}_norm_{number}'
      mean, var = stats[layer]['mean'], stats[layer]['var']
      if train:
        mean, var = x.mean(axis=0), x.var(axis=0)
        new[layer] = {
            'mean': 0.99 * stats[layer]['mean'] + 0.01 * mean,
            'var': 0.99 * stats[layer]['var'] + 0.01 * var,
        }
      x = (x - mean) / np.sqrt(var + 1e-3)
      x = x * params[layer]['scale'] + params[layer]['bias']
      x = np.maximum(x, 0)
    return x

  parts = [
      stack(np.float64(x), name, widths[0]) for name, x in groups if x.size
  ]
  x = stack(np.concatenate(parts, axis=1), 'joined', widths[1])
  return x @ params['output']['kernel'] + params['output']['bias'], new


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize(
    'factors, content, hidden',
    [
        (towers.FACTORS, towers.CONTENT, (5,)),
        (towers.FACTORS, 0, (5,)),
        (0, towers.CONTENT, ()),
    ],
)
def test_groups_tower_is_that_of_arithmetic(train, factors, content, hidden):
  fields = vars(towers.GROUPS) | {'hidden': hidden}
  settings = config.ModelConfig(**fields)
  model, variables = towers.make_model(
      settings, factors=factors, content=content
  )
  rows = towers.make_rows(factors=factors, content=content)
  got = towers.embed(model, variables, rows, train=train)
  groups = [('content', rows[1].dense), ('preference', rows[0].value)]
  out, new = slow_groups_tower(variables, groups, (2, len(hidden)), train)
  if not train:
    np.testing.assert_allclose(got.dense, out, rtol=1e-4, atol=1e-5)
    return
  np.testing.assert_allclose(got[0].dense, out, rtol=1e-3, atol=1e-4)
  jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
      got[1]['batch_stats']['item_tower'],
      new,
  )


def test_groups_tower_without_layers_is_one_linear_map():
  fields = vars(towers.GROUPS) | {'hidden': (), 'group_hidden': ()}
  model, variables = towers.make_model(config.ModelConfig(**fields))
  assert 'batch_stats' not in variables
  preference, content = towers.make_rows()
  params = variables['params']['item_tower']['output']
  x = np.concatenate([content.dense, preference.value], axis=1)
  expected = x @ np.asarray(params['kernel']) + params['bias'][None]
  got = towers.embed(model, variables, (preference, content)).dense
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_groups_tower_knows_no_presence():
  """As in EasyRec: a zero preference is a zero preference."""
  model, variables = towers.make_model(towers.GROUPS)
  _, content = towers.make_rows()
  zero = jnp.zeros((towers.ROWS, towers.FACTORS))
  present, absent = (
      towers.embed(
          model,
          variables,
          (input_dropout.Preference(zero, jnp.full(towers.ROWS, bit)), content),
      ).dense
      for bit in (True, False)
  )
  np.testing.assert_array_equal(present, absent)


def test_embeddings_of_preferences_are_divided_by_what_is_kept_as_well():
  """The factor comes after the look-up, whatever the pooling."""
  feature = tokens_lib.TokenFeature(
      'shop', 'shop', 0, 2, num_ids=5, width=3, pooling='mean', std=1.0
  )
  ids = jnp.asarray([[1, 2], [0, 0], [4, 0]], jnp.int32)
  tokens = tokens_lib.Tokens(ids, (ids > 0).astype(jnp.float32), (feature,))
  fields = vars(towers.GROUPS) | {'hidden': (), 'group_hidden': ()}
  model = towers.HashableTowers(config.ModelConfig(**fields))
  own, content = towers.make_rows(rows=3)
  known = jnp.asarray([True, False, True])
  features = tables_lib.PreferenceFeatures(jnp.ones((3, 2)), tokens, known)
  content = content._replace(dense=jnp.zeros_like(content.dense))

  def inputs(scale):
    joined = tower_inputs.join_preference(
        own, jnp.ones(3, bool), features, scale=scale
    )
    return joined, content

  variables = jax.jit(model.init)(
      jax.random.key(0), *inputs(None), *inputs(None)
  )
  variables['params']['item_tower']['output']['bias'] *= 0
  once = towers.embed(model, variables, inputs(None)).dense
  thrice = towers.embed(model, variables, inputs(jnp.float32(3.0))).dense
  np.testing.assert_allclose(thrice, 3 * once, rtol=1e-5, atol=1e-6)
  assert np.abs(once[0]).min() > 0
  nothing = towers.embed(model, variables, inputs(jnp.float32(0.0))).dense
  np.testing.assert_array_equal(nothing, 0)


def test_gradients_of_the_groups_tower_where_all_rows_are_dropped():
  """Batch norm then sees zeros alone, whose variance is 0."""
  fields = {'group_hidden': (3,), 'hidden': (), 'normalize': True}
  settings = config.ModelConfig(**(vars(towers.GROUPS) | fields))
  model, variables = towers.first_model(settings)
  preference, content = towers.make_rows()
  dropped = input_dropout.Preference(
      jnp.zeros_like(preference.value), jnp.zeros(towers.ROWS, bool)
  )

  @jax.jit
  def slopes(params, preference):
    def loss(params):
      emb, _ = model.apply(
          variables | {'params': params},
          preference,
          content,
          train=True,
          method='embed_items',
          mutable=['batch_stats'],
      )
      return jnp.sum(emb.dense[:, 0])

    return jax.grad(loss)(params)['item_tower']

  for rows in (preference, dropped):
    found = slopes(variables['params'], rows)
    for leaf in jax.tree.leaves(found):
      assert np.all(np.isfinite(leaf))
    assert np.abs(found['content_0']['kernel']).max() > 0
  assert not np.any(found['preference_0']['kernel'])
