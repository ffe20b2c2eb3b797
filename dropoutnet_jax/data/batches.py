# SPDX-License-Identifier: Apache-2.0
"""Which rows a step trains on: a pure function of a key and the tables.

Nothing here has a state, so that batch number n is the same in an interrupted
and an uninterrupted run, on any number of devices.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dropoutnet_jax.data import tables as tables_lib

# Sides of larger blocks are multiples of it, whatever the number of devices:
# so rows split evenly over 2, 4, ... 128 of them, and one device draws the
# same blocks.
_SIDE_MULTIPLE = 128


class Block(NamedTuple):
  """Users and items that are all scored with each other; rows are distinct."""

  user: jax.Array  # int32 [U]
  item: jax.Array  # int32 [I]


class Pairs(NamedTuple):
  """Single pairs."""

  user: jax.Array  # int32 [B]
  item: jax.Array  # int32 [B]


def block_shape(
    batch_size: int, block_users: int, num_users: int, num_items: int
) -> tuple[int, int]:
  """Users and items of a block of about `batch_size` pairs.

  A side of more than 128 rows is rounded to the nearest multiple of 128, so the
  number of pairs may be somewhat above or below; `block_users` is taken as it
  is, and so is a side that holds all rows that there are.

  Args:
    batch_size: pairs per step.
    block_users: users per block, or 0 for about the root of the batch size.
    num_users: training users.
    num_items: target items.

  Returns:
    (users, items), each at least 1 and at most what there is: a small data set
    gives smaller blocks.
  """
  if block_users:
    users = min(block_users, batch_size, num_users)
  else:
    users = _round_side(round(batch_size**0.5), num_users)
  return users, _round_side(batch_size // users, num_items)


def _round_side(wanted: int, available: int) -> int:
  """Rows of one side: at least 1, at most what there is."""
  if wanted >= available:
    return available
  if wanted <= _SIDE_MULTIPLE:
    return max(1, wanted)
  nearest = (wanted + _SIDE_MULTIPLE // 2) // _SIDE_MULTIPLE
  return min(nearest * _SIDE_MULTIPLE, available)


def draw_block(
    key: jax.Array, tables: tables_lib.Tables, shape: tuple[int, int]
) -> Block:
  """Draws a block's users and items uniformly without replacement."""
  user_key, item_key = jax.random.split(key)
  return Block(
      jax.random.permutation(user_key, tables.train_users)[: shape[0]],
      jax.random.permutation(item_key, tables.target_items)[: shape[1]],
  )


def draw_published_pairs(
    key: jax.Array,
    tables: tables_lib.Tables,
    batch_size: int,
    random_share: float,
) -> Pairs:
  """Draws pairs from the published distribution, with replacement.

  A training user uniformly; with it a uniform target item with probability
  `random_share`, else one of the user's top items by the teacher's score. The
  published code materialises the same pairs per thousand users and shuffles.
  """
  keys = jax.random.split(key, 4)
  shape = (batch_size,)
  pick = lambda key, size: jax.random.randint(key, shape, 0, size)
  user = tables.train_users[pick(keys[0], len(tables.train_users))]
  item = tables.target_items[pick(keys[1], len(tables.target_items))]
  if random_share < 1:
    top = tables.top_items[user, pick(keys[2], tables.top_items.shape[1])]
    is_random = jax.random.bernoulli(keys[3], random_share, shape)
    item = jnp.where(is_random, item, top)
  return Pairs(user, item)


def block_likes(
    user_history: jax.Array, block: Block, num_items: int
) -> jax.Array:
  """Which pairs of a block are training pairs: bool [U, I]."""
  found = places(user_history[block.user], block.item, num_items)
  return _at_places(found.liked, len(block.item), True)


def block_windows(
    user_history: jax.Array,
    history_windows: jax.Array,
    block: Block,
    num_items: int,
) -> jax.Array:
  """Bits of the training pairs of a block, 0 of other pairs: int32 [U, I]."""
  found = places(user_history[block.user], block.item, num_items)
  values = history_windows[block.user]
  return _at_places(found.liked, len(block.item), values)


class Places(NamedTuple):
  """Where the items of histories are in a batch, without a mask of all pairs.

  Attributes:
    first: int32 [B], the first place of the item of each place.
    liked: int32 [A, L], first places of the items of each history, B where
      the batch does not have them.
  """

  first: jax.Array
  liked: jax.Array

  def likes(self) -> jax.Array:
    """Which histories have which items: bool [A, B]."""
    likes = _at_places(self.liked, len(self.first), True)
    return jnp.take(likes, self.first, axis=1)


def places(history: jax.Array, item: jax.Array, num_items: int) -> Places:
  """Places of histories in a batch; items may occur more than once.

  Args:
    history: int32 [A, L], distinct items, then -1.
    item: int32 [B], items of the batch.
    num_items: items are below it.
  """
  size = len(item)
  # Place of an item in the batch; `size` is the bin for all others.
  place = jnp.full(num_items + 1, size, jnp.int32)
  place = place.at[item].min(jnp.arange(size, dtype=jnp.int32))
  return Places(place[item], place[jnp.where(history < 0, num_items, history)])


def batch_likes(
    history: jax.Array, item: jax.Array, num_items: int
) -> jax.Array:
  """Which histories [A, L] of a batch have which of its items [B]: bool [A, B].

  Items may occur more than once.
  """
  return places(history, item, num_items).likes()


def _at_places(
    place: jax.Array, size: int, values: jax.Array | bool
) -> jax.Array:
  """[A, size] with values [A, L], or one, at places int32 [A, L] <= size.

  Row by row, so that rows may be split over devices; `size` is nowhere.
  """
  values = jnp.broadcast_to(jnp.asarray(values), place.shape)
  empty = jnp.zeros(size + 1, values.dtype)
  of_row = jax.vmap(lambda place, values: empty.at[place].set(values))
  return of_row(place, values)[:, :size]


def pair_likes(
    user_history: jax.Array, pairs: Pairs | tables_lib.LabelledRows
) -> jax.Array:
  """Which pairs are training pairs: bool [B]."""
  return jnp.any(user_history[pairs.user] == pairs.item[:, None], axis=1)


def pair_windows(
    user_history: jax.Array, history_windows: jax.Array, pairs: Pairs
) -> jax.Array:
  """Bits of pairs where they are training pairs, else 0: int32 [B]."""
  same = user_history[pairs.user] == pairs.item[:, None]
  return jnp.sum(jnp.where(same, history_windows[pairs.user], 0), axis=1)
