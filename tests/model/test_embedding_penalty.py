# SPDX-License-Identifier: Apache-2.0
"""L2 of looked-up embeddings against loops; what a batch size does to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax.model import embedding_penalty
from tests import toy_tokens

_penalty = jax.jit(
    jax.value_and_grad(embedding_penalty.penalty), static_argnums=2
)
SIZES = {'maker': (5, 3), 'word': (7, 2), 'place': (4, 2)}


def make_tables(seed=0):
  rng = np.random.default_rng(seed)
  return {
      name: jnp.asarray(rng.normal(size=shape), jnp.float32)
      for name, shape in SIZES.items()
  }


def make_tokens(rows=(6, 4)):
  """Of users and of items, as a batch of different numbers has them."""
  return [
      toy_tokens.make(count, features, seed)
      for seed, (count, features) in enumerate(
          zip(rows, (toy_tokens.USER, toy_tokens.ITEM))
      )
  ]


def slow_penalty(tables, tokens, by):
  total = 0.0
  for one in tokens:
    share = 1 / len(one) if by == 'row' else 1.0
    for row in range(len(one)):
      for feature in one.features:
        for column in range(feature.start, feature.stop):
          if one.weight[row, column]:
            vector = np.asarray(tables[feature.table])[one.id[row, column]]
            total += share * sum(float(x) ** 2 for x in vector) / 2
  return total


@pytest.mark.parametrize('by', ['row', 'batch'])
def test_penalty_matches_loops(by):
  tables, tokens = make_tables(), make_tokens()
  np.testing.assert_allclose(
      _penalty(tables, tokens, by)[0],
      slow_penalty(tables, tokens, by),
      rtol=1e-5,
  )


@pytest.mark.parametrize('by, factor', [('row', 1), ('batch', 2)])
def test_a_batch_twice_over(by, factor):
  """The strength beside a mean loss is the same, or twice as large."""
  tokens = make_tokens()
  twice = [jax.tree.map(lambda x: np.concatenate([x, x]), t) for t in tokens]
  once, slope = _penalty(make_tables(), tokens, by)
  got, twice_slope = _penalty(make_tables(), twice, by)
  np.testing.assert_allclose(got, factor * once, rtol=1e-5)
  for name in SIZES:
    np.testing.assert_allclose(
        twice_slope[name], factor * slope[name], rtol=1e-5, atol=1e-7
    )


def test_padding_costs_nothing_and_takes_no_share():
  tables, tokens = make_tables(), make_tokens((6, 6))
  is_real = np.arange(6) < 4
  found, _ = _penalty(tables, tokens, 'row', jnp.asarray(is_real))
  cut = [jax.tree.map(lambda x: x[:4], one) for one in tokens]
  np.testing.assert_allclose(found, slow_penalty(tables, cut, 'row'), rtol=1e-5)
  found, slope = _penalty(tables, tokens, 'row', jnp.zeros(6, bool))
  assert found == 0
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(slope))


def test_only_rows_that_are_looked_up_are_pulled_and_as_often_as_they_are():
  tables, tokens = make_tables(), make_tokens()
  _, slope = _penalty(tables, tokens, 'batch')
  for name, table in tables.items():
    uses = np.zeros(len(table))
    for one in tokens:
      for feature in one.features:
        if feature.table == name:
          columns = slice(feature.start, feature.stop)
          used = one.id[:, columns][one.weight[:, columns] > 0]
          uses += np.bincount(used, minlength=len(table))
    np.testing.assert_allclose(slope[name], uses[:, None] * table, rtol=1e-5)
    np.testing.assert_array_equal(slope[name][0], 0)


@pytest.mark.parametrize('by', ['row', 'batch'])
def test_no_tokens_cost_nothing(by):
  empty = jax.tree.map(lambda x: 0 * x, make_tokens()[0])
  for tokens in ([], [empty]):
    value, slope = _penalty(make_tables(), tokens, by)
    assert value == 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(slope))
