# SPDX-License-Identifier: Apache-2.0
"""The authors' packages: row 0 goes, ids stay, factors keep out of splits."""

import numpy as np
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.data import layer6
from dropoutnet_jax.data import schema

CONTENT = [[1, 0, 3], [0, 0, 0], [0, 2, 0], [0.5, 0, 1]]
CITEULIKE = 'layer6-citeulike'


def _pairs(pairs) -> list[tuple[int, int]]:
  return list(zip(pairs.user.tolist(), pairs.item.tolist()))


def _message(call, *arguments) -> str:
  with pytest.raises(errors.UserError) as info:
    call(*arguments)
  return str(info.value)


def test_citeulike_cold(make_data):
  folder = make_data(CITEULIKE) / 'eval'
  dataset = layer6.load_citeulike(folder, 'published-cold')
  assert dataset.name == CITEULIKE
  np.testing.assert_array_equal(dataset.users.ids, [1, 2, 3])
  np.testing.assert_array_equal(dataset.items.ids, [1, 2, 3, 4])
  assert not dataset.users.columns
  words = dataset.items.columns['words']
  np.testing.assert_array_equal(words.matrix.toarray(), CONTENT)
  assert words.matrix.dtype == np.float32 and words.names is None
  assert _pairs(dataset.interactions) == [(0, 0), (0, 1), (1, 0), (1, 2)]
  test = dataset.held_out['cold_item']
  assert _pairs(test) == [(1, 3), (2, 3)] and test.candidates.tolist() == [3]
  factors = dataset.factors
  np.testing.assert_allclose(factors.user, [[0.5, -1], [0.01, 2], [3, 4]])
  np.testing.assert_array_equal(factors.item, [[1, 0], [0, 1], [1, 1], [0, 0]])
  assert factors.user_present.tolist() == [True] * 3
  assert factors.item_present.tolist() == [True, True, True, False]


def test_citeulike_warm(make_data):
  folder = make_data(CITEULIKE) / 'eval'
  dataset = layer6.load_citeulike(folder, 'published-warm')
  assert list(dataset.held_out) == ['warm']
  assert dataset.held_out['warm'].exclude_train
  assert _pairs(dataset.held_out['warm']) == [(0, 1), (1, 3)]
  assert dataset.factors.user_present.tolist() == [True, True, False]
  assert dataset.factors.item_present.all()


@pytest.mark.parametrize('split', ['random', 'time'])
def test_citeulike_without_the_published_split(make_data, split):
  folder = make_data(CITEULIKE) / 'eval'
  dataset = layer6.load_citeulike(folder, split)
  assert _pairs(dataset.interactions) == [
      (0, 0),
      (0, 1),
      (1, 0),
      (1, 2),
      (1, 3),
      (2, 3),
  ]
  assert not dataset.held_out and dataset.factors is None
  assert 'published factors are left out' in dataset.notes[-1]


def test_citeulike_with_raw_factors(make_data):
  rows = lambda number: np.repeat(np.arange(number, dtype='<f4'), 200)
  trained = 'eval/trained/cold/'
  changes = {
      trained + 'WRMF_cold_rank2_reg1.U.txt': None,
      trained + 'WRMF_cold_rank2_reg1.V.txt': None,
      trained + 'U.csv.bin': rows(4).tobytes(),
      trained + 'V.csv.bin': rows(5).tobytes(),
  }
  folder = make_data(CITEULIKE, changes) / 'eval'
  factors = layer6.load_citeulike(folder, 'published-cold').factors
  assert factors.user.shape == (3, 200) and factors.item.shape == (4, 200)
  np.testing.assert_array_equal(factors.item[:, 7], [1, 2, 3, 4])


