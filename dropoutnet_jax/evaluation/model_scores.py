# SPDX-License-Identifier: Apache-2.0
"""Embeddings of whole tables, and the model as a method of the tables.

Rows that are cold in training are embedded as they are at serving: their
preference is absent because training never gave them one, not because the
evaluation takes it away.
"""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from dropoutnet_jax import parallel
from dropoutnet_jax import table_shards
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.evaluation import sparse_part
from dropoutnet_jax.evaluation import split_methods
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.model import tower_inputs
from dropoutnet_jax.model import towers
from dropoutnet_jax.model import trust

_ROWS = 2048  # embedded at once, at most


def make_embed(
    model: towers.TwoTower, method: str
) -> Callable[[Any, tables_lib.SideTable, jax.Array], jax.Array]:
  """Returns jitted (variables, side, rows [B]) -> dense embeddings [B, R]."""

  @jax.jit
  def embed(
      variables: Any, side: tables_lib.SideTable, rows: jax.Array
  ) -> jax.Array:
    content = tower_inputs.content(side, rows)

    def in_state(state: int) -> jax.Array:
      preference = trust.preference(side, rows, state)
      with jax.default_matmul_precision('highest'):
        embedding: Any = model.apply(
            variables, preference, content, method=method
        )
      return embedding.dense

    return trust.blended(in_state, side, rows, model.settings.normalize)

  return embed


class Embedder:
  """Embeds rows of both sides in chunks of one compiled size for each table.

  With a mesh it takes variables and tables that lie there, split or not, and
  the devices share the rows of a chunk; without one, those of a single device.
  Where the mesh has devices of several processes, all of them must call it.

  Attributes:
    split: embeds to where scores are made, of a mesh; else None.
    has_model: whether `model` is what embeds, and not an export of it.
  """

  has_model = True

  def __init__(self, model: towers.TwoTower, mesh: parallel.Mesh | None = None):
    self.model, self._mesh = model, mesh
    self._embed = {
        side: make_embed(model, f'embed_{side}s') for side in ('user', 'item')
    }
    self.split = None
    if mesh is not None:
      self.split = split_methods.SplitEmbedder(self._embed, mesh)

  def __call__(
      self,
      side: str,
      variables: Any,
      table: tables_lib.SideTable,
      rows: np.ndarray,
  ) -> np.ndarray:
    """Dense embeddings float32 [N, R] of rows [N] of 'user' or 'item'."""
    parts = [*self.blocks(side, variables, table, rows)]
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)

  def blocks(
      self,
      side: str,
      variables: Any,
      table: tables_lib.SideTable,
      rows: np.ndarray,
  ) -> Iterator[np.ndarray]:
    """The same, some rows after the others."""
    size = _ROWS
    if self._mesh is None:  # a small table needs no large chunks
      size = max(min(_ROWS, len(table.present)), 1)
    for begin in range(0, len(rows), size):
      part = rows[begin : begin + size]
      padded = np.concatenate([part, np.zeros(size - len(part), part.dtype)])
      placed = table_shards.spread(padded, self._mesh)
      dense = self._embed[side](variables, table, placed)
      if self._mesh is not None and self._mesh.is_multi_process:
        dense = parallel.local(dense)
      yield np.asarray(dense)[: len(part)]


