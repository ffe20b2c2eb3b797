# SPDX-License-Identifier: Apache-2.0
"""Files of somebody who asks for lists: users, items, and who met what.

They are written as the tables that the run was trained on: the same names of
columns, the same separators. What their columns mean is in `request_tables.py`.
What is missing or left out is said in notes, each once.
"""

import numpy as np

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