@pytest.mark.parametrize('split', ['published-cold', 'published-warm'])
def test_recsys(make_data, split):
  folder = make_data('recsys2017') / 'eval'
  dataset = layer6.load_recsys2017(folder, split)
  np.testing.assert_array_equal(dataset.users.ids, [1, 2, 3])
  np.testing.assert_array_equal(dataset.items.ids, [1, 2, 3, 4])
  content = dataset.users.columns['content'].matrix
  np.testing.assert_array_equal(content.toarray(), [[1, 0], [0, 2.5], [1, 1]])
  content = dataset.items.columns['content'].matrix
  np.testing.assert_array_equal(content.toarray(), CONTENT)
  # The impression of item 2 is no like; the repeated pair has its first time.
  assert _pairs(dataset.interactions) == [(0, 0), (1, 1), (1, 2)]
  times = [1478041100, 1478041300, 1478041500]
  assert dataset.interactions.time.tolist() == times
  found = {
      name: (_pairs(test), test.candidates.tolist(), test.exclude_train)
      for name, test in dataset.held_out.items()
  }
  assert found == {
      'warm': ([(0, 2)], [0, 1, 2], True),  # a deletion is no like either
      'cold_user': ([(2, 0)], [0, 1], False),
      'cold_item': ([(0, 3)], [3], False),
  }
  assert dataset.factors.user.shape == (3, 200)
  assert dataset.factors.user_present.tolist() == [True, True, False]
  assert dataset.factors.item_present.tolist() == [True, True, True, False]
  assert dataset.notes == (
      'warm/train.csv: 1 impression(s) and deletion(s) left out.',
      'warm/train.csv repeats 1 pair(s); each counts once.',
      'warm/test_warm.csv: 1 impression(s) and deletion(s) left out.',
      'warm/test_cold_item.csv: 1 pair(s) left out, their items are not in '
      'test_cold_item_item_ids.csv.',
      '1 of 3 users have no like.',
      '1 of 4 items have no like.',
      '1 of 3 users have no published factor.',
      '1 of 4 items have no published factor.',
  )


def test_recsys_by_time_has_the_times_of_all_files(make_data):
  folder = make_data('recsys2017') / 'eval'
  dataset = layer6.load_recsys2017(folder, 'time')
  likes = dataset.interactions
  assert _pairs(likes) == [(0, 0), (0, 2), (0, 3), (1, 1), (1, 2), (2, 0)]
  found = (likes.time - 1478041000).tolist()
  assert found == [100, 600, 900, 300, 500, 800]
  assert dataset.factors is None and not dataset.held_out


def test_zeros_are_not_stored(make_data):
  changes = {'eval/item_features_0based.txt': '0\n0 0:0 1:1\n0\n1\n-1.5 2:0\n'}
  folder = make_data(CITEULIKE, changes) / 'eval'
  words = layer6.load_citeulike(folder, 'published-cold').items.columns['words']
  assert words.matrix.nnz == 1 and words.matrix.shape == (4, 3)


