# SPDX-License-Identifier: Apache-2.0
"""The towers as a method: exact products of the tables' embeddings."""

import jax
import jax.numpy as jnp
import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.model import tower_inputs
from dropoutnet_jax.model import towers

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
  return model.init(jax.random.key(0), *row(tables.user), *row(tables.item))


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
