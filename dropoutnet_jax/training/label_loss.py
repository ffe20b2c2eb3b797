# SPDX-License-Identifier: Apache-2.0
"""The loss of a batch of labelled rows."""

from collections.abc import Callable
from typing import Any

import jax

from dropoutnet_jax import config
from dropoutnet_jax import parallel
from dropoutnet_jax.data import batches
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.model import label_objective
from dropoutnet_jax.model import objective

Metrics = dict[str, jax.Array]
# Rows -> (embeddings of their users, of their items, batch statistics).
EmbedRows = Callable[[tables_lib.LabelledRows], tuple[Any, Any, Any]]


def label_loss(
    cfg: config.Config,
    embed: EmbedRows,
    rows: tables_lib.LabelledRows,
    tables: tables_lib.Tables,
    key: jax.Array,
    mesh: parallel.Mesh,
) -> tuple[Metrics, Metrics, Any]:
  """Terms, what else is logged, and batch statistics.

  The items of the batch are each other's negatives.

  Args:
    cfg: the experiment.
    embed: both towers in training mode.
    rows: the batch.
    tables: that the rows are of.
    key: of the step.
    mesh: that the rows are split over.
  """
  settings = cfg.objective
  rows = parallel.split_rows(rows, mesh)
  user_emb, item_emb, stats = embed(rows)
  # Items travel once per step, [B, R]; each device scores its own users.
  across = parallel.gather_rows(item_emb.dense, mesh)
  history = known = None
  if settings.mask_known:
    history = tables.user_history[rows.user]
    if settings.in_batch_softmax:
      known = batches.batch_likes(
          history,
          parallel.gather_rows(rows.item, mesh),
          len(tables.item.present),
      )
  terms = label_objective.label_terms(
      settings,
      user_emb.dense,
      across,
      rows,
      history,
      known,
      tables.log_frequency[rows.item],
      jax.random.fold_in(key, 3),  # apart from the keys of the split
  )
  metrics = {f'rows/{name}': count for name, count in terms.rows.items()}
  values = terms.value
  if settings.teacher:
    values |= objective.pair_terms(
        user_emb,
        item_emb,
        tables.user.factors[rows.user],
        tables.item.factors[rows.item],
    )
  return values, metrics, stats
