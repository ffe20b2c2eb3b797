# SPDX-License-Identifier: Apache-2.0
"""Content of a side: scaled, joined, kept, and applied to new rows."""

import json
import math

import numpy as np
import pytest
import scipy.sparse
from sklearn import preprocessing

from dropoutnet_jax import config
from dropoutnet_jax.data import features
from dropoutnet_jax.data import schema

NAN = math.nan
Feature = config.Feature
ALL_KINDS = [
    Feature(column='tags', rank=3, counts='log'),
    Feature(column='genres', idf='none'),
    Feature(column='year', kind='numeric'),
    Feature(column='country', kind='category'),
    Feature(column='image', kind='dense'),
    Feature(column='blurb', kind='text', counts='log', rank=2),
    Feature(column='shelf', kind='category'),
]


def make_world(seed=0, num_rows=40):
  """Items with a column of each kind, gaps in all of them."""
  rng = np.random.default_rng(seed)
  flags = lambda width: scipy.sparse.csr_array(
      (rng.random((num_rows, width)) < 0.25) * rng.integers(1, 4, width)
  ).astype(np.float32)
  year = rng.integers(1950, 2020, num_rows).astype(np.float32)
  year[rng.random(num_rows) < 0.1] = NAN
  country = rng.choice(np.array(['de', 'fr', 'jp', None], object), num_rows)
  image = rng.normal(size=(num_rows, 4)).astype(np.float32)
  image[rng.random(num_rows) < 0.1] = 0
  columns = {
      'tags': schema.Tags(flags(15), np.array([f't{n}' for n in range(15)])),
      'genres': schema.Tags(flags(5), np.array(list('abcde'))),
      'year': year,
      'country': country,
      'image': image,
      'blurb': make_texts(rng, num_rows),
      'shelf': rng.integers(1, 4, num_rows),
  }
  return schema.Entities(np.arange(num_rows), columns)


def make_texts(rng, num_rows):
  """Up to six words each, some of them found in a single world."""
  known = np.array(['Sun', 'moon,', 'STAR', "don't", str(rng.integers(999))])
  texts = [' '.join(rng.choice(known, n)) for n in rng.integers(0, 7, num_rows)]
  return np.array([text or None for text in texts], object)


def select(entities, rows):
  """Some rows of a table."""
  columns = {
      name: schema.Tags(column.matrix[rows], column.names)
      if isinstance(column, schema.Tags)
      else column[rows]
      for name, column in entities.columns.items()
  }
  return schema.Entities(entities.ids[rows], columns)


def replace_cold(entities, other, first_cold):
  """The table with the rows from `first_cold` on taken from another one."""
  columns = {}
  for name, column in entities.columns.items():
    if isinstance(column, schema.Tags):
      parts = (
          column.matrix[:first_cold],
          other.columns[name].matrix[first_cold:],
      )
      matrix = scipy.sparse.csr_array(scipy.sparse.vstack(parts))
      columns[name] = schema.Tags(matrix, column.names)
    else:
      parts = column[:first_cold], other.columns[name][first_cold:]
      columns[name] = np.concatenate(parts)
  return schema.Entities(entities.ids, columns)


def assert_same(first, second):
  """Two contents are equal bit by bit."""
  np.testing.assert_array_equal(first.dense, second.dense)
  assert first.dense.dtype == second.dense.dtype == np.float32
  assert first.sparse.shape == second.sparse.shape
  for name in ('data', 'indices', 'indptr'):
    parts = (getattr(one.sparse, name) for one in (first, second))
    np.testing.assert_array_equal(*parts)
  assert first.dense_names == second.dense_names
  assert first.sparse_names == second.sparse_names


def test_unit_rows_by_hand():
  people = schema.Entities(
      np.arange(4),
      {
          'age': np.array([20, 40, NAN, 20], np.float32),  # -0.71 and 1.41
          'job': np.array(['cook', None, 'poet', 'poet'], object),
      },
  )
  encoder = features.fit(
      [Feature(column='age', kind='numeric'), Feature('job', 'category')],
      'row',
      people,
      np.array([3, 0, 1, 2]),
      side='user',
  )
  content = encoder.transform(people)
  assert content.dense_names == ['age', 'age present', 'job=cook', 'job=poet']
  half = math.sqrt(0.5)
  young = np.array([-half, 1]) / math.sqrt(1.5) * half
  old = np.array([math.sqrt(2), 1]) / math.sqrt(3)
  expected = [
      [*young, half, 0],  # two blocks of norm 1, halved in the square
      [*old, 0, 0],  # no job: the age counts alone
      [0, 0, 0, 1],
      [*young, 0, half],
  ]
  np.testing.assert_allclose(content.dense, expected, rtol=1e-6)
  np.testing.assert_array_equal(
      content.sparse.toarray(), [[1, 0], [0, 0], [0, 1], [0, 1]]
  )
  assert content.sparse_names == ['job=cook', 'job=poet']
  assert len(content) == 4 and encoder.num_training_rows == 4


