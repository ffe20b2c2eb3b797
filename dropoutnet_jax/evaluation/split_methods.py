# SPDX-License-Identifier: Apache-2.0
"""A model as a method of the tables whose rows no device has all of.

Embeddings of the candidates are made and stay on the devices, split over
'model'; users come chunk by chunk, split over 'data'. A device has scores of
its own users for its own candidates alone.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from dropoutnet_jax import parallel
from dropoutnet_jax import table_shards as shards
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.evaluation import sparse_part
from dropoutnet_jax.evaluation import split_scores
from dropoutnet_jax.model import embeddings

_ROWS = 2048  # embedded at once, at most, on all devices together
# (variables, table, rows [B]) -> dense embeddings [B, R], inside jit.
_Embed = Callable[[Any, tables_lib.SideTable, jax.Array], jax.Array]


class SplitEmbedder:
  """Embeds users and candidates to where their scores will be."""

  def __init__(self, embed: dict[str, _Embed], mesh: parallel.Mesh):
    self.mesh = mesh
    self._users = shards.laid_out(embed['user'], shards.USERS, mesh)
    self._candidates = shards.embed_candidates(embed['item'], mesh)

  def users(
      self, variables: Any, table: tables_lib.SideTable, rows: np.ndarray
  ) -> jax.Array:
    """float32 [C + padding, R] of users [C]."""
    missing = -len(rows) % self.mesh.size
    padded = np.concatenate([rows, np.repeat(rows[:1], missing)])
    return self._users(variables, table, shards.spread(padded, self.mesh))

  def candidates(
      self, variables: Any, table: tables_lib.SideTable, rows: np.ndarray
  ) -> jax.Array:
    """float32 [I + padding, R] of items [I]."""
    num_parts = shards.num_parts(shards.CANDIDATES, self.mesh)
    per_part = shards.num_parts(shards.USERS, self.mesh)
    share = -(-len(rows) // num_parts)
    num_chunks = max(1, -(-share * num_parts // _ROWS))
    size = max(1, -(-share // (num_chunks * per_part))) * per_part
    padded = np.zeros((num_parts * num_chunks * size), np.int32)
    padded[: len(rows)] = rows
    chunks = padded.reshape(num_parts, num_chunks, size).swapaxes(0, 1)
    return self._candidates(variables, table, np.ascontiguousarray(chunks))


def towers(
    embedder: SplitEmbedder,
    variables: Any,
    tables: tables_lib.Tables,
    candidates: np.ndarray,
) -> protocol.ScoreFn:
  """Scores of the towers alone for item rows [I]."""
  items = embedder.candidates(variables, tables.item, candidates)
  mesh = embedder.mesh

  def score_rows(rows: np.ndarray) -> split_scores.SplitScores:
    user = embedder.users(variables, tables.user, rows)
    values = _score(
        embeddings.Embedding(user), embeddings.Embedding(items), mesh
    )
    return split_scores.SplitScores(values, (len(rows), len(candidates)), mesh)

  return score_rows


def whole(
    embedder: SplitEmbedder,
    variables: Any,
    tables: tables_lib.Tables,
    candidates: np.ndarray,
    part: sparse_part.SparsePart,
    content: scipy.sparse.csr_array,
    tower_weight: float,
) -> protocol.ScoreFn:
  """Scores of sparse part, its correction and the towers, for item rows [I]."""
  mesh = embedder.mesh
  towers = embedder.candidates(variables, tables.item, candidates)
  items = _joined(
      *part.item_rows(candidates, content[candidates]),
      towers,
      1.0,
      shards.CANDIDATES,
      mesh,
  )

  def score_rows(rows: np.ndarray) -> split_scores.SplitScores:
    tower = embedder.users(variables, tables.user, rows)
    user = _joined(
        *part.user_rows(rows, content), tower, tower_weight, shards.USERS, mesh
    )
    values = _score(user, items, mesh)
    return split_scores.SplitScores(values, (len(rows), len(candidates)), mesh)

  return score_rows


def _joined(
    dense: np.ndarray,
    sparse: scipy.sparse.csr_array,
    tower: jax.Array,
    tower_weight: float,
    spec: Any,
    mesh: parallel.Mesh,
) -> embeddings.Embedding:
  """One embedding of what is on the host and the tower's [N + padding, R].

  The nonzeros of the sparse rows are those of each device: [devices, Z].
  """
  size = len(tower)
  dense = np.pad(dense, ((0, size - len(dense)), (0, 0)))
  share = size // shards.num_parts(spec, mesh)
  parts = [sparse[n : n + share] for n in range(0, size, share)]
  capacity = max(part.nnz for part in parts)
  padded = [embeddings.padded_rows(part, share, capacity) for part in parts]
  row, column, value = (
      shards.put_parts(np.stack(x), spec, mesh) for x in zip(*padded)
  )
  weight = np.float32(tower_weight)
  return embeddings.Embedding(
      _beside(shards.put_parts(dense, spec, mesh), tower, weight),
      embeddings.SparseRows(row, column, value, share, sparse.shape[1]),
  )


@jax.jit
def _beside(dense: jax.Array, tower: jax.Array, weight: float) -> jax.Array:
  return jnp.concatenate([dense, weight * tower], axis=1)


@functools.partial(jax.jit, static_argnames='mesh')
def _score(
    user: embeddings.Embedding, item: embeddings.Embedding, mesh: parallel.Mesh
) -> jax.Array:
  """Scores as `shards.SCORES`; nothing travels."""

  def own(user: embeddings.Embedding, item: embeddings.Embedding) -> jax.Array:
    return embeddings.score(_of_device(user), _of_device(item))

  return shards.on_parts(
      own, mesh, (shards.USERS, shards.CANDIDATES), shards.SCORES
  )(user, item)


def _of_device(emb: embeddings.Embedding) -> embeddings.Embedding:
  sparse = jax.tree.map(lambda x: x[0], emb.sparse)
  return embeddings.Embedding(emb.dense, sparse)
