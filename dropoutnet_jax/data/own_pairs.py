# SPDX-License-Identifier: Apache-2.0
"""What rows of a user's interactions say: labels, weights, times, sessions.

Every value that cannot be meant is refused with its row. Knows no users and
items beyond their row numbers.
"""

import dataclasses

import numpy as np
import pyarrow as pa

from dropoutnet_jax import config_data
from dropoutnet_jax import errors
from dropoutnet_jax.data import arrow_values
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import table_files

_DEFAULTS = config_data.TablesConfig()
_PREFIX = 'config.data.tables.'
_OPTIONAL = ('label', 'weight', 'time', 'session_id')
_UNITS = {10**3: 'milli', 10**6: 'micro', 10**9: 'nano'}


def make_source(settings: config_data.TablesConfig) -> table_files.Source:
  """The table of interactions or of samples, and the columns it must have."""
  is_flat = bool(settings.samples)
  fields = ['user_id', 'item_id']
  # A name that somebody has chosen is one that is meant to be there.
  fields += [
      field
      for field in _OPTIONAL
      if getattr(settings, field) not in ('', getattr(_DEFAULTS, field))
  ]
  required = {getattr(settings, name): f'{_PREFIX}{name}' for name in fields}
  for field in ('user_columns', 'item_columns'):
    for name in getattr(settings, field):
      required[name] = f'{_PREFIX}{field}'
  optional = [getattr(settings, field) for field in _OPTIONAL]
  return table_files.Source(
      settings.samples if is_flat else settings.interactions,
      _PREFIX + ('samples' if is_flat else 'interactions'),
      required,
      [name for name in optional if name and name not in required],
      settings.header,
  )


def read(
    table: table_files.Table,
    settings: config_data.TablesConfig,
    user: np.ndarray,
    item: np.ndarray,
    needs_like: bool = True,
) -> tuple[schema.Interactions, list[str]]:
  """All rows as they are in the table, and notes.

  Args:
    table: as `make_source` asks for it.
    settings: names of columns.
    user: int32 [N], user rows.
    item: int32 [N], item rows.
    needs_like: whether a label has to be above 0.

  Returns:
    `label` is None where all are the same above 0, as without such a column.

  Raises:
    UserError: for values that are missing or out of range, if no label is above
      0, and for an optional column under nearly its default name.
  """
  check_spelling(table, settings)
  notes: list[str] = []
  given = {
      field: getattr(settings, field)
      for field in _OPTIONAL
      if getattr(settings, field) in table.data.column_names
  }
  label = weight = time = session = None
  if 'label' in given:
    label, notes = _read_labels(table, given['label'], needs_like)
  if 'weight' in given:
    weight = read_amounts(table, given['weight'], 'weight')
  if 'time' in given:
    time, unit = _read_times(table, given['time'])
    if unit > 1:
      notes.append(
          f'{given["time"]} holds {_UNITS[unit]}seconds and was divided by '
          f'{unit:,}.'
      )
  if 'session_id' in given:
    session = _read_sessions(table, given['session_id'])
  notes += describe_unused(table, settings)
  if label is not None:
    notes += _describe_changing(user, item, label)
  rows = schema.Interactions(user, item, weight, time, label, session)
  return rows, notes


def merge_likes(
    rows: schema.Interactions, num_items: int, name: str
) -> tuple[schema.Interactions, list[str]]:
  """The pairs with a label above 0, each once, sorted by user, then item.

  A repeated pair has the sum of its weights, and time and session of its
  latest row; without times, of its last row.

  Args:
    rows: labelled, or all of them likes.
    num_items: item rows are below this.
    name: of the table, for the note.
  """
  if rows.label is not None:
    rows = rows.select(rows.label > 0)
  pair = rows.user.astype(np.int64) * num_items + rows.item
  if rows.time is None:
    order = np.argsort(pair, kind='stable')
  else:
    order = np.lexsort((rows.time, pair))
  ordered = pair[order]
  starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
  latest = order[np.append(starts[1:], len(order)) - 1]
  kept = dataclasses.replace(rows.select(latest), label=None)
  if rows.weight is not None:
    total = np.add.reduceat(rows.weight[order].astype(np.float64), starts)
    kept = dataclasses.replace(kept, weight=total.astype(np.float32))
  repeats = len(pair) - len(kept)
  if not repeats:
    return kept, []
  how = 'counts once' if rows.weight is None else 'has the sum of its weights'
  how += ', with its latest time' if rows.time is not None else ''
  note = f'{name} repeats {repeats:,} liked pair(s); each {how}.'
  return kept, [note]


