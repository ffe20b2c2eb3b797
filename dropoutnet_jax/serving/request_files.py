# SPDX-License-Identifier: Apache-2.0
"""Files of somebody who asks for lists: users, items, and who met what.

They are written as the tables that the run was trained on: the same names of
columns, the same separators. What their columns mean is in `request_tables.py`.
What is missing or left out is said in notes, each once.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax.data import own_ids
from dropoutnet_jax.data import table_files
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import request_tables
from dropoutnet_jax.serving import rows as rows_lib

_EXAMPLES = 3


def read_rows(
    path: str, side: str, model: recommender_lib.Ranker
) -> tuple[rows_lib.Rows, list[str]]:
  """Reads the users or items that are asked about.

  Args:
    path: a file, folder, glob or URL.
    side: 'user' or 'item'.
    model: of the run.

  Returns:
    The rows in the order of the file, and notes.

  Raises:
    UserError: for what is wrong with the file, such as no column of ids, an id
      that occurs twice, or a value that is not of the run's type.
  """
  return request_tables.rows_of(read_table(path, side, model), side, model)


def read_table(
    path: str, side: str, model: recommender_lib.Ranker
) -> table_files.Table:
  """The whole table of users or items of a file.

  Raises:
    UserError: for what is wrong with the file, such as no column of ids.
  """
  how = request_tables.settings(model, side)
  return table_files.read(source(path, side, model), how, None)


def source(
    path: str, side: str, model: recommender_lib.Ranker
) -> table_files.Source:
  """A file of users or items, and the columns that are read of it."""
  tables = model.cfg.data.tables
  name = getattr(tables, f'{side}_id')
  return table_files.Source(
      path,
      f'--{side}s',
      {name: f'config.data.tables.{side}_id'},
      [other for other in model.encoders[side].columns if other != name],
      getattr(tables, f'{side}s_header'),
  )


def read_history(
    path: str,
    model: recommender_lib.Ranker,
    users: rows_lib.Rows,
    items: rows_lib.Rows,
) -> tuple[rows_lib.Rows, scipy.sparse.csr_array, list[str]]:
  """Reads who met what: histories of the users, and what they know already.

  Args:
    path: of a table of pairs; where it has labels, those above 0 are likes,
      and the others are met without being part of the history.
    model: of the run.
    users: who are asked about.
    items: the candidates.

  Returns:
    The users with their histories of items of the run; the candidates that
    they met, new ones among them, [N, J]; and notes.

  Raises:
    UserError: for what is wrong with the file, or if it knows none of the
      users or of the items.
  """
  pairs = read_pairs(path, model)
  user, item = pairs.user, pairs.item
  run_items = model.problem.item.ids
  user_place = own_ids.find(user, users.ids)
  item_row = own_ids.find(item, run_items)
  item_place = own_ids.find(item, items.ids)
  notes = []
  for column, is_known, whose in (
      (user, user_place >= 0, 'the users that are asked about'),
      (item, (item_row >= 0) | (item_place >= 0), 'the items of the run'),
  ):
    notes += check_known(column, is_known, whose)
  # Also what was shown without a like is known to the user.
  shape = (len(users), len(items))
  met = pairs.met('user', user_place, item_place, shape)
  shape = (len(users), len(run_items))
  history = pairs.likes().met('user', user_place, item_row, shape)
  notes += _describe_untrained(model, history, user.table.name())
  return dataclasses.replace(users, history=history), met, notes


def read_pairs(
    path: str, model: recommender_lib.Ranker
) -> request_tables.Pairs:
  """Reads a file of who met what.

  Raises:
    UserError: for what is wrong with the file.
  """
  tables = request_tables.pair_settings(model)
  source = table_files.Source(
      path,
      '--interactions',
      {
          tables.user_id: 'config.data.tables.user_id',
          tables.item_id: 'config.data.tables.item_id',
      },
      [tables.label] if tables.label else [],
      tables.header if tables.interactions else (),
  )
  table = table_files.read(source, tables, None)
  return request_tables.pairs_of(table, model)


def _describe_untrained(
    model: recommender_lib.Ranker,
    history: scipy.sparse.csr_array,
    name: str,
) -> list[str]:
  """A note on users whose history has no item that training knew pairs of."""
  is_trained = model.is_trained(model.items())
  has_any = np.diff(history.indptr) > 0
  bare = int(np.sum(has_any & (history @ is_trained.astype(np.float32) == 0)))
  if not bare:
    return []
  return [
      f'{name}: the histories of {bare:,} of {has_any.sum():,} user(s) have no '
      'item with training pairs, so nothing is learnt from them.'
  ]


def check_known(
    column: own_ids.IdColumn, is_known: np.ndarray, whose: str
) -> list[str]:
  """A note on ids that are left out; all of them are an error."""
  if is_known.all():
    return []
  name, values = column.table.name(), column.found.values
  unknown = np.flatnonzero(~is_known)
  shown = [str(values[int(n)].as_py()) for n in unknown[:_EXAMPLES]]
  which = f'{len(unknown):,} of them, such as {", ".join(shown)}'
  if not is_known.any():
    raise errors.UserError(
        f'{name}: no {column.name} ({which}) is among {whose}. Name a table '
        'that belongs to them.'
    )
  rows = int(np.sum(~is_known[column.found.codes]))
  return [
      f'{name}: {rows:,} row(s) are left out, whose {column.name} ({which}) is '
      f'not among {whose}.'
  ]


def describe_unknown(users: rows_lib.Rows) -> Sequence[str]:
  """A note on users of whom nothing at all is known."""
  is_bare = users.is_new()
  if users.history is not None:
    is_bare &= np.diff(users.history.indptr) == 0
  count = int(is_bare.sum())
  has_columns = users.entities is not None and users.entities.columns
  if has_columns or not count:
    return []
  return [
      f'Of {count:,} new users neither content nor history is known; they all '
      'get the same list.'
  ]
