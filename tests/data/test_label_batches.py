# SPDX-License-Identifier: Apache-2.0
"""Draws of labelled rows: uniform, by epochs, in groups, and from lists."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax.data import label_batches
from dropoutnet_jax.data import tables as tables_lib

pytestmark = pytest.mark.usefixtures('quick_compilation')
SEED = jax.random.key(3)
# Users of 17 rows, in order: as many rows as they are numbers, user 0 none.
USERS = np.repeat(np.arange(5), [0, 1, 4, 2, 10]).astype(np.int32)


def _rows(session=None):
  """The item tells the row."""
  size = len(USERS)
  return tables_lib.LabelledRows(
      jnp.asarray(USERS),
      jnp.arange(size, dtype=jnp.int32),
      jnp.asarray(np.arange(size) % 2, jnp.float32),
      jnp.linspace(0.5, 2.0, size),
      None if session is None else jnp.asarray(session),
  )


def _groups(group):
  count = np.bincount(group).astype(np.int32)
  return tables_lib.Lists(
      jnp.asarray(np.cumsum(count) - count), jnp.asarray(count)
  )


def _assert_whole(batch):
  """Every row is one of the table, as it is there."""
  rows = _rows()
  for name in ('user', 'label', 'weight'):
    expected = np.asarray(getattr(rows, name))[batch.item]
    np.testing.assert_array_equal(getattr(batch, name), expected)


def test_rows_are_drawn_whole():
  batch = label_batches.draw(jax.random.key(0), _rows(), 500)
  _assert_whole(batch)
  assert set(batch.item.tolist()) == set(range(17))
  assert batch.session is None and batch.is_real is None
  again = label_batches.draw(jax.random.key(0), _rows(), 500)
  np.testing.assert_array_equal(batch.item, again.item)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _step(step, size, group_rows=1):
  key = jax.random.fold_in(SEED, step)
  return label_batches.next_of_epoch(
      key, SEED, step, _rows(), _groups(USERS), size, group_rows
  )


@pytest.mark.parametrize('size', [1, 5, 17, 40])
def test_an_epoch_has_every_row_once(size):
  steps = -(-17 // size)
  orders = []
  for epoch in range(3):
    batches = [_step(epoch * steps + n, size) for n in range(steps)]
    real = np.concatenate([batch.is_real for batch in batches])
    items = np.concatenate([batch.item for batch in batches])
    weight = np.concatenate([batch.weight for batch in batches])
    assert real.tolist() == [n < 17 for n in range(steps * size)]
    assert sorted(items[real].tolist()) == list(range(17))
    np.testing.assert_array_equal(weight[real], _rows().weight[items[real]])
    assert not weight[~real].any()  # padding
    np.testing.assert_array_equal(items[17:34], items[: len(items[17:34])])
    orders.append(items[real].tolist())
  assert orders[0] != orders[1] != orders[2] != orders[0]


def test_epochs_are_of_the_seed_alone():
  """Neither the key of a step nor what went before it says which rows."""
  first = _step(7, 5)
  alone = jax.jit(
      lambda seed_key: label_batches.next_of_epoch(
          jax.random.key(99), seed_key, jnp.int32(7), _rows(), None, 5
      )
  )
  again, other = alone(SEED), alone(jax.random.key(4))
  np.testing.assert_array_equal(first.item, again.item)
  assert first.item.tolist() != other.item.tolist()


def test_places_within_epochs_are_uniform():
  epochs = 3000
  first = jax.jit(jax.vmap(lambda step: _step(4 * step, 5).item[0]))
  found = np.bincount(first(jnp.arange(epochs)), minlength=17)
  expected = epochs / 17
  assert (np.abs(found - expected) < 4.5 * expected**0.5).all()


def test_groups_are_rows_of_one_user():
  draw = jax.jit(
      lambda key: label_batches.draw_grouped(key, _rows(), _groups(USERS), 8, 4)
  )
  count, firsts = np.zeros(17), np.zeros(17)
  for number in range(300):
    batch = draw(jax.random.key(number))
    _assert_whole(batch)
    for group in np.asarray(batch.item).reshape(2, 4):
      user = set(USERS[group].tolist())
      assert len(user) == 1
      # Distinct as far as there are so many, and then all of them.
      assert len(set(group.tolist())) == min(4, np.sum(USERS == user.pop()))
      firsts[group[0]] += 1
      np.add.at(count, group, 1)
  # Each row of a large and of a small user as often as any other.
  assert abs(firsts - 600 / 17).max() < 4.5 * (600 / 17) ** 0.5
  expected = 2400 / 17  # rows of one group are not independent
  assert abs(count - expected).max() < 4.5 * 2 * expected**0.5


def test_all_pairs_of_a_group_are_equally_likely():
  """Also those that are no neighbours in the table."""
  draw = jax.vmap(
      lambda key: label_batches.draw_grouped(
          key, _rows(), _groups(USERS), 3, 3
      ).item
  )
  found = np.asarray(jax.jit(draw)(jax.random.split(SEED, 6000)))
  found = found[USERS[found[:, 0]] == 2]  # four rows, from 1 on
  pairs = np.zeros((4, 4))
  for one, other in ((0, 1), (0, 2), (1, 2)):
    np.add.at(pairs, (found[:, one] - 1, found[:, other] - 1), 1)
  assert not pairs.diagonal().any()
  each = pairs[~np.eye(4, dtype=bool)]
  assert abs(each - each.mean()).max() < 4.5 * each.mean() ** 0.5


def test_groups_may_be_sessions():
  session = np.repeat(np.arange(6), [1, 3, 3, 4, 2, 4]).astype(np.int32)
  draw = jax.jit(label_batches.draw_grouped, static_argnums=(3, 4))
  batch = draw(SEED, _rows(session), _groups(session), 60, 3)
  for group in np.asarray(batch.session).reshape(20, 3):
    assert len(set(group.tolist())) == 1
  np.testing.assert_array_equal(batch.session, session[batch.item])


def test_epochs_of_groups_have_every_row_first_once():
  firsts, real = [], []
  for step in range(6):  # three groups in each of them
    batch = _step(step, 12, 4)
    groups = np.asarray(batch.item).reshape(3, 4)
    assert all(len(set(USERS[group])) == 1 for group in groups)
    firsts += groups[:, 0].tolist()
    mask = np.asarray(batch.is_real).reshape(3, 4)
    assert (mask == mask[:, :1]).all()
    real += mask[:, 0].tolist()
  assert real == [True] * 17 + [False]
  assert sorted(firsts[:17]) == list(range(17))


def test_lists_are_drawn_from_without_repeats():
  lists = tables_lib.Lists(
      jnp.array([0, 3, 3]), jnp.array([3, 0, 5]), jnp.arange(10, 18)
  )
  number = jnp.tile(jnp.array([2, 1, 0]), 500)
  value, is_real = jax.jit(
      functools.partial(label_batches.draw_from_lists, size=4)
  )(SEED, lists, number)
  value, is_real = np.asarray(value), np.asarray(is_real)
  assert is_real[:3].tolist() == [[True] * 4, [False] * 4, [True] * 3 + [False]]
  for row in range(0, 60, 3):
    assert set(value[row + 2][:3].tolist()) == {10, 11, 12}
    assert len(set(value[row].tolist()) & set(range(13, 18))) == 4
  found = np.bincount(value[::3].ravel(), minlength=18)[13:]
  assert abs(found - 400).max() < 4 * 400**0.5
