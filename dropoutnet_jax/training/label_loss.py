# SPDX-License-Identifier: Apache-2.0
"""The loss of a batch of labelled rows: what is drawn, embedded and compared.

A batch may need items beside those of its rows: a sample of the catalogue, and
what users were shown in vain. The item tower embeds all of them at once, so
that they share the statistics of batch norm.
"""

from collections.abc import Callable
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from dropoutnet_jax import config
from dropoutnet_jax import parallel
from dropoutnet_jax.data import batches
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.model import batch_softmax
from dropoutnet_jax.model import effective_rows
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.model import label_objective
from dropoutnet_jax.model import objective
from dropoutnet_jax.model import objective_params
from dropoutnet_jax.training import step_batch

Metrics = dict[str, jax.Array]
# (rows, further items) -> (embeddings of the rows' users, of their items and
# then of the further ones, batch statistics).
EmbedRows = Callable[
    [tables_lib.LabelledRows, jax.Array | None], tuple[Any, Any, Any]
]
# Apart from what others make of the key of a step.
_SHIFTS = 3
# Up to so many pairs of a batch, a byte each, there is one mask of all; of more
# it is made chunk by chunk, twice in a step, which takes longer.
_MASKED_PAIRS = 2**24


def label_loss(
    cfg: config.Config,
    embed: EmbedRows,
    rows: tables_lib.LabelledRows,
    tables: tables_lib.Tables,
    logit: objective_params.Logit,
    key: jax.Array,
    mesh: parallel.Mesh | None,
) -> tuple[Metrics, Metrics, Any]:
  """Terms, how many rows each is a mean over, and batch statistics.

  Args:
    cfg: the experiment.
    embed: both towers in training mode.
    rows: the batch.
    tables: that the rows are of.
    logit: how scores become logits.
    key: of the step.
    mesh: that the rows are split over.
  """
  if len(rows.user) % parallel.num_parts(mesh):
    mesh = None  # every device has all rows
  across = rows
  rows = parallel.split_rows(rows, mesh)
  more = step_batch.draw_more(cfg.objective, tables, rows, key)
  user_emb, item_emb, stats = embed(rows, more.flat())
  batch = _make_batch(
      cfg.objective,
      tables,
      (rows, across),
      more,
      user_emb.dense,
      item_emb.dense,
      mesh,
  )
  terms = label_objective.label_terms(
      cfg.objective,
      logit,
      batch,
      jax.random.fold_in(key, _SHIFTS),
      functools.partial(parallel.over_rows, mesh=mesh),
  )
  values = terms.value
  if cfg.objective.teacher:
    values |= objective.pair_terms(
        user_emb,
        embeddings.Embedding(item_emb.dense[: len(rows.user)]),
        tables.user.factors[rows.user],
        tables.item.factors[rows.item],
        rows.weight,
    )
    terms.rows['teacher'] = effective_rows.pointwise(rows.weight)
  return values, terms.rows, stats


def _make_batch(
    settings: config.ObjectiveConfig,
    tables: tables_lib.Tables,
    both: tuple[tables_lib.LabelledRows, tables_lib.LabelledRows],
    more: step_batch.More,
    user: jax.Array,
    item: jax.Array,
    mesh: parallel.Mesh | None,
) -> label_objective.Batch:
  """What the terms compare.

  Args:
    settings: of the objective.
    tables: that the rows are of.
    both: B of them, split over the mesh and whole on each device.
    more: further items.
    user: [B, R], embeddings of the rows' users.
    item: [B + B * M + S, R], of their items, then of `more.flat()`.
    mesh: that the rows are split over.
  """
  (rows, whole), size = both, len(user)
  shown = sampled = history = None
  known: jax.Array | batches.Places | None = None
  end = len(item) - settings.num_sampled
  if more.shown is not None and more.is_real is not None:
    emb = item[size:end].reshape(*more.shown.shape, -1)
    shown = label_objective.Shown(parallel.split_rows(emb, mesh), more.is_real)
  if more.sampled is not None:
    assert tables.popularity is not None
    # Expected occurrences per row of the batch, as log_frequency has them.
    share = math.log(settings.num_sampled / size)
    sampled = batch_softmax.Sampled(
        parallel.gather_rows(item[end:], mesh),
        more.sampled,
        tables.popularity.log_probability[more.sampled] + share,
    )
  own = parallel.split_rows(item[:size], mesh)
  if settings.mask_known:
    history = tables.user_history[rows.user]
    if settings.in_batch_softmax:
      items = [whole.item] + ([] if sampled is None else [sampled.item_id])
      places = batches.places(
          history,
          parallel.gather_rows(jnp.concatenate(items), mesh),
          len(tables.item.present),
      )
      few = len(places.liked) * len(places.first) <= _MASKED_PAIRS
      known = places.likes() if few else places
    if tables.user_bits is not None:
      history = tables.user_bits[rows.user]
  return label_objective.Batch(
      user,
      own,
      rows,
      tables.log_frequency[rows.item],
      history,
      known,
      sampled,
      shown,
      # Items travel once per step, [B, R] and [S, R]; each device scores its
      # own users.
      label_objective.Across(
          parallel.gather_rows(own, mesh),
          whole,
          tables.log_frequency[whole.item],
      ),
  )
