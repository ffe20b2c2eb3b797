# SPDX-License-Identifier: Apache-2.0
"""Users and items that are asked about, as the tables that the towers read.

A row of the run has its content and preference of the training; a new one what
the run's encoders make of its columns. What somebody has met beyond training
becomes preference on both sides alike: of a user the items, of an item the
users who met it.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import NamedTuple

import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import fold_in
from dropoutnet_jax.data import blocks
from dropoutnet_jax.data import column_types
from dropoutnet_jax.data import features
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.serving import rows as rows_lib
from dropoutnet_jax.serving import told_preference
from dropoutnet_jax.training import resident


class Known(NamedTuple):
  """What is known of N users or items.

  Attributes:
    table: what the towers read, of NumPy arrays.
    sparse: csr_array float32 [N, T], their sparse content.
    more: csr_array float32 [N, M], 1 where their histories have a pair that is
      none of training; None where no history has any.
    whole: csr_array float32 [N, M], of the rows with more all that they met,
      in training too; else None.
  """

  table: tables_lib.SideTable
  sparse: scipy.sparse.csr_array
  more: scipy.sparse.csr_array | None
  whole: scipy.sparse.csr_array | None


@dataclasses.dataclass(frozen=True, eq=False)
class RowTables:
  """A run, as far as it says what is known of rows.

  Attributes:
    cfg: its configuration.
    problem: its data.
    tables: of its rows.
    encoders: fitted, of 'user' and 'item'.
    likes: csr_array [U, I], its training pairs with their weights.
  """

  cfg: config.Config
  problem: problem_lib.Problem
  tables: tables_lib.Tables
  encoders: Mapping[str, features.Encoder]
  likes: scipy.sparse.csr_array

  @functools.cached_property
  def _liked_by(self) -> scipy.sparse.csr_array:
    return self.likes.T.tocsr()

  def training_pairs(
      self, side: str, row: np.ndarray
  ) -> scipy.sparse.csr_array:
    """What rows [C] of 'user' or 'item' met in training: [C, M]; -1 nothing."""
    pairs = self.likes if side == 'user' else self._liked_by
    return blocks.take_rows(pairs, row)

  def is_new(self, side: str, row: np.ndarray) -> np.ndarray:
    """bool [C], of which rows [C] training had no pairs; -1 is new."""
    return np.diff(self.training_pairs(side, row).indptr) == 0

  def read(self, side: str, rows: rows_lib.Rows) -> Known:
    """All that is known of users or items, old and new."""
    own = getattr(self.tables, side)
    table = own.select(rows.preference_row())
    if rows.forgotten is not None:
      whole = own.select(rows.row)
      table = dataclasses.replace(
          table, content=whole.content, tokens=whole.tokens
      )
    is_read = rows.is_read()
    sparse = blocks.take_rows(
        getattr(self.problem, side).sparse, np.where(is_read, -1, rows.row)
    )
    read = np.flatnonzero(is_read)
    if rows.entities is not None and len(read):
      encoder = self.encoders[side]
      entities = column_types.select(rows.entities, read)
      content = encoder.transform(column_types.fill(entities, encoder.columns))
      table = resident.with_content(self.cfg, table, read, content)
      place = np.full(len(rows), -1)
      place[read] = np.arange(len(read))
      sparse = sparse + blocks.take_rows(content.sparse, place)
    more, whole = self._beyond_training(side, rows), None
    if more is not None:
      whole = self._whole(side, rows, more)
      table = self._with_preference(side, rows, table, whole)
      number = np.diff(more.indptr)
      table = table.with_reactions(np.arange(len(rows)), number)
    return Known(table, scipy.sparse.csr_array(sparse), more, whole)

  def preference(
      self,
      side: str,
      histories: scipy.sparse.csr_array,
      is_new: np.ndarray,
  ) -> tables_lib.Told:
    """As `told_preference.preference`, quick for few rows."""
    fold = None
    if told_preference.can_fold_in(self.cfg):
      fold = self._user_fold if side == 'user' else self._item_fold
    return told_preference.preference(
        self.cfg, self.problem, self.tables, side, histories, is_new, fold
    )

  @functools.cached_property
  def _user_fold(self) -> fold_in.FoldIn:
    return fold_in.make(self.problem.factors.item, self.cfg.teacher)

  @functools.cached_property
  def _item_fold(self) -> fold_in.FoldIn:
    return fold_in.make(self.problem.factors.user, self.cfg.teacher)

  def _beyond_training(
      self, side: str, rows: rows_lib.Rows
  ) -> scipy.sparse.csr_array | None:
    """The part of the histories that is no training pair: [N, M]."""
    if rows.history is None or not rows.history.nnz:
      return None
    trained = blocks.pattern(self.training_pairs(side, rows.preference_row()))
    told = blocks.pattern(rows.history)
    more = scipy.sparse.csr_array(told - told.multiply(trained))
    more.eliminate_zeros()
    return more if more.nnz else None

  def _whole(
      self, side: str, rows: rows_lib.Rows, more: scipy.sparse.csr_array
  ) -> scipy.sparse.csr_array:
    """All pairs [N, M] of the rows that have more than training knew."""
    has_more = np.diff(more.indptr) > 0
    trained = self.training_pairs(
        side, np.where(has_more, rows.preference_row(), -1)
    )
    return rows_lib.joined(trained, more)

  def _with_preference(
      self,
      side: str,
      rows: rows_lib.Rows,
      table: tables_lib.SideTable,
      whole: scipy.sparse.csr_array,
  ) -> tables_lib.SideTable:
    """The table of rows [N] that have pairs [N, M], told and of training.

    Features of their preference stay as they are: none of new rows.
    """
    if self.cfg.features.preference == 'none':
      return table
    is_told = np.diff(whole.indptr) > 0
    if self.cfg.features.preference == 'factors' and (
        not told_preference.can_fold_in(self.cfg)
    ):
      is_told &= ~table.present  # factors say more than a mean
    told = np.flatnonzero(is_told)
    if not len(told):
      return table
    row = rows.preference_row()[told]
    histories = scipy.sparse.csr_array(whole[told])
    found = self.preference(side, histories, self.is_new(side, row))
    return table.with_told(told, found)
