# SPDX-License-Identifier: Apache-2.0
"""Rows of a run that are nearest to some rows: like them, or fond of them.

The rows of the run are embedded block by block, so that memory does not grow
with their number. Exact: every row is looked at.

Two items are as alike as the cosine of what scores are made of: the towers'
output and the sparse content, weighted as in the score, the content by the
share of the divisor. The correction is left out: it says what all content has
in common; and so are the second kernel and the teacher. Two users likewise; the
sparse part of theirs is that of their histories. Without a sparse part this is
the cosine of the towers' outputs.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from dropoutnet_jax.data import blocks
from dropoutnet_jax.evaluation import top_k
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import rows as rows_lib

_BLOCK = 4096  # rows of the run at a time
_QUERIES = 512  # rows that are asked about at a time
_score = jax.jit(embeddings.score)
# Rows to their embeddings, filled up to one of few sizes.
_Embed = Callable[[rows_lib.Rows], embeddings.Embedding]


def nearest(
    model: recommender_lib.Ranker,
    side: str,
    rows: rows_lib.Rows,
    k: int,
) -> tuple[np.ndarray, np.ndarray]:
  """The k rows of the run that are most like each of some rows of its side.

  Args:
    model: of the run.
    side: 'user' or 'item', of all rows.
    rows: N, old or new; nobody is its own neighbour.
    k: neighbours of each.

  Returns:
    Rows of the run int32 [N, k], best first, and cosines float32 [N, k]; -1 and
    -inf fill up where there are fewer.
  """
  every = model.users() if side == 'user' else model.items()
  embed = lambda part: _unit_vectors(model, side, part)
  own = np.where(rows.is_new(), -1, rows.row)[:, None]
  return _search(rows, every, k, embed, embed, own)


def audience(
    model: recommender_lib.Ranker,
    items: rows_lib.Rows,
    k: int,
    exclude_seen: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
  """The k users of the run with the highest scores for each of some items.

  Args:
    model: of the run.
    items: N, old or new.
    k: users of each.
    exclude_seen: whether an item gets no users who met it in training or are
      in its history.

  Returns:
    Rows of users int32 [N, k], best first, and scores float32 [N, k]; -1 and
    -inf fill up where there are fewer.
  """
  banned = np.zeros((len(items), 0), np.int32)
  if exclude_seen:
    met = blocks.pattern(model.row_tables.training_pairs('item', items.row))
    if items.history is not None:
      met = scipy.sparse.csr_array(met + items.history)
    item = np.repeat(np.arange(len(items)), np.diff(met.indptr))
    banned = top_k.exclusion_lists(item, met.indices, len(items))
  return _search(
      items,
      model.users(),
      k,
      model.candidates,
      lambda part: _embed_users(model, part),
      banned,
  )


def _search(
    queries: rows_lib.Rows,
    every: rows_lib.Rows,
    k: int,
    embed_queries: _Embed,
    embed: _Embed,
    exclude: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Numbers among `every` and scores [N, k] of the best for each query.

  Args:
    queries: N.
    every: rows to choose from; each is embedded once.
    k: of each query.
    embed_queries: embeddings of some queries, padded.
    embed: embeddings of some of `every`, padded.
    exclude: int32 [N, L], numbers that a query must not get; -1 is padding.
  """
  width = rows_lib.padded_size(exclude.shape[1])
  chunks = []
  for part in _parts(queries, _QUERIES):
    embedding = embed_queries(queries.select(part))
    banned = np.full((len(embedding.dense), width), -1, np.int32)
    banned[: part.stop - part.start, : exclude.shape[1]] = exclude[part]
    chunks.append((embedding, banned))
  best = [top_k.no_items(len(banned), k) for _, banned in chunks]
  for part in _parts(every, _BLOCK):
    block, count = embed(every.select(part)), part.stop - part.start
    for number, (embedding, banned) in enumerate(chunks):
      scores = _score(embedding, block)
      best[number] = top_k.add_block(
          best[number], scores, part.start, count, banned
      )
  score = np.full((len(queries), k), -np.inf, np.float32)
  found = np.full((len(queries), k), -1, np.int32)
  for part, (some_scores, some) in zip(_parts(queries, _QUERIES), best):
    score[part] = np.asarray(some_scores)[: part.stop - part.start]
    found[part] = np.asarray(some)[: part.stop - part.start]
  return found, score


def _parts(rows: rows_lib.Rows, size: int) -> Iterator[slice]:
  for begin in range(0, len(rows), size):
    yield slice(begin, min(begin + size, len(rows)))


def _embed_users(
    model: recommender_lib.Ranker, users: rows_lib.Rows
) -> embeddings.Embedding:
  """Their embeddings, some of them repeatedly up to a padded size."""
  rows = np.resize(np.arange(len(users)), rows_lib.padded_size(len(users)))
  return model.join_users(rows, *model.user_parts(users))


def _unit_vectors(
    model: recommender_lib.Ranker, side: str, rows: rows_lib.Rows
) -> embeddings.Embedding:
  """What similarity is the dot product of, zeros behind up to a padded size."""
  part = model.scorer.sparse
  if side == 'user':
    tower, own = model.user_parts(rows)
    sparse = None if own is None else own.history @ model.scorer.content
  else:
    known = model.row_tables.read('item', rows)
    tower, sparse = model.embed_table('item', known.table), None
    if part is not None:
      length = part.lengths.of(known.sparse)
      sparse = known.sparse.multiply(length[:, None])
  square = np.sum(tower * tower, axis=1)
  if part is not None and sparse is not None:
    tower = tower * np.float32(model.scorer.tower_weight**0.5)
    sparse = scipy.sparse.csr_array(sparse / part.correction.divisor**0.5)
    square = np.sum(tower * tower, axis=1) + sparse.power(2).sum(axis=1)
  scale = 1 / np.sqrt(np.where(square > 0, square, 1)).astype(np.float32)
  num_rows = rows_lib.padded_size(len(rows))
  dense = np.pad(tower * scale[:, None], ((0, num_rows - len(rows)), (0, 0)))
  if sparse is None:
    return embeddings.Embedding(jnp.asarray(dense))
  unit = scipy.sparse.csr_array(sparse.multiply(scale[:, None]))
  unit = unit.astype(np.float32)
  return embeddings.Embedding(
      jnp.asarray(dense), embeddings.sparse_rows(unit, num_rows)
  )
