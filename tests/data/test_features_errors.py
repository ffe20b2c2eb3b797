# SPDX-License-Identifier: Apache-2.0
"""Content features: what is always true of them, and what is refused."""

import json
import math

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import features
from dropoutnet_jax.data import schema

Feature = config.Feature
NUMBERS = st.floats(width=32, allow_nan=True, allow_infinity=False)


@st.composite
def tables(draw):
  """A table of 2 to 8 rows with a column of each kind, of wild values."""
  num_rows = draw(st.integers(2, 8))
  rows = lambda values: st.lists(values, min_size=num_rows, max_size=num_rows)
  count = st.sampled_from([0.0, 0.0, 1.0, 2.5, 1e-30, 1e30])
  tags = np.array(draw(rows(st.tuples(*[count] * 4))), np.float32)
  category = draw(rows(st.sampled_from(['a', 'b', '', None])))
  vector = np.array(draw(rows(st.tuples(NUMBERS, NUMBERS))), np.float32)
  columns = {
      'tags': schema.Tags(scipy.sparse.csr_array(tags)),
      'number': np.array(draw(rows(NUMBERS)), np.float32),
      'category': np.array(category, object),
      'vector': vector,
      'key': np.array(draw(rows(st.sampled_from(['0', '2', None]))), object),
  }
  return schema.Entities(np.arange(num_rows), columns)


RATIO = '(number ** 2 - 1) / number'
FEATURES = {
    'tags': [
        Feature('tags', counts='raw', idf='none'),
        Feature('tags', counts='log'),
        Feature('tags', rank=1),
        Feature('tags', rank=2, counts='raw', idf='none'),
    ],
    'number': [
        Feature('number', 'numeric'),
        Feature('number', 'numeric', transform='min_max'),
        Feature('number', 'numeric', transform='quantile'),
        Feature('number', 'numeric', num_intervals=3),
    ],
    'combined': [
        Feature('pair', 'cross', columns=('category', 'key')),
        Feature('tags', 'lookup', key='key', transform='log1p'),
        Feature('ratio', 'expression', expression=RATIO),
        Feature('pair', 'cross', columns=('key', 'category'), hash_buckets=2),
    ],
    'category': [Feature('category', 'category', min_rows=2)],
    'vector': [Feature('vector', 'dense'), Feature('vector', 'numeric')],
}


@hypothesis.settings(deadline=None, max_examples=120, derandomize=True)
@hypothesis.given(
    table=tables(),
    settings=st.lists(
        st.sampled_from(sum(FEATURES.values(), [])), min_size=1, max_size=4
    ),
    scaling=st.sampled_from(['row', 'column']),
    num_training=st.integers(1, 8),
)
def test_content_is_finite_and_of_norm_one(
    table, settings, scaling, num_training
):
  train = np.arange(min(num_training, len(table)))
  try:
    encoder = features.fit(settings, scaling, table, train)
  except errors.UserError:  # Nothing frequent enough, or a rank too large.
    hypothesis.assume(False)
  content = encoder.transform(table)
  assert content.dense.shape == (len(table), len(content.dense_names))
  assert content.sparse.shape == (len(table), len(content.sparse_names))
  assert content.dense.dtype == content.sparse.dtype == np.float32
  assert np.isfinite(content.dense).all()
  norms = np.linalg.norm(content.sparse.toarray().astype(float), axis=1)
  assert np.all((norms == 0) | (np.abs(norms - 1) < 1e-5))
  norms = np.linalg.norm(content.dense.astype(float), axis=1)
  if scaling == 'row':
    assert np.all((norms == 0) | (np.abs(norms - 1) < 1e-5))
  else:
    assert np.abs(content.dense).max(initial=0) <= 5


def make_table(**columns):
  tags = scipy.sparse.csr_array(np.array([[1, 0], [1, 2], [0, 1]], np.float32))
  columns = {
      'tags': schema.Tags(tags),
      'year': np.array([1999, math.nan, 2001], np.float32),
      'country': np.array(['de', None, 'fr'], object),
      'image': np.ones((3, 2), np.float32),
      **columns,
  }
  return schema.Entities(np.array([11, 12, 13]), columns)