USERS = 'trained/cold/WRMF_cold_rank2_reg1.U.txt'
ITEMS = 'trained/cold/WRMF_cold_rank2_reg1.V.txt'
WORDS = 'item_features_0based.txt'
BROKEN_CITEULIKE = [
    (WORDS, None, ' does not exist'),
    (WORDS, '', ': no rows'),
    (WORDS, '0\n0 0:1\n0\n', ': 3 lines, but the factors have 5 rows (row 0'),
    (WORDS, '0\n0 0:1\n\n0\n0\n0\n', ':3: blank line'),
    # Such widths would be reserved before anything is found out.
    (
        WORDS,
        '0\n0 2000000000:1\n0\n0\n0\n',
        ':2: index 2000000000 is out of range; it must be from 0 to 9999999.',
    ),
    (
        WORDS,
        '0\n0 99999999999:1\n0\n0\n0\n',
        ':2: index 99999999999 is out of range; it must be',
    ),
    (WORDS, '0\n0 10000000:1\n0\n0\n0\n', ':2: index 10000000 is out of'),
    (
        WORDS,
        '0\n0 qid:3 1:1\n0\n0\n0\n',
        ":2: index 'qid' is not a whole number. Correct the line, or fetch",
    ),
    (WORDS, '<!DOCTYPE html>\n', 'is not a finite number. It looks like a web'),
    (WORDS, '0\n0 0:1\n0 5\n0\n0\n', ":3: found '5'; expected index:value."),
    (WORDS, '0\n0 0:1 2:\n0\n0\n0\n', ":2: found '2:'; expected index:value."),
    (WORDS, '0\n0,0:1\n', ":2: label '0,0:1' is not a finite number"),
    (WORDS, '0\n0 0:nan\n0\n0\n0\n', ":2: value 'nan' is not a finite number"),
    (WORDS, '0\n0 0:inf\n0\n0\n0\n', ":2: value 'inf' is not a finite number"),
    (WORDS, '0\n0 0:1e39\n0\n0\n0\n', ":2: value '1e39' is not a finite"),
    (
        WORDS,
        '0\n0 0:x\n0\n0\n0\n',
        ":2: value 'x' is not a finite number. Correct the line, or fetch",
    ),
    (WORDS, '0\n0 x:1\n0\n0\n0\n', ":2: index 'x' is not a whole number"),
    (WORDS, '0\nx 0:1\n0\n0\n0\n', ":2: label 'x' is not a finite number"),
    (WORDS, '0\n0 -1:1\n0\n0\n0\n', ':2: index -1 where one above -1 belongs'),
    (WORDS, '0\n0 2:1 1:1\n0\n0\n0\n', ':2: index 1 where one above 2 belongs'),
    (WORDS, '0\n0 1:1 1:1\n0\n0\n0\n', ':2: index 1 where one above 1 belongs'),
    (
        WORDS,
        '# from 0\n0\n0\n0\n0\n0\n',
        ":1: label '#' is not a finite number",
    ),
    (WORDS, '0\n0 0:1'.encode('utf-16'), ':1: the file is UTF-16'),
    (USERS, None, None),
    (USERS, '', ': no rows'),
    (USERS, '1 1\n', ': one row; row 0 stands for nobody'),
    (ITEMS, '0 0\n' * 5, ': every number is 0, so there is not one factor'),
    (USERS, '0 0\n1 2 3\n', ':2: 3 numbers, but 2 in the lines above'),
    (USERS, '0 0\n1 nan\n', ': row 1 (from 0) holds nan in column 1'),
    (ITEMS, '0 0\n1 x\n', ":2: factor 'x' is not a finite number"),
    ('cold/train.csv', None, ' does not exist'),
    ('cold/train.csv', '1,1,1\n4,1,1\n', ':2: user 4 is out of range'),
    ('cold/test.csv', '1,5,1\n', ':1: item 5 is out of range'),
]


@pytest.mark.parametrize('name, content, message', BROKEN_CITEULIKE)
def test_broken_citeulike(make_data, name, content, message):
  folder = make_data(CITEULIKE, {f'eval/{name}': content}) / 'eval'
  found = _message(layer6.load_citeulike, folder, 'published-cold')
  if message is None:  # the name of the file is free within a pattern
    assert f'{folder}/trained/cold holds neither WRMF_cold_rank*.U.txt' in found
  else:
    assert str(folder / name) in found and message in found


def test_the_largest_index_is_read(make_data):
  changes = {'eval/item_features_0based.txt': '0\n0 9999999:1\n0\n0\n0\n'}
  folder = make_data(CITEULIKE, changes) / 'eval'
  words = layer6.load_citeulike(folder, 'published-cold').items.columns['words']
  assert words.matrix.shape == (4, 10_000_000) and words.matrix.nnz == 1


@pytest.mark.parametrize('kind', ['cold', 'warm'])
def test_rows_without_a_factor_are_counted(make_data, kind):
  folder = make_data(CITEULIKE) / 'eval'
  dataset = layer6.load_citeulike(folder, f'published-{kind}')
  absent = {'cold': '1 of 4 items', 'warm': '1 of 3 users'}[kind]
  assert dataset.notes[-1] == f'{absent} have no published factor.'
  files = tuple(str(folder / kind / f'{n}.csv') for n in ('train', 'test'))
  assert dataset.origin == schema.Origin(files)
  assert layer6.load_citeulike(folder, 'random').origin is None


