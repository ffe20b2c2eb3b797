# SPDX-License-Identifier: Apache-2.0
"""Tags as tf-idf and its reduction, against hand, dictionaries and sklearn."""

import collections
import math
import tracemalloc

import numpy as np
import pytest
import scipy.sparse
from sklearn import preprocessing
from sklearn.feature_extraction import text as sklearn_text

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import encoders
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import tag_encoder


def make_tags(rows, names=None):
  """Tags of a dense list of rows; names as a string of letters."""
  matrix = scipy.sparse.csr_array(np.array(rows, np.float32))
  return schema.Tags(matrix, None if names is None else np.array(list(names)))


def random_tags(seed, num_rows=30, num_tags=12, density=0.3):
  """Counts 1 to 4, with names t0, t1, ..."""
  rng = np.random.default_rng(seed)
  counts = rng.integers(1, 5, (num_rows, num_tags))
  counts *= rng.random((num_rows, num_tags)) < density
  names = np.array([f't{n}' for n in range(num_tags)])
  matrix = scipy.sparse.csr_array(counts.astype(np.float32))
  return schema.Tags(matrix, names)


def fit(tags, scaling='row', seed=0, **settings):
  feature = config.Feature(column='tags', **settings)
  return tag_encoder.fit_tags(feature, tags, scaling, seed, 'config.here')


def same(first, second):
  """Whether two sparse blocks are equal bit by bit."""
  return first.shape == second.shape and not (first != second).nnz


def test_tf_idf_by_hand():
  # a is in 2 of 4 rows, b and c in 1: idf log 2 and log 4 = 2 log 2.
  tags = make_tags([[3, 1, 0], [1, 0, 0], [0, 0, 2], [0, 0, 0]], 'abc')
  encoder, _ = fit(tags, idf='idf')
  _, sparse = encoder.encode(tags)
  a, b = 1 / math.sqrt(5), 2 / math.sqrt(5)
  expected = [[a, b, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]]
  np.testing.assert_allclose(sparse.toarray(), expected, rtol=1e-6)
  # Roots: 1 and sqrt(2) instead of 1 and 2.
  sparse = fit(tags, idf='root')[0].encode(tags)[1]
  a, b = 1 / math.sqrt(3), math.sqrt(2 / 3)
  np.testing.assert_allclose(sparse.toarray()[0], [a, b, 0], rtol=1e-6)
  # Counts 3 and 1, no idf.
  sparse = fit(tags, idf='none', counts='raw')[0].encode(tags)[1]
  a, b = 3 / math.sqrt(10), 1 / math.sqrt(10)
  np.testing.assert_allclose(sparse.toarray()[0], [a, b, 0], rtol=1e-6)
  # log(1 + 3) = 2 log 2 and log(1 + 1) = log 2.
  sparse = fit(tags, idf='none', counts='log')[0].encode(tags)[1]
  a, b = 2 / math.sqrt(5), 1 / math.sqrt(5)
  np.testing.assert_allclose(sparse.toarray()[0], [a, b, 0], rtol=1e-6)


def dictionary_tf_idf(train, rows, counts, idf, min_rows):
  """Tf-idf with one dictionary per row, in float64."""
  count_rows = collections.Counter()
  for row in train:
    count_rows.update(t for t, count in row.items() if count)
  term = {'binary': lambda c: 1, 'log': lambda c: math.log(1 + c)}
  power = {'idf': 1, 'root': 0.5, 'none': 0}[idf]
  weight = {}
  for tag, df in count_rows.items():
    w = math.log(len(train) / df) ** power
    if df >= min_rows and w > 0:
      weight[tag] = w
  encoded = []
  for row in rows:
    values = {
        tag: term.get(counts, float)(count) * weight[tag]
        for tag, count in row.items()
        if count and tag in weight
    }
    norm = math.sqrt(sum(v * v for v in values.values()))
    encoded.append({tag: v / norm for tag, v in values.items()})
  return encoded