@dataclasses.dataclass(frozen=True)
class Scorer:
  """A trained model: all that its scores depend on.

  On one process; or, where the rows of its tables are split over the devices of
  several, on all of them, which must then do the same with it.

  Attributes:
    embedder: of the towers.
    variables: their parameters and statistics.
    tables: content and preference of the rows.
    sparse: the sparse part, or None for towers alone.
    content: csr_array float32 [I, T], sparse content of the items.
    tower_weight: of the towers beside the sparse part.
  """

  embedder: Embedder
  variables: Any
  tables: tables_lib.Tables
  sparse: sparse_part.SparsePart | None = None
  content: scipy.sparse.csr_array | None = None
  tower_weight: float = 1.0

  def methods(self) -> dict[str, protocol.Method]:
    """'model', the whole embedding; and 'tower' where that is only a part."""
    if self.sparse is None:
      return {'model': self.score_towers}
    return {'model': self.score_whole, 'tower': self.score_towers}

  def score_towers(
      self, quadrant: str, held_out: schema.EvaluationSet
  ) -> protocol.ScoreFn:
    """The towers alone, as a `protocol.Method`: one dense dot product."""
    del quadrant
    if self.embedder.split is not None:
      return split_methods.towers(
          self.embedder.split, self.variables, self.tables, held_out.candidates
      )
    across = jnp.asarray(self._embed_items(held_out.candidates))
    users, emb = self._embed_users(held_out)

    def score_rows(rows: np.ndarray) -> jax.Array:
      user = jnp.asarray(emb[np.searchsorted(users, rows)])
      return embeddings.dense_scores(user, across)

    return score_rows

  def score_whole(
      self, quadrant: str, held_out: schema.EvaluationSet
  ) -> protocol.ScoreFn:
    """Sparse part, its correction and the towers, as a `protocol.Method`."""
    del quadrant
    part, content, weight = self.sparse, self.content, self.tower_weight
    assert part is not None and content is not None
    candidates = held_out.candidates
    if self.embedder.split is not None:
      return split_methods.whole(
          self.embedder.split,
          self.variables,
          self.tables,
          candidates,
          part,
          content,
          weight,
      )
    items = part.embed_items(
        candidates, content[candidates], self._embed_items(candidates)
    )
    users, emb = self._embed_users(held_out)
    score = jax.jit(embeddings.score)

    def score_rows(rows: np.ndarray) -> jax.Array:
      tower = emb[np.searchsorted(users, rows)]
      return score(part.embed_users(rows, tower, content, weight), items)

    return score_rows

  def with_told(
      self, side: str, rows: np.ndarray, told: tables_lib.Told
  ) -> 'Scorer':
    """The same model where rows [C] of a side were told of this [C].

    Features of their preference stay as they are: none of cold rows.
    """
    table: Any = getattr(self.tables, side)
    trusted = table.trust
    if trusted is None:
      trusted = np.ones(len(table.present), np.float32)
      if self.embedder.split is not None:
        trusted = parallel.put(trusted, table.present.sharding)
    set_rows = table_shards.with_rows
    table = table.replace(
        preference=set_rows(table.preference, rows, told.preference),
        present=set_rows(table.present, rows, told.present),
        trust=set_rows(trusted, rows, told.trust),
    )
    tables = dataclasses.replace(self.tables, **{side: table})
    return dataclasses.replace(self, tables=tables)

  def with_reactions(
      self, side: str, rows: np.ndarray, number: np.ndarray
  ) -> 'Scorer':
    """The same model where rows [C] have so many more reactions [C], now."""
    table: Any = getattr(self.tables, side)
    told = table
    if table.counts is not None:
      placed = table.counts
      if self.embedder.split is not None:  # a few numbers of each row
        told = table.replace(counts=parallel.local(placed))
      told = told.with_reactions(rows, number)
      if self.embedder.split is not None:
        put = lambda x, like: parallel.put(x, like.sharding)
        counts = jax.tree.map(put, told.counts, placed)
        told = told.replace(counts=counts)
    tables = dataclasses.replace(self.tables, **{side: told})
    return dataclasses.replace(self, tables=tables)

  def with_histories(
      self,
      rows: np.ndarray,
      histories: scipy.sparse.csr_array,
      user_content: np.ndarray,
  ) -> 'Scorer':
    """The same model where users [C] have other histories [C, I].

    They count in the sparse part alone, as they are: the towers see
    preferences. What content [C, D], dense, lets expect of them comes to it.
    """
    if self.sparse is None or self.content is None:
      return self
    part = self.sparse.with_histories(
        rows, histories, self.content, user_content
    )
    return dataclasses.replace(self, sparse=part)

  def with_item_likes(
      self, rows: np.ndarray, likes: scipy.sparse.csr_array
  ) -> 'Scorer':
    """The same model where items [C] have these likes [C, U].

    They count in the teacher's columns alone, as `with_histories`.
    """
    if self.sparse is None or self.sparse.teacher is None:
      return self
    part = self.sparse.with_item_likes(rows, likes)
    return dataclasses.replace(self, sparse=part)

  def all_embeddings(self) -> dict[str, np.ndarray]:
    """Dense embeddings of all users and all items: float32 [N, R] each."""
    return {
        side: np.concatenate([*self.blocks_of_embeddings(side)])
        for side in ('user', 'item')
    }

  def blocks_of_embeddings(self, side: str) -> Iterator[np.ndarray]:
    """Those of all users or items, some after the others."""
    table = getattr(self.tables, side)
    rows = np.arange(len(table.present))
    return self.embedder.blocks(side, self.variables, table, rows)

  def _embed_items(self, rows: np.ndarray) -> np.ndarray:
    return self.embedder('item', self.variables, self.tables.item, rows)

  def _embed_users(
      self, held_out: schema.EvaluationSet
  ) -> tuple[np.ndarray, np.ndarray]:
    """The set's users, ascending, and their dense embeddings."""
    users = np.unique(held_out.user)
    emb = self.embedder('user', self.variables, self.tables.user, users)
    return users, emb
