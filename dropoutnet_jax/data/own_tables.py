# SPDX-License-Identifier: Apache-2.0
"""A user's own tables as a data set: pairs, users, items; or flat samples.

Ids that a given side table lacks become rows without content: a user or item
that is known by its interactions alone is what preference is for. What was
merged, added or left out is said in notes.
"""

from collections.abc import Sequence
import contextlib
import dataclasses

import numpy as np
import pyarrow as pa

from dropoutnet_jax import config_data
from dropoutnet_jax import errors
from dropoutnet_jax.data import arrow_columns
from dropoutnet_jax.data import arrow_values
from dropoutnet_jax.data import likes
from dropoutnet_jax.data import own_ids
from dropoutnet_jax.data import own_pairs
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import table_files

_EXAMPLES = 3
_SIDES = ('user', 'item')


@dataclasses.dataclass(frozen=True, eq=False)
class Side:
  """Ids of users or items, and the rows that describe them.

  Attributes:
    ids: all of them.
    row: int32 [N], of each interaction.
    table: that holds their columns, or None.
    pick: int64 [ids], row of the table that describes each; -1 for none.
    names: of the columns.
    notes: sentences.
  """

  ids: pa.Array
  row: np.ndarray
  table: table_files.Table | None
  pick: np.ndarray
  names: tuple[str, ...]
  notes: tuple[str, ...] = ()


def load(
    settings: config_data.TablesConfig, folder: str | None
) -> schema.Dataset:
  """Reads the tables.

  Args:
    settings: paths, names of columns, formats; validated.
    folder: in which relative paths start; None for the current one.

  Returns:
    Users and items in the order of their tables, then those without a row
    there; without a table all in the order of their ids. `interactions` has
    the pairs with a label above 0 (see own_pairs.merge_likes), `impressions`
    every row if there are labels.

  Raises:
    UserError: for what is wrong with the tables, saying where.
  """
  pairs = table_files.read(own_pairs.make_source(settings), settings, folder)
  join = _join_side if settings.interactions else _number_side
  user, item = (join(pairs, side, settings, folder) for side in _SIDES)
  rows, notes = own_pairs.read(pairs, settings, user.row, item.row)
  samples = None
  if settings.samples:
    samples = _make_samples(user, item, rows, settings)
    every = np.ones(len(rows), bool)
    user, item = (
        _with_changes(_pick_latest(part, rows.time, every), name)
        for part, name in ((user, 'user'), (item, 'item'))
    )
  check_lists(settings, (*user.names, *item.names))
  users, user_notes = to_entities(user, 'user', settings)
  items, item_notes = to_entities(item, 'item', settings)
  interactions, repeats = own_pairs.merge_likes(rows, len(items), pairs.name())
  notes += [*user_notes, *item_notes, *repeats]
  notes += likes.describe_gaps(interactions, len(users), len(items))
  return schema.Dataset(
      'tables',
      users,
      items,
      interactions,
      notes=tuple(notes),
      impressions=None if rows.label is None else rows,
      samples=samples,
  )


def changed_since(
    settings: config_data.TablesConfig, folder: str | None, seconds: float
) -> list[str]:
  """Files that were written later than a time, in seconds since 1970.

  Those that are gone, or on another machine, are not told of.
  """
  found = []
  for field in ('samples', 'interactions', 'users', 'items'):
    pattern = getattr(settings, field)
    if pattern:
      source = table_files.Source(pattern, f'config.data.tables.{field}', {})
      with contextlib.suppress(errors.UserError, OSError):
        found += table_files.changed_since(source, folder, seconds)
  return found


def _join_side(
    pairs: table_files.Table,
    side: str,
    settings: config_data.TablesConfig,
    folder: str | None,
) -> Side:
  """Ids of one side of the interactions, and its table where there is one."""
  found = own_ids.read(pairs, getattr(settings, f'{side}_id'))
  return join_side(found, side, settings, folder)


def join_side(
    found: own_ids.IdColumn,
    side: str,
    settings: config_data.TablesConfig,
    folder: str | None,
) -> Side:
  """Joins the ids of one side with its table, where there is one.

  Args:
    found: ids of the interactions.
    side: 'user' or 'item'.
    settings: of the tables.
    folder: in which relative paths start.

  Raises:
    UserError: for what is wrong with the table or its ids.
  """
  pairs, name = found.table, found.name
  path = getattr(settings, f'{side}s')
  if not path:
    (found,) = own_ids.agree([found])
    ids, row, _ = own_ids.join(found, None)
    return Side(ids, row, None, np.full(len(ids), -1), ())
  source = table_files.Source(
      path,
      f'config.data.tables.{side}s',
      {name: f'config.data.tables.{side}_id'},
      optional=None,
      header=getattr(settings, f'{side}s_header'),
  )
  table = table_files.read(source, settings, folder)
  known = own_ids.read(table, name)
  own_ids.check_distinct(known)
  found, known = own_ids.agree([found, known])
  ids, row, num_new = own_ids.join(found, known)
  pick = np.arange(len(ids))
  pick[len(table) :] = -1
  names = tuple(other for other in table.names if other != name)
  notes = []
  if num_new:
    shown = ids[len(table) : len(table) + _EXAMPLES].to_pylist()
    notes.append(
        f'{num_new:,} {side}(s) of {pairs.name()} are not in {table.name()} '
        f'and have no content, such as {", ".join(map(str, shown))}.'
    )
  return Side(ids, row, table, pick, names, tuple(notes))


