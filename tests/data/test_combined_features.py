# SPDX-License-Identifier: Apache-2.0
"""Intervals, buckets, crosses, lookups and expressions as content of a side."""

import json
import math

import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import features
from dropoutnet_jax.data import schema

NAN = math.nan
Feature = config.Feature
KINDS = [
    Feature('price', 'numeric', transform='log1p'),
    Feature('price', 'numeric', transform='min_max'),
    Feature('price', 'numeric', transform='quantile'),
    Feature('price', 'numeric', transform='none'),
    Feature('price', 'numeric', boundaries=(2.0, 5.0)),
    Feature('price', 'numeric', num_intervals=3, sparse=False),
    Feature('shop', 'category', hash_buckets=4),
    Feature('month', 'category', num_buckets=6),
    Feature('when', 'cross', columns=('shop', 'month'), min_rows=2),
    Feature('when', 'cross', columns=('month', 'shop'), hash_buckets=8),
    Feature('scores', 'lookup', key='shop'),
    Feature('scores', 'lookup', key='month', boundaries=(1.5,)),
    Feature('ratio', 'expression', expression='log(price - 2) / month'),
    Feature('ratio', 'expression', expression='price % 3', num_intervals=2),
]


def make_shelf(seed=0, num_rows=40):
  """Rows with gaps in every column."""
  rng = np.random.default_rng(seed)
  gaps = lambda: rng.random(num_rows) < 0.15
  price = rng.choice([0.5, 1, 2, 3, 4.5, 7], num_rows).astype(np.float32)
  month = rng.integers(0, 8, num_rows).astype(np.float32)
  price[gaps()] = month[gaps()] = NAN
  shop = rng.choice(np.array(['a', 'b', f'{seed}', None], object), num_rows)
  flags = (rng.random((num_rows, 4)) < 0.5) * rng.integers(1, 4, 4)
  scores = scipy.sparse.csr_array(flags.astype(np.float32))
  columns = {
      'price': price,
      'month': month,
      'shop': shop,
      'scores': schema.Tags(scores, np.array(['a', 'b', '0', '3'])),
      'blurb': np.array(['text'] * num_rows, object),
      'image': np.ones((num_rows, 2), np.float32),
  }
  return schema.Entities(np.arange(100, 100 + num_rows), columns)


def select(entities, rows):
  columns = {
      name: schema.Tags(column.matrix[rows], column.names)
      if isinstance(column, schema.Tags)
      else column[rows]
      for name, column in entities.columns.items()
  }
  return schema.Entities(entities.ids[rows], columns)


def append(first, second):
  """The rows of one table, then those of another."""
  columns = {}
  for name, column in first.columns.items():
    other = second.columns[name]
    if isinstance(column, schema.Tags):
      both = scipy.sparse.vstack([column.matrix, other.matrix], format='csr')
      columns[name] = schema.Tags(scipy.sparse.csr_array(both), column.names)
    else:
      columns[name] = np.concatenate([column, other])
  return schema.Entities(np.arange(len(first) + len(second)), columns)


def assert_same(first, second):
  """Two contents are equal bit by bit."""
  np.testing.assert_array_equal(first.dense, second.dense)
  np.testing.assert_array_equal(first.sparse.toarray(), second.sparse.toarray())
  assert first.dense_names == second.dense_names
  assert first.sparse_names == second.sparse_names


@pytest.mark.parametrize('scaling', ('row', 'column'))
def test_cold_rows_are_not_seen_and_rows_are_encoded_one_by_one(scaling):
  warm, train = make_shelf(), np.arange(40)
  first = features.fit(KINDS, scaling, append(warm, make_shelf(1)), train)
  second = features.fit(KINDS, scaling, append(warm, make_shelf(2)), train)
  assert_same(first.transform(warm), second.transform(warm))
  assert first.notes == second.notes
  whole = first.transform(warm)
  assert whole.dense.shape == (40, len(whole.dense_names))
  for row in (0, 3, 17):
    alone = first.transform(select(warm, [row]))
    np.testing.assert_array_equal(alone.dense, whole.dense[[row]])
    np.testing.assert_array_equal(
        alone.sparse.toarray(), whole.sparse[[row]].toarray()
    )
  none = first.transform(select(warm, np.zeros(0, int)))
  assert none.dense.shape == (0, whole.dense.shape[1])


