# SPDX-License-Identifier: Apache-2.0
"""Columns that no embedding can be learnt for: each refusal names the field."""

import math

import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import sides

Feature = config.Feature
FIELD = 'config.features.item[1]'


def strings(*values):
  return np.array(values, object)


def tags(rows):
  matrix = scipy.sparse.csr_array(np.array(rows, np.float32))
  return schema.Tags(matrix, np.array(['a', 'b']))


def sequences(values, starts):
  return schema.Sequences(np.array(values, object), np.array(starts))


COLUMNS = {
    'genre': strings('drama', 'comedy', 'drama'),
    'seen': sequences(['a', 'b', 'a'], [0, 2, 2, 3]),
    'tags': tags([[1, 1], [1, 0], [1, 2]]),
    'price': np.array([1, 2, math.nan], np.float32),
    'size': np.ones((3, 2), np.float32),
}


@pytest.mark.parametrize(
    'feature, columns, message',
    [
        (
            Feature('genre', 'category', min_rows=3),
            {},
            f'{FIELD}: 2 values occur in training rows, none of them in 3 or '
            "more, so that embedding table 'item.genre' would be empty. Lower "
            'min_rows',
        ),
        (
            Feature('genre', 'category'),
            {'genre': strings(None, None, None)},
            f'{FIELD}: 0 values occur in training rows',
        ),
        (
            Feature('genre', 'category', hash_buckets=5),
            {'genre': strings(None, None, None)},
            'has no value that an embedding could be learnt for in 3 training '
            'rows: they are missing. Mend that',
        ),
        (
            Feature('seen', 'sequence', num_buckets=5),
            {},
            "column 'seen' has no value that an embedding could be learnt for "
            'in 3 training rows: they are missing or not in [0, 5)',
        ),
        (
            Feature('tags'),
            {'tags': tags([[1, 0], [1, 0], [1, 0]])},
            'they are missing or of weight 0 (with idf, what all rows have '
            "weighs 0: idf='none' keeps it)",
        ),
        (
            Feature('tags'),
            {'tags': tags([[1, 0], [1, -1], [1, 0]])},
            'a weight that is NaN, < 0 or above 1e+30 in 1 rows, like that of '
            'id 12',
        ),
        (
            Feature('tags', counts='raw'),
            {'tags': tags([[1, 0], [1, 1], [1, 2e30]])},
            'above 1e+30 in 1 rows, like that of id 13',
        ),
        (
            Feature('tags', 'sequence'),
            {},
            "holds tags, which kind='sequence' does not fit; use kind='tags' "
            "or kind='lookup', or name the column in config.data.tables."
            'sequence_columns',
        ),
        (
            Feature('genre', 'sequence'),
            {},
            'or name the column in config.data.tables.sequence_columns',
        ),
        (
            Feature('seen', 'category'),
            {},
            "holds sequences, which kind='category' does not fit; use "
            "kind='sequence' or kind='tags'.",
        ),
        (
            Feature('seen', 'sequence'),
            {'seen': sequences(['a', 0.5, 'b'], [0, 1, 1, 3])},
            "'seen' has a value that is neither a string nor a whole number in "
            '1 rows, like that of id 13',
        ),
        (
            Feature('itemid', 'category'),
            {},
            "no column 'itemid'. Columns are: genre, seen, tags, price, size. "
            "Did you mean 'item_id'?",
        ),
        (
            Feature('user_id', 'category'),
            {},
            "no column 'user_id'.",
        ),
        (
            Feature('item_id', 'text'),
            {},
            "'item_id' holds one number per row, which kind='text' does not",
        ),
        (
            Feature('size', 'numeric', num_intervals=2),
            {},
            "column 'size' has 2 numbers per row, but only single numbers are "
            'cut into intervals',
        ),
    ],
)
def test_columns(feature, columns, message):
  feature.embedding = 4
  table = schema.Entities(np.array([11, 12, 13]), {**COLUMNS, **columns})
  tables = {'user': schema.Entities(np.arange(2)), 'item': table}
  settings = config.FeaturesConfig(item=[Feature('genre', 'category'), feature])
  if feature.column == 'genre':
    settings.item[0] = Feature('tags', idf='none')
  settings.validate()
  rows = {'user': np.arange(2), 'item': np.arange(3)}
  with pytest.raises(errors.UserError) as caught:
    sides.fit(settings, tables, rows, seed=0)
  text = str(caught.value)
  assert message in text, text
  assert text.startswith(FIELD) and '\n' not in text


def test_shared_tables_name_all_that_share():
  share = lambda column, kind: Feature(
      column, kind, embedding=4, embedding_table='t', min_rows=9
  )
  settings = config.FeaturesConfig(
      user=[share('user_id', 'category')], item=[share('seen', 'sequence')]
  )
  settings.validate()
  tables = {
      'user': schema.Entities(np.arange(2)),
      'item': schema.Entities(np.array([11, 12, 13]), COLUMNS),
  }
  rows = {'user': np.arange(2), 'item': np.arange(3)}
  with pytest.raises(errors.UserError) as caught:
    sides.fit(settings, tables, rows, seed=0)
  assert str(caught.value).startswith(
      'config.features.user[0], config.features.item[0]: 4 values occur in '
      "training rows, none of them in 9 or more, so that embedding table 't'"
  )


def test_preference_has_no_sparse_content_to_fall_back_on():
  """More tags than become dense columns, and nowhere else to go."""
  matrix = scipy.sparse.csr_array(np.eye(300, dtype=np.float32))
  table = schema.Entities(np.arange(300), {'tags': schema.Tags(matrix)})
  tables = {'user': schema.Entities(np.arange(2)), 'item': table}
  rows = {'user': np.arange(2), 'item': np.arange(300)}
  settings = config.FeaturesConfig(item=[Feature('tags', group='preference')])
  with pytest.raises(errors.UserError) as caught:
    sides.fit(settings, tables, rows, seed=0)
  assert str(caught.value) == (
      "config.features.item[0]: column 'tags' has 300 tags, rank=0 and no "
      'sparse preference, so nothing of it would be read: more than 256 tags '
      'do not become dense as they are. Set a rank, like 300, or an embedding, '
      'like 16.'
  )


def test_a_side_without_training_rows():
  tables = {
      side: schema.Entities(np.arange(2), {'x': strings('a', 'b')})
      for side in ('user', 'item')
  }
  settings = config.FeaturesConfig(
      user=[Feature('x', 'category', 'preference', embedding=2)]
  )
  rows = {'user': np.arange(0), 'item': np.arange(2)}
  with pytest.raises(errors.UserError, match='no user has a training pair'):
    sides.fit(settings, tables, rows, seed=0)
