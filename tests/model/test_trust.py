# SPDX-License-Identifier: Apache-2.0
"""Embeddings of rows that were told of a little."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.data import scaler as scaler_lib
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.model import tower_inputs
from dropoutnet_jax.model import towers


def _table(trust):
  rng = np.random.default_rng(0)
  draw = lambda width: rng.standard_normal((4, width)).astype(np.float32)
  zeros = np.zeros(3, np.float32)
  scaler = scaler_lib.Scaler(zeros, zeros + 1, 'none')
  return tables_lib.SideTable(
      content=draw(5),
      preference=draw(3),
      present=np.ones(4, bool),
      factors=draw(3),
      history_total=draw(3),
      history_count=np.ones(4, np.int32),
      preference_scaler=scaler,
      history_scaler=scaler,
      trust=None if trust is None else np.array(trust, np.float32),
  )


@pytest.mark.parametrize('is_unit', [False, True])
def test_a_row_moves_from_its_content_to_its_preference(is_unit):
  settings = config.ModelConfig(rank=4, hidden=(8,), normalize=is_unit)
  model = towers.TwoTower(settings)
  table = _table(None)
  blank = tower_inputs.blank_row(table)
  variables = model.init(jax.random.key(0), *blank, *blank)
  variables = jax.tree.map(lambda x: 20 * x, variables)  # far from linear
  embed = model_scores.make_embed(model, 'embed_items')
  rows = jnp.arange(4)
  whole = embed(variables, table, rows)
  nothing = dataclasses.replace(
      table,
      preference=np.zeros_like(table.preference),
      present=np.zeros(4, bool),
  )
  bare = embed(variables, nothing, rows)
  assert np.abs(whole - bare).max() > 0.1
  trust = np.array([0.0, 0.25, 1.0, 0.5])
  found = embed(variables, _table(trust), rows)
  expected = trust[:, None] * whole + (1 - trust)[:, None] * bare
  if is_unit:
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_told_rows_are_trusted_and_the_others_stay():
  table = _table(None)
  told = tables_lib.Told(
      np.array([[1.0] * 3, [0.0] * 3], np.float32),
      np.array([True, False]),
      np.array([0.5, 1.0], np.float32),
  )
  found = table.with_told(np.array([2, 0]), told)
  assert found.trust.tolist() == [1, 1, 0.5, 1]
  assert found.present.tolist() == [False, True, True, True]
  np.testing.assert_array_equal(found.preference[2], np.ones(3))
  assert not found.preference[0].any()
  np.testing.assert_array_equal(
      found.preference[[1, 3]], table.preference[[1, 3]]
  )
  assert table.trust is None and table.present.all()  # as it was
  again = found.with_told(
      np.array([1]),
      told._replace(
          preference=told.preference[:1],
          present=told.present[:1],
          trust=told.trust[:1],
      ),
  )
  assert again.trust.tolist() == [1, 0.5, 0.5, 1]