@pytest.mark.parametrize('scaling', ('row', 'column'))
def test_loaded_encoders_are_the_saved_ones(scaling, tmp_path):
  saved = features.fit(KINDS, scaling, make_shelf(), np.arange(30))
  saved.save(str(tmp_path), 'item')
  loaded = features.load(str(tmp_path), 'item')
  new = make_shelf(5)
  assert_same(saved.transform(new), loaded.transform(new))
  assert loaded.notes == saved.notes
  kept = [fitted.feature for fitted in loaded.features]
  assert kept == KINDS
  side = json.loads((tmp_path / 'features.json').read_text())['sides']['item']
  types = [feature['type'] for feature in side['features']]
  assert types[3:7] == [
      'NumericEncoder',
      'IntervalEncoder',
      'IntervalEncoder',
      'BucketEncoder',
  ]
  assert side['features'][4]['encoder']['edges'] == [2, 5]


def test_names_and_notes():
  encoder = features.fit(KINDS, 'column', make_shelf(), np.arange(40))
  names = encoder.dense_names
  assert {
      'price < 2',
      'price in [2, 5)',
      'price >= 5',
      'month=3',
      'scores[shop]',
      'scores[shop] present',
      'scores[month] >= 1.5',
      'ratio',
      'ratio present',
  } <= set(names)
  assert any(name.startswith('shop in bucket ') for name in names)
  assert any(name.startswith('when=a & ') for name in names)
  text = '\n'.join(encoder.notes)
  for part in (
      "Feature of items 'scores[shop]' has no number in ",
      "of 40 training rows (no tag that 'shop' names).",
      "Feature of items 'ratio' has no number in ",
      'training rows (a column is missing: ',
      ', division by 0: ',
      ', a logarithm of 0 or less: ',
      "Feature of items 'month' is no whole number in [0, 6) in ",
  ):
    assert part in text, text


def test_by_hand():
  table = schema.Entities(
      np.arange(4),
      {
          'price': np.array([3, 8, 15, NAN], np.float32),
          'pages': np.array([0, 2, 4, 1], np.float32),
          'shop': np.array(['x', 'y', 'x', 'x'], object),
      },
  )
  settings = [
      Feature('price', 'numeric', transform='min_max'),
      Feature('each', 'expression', expression='price / pages'),
      Feature('shop pages', 'cross', columns=('shop', 'pages'), sparse=False),
  ]
  encoder = features.fit(settings, 'column', table, np.arange(4))
  dense = encoder.transform(table).dense
  assert encoder.dense_names == [
      'price',
      'price present',
      'each',
      'each present',
      'shop pages=x & 0',
      'shop pages=x & 1',
      'shop pages=x & 4',
      'shop pages=y & 2',
  ]
  # (4 - 3.875) and (3.75 - 3.875) over their deviation.
  expected = [
      [0, 1, 0, 0],
      [5 / 12, 1, 1, 1],
      [1, 1, -1, 1],
      [0, 0, 0, 0],
  ]
  np.testing.assert_allclose(dense[:, :4], expected, rtol=1e-5)
  # Standardised like categories: one of four is sqrt(3), else -1 / sqrt(3).
  third = 1 / math.sqrt(3)
  np.testing.assert_allclose(
      dense[0, 4:], [3 * third, -third, -third, -third], rtol=1e-6
  )


def test_numbers_of_each_transform_keep_directions_in_unit_rows():
  """Presence makes (z, 1) of z, so that no two numbers look alike."""
  prices = np.array([0, 1, 2, 4, NAN], np.float32)
  table = schema.Entities(np.arange(5), {'price': prices})
  for transform in ('log1p', 'min_max', 'quantile', 'none'):
    settings = [Feature('price', 'numeric', transform=transform)]
    dense = features.fit(settings, 'row', table, np.arange(5)).transform(table)
    rows = dense.dense
    assert len(np.unique(rows.round(4), axis=0)) == 5 and not rows[4].any()
    np.testing.assert_allclose(np.linalg.norm(rows[:4], axis=1), 1, rtol=1e-6)


WORDS = ' ... '


