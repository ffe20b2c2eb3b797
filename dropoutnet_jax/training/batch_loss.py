# SPDX-License-Identifier: Apache-2.0
"""The loss of the batch of a step, before it is compiled into a train step.

A pure function of (parameters, tables, step): the batch, its dropout states and
all other randomness come from fold_in(key(seed), step).
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dropoutnet_jax import config
from dropoutnet_jax import parallel
from dropoutnet_jax.data import batches
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.model import embedding_penalty
from dropoutnet_jax.model import embedding_rows
from dropoutnet_jax.model import input_dropout
from dropoutnet_jax.model import kernel_penalty
from dropoutnet_jax.model import objective
from dropoutnet_jax.model import objective_params
from dropoutnet_jax.model import statistics
from dropoutnet_jax.model import tower_inputs
from dropoutnet_jax.model import towers
from dropoutnet_jax.training import dropout_rates
from dropoutnet_jax.training import label_loss
from dropoutnet_jax.training import step_batch

# Apart from what others make of the key of a step.
_LONE_ITEMS = 6
Metrics = dict[str, jax.Array]
LossFn = Callable[..., tuple[jax.Array, tuple[Any, Metrics]]]


def metric_names(cfg: config.Config) -> tuple[str, ...]:
  """Metrics of one step, in their order in the log."""
  terms = cfg.objective.terms()
  counted = []
  if cfg.objective.pairing == 'interactions':
    counted = [f'rows/{name}' for name in terms]
  if cfg.objective.embedding_regularization:
    terms += ('embedding_regularization',)
  if cfg.objective.kernel_regularization:
    terms += ('kernel_regularization',)
  return (
      'loss/total',
      *(f'loss/{name}' for name in terms),
      *counted,
      *objective_params.metric_names(cfg),
      'gradient_norm',
  )


def make_loss_fn(
    cfg: config.Config,
    model: towers.TwoTower,
    tables: tables_lib.Tables,
    mesh: parallel.Mesh,
) -> LossFn:
  """Returns (params, batch_stats, tables, step) -> (loss, (stats, metrics)).

  The function has a fifth argument, `ids`: by name of a table of embeddings,
  which of its rows are there in place of all of them (`touched_rows`).
  """
  rates = dropout_rates.effective_rates(cfg.dropout, tables)
  settings = cfg.objective

  def loss_fn(
      params: Any,
      batch_stats: Any,
      tables: tables_lib.Tables,
      step: jax.Array,
      ids: Mapping[str, jax.Array] | None = None,
  ) -> tuple[jax.Array, tuple[Any, Metrics]]:
    key = step_batch.step_key(cfg, step)
    dropout = cfg.dropout
    factor = input_dropout.share_of_rates(
        step, dropout.schedule, dropout.ramp_steps, dropout.start_share
    )
    scaled = jax.tree.map(lambda rate: rate * factor, rates)
    embed = functools.partial(_embed, model, params, ids)
    given = (cfg, embed, batch_stats, tables, key, scaled)
    logit = objective_params.logit(cfg, params)
    # Drawn whole on each device, lest parts of what is drawn from travel.
    drawn = parallel.gather_rows(
        step_batch.batch_of_step(cfg, tables, step), mesh
    )
    batch = parallel.split_rows(drawn, mesh)
    if settings.pairing == 'interactions':
      terms, rows, stats = label_loss.label_loss(
          cfg,
          functools.partial(_embed_pairs, *given, mesh=mesh),
          drawn,
          tables,
          logit,
          key,
          mesh,
      )
    elif settings.pairing == 'blocks':
      terms, rows, stats = _block_loss(*given, drawn, mesh)
    else:
      terms, rows, stats = _pair_loss(*given, batch)
    metrics = {f'loss/{name}': value for name, value in terms.items()}
    metrics |= {f'rows/{name}': count for name, count in rows.items()}
    metrics |= objective_params.describe(logit)
    if settings.learn_weights:
      loss, weights = objective_params.total(settings, terms, rows, params)
      metrics |= weights
    else:
      loss = objective.total(settings, terms)
    if settings.embedding_regularization:
      embedded = embedding_rows.of_params(params, ids)
      penalty = _embedding_penalty(cfg, embedded, tables, batch)
      metrics['loss/embedding_regularization'] = penalty
      loss += settings.embedding_regularization * penalty
    if settings.kernel_regularization:
      penalty = kernel_penalty.penalty(params)
      metrics['loss/kernel_regularization'] = penalty
      loss += settings.kernel_regularization * penalty
    return loss, (stats, {'loss/total': loss} | metrics)

  return loss_fn


def _embedding_penalty(
    cfg: config.Config,
    embedded: Mapping[str, embedding_rows.Rows],
    tables: tables_lib.Tables,
    batch: batches.Block | batches.Pairs | tables_lib.LabelledRows,
) -> jax.Array:
  """L2 of what the batch looks up, whether input dropout takes it or not."""
  tokens = tower_inputs.all_tokens(tables.user, batch.user)
  tokens += tower_inputs.all_tokens(tables.item, batch.item)
  return embedding_penalty.penalty(
      embedded,
      tokens,
      cfg.objective.embedding_regularization_by,
      getattr(batch, 'is_real', None),
  )


def _embed(
    model: towers.TwoTower,
    params: Any,
    ids: Mapping[str, jax.Array] | None,
    stats: Any,
    method: str,
    preference: input_dropout.Preference,
    content: tower_inputs.Content,
) -> tuple[Any, Any]:
  """One tower in training mode: (embedding, new batch statistics)."""
  variables = {'params': params, 'batch_stats': stats}
  if ids:
    variables['rows'] = {'embeddings': ids}
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
    rates: dropout_rates.Rates,
    drawn: batches.Block,
    mesh: parallel.Mesh,
) -> tuple[Metrics, Metrics, Any]:
  """Every user and item of a block embedded once, all pairs scored."""
  block = parallel.split_rows(drawn, mesh)
  # Users are split, and each device has all items of theirs.
  pairs = batches.Block(block.user, drawn.item)
  _, user_key, item_key = jax.random.split(key, 3)
  user = objective.preference(tables.user, block.user)
  item = objective.preference(tables.item, block.item)
  user_history, item_history = user, item
  if cfg.dropout.uses_history:
    likes = batches.block_likes(
        tables.user_history, pairs, len(tables.item.present)
    ).astype(jnp.float32)
    user_history = objective.history_preference(
        tables.user,
        block.user,
        likes @ tables.item.factors[pairs.item],
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
  user_counted, item_counted = statistics.without_block(tables, pairs)
  user_emb, item_emb, stats = _embed_sides(
      cfg,
      embed,
      stats,
      tables,
      rates,
      _Rows(block.user, user, user_history, user_state, user_counted),
      _Rows(block.item, item, item_history, item_state, item_counted),
  )
  # Items travel once per step, [I, R]; each device scores its own users.
  item_emb = parallel.gather_rows(item_emb, mesh)
  terms = objective.block_terms(
      cfg.objective,
      user_emb,
      item_emb,
      tables.user.factors[block.user],
      tables.item.factors[pairs.item],
      dtype=jnp.dtype(cfg.model.dtype),
  )
  return terms, {}, stats


def _pair_loss(
    cfg: config.Config,
    embed: Callable[..., Any],
    stats: Any,
    tables: tables_lib.Tables,
    key: jax.Array,
    rates: dropout_rates.Rates,
    pairs: batches.Pairs,
) -> tuple[Metrics, Metrics, Any]:
  """Single pairs from the published distribution."""
  user_emb, item_emb, stats = _embed_pairs(
      cfg, embed, stats, tables, key, rates, pairs
  )
  terms = objective.pair_terms(
      user_emb,
      item_emb,
      tables.user.factors[pairs.user],
      tables.item.factors[pairs.item],
  )
  return terms, {}, stats


def _embed_pairs(
    cfg: config.Config,
    embed: Callable[..., Any],
    stats: Any,
    tables: tables_lib.Tables,
    key: jax.Array,
    rates: dropout_rates.Rates,
    pairs: batches.Pairs | tables_lib.LabelledRows,
    more: jax.Array | None = None,
    mesh: parallel.Mesh | None = None,
) -> tuple[Any, Any, Any]:
  """Embeddings of the users and items of pairs, and batch statistics.

  Behind the items of the B pairs come those of `more`, int32 [E], which belong
  to no pair; their rows are split over the mesh together.
  """
  _, user_key, item_key = jax.random.split(key, 3)
  items, padding = pairs.item, 0
  if more is not None:
    items, padding = jnp.concatenate([items, more]), len(more)
    items = parallel.split_rows(items, mesh)
  user = objective.preference(tables.user, pairs.user)
  item = objective.preference(tables.item, items)
  user_history, item_history = user, item
  are_histories = cfg.features.preference == 'history'
  if cfg.dropout.uses_history or are_histories:
    liked = batches.pair_likes(tables.user_history, pairs)
    left = liked[:, None].astype(jnp.float32)
    count = liked.astype(jnp.int32)
    user_history = objective.history_preference(
        tables.user, pairs.user, left * tables.item.factors[pairs.item], count
    )
    # Numbers and not vectors are padded: rows stay on their device.
    of_item = lambda x: jnp.pad(x, (0, padding))
    left = of_item(liked)[:, None].astype(jnp.float32)
    item_history = objective.history_preference(
        tables.item,
        items,
        left * tables.user.factors[of_item(pairs.user)],
        of_item(count),
    )
  if are_histories:  # as they are, they would know the pair
    user, item = user_history, item_history
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
  if more is not None:
    lone_state = _draw_lone_items(cfg, key, padding, rates)
    item_state = jnp.concatenate([item_state, lone_state])
  user_counted, item_counted = statistics.without_pairs(tables, pairs)
  return _embed_sides(
      cfg,
      embed,
      stats,
      tables,
      rates,
      _Rows(pairs.user, user, user_history, user_state, user_counted),
      _Rows(items, item, item_history, item_state, item_counted),
  )


def _draw_lone_items(
    cfg: config.Config,
    key: jax.Array,
    num_items: int,
    rates: dropout_rates.Rates,
) -> jax.Array:
  """Dropout states of items that belong to no pair: int32 [num_items]."""
  item = rates.item
  if cfg.dropout.kind == 'exclusive':
    pair = rates.pair
    item = input_dropout.Rates(
        pair.drop_item + pair.drop_both, pair.item_transform
    )
  key = jax.random.fold_in(key, _LONE_ITEMS)
  return input_dropout.draw_states(key, num_items, item)


class _Rows(NamedTuple):
  """Rows of one side, with all that `tower_inputs.preference` joins."""

  rows: jax.Array
  own: input_dropout.Preference
  history: input_dropout.Preference
  state: jax.Array
  counted: input_dropout.Preference | None


def _embed_sides(
    cfg: config.Config,
    embed: Callable[..., Any],
    stats: Any,
    tables: tables_lib.Tables,
    rates: dropout_rates.Rates,
    user: _Rows,
    item: _Rows,
) -> tuple[Any, Any, Any]:
  """Embeddings of users and of items, and batch statistics."""
  found = []
  scales = dropout_rates.kept_scales(cfg.dropout, rates)
  for name, given, scale in zip(('user', 'item'), (user, item), scales):
    table = getattr(tables, name)
    seen = tower_inputs.preference(
        table,
        given.rows,
        given.own,
        given.history,
        given.state,
        scale,
        given.counted,
    )
    content = tower_inputs.content(table, given.rows)
    emb, stats = embed(stats, f'embed_{name}s', seen, content)
    found.append(emb)
  return *found, stats
