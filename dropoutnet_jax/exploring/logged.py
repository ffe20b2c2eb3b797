# SPDX-License-Identifier: Apache-2.0
"""A log of slates: a file in, rows of users and items out.

Columns are user_id, item_id, rank (from 1), propensity and reward, and slate
where a user has more than one: whatever tells her slates apart. Every value
that cannot be meant is refused with its row. Users may be missing, as in the
log of a service that is asked about nobody in particular.
"""

from collections.abc import Callable
import dataclasses

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc

from dropoutnet_jax import config_data
from dropoutnet_jax import errors
from dropoutnet_jax.data import arrow_values
from dropoutnet_jax.data import own_ids
from dropoutnet_jax.data import table_files

COLUMNS = ('user_id', 'item_id', 'rank', 'propensity', 'reward')
SLATE = 'slate'
_EXAMPLES = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
  """N places of slates.

  Attributes:
    user: int64 [N], rows of the run; -1 for users that it does not know, and
      where the log names nobody.
    item: int64 [N], likewise.
    slate: int64 [N], from 0.
    rank: int64 [N], from 1.
    propensity: float64 [N], in (0, 1].
    reward: float64 [N].
    notes: what the run does not know, one sentence each.
  """

  user: np.ndarray
  item: np.ndarray
  slate: np.ndarray
  rank: np.ndarray
  propensity: np.ndarray
  reward: np.ndarray
  notes: tuple[str, ...]


def read(path: str, users: np.ndarray, items: np.ndarray) -> Rows:
  """Reads a log.

  Args:
    path: a file, folder, glob or URL.
    users: int64 or str [U], ids of the run.
    items: int64 or str [I], likewise.

  Raises:
    UserError: if nothing is there, a column or a value is missing or out of
      range (of users all of them), a place is filled twice or with an item
      again, or the run knows none of the users or none of the items.
  """
  source = table_files.Source(
      path, '--logged', dict.fromkeys(COLUMNS, 'every log'), (SLATE,)
  )
  table = table_files.read(source, config_data.TablesConfig(), None)
  named, is_nobody = _without_nobody(table)
  user, item = own_ids.read(named, 'user_id'), own_ids.read(table, 'item_id')
  number = lambda name, is_good, must: _numbers(table, name, is_good, must)
  rank = number(
      'rank', lambda x: (x >= 1) & (x == np.floor(x)), 'a whole number from 1'
  )
  propensity = number(
      'propensity',
      lambda x: (x > 0) & (x <= 1),
      'the chance with which the item was shown, above 0 and at most 1',
  )
  reward = number('reward', np.isfinite, 'a number')
  slate = user.found.codes
  if SLATE in table.data.column_names:
    column = own_ids.read(table, SLATE)
    pair = slate * len(column.found.values) + column.found.codes
    slate = np.unique(pair, return_inverse=True)[1]
  named_rows = np.flatnonzero(~is_nobody)
  _check_distinct(table, slate, rank, named_rows, 'rank')
  _check_distinct(table, slate, item.found.codes, named_rows, 'item_id')
  notes = []
  if is_nobody.any():
    notes.append(
        f'{table.name()}: {is_nobody.sum():,} row(s) without user_id are left '
        'out: what was shown to somebody who is not named cannot be judged.'
    )
  rows = []
  for column, ids in ((user, users), (item, items)):
    place = own_ids.find(column, ids)
    notes += _describe_unknown(table, column, place, is_nobody)
    rows.append(place[column.found.codes])
  return Rows(
      np.where(is_nobody, -1, rows[0]),
      rows[1],
      slate,
      rank.astype(np.int64),
      propensity,
      reward,
      tuple(notes),
  )