@pytest.mark.parametrize(
    'feature, message',
    [
        (
            Feature('loss', 'numeric', transform='log1p'),
            "'loss' has a number <= -1, which transform='log1p' has no "
            'logarithm for, in 2 rows, like that of id 101. Mend or remove it',
        ),
        (
            Feature('size', 'numeric', transform='log1p'),
            "'size' has a number <= -1, ... in 1 rows, like that of id 102",
        ),
        (
            Feature('x', 'expression', expression='-price', transform='log1p'),
            "'x' has a number <= -1, ... like that of id 100",
        ),
        (
            Feature('size', 'numeric', num_intervals=2),
            "column 'size' has 2 numbers per row, but only single numbers",
        ),
        (
            Feature('both', 'cross', columns=('shop', 'mont')),
            "[0].columns: there is no column 'mont' ... mean 'month'?",
        ),
        (
            Feature('both', 'cross', columns=('shop', 'part')),
            "[0].columns: column 'part' has fractions in 1 rows, like 0.5 of id"
            ' 101; a cross joins strings and whole numbers. Round them',
        ),
        (
            Feature('both', 'cross', columns=('shop', 'scores')),
            "'scores' holds tags, which kind='category' does not fit",
        ),
        (
            Feature('both', 'cross', columns=('shop', 'size')),
            "'size' holds several numbers per row, which kind='category'",
        ),
        (
            Feature('both', 'cross', columns=('shop', 'month'), min_rows=3),
            "column 'both' has 3 values in 3 training rows, none of them in 3",
        ),
        (
            Feature('both', 'cross', columns=('shop', 'far')),
            "[0].columns: column 'far' has a category that is no whole number "
            'below 2**24 in 1 rows, like that of id 102',
        ),
        (
            Feature('shop', 'lookup', key='month'),
            "'shop' holds strings, which kind='lookup' does not fit",
        ),
        (
            Feature('score', 'lookup', key='shop'),
            "no column 'score'. ... Did you mean 'scores'?",
        ),
        (
            Feature('scores', 'lookup', key='shops'),
            "[0].key: there is no column 'shops'. ... Did you mean 'shop'?",
        ),
        (
            Feature('scores', 'lookup', key='part'),
            "[0].key: column 'part' has a category that is no whole number",
        ),
        (
            Feature('worst', 'lookup', key='shop'),
            "column 'worst[shop]' has a weight that is infinite, NaN, ... 102",
        ),
        (
            Feature('x', 'expression', expression='price + mont'),
            "[0].expression is 'price + mont': at character 9: there is no "
            "column 'mont'. ... mean 'month'?",
        ),
        (
            Feature('x', 'expression', expression='price + shop'),
            "at character 9: column 'shop' holds strings; one number per row",
        ),
        (
            Feature('x', 'expression', expression='endless * 2'),
            "[0].expression: column 'endless' has a number that is infinite",
        ),
        (
            Feature('shop', 'category', num_buckets=5),
            "'shop' has whole numbers below 5 in 0 of 3 training rows",
        ),
        (
            Feature('price', 'numeric', boundaries=(1.0,), min_rows=4),
            'in no interval 4 or more. Lower min_rows',
        ),
    ],
)
def test_user_errors(feature, message):
  scores = scipy.sparse.csr_array(np.float32([[1, 0], [0, 1], [1, 1]]))
  worst = scores.copy()
  worst.data[-1] = NAN
  columns = {
      'price': np.array([2, 3, 4], np.float32),
      'loss': np.array([2, -1, -7], np.float32),
      'part': np.array([1, 0.5, 2], np.float32),
      'far': np.array([1, 2, 2**25], np.float32),
      'endless': np.array([1, math.inf, 2], np.float32),
      'month': np.array([1, 2, 3], np.int64),
      'size': np.array([[1, 2], [0, NAN], [1, -1]], np.float32),
      'shop': np.array(['a', 'b', 'a'], object),
      'scores': schema.Tags(scores, np.array(['a', 'b'])),
      'worst': schema.Tags(worst, np.array(['a', 'b'])),
  }
  table = schema.Entities(np.array([100, 101, 102]), columns)
  feature.validate('features.item[0]')
  with pytest.raises(errors.UserError) as caught:
    features.fit([feature], 'row', table, np.arange(3))
  text = str(caught.value)
  assert text.startswith('config.features.item[0]') and '\n' not in text
  for part in message.split(WORDS):
    assert part in text, text


def test_new_rows_are_refused_like_those_of_training():
  settings = [
      Feature('price', 'numeric', transform='log1p'),
      Feature('ratio', 'expression', expression='price / month'),
  ]
  shelf = make_shelf()
  encoder = features.fit(settings, 'row', shelf, np.arange(9), side='user')
  new = select(shelf, np.arange(2))
  new.columns['price'] = np.array([1, -3], np.float32)
  with pytest.raises(errors.UserError, match=r'user\[0\]: .* of id 101'):
    encoder.transform(new)
  new = select(shelf, np.arange(2))
  del new.columns['month']
  with pytest.raises(errors.UserError, match=r"character 9: .*'month'"):
    encoder.transform(new)
