# SPDX-License-Identifier: Apache-2.0
"""Who met what beside training, of a file, for users or items as they come.

The file is held in memory, some bytes for each pair; those who are asked about
are not.
"""

import dataclasses

import numpy as np
import scipy.sparse

from dropoutnet_jax import parallel
from dropoutnet_jax.data import blocks
from dropoutnet_jax.data import own_ids
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import request_files
from dropoutnet_jax.serving import request_tables
from dropoutnet_jax.serving import rows as rows_lib

_OTHER = {'user': 'item', 'item': 'user'}


def with_likes(
    items: rows_lib.Rows,
    pairs: request_tables.Pairs,
    model: recommender_lib.Ranker,
    which: np.ndarray,
) -> rows_lib.Rows:
  """Items of distinct ids with the users of the run who like them, of a file.

  Likes of other users say nothing of an item. None need know any of them.

  Args:
    items: J.
    pairs: the file.
    model: of the run.
    which: bool [J], the items that are told.
  """
  users = model.problem.user.ids
  place = own_ids.find(pairs.item, items.ids)
  history = pairs.likes().met(
      'item',
      np.where(np.append(which, False)[place], place, -1),
      own_ids.find(pairs.user, users),
      (len(items), len(users)),
  )
  return dataclasses.replace(items, history=history)


class Told:
  """Histories of whoever comes.

  Attributes:
    pairs: the file.
  """

  def __init__(
      self,
      path: str,
      side: str,
      model: recommender_lib.Ranker,
      candidates: np.ndarray | None = None,
  ):
    """Reads a file of pairs.

    Args:
      path: of a table of pairs; where it has labels, those above 0 are likes,
        and the others are met without being part of a history.
      side: 'user' or 'item', of those who will come.
      model: of the run.
      candidates: ids [J] of the other side, of which `met` is asked beside.

    Raises:
      UserError: for what is wrong with the file, or if it knows none of the
        other side.
    """
    pairs = request_files.read_pairs(path, model)
    self.pairs, other = pairs, _OTHER[side]
    self._side, self._own, self._model = side, getattr(pairs, side), model
    run_ids = getattr(model.problem, other).ids
    column = getattr(pairs, other)
    row = own_ids.find(column, run_ids)
    is_known = row >= 0
    number = len(self._own.found.values)
    every = np.arange(number)
    self._history = pairs.likes().met(side, every, row, (number, len(run_ids)))
    self._met = None
    if candidates is not None:
      place = own_ids.find(column, candidates)
      is_known |= place >= 0
      # Also what was shown without a like is known to the user.
      shape = (number, len(candidates))
      self._met = pairs.met(side, every, place, shape)
    self._item_notes = request_files.check_known(
        column, is_known, f'the {other}s of the run'
    )
    self._is_found = np.zeros(number, bool)
    self._whose = f'the {side}s that are asked about'
    self._has_pairs = np.zeros(0, np.float32)
    if side == 'user':
      is_trained = model.is_trained(model.items())
      self._has_pairs = is_trained.astype(np.float32)
    self._told = self._bare = 0

  def add(
      self, rows: rows_lib.Rows
  ) -> tuple[rows_lib.Rows, scipy.sparse.csr_array | None]:
    """Rows [N] with their histories, and the candidates that each has met.

    Returns:
      The rows; and csr_array [N, J] of 1s, or None without candidates.
    """
    distinct, place = np.unique(rows.ids, return_inverse=True)
    code = np.full(len(distinct), -1)
    found = own_ids.find(self._own, distinct)
    known = np.flatnonzero(found >= 0)
    code[found[known]] = known
    self._is_found[known] = True
    mine = code[place]
    history = blocks.take_rows(self._history, mine)
    if len(self._has_pairs):
      has_any = np.diff(history.indptr) > 0
      self._told += int(has_any.sum())
      self._bare += int(np.sum(has_any & (history @ self._has_pairs == 0)))
    met = None if self._met is None else blocks.take_rows(self._met, mine)
    return dataclasses.replace(rows, history=history), met

  def tell(self, others: rows_lib.Rows) -> None:
    """Counts who likes some of these, whose histories say so, as found."""
    assert others.history is not None
    ids = getattr(self._model.problem, self._side).ids
    is_telling = np.zeros(len(ids) + 1, bool)
    is_telling[others.history.indices] = True
    row = own_ids.find(self._own, ids)
    self._is_found |= is_telling[row]
    self._whose += ' or tells of a candidate'

  def check(self) -> list[str]:
    """Notes on what is left out, when all have come, on all processes.

    Raises:
      UserError: if the file tells of nobody.
    """
    is_found = parallel.anywhere_each(self._is_found)
    notes = request_files.check_known(self._own, is_found, self._whose)
    notes += self._item_notes
    bare, told = parallel.total(self._bare), parallel.total(self._told)
    if bare:
      notes.append(
          f'{self._own.table.name()}: the histories of {bare:,} of '
          f'{told:,} {self._side}(s) have no item with training pairs, '
          'so nothing is learnt from them.'
      )
    return notes
