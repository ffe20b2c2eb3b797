# SPDX-License-Identifier: Apache-2.0
"""Draws: distinct, uniform, a pure function of the key; likes against sets."""

import types

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax.data import batches
from dropoutnet_jax.data import histories
from dropoutnet_jax.data import schema

pytestmark = pytest.mark.usefixtures('quick_compilation')

SETTINGS = hypothesis.settings(max_examples=40, deadline=None)
TRAIN_USERS = np.array([0, 2, 3, 5, 7, 8], np.int32)
TARGET_ITEMS = np.array([1, 2, 4, 6, 9, 10, 11, 13, 14, 15], np.int32)
# Row u: the top items of user u, all among the targets; row 1 is of nobody.
TOP_ITEMS = np.array([np.roll(TARGET_ITEMS, u)[:4] for u in range(9)], np.int32)


def make_tables(top_items=TOP_ITEMS):
  """All of the tables that a draw looks at."""
  return types.SimpleNamespace(
      train_users=jnp.asarray(TRAIN_USERS),
      target_items=jnp.asarray(TARGET_ITEMS),
      top_items=jnp.asarray(top_items),
  )


def within_chance(count, expected):
  """Whether counts lie within five standard deviations of the expected."""
  count, expected = np.asarray(count, float), np.asarray(expected, float)
  return bool(np.all(np.abs(count - expected) <= 5 * np.sqrt(expected) + 1e-9))


@pytest.mark.parametrize('shape', [(1, 1), (4, 3), (6, 10)])
def test_block_rows_are_distinct_and_of_training(shape):
  draw = jax.jit(lambda key: batches.draw_block(key, make_tables(), shape))
  for seed in range(20):
    block = draw(jax.random.key(seed))
    for rows, size, known in (
        (block.user, shape[0], TRAIN_USERS),
        (block.item, shape[1], TARGET_ITEMS),
    ):
      rows = np.asarray(rows).tolist()
      assert len(rows) == len(set(rows)) == size
      assert set(rows) <= set(known.tolist())


def test_block_rows_and_their_pairs_are_uniform():
  """Each row as often as any other, and every two rows together as often."""
  count = 2000
  draw = lambda key: batches.draw_block(key, make_tables(), (3, 2))
  keys = jax.random.split(jax.random.key(0), count)
  block = jax.jit(lambda keys: jax.lax.map(draw, keys))(keys)
  for rows, known in ((block.user, TRAIN_USERS), (block.item, TARGET_ITEMS)):
    member = (np.asarray(rows)[:, :, None] == known).any(axis=1).astype(int)
    size, total = rows.shape[1], len(known)
    together = member.T @ member
    alone = count * size / total
    pair = alone * (size - 1) / (total - 1)
    expected = np.where(np.eye(total, dtype=bool), alone, pair)
    assert within_chance(together, expected)
  # A user tells nothing about the items.
  first = np.zeros((len(TRAIN_USERS), len(TARGET_ITEMS)))
  user = np.searchsorted(TRAIN_USERS, block.user[:, 0])
  item = np.searchsorted(TARGET_ITEMS, block.item[:, 0])
  np.add.at(first, (user, item), 1)
  assert within_chance(first, count / first.size)


@pytest.mark.parametrize('share', [0.0, 0.5, 1.0])
def test_published_pairs_have_the_published_distribution(share):
  """P(u, i) = 1/U ((1 - share) [i in top u] / N + share / I), by a table."""
  count = 60_000
  pairs = jax.jit(
      lambda key: batches.draw_published_pairs(key, make_tables(), count, share)
  )(jax.random.key(1))
  found = np.zeros((9, 16))
  np.add.at(found, (np.asarray(pairs.user), np.asarray(pairs.item)), 1)
  chance = np.zeros((9, 16))
  for user in TRAIN_USERS:
    for item in TARGET_ITEMS:
      chance[user, item] += share / len(TARGET_ITEMS)
    for item in TOP_ITEMS[user]:
      chance[user, item] += (1 - share) / TOP_ITEMS.shape[1]
  chance /= len(TRAIN_USERS)
  assert chance.sum() == pytest.approx(1)
  assert not found[chance == 0].any()
  assert within_chance(found, count * chance)


def test_only_random_pairs_need_no_top_items():
  none = np.zeros((0, 0), np.int32)
  pairs = batches.draw_published_pairs(
      jax.random.key(0), make_tables(none), 50, 1.0
  )
  assert set(np.asarray(pairs.item).tolist()) <= set(TARGET_ITEMS.tolist())


