# SPDX-License-Identifier: Apache-2.0
"""Columns of an entity table as a feature reads them: found, checked, cut.

Says in the user's terms what is wrong with a column. Texts become counts of
words, whole numbers categories, and several columns one of a cross, a lookup or
an expression here, so that training and entities that come later are read
alike. Knows nothing of how values become features.
"""

import numbers

import numpy as np
import pyarrow as pa

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import arrow_values
from dropoutnet_jax.data import crosses
from dropoutnet_jax.data import expression_parser
from dropoutnet_jax.data import expressions
from dropoutnet_jax.data import id_values
from dropoutnet_jax.data import lookups
from dropoutnet_jax.data import name_pieces
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import words

# What a column can hold, and which kinds of feature can read it.
_READABLE_AS = {
    'tags': ('tags', 'lookup'),
    'sequences': ('sequence', 'tags'),
    expression_parser.NUMBER: ('numeric', 'category'),
    'several numbers per row': ('dense', 'numeric'),
    'strings': ('category', 'text'),
    'values of an unknown type': (),
}
# Where columns of delimited files are named that hold what a kind reads.
_LISTED_IN = {
    'tags': 'tag_columns',
    'lookup': 'tag_columns',
    'dense': 'vector_columns',
}
# Whole float32 numbers from here on have neighbours that they cannot be told
# apart from.
_FLOAT_LIMIT = 2**24
_HEAVIEST = 1e30  # weight of a tag with an embedding, far from infinity


def read(
    entities: schema.Entities,
    feature: config.Feature,
    field: str,
    rows: np.ndarray | None = None,
) -> schema.Column:
  """What a feature is made of: the columns that it names, checked.

  Args:
    entities: the table.
    feature: names the columns and the kind that they are to be read as.
    field: where the feature is in the configuration, for errors.
    rows: int [N], those to return, such as the training rows; None for all.
      The others are checked as well, but not read for their content.

  Returns:
    Tags, also for texts; sequences; numbers [N] or [N, D], NaN where missing;
    or categories [N] of str, None where missing.

  Raises:
    UserError: there is no such column, its content does not fit the kind, a
      value cannot be used (infinite, too small for its logarithm, a category
      that is neither a string nor a whole number), or an expression is none.
  """
  if feature.kind == 'cross':
    return _read_cross(entities, feature, field, rows)
  if feature.kind in ('lookup', 'expression'):
    if feature.kind == 'lookup':
      number = _look_up(entities, feature, field)
    else:
      number = _evaluate(entities, feature, field).value
    _check_values(entities, number, feature, field)
    return number if rows is None else number[rows]
  column = _find(entities, feature.column, field)
  _check_kind(entities, column, feature.column, feature.kind, field)
  _check_values(entities, column, feature, field)
  if rows is not None:
    column = schema.take(column, rows)
  return _convert(column, feature, field)


def _convert(
    column: schema.Column, feature: config.Feature, field: str
) -> schema.Column:
  """Texts as counts of words, lists as tags, categories as strings."""
  if isinstance(column, schema.Sequences) and feature.kind == 'tags':
    column = id_values.of_column(column).to_tags()
  elif feature.kind == 'text' and not isinstance(column, schema.Tags):
    assert isinstance(column, np.ndarray)
    column = words.count_words(
        [() if text is None else words.split_words(text) for text in column]
    )
  elif feature.kind == 'category':
    assert isinstance(column, np.ndarray)
    column = _as_strings(column)
  if isinstance(column, schema.Tags):
    return name_pieces.split(column, feature.pieces, field)
  return column


def describe_missing(
    entities: schema.Entities,
    feature: config.Feature,
    field: str,
    rows: np.ndarray,
) -> list[str]:
  """Notes on rows for which an expression or a lookup gives no number."""
  if feature.kind not in ('lookup', 'expression'):
    return []
  if feature.kind == 'lookup':
    number = _look_up(entities, feature, field)[rows]
    why = f'no tag that {feature.key!r} names'
  else:
    result = _evaluate(entities, feature, field)
    result = expressions.Result(result.value[rows], result.why[rows])
    number, why = result.value, result.describe()
  missing = np.count_nonzero(np.isnan(number))
  if not missing:
    return []
  return [
      f'{feature.name!r} has no number in {missing:,} of {len(rows):,} '
      f'training rows ({why}).'
  ]


def _read_cross(
    entities: schema.Entities,
    feature: config.Feature,
    field: str,
    rows: np.ndarray | None,
) -> np.ndarray:
  """Several categories as one."""
  parts = []
  for name in feature.columns:
    place = f'{field}.columns'
    _check_whole(entities, name, place)
    parts.append(_read_array(entities, name, 'category', place, rows))
  return crosses.join(parts)


def _read_array(
    entities: schema.Entities,
    name: str,
    kind: str,
    field: str,
    rows: np.ndarray | None = None,
) -> np.ndarray:
  """One of several columns that a feature names, numbers or categories."""
  column = read(entities, config.Feature(name, kind), field, rows)
  assert isinstance(column, np.ndarray)
  return column


def _look_up(
    entities: schema.Entities, feature: config.Feature, field: str
) -> np.ndarray:
  """Weights [N] of the tags that the key column names."""
  tags = _find(entities, feature.column, field)
  _check_kind(entities, tags, feature.column, 'lookup', field)
  assert isinstance(tags, schema.Tags)
  _check_values(entities, tags, feature, field)
  key = _read_array(entities, feature.key, 'category', f'{field}.key')
  return lookups.pick_weights(tags, key)