def _number_side(
    pairs: table_files.Table,
    side: str,
    settings: config_data.TablesConfig,
    folder: str | None,
) -> Side:
  """Ids of one side of samples; which row describes them comes with times."""
  del folder  # there is no other table
  (found,) = own_ids.agree(
      [own_ids.read(pairs, getattr(settings, f'{side}_id'))]
  )
  ids, row, _ = own_ids.join(found, None)
  names = getattr(settings, f'{side}_columns')
  return Side(ids, row, pairs, np.zeros(len(ids), np.int64), names)


def _make_samples(
    user: Side,
    item: Side,
    rows: schema.Interactions,
    settings: config_data.TablesConfig,
) -> schema.Samples:
  """Samples that describe their users and items anew for each split."""

  def describe(first: np.ndarray) -> tuple[schema.Entities, schema.Entities]:
    users, items = (
        to_entities(_pick_latest(part, rows.time, first), name, settings)[0]
        for part, name in ((user, 'user'), (item, 'item'))
    )
    return users, items

  return schema.Samples(rows, describe)


def _pick_latest(
    part: Side, time: np.ndarray | None, first: np.ndarray
) -> Side:
  """Lets the latest sample of each id describe it; the last without times.

  Args:
    part: one side of samples.
    time: int64 [N], or None.
    first: bool [N], samples that go before all others.
  """
  order = np.arange(len(first))
  order = np.lexsort((order if time is None else time, first))
  pick = np.zeros(len(part.ids), np.int64)
  pick[part.row[order]] = order  # of several, NumPy keeps the last
  return dataclasses.replace(part, pick=pick)


def _with_changes(part: Side, side: str) -> Side:
  """One side of samples with a note on columns that differ between them."""
  pick, row = part.pick, part.row
  changing = []
  for name in part.names:
    column = part.table.data.column(name)  # type: ignore[union-attr]
    if pa.types.is_nested(column.type):
      continue
    codes = arrow_values.encode(column).codes
    if (codes != codes[pick[row]]).any():
      changing.append(name)
  notes: tuple[str, ...] = ()
  if changing:
    notes = (
        f'{", ".join(changing)} of one {side} differ between samples; the '
        'latest one counts (without times the last), of training where there '
        'is one.',
    )
  return dataclasses.replace(part, notes=notes)


def check_lists(
    settings: config_data.TablesConfig, names: Sequence[str]
) -> None:
  """Refuses names of list columns that neither side has."""
  for field in config_data.LIST_COLUMNS:
    for name in getattr(settings, field):
      if name not in names:
        raise errors.UserError(
            f'config.data.tables.{field} names {name!r}, which is no column of '
            f'users or items.{table_files.nearest(name, names)} Columns are: '
            f'{table_files.listed(names)}.'
        )


def to_entities(
    part: Side, side: str, settings: config_data.TablesConfig
) -> tuple[schema.Entities, list[str]]:
  """Ids and columns as everything after the reader takes them."""
  columns: dict[str, schema.Column] = {}
  notes, left_out = list(part.notes), {}
  rows = pa.array(part.pick, mask=part.pick < 0)
  in_order = np.array_equal(part.pick, np.arange(len(part.table or ())))
  for name in part.names:
    assert part.table is not None
    column = part.table.data.column(name)
    if not in_order:
      column = column.take(rows)
    try:
      read, remark = arrow_columns.to_column(
          column, name, settings, part.table.is_text
      )
    except arrow_values.ColumnError as error:
      place = part.table.name()
      if error.row is not None:
        place = part.table.place(int(part.pick[error.row]))
      raise errors.UserError(
          f'{place}: {name}: {error}. Correct it, or take the column out of '
          f'{_named_in(name, settings)}.'
      ) from error
    if read is not None:
      columns[name] = read
    else:
      left_out[name] = remark
    if remark:
      what = '' if read is not None else ' is left out'
      notes.append(f'Column {name!r} of {side}s{what}: {remark}.')
  ids = own_ids.to_numpy(part.ids)
  id_name = getattr(settings, f'{side}_id')
  advice = ''
  if settings.samples:
    advice = (
        f'Columns of samples are named in config.data.tables.{side}_columns.'
    )
  return schema.Entities(ids, columns, id_name, left_out, advice), notes


def _named_in(name: str, settings: config_data.TablesConfig) -> str:
  """The field that says what the lists of a column are, for messages."""
  for field in config_data.LIST_COLUMNS:
    if name in getattr(settings, field):
      return f'config.data.tables.{field}'
  return 'the table'
