# SPDX-License-Identifier: Apache-2.0
"""Interactions that are larger than memory: one bounded pass over Parquet.

Ids become numbers of rows, labels and weights numbers of a file; what stays in
memory are the distinct ids and the tables of users and items.
"""

from collections.abc import Iterator
import dataclasses
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc

from dropoutnet_jax import config_data
from dropoutnet_jax import errors
from dropoutnet_jax.data import arrow_values
from dropoutnet_jax.data import own_ids
from dropoutnet_jax.data import own_pairs
from dropoutnet_jax.data import own_tables
from dropoutnet_jax.data import row_file
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import table_blocks
from dropoutnet_jax.data import table_files

_BLOCK = 1 << 20  # rows that the pass holds at a time
_SIDES = ('user', 'item')
_MOST_ROWS = 2**31 - 2**24  # places are int32, with room for a batch


@dataclasses.dataclass(frozen=True, eq=False)
class Staged:
  """Interactions in a file, before the split.

  Attributes:
    dataset: users, items and notes; it holds no interactions.
    file: the rows, in the order of the tables, by the number of ids.
    user: int32 [ids], the row of each user's id.
    item: int32 [ids], likewise.
    num_rows: of all.
    has_labels: whether labels differ; else every row is a like, of label 1.
    has_weights: whether there are weights; else all are 1.
  """

  dataset: schema.Dataset
  file: BinaryIO
  user: np.ndarray
  item: np.ndarray
  num_rows: int
  has_labels: bool
  has_weights: bool

  def chunks(self) -> Iterator[np.ndarray]:
    """All rows, of row_file.ROW, a part at a time."""
    for rows in row_file.chunks(self.file):
      rows['user'] = self.user[rows['user']]
      rows['item'] = self.item[rows['item']]
      if not self.has_labels:
        rows['label'] = 1
      yield rows


def stage(
    settings: config_data.TablesConfig, folder: str | None, file: BinaryIO
) -> Staged:
  """Reads the tables, the interactions block by block.

  Args:
    settings: paths, names of columns; validated, without samples.
    folder: in which relative paths start; None for the current one.
    file: empty, to write to and to read from.

  Returns:
    Users and items are numbered as `own_tables.load` numbers them.

  Raises:
    UserError: for what is wrong with the tables, saying where.
  """
  source = own_pairs.make_source(settings)
  ids = {side: _Ids(getattr(settings, f'{side}_id')) for side in _SIDES}
  labels = _Labels()
  first = None
  for block in table_blocks.read(source, settings, folder, _BLOCK):
    if first is None:
      own_pairs.check_spelling(block, settings)
      first = block
    names = block.data.column_names
    label: np.ndarray | float = 1.0
    weight: np.ndarray | float = 1.0
    if settings.label in names:
      label = own_pairs.read_amounts(block, settings.label, 'label')
      labels.add(label)
    if settings.weight in names:
      weight = own_pairs.read_amounts(block, settings.weight, 'weight')
    user, item = (ids[side].add(block) for side in _SIDES)
    row_file.make(user, item, label, weight).tofile(file)
    if ids['user'].num_rows > _MOST_ROWS:
      raise errors.UserError(
          f'{source.field} is {source.pattern!r}, which has more than '
          f'{_MOST_ROWS:,} rows; that is as many as can be numbered. Name '
          'fewer files.'
      )
  assert first is not None
  file.flush()
  names = first.data.column_names
  notes = own_pairs.describe_unused(first, settings)
  if settings.label in names:
    if not labels.likes:
      raise own_pairs.no_likes(first, settings.label)
    notes += own_pairs.describe_labels(
        settings.label, labels.likes, labels.total, labels.least, labels.most
    )
  user_side, item_side = (
      own_tables.join_side(ids[side].column(first), side, settings, folder)
      for side in _SIDES
  )
  own_tables.check_lists(settings, (*user_side.names, *item_side.names))
  users, user_notes = own_tables.to_entities(user_side, 'user', settings)
  items, item_notes = own_tables.to_entities(item_side, 'item', settings)
  notes += [*user_notes, *item_notes]
  nothing = schema.Interactions(np.zeros(0, np.int32), np.zeros(0, np.int32))
  return Staged(
      schema.Dataset('tables', users, items, nothing, notes=tuple(notes)),
      file,
      user_side.row,
      item_side.row,
      ids['user'].num_rows,
      labels.total > 0 and not labels.least == labels.most > 0,
      settings.weight in names,
  )


class _Labels:
  """What is asked of all labels."""

  def __init__(self) -> None:
    self.total, self.likes = 0, 0
    self.least, self.most = np.inf, -np.inf

  def add(self, label: np.ndarray) -> None:
    self.total += len(label)
    self.likes += int(np.count_nonzero(label > 0))
    self.least = min(self.least, float(label.min()))
    self.most = max(self.most, float(label.max()))


class _Ids:
  """Distinct ids of one side, in the order in which they occur."""

  def __init__(self, name: str):
    self._name = name
    self._values: pa.Array | None = None
    self._place = ''
    self.num_rows = 0

  def add(self, block: table_files.Table) -> np.ndarray:
    """The numbers of the ids of a block: int64 [N].

    Raises:
      UserError: as `own_ids.read`, and where their type is another than that
        of the blocks before.
    """
    found = own_ids.read(block, self._name).found
    self.num_rows += len(found.codes)
    values = found.values
    if self._values is None:
      self._values, self._place = values[:0], block.name()
    if values.type != self._values.type:
      raise errors.UserError(
          f'{block.name()}: {self._name} holds {values.type} and in '
          f'{self._place} {self._values.type}. Write the ids of all files with '
          'one type.'
      )
    number = pc.index_in(values, value_set=self._values)
    is_new = np.asarray(number.is_null(), bool)
    place = number.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    place[is_new] = len(self._values) + np.arange(np.count_nonzero(is_new))
    if is_new.any():
      new = values.filter(pa.array(is_new))
      self._values = pa.concat_arrays([self._values, new])
    return place[found.codes]

  def column(self, table: table_files.Table) -> own_ids.IdColumn:
    """All of them as a column of a table, each once."""
    values = self._values
    assert values is not None
    found = arrow_values.Encoded(np.arange(len(values)), values)
    return own_ids.IdColumn(self._name, table, found, False)
