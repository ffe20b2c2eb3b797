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
from dropoutnet_jax.data import bad_values
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


def check(
    entities: schema.Entities, feature: config.Feature, field: str
) -> None:
  """Raises what `read` would raise, and makes nothing of the columns."""
  if feature.kind == 'cross':
    place = f'{field}.columns'
    for name in feature.columns:
      _check_whole(entities, name, place)
      check(entities, config.Feature(name, 'category'), place)
  else:
    _checked(entities, feature, field)


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
    BadValueError: a value cannot be used: infinite, too small for its
      logarithm, a category that is neither a string nor a whole number.
    UserError: there is no such column, its content does not fit the kind, or an
      expression is none.
  """
  if feature.kind == 'cross':
    return _read_cross(entities, feature, field, rows)
  column = _checked(entities, feature, field)
  if rows is not None:
    column = schema.take(column, rows)
  if feature.kind in ('lookup', 'expression'):
    return column
  return _convert(column, feature, field)


def _checked(
    entities: schema.Entities, feature: config.Feature, field: str
) -> schema.Column:
  """The column of a feature that is no cross; numbers are made already."""
  column: schema.Column
  if feature.kind == 'lookup':
    column = _look_up(entities, feature, field)
  elif feature.kind == 'expression':
    column = _evaluate(entities, feature, field).value
  else:
    column = _find(entities, feature.column, field)
    _check_kind(entities, column, feature.column, feature.kind, field)
  _check_values(entities, column, feature, field)
  return column


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
  bad, rule = bad_values.find_rows(column, feature)
  if len(bad):
    raise bad_values.BadValueError(
        f'{field}: column {feature.name!r} has {rule} in {len(bad):,} rows, '
        f'like that of id {entities.ids[bad[0]]}. Mend or remove it; it may be '
        'missing.',
        feature.column,
        rule,
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


def _check_whole(entities: schema.Entities, name: str, field: str) -> None:
  """Refuses a column of fractions as a part of a cross, with advice."""
  column = _find(entities, name, field)
  if not isinstance(column, np.ndarray) or column.ndim != 1:
    return
  if column.dtype.kind != 'f':
    return
  bad = np.flatnonzero(np.isfinite(column) & (column != np.round(column)))
  if len(bad):
    raise bad_values.BadValueError(
        f'{field}: column {name!r} has fractions in {len(bad):,} rows, like '
        f'{column[bad[0]]} of id {entities.ids[bad[0]]}; a cross joins strings '
        'and whole numbers. Round them in the table, or make a column there '
        'that says which range they are in.',
        name,
        'a fraction where a cross joins strings and whole numbers',
    )


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
