# SPDX-License-Identifier: Apache-2.0
"""Learnt embeddings and preference features in a step: what towers get."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import parallel
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.model import embedding_penalty
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.model import input_dropout
from dropoutnet_jax.model import tower_inputs
from dropoutnet_jax.training import batch_loss
from dropoutnet_jax.training import diagnosis
from dropoutnet_jax.training import dropout_rates
from dropoutnet_jax.training import resident
from dropoutnet_jax.training import step_batch
from tests import tiny_run
from tests import toy_tokens

STEP = 3


@pytest.fixture(name='world', scope='module')
def fixture_world(problem):
  """The tiny problem with tokens and preference features."""
  return toy_tokens.with_tokens(problem, toy_tokens.USER, toy_tokens.ITEM)


class Spy:
  """In place of the model: keeps what it is given."""

  def __init__(self):
    self.seen = {}

  def apply(self, variables, preference, content, *, method, **unused):
    del variables
    self.seen[method.removeprefix('embed_')[:4]] = preference, content
    return embeddings.Embedding(jnp.ones((len(preference.present), 1))), {}


def get_config(preference='factors', **objective):
  """Rows of three states; a third of the users, features alone or not."""
  cfg = tiny_run.get_config()
  cfg.features.preference = preference
  cfg.dropout = config.DropoutConfig(user_rate=0.4, item_rate=0.4)
  if preference != 'none':
    cfg.dropout.user_transform_rate = 0.3
  cfg.train.batch_size = 400
  for name, value in objective.items():
    setattr(cfg.objective, name, value)
  return cfg


def place(cfg, world):
  return jax.tree.map(jnp.asarray, resident.make_tables(cfg, world))


class Step(NamedTuple):
  """A step: what the towers saw, its batch and what that cost."""

  cfg: config.Config
  tables: tables_lib.Tables
  seen: dict
  batch: Any
  metrics: dict
  penalty: jax.Array


@pytest.fixture(
    name='step',
    scope='module',
    params=[
        ('factors', 'blocks', 'row'),
        ('none', 'interactions', 'batch'),
    ],
    ids=lambda param: param[1],
)
def fixture_step(request, world):
  preference, pairing, by = request.param
  cfg = get_config(
      preference,
      pairing=pairing,
      embedding_regularization=0.3,
      embedding_regularization_by=by,
  )
  tables = place(cfg, world)
  rng = np.random.default_rng(0)
  sizes = {'maker': (5, 3), 'word': (7, 2), 'place': (4, 2)}
  params = {
      'embeddings': {
          name: jnp.float32(rng.normal(size=size))
          for name, size in sizes.items()
      }
  }
  spy, mesh = Spy(), parallel.make_mesh(config.MeshConfig(), 1)
  loss_fn = batch_loss.make_loss_fn(cfg, spy, tables, mesh)

  @jax.jit
  def take(tables, params):
    number = jnp.int32(STEP)
    _, (_, metrics) = loss_fn(params, {}, tables, number)
    batch = step_batch.batch_of_step(cfg, tables, number)
    tokens = [
        *tower_inputs.all_tokens(tables.user, batch.user),
        *tower_inputs.all_tokens(tables.item, batch.item),
    ]
    penalty = embedding_penalty.penalty(params['embeddings'], tokens, by)
    return spy.seen, batch, metrics, penalty

  return Step(cfg, tables, *take(tables, params))


def states_of(cfg, tables, batch):
  key = jax.random.fold_in(jax.random.key(cfg.train.seed), STEP)
  _, user_key, item_key = jax.random.split(key, 3)
  rates = dropout_rates.effective_rates(cfg.dropout, tables)
  draw = input_dropout.draw_states
  return {
      'user': np.asarray(draw(user_key, len(batch.user), rates.user)),
      'item': np.asarray(draw(item_key, len(batch.item), rates.item)),
  }


def test_kept_rows_have_their_features_and_dropped_rows_nothing(step):
  cfg, tables, seen, batch, *_ = step
  preference = cfg.features.preference
  states = states_of(cfg, tables, batch)
  assert set(states['user']) == ({0, 1} if preference == 'none' else {0, 1, 2})
  for side, (found, content) in seen.items():
    table, rows = getattr(tables, side), np.asarray(getattr(batch, side))
    dropped = states[side] == input_dropout.DROPPED
    np.testing.assert_array_equal(content.dense, table.content[rows])
    np.testing.assert_array_equal(content.tokens.id, table.tokens.id[rows])
    assert found.value.shape[1] == (0 if preference == 'none' else 4)
    np.testing.assert_array_equal(found.value[dropped], 0)
    if side == 'item':  # have no features of preference
      assert found.columns is None and found.tokens is None
      continue
    features = table.features[rows]
    shown = np.asarray(features.known) & ~dropped
    assert {True, False} == set(shown) == set(np.asarray(features.known))
    for got, expected in (
        (found.columns, features.dense),
        (found.tokens.id, features.tokens.id),
        (found.tokens.weight, features.tokens.weight),
    ):
      np.testing.assert_array_equal(got, np.where(shown[:, None], expected, 0))
    assert not np.any(found.present[dropped])
    assert np.all(found.present[shown])
    if preference == 'none':
      np.testing.assert_array_equal(found.present, shown)


@pytest.mark.parametrize('preference', ['factors', 'history', 'none'])
def test_rows_without_training_pairs_have_no_preference_at_all(
    world, preference
):
  """Whatever their tables fill in: a new row at serving has none either."""
  cfg = get_config(preference)
  warm = np.arange(len(world.user.ids)) >= 9
  train = world.split.train
  split = dataclasses.replace(world.split, train=train.select(warm[train.user]))
  tables = resident.make_tables(cfg, dataclasses.replace(world, split=split))
  given, features = world.user, tables.user.features
  known = given.preference_known
  assert np.any(known & ~warm) and np.any(known & warm)
  np.testing.assert_array_equal(features.known, known & warm)
  tokens = given.preference_tokens
  for got, expected in (
      (features.tokens.id, tokens.id),
      (features.tokens.weight, tokens.weight),
      (features.dense, given.preference_dense * 2**0.5),  # unit entries
  ):
    assert np.any(expected[~warm])
    np.testing.assert_allclose(got, np.where(warm[:, None], expected, 0))
    assert got.dtype == (np.int32 if got is features.tokens.id else np.float32)
  assert tables.item.features is None
  for side in (tables.user, tables.item):
    assert side.tokens is not None


def test_features_alone_leave_factors_as_targets(world):
  tables = resident.make_tables(get_config('none'), world)
  for side in ('user', 'item'):
    table = getattr(tables, side)
    count = len(getattr(world, side).ids)
    assert table.preference.shape == table.history_total.shape == (count, 0)
    assert not np.any(table.present)
    np.testing.assert_array_equal(table.factors, getattr(world.factors, side))


def test_sides_without_tokens_have_none(problem):
  tables = resident.make_tables(get_config(), problem)
  for side in (tables.user, tables.item):
    assert side.tokens is None and side.features is None


def test_content_of_tokens_alone_is_content():
  side = tables_lib.SideTable(
      np.zeros((3, 0)),
      *[None] * 7,
      tokens=toy_tokens.make(3, toy_tokens.ITEM),
  )
  bare = tables_lib.SideTable(np.zeros((3, 0)), *[None] * 7)
  tables = tables_lib.Tables(side, bare, None, None, None, None)
  rates = dropout_rates.effective_rates(config.DropoutConfig(), tables)
  assert (rates.user.drop, rates.item.drop) == (0.5, 0.0)


def test_embeddings_of_the_batch_are_pulled_towards_zero(step):
  cfg, _, _, _, metrics, penalty = step
  assert set(metrics) | {'gradient_norm'} == set(batch_loss.metric_names(cfg))
  term = metrics['loss/embedding_regularization']
  np.testing.assert_allclose(term, penalty, rtol=1e-5)
  np.testing.assert_allclose(
      metrics['loss/total'], metrics['loss/teacher'] + 0.3 * term, rtol=1e-5
  )


def test_nothing_of_it_is_logged_where_it_is_off():
  names = batch_loss.metric_names(config.Config())
  assert 'loss/embedding_regularization' not in names


def test_a_feature_that_is_not_finite_is_told(world):
  table = place(get_config(), world).user
  row = int(np.flatnonzero(table.features.known)[0])
  before, _ = diagnosis._table_norms(table, np.array([row, row + 1]))
  dense = table.features.dense.at[row, 1].set(jnp.nan)
  broken = table.replace(features=table.features.replace(dense=dense))
  given, _ = diagnosis._table_norms(broken, np.array([row, row + 1]))
  assert np.isinf(given[0]) and given[1] == before[1] < np.inf