@pytest.mark.parametrize('seed', (0, 1))
@pytest.mark.parametrize('counts', ('binary', 'log', 'raw'))
@pytest.mark.parametrize('idf', ('idf', 'root', 'none'))
@pytest.mark.parametrize('min_rows', (1, 4))
def test_tf_idf_matches_dictionaries(seed, counts, idf, min_rows):
  train, cold = random_tags(seed), random_tags(seed + 10, num_rows=9)
  encoder, _ = fit(train, counts=counts, idf=idf, min_rows=min_rows)
  as_rows = lambda tags: [
      dict(zip(tags.names.tolist(), row.tolist(), strict=True))
      for row in tags.matrix.toarray()
  ]
  expected = dictionary_tf_idf(
      as_rows(train), as_rows(cold), counts, idf, min_rows
  )
  dense, sparse = encoder.encode(cold)
  names = [name.removeprefix('tags=') for name in encoder.sparse_names()]
  for row, wanted in zip(sparse.toarray(), expected, strict=True):
    found = {n: v for n, v in zip(names, row, strict=True) if v}
    assert found == pytest.approx(wanted, rel=1e-5)
  # So few tags are dense columns as well.
  np.testing.assert_array_equal(dense, sparse.toarray())
  assert encoder.dense_names() == encoder.sparse_names()


def test_idf_is_that_of_sklearn():
  tags = random_tags(3)
  encoder, _ = fit(tags, idf='idf')
  theirs = sklearn_text.TfidfTransformer(smooth_idf=False).fit(
      tags.matrix.astype(np.float64)
  )
  # Theirs is log(N / df) + 1.
  np.testing.assert_allclose(encoder.weight, theirs.idf_ - 1, rtol=1e-5)
  expected = preprocessing.normalize(
      (tags.matrix.toarray() > 0) * (theirs.idf_ - 1)
  )
  sparse = encoder.encode(tags)[1]
  np.testing.assert_allclose(sparse.toarray(), expected, rtol=1e-5)


def test_tags_are_matched_by_name_and_unknown_ones_ignored():
  train = make_tags([[1, 1, 0], [1, 0, 1], [0, 1, 1], [0, 0, 1]], 'abc')
  encoder, _ = fit(train)
  expected = encoder.encode(train)[1]
  # Columns in another order, an unknown tag before them and one within.
  order = [[9, 0, 1, 0, 1], [0, 1, 1, 7, 0], [0, 1, 0, 0, 1], [1, 1, 0, 0, 0]]
  assert same(encoder.encode(make_tags(order, 'xcazb'))[1], expected)
  # Rows of unknown tags alone are empty, and so is an empty vocabulary.
  for other in (make_tags([[5, 1]], 'xy'), make_tags([[0]], 'x')):
    dense, sparse = encoder.encode(other)
    assert sparse.shape == (1, 3) and not sparse.nnz and not dense.any()


