# SPDX-License-Identifier: Apache-2.0
"""What the columns of a run held, so that later rows are read the same way.

A file of three new users does not say whether '7' is a word or a number, nor
how long a vector is that all three lack; the run knows.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import re

import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax.data import schema


@dataclasses.dataclass(frozen=True)
class ColumnType:
  """What a column holds.

  Attributes:
    kind: 'strings', 'number', 'vectors', 'sequences', 'tags', or 'numbered
      tags', which have no names that a file could know them by.
    width: numbers per row of vectors, else 1.
  """

  kind: str
  width: int = 1

  def missing(self, num_rows: int) -> schema.Column:
    """A column of so many rows that all lack a value."""
    if self.kind in ('tags', 'numbered tags'):
      nothing = scipy.sparse.csr_array((num_rows, 0), dtype=np.float32)
      return schema.Tags(nothing, np.zeros(0, np.str_))
    if self.kind == 'sequences':
      starts = np.zeros(num_rows + 1, np.int64)
      return schema.Sequences(np.zeros(0, object), starts)
    if self.kind == 'strings':
      return np.full(num_rows, None, object)
    shape = (num_rows,) if self.kind == 'number' else (num_rows, self.width)
    return np.full(shape, np.nan, np.float32)


def of_column(column: schema.Column) -> ColumnType:
  """The type of a column."""
  if isinstance(column, schema.Tags):
    return ColumnType('numbered tags' if column.names is None else 'tags')
  if isinstance(column, schema.Sequences):
    return ColumnType('sequences')
  if column.ndim == 2:
    return ColumnType('vectors', column.shape[1])
  return ColumnType('strings' if column.dtype.kind in 'OU' else 'number')


def of_features(
    features: Iterable[config.Feature], entities: schema.Entities
) -> dict[str, ColumnType]:
  """The types of all columns that features read, by name."""
  return {
      name: of_column(entities.columns[name])
      for name in mentioned(features)
      if name in entities.columns
  }


def mentioned(features: Iterable[config.Feature]) -> list[str]:
  """Distinct names that features give; not all of them need be columns."""
  names = [name for feature in features for name in _mentioned(feature)]
  return list(dict.fromkeys(names))


def _mentioned(feature: config.Feature) -> list[str]:
  """What a feature names; not all of it need be columns."""
  words = re.findall(r'[^\W\d]\w*', feature.expression)
  own = [] if feature.columns or words else [feature.column]
  return [*own, *feature.columns, feature.key, *words]


def fill(
    entities: schema.Entities, types: Mapping[str, ColumnType]
) -> schema.Entities:
  """Entities with a column of missing values wherever they lack one."""
  added = {
      name: kind.missing(len(entities))
      for name, kind in types.items()
      if name not in entities.columns
  }
  return dataclasses.replace(entities, columns={**entities.columns, **added})


def select(entities: schema.Entities, rows: np.ndarray) -> schema.Entities:
  """Some rows of a table, int [C]."""
  columns = {
      name: schema.take(column, rows)
      for name, column in entities.columns.items()
  }
  return dataclasses.replace(entities, ids=entities.ids[rows], columns=columns)