def test_sparse_blocks_count_alike():
  table = schema.Entities(
      np.arange(3),
      {
          'words': schema.Tags(
              scipy.sparse.csr_array(np.array([[3, 4], [0, 0], [1, 0]], 'f4'))
          ),
          'job': np.array(['cook', 'cook', None], object),
      },
  )
  settings = [
      Feature('words', idf='none', counts='raw'),
      Feature('job', 'category'),
  ]
  encoder = features.fit(settings, 'row', table, np.arange(3))
  half = math.sqrt(0.5)
  expected = [[0.6 * half, 0.8 * half, half], [0, 0, 1], [1, 0, 0]]
  sparse = encoder.transform(table).sparse
  assert isinstance(sparse, scipy.sparse.csr_array)
  np.testing.assert_allclose(sparse.toarray(), expected, rtol=1e-6)


def slow_standardize(block, train):
  """The published preprocessing, one column and one row at a time."""
  fitted_on = [row for row in train if any(block[row])]
  result = np.zeros(block.shape)
  for column in range(block.shape[1]):
    values = [float(block[row, column]) for row in fitted_on]
    mean = sum(values) / len(values)
    std = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
    for row in range(len(block)):
      if any(block[row]):
        value = (block[row, column] - mean) / (std or 1.0)
        value = min(max(value, -5.0), 5.0)
        result[row, column] = 0.0 if abs(value) < 1e-5 else value
  return result


@pytest.mark.parametrize('seed', (0, 1, 2))
def test_column_scaling_matches_slow_numpy(seed):
  rng = np.random.default_rng(seed)
  table = rng.standard_t(1, (50, 3)).astype(np.float32)  # with far outliers
  table[:, 2] = 3.5  # a constant
  table[::7] = 0
  items = schema.Entities(np.arange(50), {'image': table})
  train = rng.permutation(50)[:30]
  settings = [Feature('image', 'dense')]
  encoder = features.fit(settings, 'column', items, train)
  dense = encoder.transform(items).dense
  np.testing.assert_allclose(dense, slow_standardize(table, train), atol=2e-5)
  assert np.abs(dense).max() <= 5 and not dense[::7].any()


def test_column_scaling_sets_what_is_next_to_the_mean_to_it():
  table = np.array([[-1], [1], [4e-6], [4e-5]], np.float32)
  items = schema.Entities(np.arange(4), {'x': table})
  settings = [Feature('x', 'dense')]
  encoder = features.fit(settings, 'column', items, np.arange(2))
  dense = encoder.transform(items).dense
  np.testing.assert_allclose(dense, [[-1], [1], [0], [4e-5]], atol=1e-9)


def test_published_preprocessing_of_words():
  """log(1 + count) * idf, SVD, u * s, then StandardScaler and a clip."""
  items = make_world(3)
  settings = [Feature('tags', rank=4, counts='log', idf='idf')]
  dense = (
      features.fit(settings, 'column', items, np.arange(40))
      .transform(items)
      .dense
  )
  counts = items.columns['tags'].matrix.toarray().astype(np.float64)
  weighted = np.log1p(counts) * np.log(40 / (counts > 0).sum(axis=0))
  left, scale, _ = np.linalg.svd(weighted, full_matrices=False)
  reduced = left[:, :4] * scale[:4]
  filled = (counts > 0).any(axis=1)
  expected = np.zeros_like(reduced)
  scaler = preprocessing.StandardScaler()
  expected[filled] = np.clip(scaler.fit_transform(reduced[filled]), -5, 5)
  expected *= np.sign(np.sum(expected * dense, axis=0))
  np.testing.assert_allclose(dense, expected, atol=1e-2)


def test_numbers_keep_their_mean_at_zero_under_column_scaling():
  """A row at the mean is not taken for a missing one."""
  table = schema.Entities(np.arange(3), {'n': np.array([0, 1, 2], np.float32)})
  encoder = features.fit(
      [Feature('n', 'numeric')], 'column', table, np.arange(3)
  )
  expected = [[-math.sqrt(1.5)], [0], [math.sqrt(1.5)]]
  dense = encoder.transform(table).dense
  np.testing.assert_allclose(dense, expected, rtol=1e-6)


