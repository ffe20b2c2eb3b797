# SPDX-License-Identifier: Apache-2.0
"""Columns of an entity table as a feature reads them: found, checked, cut.

Says in the user's terms what is wrong with a column. Texts become counts of
words and whole numbers categories here, so that training and entities that
come later are read alike. Knows nothing of how values become features.
"""

import numbers

import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import words

# What a column can hold, and which kinds of feature can read it.
_READABLE_AS = {
    'tags': ('tags',),
    'one number per row': ('numeric', 'category'),
    'several numbers per row': ('dense', 'numeric'),
    'strings': ('category', 'text'),
    'values of an unknown type': (),
}
# Whole float32 numbers from here on have neighbours that they cannot be told
# apart from.
_FLOAT_LIMIT = 2**24


def read(
    entities: schema.Entities,
    feature: config.Feature,
    field: str,
    rows: np.ndarray | None = None,
) -> schema.Column:
  """The column that a feature names, checked.

  Args:
    entities: the table.
    feature: names the column and the kind that it is to be read as.
    field: where the feature is in the configuration, for errors.
    rows: int [N], those to return, such as the training rows; None for all.
      The others are checked as well, but not read for their content.

  Returns:
    Tags, also for texts; numbers [N] or [N, D], NaN where missing; or
    categories [N] of str, None where missing.

  Raises:
    UserError: there is no such column, its content does not fit the kind, or
      a value cannot be used (infinite, a negative count for its logarithm, a
      category that is neither a string nor a whole number).
  """
  name = feature.column
  if name not in entities.columns:
    known = ', '.join(entities.columns) or 'none'
    raise errors.UserError(
        f'{field}: there is no column {name!r}. Columns are: {known}.'
        + errors.did_you_mean(name, entities.columns)
    )
  column = entities.columns[name]
  content = _content(column)
  if feature.kind not in _READABLE_AS[content]:
    fitting = ' or '.join(f'kind={kind!r}' for kind in _READABLE_AS[content])
    advice = f'use {fitting}' if fitting else 'leave the feature out'
    raise errors.UserError(
        f'{field}: column {name!r} holds {content}, which kind='
        f'{feature.kind!r} does not fit; {advice}.'
    )
  bad, rule = _find_bad_rows(column, feature)
  if len(bad):
    raise errors.UserError(
        f'{field}: column {name!r} has {rule} in {len(bad):,} rows, like that '
        f'of id {entities.ids[bad[0]]}. Mend or remove it; it may be missing.'
    )
  if rows is not None:
    column = _take(column, rows)
  if isinstance(column, schema.Tags):
    return column
  if feature.kind == 'text':
    return words.count_words(
        [() if text is None else words.split_words(text) for text in column]
    )
  return _as_strings(column) if feature.kind == 'category' else column


def _take(column: schema.Column, rows: np.ndarray) -> schema.Column:
  """Some rows of a column."""
  if isinstance(column, schema.Tags):
    return schema.Tags(column.matrix[rows], column.names)
  return column[rows]


def _content(column: schema.Column) -> str:
  """A key of `_READABLE_AS`."""
  if isinstance(column, schema.Tags):
    return 'tags'
  if column.dtype.kind in 'OU' and column.ndim == 1:
    return 'strings'
  if column.dtype.kind in 'bfiu' and column.ndim == 1:
    return 'one number per row'
  if column.dtype.kind in 'bfiu' and column.ndim == 2:
    return 'several numbers per row'
  return 'values of an unknown type'


def _find_bad_rows(
    column: schema.Column, feature: config.Feature
) -> tuple[np.ndarray, str]:
  """Rows with a value that the feature cannot use, and what is wrong there."""
  if isinstance(column, schema.Tags):
    bad = ~np.isfinite(column.matrix.data)
    if feature.counts == 'log':
      bad |= column.matrix.data < 0
    entry = np.flatnonzero(bad)
    row = np.searchsorted(column.matrix.indptr, entry, side='right') - 1
    return np.unique(row), 'a weight that is infinite, NaN, or < 0 in a log'
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
    whole = (np.abs(column) < _FLOAT_LIMIT) & (column == np.round(column))
    bad = ~(whole | np.isnan(column))
    return np.flatnonzero(bad), 'a category that is no whole number below 2**24'
  bad = np.abs(column) > np.finfo(np.float32).max
  bad = bad if bad.ndim == 1 else bad.any(axis=1)
  return np.flatnonzero(bad), 'a number that is infinite or beyond float32'


def _as_strings(column: np.ndarray) -> np.ndarray:
  """Categories [N] as str, None where missing: 5, 5.0 and '5' are the same."""
  if column.dtype.kind == 'f':
    values = [None if np.isnan(v) else str(int(v)) for v in column]
  elif column.dtype.kind in 'biu':
    values = [str(int(v)) for v in column]
  else:
    values = [
        str(int(v)) if isinstance(v, numbers.Integral) else v for v in column
    ]
  result = np.empty(len(column), object)
  result[:] = values
  return result
