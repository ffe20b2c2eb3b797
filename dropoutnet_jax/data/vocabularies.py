# SPDX-License-Identifier: Apache-2.0
"""Vocabularies of learnt embeddings, from the training rows of both sides.

Features that name the same embedding table, on one side or both, share one
vocabulary: a user's sequence of viewed items and the ids of the items
themselves then meet in the same rows of the table. Cold rows are never looked
at. Values are numbered in alphabetical order from 1 on; 0 is for all others.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools

import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import columns
from dropoutnet_jax.data import id_values
from dropoutnet_jax.data import schema


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingRows:
  """What is learnt from on one side.

  Attributes:
    side: 'user' or 'item'.
    features: all of that side, of any group.
    entities: its table.
    rows: int64 [N], those with training pairs, ascending.
    embedded: features with embeddings, by their position.
  """

  side: str
  features: Sequence[config.Feature]
  entities: schema.Entities
  rows: np.ndarray

  @functools.cached_property
  def embedded(self) -> dict[int, 'Embedded']:
    return _find_embedded(self.features, self.side)


@dataclasses.dataclass(frozen=True)
class Embedded:
  """A feature with an embedding, and what it is called.

  Attributes:
    feature: its settings.
    field: where it is in the configuration, for errors.
    name: unique on its side.
    table: name of the embedding table; its own where the feature names none.
  """

  feature: config.Feature
  field: str
  name: str
  table: str


def training_rows(
    side: str,
    features: Sequence[config.Feature],
    entities: schema.Entities,
    rows: np.ndarray,
) -> TrainingRows:
  """Makes TrainingRows of rows in any order.

  Raises:
    UserError: there are features and no row to fit them on.
  """
  rows = np.unique(np.asarray(rows, np.int64))
  if features and not len(rows):
    raise errors.UserError(
        f'config.features.{side}: no {side} has a training pair, so there is '
        'nothing to fit the features on. Hold out less in config.data.'
    )
  named = entities.with_id_name(f'{side}_id')
  return TrainingRows(side, features, named, rows)


def _find_embedded(
    features: Sequence[config.Feature], side: str
) -> dict[int, Embedded]:
  """Names the features of a side and their tables."""
  found: dict[int, Embedded] = {}
  used: set[str] = set()
  for number, feature in enumerate(features):
    if not feature.embedding:
      continue
    name, count = feature.name, 1
    while name in used:
      count += 1
      name = f'{feature.name} {count}'
    used.add(name)
    table = feature.embedding_table or f'{side}.{name}'
    field = f'config.features.{side}[{number}]'
    found[number] = Embedded(feature, field, name, table)
  return found


def fit(
    sides: Sequence[TrainingRows],
) -> tuple[dict[str, np.ndarray], list[str]]:
  """Collects the values of at least `min_rows` training rows.

  Each feature of a table counts the rows that have a value; the counts of all
  of them are added up.

  Args:
    sides: one or both.

  Returns:
    By name of the embedding table, its vocabulary: str [K], ascending; without
    values where the features have buckets. And notes for the user.

  Raises:
    UserError: a column is missing or does not fit its feature, or no value of
      a table is frequent enough.
  """
  counts: dict[str, dict[str, dict[str, int]]] = {}
  found: dict[str, Embedded] = {}
  for side in sides:
    for one in side.embedded.values():
      found[one.table] = one
      of_table = counts.setdefault(one.table, {})
      if not (one.feature.hash_buckets or one.feature.num_buckets):
        column = columns.read(side.entities, one.feature, one.field, side.rows)
        of_table[one.field] = _count(one, column)
  vocabularies, notes = {}, []
  for table, of_features in counts.items():
    one = found[table]
    vocabularies[table] = _choose(one, of_features)
    notes += _describe_strangers(table, of_features)
  return vocabularies, notes


def _count(one: Embedded, column: schema.Column) -> dict[str, int]:
  """Rows that have each value."""
  edges = id_values.fit_edges(one.feature, column, one.field)
  values = id_values.of_column(column, edges)
  return dict(zip(values.names, values.count_rows().tolist()))


def _choose(
    one: Embedded, of_features: Mapping[str, Mapping[str, int]]
) -> np.ndarray:
  """The frequent ones of all values, in alphabetical order."""
  if not of_features:
    return np.zeros(0, object)
  total: dict[str, int] = {}
  for count in of_features.values():
    for value, rows in count.items():
      total[value] = total.get(value, 0) + rows
  least = one.feature.min_rows
  kept = sorted(value for value, rows in total.items() if rows >= least)
  if not kept:
    raise errors.UserError(
        f'{", ".join(of_features)}: {len(total):,} values occur in training '
        f'rows, none of them in {least} or more, so that embedding table '
        f'{one.table!r} would be empty. Lower min_rows, or leave out what has '
        'no values.'
    )
  return np.array(kept, object)


def _describe_strangers(
    table: str, of_features: Mapping[str, Mapping[str, int]]
) -> list[str]:
  """A note on features that share a table, but have no value in common."""
  fields = [field for field, count in of_features.items() if count]
  notes = []
  for number, field in enumerate(fields[1:], 1):
    others = fields[:number]
    values = of_features[field].keys()
    if any(values & of_features[other].keys() for other in others):
      continue
    shown = [sorted(of_features[name])[0] for name in (others[0], field)]
    notes.append(
        f'{field} shares embedding table {table!r} with {others[0]}, but they '
        f'have no value in common; values are such as {shown[1]!r} here and '
        f'{shown[0]!r} there.'
    )
  return notes
