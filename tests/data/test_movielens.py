# SPDX-License-Identifier: Apache-2.0
"""MovieLens 100K: likes, and every column of the two tables."""

import numpy as np
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.data import movielens


def test_tables(make_data):
  dataset = movielens.load_100k(make_data('ml-100k'))
  users, items = dataset.users, dataset.items
  np.testing.assert_array_equal(users.ids, [1, 2, 5])
  np.testing.assert_array_equal(items.ids, [1, 2, 7, 4])
  assert users.ids.dtype == items.ids.dtype == np.int64
  np.testing.assert_array_equal(users.columns['age'], [24, np.nan, 33.5])
  assert users.columns['age'].dtype == np.float32
  assert users.columns['gender'].tolist() == ['M', 'F', 'M']
  assert users.columns['occupation'].tolist() == ['technician', 'other', None]
  assert users.columns['zip_prefix'].tolist() == ['8', 'T', None]
  genres = items.columns['genres']
  assert genres.names.tolist() == ['unknown', 'Drama', 'Film-Noir']
  np.testing.assert_array_equal(
      genres.matrix.toarray(), [[0, 1, 0], [0, 1, 1], [1, 0, 0], [0, 0, 0]]
  )
  assert genres.matrix.nnz == 4  # zeros are not stored
  np.testing.assert_array_equal(
      items.columns['year'], [1995, 1995, np.nan, 1956]
  )
  assert items.columns['year'].dtype == np.float32


def test_words_of_titles(make_data):
  dataset = movielens.load_100k(make_data('ml-100k'))
  words = dataset.items.columns['title_words']
  assert words.names.tolist() == [
      '1984',
      'a',
      'land',
      'misérables',
      'story',
      'toy',
      'unknown',
      'v',
  ]
  counts = [
      dict(zip(words.names[row.indices].tolist(), row.data.tolist()))
      for row in (words.matrix[[number]] for number in range(4))
  ]
  assert counts == [
      {'a': 1, 'story': 2, 'toy': 1},
      {'land': 1, 'misérables': 1, 'v': 1},
      {'unknown': 1},
      {'1984': 1},
  ]


@pytest.mark.parametrize(
    'title, year, words',
    [
        ('Toy Story (1995)', 1995, ['toy', 'story']),
        ('unknown', np.nan, ['unknown']),
        ('', np.nan, []),
        ('(1995)', 1995, []),
        ('1900 (1976) (V)', 1976, ['1900', 'v']),
        ('Remake (1955) (1995)', 1995, ['remake']),
        ("Schindler's List (1993)", 1993, ["schindler's", 'list']),
        ('JLG/JLG - d_x (1994)', 1994, ['jlg', 'jlg', 'd', 'x']),
    ],
)
def test_split_title(title, year, words):
  found = movielens._split_title(title)
  np.testing.assert_equal(found, (year, words))


def test_likes(make_data):
  dataset = movielens.load_100k(make_data('ml-100k'))
  likes = dataset.interactions
  # Rows, not ids: film 7 is row 2. The rating of 3 is no like.
  np.testing.assert_array_equal(likes.user, [0, 0, 1])
  np.testing.assert_array_equal(likes.item, [0, 2, 1])
  np.testing.assert_array_equal(likes.time, [881250949, 881250940, 881250950])
  assert not dataset.held_out and dataset.name == 'ml-100k'
  assert dataset.notes == (
      '1 of 4 ratings are below 4 and no likes.',
      '1 of 3 users have no like.',
      '1 of 4 items have no like.',
  )


def test_every_rating_is_an_impression(make_data):
  """A low one has label 0: the film was seen, without a reaction."""
  dataset = movielens.load_100k(make_data('ml-100k'))
  shown = dataset.impressions
  assert len(shown) == 4 and shown.label.tolist().count(0) == 1
  pairs = lambda rows: set(zip(rows.user.tolist(), rows.item.tolist()))
  liked = shown.select(shown.label > 0)
  assert pairs(liked) == pairs(dataset.interactions)


def test_a_like_wins_over_a_low_rating_of_the_same_film(make_data):
  data = '1\t1\t5\t30\n1\t1\t1\t10\n1\t1\t4\t20\n'
  folder = make_data('ml-100k', {'u.data': data, 'u.info': None})
  dataset = movielens.load_100k(folder)
  assert len(dataset.interactions) == 1
  assert dataset.interactions.time.tolist() == [20]
  assert 'u.data repeats 1 pair(s); each counts once.' in dataset.notes


def test_columns_empty_throughout_are_missing(make_data):
  changes = {'u.user': '1||||\n2||||\n5||||\n'}
  dataset = movielens.load_100k(make_data('ml-100k', changes))
  columns = dataset.users.columns
  assert np.isnan(columns['age']).all()
  for name in ('gender', 'occupation', 'zip_prefix'):
    assert columns[name].tolist() == [None] * 3


def test_utf_8_is_read_as_well(make_data, tiny_files):
  expected = movielens.load_100k(make_data('ml-100k'))
  content = tiny_files['ml-100k']['u.item'].decode('latin-1')
  for changed in (content, '\ufeff' + content):
    dataset = movielens.load_100k(make_data('ml-100k', {'u.item': changed}))
    np.testing.assert_array_equal(
        dataset.items.columns['title_words'].names,
        expected.items.columns['title_words'].names,
    )


def test_totals_with_blanks(make_data):
  info = '3 users \n  4  items\n4\tratings\n'
  dataset = movielens.load_100k(make_data('ml-100k', {'u.info': info}))
  assert len(dataset.users) == 3


