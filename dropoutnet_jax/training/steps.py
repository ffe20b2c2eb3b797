# SPDX-License-Identifier: Apache-2.0
"""Compiled train steps.

A step is a pure function of (state, tables): its batch, its dropout states and
all other randomness come from fold_in(key(seed), step). Many steps run in one
dispatch; a non-finite loss ends it with the state before the bad step.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dropoutnet_jax import config
from dropoutnet_jax import parallel
from dropoutnet_jax.data import batches
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.model import input_dropout
from dropoutnet_jax.model import objective
from dropoutnet_jax.model import towers
from dropoutnet_jax.training import state as state_lib

Metrics = dict[str, jax.Array]
# Of one step, in their order in the log.
METRIC_NAMES = ('loss/total', 'loss/teacher', 'gradient_norm')
LossFn = Callable[..., tuple[jax.Array, tuple[Any, Metrics]]]


class Rates(NamedTuple):
  """Dropout rates of this run, sides without content already spared."""

  user: input_dropout.Rates
  item: input_dropout.Rates
  pair: input_dropout.ModeRates


def effective_rates(
    settings: config.DropoutConfig, tables: tables_lib.Tables
) -> Rates:
  """Rates per side; 0 for a side without content, unless asked otherwise.

  A dropped row without content is a constant input: regressing onto many
  different targets from it teaches nothing (half of the published pairs on
  CiteULike are of this kind). Where a pair would lose both sides, the side
  with content still loses its own.
  """
  keep = settings.drop_without_content
  user = float(keep or tables.user.content.shape[1] > 0)
  item = float(keep or tables.item.content.shape[1] > 0)
  s = settings
  return Rates(
      input_dropout.Rates(user * s.user_rate, s.user_transform_rate),
      input_dropout.Rates(item * s.item_rate, s.item_transform_rate),
      input_dropout.ModeRates(
          user * (s.drop_user + (1.0 - item) * s.drop_both),
          item * (s.drop_item + (1.0 - user) * s.drop_both),
          user * item * s.drop_both,
          s.user_transform,
          s.item_transform,
      ),
  )


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


def draw_batch(
    cfg: config.Config, tables: tables_lib.Tables, key: jax.Array
) -> batches.Block | batches.Pairs:
  """The rows that the step of this key trains on."""
  rows_key = jax.random.split(key, 3)[0]  # the others draw dropout states
  shape, settings = batch_shape(cfg, tables), cfg.objective
  if settings.pairing == 'blocks':
    users, items = shape
    return batches.draw_block(rows_key, tables, (users, items))
  (size,) = shape
  share = settings.random_items / (settings.top_items + settings.random_items)
  return batches.draw_published_pairs(rows_key, tables, size, share)


def make_loss_fn(
    cfg: config.Config,
    model: towers.TwoTower,
    tables: tables_lib.Tables,
    mesh: parallel.Mesh,
) -> LossFn:
  """Returns (params, batch_stats, tables, step) -> (loss, (stats, metrics))."""
  rates = effective_rates(cfg.dropout, tables)
  make = _block_loss if cfg.objective.pairing == 'blocks' else _pair_loss

  def loss_fn(
      params: Any, batch_stats: Any, tables: tables_lib.Tables, step: jax.Array
  ) -> tuple[jax.Array, tuple[Any, Metrics]]:
    key = jax.random.fold_in(jax.random.key(cfg.train.seed), step)
    dropout = cfg.dropout
    factor = input_dropout.share_of_rates(
        step, dropout.schedule, dropout.ramp_steps, dropout.start_share
    )
    scaled = jax.tree.map(lambda rate: rate * factor, rates)
    embed = functools.partial(_embed, model, params)
    terms, stats = make(cfg, embed, batch_stats, tables, key, scaled, mesh)
    loss = objective.total(cfg.objective, terms)
    metrics = {f'loss/{name}': value for name, value in terms.items()}
    return loss, (stats, {'loss/total': loss} | metrics)

  return loss_fn


def _embed(
    model: towers.TwoTower,
    params: Any,
    stats: Any,
    method: str,
    preference: input_dropout.Preference,
    content: jax.Array,
) -> tuple[Any, Any]:
  """One tower in training mode: (embedding, new batch statistics)."""
  variables = {'params': params, 'batch_stats': stats}
  embedding, updated = model.apply(
      variables,
      preference,
      content,
      train=True,
      method=method,
      mutable=['batch_stats'],
  )
  return embedding, updated.get('batch_stats', stats)


def _block_loss(
    cfg: config.Config,
    embed: Callable[..., Any],
    stats: Any,
    tables: tables_lib.Tables,
    key: jax.Array,
    rates: Rates,
    mesh: parallel.Mesh,
) -> tuple[Metrics, Any]:
  """Every user and item of a block embedded once, all pairs scored."""
  _, user_key, item_key = jax.random.split(key, 3)
  block = parallel.split_rows(draw_batch(cfg, tables, key), mesh)
  user = objective.preference(tables.user, block.user)
  item = objective.preference(tables.item, block.item)
  user_history, item_history = user, item
  if cfg.dropout.uses_history:
    likes = batches.block_likes(
        tables.user_history, block, len(tables.item.present)
    ).astype(jnp.float32)
    user_history = objective.history_preference(
        tables.user,
        block.user,
        likes @ tables.item.factors[block.item],
        jnp.sum(likes, axis=1).astype(jnp.int32),
    )
    item_history = objective.history_preference(
        tables.item,
        block.item,
        likes.T @ tables.user.factors[block.user],
        jnp.sum(likes, axis=0).astype(jnp.int32),
    )
  user_state = input_dropout.draw_states(user_key, len(block.user), rates.user)
  item_state = input_dropout.draw_states(item_key, len(block.item), rates.item)
  user_emb, stats = embed(
      stats,
      'embed_users',
      input_dropout.apply_states(user, user_history, user_state),
      tables.user.content[block.user],
  )
  item_emb, stats = embed(
      stats,
      'embed_items',
      input_dropout.apply_states(item, item_history, item_state),
      tables.item.content[block.item],
  )
  # Items travel once per step, [I, R]; each device scores its own users.
  item_emb = parallel.gather_rows(item_emb, mesh)
  terms = objective.block_terms(
      cfg.objective,
      user_emb,
      item_emb,
      tables.user.factors[block.user],
      tables.item.factors[block.item],
      dtype=jnp.dtype(cfg.model.dtype),
  )
  return terms, stats


def _pair_loss(
    cfg: config.Config,
    embed: Callable[..., Any],
    stats: Any,
    tables: tables_lib.Tables,
    key: jax.Array,
    rates: Rates,
    mesh: parallel.Mesh,
) -> tuple[Metrics, Any]:
  """Single pairs from the published distribution."""
  _, user_key, item_key = jax.random.split(key, 3)
  pairs = parallel.split_rows(draw_batch(cfg, tables, key), mesh)
  user = objective.preference(tables.user, pairs.user)
  item = objective.preference(tables.item, pairs.item)
  user_factors = tables.user.factors[pairs.user]
  item_factors = tables.item.factors[pairs.item]
  user_history, item_history = user, item
  if cfg.dropout.uses_history:
    liked = batches.pair_likes(tables.user_history, pairs)
    left = liked[:, None].astype(jnp.float32)
    count = liked.astype(jnp.int32)
    user_history = objective.history_preference(
        tables.user, pairs.user, left * item_factors, count
    )
    item_history = objective.history_preference(
        tables.item, pairs.item, left * user_factors, count
    )
  if cfg.dropout.kind == 'exclusive':
    user_state, item_state = input_dropout.draw_pair_states(
        user_key, len(pairs.user), rates.pair
    )
  else:
    user_state = input_dropout.draw_states(
        user_key, len(pairs.user), rates.user
    )
    item_state = input_dropout.draw_states(
        item_key, len(pairs.item), rates.item
    )
  user_emb, stats = embed(
      stats,
      'embed_users',
      input_dropout.apply_states(user, user_history, user_state),
      tables.user.content[pairs.user],
  )
  item_emb, stats = embed(
      stats,
      'embed_items',
      input_dropout.apply_states(item, item_history, item_state),
      tables.item.content[pairs.item],
  )
  terms = objective.pair_terms(user_emb, item_emb, user_factors, item_factors)
  return terms, stats


def make_train_steps(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    settings: config.TrainConfig,
) -> Callable[..., tuple[state_lib.TrainState, Metrics]]:
  """Returns jitted (state, tables, count) -> (state, metrics).

  `count` steps (traced, at most train.steps_per_dispatch: one program for any
  number) run in one call; `state` is donated. Metrics are float32
  [steps_per_dispatch] ([num_steps] if those are fewer); entries from the number
  of steps done on are NaN. After a non-finite loss no further step runs and
  state.step stays at the bad step.

  A while loop and not a scan: its number of rounds is traced, so that cut and
  resumed dispatches share the program of whole ones, and it ends at a bad step
  instead of computing on. Its one lack, reverse-mode gradients through the
  loop, is not needed here.
  """
  size = min(settings.steps_per_dispatch, settings.num_steps)

  def one_step(
      state: state_lib.TrainState, tables: tables_lib.Tables
  ) -> tuple[state_lib.TrainState, Metrics]:
    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
    (_, (stats, metrics)), grads = grad_fn(
        state.params, state.batch_stats, tables, state.step
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    new = state_lib.TrainState(
        step=state.step + 1,
        params=params,
        batch_stats=stats,
        opt_state=opt_state,
        ema_params=state.ema_params,
        ema_batch_stats=state.ema_batch_stats,
    )
    new = new.average(settings.ema) if settings.ema else new
    metrics['gradient_norm'] = optax.tree.norm(grads)
    return new, metrics

  def train_steps(
      state: state_lib.TrainState, tables: tables_lib.Tables, count: jax.Array
  ) -> tuple[state_lib.TrainState, Metrics]:
    empty = {name: jnp.full((size,), jnp.nan) for name in METRIC_NAMES}

    def go_on(carry: Any) -> jax.Array:
      _, _, done, finite = carry
      return (done < count) & finite

    def body(carry: Any) -> Any:
      state, metrics, done, _ = carry
      new, values = one_step(state, tables)
      finite = jnp.isfinite(values['loss/total'])
      finite &= jnp.isfinite(values['gradient_norm'])
      state = jax.tree.map(
          lambda old, new: jnp.where(finite, new, old), state, new
      )
      metrics = {
          name: metrics[name].at[done].set(values[name])
          for name in METRIC_NAMES
      }
      return state, metrics, done + 1, finite

    carry = (state, empty, jnp.int32(0), jnp.bool_(True))
    state, metrics, _, _ = jax.lax.while_loop(go_on, body, carry)
    return state, metrics

  return jax.jit(train_steps, donate_argnums=0)