def test_numbers_stay_what_they_are_without_scaling():
  columns = {'n': np.array([0, 5, -3], np.float32)}
  columns |= {'v': np.array([[1, 2], [3, 4], [0, 0]], np.float32)}
  table = schema.Entities(np.arange(3), columns)
  encoder = features.fit(
      [Feature('n', 'numeric', transform='none'), Feature('v', 'dense')],
      'none',
      table,
      np.arange(3),
  )
  dense = encoder.transform(table).dense
  np.testing.assert_array_equal(dense, [[0, 1, 2], [5, 3, 4], [-3, 0, 0]])


@pytest.mark.parametrize('scaling', ('row', 'column', 'none'))
def test_cold_rows_are_not_seen_in_fitting(scaling):
  items = make_world()
  train = np.arange(25)
  first = features.fit(ALL_KINDS, scaling, items, train)
  changed = replace_cold(items, make_world(seed=9), 25)
  second = features.fit(ALL_KINDS, scaling, changed, train)
  assert_same(first.transform(items), second.transform(items))
  assert first.notes == second.notes
  assert (first.transform(changed).dense[25:] != 0).any()
  # The order of the training rows, and one that comes twice, do not matter.
  shuffled = np.concatenate([train[::-1], train[:3]])
  third = features.fit(ALL_KINDS, scaling, items, shuffled)
  assert_same(first.transform(items), third.transform(items))


@pytest.mark.parametrize('scaling', ('row', 'column', 'none'))
def test_rows_are_encoded_one_by_one(scaling):
  items = make_world()
  encoder = features.fit(ALL_KINDS, scaling, items, np.arange(30))
  whole = encoder.transform(items)
  for row in range(len(items)):
    alone = encoder.transform(select(items, [row]))
    np.testing.assert_array_equal(alone.dense, whole.dense[[row]])
    np.testing.assert_array_equal(
        alone.sparse.toarray(), whole.sparse[[row]].toarray()
    )
  none = encoder.transform(select(items, np.zeros(0, int)))
  assert none.dense.shape == (0, whole.dense.shape[1]) and len(none) == 0
  assert none.sparse.shape == (0, whole.sparse.shape[1])


def test_encoding_does_not_change_the_table():
  items, before = make_world(), make_world()
  encoder = features.fit(ALL_KINDS, 'row', items, np.arange(30))
  encoder.transform(items)
  for name, column in before.columns.items():
    if isinstance(column, schema.Tags):
      assert not (column.matrix != items.columns[name].matrix).nnz
    else:
      np.testing.assert_array_equal(column, items.columns[name])


def test_a_row_with_nothing_known_is_zero():
  items = make_world()
  encoder = features.fit(ALL_KINDS, 'row', items, np.arange(40))
  stranger = schema.Entities(
      np.array(['new']),
      {
          'tags': schema.Tags(scipy.sparse.csr_array([[2.0]]), np.array(['?'])),
          'genres': schema.Tags(scipy.sparse.csr_array((1, 0))),
          'year': np.array([NAN]),
          'country': np.array(['atlantis'], object),
          'image': np.zeros((1, 4)),
          'blurb': np.array(['never read before'], object),
          'shelf': np.array([77]),
      },
  )
  content = encoder.transform(stranger)
  assert content.dense.shape == (1, len(content.dense_names))
  assert content.sparse.shape == (1, len(content.sparse_names))
  assert not content.dense.any() and not content.sparse.nnz


@pytest.mark.parametrize('scaling', ('row', 'column', 'none'))
def test_no_features_give_content_without_columns(scaling, tmp_path):
  people = schema.Entities(np.arange(7))
  encoder = features.fit([], scaling, people, np.zeros(0, int), side='user')
  encoder.save(str(tmp_path), 'user')
  for one in (encoder, features.load(str(tmp_path), 'user')):
    content = one.transform(people)
    assert content.dense.shape == content.sparse.shape == (7, 0)
    assert content.dense.dtype == content.sparse.dtype == np.float32
    assert content.dense_names == content.sparse_names == []


@pytest.mark.parametrize('scaling', ('row', 'column', 'none'))
def test_loaded_encoders_are_the_saved_ones(scaling, tmp_path):
  items, people = make_world(0), make_world(1)
  first = features.fit(ALL_KINDS, scaling, items, np.arange(30))
  second = features.fit(
      ALL_KINDS[1:4], scaling, people, np.arange(9), side='user'
  )
  first.save(str(tmp_path), 'item')
  second.save(str(tmp_path), 'user')
  for saved, side in ((first, 'item'), (second, 'user')):
    loaded = features.load(str(tmp_path), side)
    new = make_world(5)
    assert_same(saved.transform(new), loaded.transform(new))
    assert (loaded.side, loaded.scaling) == (side, scaling)
    assert loaded.notes == saved.notes
    assert loaded.num_training_rows == saved.num_training_rows
    kept = [fitted.feature for fitted in loaded.features]
    assert kept == [fitted.feature for fitted in saved.features]
  names = sorted(path.name for path in tmp_path.iterdir())
  assert names == ['features.json', 'features_item.npz', 'features_user.npz']