def _evaluate(
    entities: schema.Entities, feature: config.Feature, field: str
) -> expressions.Result:
  """Values [N] of an expression."""
  field = f'{field}.expression'
  contents = {name: _content(c) for name, c in entities.columns.items()}
  node, names = expression_parser.parse(feature.expression, field, contents)
  column = {
      name: _read_array(entities, name, 'numeric', field) for name in names
  }
  return expressions.limit(expressions.evaluate(node, column))


def _find(entities: schema.Entities, name: str, field: str) -> schema.Column:
  """The column of that name, or the ids where they have it."""
  if name in entities.columns:
    return entities.columns[name]
  if name and name == entities.id_name:
    return entities.ids
  if name in entities.left_out:
    raise errors.UserError(
        f'{field}: column {name!r} is left out: {entities.left_out[name]}. '
        'Mend the column, or leave the feature out.'
    )
  known = ', '.join(entities.columns) or 'none'
  raise errors.UserError(
      f'{field}: there is no column {name!r}. Columns are: {known}.'
      + errors.did_you_mean(name, [*entities.columns, entities.id_name])
      + (entities.advice and f' {entities.advice}')
  )


def _check_kind(
    entities: schema.Entities,
    column: schema.Column,
    name: str,
    kind: str,
    field: str,
) -> None:
  """Refuses a column that the kind cannot read, and says which ones can."""
  content = _content(column)
  if kind not in _READABLE_AS[content]:
    fitting = ' or '.join(f'kind={kind!r}' for kind in _READABLE_AS[content])
    advice = f'use {fitting}' if fitting else 'leave the feature out'
    if kind == 'sequence' and content in ('tags', 'strings'):
      advice += ', or name the column in config.data.tables.sequence_columns'
    if kind in _LISTED_IN and content == 'strings':
      advice += (
          ', or where they are lists name the column in '
          f'config.data.tables.{_LISTED_IN[kind]}'
      )
    why = ''
    if kind == 'numeric' and content == 'strings':
      why = _describe_words(entities, column)
      advice = f'correct them, or {advice}' if why else advice
    raise errors.UserError(
        f'{field}: column {name!r} holds {content}, which kind={kind!r} does '
        f'not fit{why}; {advice}.'
    )


def _describe_words(entities: schema.Entities, column: schema.Column) -> str:
  """How many strings are no plain numbers, with one of them, or ''."""
  assert isinstance(column, np.ndarray)
  texts = [value if isinstance(value, str) else None for value in column]
  is_word = arrow_values.are_words(pa.array(texts, pa.string()))
  rows = np.flatnonzero(arrow_values.to_mask(is_word.fill_null(False)))
  if not len(rows):
    return ''
  known = sum(text is not None for text in texts)
  return (
      f': {len(rows):,} of {known:,} values are no plain numbers, such as '
      f'{column[rows[0]][:60]!r} of id {entities.ids[rows[0]]}'
  )


def _check_values(
    entities: schema.Entities,
    column: schema.Column,
    feature: config.Feature,
    field: str,
) -> None:
  """Refuses values that the feature cannot use."""
  bad, rule = _find_bad_rows(column, feature)
  if len(bad):
    raise errors.UserError(
        f'{field}: column {feature.name!r} has {rule} in {len(bad):,} rows, '
        f'like that of id {entities.ids[bad[0]]}. Mend or remove it; it may be '
        'missing.'
    )


def _content(column: schema.Column) -> str:
  """A key of `_READABLE_AS`."""
  if isinstance(column, schema.Tags):
    return 'tags'
  if isinstance(column, schema.Sequences):
    return 'sequences'
  if column.dtype.kind in 'OU' and column.ndim == 1:
    return 'strings'
  if column.dtype.kind in 'bfiu' and column.ndim == 1:
    return expression_parser.NUMBER
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
    rule = 'a weight that is infinite, NaN, or < 0 in a log'
    if feature.embedding and feature.kind in ('tags', 'text'):
      weight = column.matrix.data
      bad |= (weight < 0) | (weight > _HEAVIEST)
      rule = f'a weight that is NaN, < 0 or above {_HEAVIEST:g}'
    entry = np.flatnonzero(bad)
    row = np.searchsorted(column.matrix.indptr, entry, side='right') - 1
    return np.unique(row), rule
  if isinstance(column, schema.Sequences):
    return _find_bad_values(column)
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
  rule = 'a number that is infinite or beyond float32'
  bad = np.abs(column) > np.finfo(np.float32).max
  if feature.transform == 'log1p' and not bad.any():
    rule = "a number <= -1, which transform='log1p' has no logarithm for,"
    bad = column <= -1
  bad = bad if bad.ndim == 1 else bad.any(axis=1)
  return np.flatnonzero(bad), rule


def _check_whole(entities: schema.Entities, name: str, field: str) -> None:
  """Refuses a column of fractions as a part of a cross, with advice."""
  column = _find(entities, name, field)
  if not isinstance(column, np.ndarray) or column.ndim != 1:
    return
  if column.dtype.kind != 'f':
    return
  bad = np.flatnonzero(np.isfinite(column) & (column != np.round(column)))
  if len(bad):
    raise errors.UserError(
        f'{field}: column {name!r} has fractions in {len(bad):,} rows, like '
        f'{column[bad[0]]} of id {entities.ids[bad[0]]}; a cross joins strings '
        'and whole numbers. Round them in the table, or make a column there '
        'that says which range they are in.'
    )


def _find_bad_values(column: schema.Sequences) -> tuple[np.ndarray, str]:
  """Rows of sequences with a value that is no string, and the rule."""
  rule = 'a value that is neither a string nor a whole number'
  if column.values.dtype.kind in 'iuU':
    return np.zeros(0, np.int64), rule
  good = (str, numbers.Integral)
  bad = np.array([not isinstance(value, good) for value in column.values], bool)
  return np.unique(column.rows()[bad]), rule


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