def check_spelling(
    table: table_files.Table, settings: config_data.TablesConfig
) -> None:
  """Refuses 'Label' where 'label' is looked for: all would count as likes."""
  for field in _OPTIONAL:
    name = getattr(settings, field)
    others = [other for other in table.names if other != name]
    same = name and table_files.same_name(name, others)
    if same and name not in table.names:
      raise errors.UserError(
          f'{table.name()}: there is no column {name!r}, but {same!r}. Set '
          f"config.data.tables.{field} to {same!r}, or to '' to leave it alone."
      )


def describe_unused(
    table: table_files.Table, settings: config_data.TablesConfig
) -> list[str]:
  """A note on the columns that nothing reads, if there are any."""
  unused = [name for name in table.names if name not in table.data.column_names]
  notes = []
  if unused:
    listed = table_files.listed(unused)
    notes.append(f'Columns of {table.name()} that nothing reads: {listed}.')
  if settings.label not in table.data.column_names:
    notes.append(f'Without labels every row of {table.name()} is a like.')
  return notes


def _describe_changing(
    user: np.ndarray, item: np.ndarray, label: np.ndarray
) -> list[str]:
  """A note on pairs that are liked in one row and not in another."""
  pair = user.astype(np.int64) << 32 | item
  both = np.intersect1d(pair[label > 0], pair[label == 0])
  if not len(both):
    return []
  return [
      f'{len(both):,} pair(s) have rows with and rows without a reaction; each '
      'row counts as it is, and the pair as liked.'
  ]


def _read_labels(
    table: table_files.Table, name: str, needs_like: bool
) -> tuple[np.ndarray | None, list[str]]:
  label = read_amounts(table, name, 'label')
  likes = int(np.count_nonzero(label > 0))
  if not likes and needs_like:
    raise no_likes(table, name)
  least, most = float(label.min()), float(label.max())
  notes = describe_labels(name, likes, len(label), least, most)
  return (None if least == most > 0 else label), notes


def no_likes(table: table_files.Table, name: str) -> errors.UserError:
  """The error for labels of which none is above 0."""
  return errors.UserError(
      f'{table.name()}: no {name} is above 0, so there is no like to learn '
      'from. Name another column in config.data.tables.label.'
  )


def describe_labels(
    name: str, likes: int, total: int, least: float, most: float
) -> list[str]:
  """Notes on labels: how many are above 0, and from where to where they go."""
  if least == most > 0:
    return [f'Every {name} is {least:g}, so every row is a like.']
  notes = [f'{likes:,} of {total:,} rows have a {name} above 0: likes.']
  if least > 0 or most != 1:
    notes.append(f'Values of {name} go from {least:g} to {most:g}.')
  return notes


def read_amounts(table: table_files.Table, name: str, field: str) -> np.ndarray:
  """float32 [N] of finite numbers, at least 0."""
  try:
    value = arrow_values.to_numbers(table.data.column(name))
  except arrow_values.ColumnError as error:
    raise _refusal(table, name, field, error) from error
  good = (value >= 0) & (value <= np.finfo(np.float32).max)
  if not good.all():
    first = int(np.argmin(good))
    shown = 'missing' if np.isnan(value[first]) else f'{value[first]:g}'
    count = len(good) - np.count_nonzero(good)
    raise errors.UserError(
        f'{table.place(first)}: {name} is {shown}; {count:,} of {len(good):,} '
        f'rows have no number from 0 upwards there. Correct them, or name '
        f'another column in config.data.tables.{field}.'
    )
  return value.astype(np.float32)


def _read_times(table: table_files.Table, name: str) -> tuple[np.ndarray, int]:
  try:
    return arrow_values.to_seconds(table.data.column(name))
  except arrow_values.ColumnError as error:
    raise _refusal(table, name, 'time', error) from error


def _read_sessions(table: table_files.Table, name: str) -> np.ndarray:
  """int64 [N] from 0, in the order in which sessions occur."""
  column = table.data.column(name)
  kind = column.type
  is_number = pa.types.is_integer(kind)
  if not is_number and not arrow_values.is_string(kind):
    error = arrow_values.ColumnError(
        f'values of type {kind} are neither strings nor whole numbers'
    )
    raise _refusal(table, name, 'session_id', error)
  codes = arrow_values.encode(column).codes
  if (codes < 0).any():
    error = arrow_values.ColumnError(
        f'it is missing, as in {np.count_nonzero(codes < 0):,} rows',
        int(np.argmax(codes < 0)),
    )
    raise _refusal(table, name, 'session_id', error)
  return codes


def _refusal(
    table: table_files.Table,
    name: str,
    field: str,
    error: arrow_values.ColumnError,
) -> errors.UserError:
  place = table.name() if error.row is None else table.place(error.row)
  return errors.UserError(
      f'{place}: {name}: {error}. Correct it, or name another column in '
      f'config.data.tables.{field}.'
  )
