# SPDX-License-Identifier: Apache-2.0
"""The values of a column that ids are given to, whatever the column holds.

Categories, intervals of numbers, tags and sequences become entries: a row has
one, some or none, each with a value and, for tags, a weight. Nothing here knows
a vocabulary.
"""

from collections.abc import Iterable, Sequence
import dataclasses
from typing import Any

import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import config_features
from dropoutnet_jax.data import id_maps
from dropoutnet_jax.data import intervals
from dropoutnet_jax.data import schema


@dataclasses.dataclass(frozen=True, eq=False)
class IdValues:
  """E entries of N rows; those of a row stand together, in their order.

  Attributes:
    names: V distinct values, each of an entry.
    code: int64 [E], position of each entry's value among the names.
    starts: int64 [N + 1], where each row starts, and E.
    weight: float32 [E] of tags; None where all weigh 1.
  """

  names: list[str]
  code: np.ndarray
  starts: np.ndarray
  weight: np.ndarray | None = None

  def rows(self) -> np.ndarray:
    """The row of each entry, int64 [E]."""
    return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

  def count_rows(self) -> np.ndarray:
    """In how many rows each value occurs, int64 [V]."""
    width = max(len(self.names), 1)
    entry = np.sort(self.rows() * width + self.code)
    is_first = np.diff(entry, prepend=-1) > 0
    return np.bincount(entry[is_first] % width, minlength=len(self.names))

  def to_tags(self) -> schema.Tags:
    """Sums of weights, or counts; the columns are in alphabetical order."""
    order = np.array(np.argsort(np.array(self.names, object)), np.int64)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    weight = self.weight
    if weight is None:
      weight = np.ones(len(self.code), np.float32)
    # Copies: what follows changes the arrays of the matrix in place.
    matrix = scipy.sparse.csr_array(
        (weight.astype(np.float32), place[self.code], self.starts.copy()),
        shape=(len(self.starts) - 1, len(order)),
    )
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return schema.Tags(matrix, np.array(self.names, object)[order])

  def renamed(self, names: Iterable[str | None]) -> 'IdValues':
    """The same with V other names, repeated ones merged; None drops entries."""
    new, number = _number(names)
    code = number[self.code]
    keep = code >= 0
    starts = np.concatenate([[0], np.cumsum(keep)])[self.starts]
    weight = None if self.weight is None else self.weight[keep]
    return IdValues(new, code[keep], starts, weight)


def fit_edges(
    feature: config.Feature, column: schema.Column, field: str
) -> tuple[float, ...]:
  """What cuts training numbers into intervals; nothing for other columns.

  Raises:
    UserError: see intervals.fit_intervals.
  """
  if feature.kind not in config_features.NUMBER_KINDS:
    return ()
  assert isinstance(column, np.ndarray)
  every = dataclasses.replace(feature, min_rows=1)
  return intervals.fit_intervals(every, column, field)[0].edges


def of_column(column: schema.Column, edges: Sequence[float] = ()) -> IdValues:
  """Entries of any column.

  Args:
    column: tags; sequences; categories [N] of str, None where missing; or
      numbers [N], NaN where missing, of which the intervals are the values.
    edges: between these intervals.
  """
  if isinstance(column, schema.Tags):
    matrix, names = column.matrix, column.names
    used, code = np.unique(matrix.indices, return_inverse=True)
    # Without names tags are known by their column numbers.
    values, number = _number(used if names is None else names[used])
    return IdValues(values, number[code], matrix.indptr, matrix.data)
  if isinstance(column, schema.Sequences):
    if column.values.dtype == np.int64:  # much faster
      used, code = np.unique(column.values, return_inverse=True)
      return IdValues([*map(str, used.tolist())], code, column.starts)
    values, code = _number(column.values.tolist())
    return IdValues(values, code, column.starts)
  if column.dtype != object:
    # Also a single number per row that is a vector of one.
    ids = intervals.interval_ids(column.reshape(len(column)), edges)
    column = np.array([str(n) if n else None for n in ids], object)
  values, code = _number(column.tolist())
  starts = np.concatenate([[0], np.cumsum(code >= 0)])
  return IdValues(values, code[code >= 0], starts)


def to_tags(column: schema.Column, feature: config.Feature) -> schema.Tags:
  """What one-hot columns of tags, texts and sequences are made of.

  Of a sequence this is the share of each value; where the feature asks for
  buckets, they take the place of values ('#17' what is hashed to bucket 17),
  and the weights that fall into one are summed.

  Args:
    column: tags or sequences.
    feature: says how many buckets there are, if any.
  """
  if isinstance(column, schema.Tags) and not feature.num_buckets:
    if not feature.hash_buckets:
      return column
  values = of_column(column)
  if isinstance(column, schema.Sequences):
    length = np.diff(column.starts)
    share = 1 / np.repeat(length, length).astype(np.float32)
    values = dataclasses.replace(values, weight=share)
  if feature.hash_buckets:
    ids = id_maps.hashed_ids(values.names, feature.hash_buckets)
    values = values.renamed(f'#{n}' for n in ids)
  elif feature.num_buckets:
    ids = id_maps.bucket_ids(values.names, feature.num_buckets)
    values = values.renamed(str(n - 1) if n else None for n in ids)
  return values.to_tags()


def note_outside(feature: config.Feature, column: schema.Column) -> list[str]:
  """A note on training rows with a value that is in none of `num_buckets`."""
  if not feature.num_buckets:
    return []
  values = of_column(column)
  is_outside = id_maps.bucket_ids(values.names, feature.num_buckets) == 0
  rows = len(np.unique(values.rows()[is_outside[values.code]]))
  if not rows:
    return []
  return [
      f'{feature.name!r} is no whole number in [0, {feature.num_buckets:,}) in '
      f'{rows:,} of {len(values.starts) - 1:,} training rows, where it counts '
      'as missing.'
  ]


def _number(values: Iterable[Any]) -> tuple[list[str], np.ndarray]:
  """Distinct values as str, the first ones first, and codes; -1 for None."""
  known: dict[Any, int] = {None: -1}
  code = [known.setdefault(value, len(known) - 1) for value in values]
  del known[None]
  names: dict[str, int] = {}  # of which 5 and '5' have the same
  place = [names.setdefault(str(value), len(names)) for value in known]
  return list(names), np.array([*place, -1], np.int64)[np.array(code, np.int64)]
