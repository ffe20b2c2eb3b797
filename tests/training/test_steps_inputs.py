# SPDX-License-Identifier: Apache-2.0
"""What the towers see in a step: dropout states, histories without the pair.

A stand-in for the towers records its input, so that the preference of every
row can be compared with Python sets, and differentiated.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import parallel
from dropoutnet_jax.data import batches
from dropoutnet_jax.data import scaler as scaler_lib
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.training import resident
from dropoutnet_jax.training import batch_loss
from dropoutnet_jax.training import dropout_rates
from dropoutnet_jax.training import step_batch
from tests import tiny_run

USERS, ITEMS, WIDTH, SIZE = 6, 7, 2, 36


def make_world(seed=0):
  """Likes of 6 users and 7 items; user 5 and item 6 are cold."""
  rng = np.random.default_rng(seed)
  likes = rng.random((USERS, ITEMS)) < 0.5
  likes[5], likes[:, 6] = False, False
  likes[0, :3] = True
  likes[1, :6] = np.arange(6) == 2  # a history of one
  user = rng.normal(size=(USERS, WIDTH)).astype(np.float32)
  item = rng.normal(size=(ITEMS, WIDTH)).astype(np.float32)
  return likes, user, item


def make_tables(likes, user_factors, item_factors):
  """Unscaled tables, also of factors that are being differentiated."""
  unscaled = scaler_lib.fit(np.zeros((0, WIDTH)), 'none')

  def side(mine, other, likes):
    present = likes.any(axis=1)
    return tables_lib.SideTable(
        content=jnp.ones((len(likes), 1)),
        preference=jnp.where(present[:, None], mine, 0.0),
        present=jnp.asarray(present),
        factors=mine,
        history_total=likes.astype(np.float32) @ other,
        history_count=jnp.asarray(likes.sum(axis=1), jnp.int32),
        preference_scaler=unscaled,
        history_scaler=unscaled,
    )

  history = np.full((USERS, ITEMS), -1, np.int32)
  for row, liked in enumerate(likes):
    history[row, : liked.sum()] = np.flatnonzero(liked)
  return tables_lib.Tables(
      user=side(user_factors, item_factors, likes),
      item=side(item_factors, user_factors, likes.T),
      train_users=jnp.asarray(np.flatnonzero(likes.any(axis=1)), jnp.int32),
      target_items=jnp.asarray(np.flatnonzero(likes.any(axis=0)), jnp.int32),
      user_history=jnp.asarray(history),
      top_items=jnp.zeros((0, 0), jnp.int32),
  )


@functools.partial(jax.jit, static_argnames=('pairing', 'dropout'))
def _look(tables, key, pairing, dropout):
  seen = {}

  def embed(stats, method, preference, content):
    seen[method.removeprefix('embed_').removesuffix('s')] = preference
    del content
    return embeddings.Embedding(preference.value), stats

  cfg = config.Config(
      objective=config.ObjectiveConfig(
          pairing=pairing, top_items=0, random_items=1, block_users=3
      ),
      train=config.TrainConfig(batch_size=SIZE if pairing != 'blocks' else 12),
      dropout=config.DropoutConfig(**dict(dropout)),
  )
  rates = dropout_rates.effective_rates(cfg.dropout, tables)
  batch = step_batch.draw_batch(cfg, tables, key)
  given = (cfg, embed, {}, tables, key, rates, batch)
  if pairing == 'blocks':
    mesh = parallel.make_mesh(config.MeshConfig(), 1)
    batch_loss._block_loss(*given, mesh)
  else:
    batch_loss._pair_loss(*given)
  return batch, seen['user'], seen['item']


def look(tables, pairing, seed=0, **dropout):
  """The batch of a step and the preferences that its towers see."""
  dropout = {'user_rate': 0.0, 'item_rate': 0.0} | dropout
  return _look(
      tables, jax.random.key(seed), pairing, tuple(sorted(dropout.items()))
  )


TRANSFORM_ALL = {'user_transform_rate': 1.0, 'item_transform_rate': 1.0}


def trained_with(batch, pairing, side, position):
  """The other side's rows that a row of the batch is trained on."""
  user, item = np.asarray(batch.user).tolist(), np.asarray(batch.item).tolist()
  other = item if side == 'user' else user
  return set(other) if pairing == 'blocks' else {other[position]}