def _without_nobody(
    table: table_files.Table,
) -> tuple[table_files.Table, np.ndarray]:
  """The table with some id in all rows, and where it had none: bool [N].

  A service logs slates of users without id too, of whom it was told content.

  Raises:
    UserError: if no row has one.
  """
  column = table.data.column('user_id')
  if pa.types.is_dictionary(column.type):
    column = column.cast(column.type.value_type)
  missing = np.asarray(column.is_null(nan_is_null=True), bool)
  if arrow_values.is_string(column.type):
    missing |= np.asarray(pc.equal(column, '').fill_null(True), bool)
  if missing.all():
    raise errors.UserError(
        f'{table.name()}: no row has a user_id. A log is judged by what the '
        'run knows of its users; name them.'
    )
  if missing.any():
    somebody = column[int(np.argmin(missing))]
    column = pc.if_else(pa.array(missing), somebody, column)
    place = table.data.column_names.index('user_id')
    data = table.data.set_column(place, 'user_id', column)
    table = dataclasses.replace(table, data=data)
  return table, missing


def _numbers(
    table: table_files.Table,
    name: str,
    is_good: Callable[[np.ndarray], np.ndarray],
    must: str,
) -> np.ndarray:
  """A column of numbers, float64 [N], each of them good."""
  try:
    values = arrow_values.to_numbers(table.data.column(name))
  except arrow_values.ColumnError as error:
    place = table.name() if error.row is None else table.place(error.row)
    raise errors.UserError(
        f'{place}: {name}: {error}; it must be {must}. Correct the log.'
    ) from error
  bad = ~(np.isfinite(values) & is_good(values))
  if bad.any():
    row = int(np.argmax(bad))
    is_missing = np.isnan(values[row])
    found = 'missing' if is_missing else f'{values[row]:.6g}'
    raise errors.UserError(
        f'{table.place(row)}: {name} is {found}, as in {bad.sum():,} of '
        f'{len(bad):,} rows; it must be {must}. Correct the log.'
    )
  return values


def _check_distinct(
    table: table_files.Table,
    slate: np.ndarray,
    value: np.ndarray,
    rows: np.ndarray,
    name: str,
) -> None:
  """Raises UserError if these rows fill a place twice, or with an item again.

  Slates that are not told apart look like that, and weights of places would be
  wrong: what has been in a slate can't come again.
  """
  order = rows[np.lexsort((value[rows], slate[rows]))]
  same = np.diff(slate[order]) == 0
  same &= np.diff(value[order]) == 0
  if not same.any():
    return
  at = int(np.argmax(same))
  first, second = sorted((int(order[at]), int(order[at + 1])))
  has_slates = SLATE in table.data.column_names
  advice = (
      'Keep one row for each place.'
      if has_slates
      else f'If it is of several slates, tell them apart by a column {SLATE!r}.'
  )
  what = 'place(s) are filled twice'
  if name == 'item_id':
    what = 'place(s) show an item again, which a slate does not'
  raise errors.UserError(
      f'{table.place(first)} and {table.place(second)} are of the same user, '
      f'{f"slate and {name}" if has_slates else f"and of the same {name}"}; '
      f'{same.sum():,} {what}. {advice}'
  )


def _describe_unknown(
    table: table_files.Table,
    column: own_ids.IdColumn,
    place: np.ndarray,
    is_nobody: np.ndarray,
) -> list[str]:
  """A note on ids that the run does not know.

  Raises:
    UserError: if it knows none.
  """
  unknown = np.flatnonzero(place < 0)
  if not len(unknown):
    return []
  shown = [str(column.found.values[int(n)].as_py()) for n in unknown]
  which = f'such as {", ".join(shown[:_EXAMPLES])}'
  if len(unknown) == len(place):
    raise errors.UserError(
        f'{table.name()}: the run knows no {column.name} of it ({which}). Name '
        'a log of what this run, or one of the same data, has shown.'
    )
  rows = int(np.sum((place[column.found.codes] < 0) & ~is_nobody))
  if column.name == 'item_id':
    # Left out, the others would count as if they had come more often.
    return [
        f'{table.name()}: {rows:,} row(s) show what the run does not know '
        f'({len(unknown):,} items, {which}) and would not show: they count, '
        'with weight 0.'
    ]
  return [
      f'{table.name()}: {rows:,} row(s) are left out, whose {column.name} '
      f'({len(unknown):,} of them, {which}) the run does not know.'
  ]
