# SPDX-License-Identifier: Apache-2.0
"""Embeddings of whole tables, and the model as a method of the tables.

Rows that are cold in training are embedded as they are at serving: their
preference is absent because training never gave them one, not because the
evaluation takes it away.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from dropoutnet_jax.data import schema
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.evaluation import sparse_part
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.model import input_dropout
from dropoutnet_jax.model import towers

_ROWS = 2048  # embedded at once; one compiled program per side


def make_embed(
    model: towers.TwoTower, method: str
) -> Callable[[Any, tables_lib.SideTable, jax.Array], jax.Array]:
  """Returns jitted (variables, side, rows [B]) -> dense embeddings [B, R]."""

  @jax.jit
  def embed(
      variables: Any, side: tables_lib.SideTable, rows: jax.Array
  ) -> jax.Array:
    own = input_dropout.Preference(side.preference[rows], side.present[rows])
    state = jnp.full(rows.shape, input_dropout.AS_IS)
    preference = input_dropout.apply_states(own, own, state)
    content = side.content[rows]
    with jax.default_matmul_precision('highest'):
      embedding: Any = model.apply(
          variables, preference, content, method=method
      )
    return embedding.dense

  return embed


class Embedder:
  """Embeds rows of both sides in chunks of one compiled size."""

  def __init__(self, model: towers.TwoTower):
    self._embed = {
        side: make_embed(model, f'embed_{side}s') for side in ('user', 'item')
    }

  def __call__(
      self,
      side: str,
      variables: Any,
      table: tables_lib.SideTable,
      rows: np.ndarray,
  ) -> np.ndarray:
    """Dense embeddings float32 [N, R] of rows [N] of 'user' or 'item'."""
    parts = []
    for begin in range(0, len(rows), _ROWS):
      part = rows[begin : begin + _ROWS]
      padded = np.concatenate([part, np.zeros(_ROWS - len(part), part.dtype)])
      dense = self._embed[side](variables, table, jnp.asarray(padded))
      parts.append(np.asarray(dense)[: len(part)])
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def make_tower_method(
    embedder: Embedder, variables: Any, tables: tables_lib.Tables
) -> protocol.Method:
  """The towers alone: one dense dot product."""

  def method(quadrant: str, held_out: schema.EvaluationSet) -> protocol.ScoreFn:
    del quadrant
    items = embedder('item', variables, tables.item, held_out.candidates)
    users, emb = _embed_users(embedder, variables, tables, held_out)
    across = jnp.asarray(items)

    def score_rows(rows: np.ndarray) -> jax.Array:
      user = jnp.asarray(emb[np.searchsorted(users, rows)])
      return embeddings.dense_scores(user, across)

    return score_rows

  return method


def make_sparse_method(
    embedder: Embedder,
    variables: Any,
    tables: tables_lib.Tables,
    part: sparse_part.SparsePart,
    content: scipy.sparse.csr_array,
    tower_weight: float,
) -> protocol.Method:
  """The whole embedding: sparse part, its correction and the towers."""
  score = jax.jit(embeddings.score)

  def method(quadrant: str, held_out: schema.EvaluationSet) -> protocol.ScoreFn:
    del quadrant
    candidates = held_out.candidates
    items = part.embed_items(
        content[candidates],
        embedder('item', variables, tables.item, candidates),
    )
    users, emb = _embed_users(embedder, variables, tables, held_out)

    def score_rows(rows: np.ndarray) -> jax.Array:
      tower = emb[np.searchsorted(users, rows)]
      user = part.embed_users(rows, tower, content, tower_weight)
      return score(user, items)

    return score_rows

  return method


def _embed_users(
    embedder: Embedder,
    variables: Any,
    tables: tables_lib.Tables,
    held_out: schema.EvaluationSet,
) -> tuple[np.ndarray, np.ndarray]:
  """The set's users, ascending, and their dense embeddings."""
  users = np.unique(held_out.user)
  return users, embedder('user', variables, tables.user, users)