@pytest.mark.parametrize(
    'name, keep, message',
    [
        ('train.csv', 8, ': 8 different rows, but the published file has 10'),
        (
            'test.csv',
            4,
            ': 4 different rows, but the published file has 5; it is',
        ),
        (
            'test_item_ids.csv',
            1,
            ': 1 different rows, but the published file has 2',
        ),
    ],
)
def test_a_published_split_that_is_cut_off(
    tmp_path, monkeypatch, name, keep, message
):
  lines = {'train.csv': 10, 'test_item_ids.csv': 2, 'test.csv': 5}
  monkeypatch.setattr(layer6, '_CITEULIKE', (10, 3))
  monkeypatch.setattr(layer6, '_LINES', {'cold': lines})
  contents = {
      'train.csv': [f'{user},1,1' for user in range(1, 11)],
      'test.csv': [f'{user},{2 + user % 2},1' for user in range(1, 6)],
      'test_item_ids.csv': ['2', '3'],
  }
  for file_name, content in contents.items():
    (tmp_path / file_name).write_text('\n'.join(content) + '\n')
  split = layer6.read_split(tmp_path, 'cold', 10, 3)
  assert (len(split.train), len(split.likes)) == (10, 15)
  contents[name] = contents[name][:keep]
  (tmp_path / name).write_text('\n'.join(contents[name]))
  found = _message(layer6.read_split, tmp_path, 'cold', 10, 3)
  assert f'{tmp_path / name}{message}' in found
  layer6.read_split(tmp_path, 'cold', 11, 3)  # another data set may be smaller
  # Another fold of the same data is no cut file.
  for file_name in ('train.csv', 'test.csv'):
    (tmp_path / file_name).write_text('\n'.join(contents[file_name][:4]))
  assert len(layer6.read_split(tmp_path, 'cold', 10, 3).train) == 4


def test_factors_must_belong_together(make_data):
  wide = '1 0 0\n' * 5
  folder = make_data(CITEULIKE, {f'eval/{ITEMS}': wide}) / 'eval'
  found = _message(layer6.load_citeulike, folder, 'published-cold')
  assert f'{folder}/trained/cold: user factors have 2 columns' in found
  other = 'eval/trained/cold/WRMF_cold_rank2_reg2.U.txt'
  folder = make_data(CITEULIKE, {other: wide}) / 'eval'
  found = _message(layer6.load_citeulike, folder, 'published-cold')
  assert 'holds WRMF_cold_rank2_reg1.U.txt, WRMF_cold_rank2_reg2.U.txt' in found


TRAIN = 'warm/train.csv'
BROKEN_RECSYS = [
    (
        'trained/warm/U.csv.bin',
        b'\0' * 799,
        ': 799 bytes are no multiple of 800',
    ),
    ('trained/warm/U.csv.bin', b'', ': no rows'),
    ('trained/warm/V.csv.bin', b'\xff' * 1600, ': row 0 (from 0) holds nan in'),
    ('user_features_0based.txt', None, ' does not exist'),
    ('user_features_0based.txt', '0\n0\n', ': 2 lines, but the factors have 4'),
    (TRAIN, '1,1,1\n', ":1: expected 4 field(s) with ',' between, found 3"),
    (TRAIN, '1,1,1,5\n1,1,6,5\n', ':2: interaction type 6 is out of range'),
    (TRAIN, '1,1,1,5\n1,1,1,-5\n', ':2: time -5 is out of range'),
    (
        TRAIN,
        '1,1,1,5\n1,5,1,5\n',
        ':2: item 5 is out of range; it must be from',
    ),
    ('warm/test_cold_user.csv', None, ' does not exist'),
    ('warm/test_warm_item_ids.csv', '3\nx\n', ":2: item 'x' is not a whole"),
    ('warm/test_warm.csv', '1,4,1,5\n', ': none of its items is in test_warm_'),
]


@pytest.mark.parametrize('name, content, message', BROKEN_RECSYS)
def test_broken_recsys(make_data, name, content, message):
  folder = make_data('recsys2017', {f'eval/{name}': content}) / 'eval'
  found = _message(layer6.load_recsys2017, folder, 'published-warm')
  assert f'{folder / name}{message}' in found
