# SPDX-License-Identifier: Apache-2.0
"""Learnt embeddings in the towers: where they stand, and what they share."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.data import tokens as tokens_lib
from dropoutnet_jax.model import input_dropout
from dropoutnet_jax.model import pooling
from dropoutnet_jax.model import tower_inputs
from dropoutnet_jax.model import towers
from dropoutnet_jax.training import state as state_lib
from tests import toy_tokens

ROWS, FACTORS, COLUMNS, CONTENT, RANK = 6, 3, 2, 5, 4
PAPER = config.ModelConfig(tower='paper', hidden=(8,), rank=RANK)
MODERN = config.ModelConfig(
    tower='modern',
    hidden=(8,),
    rank=RANK,
    layer_norm=False,
    residual_preference=True,
)
LINEAR = dataclasses.replace(MODERN, hidden=())
TOWERS = pytest.mark.parametrize(
    'settings', [PAPER, LINEAR], ids=['paper', 'linear']
)
_pool = jax.jit(pooling.pool, static_argnums=2)
ABSENT = 1  # a row without preference


def make_rows(side, seed=0):
  """Preference and content of a side; users have preference tokens as well."""
  rng = np.random.default_rng(seed)
  draw = lambda width: jnp.float32(rng.normal(size=(ROWS, width)))
  present = jnp.arange(ROWS) != ABSENT
  keep = lambda x: jnp.where(present[:, None], x, 0)
  preference = input_dropout.Preference(keep(draw(FACTORS)), present)
  if side == 'item':
    tokens = toy_tokens.make(ROWS, toy_tokens.ITEM, seed)
    return preference, tower_inputs.Content(draw(CONTENT), tokens)
  tokens = toy_tokens.make(ROWS, toy_tokens.USER_PREFERENCE, seed + 1)
  preference = preference._replace(
      columns=keep(draw(COLUMNS)),
      tokens=dataclasses.replace(
          tokens, id=keep(tokens.id), weight=keep(tokens.weight)
      ),
  )
  tokens = toy_tokens.make(ROWS, toy_tokens.USER, seed + 2)
  return preference, tower_inputs.Content(draw(CONTENT), tokens)


SIDES = {side: make_rows(side) for side in ('user', 'item')}


class HashableTowers(towers.TwoTower):
  """The towers as a key."""

  def __hash__(self):
    return id(self)

  def __eq__(self, other):
    return self is other


@functools.cache
def first_variables(tower, hidden):
  settings = {'paper': PAPER, 'modern': MODERN}[tower]
  model = HashableTowers(dataclasses.replace(settings, hidden=hidden))
  init = jax.jit(model.init)
  return model, init(jax.random.key(0), *SIDES['user'], *SIDES['item'])


def first_model(settings):
  """A model and its variables before the first step."""
  return first_variables(settings.tower, settings.hidden)


def moved_model(settings):
  """A model none of whose variables is at its special first value."""
  rng = np.random.default_rng(9)
  model, variables = first_model(settings)
  return model, jax.tree.map(
      lambda x: jnp.float32(rng.uniform(0.1, 0.6, x.shape)), variables
  )


@functools.cache
def applied(model, side):
  """One program for all rows and parameters of a model's side."""
  return jax.jit(functools.partial(model.apply, method=f'embed_{side}s'))


def embed(model, variables, side, rows=None):
  preference, content = SIDES[side] if rows is None else rows
  return np.asarray(applied(model, side)(variables, preference, content).dense)


def slow_pooled(params, tower, group, tokens):
  """Pooled embeddings of all features by the names of their parameters."""
  found = []
  queries = params[tower].get(f'{group}_queries', {})
  for feature in tokens.features:
    columns = slice(feature.start, feature.stop)
    emb = np.asarray(params['embeddings'][feature.table])[tokens.id[:, columns]]
    query = queries.get(feature.name)
    weight = jnp.asarray(tokens.weight[:, columns])
    pooled = _pool(jnp.asarray(emb), weight, feature.pooling, query)
    found.append(feature.width**0.5 * np.asarray(pooled))
  return np.concatenate(found, axis=1)


def slow_inputs(params, side):
  """What the first layer reads: preference [B, P'] and content [B, F']."""
  preference, content = SIDES[side]
  parts = [preference.value]
  if preference.columns is not None:
    pooled = slow_pooled(
        params, f'{side}_tower', 'preference', preference.tokens
    )
    parts += [preference.columns, pooled]
  return np.concatenate(parts, axis=1), np.concatenate(
      [
          content.dense,
          slow_pooled(params, f'{side}_tower', 'content', content.tokens),
      ],
      axis=1,
  )


@pytest.mark.parametrize('side', ['user', 'item'])
def test_pooled_embeddings_stand_behind_the_columns(side):
  """The paper's tower by arithmetic."""
  model, variables = moved_model(PAPER)
  host = jax.tree.map(np.asarray, variables)
  params, tower = host['params'], host['params'][f'{side}_tower']
  stats = host['batch_stats'][f'{side}_tower']['BatchNorm_0']
  x = np.concatenate(slow_inputs(params, side), axis=1)
  hidden = x @ tower['Dense_0']['kernel'] - stats['mean']
  hidden /= np.sqrt(stats['var'] + 1e-3)
  norm = tower['BatchNorm_0']
  hidden = np.tanh(hidden * norm['scale'] + norm['bias'])
  expected = hidden @ tower['Dense_1']['kernel'] + tower['Dense_1']['bias']
  found = embed(model, variables, side)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('side', ['user', 'item'])