def test_tags_without_names_are_matched_by_column():
  train = make_tags([[0, 1, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
  encoder, _ = fit(train)
  assert encoder.sparse_names() == ['tags=1', 'tags=2']
  expected = encoder.encode(train)[1].toarray()
  wider = make_tags([[4, 1, 1, 9]])
  np.testing.assert_array_equal(
      encoder.encode(wider)[1].toarray()[0], expected[0]
  )
  narrower = make_tags([[4, 1]])
  np.testing.assert_array_equal(encoder.encode(narrower)[1].toarray(), [[1, 0]])
  # Named on one side only: by column as well.
  named = schema.Tags(train.matrix, np.array(['p', 'q', 'r']))
  np.testing.assert_array_equal(encoder.encode(named)[1].toarray(), expected)


def test_columns_of_one_name_are_one_tag():
  apart = make_tags([[1, 2, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0]], 'aba')
  joined = make_tags([[2, 2], [0, 1], [1, 0], [0, 0]], 'ab')
  encoder, notes = fit(apart, counts='raw')
  other, _ = fit(joined, counts='raw')
  assert encoder.sparse_names() == ['tags=a', 'tags=b']
  assert same(encoder.encode(apart)[1], other.encode(joined)[1])
  assert 'of a name that came before: 1' in notes[0]


def test_entries_that_repeat_or_are_zero_change_nothing():
  plain = make_tags([[2, 0], [0, 1], [1, 1]], 'ab')
  # Row 0 holds column 0 twice and an explicit zero in column 1.
  parts = ([1, 1, 0, 1, 1, 1], [0, 0, 1, 1, 1, 0], [0, 3, 4, 6])
  matrix = scipy.sparse.csr_array(
      tuple(
          np.array(p, np.float32 if n == 0 else int)
          for n, p in enumerate(parts)
      ),
      shape=(3, 2),
  )
  messy = schema.Tags(matrix, plain.names)
  before = matrix.data.copy()
  for counts in ('binary', 'raw', 'log'):
    encoder, _ = fit(plain, counts=counts)
    assert same(
        fit(messy, counts=counts)[0].encode(messy)[1], encoder.encode(plain)[1]
    )
  np.testing.assert_array_equal(matrix.data, before)


def truncated(matrix, rank):
  """The best approximation of a dense matrix of this rank, and its Gram."""
  left, scale, _ = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
  kept = left[:, :rank] * scale[:rank]
  return kept @ kept.T


@pytest.mark.parametrize('rank', (1, 3, 8))
@pytest.mark.parametrize('scaling', ('row', 'column'))
def test_reduction_matches_numpy(rank, scaling):
  tags = random_tags(5, num_rows=40, num_tags=20)
  encoder, _ = fit(tags, scaling, rank=rank, counts='log', idf='idf')
  dense, sparse = encoder.encode(tags)
  assert dense.shape == (40, rank) and dense.dtype == np.float32
  counts = tags.matrix.toarray().astype(np.float64)
  weighted = np.log1p(counts) * np.log(40 / (counts > 0).sum(axis=0))
  if scaling == 'row':
    weighted = preprocessing.normalize(weighted)
    np.testing.assert_allclose(sparse.toarray(), weighted, rtol=1e-4)
  # u * s up to signs, hence the products of rows; columns by size.
  np.testing.assert_allclose(
      dense @ dense.T,
      truncated(weighted, rank),
      atol=2e-3 * weighted.max() ** 2,
  )
  assert (np.diff(np.linalg.norm(dense, axis=0)) < 1e-5).all()
  # Orthonormal directions, so that a new row is projected.
  np.testing.assert_allclose(
      encoder.projection.T @ encoder.projection, np.eye(rank), atol=1e-5
  )
  assert encoder.dense_names() == [f'tags[{n}]' for n in range(rank)]


def test_tags_of_one_row_are_not_reduced_but_kept_in_the_norm():
  # d is in row 0 alone: it halves what row 0 shows of a.
  tags = make_tags(
      [[1, 0, 0, 1], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0]], 'abcd'
  )
  encoder, _ = fit(tags, rank=3, idf='none')
  assert encoder.reduced.tolist() == [0, 1, 2]
  dense, sparse = encoder.encode(tags)
  assert sparse.shape == (4, 4)
  np.testing.assert_allclose(
      np.linalg.norm(dense[0]), math.sqrt(0.5), rtol=1e-5
  )
  only_d = make_tags([[0, 0, 0, 1]], 'abcd')
  assert not encoder.encode(only_d)[0].any()


def test_columns_without_a_direction_are_zero():
  # b repeats a, and d repeats c: two directions.
  tags = make_tags([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
  encoder, notes = fit(tags, rank=4)
  dense, _ = encoder.encode(tags)
  assert (dense != 0).any(axis=0).tolist() == [True, True, False, False]
  np.testing.assert_allclose(np.linalg.norm(dense, axis=1), 1, rtol=1e-5)
  assert '2 independent directions' in notes[-1]


def test_what_the_directions_do_not_see_is_zero_and_not_noise():
  # One direction, that of the larger group of rows; the other sees nothing.
  rows = [[1, 1, 0, 0]] * 5 + [[0, 0, 1, 1]] * 2 + [[1, 0, 0, 0], [0, 0, 1, 0]]
  tags = make_tags(rows)
  dense, _ = fit(tags, rank=1)[0].encode(tags)
  assert dense.any(axis=1).tolist() == [True] * 5 + [False] * 2 + [True, False]


def test_same_seed_gives_the_same_bits():
  tags = random_tags(7, num_rows=200, num_tags=150)
  first, second = (fit(tags, rank=20)[0].encode(tags)[0] for _ in range(2))
  np.testing.assert_array_equal(first, second)
  other = fit(tags, rank=20, seed=1)[0].encode(tags)[0]
  assert (first != other).any()


@pytest.mark.parametrize('rank', (0, 5))
def test_a_row_alone_is_encoded_as_among_others(rank):
  tags = random_tags(8, num_rows=50, num_tags=40)
  encoder, _ = fit(tags, rank=rank)
  dense, sparse = encoder.encode(tags)
  for row in range(50):
    alone = schema.Tags(tags.matrix[[row]], tags.names)
    alone_dense, alone_sparse = encoder.encode(alone)
    np.testing.assert_array_equal(alone_dense, dense[[row]])
    assert same(alone_sparse, sparse[[row]])


def test_many_tags_stay_sparse():
  limit = encoders.MAX_DENSE_COLUMNS
  for width, dense_width in ((limit, limit), (limit + 1, 0)):
    tags = schema.Tags(scipy.sparse.eye_array(width, format='csr'))
    encoder, notes = fit(tags)
    dense, sparse = encoder.encode(tags)
    assert dense.shape == (width, dense_width)
    assert sparse.shape == (width, width)
    assert any('sparse content only' in note for note in notes) != dense_width


def test_tags_can_stay_out_of_the_sparse_content():
  tags = random_tags(1)
  for rank in (0, 3):
    encoder, _ = fit(tags, sparse=False, rank=rank)
    dense, sparse = encoder.encode(tags)
    assert sparse.shape == (30, 0) and encoder.sparse_names() == []
    np.testing.assert_array_equal(
        dense, fit(tags, rank=rank)[0].encode(tags)[0]
    )


@pytest.mark.parametrize(
    'rows, settings, message',
    [
        ([[0, 0], [0, 0]], {}, 'has 0 tags in 2 training rows'),
        ([[1, 1], [1, 1]], {}, 'a tag of all rows weighs 0'),
        ([[1, 0], [0, 1]], {'min_rows': 2}, 'occurs in 2 or more of them'),
        ([[1, 0], [0, 1]], {'rank': 1}, 'rank is 1, but the largest possible'),
        (
            [[1, 0, 1], [1, 0, 1], [0, 1, 0]],
            {'rank': 3},
            'here is 2: column .tags. has 2 tags that occur in two or more',
        ),
        (np.eye(300), {'sparse': False}, 'nothing of it would be read'),
    ],
)
def test_user_errors(rows, settings, message):
  with pytest.raises(errors.UserError, match=message) as caught:
    fit(make_tags(rows), **settings)
  assert str(caught.value).startswith('config.here')
  assert '\n' not in str(caught.value)


def test_all_rows_may_have_a_tag_without_idf():
  tags = make_tags([[1, 1], [1, 0]])
  sparse = fit(tags, idf='none')[0].encode(tags)[1]
  half = math.sqrt(0.5)
  np.testing.assert_allclose(sparse.toarray(), [[half, half], [1, 0]])


def test_notes_count_what_became_of_the_tags():
  tags = make_tags([[1, 0, 1, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0]])
  _, notes = fit(tags, min_rows=2)
  assert notes == [
      "'tags': 1 of 4 tags are used (in no training row: 1, too rare or in "
      'every row: 2); 0 of 4 training rows have no tag.'
  ]


def test_memory_stays_that_of_the_entries():
  """As float32, 20,000 rows of 200,000 tags would be 16 GB."""
  rng = np.random.default_rng(0)
  tag = (200_000 * rng.random(200_000) ** 3).astype(np.int32)
  matrix = scipy.sparse.csr_array(
      (np.ones(200_000, np.float32), tag, np.arange(0, 200_001, 10)),
      shape=(20_000, 200_000),
  )
  tracemalloc.start()
  try:
    tags = schema.Tags(matrix)
    dense, sparse = fit(tags, rank=8)[0].encode(tags)
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert dense.shape == (20_000, 8) and sparse.nnz > 190_000
  assert peak < 60e6
