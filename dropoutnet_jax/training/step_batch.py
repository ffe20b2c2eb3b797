# SPDX-License-Identifier: Apache-2.0
"""What a step draws: the rows that it trains on, and items beside them.

A pure function of (tables, step). Here is known which users and items a step
looks at, before anything is computed of them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dropoutnet_jax import config
from dropoutnet_jax.data import batches
from dropoutnet_jax.data import label_batches
from dropoutnet_jax.data import popularity
from dropoutnet_jax.data import tables as tables_lib

# Apart from what the key of a step is split into, and from what `label_loss`
# and `batch_loss` make of it.
_SAMPLED, _SHOWN = 4, 5


def batch_shape(
    cfg: config.Config, tables: tables_lib.Tables
) -> tuple[int, ...]:
  """Rows in a batch: (users, items) of a block, or (pairs,)."""
  if cfg.objective.pairing != 'blocks':
    return (cfg.train.batch_size,)
  return batches.block_shape(
      cfg.train.batch_size,
      cfg.objective.block_users,
      len(tables.train_users),
      len(tables.target_items),
  )


def batch_of_step(
    cfg: config.Config, tables: tables_lib.Tables, step: jax.Array
) -> batches.Block | batches.Pairs | tables_lib.LabelledRows:
  """The rows that a step trains on."""
  key = step_key(cfg, step)
  if cfg.objective.pairing == 'interactions':
    return draw_rows(cfg, tables, key, step)
  return draw_batch(cfg, tables, key)


def step_key(cfg: config.Config, step: jax.Array) -> jax.Array:
  """What all randomness of a step comes from."""
  return jax.random.fold_in(jax.random.key(cfg.train.seed), step)


def draw_batch(
    cfg: config.Config, tables: tables_lib.Tables, key: jax.Array
) -> batches.Block | batches.Pairs:
  """The block, or the pairs, that the step of this key trains on."""
  rows_key = jax.random.split(key, 3)[0]  # the others draw dropout states
  shape, settings = batch_shape(cfg, tables), cfg.objective
  if settings.pairing == 'blocks':
    users, items = shape
    return batches.draw_block(rows_key, tables, (users, items))
  (size,) = shape
  share = settings.random_items / (settings.top_items + settings.random_items)
  return batches.draw_published_pairs(rows_key, tables, size, share)


def draw_rows(
    cfg: config.Config,
    tables: tables_lib.Tables,
    key: jax.Array,
    step: jax.Array,
) -> tables_lib.LabelledRows:
  """The labelled rows of a step.

  Args:
    cfg: the experiment.
    tables: with rows: all of them, or the batches of some steps.
    key: of the step.
    step: int32 [], its number.
  """
  settings, size = cfg.objective, cfg.train.batch_size
  rows, groups = tables.rows, tables.groups
  assert rows is not None
  if tables.first_step is not None:
    pick = lambda x: jax.lax.dynamic_index_in_dim(
        x, step - tables.first_step, keepdims=False
    )
    return jax.tree.map(pick, rows)
  key = _rows_key(key)
  if settings.sampling == 'epochs':
    seed_key = jax.random.key(cfg.train.seed)
    return label_batches.next_of_epoch(
        key, seed_key, step, rows, groups, size, settings.group_rows
    )
  if settings.group_rows > 1:
    assert groups is not None
    return label_batches.draw_grouped(
        key, rows, groups, size, settings.group_rows
    )
  return label_batches.draw(key, rows, size)


def draw_places(
    cfg: config.Config, key: jax.Array, step: jax.Array, num_rows: int
) -> tuple[jax.Array, jax.Array | None]:
  """Places of what `draw_rows` draws of so many rows without groups.

  Args:
    cfg: the experiment.
    key: of the step.
    step: int32 [], its number.
    num_rows: of all.

  Returns:
    int32 [B], and bool [B], False for padding; None where there is none.
  """
  size = cfg.train.batch_size
  if cfg.objective.sampling == 'epochs':
    seed_key = jax.random.key(cfg.train.seed)
    return label_batches.places_of_epoch(seed_key, step, num_rows, size)
  return label_batches.draw_places(_rows_key(key), num_rows, size), None


def _rows_key(key: jax.Array) -> jax.Array:
  """What the rows of a step are drawn by, of the step's key."""
  return jax.random.split(key, 3)[0]  # the others draw dropout states


class More(NamedTuple):
  """Items beside those of the B rows; None where there are none.

  Attributes:
    shown: int32 [B, M], what each row's user was shown in vain.
    is_real: bool [B, M], False where there are no more of these.
    sampled: int32 [S].
  """

  shown: jax.Array | None = None
  is_real: jax.Array | None = None
  sampled: jax.Array | None = None

  def flat(self) -> jax.Array | None:
    """All of them, int32 [B * M + S]."""
    parts = [x for x in (self.shown, self.sampled) if x is not None]
    return jnp.concatenate([x.reshape(-1) for x in parts]) if parts else None


def draw_more(
    settings: config.ObjectiveConfig,
    tables: tables_lib.Tables,
    rows: tables_lib.LabelledRows,
    key: jax.Array,
) -> More:
  """Further items of a batch of labelled rows.

  Args:
    settings: of the objective.
    tables: that the rows are of.
    rows: the batch.
    key: of the step.
  """
  shown = is_real = sampled = None
  if settings.num_impressions:
    assert tables.shown is not None
    shown, is_real = label_batches.draw_from_lists(
        jax.random.fold_in(key, _SHOWN),
        tables.shown,
        rows.user,
        settings.num_impressions,
    )
  if settings.num_sampled:
    assert tables.popularity is not None
    sampled = popularity.sample_items(
        jax.random.fold_in(key, _SAMPLED),
        tables.popularity,
        (settings.num_sampled,),
    )
  return More(shown, is_real, sampled)


def rows_of_step(
    cfg: config.Config, tables: tables_lib.Tables, step: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """All users and all items that a step embeds: int32 [B] and [B + E]."""
  batch = batch_of_step(cfg, tables, step)
  items = batch.item
  if isinstance(batch, tables_lib.LabelledRows):
    key = step_key(cfg, step)
    more = draw_more(cfg.objective, tables, batch, key).flat()
    items = items if more is None else jnp.concatenate([items, more])
  return batch.user, items
