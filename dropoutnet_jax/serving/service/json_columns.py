# SPDX-License-Identifier: Apache-2.0
"""Content of users and items as JSON: checked, and read as the run's own.

  {"genre": "drama", "year": 1997, "tags": ["sea", "war"]}

A column may be left out or null: it counts as missing. Tags are a list, or an
object with a weight each; what training did not know is ignored by the
encoders, as ever. A column that the run does not read is refused, since it is
more often a slip of the pen than meant.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import numpy as np
import pyarrow as pa

from dropoutnet_jax import config_data
from dropoutnet_jax import errors
from dropoutnet_jax.data import arrow_columns
from dropoutnet_jax.data import arrow_values
from dropoutnet_jax.data import column_types
from dropoutnet_jax.data import schema
from dropoutnet_jax.serving.service import refusals

Types = Mapping[str, column_types.ColumnType]
_LARGEST = float(np.finfo(np.float32).max)
_WHOLE = 2**63
_EXACT = 2**53  # whole float64 numbers below it are what was written
_ARROW: dict[str, pa.DataType] = {
    'strings': pa.string(),
    'tags': pa.map_(pa.string(), pa.float64()),
    'vectors': pa.list_(pa.float64()),
}
_SHOWN = 60  # characters of a value in a message


def check(content: Mapping[str, Any], types: Types) -> dict[str, Any]:
  """The content of one row without what is missing.

  Args:
    content: from JSON, by column.
    types: of the run's columns.

  Raises:
    Refusal: for an unknown column and a value that does not fit its column.
  """
  checked = {}
  for name, value in content.items():
    if name not in types:
      known = f'there are {", ".join(types)}' if types else 'there are none'
      raise refusals.Refusal(
          f'Column {shown(name)} is not read by this run; {known}.'
          + errors.did_you_mean(name, types),
          code='unknown_column',
          where=name if name.isidentifier() else '',
      )
    if value is not None:
      checked[name] = _check_value(name, value, types[name])
  return checked


def _check_value(name: str, value: Any, kind: column_types.ColumnType) -> Any:
  """A value that fits its column."""

  def refuse(wanted: str) -> refusals.Refusal:
    return refusals.Refusal(
        f'{name} is {shown(value)}, but it takes {wanted}.',
        code='bad_value',
        where=name,
    )

  if kind.kind == 'numbered tags':
    raise refusals.Refusal(
        f'{name}: the tags of this run have no names that they could be known '
        'by; leave the column out.',
        code='unnamed_tags',
        where=name,
    )
  if kind.kind == 'number':
    if not _is_number(value):
      raise refuse('a finite number')
    return value
  if kind.kind == 'strings':
    if not _is_text(value):
      raise refuse('a string')
    return value
  if kind.kind == 'vectors':
    fits = isinstance(value, list) and len(value) == kind.width
    if not fits or not all(map(_is_number, value)):
      raise refuse(f'a list of {kind.width} finite numbers')
    return value
  if kind.kind == 'sequences':
    whole = lambda x: _is_number(x) and isinstance(x, int)
    same = isinstance(value, list) and (
        all(map(_is_text, value)) or all(map(whole, value))
    )
    if not same:
      raise refuse('a list of strings, or of whole numbers')
    return value
  if isinstance(value, list) and all(map(_is_text, value)):
    return value
  if isinstance(value, dict) and all(map(_is_text, value)):
    if all(map(_is_number, value.values())):
      return value
  raise refuse('a list of strings, or an object of strings and their weights')


def _is_number(value: Any) -> bool:
  """A number that float32 holds; true and false are none."""
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    return False
  if isinstance(value, int):
    return -_WHOLE <= value < _WHOLE
  return math.isfinite(value) and abs(value) <= _LARGEST


def _is_text(value: Any) -> bool:
  """A string that can be written as UTF-8, which half of a pair can not."""
  if not isinstance(value, str):
    return False
  return not any('\ud800' <= letter <= '\udfff' for letter in value)


def shown(value: Any) -> str:
  """A value for a message, cut where it is long."""
  text = ascii(value)
  return text if len(text) <= _SHOWN else f'{text[:_SHOWN]} ...'


def to_entities(
    ids: np.ndarray, content: Sequence[Mapping[str, Any]], types: Types
) -> schema.Entities:
  """Checked content of N rows as the table that encoders read.

  Args:
    ids: int64 or str [N].
    content: of each row.
    types: of the run's columns.

  Raises:
    Refusal: for a value that Arrow cannot hold.
  """
  columns: dict[str, schema.Column] = {}
  for name, kind in types.items():
    values = [row.get(name) for row in content]
    if any(value is not None for value in values):
      columns[name] = _to_column(name, values, kind)
  return schema.Entities(ids, columns)


def _to_column(
    name: str, values: list[Any], kind: column_types.ColumnType
) -> schema.Column:
  """One column, read by the same code as tables from files."""
  lists = lambda wanted: (name,) if kind.kind == wanted else ()
  settings = config_data.TablesConfig(
      tag_columns=lists('tags'),
      vector_columns=lists('vectors'),
      sequence_columns=lists('sequences'),
      tag_weight_separator='',
  )
  arrow: pa.DataType | None = _ARROW.get(kind.kind)
  if kind.kind == 'tags':
    values = [_weighted(value) for value in values]
  elif kind.kind == 'number':
    values = [_as_whole(value) for value in values]
    whole = all(value is None or isinstance(value, int) for value in values)
    arrow = pa.int64() if whole else pa.float64()
  elif kind.kind == 'sequences':
    # Two rows may hold sequences of two kinds; both are known as strings then.
    has_text = any(isinstance(x, str) for row in values for x in row or ())
    arrow = pa.list_(pa.string() if has_text else pa.int64())
    if has_text:
      values = [row and [str(x) for x in row] for row in values]
  try:
    column = pa.chunked_array([pa.array(values, arrow)])
    read, why = arrow_columns.to_column(column, name, settings, False)
  except (pa.ArrowInvalid, arrow_values.ColumnError) as error:
    raise refusals.Refusal(
        f'{name}: {errors.cause(error)}.', code='bad_value', where=name
    ) from error
  if read is None:
    raise refusals.Refusal(f'{name}: {why}.', code='bad_value', where=name)
  return read


def _as_whole(number: Any) -> Any:
  """30.0 as 30, so that it does not make a column less precise."""
  is_whole = isinstance(number, float) and number.is_integer()
  return int(number) if is_whole and abs(number) < _EXACT else number


def _weighted(tags: Any) -> list[tuple[str, float]] | None:
  """Tags with their weights; one that is listed twice counts twice."""
  if tags is None:
    return None
  if isinstance(tags, dict):
    return [(name, float(weight)) for name, weight in tags.items()]
  return [(name, 1.0) for name in tags]


def json_schema(types: Types) -> dict[str, Any]:
  """What content of these columns is, for OpenAPI."""
  number = {'type': 'number', 'minimum': -_LARGEST, 'maximum': _LARGEST}
  words = {'type': 'array', 'items': {'type': 'string'}}
  whole = {'type': 'array', 'items': {'type': 'integer', 'format': 'int64'}}
  weights = {'type': 'object', 'additionalProperties': number}

  def describe(kind: column_types.ColumnType) -> list[dict[str, Any]]:
    found: dict[str, list[dict[str, Any]]] = {
        'number': [number],
        'strings': [{'type': 'string'}],
        'tags': [words, weights],
        'vectors': [
            {
                'type': 'array',
                'items': number,
                'minItems': kind.width,
                'maxItems': kind.width,
            }
        ],
        'sequences': [words, whole],
        'numbered tags': [],
    }
    return found[kind.kind]

  return {
      'type': 'object',
      'additionalProperties': False,
      'properties': {
          name: {'anyOf': [*describe(kind), {'type': 'null'}]}
          for name, kind in types.items()
      },
  }
