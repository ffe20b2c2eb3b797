# SPDX-License-Identifier: Apache-2.0
"""How one column becomes numbers: a fitted encoder for each kind of feature.

`fit_*` functions see training rows only. An encoder's `encode` takes a column
of any rows, training or not, and returns a dense block float32 [N, F] and a
sparse block csr_array float32 [N, T] (rows of norm 1, or empty); either may
have no columns. Here are categories and vectors; tags are in tag_encoder.py,
numbers in number_encoder.py and, cut up, in intervals.py, values without a
vocabulary in bucket_encoder.py. Nothing here knows entities, files, or how the
blocks of several features are scaled and joined.
"""

import collections
from collections.abc import Iterable, Sequence
import dataclasses
import functools
from typing import Any, Protocol

import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import blocks
from dropoutnet_jax.data import id_maps
from dropoutnet_jax.data import number_encoder

# One-hot and multi-hot columns that become dense; further ones stay sparse.
MAX_DENSE_COLUMNS = 256
# From this share of distinct values among more than so many rows on, a column
# is taken for ids.
_ID_SHARE = 0.95
_ID_ROWS = 50


class ColumnEncoder(Protocol):
  """What all kinds have in common."""

  @property
  def column(self) -> str:
    """Name of the column that it reads."""

  def encode(self, column: Any) -> tuple[np.ndarray, scipy.sparse.csr_array]:
    """Dense float32 [N, F] and sparse csr_array float32 [N, T] of a column."""

  def dense_names(self) -> list[str]:
    """Names of the F dense columns."""

  def sparse_names(self) -> list[str]:
    """Names of the T sparse columns."""


@dataclasses.dataclass(frozen=True)
class CategoryEncoder:
  """One-hot over the values known from training; others are all zero.

  Attributes:
    column: its name.
    values: known values, sorted; the T sparse columns.
    dense_values: positions of those that are dense columns as well.
    in_sparse: whether the feature is part of the sparse content.
  """

  column: str
  values: tuple[str, ...]
  dense_values: tuple[int, ...]
  in_sparse: bool

  @functools.cached_property
  def _id_of(self) -> dict[str, int]:
    return id_maps.number(self.values)

  def encode(
      self, column: np.ndarray
  ) -> tuple[np.ndarray, scipy.sparse.csr_array]:
    """Rows with a known value have a single entry, 1."""
    ids = id_maps.vocabulary_ids(column, self._id_of)
    known = np.arange(1, len(self.values) + 1)
    return one_hot(ids, known, self.dense_values, self.in_sparse)

  def dense_names(self) -> list[str]:
    return [f'{self.column}={self.values[n]}' for n in self.dense_values]

  def sparse_names(self) -> list[str]:
    kept = self.values if self.in_sparse else ()
    return [f'{self.column}={value}' for value in kept]


def fit_category(
    feature: config.Feature, column: np.ndarray, field: str
) -> tuple[CategoryEncoder, list[str]]:
  """Collects the values of at least `min_rows` training rows.

  Args:
    feature: its settings.
    column: str or None (missing) [N] of the training rows.
    field: where the feature is in the configuration, for errors.

  Returns:
    The encoder, and notes for the user.

  Raises:
    UserError: no value occurs often enough.
  """
  rows = collections.Counter(value for value in column if value is not None)
  values = sorted(v for v, count in rows.items() if count >= feature.min_rows)
  if not values:
    raise errors.UserError(
        f'{field}: column {feature.column!r} has {len(rows)} values in '
        f'{len(column)} training rows, none of them in {feature.min_rows} or '
        'more. Lower min_rows, or leave the feature out.'
    )
  dense_values, notes = choose_dense(feature, [rows[v] for v in values])
  encoder = CategoryEncoder(
      feature.column,
      tuple(str(value) for value in values),
      dense_values,
      feature.sparse,
  )
  return encoder, note_ids(feature, column) + notes


def note_ids(
    feature: config.Feature, column: Iterable[str | None]
) -> list[str]:
  """A note where a feature that is content looks like an id.

  What is learnt about an id is of no use to a row that was not there in
  training. Input dropout, which teaches a tower to do without it, takes away
  only what belongs to the preference.

  Args:
    feature: its settings.
    column: values of the training rows, None where missing.
  """
  known = [value for value in column if value is not None]
  num_rows, num_distinct = len(known), len(set(known))
  is_id = num_rows > _ID_ROWS and num_distinct > _ID_SHARE * num_rows
  if feature.group != 'content' or not (is_id or num_distinct == num_rows > 1):
    return []
  rows = 'in every training row'
  if num_distinct < num_rows:
    rows = f'in {num_distinct:,} of {num_rows:,} training rows'
  return [
      f'{feature.column!r} is different {rows}, like an id: nothing that is '
      "learnt about it helps a cold row. Give it group='preference', which "
      'input dropout takes away, or leave it out.'
  ]


def choose_dense(
    feature: config.Feature, num_rows: Sequence[int]
) -> tuple[tuple[int, ...], list[str]]:
  """Picks the values that become dense columns, the most frequent ones.

  Args:
    feature: its settings.
    num_rows: training rows of each value.

  Returns:
    Their positions, ascending, and a note where not all are among them; none
    where an embedding takes the place of dense columns.
  """
  if feature.embedding:
    return (), []
  # A stable sort: equally frequent values stay in their order.
  by_rows = np.argsort(-np.asarray(num_rows, np.int64), kind='stable')
  chosen = np.sort(by_rows[:MAX_DENSE_COLUMNS])
  notes = []
  if len(chosen) < len(num_rows):
    rest = 'are in the sparse content only' if feature.sparse else 'are dropped'
    notes.append(
        f'{feature.column!r} has {len(num_rows):,} values: the '
        f'{MAX_DENSE_COLUMNS} most frequent are dense columns, the others '
        f'{rest}.'
    )
  return tuple(chosen.tolist()), notes


def one_hot(
    ids: np.ndarray,
    known: np.ndarray | Sequence[int],
    dense_values: Sequence[int],
    in_sparse: bool,
) -> tuple[np.ndarray, scipy.sparse.csr_array]:
  """A column for each known id; rows of other ids are zero.

  Args:
    ids: int64 [N].
    known: int64 [T], ascending.
    dense_values: F positions among the known ids.
    in_sparse: whether there is a sparse block.

  Returns:
    float32 [N, F], and csr_array float32 [N, T] or [N, 0].
  """
  known = np.asarray(known, np.int64)
  position = np.searchsorted(known, ids)
  inside = position < len(known)
  inside[inside] = known[position[inside]] == ids[inside]
  row = np.flatnonzero(inside)
  matrix = scipy.sparse.csr_array(
      (np.ones(len(row), np.float32), (row, position[row])),
      shape=(len(ids), len(known)),
  )
  dense = matrix[:, list(dense_values)].toarray()
  return dense, matrix if in_sparse else blocks.no_columns(len(ids))


@dataclasses.dataclass(frozen=True)
class VectorEncoder:
  """Columns of numbers as they are; a missing number counts as 0.

  Attributes:
    column: its name.
    width: numbers per row, F.
  """

  column: str
  width: int

  def encode(
      self, column: np.ndarray
  ) -> tuple[np.ndarray, scipy.sparse.csr_array]:
    number_encoder.check_width(self.column, column, self.width)
    dense = np.where(np.isnan(column), 0, column).astype(np.float32)
    return dense, blocks.no_columns(len(dense))

  def dense_names(self) -> list[str]:
    return [f'{self.column}[{n}]' for n in range(self.width)]

  def sparse_names(self) -> list[str]:
    return []