BROKEN = [
    ('u.data', None, ' does not exist'),
    ('u.data', '', ': no rows'),
    (
        'u.data',
        '1,1,5,8\n',
        ':1: expected 4 field(s) with tabs between, found 1: '
        "'1,1,5,8'. It looks separated by ','",
    ),
    ('u.data', '1 1 5 8\n', 'It looks separated by spaces'),
    (
        'u.data',
        'user id\titem id\trating\ttimestamp\n',
        ":1: user 'user id' is ",
    ),
    ('u.data', '1\t1\t5\t8\n1\t1\t5\n', ':2: expected 4 field(s) with tabs'),
    (
        'u.data',
        '1\t1\t5\t8\n\n1\t1\t6\t8\n',
        ':3: rating 6 is out of range; it must be from 1 to 5',
    ),
    ('u.data', '1\t1\t0\t8\n', ':1: rating 0 is out of range'),
    ('u.data', '1\t1\t4.5\t8\n', ":1: rating '4.5' is not a whole number"),
    ('u.data', '1\t1\tnan\t8\n', ":1: rating 'nan' is not a whole number"),
    ('u.data', '1\t1\t4\t8\n1\t1\t4\t-8\n', ':2: time -8 is out of range'),
    ('u.data', '1\t1\t5\t8\n3\t1\t5\t8\n', ':2: user 3 is not in u.user'),
    ('u.data', '1\t1\t5\t8\n1\t99\t5\t8\n', ':2: item 99 is not in u.item'),
    ('u.data', '1\t1\t5\t8\n1\t0\t5\t8\n', ':2: item 0 is out of range'),
    ('u.data', '1\t1\t3\t8\n', ': no rating of 4 or 5'),
    ('u.data', '1\t1\t5\t8'.encode('utf-16'), ':1: the file is UTF-16'),
    ('u.user', None, ' does not exist'),
    (
        'u.user',
        '1|24|M|technician\n',
        ":1: expected 5 field(s) with '|' between",
    ),
    ('u.user', '1|24|M|t|8\n1|25|F|o|9\n', ':2: id 1 is already in line 1'),
    ('u.user', '1|24|M|t|8\n2|-|F|o|9\n', ":2: age '-' is not a finite number"),
    ('u.user', '1|24|M|t|8\n2|nan|F|o|9\n', ":2: age 'nan' is not a finite"),
    (
        'u.user',
        '1|24|M|t|8\n2|-5|F|o|9\n',
        ':2: age -5 is out of range; it must be from 0 to 150.',
    ),
    ('u.user', '1|1e38|M|t|8\n', ':1: age 1e38 is out of range; it must be'),
    ('u.user', '1|24|M|t|8\n2|-|F|o|9\n', 'Leave the field empty where the'),
    ('u.user', 'x|24|M|t|8\n', ":1: id 'x' is not a whole number"),
    ('u.user', b'1|24|M|t\0|8\n', ':1: found a NUL byte'),
    ('u.item', None, ' does not exist'),
    (
        'u.item',
        '1|A (1995)||||0|1\n',
        ":1: expected 8 field(s) with '|' between, found 7",
    ),
    (
        'u.item',
        '1|A (1995)||||0|1|2\n',
        ":1: genre 'Film-Noir' is '2'; it must be 0 or 1",
    ),
    (
        'u.item',
        '1|A | B (1995)||||0|1|0\n',
        "found 9: '1|A | B (1995)||||0|1|0'. Correct the line, or fetch",
    ),
    ('u.item', '1|A||||0|1|0\n1|B||||0|1|0\n', ':2: id 1 is already in line 1'),
    ('u.genre', None, ' does not exist'),
    ('u.genre', 'unknown|0\nDrama|2\n', ':2: genre number 2 where 1 belongs'),
    ('u.genre', 'unknown\n', ":1: expected 2 field(s) with '|' between"),
    (
        'u.info',
        '4 users\n4 items\n4 ratings\n',
        ':1: 4 users, but the other files have 3; fetch them again',
    ),
    ('u.info', '3 users\n4 items\n5 ratings\n', ':3: 5 ratings, but the other'),
]


@pytest.mark.parametrize('name, content, message', BROKEN)
def test_broken(make_data, name, content, message):
  changes = {'u.info': None, name: content}
  folder = make_data('ml-100k', changes)
  with pytest.raises(errors.UserError) as info:
    movielens.load_100k(folder)
  assert message in str(info.value)
  assert str(folder / name) in str(info.value)


def test_real(data_dir):
  folder = data_dir / 'ml-100k'
  dataset = movielens.load_100k(folder)
  users, items, likes = dataset.users, dataset.items, dataset.interactions
  assert (len(users), len(items), len(likes)) == (943, 1_682, 55_375)
  np.testing.assert_array_equal(users.ids, np.arange(1, 944))
  lines = (folder / 'u.data').read_text().strip().split('\n')
  ratings = [tuple(map(int, line.split('\t'))) for line in lines]
  expected = sorted(
      (user - 1, item - 1, time)
      for user, item, rating, time in ratings
      if rating in (4, 5)
  )
  found = zip(likes.user.tolist(), likes.item.tolist(), likes.time.tolist())
  assert list(found) == expected
  assert len(set(users.columns['occupation'])) == 21
  assert set(users.columns['gender']) == {'M', 'F'}
  assert len(set(users.columns['zip_prefix'])) == 19
  assert (np.nanmin(users.columns['age']), users.columns['age'].max()) == (
      7,
      73,
  )
  assert items.columns['genres'].matrix.shape == (1_682, 19)
  year = items.columns['year']
  assert np.flatnonzero(np.isnan(year)).tolist() == [266]  # 'unknown'
  assert (np.nanmin(year), np.nanmax(year)) == (1922, 1998)
  words = items.columns['title_words']
  assert 'misérables' in words.names and '1995' not in words.names