@pytest.mark.parametrize('pairing', ['blocks', 'published'])
@pytest.mark.parametrize('seed', range(2))
def test_transforms_are_means_of_the_history_without_the_pair(pairing, seed):
  likes, user, item = make_world(seed)
  batch, *seen = look(
      make_tables(likes, user, item), pairing, seed, **TRANSFORM_ALL
  )
  factors = {'user': item, 'item': user}
  kinds = set()
  for side, preference in zip(('user', 'item'), seen, strict=True):
    rows = np.asarray(getattr(batch, side)).tolist()
    for position, row in enumerate(rows):
      liked = likes[row] if side == 'user' else likes[:, row]
      history = set(np.flatnonzero(liked).tolist())
      left = sorted(history - trained_with(batch, pairing, side, position))
      kinds.add((bool(left), len(left) < len(history)))
      assert bool(preference.present[position]) == bool(left)
      expected = np.zeros(WIDTH)
      if left:
        expected = sum(factors[side][other].astype(float) for other in left)
        expected /= len(left)
      np.testing.assert_allclose(
          preference.value[position], expected, rtol=1e-4, atol=1e-5
      )
  assert len(kinds) > 1  # some histories were cut, or cut to nothing


@pytest.mark.parametrize('pairing', ['blocks', 'published'])
def test_the_trained_item_has_no_part_in_the_users_input(pairing):
  """Derivative of each user's input by every item's factors, closed form.

  If the item that the user is trained on were in her input, the tower could
  read the target off it, which no cold item ever offers.
  """
  likes, user, item = make_world()

  def user_input(item_factors):
    tables = make_tables(likes, jnp.asarray(user), item_factors)
    batch, seen, _ = look(tables, pairing, **TRANSFORM_ALL)
    return seen.value[:, 0], batch

  slopes, batch = jax.jacrev(user_input, has_aux=True)(jnp.asarray(item))
  for position, row in enumerate(np.asarray(batch.user).tolist()):
    history = set(np.flatnonzero(likes[row]).tolist())
    trained = trained_with(batch, pairing, 'user', position)
    left = history - trained
    expected = np.zeros((ITEMS, WIDTH))
    expected[sorted(left), 0] = 1 / max(len(left), 1)
    np.testing.assert_allclose(slopes[position], expected, atol=1e-6)
    np.testing.assert_array_equal(slopes[position, sorted(trained)], 0)


@pytest.mark.parametrize('pairing', ['blocks', 'published'])
def test_without_dropout_every_row_is_as_it_is(pairing):
  likes, user, item = make_world()
  batch, seen_user, seen_item = look(make_tables(likes, user, item), pairing)
  for rows, seen, factors in (
      (batch.user, seen_user, user),
      (batch.item, seen_item, item),
  ):
    assert np.all(seen.present)
    np.testing.assert_array_equal(seen.value, factors[np.asarray(rows)])


@pytest.mark.parametrize('pairing', ['blocks', 'published'])
def test_each_side_has_its_own_rate(pairing):
  tables = make_tables(*make_world())
  _, user, item = look(tables, pairing, user_rate=1.0)
  assert not np.any(user.present) and np.all(item.present)
  np.testing.assert_array_equal(user.value, 0)
  _, user, item = look(tables, pairing, item_rate=1.0)
  assert np.all(user.present) and not np.any(item.present)


@pytest.mark.parametrize(
    'rates, allowed',
    [
        ((0.5, 0.5, 0.0), {(False, True), (True, False)}),
        ((0.0, 0.0, 1.0), {(False, False)}),
        ((0.0, 0.0, 0.5), {(False, False), (True, True)}),
        ((0.3, 0.0, 0.0), {(False, True), (True, True)}),
    ],
)
def test_exclusive_modes_are_of_pairs(rates, allowed):
  drop_user, drop_item, drop_both = rates
  _, user, item = look(
      make_tables(*make_world()),
      'published',
      kind='exclusive',
      drop_user=drop_user,
      drop_item=drop_item,
      drop_both=drop_both,
  )
  modes = zip(np.asarray(user.present), np.asarray(item.present), strict=True)
  assert {(bool(u), bool(i)) for u, i in modes} == allowed


@pytest.mark.parametrize('pairing', ['blocks', 'published'])
def test_each_side_is_divided_by_what_it_keeps(pairing):
  likes, user, item = make_world()
  tables = make_tables(likes, user, item)
  rates = {'user_rate': 0.5, 'item_rate': 1.0, 'rescale_kept': True}
  kept = set()
  for seed in range(3 if pairing == 'blocks' else 1):
    batch, seen, gone = look(tables, pairing, seed, **rates)
    for row, value, present in zip(
        np.asarray(batch.user), seen.value, seen.present
    ):
      np.testing.assert_array_equal(value, user[row] * 2.0 * float(present))
      kept.add(bool(present))
    assert not np.any(gone.present)
    np.testing.assert_array_equal(gone.value, 0)
  assert kept == {False, True}