def with_weight(value):
  tags = scipy.sparse.csr_array(np.array([[1, 0], [1, value]], np.float32))
  return schema.Tags(scipy.sparse.vstack([tags, tags[:1]], format='csr'))


@pytest.mark.parametrize(
    'feature, columns, message',
    [
        (
            Feature('countri', 'category'),
            {},
            "no column 'countri'. Columns are: tags, year, country, image. Did "
            "you mean 'country'?",
        ),
        (
            Feature('tags', 'numeric'),
            {},
            "'tags' holds tags, which kind='numeric' does not fit; use "
            "kind='tags' or kind='lookup'.",
        ),
        (Feature('tags', 'category'), {}, "use kind='tags'"),
        (Feature('year', 'tags'), {}, "use kind='numeric'"),
        (Feature('year', 'dense'), {}, "use kind='numeric'"),
        (Feature('year', 'text'), {}, 'holds one number per row'),
        (Feature('image', 'category'), {}, 'holds several numbers per row'),
        (
            Feature('country', 'numeric'),
            {},
            "fit: 2 of 2 values are no plain numbers, such as 'de' of id 11; "
            "correct them, or use kind='category' or kind='text'",
        ),
        (
            Feature('age', 'numeric'),
            {'age': np.array(['3', 'NaN', '4 years'], object)},
            "1 of 3 values are no plain numbers, such as '4 years' of id 13",
        ),
        (
            Feature('country', 'tags'),
            {},
            "kind='text', or where they are lists ... data.tables.tag_columns.",
        ),
        (Feature('country', 'dense'), {}, 'data.tables.vector_columns.'),
        (Feature('country', 'lookup', key='x'), {}, 'data.tables.tag_columns.'),
        (
            Feature('year', 'category'),
            {'year': np.array([1, 2.5, math.nan], np.float32)},
            'that is no whole number in 1 rows, like that of id 12',
        ),
        (
            Feature('year', 'category'),
            {'year': np.array([2.0**53, math.nan, -30.5])},
            'that is no whole number in 1 rows, like that of id 13',
        ),
        (
            Feature('year', 'category'),
            {'year': np.array([2.0**24, 2.5, -0.5], np.float32)},
            'that is no whole number in 2 rows, like that of id 12',
        ),
        (
            Feature('year', 'category'),
            {'year': np.array([1, 2, 2.0**24], np.float32)},
            'no whole number below 2**24 in 1 rows, like that of id 13',
        ),
        (
            Feature('year', 'category'),
            {'year': np.array([np.inf, 2, 3])},
            'no whole number below 2**53 in 1 rows, like that of id 11',
        ),
        (
            Feature('year', 'category'),
            {'year': np.array([-(2.0**53), 2.0**52, 2.0**24])},
            'no whole number below 2**53 in 1 rows, like that of id 11',
        ),
        (
            Feature('country', 'text'),
            {'country': np.array([None, 'de', 7], object)},
            'a text that is no string in 1 rows, like that of id 13',
        ),
        (Feature('image', 'tags'), {}, "use kind='dense' or kind='numeric'"),
        (
            Feature('x', 'dense'),
            {'x': np.zeros((3, 2, 2))},
            'holds values of an unknown type, ... leave the feature out',
        ),
        (
            Feature('year', 'numeric'),
            {'year': np.array([1, np.inf, 3], np.float32)},
            "'year' has a number that is infinite ... id 12",
        ),
        (
            Feature('image', 'dense'),
            {'image': np.array([[1, 2], [3, 4], [5, -1e39]])},
            'infinite or beyond float32 in 1 rows, like that of id 13',
        ),
        (
            Feature('country', 'category'),
            {'country': np.array(['de', 7, 7.5], object)},
            'neither a string nor a whole number in 1 rows, like that of id 13',
        ),
        (
            Feature('tags'),
            {'tags': with_weight(np.nan)},
            'a weight that is infinite, NaN, ... id 12',
        ),
        (
            Feature('tags', counts='log'),
            {'tags': with_weight(-1)},
            'or < 0 in a log in 1 rows, like that of id 12',
        ),
        (Feature('tags', rank=3), {}, 'item[0].rank is 3, but ... here is 2:'),
        (Feature('tags', min_rows=3), {}, 'Lower min_rows'),
        (Feature('country', 'category', min_rows=2), {}, 'Lower min_rows'),
    ],
)
def test_user_errors(feature, columns, message):
  with pytest.raises(errors.UserError) as caught:
    features.fit([feature], 'row', make_table(**columns), np.arange(3))
  text = str(caught.value)
  assert text.startswith('config.features.item[0]') and '\n' not in text
  for part in message.split(' ... '):
    assert part in text


