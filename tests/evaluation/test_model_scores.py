# SPDX-License-Identifier: Apache-2.0
"""The towers as a method: exact products of the tables' embeddings."""

import jax
import jax.numpy as jnp
import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.model import input_dropout
from dropoutnet_jax.model import tower_inputs
from dropoutnet_jax.model import towers
from dropoutnet_jax.training import resident
from tests import toy_tokens

_MODEL = config.ModelConfig(tower='modern', hidden=(6,), rank=5)


def _tables(problem):
  side = lambda name: tables_lib.SideTable(
      content=jnp.asarray(getattr(problem, name).dense),
      preference=jnp.asarray(getattr(problem.factors, name)),
      present=jnp.asarray(getattr(problem.factors, f'{name}_present')),
      factors=None,
      history_total=None,
      history_count=None,
      preference_scaler=None,
      history_scaler=None,
  )
  return tables_lib.Tables(side('user'), side('item'), None, None, None, None)


def _variables(model, tables):
  row = tower_inputs.blank_row
  return jax.jit(model.init)(
      jax.random.key(0), *row(tables.user), *row(tables.item)
  )


def test_towers_score_every_user_with_every_candidate(problem, exact_products):
  model, tables = towers.TwoTower(_MODEL), _tables(problem)
  variables = _variables(model, tables)
  embedder = model_scores.Embedder(model)
  method = model_scores.Scorer(embedder, variables, tables).methods()['model']
  held_out = problem.split.evaluation['cold_item']
  rows = np.unique(held_out.user)[[3, 0, 2]]
  found = method('cold_item', held_out)(rows)
  assert exact_products == [((3, 5), (len(held_out.candidates), 5))]
  user = embedder('user', variables, tables.user, rows)
  item = embedder('item', variables, tables.item, held_out.candidates)
  expected = user.astype(float) @ item.astype(float).T
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_features_and_tokens_reach_the_towers(problem):
  """As if the rows were put together by hand; cold rows keep nothing."""
  cfg = config.Config(model=_MODEL)
  tables = resident.make_tables(cfg, toy_tokens.with_tokens(problem))
  model = towers.TwoTower(_MODEL)
  # Apart from the start, where the content alone reaches the output.
  variables = jax.tree.map(lambda x: x + 0.3, _variables(model, tables))
  rows = np.array([2, 29, 5, 0])  # factors alone, nothing, both, both
  found = model_scores.Embedder(model)('user', variables, tables.user, rows)
  table = jax.tree.map(lambda x: x[rows], tables.user.features)
  assert table.known.tolist() == [False, False, True, True]
  preference = input_dropout.Preference(
      tables.user.preference[rows],
      tables.user.present[rows] | table.known,
      table.dense,
      table.tokens,
  )
  content = tower_inputs.Content(tables.user.content[rows])
  embed = jax.jit(
      lambda *rows: model.apply(variables, *rows, method='embed_users').dense
  )
  np.testing.assert_allclose(found, embed(preference, content), rtol=1e-5)
  none = input_dropout.Preference(
      jnp.zeros_like(preference.value),
      jnp.zeros(4, bool),
      jnp.zeros_like(table.dense),
      jax.tree.map(jnp.zeros_like, table.tokens),
  )
  cold = embed(none, content)
  moved = np.abs(found - cold).max(axis=1) > 1e-3
  np.testing.assert_array_equal(moved, [True, False, True, True])


def test_towers_embed_with_exact_products(problem):
  model, tables = towers.TwoTower(_MODEL), _tables(problem)
  embed = model_scores.make_embed(model, 'embed_items')
  text = str(
      jax.make_jaxpr(embed)(
          _variables(model, tables), tables.item, jnp.arange(4)
      )
  )
  assert text.count('dot_general') >= 4
  assert text.count('Precision.HIGHEST') >= 2 * 4 or (
      text.count('precision=highest') >= 4
  )
