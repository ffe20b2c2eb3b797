# SPDX-License-Identifier: Apache-2.0
"""Columns of an entity table as a feature reads them: found, checked, cut.

Says in the user's terms what is wrong with a column. Knows nothing of how its
values become features.
"""

import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import schema

# What a column can hold, and which kinds of feature can read it.
_READABLE_AS = {
    'tags': ('tags',),
    'one number per row': ('numeric',),
    'several numbers per row': ('dense', 'numeric'),
    'categories': ('category',),
    'values of an unknown type': (),
}


def read(
    entities: schema.Entities, feature: config.Feature, field: str
) -> schema.Column:
  """The column that a feature names, checked.

  Args:
    entities: the table.
    feature: names the column and the kind that it is to be read as.
    field: where the feature is in the configuration, for errors.

  Returns:
    Tags; numbers [N] or [N, D], NaN where missing; or categories [N] of str,
    None where missing.

  Raises:
    UserError: there is no such column, its content does not fit the kind, or
      a value cannot be used (infinite, a negative count for its logarithm, a
      category that is no string).
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
  bad, rule = _find_bad_rows(column, feature.counts)
  if len(bad):
    raise errors.UserError(
        f'{field}: column {name!r} has {rule} in {len(bad):,} rows, like that '
        f'of id {entities.ids[bad[0]]}. Mend or remove it; it may be missing.'
    )
  return column


def take(column: schema.Column, rows: np.ndarray) -> schema.Column:
  """Some rows of a column."""
  if isinstance(column, schema.Tags):
    return schema.Tags(column.matrix[rows], column.names)
  return column[rows]


def _content(column: schema.Column) -> str:
  """A key of `_READABLE_AS`."""
  if isinstance(column, schema.Tags):
    return 'tags'
  if column.dtype.kind in 'OU' and column.ndim == 1:
    return 'categories'
  if column.dtype.kind in 'bfiu' and column.ndim == 1:
    return 'one number per row'
  if column.dtype.kind in 'bfiu' and column.ndim == 2:
    return 'several numbers per row'
  return 'values of an unknown type'


def _find_bad_rows(
    column: schema.Column, counts: str
) -> tuple[np.ndarray, str]:
  """Rows with a value that no feature can use, and what is wrong there."""
  if isinstance(column, schema.Tags):
    bad = ~np.isfinite(column.matrix.data)
    if counts == 'log':
      bad |= column.matrix.data < 0
    entry = np.flatnonzero(bad)
    row = np.searchsorted(column.matrix.indptr, entry, side='right') - 1
    return np.unique(row), 'a weight that is infinite, NaN, or < 0 in a log'
  if column.dtype.kind in 'OU':
    bad = np.array([v is not None and not isinstance(v, str) for v in column])
    return np.flatnonzero(bad), 'a category that is no string'
  bad = np.abs(column) > np.finfo(np.float32).max
  bad = bad if bad.ndim == 1 else bad.any(axis=1)
  return np.flatnonzero(bad), 'a number that is infinite or beyond float32'