def test_draws_are_pure_functions_of_the_key():
  draws = (
      lambda key: batches.draw_block(key, make_tables(), (4, 5)),
      lambda key: batches.draw_published_pairs(key, make_tables(), 50, 0.5),
  )
  for draw in map(jax.jit, draws):
    first, again = draw(jax.random.key(3)), draw(jax.random.key(3))
    other = draw(jax.random.key(4))
    for a, b, c in zip(first, again, other, strict=True):
      np.testing.assert_array_equal(a, b)
      assert not np.array_equal(a, c)


@hypothesis.given(
    st.integers(1, 5000),
    st.integers(0, 100),
    st.integers(1, 60),
    st.integers(1, 60),
)
@SETTINGS
def test_small_block_shape(batch_size, block_users, num_users, num_items):
  users, items = batches.block_shape(
      batch_size, block_users, num_users, num_items
  )
  assert 1 <= users <= num_users
  assert 1 <= items <= num_items
  assert users * items <= max(batch_size, users)
  if block_users:
    assert users == min(block_users, batch_size, num_users)
  if items < num_items:  # nothing of the batch is given away
    assert (items + 1) * users > batch_size


@hypothesis.given(
    st.integers(1, 3_000_000),
    st.integers(0, 3000),
    st.integers(1, 5000),
    st.integers(1, 5000),
)
@SETTINGS
def test_large_sides_split_over_any_usual_number_of_devices(
    batch_size, block_users, num_users, num_items
):
  """But for those that hold all rows, and those that were asked for."""
  shape = batches.block_shape(batch_size, block_users, num_users, num_items)
  root = block_users or batch_size**0.5
  wanted = (root, batch_size / shape[0])
  if block_users:
    assert shape[0] == min(block_users, batch_size, num_users)
  for side, aim, available in zip(shape, wanted, (num_users, num_items)):
    assert 1 <= side <= available
    if 128 < side < available and side != block_users and side != batch_size:
      assert side % 128 == 0
    if side + 64.5 < aim:
      assert side in (available, batch_size)
    assert side <= max(1, aim + 64.5)


def test_block_shape_is_about_square():
  assert batches.block_shape(1_000_000, 0, 5551, 13_584) == (1024, 1024)
  assert batches.block_shape(250_000, 0, 754, 1345) == (512, 512)
  assert batches.block_shape(12, 0, 100, 100) == (3, 4)
  # All rows that there are, if a block has room for them.
  assert batches.block_shape(1_000_000, 0, 500, 13_584) == (500, 2048)
  assert batches.block_shape(1_000_000, 0, 140, 900) == (140, 900)
  assert batches.block_shape(1_000_000, 0, 100, 13_584) == (100, 9984)


def draw_pairs(rng):
  """A set of training pairs, and padded histories of seven users."""
  likes = rng.random((7, 9)) < rng.choice([0.0, 0.2, 0.7, 1.0])
  user, item = np.nonzero(likes)
  train = schema.Interactions(user.astype(np.int32), item.astype(np.int32))
  index = histories.make_history(train, 7, 9, 'user').padded()
  padded = np.pad(index, ((0, 0), (0, 9 - index.shape[1])), constant_values=-1)
  return set(zip(user.tolist(), item.tolist())), jnp.asarray(padded)


@pytest.mark.parametrize('shape', [(1, 1), (4, 5), (7, 9)])
def test_block_likes_are_the_training_pairs(shape):
  get_likes = jax.jit(batches.block_likes, static_argnums=2)
  for seed in range(15):
    rng = np.random.default_rng(seed)
    pairs, history = draw_pairs(rng)
    users = rng.permutation(7)[: shape[0]].astype(np.int32)
    items = rng.permutation(9)[: shape[1]].astype(np.int32)
    likes = get_likes(history, batches.Block(users, items), 9)
    assert likes.dtype == bool
    expected = [[(user, item) in pairs for item in items] for user in users]
    np.testing.assert_array_equal(likes, expected)


def test_pair_likes_are_the_training_pairs():
  get_likes = jax.jit(batches.pair_likes)
  for seed in range(15):
    rng = np.random.default_rng(seed)
    pairs, history = draw_pairs(rng)
    user = rng.integers(0, 7, 30).astype(np.int32)
    item = rng.integers(0, 9, 30).astype(np.int32)
    likes = get_likes(history, batches.Pairs(user, item))
    assert likes.dtype == bool
    expected = [pair in pairs for pair in zip(user.tolist(), item.tolist())]
    assert np.asarray(likes).tolist() == expected
