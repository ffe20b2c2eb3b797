# SPDX-License-Identifier: Apache-2.0
"""Values of the right type that a feature cannot use all the same.

Such as a number that has no logarithm, or a fraction as a category.
"""

import numbers

import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import schema

# Whole numbers from these powers of 2 on have neighbours that they cannot be
# told from, in float32 and in float64, where tables keep large ones.
_FLOAT32_BITS, FLOAT64_BITS = 24, 53
NO_CATEGORY = 'a category that is no whole number'  # how rules of them begin
_HEAVIEST = 1e30  # weight of a tag with an embedding, far from infinity


class BadValueError(errors.UserError):
  """A column has a value that a feature cannot use.

  Attributes:
    column: its name; that of the feature for what an expression gives.
    rule: what the value is, such as 'a number <= -1'.
  """

  def __init__(self, message: str, column: str, rule: str):
    super().__init__(message)
    self.column, self.rule = column, rule


def find_rows(
    column: schema.Column, feature: config.Feature
) -> tuple[np.ndarray, str]:
  """Rows with a value that the feature cannot use, and what is wrong there."""
  if isinstance(column, schema.Tags):
    bad = ~np.isfinite(column.matrix.data)
    if feature.counts == 'log':
      bad |= column.matrix.data < 0
    rule = 'a weight that is infinite, NaN, or < 0 in a log'
    if feature.embedding and feature.kind in ('tags', 'text'):
      weight = column.matrix.data
      bad |= (weight < 0) | (weight > _HEAVIEST)
      rule = f'a weight that is NaN, < 0 or above {_HEAVIEST:g}'
    entry = np.flatnonzero(bad)
    row = np.searchsorted(column.matrix.indptr, entry, side='right') - 1
    return np.unique(row), rule
  if isinstance(column, schema.Sequences):
    return _find_in_sequences(column)
  if column.dtype.kind in 'OU':
    good: tuple[type, ...] = (str, type(None))
    rule = 'a text that is no string'
    if feature.kind == 'category':
      good += (numbers.Integral,)
      rule = 'a category that is neither a string nor a whole number'
    bad = np.array([not isinstance(value, good) for value in column], bool)
    return np.flatnonzero(bad), rule
  if feature.kind == 'category':
    if column.dtype.kind != 'f':
      return np.zeros(0, np.int64), ''
    return _find_in_numbers(column)
  rule = 'a number that is infinite or beyond float32'
  bad = np.abs(column) > np.finfo(np.float32).max
  if feature.transform == 'log1p' and not bad.any():
    rule = "a number <= -1, which transform='log1p' has no logarithm for,"
    bad = column <= -1
  bad = bad if bad.ndim == 1 else bad.any(axis=1)
  return np.flatnonzero(bad), rule


def _find_in_numbers(column: np.ndarray) -> tuple[np.ndarray, str]:
  """Rows of floats [N] with one that is no category, and the rule."""
  is_fraction = ~np.isnan(column) & (column != np.round(column))
  if is_fraction.any():
    # No limit is told: without fractions tables may keep numbers in float64.
    return np.flatnonzero(is_fraction), NO_CATEGORY
  is_double = column.dtype == np.float64
  power = FLOAT64_BITS if is_double else _FLOAT32_BITS
  is_large = np.abs(column) >= 2**power
  return np.flatnonzero(is_large), f'{NO_CATEGORY} below 2**{power}'


def _find_in_sequences(column: schema.Sequences) -> tuple[np.ndarray, str]:
  """Rows of sequences with a value that is no string, and the rule."""
  rule = 'a value that is neither a string nor a whole number'
  if column.values.dtype.kind in 'iuU':
    return np.zeros(0, np.int64), rule
  good = (str, numbers.Integral)
  bad = np.array([not isinstance(value, good) for value in column.values], bool)
  return np.unique(column.rows()[bad]), rule
