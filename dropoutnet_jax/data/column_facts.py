# SPDX-License-Identifier: Apache-2.0
"""What the columns of a data set hold, for people who look at it."""

import dataclasses

import numpy as np

from dropoutnet_jax.data import schema

_EXAMPLES = 3
_WIDEST = 30  # characters of an example


@dataclasses.dataclass(frozen=True)
class ColumnFacts:
  """One column.

  Attributes:
    side: 'interactions', 'users' or 'items'.
    name: of the column; the ids are called 'id'.
    kind: 'strings', 'numbers', 'whole numbers', 'tags', 'sequences' or
      'vectors of D'.
    missing: share of rows without a value.
    distinct: number of distinct values; of tags, how many there are.
    examples: frequent values, most frequent first.
  """

  side: str
  name: str
  kind: str
  missing: float
  distinct: int
  examples: tuple[str, ...]

  def sentence(self) -> str:
    """'strings, 3.1 % missing, 61 distinct, such as red, blue'."""
    parts = [self.kind]
    if self.missing:
      parts.append(f'{self.missing:.1%} missing'.replace('%', ' %'))
    parts.append(f'{self.distinct:,} distinct')
    if self.examples:
      parts.append(f'such as {", ".join(self.examples)}')
    return ', '.join(parts)


def describe_schema(dataset: schema.Dataset) -> list[ColumnFacts]:
  """What interactions have beside ids, then ids and columns of both sides."""
  facts = []
  rows = dataset.impressions
  if rows is None:
    rows = dataset.interactions
  for name in ('label', 'weight', 'time', 'session'):
    values = getattr(rows, name)
    if values is not None:
      facts.append(_describe_column('interactions', name, values))
  for side in ('users', 'items'):
    entities: schema.Entities = getattr(dataset, side)
    facts.append(_describe_column(side, 'id', entities.ids))
    for name, column in entities.columns.items():
      facts.append(_describe_column(side, name, column))
  return facts


def _describe_column(
    side: str, name: str, column: schema.Column
) -> ColumnFacts:
  if isinstance(column, schema.Tags):
    return _describe_tags(side, name, column)
  if isinstance(column, schema.Sequences):
    return _describe_sequences(side, name, column)
  if column.ndim == 2:
    known = column[~np.isnan(column).any(axis=1)]
    missing = 1 - len(known) / max(len(column), 1)
    distinct = len(np.unique(known, axis=0))
    kind = f'vectors of {column.shape[1]}'
    return ColumnFacts(side, name, kind, missing, distinct, ())
  if column.dtype.kind in 'OU':
    kind = 'strings'
    known = column[column != None]  # noqa: E711, element by element
    known = known.astype(str)
  else:
    known = column[~np.isnan(column)]
    is_whole = bool(np.all(known == np.floor(known)))
    kind = 'whole numbers' if is_whole else 'numbers'
  values, counts = np.unique(known, return_counts=True)
  top = values[np.argsort(-counts, kind='stable')[:_EXAMPLES]]
  if kind == 'whole numbers':
    shown = [f'{value:.0f}' for value in top]
  else:
    shown = [f'{v:.6g}' if kind == 'numbers' else _cut(v) for v in top]
  missing = 1 - len(known) / max(len(column), 1)
  return ColumnFacts(side, name, kind, missing, len(values), tuple(shown))


def _describe_tags(side: str, name: str, tags: schema.Tags) -> ColumnFacts:
  """Most frequent tags as examples; a row without tags counts as missing."""
  num_rows, num_tags = tags.matrix.shape
  count = np.bincount(tags.matrix.indices, minlength=num_tags)
  top = np.argsort(-count, kind='stable')[:_EXAMPLES]
  names = np.arange(num_tags) if tags.names is None else tags.names
  empty = np.count_nonzero(np.diff(tags.matrix.indptr) == 0)
  return ColumnFacts(
      side,
      name,
      'tags',
      empty / max(num_rows, 1),
      num_tags,
      tuple(_cut(str(names[tag])) for tag in top),
  )


def _describe_sequences(
    side: str, name: str, column: schema.Sequences
) -> ColumnFacts:
  """Most frequent values as examples; an empty sequence counts as missing."""
  values, counts = np.unique(column.values.astype(str), return_counts=True)
  top = values[np.argsort(-counts, kind='stable')[:_EXAMPLES]]
  empty = np.count_nonzero(np.diff(column.starts) == 0)
  return ColumnFacts(
      side,
      name,
      'sequences',
      empty / max(len(column), 1),
      len(values),
      tuple(_cut(value) for value in top),
  )


def _cut(value: str) -> str:
  return value if len(value) <= _WIDEST else f'{value[:_WIDEST]}…'
