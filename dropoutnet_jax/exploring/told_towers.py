# SPDX-License-Identifier: Apache-2.0
"""The towers of a trained run while histories of new rows grow.

Nothing is trained: what a new item is to the towers is the transform of
Algorithm 1, the mean of the factors of those who clicked on it and of a few
usual items (`features.history_smoothing`), trusted by and by; and likewise of a
new user. Rows of the training stay as they are.
"""

import dataclasses

import numpy as np
import scipy.sparse

from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.evaluation import model_scores

_OTHER = {'user': 'item', 'item': 'user'}


def embed(
    scorer: model_scores.Scorer, table: tables_lib.SideTable, side: str
) -> np.ndarray:
  """Tower embeddings float64 [N, R] of all rows of a table of a side."""
  rows = np.arange(len(table.present))
  found = scorer.embedder(side, scorer.variables, table, rows)
  return found.astype(np.float64)


def without_preference(table: tables_lib.SideTable) -> tables_lib.SideTable:
  """The rows as if they were new: all but their content is dropped."""
  nothing = table.select(np.full(len(table.present), -1))
  return dataclasses.replace(
      nothing, content=table.content, tokens=table.tokens
  )


class ToldTowers:
  """Embeddings of all users and items, and the tables that they come from.

  Attributes:
    users: float64 [U, R].
    items: float64 [I, R].
    clicks: float32 [U, I], 1 for what was told.
    tables: 'user' and 'item', NumPy arrays.
  """

  def __init__(self, scorer: model_scores.Scorer):
    """Embeds all rows; a sparse part is left out."""
    self._scorer = scorer
    self.tables, self._is_known, found = {}, {}, {}
    for side in ('user', 'item'):
      own = getattr(scorer.tables, side)
      table = own.select(np.arange(len(own.present)))
      self.tables[side] = table
      self._is_known[side] = table.present.copy()
      found[side] = embed(scorer, table, side)
    self.users, self.items = found['user'], found['item']
    self.clicks = np.zeros((len(self.users), len(self.items)), np.float32)

  def tell(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Adds clicks [N] to the histories of new rows.

    Returns:
      The new items among them, int [C], whose embeddings have changed.
    """
    self.clicks[user, item] = 1
    changed = {}
    for side, rows in (('user', user), ('item', item)):
      changed[side] = np.unique(rows[~self._is_known[side][rows]])
      if len(changed[side]):
        self._embed_again(side, changed[side])
    return changed['item']

  def _embed_again(self, side: str, rows: np.ndarray) -> None:
    table, other = self.tables[side], self.tables[_OTHER[side]]
    met = self.clicks if side == 'user' else self.clicks.T
    # Few sizes: each is compiled for.
    size = 1 << (len(rows) - 1).bit_length()
    padded = np.append(rows, np.full(size - len(rows), rows[0]))
    history = scipy.sparse.csr_array(met[padded])
    means = table.history_means(history, other.factors)
    table = self.tables[side] = table.with_told(padded, means)
    told = table.select(padded).with_reactions(
        np.arange(size), np.diff(history.indptr)
    )
    emb = embed(self._scorer, told, side)[: len(rows)]
    (self.users if side == 'user' else self.items)[rows] = emb
