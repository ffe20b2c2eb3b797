# SPDX-License-Identifier: Apache-2.0
"""Indexes of embeddings, of a run's items, or from a folder.

index = factory.build('hnsw', ids, model.embed_items(rows))
index = factory.of_run('exact', model)
index = factory.load('runs/shop/index')
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from dropoutnet_jax.model import embeddings
from dropoutnet_jax.serving import rows as rows_lib
from dropoutnet_jax.serving.index import index_files
from dropoutnet_jax.serving.index import item_index
from dropoutnet_jax.serving.index import names as names_lib
from dropoutnet_jax.serving.index import nearest as nearest_lib
from dropoutnet_jax.serving.index import options as options_lib
from dropoutnet_jax.serving.index import protocol
from dropoutnet_jax.serving.index import store as store_lib
from dropoutnet_jax.serving.index import vectors


class Ranker(Protocol):
  """What `of_run` needs of a trained run."""

  def users(self) -> rows_lib.Rows:
    """All users of the run."""

  def items(self) -> rows_lib.Rows:
    """All items of the run."""

  def embed_users(self, users: rows_lib.Rows) -> embeddings.Embedding:
    """Embeddings of users."""

  def embed_items(self, items: rows_lib.Rows) -> embeddings.Embedding:
    """Embeddings of items."""


def build(
    kind: str,
    ids: Sequence[protocol.Id] | np.ndarray,
    embedding: protocol.Embedded,
    options: options_lib.Options | None = None,
    *,
    queries: protocol.Embedded | None = None,
) -> item_index.ItemIndex:
  """An index of items, and for an approximate one its recall.

  Args:
    kind: of `options.KINDS`.
    ids: N, distinct; all whole numbers or all strings.
    embedding: of N items; N may be 0.
    options: of the approximate kinds; None: the defaults.
    queries: users whose lists recall is measured on; None: some of the items
      stand for users.

  Raises:
    UserError: for an unknown kind, ids that are repeated or of two kinds,
      values that are not finite, or FAISS missing.
  """
  options_lib.check_kind(kind)
  options = options or options_lib.Options()
  items = vectors.of(embedding, 'the items')
  names = names_lib.array(ids)
  names_lib.check_number(names, len(items))
  store = store_lib.Store(names, items)
  if kind == 'exact':
    return item_index.ItemIndex(kind, options, store)
  nearest_lib.load_faiss()
  if not len(items):
    return item_index.ItemIndex(kind, options, store)
  nearest = nearest_lib.make(kind, options, store.snapshot.items)
  made = item_index.ItemIndex(kind, options, store, nearest)
  users = None if queries is None else vectors.of(queries, 'the queries')
  made.measure_recall(users)
  return made


def of_run(
    kind: str,
    model: Ranker,
    rows: rows_lib.Rows | None = None,
    options: options_lib.Options | None = None,
) -> item_index.ItemIndex:
  """An index of items of a run, all of them if none are named.

  Recall is measured on users of the run, drawn at random.
  """
  options = options or options_lib.Options()
  rows = model.items() if rows is None else rows
  queries = some_users(kind, model, options)
  embedding = model.embed_items(rows)
  return build(kind, rows.ids, embedding, options, queries=queries)


def some_users(
    kind: str, model: Ranker, options: options_lib.Options
) -> embeddings.Embedding | None:
  """Users of a run on whom recall is measured; None where it is not."""
  if kind == 'exact' or not options.recall_queries:
    return None
  users = model.users()
  number = min(options.recall_queries, len(users))
  rng = np.random.default_rng(0)
  sample = np.sort(rng.choice(len(users), number, replace=False))
  return model.embed_users(users.select(sample))


def load(folder: str) -> item_index.ItemIndex:
  """What `save` wrote into a folder.

  Raises:
    UserError: if there is no index, or it is damaged; see `index_files.load`.
  """
  saved = index_files.load(folder)
  kept = saved.snapshot
  store = store_lib.Store(kept.ids, kept.items, kept.alive)
  return item_index.ItemIndex(
      saved.kind, saved.options, store, saved.nearest, saved.recall
  )
