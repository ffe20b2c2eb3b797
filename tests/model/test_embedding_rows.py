# SPDX-License-Identifier: Apache-2.0
"""First values of tables of embeddings, and look-ups in all rows or in some."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax.data import tokens as tokens_lib
from dropoutnet_jax.model import embedding_rows

WIDTH, STD = 3, 0.5


def make_feature(num_ids, width=WIDTH):
  return tokens_lib.TokenFeature('x', 'x', 0, 1, num_ids, width, 'sum', STD)


def first_values(num_ids):
  key = jax.random.key(4)
  return np.asarray(embedding_rows.first_values(key, make_feature(num_ids)))


@pytest.mark.parametrize('drawn', [1, 3000, 2**20])
def test_a_row_is_a_function_of_its_number(monkeypatch, drawn):
  """Piece by piece, with one that overlaps another, or at once."""
  monkeypatch.setattr(embedding_rows, '_DRAWN', drawn)
  values = first_values(800)
  np.testing.assert_array_equal(values[:90], first_values(90))
  assert len(np.unique(values[:800])) > 0.99 * 800 * WIDTH
  np.testing.assert_array_equal(values[800:], np.zeros((96, WIDTH)))
  assert np.std(values[:800]) == pytest.approx(STD, rel=0.05)


def test_a_large_table_needs_no_memory_beside_itself():
  feature = make_feature(128 * 4096, 16)
  make = lambda: embedding_rows.first_values(jax.random.key(0), feature)
  memory = jax.jit(make).lower().compile().memory_analysis()
  assert memory.output_size_in_bytes == 4 * 16 * 128 * 4096
  assert memory.temp_size_in_bytes < memory.output_size_in_bytes


@pytest.mark.parametrize(
    'num_ids, num_rows', [(1, 1), (128, 128), (129, 256), (1001, 1024)]
)
def test_tables_of_any_size_can_be_split(num_ids, num_rows):
  assert make_feature(num_ids).num_rows == num_rows


def test_some_rows_stand_for_all():
  table = jnp.asarray(np.random.default_rng(0).normal(size=(20, WIDTH)))
  ids = jnp.array([0, 3, 4, 17, 20, 20])  # the last two are padding
  some = embedding_rows.Rows(table[ids.clip(max=19)], ids)
  asked = jnp.array([[17, 0], [4, 3], [3, 3]])
  found = embedding_rows.Rows(table)[asked]
  np.testing.assert_array_equal(found, np.asarray(table)[asked])
  np.testing.assert_array_equal(some[asked], found)
  params = {'embeddings': {'a': table, 'b': table}, 'tower': table}
  tables = embedding_rows.of_params(params, {'b': ids})
  assert tables['a'].ids is None and tables['b'].ids is ids
  assert embedding_rows.of_params({'tower': table}) == {}