def test_no_training_rows():
  with pytest.raises(errors.UserError, match='no user has a training pair'):
    features.fit(
        [Feature('tags')], 'row', make_table(), np.zeros(0, int), side='user'
    )


def test_negative_weights_are_fine_without_a_logarithm():
  table = make_table(tags=with_weight(-1))
  settings = [Feature('tags', counts='raw', idf='none')]
  sparse = features.fit(settings, 'row', table, np.arange(3)).transform(table)
  half = math.sqrt(0.5)
  np.testing.assert_allclose(sparse.sparse.toarray()[1], [half, -half])


@pytest.mark.parametrize(
    'columns, message',
    [
        ({'image': np.ones((3, 5))}, 'has 5 numbers per row, but had 2'),
        ({'year': np.ones((3, 2))}, 'has 2 numbers per row, but had 1'),
        ({'country': np.ones((3, 1))}, r"user\[2\]: .*kind='dense' or"),
    ],
)
def test_other_tables_than_in_training(columns, message):
  settings = [
      Feature('image', 'dense'),
      Feature('year', 'numeric'),
      Feature('country', 'category'),
  ]
  encoder = features.fit(
      settings, 'row', make_table(), np.arange(3), side='user'
  )
  with pytest.raises(errors.UserError, match=message):
    encoder.transform(make_table(**columns))
  table = make_table()
  del table.columns['year']
  with pytest.raises(errors.UserError, match="no column 'year'"):
    encoder.transform(table)


def save_item(folder):
  encoder = features.fit([Feature('tags')], 'row', make_table(), np.arange(3))
  encoder.save(str(folder), 'item')
  return folder / 'features.json', folder / 'features_item.npz'


def change_json(path, change):
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    'damage, message',
    [
        (lambda text, npz: text.unlink(), 'cannot be read'),
        (lambda text, npz: npz.unlink(), 'does not exist'),
        (lambda text, npz: text.write_text('{"format"'), 'is damaged'),
        (lambda text, npz: text.write_text('[]'), 'is damaged'),
        (lambda text, npz: text.write_bytes(b'\xff'), 'is damaged'),
        (lambda text, npz: npz.write_bytes(b'PK'), 'is damaged'),
        (
            lambda text, npz: change_json(text, lambda c: c.update(format=9)),
            'has format 9; this version reads format 2',
        ),
        (
            lambda text, npz: change_json(text, lambda c: c['sides'].clear()),
            "holds no features of side 'item', only of: none",
        ),
        (
            lambda text, npz: change_json(
                text, lambda c: c['sides']['item'].pop('features')
            ),
            "does not describe the features of side 'item'",
        ),
        (
            lambda text, npz: np.savez(npz, **{'0/encoder/weight': np.ones(2)}),
            'do not belong together',
        ),
    ],
)
def test_damaged_folders(damage, message, tmp_path):
  paths = save_item(tmp_path)
  features.load(str(tmp_path), 'item')
  damage(*paths)
  with pytest.raises(errors.UserError, match=message):
    features.load(str(tmp_path), 'item')


def test_a_folder_that_is_none(tmp_path):
  encoder = features.fit([Feature('tags')], 'row', make_table(), np.arange(3))
  with pytest.raises(errors.UserError, match='cannot be written'):
    encoder.save(str(tmp_path / 'absent'), 'item')
  assert list(tmp_path.iterdir()) == []