def test_residual_paths_see_plain_columns_alone(side):
  """The linear tower by arithmetic: what no path reads goes through a map."""
  model, variables = moved_model(LINEAR)
  params = jax.tree.map(np.asarray, variables['params'])
  tower = params[f'{side}_tower']
  inputs = slow_inputs(params, side)
  plain = (SIDES[side][0].value, SIDES[side][1].dense)
  presence = np.asarray(SIDES[side][0].present, np.float32)[:, None]
  expected = presence @ tower['presence']['kernel'] + tower['presence']['bias']
  for name, path, x, whole in zip(
      ('preference', 'content'),
      ('residual_preference', 'residual'),
      plain,
      inputs,
      strict=True,
  ):
    rest = whole[:, x.shape[1] :]
    if rest.shape[1]:
      expected = expected + rest @ tower[name]['kernel']
    else:
      assert name not in tower
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x / np.where(norm > 0, norm, 1)
    expected = expected + unit @ tower[path]['kernel']
  found = embed(model, variables, side)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_first_scores_are_cosines_whatever_the_embeddings():
  model, variables = first_model(MODERN)
  expected = 0
  for x in (SIDES['item'][0].value, SIDES['item'][1].dense):
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    expected += (x / np.where(norm > 0, norm, 1)) @ np.eye(x.shape[1], RANK)
  np.testing.assert_allclose(embed(model, variables, 'item'), expected, 1e-5)


@TOWERS
def test_tables_are_named_shared_and_of_their_size(settings):
  _, variables = first_model(settings)
  names = state_lib.by_name(variables['params'])
  tables = {n: x.shape for n, x in names.items() if n.startswith('embeddings')}
  assert tables == {
      'embeddings/maker': (5, 3),
      'embeddings/place': (4, 2),
      'embeddings/word': (7, 2),
  }
  queries = {n: x for n, x in names.items() if 'queries' in n}
  assert list(queries) == [
      'item_tower/content_queries/words',
      'user_tower/preference_queries/seen',
  ]
  assert not any(np.any(x) for x in queries.values())


def test_tables_start_with_their_deviation():
  feature = tokens_lib.TokenFeature('x', 'x', 0, 1, 400, 50, 'sum', 0.3)
  tokens = toy_tokens.make(2, (feature,))
  table = jax.jit(towers.EmbeddingTables().init)(jax.random.key(0), tokens)
  values = np.asarray(table['params']['x'])
  assert np.std(values[:400]) == pytest.approx(0.3, rel=0.03)
  assert values.shape == (512, 50) and not values[400:].any()
  assert np.abs(np.mean(table['params']['x'])) < 0.01


def test_no_token_has_a_slope_and_shared_tables_have_both():
  model, variables = moved_model(LINEAR)

  def total(params, side):
    tree = variables | {'params': params}
    emb = model.apply(tree, *SIDES[side], method=f'embed_{side}s').dense
    return jnp.sum(jnp.sin(emb))

  slope = jax.jit(jax.grad(total), static_argnums=1)
  slopes = {side: slope(variables['params'], side) for side in SIDES}
  used = {side: set() for side in SIDES}
  for side, (preference, content) in SIDES.items():
    for tokens in (preference.tokens, content.tokens):
      for feature in tokens.features if tokens is not None else ():
        ids = tokens.id[:, feature.start : feature.stop]
        used[side] |= {(feature.table, i) for i in np.unique(ids) if i}
  assert {t for t, _ in used['user']} & {t for t, _ in used['item']} == {
      'word',
      'maker',
  }
  for side, found in slopes.items():
    for name, table in found['embeddings'].items():
      moved = np.any(np.asarray(table), axis=1)
      for row, is_moved in enumerate(moved):
        if (name, row) not in used[side]:
          assert not is_moved
        elif name != 'place':  # where a larger one may hide it
          assert is_moved


@TOWERS
def test_dropped_tokens_are_the_same_bits_as_none(settings):
  model, variables = moved_model(settings)
  preference, content = SIDES['user']
  one = jax.tree.map(lambda x: jnp.repeat(x[:1], ROWS, axis=0), content)
  rows = np.flatnonzero(preference.present)[np.arange(ROWS) % (ROWS - 1)]
  known = jax.tree.map(lambda x: x[rows], preference)
  blank = jax.tree.map(jnp.zeros_like, known)
  found = embed(model, variables, 'user', (blank, one))
  assert len({row.tobytes() for row in found}) == 1
  warm = embed(model, variables, 'user', (known, one))
  assert np.all(np.abs(warm - found).max(axis=1) > 1e-4)
  only = blank._replace(tokens=known.tokens)
  there = np.any(np.asarray(known.tokens.weight) > 0, axis=1)
  moved = np.any(embed(model, variables, 'user', (only, one)) != found, axis=1)
  np.testing.assert_array_equal(moved, there)


def test_features_that_disagree_about_their_table_are_a_mistake():
  first = toy_tokens.ITEM[0]
  other = dataclasses.replace(first, start=1, stop=2, num_ids=6)
  tokens = toy_tokens.make(2, (first, other))
  with pytest.raises(ValueError, match=r"'maker' want it to be \(6, 3\) and"):
    jax.eval_shape(towers.EmbeddingTables().init, jax.random.key(0), tokens)


@pytest.mark.parametrize('name', ['name', 'scope', 'setup', 'a/b', 'user id'])
def test_any_column_names_a_table_and_a_query(name):
  feature = tokens_lib.TokenFeature(name, name, 0, 2, 4, 3, 'attention', 1.0)
  rows = (
      input_dropout.Preference(jnp.zeros((2, 0)), jnp.zeros(2, bool)),
      tower_inputs.Content(jnp.zeros((2, 0)), toy_tokens.make(2, (feature,))),
  )
  made = jax.eval_shape(
      towers.TwoTower(PAPER).init, jax.random.key(0), *rows, *rows
  )
  assert list(made['params']['embeddings']) == [name]
  assert list(made['params']['item_tower']['content_queries']) == [name]