def test_features_json_is_for_people_too(tmp_path):
  items = make_world()
  encoder = features.fit(ALL_KINDS, 'row', items, np.arange(30))
  encoder.save(str(tmp_path), 'item')
  side = json.loads((tmp_path / 'features.json').read_text())['sides']['item']
  assert side['scaling'] == 'row' and side['num_training_rows'] == 30
  assert side['num_dense_columns'] == len(encoder.dense_names)
  assert side['features'][3]['encoder']['values'] == ['de', 'fr', 'jp']
  assert side['features'][0]['feature']['column'] == 'tags'
  with np.load(tmp_path / 'features_item.npz', allow_pickle=False) as arrays:
    assert all(array.dtype != object for array in arrays.values())


def test_names_of_any_script_survive(tmp_path):
  names = np.array(['naïve', '深層学習', 'a "b"\n', '\U0001f600'])
  matrix = scipy.sparse.eye_array(4, format='csr', dtype=np.float32)
  table = schema.Entities(np.arange(4), {'tags': schema.Tags(matrix, names)})
  encoder = features.fit([Feature('tags')], 'row', table, np.arange(4))
  encoder.save(str(tmp_path), 'item')
  loaded = features.load(str(tmp_path), 'item')
  assert loaded.sparse_names == [f'tags={name}' for name in names]
  assert_same(encoder.transform(table), loaded.transform(table))


def test_texts_by_hand(tmp_path):
  """Strings as they are in a table; saved encoders read those of new rows."""
  films = schema.Entities(
      np.arange(4),
      {
          'plot': np.array(
              [
                  "A dog. A cat, a dog's life",
                  'CAT; cafe\u0301',
                  None,
                  'cat dog',
              ],
              object,
          )
      },
  )
  settings = [Feature('plot', 'text', idf='none', counts='raw', min_rows=2)]
  encoder = features.fit(settings, 'row', films, np.arange(4))
  assert encoder.sparse_names == ['plot=cat', 'plot=dog']
  half = math.sqrt(0.5)
  expected = [[half, half], [1, 0], [0, 0], [half, half]]
  content = encoder.transform(films)
  np.testing.assert_allclose(content.sparse.toarray(), expected, rtol=1e-6)
  np.testing.assert_allclose(content.dense, expected, rtol=1e-6)
  assert encoder.notes == (
      "Feature of items 'plot': 2 of 6 words are used (too rare or in every "
      'row: 4); 1 of 4 training rows have no word.',
  )
  encoder.save(str(tmp_path), 'item')
  new = schema.Entities(
      np.array(['x', 'y']), {'plot': np.array(['Dog dog CAT', 'zebra'], object)}
  )
  content = features.load(str(tmp_path), 'item').transform(new)
  norm = math.sqrt(5)
  expected = [[1 / norm, 2 / norm], [0, 0]]
  np.testing.assert_allclose(content.sparse.toarray(), expected, rtol=1e-6)


@pytest.mark.parametrize('kind', ['int64', 'int8', 'float32', 'bool', 'object'])
def test_whole_numbers_are_categories(kind, tmp_path):
  """However a table holds them: 1, 1.0, True and '1' are one category."""
  values = np.array([1, 0, 1, 0]).astype(kind)
  table = schema.Entities(np.arange(4), {'shelf': values})
  settings = [Feature('shelf', 'category')]
  encoder = features.fit(settings, 'row', table, np.arange(3))
  assert encoder.sparse_names == ['shelf=0', 'shelf=1']
  expected = [[0, 1], [1, 0], [0, 1], [1, 0]]
  np.testing.assert_array_equal(encoder.transform(table).dense, expected)
  encoder.save(str(tmp_path), 'item')
  loaded = features.load(str(tmp_path), 'item')
  for new in (
      np.array(['1', None, '2'], object),
      np.array([1, NAN, 2]),
      np.array([np.int64(1), None, 2], object),
  ):
    rows = schema.Entities(np.arange(3), {'shelf': new})
    expected = [[0, 1], [0, 0], [0, 0]]
    np.testing.assert_array_equal(loaded.transform(rows).dense, expected)


def test_large_integers_stay_apart():
  ids = np.array([2**62, 2**62 + 1, 2**62])
  table = schema.Entities(np.arange(3), {'maker': ids})
  encoder = features.fit(
      [Feature('maker', 'category')], 'row', table, np.arange(3)
  )
  expected = [[1, 0], [0, 1], [1, 0]]
  np.testing.assert_array_equal(encoder.transform(table).dense, expected)