def test_exclusive_modes_divide_by_what_a_side_keeps():
  likes, user, item = make_world()
  batch, *seen = look(
      make_tables(likes, user, item),
      'published',
      kind='exclusive',
      rescale_kept=True,
      drop_user=0.25,
      drop_item=0.5,
      drop_both=0.25,
  )
  sides = zip(('user', 'item'), (user, item), seen, (2.0, 4.0), strict=True)
  for side, factors, found, scale in sides:
    expected = factors[np.asarray(getattr(batch, side))] * scale
    expected[~np.asarray(found.present)] = 0
    np.testing.assert_array_equal(found.value, expected)
    assert np.any(found.present)


def test_dropped_sides_are_independent_unless_exclusive():
  _, user, item = look(
      make_tables(*make_world()), 'published', user_rate=0.5, item_rate=0.5
  )
  modes = zip(np.asarray(user.present), np.asarray(item.present), strict=True)
  assert len(set(modes)) == 4


@pytest.mark.parametrize('schedule', ['linear', 'cosine'])
def test_rates_grow_from_nothing(schedule):
  """Through the whole loss: only towers of dropped rows see no preference."""
  tables = make_tables(*make_world())
  cfg = config.Config(
      dropout=config.DropoutConfig(
          user_rate=1.0, item_rate=1.0, schedule=schedule, ramp_steps=4
      ),
      train=config.TrainConfig(batch_size=12),
  )
  seen = []

  class Towers:
    """In place of the model; `apply` is all that a step calls."""

    def apply(self, variables, preference, content, **unused):
      del variables, content
      seen.append(np.asarray(preference.present).mean())
      return embeddings.Embedding(preference.value), {}

  mesh = parallel.make_mesh(config.MeshConfig(), 1)
  loss_fn = batch_loss.make_loss_fn(cfg, Towers(), tables, mesh)
  for step in (0, 4, 9):
    loss, (stats, metrics) = loss_fn({}, {'kept': 1}, tables, jnp.int32(step))
    assert stats == {'kept': 1}
    assert metrics['loss/total'] == loss == metrics['loss/teacher']
  assert seen == [1, 1, 0, 0, 0, 0]


def test_cold_rows_are_drawn_only_if_the_published_targets_are_asked_for(
    problem,
):
  _, train_items = problem.split.train_rows()
  cold = set(range(len(problem.item.ids))) - set(train_items.tolist())
  assert len(cold) > 10
  drawn = {}
  for targets in ('training', 'all'):
    for pairing in ('blocks', 'published'):
      cfg = tiny_run.changed(
          objective={'pairing': pairing, 'target_items': targets}
      )
      tables = parallel.place(
          resident.make_tables(cfg, problem),
          parallel.make_mesh(cfg.mesh, 1),
      )
      if pairing == 'blocks':
        block = batches.draw_block(jax.random.key(0), tables, (10, 48))
        items, users = block.item, block.user
      else:
        items, users = tables.top_items, tables.train_users
        pairs = batches.draw_published_pairs(
            jax.random.key(0), tables, 2000, 0.5
        )
        items = np.concatenate([np.ravel(items), pairs.item])
        users = np.concatenate([users, pairs.user])
      drawn[targets, pairing] = set(np.asarray(items).tolist())
      assert set(np.asarray(users).tolist()) <= set(
          problem.split.train.user.tolist()
      )
  assert not drawn['training', 'blocks'] & cold
  assert not drawn['training', 'published'] & cold
  assert drawn['all', 'blocks'] & cold
  assert drawn['all', 'published'] & cold


def test_top_items_are_the_teachers_among_the_targets(problem):
  cfg = tiny_run.changed(objective={'pairing': 'published'})
  tables = resident.make_tables(cfg, problem)
  targets = problem.split.train_rows()[1]
  scores = problem.factors.user @ problem.factors.item.T
  for user in problem.split.train_rows()[0][:20]:
    best = sorted(targets.tolist(), key=lambda item: -scores[user, item])[:10]
    assert set(tables.top_items[user].tolist()) == set(best)
  none = tiny_run.changed(objective={'pairing': 'published', 'top_items': 0})
  assert resident.make_tables(none, problem).top_items.size == 0


def test_tables_do_not_show_a_cold_row_its_factors(problem):
  tables = resident.make_tables(tiny_run.get_config(), problem)
  for side, rows in zip(
      (tables.user, tables.item), problem.split.train_rows(), strict=True
  ):
    warm = np.isin(np.arange(len(side.present)), rows)
    np.testing.assert_array_equal(side.present, warm)
    np.testing.assert_array_equal(side.preference[~warm], 0)
    np.testing.assert_array_equal(side.history_count > 0, warm)
