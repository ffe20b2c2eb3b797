# SPDX-License-Identifier: Apache-2.0
"""How one column becomes numbers: a fitted encoder for each kind of feature.

`fit_*` functions see training rows only. An encoder's `encode` takes a column
of any rows, training or not, and returns a dense block float32 [N, F] and a
sparse block csr_array float32 [N, T] (rows of norm 1, or empty); either may
have no columns. Tags are in tag_encoder.py. Nothing here knows entities,
files, or how the blocks of several features are scaled and joined.
"""

import collections
import dataclasses
from typing import Any, Protocol

import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import blocks

# One-hot and multi-hot columns that become dense; further ones stay sparse.
MAX_DENSE_COLUMNS = 256
_CLIP = 5.0  # standardised numbers, in standard deviations
_SMALLEST_STD = 1e-30  # below it, 1 / std leaves float32


class ColumnEncoder(Protocol):
  """What the four kinds have in common."""

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
class NumericEncoder:
  """Standardised numbers, clipped at 5, each with a presence bit if needed.

  Attributes:
    column: its name.
    mean: of each number over the training rows that have it.
    std: its standard deviation there; 0 for a number that says nothing.
    has_presence: numbers that get a column which is 1 where present, else 0.
  """

  column: str
  mean: tuple[float, ...]
  std: tuple[float, ...]
  has_presence: tuple[bool, ...]

  def encode(
      self, column: np.ndarray
  ) -> tuple[np.ndarray, scipy.sparse.csr_array]:
    """Missing numbers become 0, and so does their presence bit."""
    value = _as_table(column)
    _check_width(self.column, value, len(self.mean))
    present = ~np.isnan(value)
    std = np.array(self.std)
    scale = np.where(std > 0, 1 / np.where(std > 0, std, 1.0), 0.0)
    scaled = np.clip((value - np.array(self.mean)) * scale, -_CLIP, _CLIP)
    bits = present[:, np.array(self.has_presence, bool)]
    parts = [np.where(present, scaled, 0.0), bits]
    dense = np.concatenate(parts, axis=1).astype(np.float32)
    return dense, blocks.no_columns(len(dense))

  def dense_names(self) -> list[str]:
    names = _number_names(self.column, len(self.mean))
    flags = zip(names, self.has_presence, strict=True)
    return names + [f'{name} present' for name, has in flags if has]

  def sparse_names(self) -> list[str]:
    return []


def fit_numeric(
    feature: config.Feature, column: np.ndarray, scaling: str
) -> tuple[NumericEncoder, list[str]]:
  """Fits mean and spread of a column of numbers.

  With scaling 'row' every number that varies gets a presence bit: a row of
  norm 1 keeps only directions, and (z, 1) has another direction for each z
  where (z) alone would keep no more than its sign.

  Args:
    feature: its settings.
    column: numbers [N] or [N, D] of the training rows, NaN where missing.
    scaling: of the dense content, 'row' or 'column'.

  Returns:
    The encoder, and notes for the user.
  """
  value = _as_table(column)
  names = _number_names(feature.column, value.shape[1])
  mean, std, has_presence, notes = [], [], [], []
  for name, number in zip(names, value.T, strict=True):
    known = number[~np.isnan(number)]
    # min < max, because the std of equal numbers can be a rounding error.
    varies = known.size > 0 and known.min() < known.max()
    varies = varies and known.std() > _SMALLEST_STD
    if not varies:
      what = 'the same in' if known.size else 'missing from'
      notes.append(f'{name!r} is {what} all training rows and says nothing.')
    mean.append(float(known.mean()) if known.size else 0.0)
    std.append(float(known.std()) if varies else 0.0)
    some_missing = 0 < known.size < number.size
    has_presence.append(bool(some_missing or (varies and scaling == 'row')))
  encoder = NumericEncoder(
      feature.column, tuple(mean), tuple(std), tuple(has_presence)
  )
  return encoder, notes


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

  def encode(
      self, column: np.ndarray
  ) -> tuple[np.ndarray, scipy.sparse.csr_array]:
    """Rows with a known value have a single entry, 1."""
    lookup = {value: position for position, value in enumerate(self.values)}
    position = np.array([lookup.get(value, -1) for value in column], np.int64)
    row = np.flatnonzero(position >= 0)
    one_hot = scipy.sparse.csr_array(
        (np.ones(len(row), np.float32), (row, position[row])),
        shape=(len(position), len(self.values)),
    )
    dense = one_hot[:, list(self.dense_values)].toarray()
    return dense, one_hot if self.in_sparse else blocks.no_columns(
        len(position)
    )

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
  notes = []
  if max(rows.values()) == 1 < len(rows):
    notes.append(
        f'{feature.column!r} is different in every training row, like an id: '
        'nothing that is learnt about it helps a new row.'
    )
  if len(values) > MAX_DENSE_COLUMNS:
    rest = 'are in the sparse content only' if feature.sparse else 'are dropped'
    notes.append(
        f'{feature.column!r} has {len(values):,} values: the '
        f'{MAX_DENSE_COLUMNS} most frequent are dense columns, the others '
        f'{rest}.'
    )
  # A stable sort: equally frequent values stay in their order.
  by_rows = sorted(range(len(values)), key=lambda n: -rows[values[n]])
  dense_values = tuple(sorted(by_rows[:MAX_DENSE_COLUMNS]))
  encoder = CategoryEncoder(
      feature.column,
      tuple(str(value) for value in values),
      dense_values,
      feature.sparse,
  )
  return encoder, notes


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
    _check_width(self.column, column, self.width)
    dense = np.where(np.isnan(column), 0, column).astype(np.float32)
    return dense, blocks.no_columns(len(dense))

  def dense_names(self) -> list[str]:
    return [f'{self.column}[{n}]' for n in range(self.width)]

  def sparse_names(self) -> list[str]:
    return []


def _as_table(column: np.ndarray) -> np.ndarray:
  """Numbers [N] or [N, D] as float64 [N, D]."""
  value = np.asarray(column, np.float64)
  return value[:, None] if value.ndim == 1 else value


def _check_width(column: str, value: np.ndarray, width: int) -> None:
  if value.shape[1] != width:
    raise errors.UserError(
        f'Column {column!r} has {value.shape[1]} numbers per row, but had '
        f'{width} in training. Give it the same numbers as then.'
    )


def _number_names(column: str, width: int) -> list[str]:
  """'age' for a single number, 'size[0]', 'size[1]' ... for several."""
  return [column] if width == 1 else [f'{column}[{n}]' for n in range(width)]
