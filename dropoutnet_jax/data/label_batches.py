# SPDX-License-Identifier: Apache-2.0
"""Which labelled rows a step trains on, and which items they were shown with.

As in `batches`, batch number n is a pure function of (seed, n).
"""

import dataclasses

import jax
import jax.numpy as jnp

from dropoutnet_jax.data import shuffle
from dropoutnet_jax.data import tables as tables_lib

_EPOCHS = 2**31  # above every step: keys of epochs are no keys of steps


def draw(
    key: jax.Array, rows: tables_lib.LabelledRows, size: int
) -> tables_lib.LabelledRows:
  """Labelled rows drawn uniformly, with replacement."""
  return _take(rows, draw_places(key, len(rows.user), size))


def draw_places(key: jax.Array, num_rows: int, size: int) -> jax.Array:
  """Places of rows drawn uniformly, with replacement: int32 [size]."""
  return jax.random.randint(key, (size,), 0, num_rows)


def draw_grouped(
    key: jax.Array,
    rows: tables_lib.LabelledRows,
    groups: tables_lib.Lists,
    size: int,
    group_rows: int,
) -> tables_lib.LabelledRows:
  """As `draw`, but each row is followed by others of its group.

  The first row of each group is drawn uniformly, and the others uniformly from
  its group: so every row occurs equally often in the mean, alone as in `draw`.

  Args:
    key: of the draw.
    rows: of the table, in the order of the groups.
    groups: places of each group in `rows`.
    size: rows to draw, a multiple of group_rows.
    group_rows: of each group, distinct as far as it has so many; then each
      row of it occurs again.
  """
  first_key, group_key = jax.random.split(key)
  shape = (size // group_rows,)
  first = jax.random.randint(first_key, shape, 0, len(rows.user))
  return _take(rows, _with_others(group_key, rows, groups, first, group_rows))


def next_of_epoch(
    key: jax.Array,
    seed_key: jax.Array,
    step: jax.Array,
    rows: tables_lib.LabelledRows,
    groups: tables_lib.Lists | None,
    size: int,
    group_rows: int = 1,
) -> tables_lib.LabelledRows:
  """The next rows of a pass over all of them, in a random order.

  The order is a pure function of the seed and the number of the epoch. The last
  batch of an epoch is filled up with rows of its beginning that are not real:
  they have weight 0 and are nobody's negatives. With groups the first row of
  each is of the pass, and the others are drawn.

  Args:
    key: of the step, for the others of groups.
    seed_key: of the run.
    step: int32 [].
    rows: N rows of the table.
    groups: places of each group in `rows`; needed for group_rows above 1.
    size: rows of a batch, a multiple of group_rows.
    group_rows: as in `draw_grouped`.
  """
  index, is_real = places_of_epoch(
      seed_key, step, len(rows.user), size // group_rows
  )
  if group_rows > 1:
    assert groups is not None
    index = _with_others(key, rows, groups, index, group_rows)
    is_real = jnp.repeat(is_real, group_rows)
  batch = _take(rows, index)
  weight = jnp.where(is_real, batch.weight, 0.0)
  return dataclasses.replace(batch, weight=weight, is_real=is_real)


def places_of_epoch(
    seed_key: jax.Array, step: jax.Array, num_rows: int, size: int
) -> tuple[jax.Array, jax.Array]:
  """Places of the next rows of a pass, as `next_of_epoch` takes them.

  Args:
    seed_key: of the run.
    step: int32 [].
    num_rows: of a pass.
    size: rows of a batch.

  Returns:
    int32 [size], and bool [size], False for what fills up the last batch.
  """
  steps = -(-num_rows // size)
  epoch_key = jax.random.fold_in(
      jax.random.fold_in(seed_key, _EPOCHS), step // steps
  )
  place = (step % steps) * size + jnp.arange(size)
  index = shuffle.permuted(
      place % num_rows, num_rows, jax.random.bits(epoch_key, (), jnp.uint32)
  )
  return index, place < num_rows


def draw_from_lists(
    key: jax.Array, lists: tables_lib.Lists, number: jax.Array, size: int
) -> tuple[jax.Array, jax.Array]:
  """Values drawn uniformly from lists, without repeats.

  Args:
    key: of the draw.
    lists: with values.
    number: int32 [B], the list of each row.
    size: values to draw for each row.

  Returns:
    int32 [B, size], and bool [B, size], False where the list is used up; what
    stands there means nothing.
  """
  start, count = lists.start[number, None], lists.count[number, None]
  draw = jnp.arange(size)[None, :]
  word = jax.random.bits(key, (len(number), 1), jnp.uint32)
  least = jnp.maximum(count, 1)
  shape = (len(number), size)
  place = shuffle.permuted(
      draw % least,
      jnp.broadcast_to(least, shape),
      jnp.broadcast_to(word, shape),
  )
  last = len(lists.value) - 1
  return lists.value[jnp.minimum(start + place, last)], draw < count


def _with_others(
    key: jax.Array,
    rows: tables_lib.LabelledRows,
    groups: tables_lib.Lists,
    first: jax.Array,
    group_rows: int,
) -> jax.Array:
  """Places [A] in `rows`, each followed by others of its group: int32 [B].

  The others go round the group from the first row on, by distances that are
  drawn without repeats: which group has how many rows does not matter.
  """
  group = rows.user if rows.session is None else rows.session
  start = groups.start[group[first], None]
  count = groups.count[group[first], None]
  shape = (len(first), group_rows - 1)
  others = jnp.broadcast_to(jnp.maximum(count - 1, 1), shape)
  word = jax.random.bits(key, (len(first), 1), jnp.uint32)
  draw = jnp.arange(group_rows - 1)[None, :] % others
  distance = 1 + shuffle.permuted(draw, others, jnp.broadcast_to(word, shape))
  place = (first[:, None] - start + distance) % count
  index = jnp.concatenate([first[:, None], start + place], axis=1)
  return index.reshape(-1).astype(jnp.int32)


def _take(
    rows: tables_lib.LabelledRows, index: jax.Array
) -> tables_lib.LabelledRows:
  return jax.tree.map(lambda column: column[index], rows)
