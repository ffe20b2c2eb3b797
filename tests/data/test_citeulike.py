# SPDX-License-Identifier: Apache-2.0
"""CiteULike: what the files say is in the arrays, and no more."""

import pathlib

import numpy as np
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.data import citeulike
from dropoutnet_jax.data import layer6
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import text

A_TAGS = [[0, 0, 1], [0, 0, 0], [1, 1, 0], [0, 1, 0]]
T_WORDS = [[1, 0, 3], [0, 0, 0], [0, 2, 0]]


def _pairs(pairs) -> list[tuple[int, int]]:
  return list(zip(pairs.user.tolist(), pairs.item.tolist()))


def _message(call, *arguments) -> str:
  with pytest.raises(errors.UserError) as info:
    call(*arguments)
  return str(info.value)


@pytest.mark.parametrize('split', ['random', 'time'])
def test_a_without_a_published_split(make_data, split):
  dataset = citeulike.load_a(make_data('citeulike-a'), split)
  assert dataset.name == 'citeulike-a'
  np.testing.assert_array_equal(dataset.users.ids, [0, 1, 2])
  np.testing.assert_array_equal(dataset.items.ids, [0, 1, 2, 3])
  assert not dataset.users.columns and list(dataset.items.columns) == ['tags']
  tags = dataset.items.columns['tags']
  np.testing.assert_array_equal(tags.matrix.toarray(), A_TAGS)
  assert tags.matrix.dtype == np.float32
  assert tags.names.tolist() == ['jax', 'learning-à', 'algorithm']
  assert _pairs(dataset.interactions) == [
      (0, 0),
      (0, 1),
      (1, 0),
      (1, 2),
      (1, 3),
      (2, 3),
  ]
  assert dataset.interactions.user.dtype == np.int32
  assert dataset.interactions.time is None
  assert not dataset.held_out and dataset.factors is None
  assert dataset.notes == ('item-tag.dat: 1 of 4 items have no entry.',)


def test_a_cold(make_data):
  dataset = citeulike.load_a(make_data('citeulike-a'), 'published-cold')
  assert _pairs(dataset.interactions) == [(0, 0), (0, 1), (1, 0), (1, 2)]
  assert list(dataset.held_out) == ['cold_item']
  test = dataset.held_out['cold_item']
  assert _pairs(test) == [(1, 3), (2, 3)]
  assert test.candidates.tolist() == [3] and test.candidates.dtype == np.int32
  assert not test.exclude_train
  assert dataset.notes[1:] == (
      '1 of 3 users have no like.',
      '1 of 4 items have no like.',
  )


def test_a_warm(make_data):
  dataset = citeulike.load_a(make_data('citeulike-a'), 'published-warm')
  assert _pairs(dataset.interactions) == [(0, 0), (1, 0), (1, 2), (2, 3)]
  test = dataset.held_out['warm']
  assert list(dataset.held_out) == ['warm'] and test.exclude_train
  assert _pairs(test) == [(0, 1), (1, 3)]
  assert test.candidates.tolist() == [0, 1, 2, 3]


def test_a_split_from_another_folder(make_data, tmp_path):
  folder = make_data('citeulike-a')
  (folder / 'cold').rename(tmp_path / 'cold')
  dataset = citeulike.load_a(folder, 'published-cold', tmp_path)
  assert _pairs(dataset.held_out['cold_item']) == [(1, 3), (2, 3)]


@pytest.mark.parametrize('vocabulary', [None, 'alpha\nbeta\ngamma\n'])
def test_a_has_words_where_the_text_is_there(make_data, vocabulary):
  changes = {
      'mult.dat': '2 0:1 2:3\n0\n1 1:2\n0\n',
      'vocabulary.dat': vocabulary,
  }
  dataset = citeulike.load_a(make_data('citeulike-a', changes), 'random')
  words = dataset.items.columns['words']
  np.testing.assert_array_equal(words.matrix.toarray(), T_WORDS + [[0, 0, 0]])
  names = None if words.names is None else words.names.tolist()
  assert names == (vocabulary.split() if vocabulary else None)


def test_t(make_data):
  dataset = citeulike.load_t(make_data('citeulike-t'))
  assert _pairs(dataset.interactions) == [(0, 0), (1, 1), (1, 2)]
  words = dataset.items.columns['words']
  np.testing.assert_array_equal(words.matrix.toarray(), T_WORDS)
  assert words.names.tolist() == ['alpha', 'bêta', 'gamma']
  assert dataset.notes == ('mult.dat: 1 of 3 items have no entry.',)


def test_repairs_are_counted(make_data):
  changes = {
      'users.dat': '4 0 1 0 1\n3 0 2 3\n1 3\n0\n',
      'item-tag.dat': '1 2\n0\n3 0 1 0\n1 1\n',
      'mult.dat': '2 0:1 0:3\n0\n1 1:2\n0\n',
      'cold/train.csv': '1,1,1\n1,1,1\n1,2,1\n2,1,1\n',
      'cold/test.csv': '2,4,1\n2,4,1\n2,3,1\n',
      'cold/test_item_ids.csv': '4\n4\n',
  }
  folder = make_data('citeulike-a', changes)
  dataset = citeulike.load_a(folder, 'published-cold')
  assert _pairs(dataset.interactions) == [(0, 0), (0, 1), (1, 0)]
  assert _pairs(dataset.held_out['cold_item']) == [(1, 3)]
  assert dataset.held_out['cold_item'].candidates.tolist() == [3]
  tags, words = (dataset.items.columns[name] for name in ('tags', 'words'))
  np.testing.assert_array_equal(tags.matrix.toarray(), A_TAGS)
  np.testing.assert_array_equal(words.matrix.toarray()[0], [4, 0])
  assert dataset.notes == (
      'users.dat repeats 2 pair(s); each counts once.',
      'item-tag.dat repeats 1 entries in a line; each counts once.',
      'item-tag.dat: 1 of 4 items have no entry.',
      'mult.dat repeats 1 entries in a line; their counts add up.',
      'mult.dat: 2 of 4 items have no entry.',
      'cold/train.csv repeats 1 pair(s); each counts once.',
      'cold/test.csv repeats 1 pair(s); each counts once.',
      'cold/test.csv: 1 pair(s) left out, their items are not in '
      'test_item_ids.csv.',
      '1 pairs of users.dat are not in cold/.',
      '2 of 4 users have no like.',
      '2 of 4 items have no like.',
  )


def test_a_pair_in_train_and_test_is_left_to_the_audit(make_data):
  changes = {'cold/train.csv': '1,1,1\n1,2,1\n2,1,1\n2,3,1\n2,4,1\n'}
  folder = make_data('citeulike-a', changes)
  dataset = citeulike.load_a(folder, 'published-cold')
  assert (1, 3) in _pairs(dataset.interactions)
  assert (1, 3) in _pairs(dataset.held_out['cold_item'])


BROKEN_A = [
    ('users.dat', None, ' does not exist'),
    ('users.dat', '', ': no rows'),
    ('users.dat', '0\n0\n', ': 2 users and not one like'),
    ('users.dat', '2 0 1\n\n1 3\n', ':2: blank line'),
    (
        'users.dat',
        '2 0 1\n1 0 2 3\n',
        ':2: the line says 1 and lists 3 item(s)',
    ),
    (
        'users.dat',
        '2 0 1\n3 0 2 4\n',
        ':2: item 4 is out of range; it must be from 0 to 3',
    ),
    (
        'users.dat',
        '2,0,1\n',
        ":1: the count '2,0,1' is not a whole number. It "
        "looks separated by ','",
    ),
    ('users.dat', '2 0 1'.encode('utf-16'), ':1: the file is UTF-16'),
    ('users.dat', b'2 0 1\n1 \xe9\n', ':2: byte 0xe9 is not UTF-8'),
    ('item-tag.dat', None, ' does not exist'),
    (
        'item-tag.dat',
        '1 2\n0\n1 3\n',
        ':3: tag 3 is out of range; it must be from 0 to 2',
    ),
    ('item-tag.dat', '1 2\n0\n1 nan\n', ":3: tag 'nan' is not a whole number"),
    ('tags.dat', None, ' does not exist'),
    ('tags.dat', '', ': no rows'),
    ('tags.dat', 'a\n\nc\n', ':2: blank line'),
    ('tags.dat', 'a\n\nc\n', 'or write the row that it stands for.'),
    ('mult.dat', '0\n0\n', ': 2 lines, but item-tag.dat has 4; line n of both'),
    (
        'mult.dat',
        '0\n1 2000000000:1\n0\n0\n',
        ':2: word 2000000000 is out of range; it must be from 0 to 9999999.',
    ),
    ('mult.dat', '0\n1 5\n', ":2: found '5'; expected word:count"),
    ('cold/train.csv', None, ' does not exist'),
    ('cold/train.csv', '', ': no rows'),
    (
        'cold/train.csv',
        'user,item,1\n1,1,1\n',
        ":1: user 'user' is not a whole number. The file has no",
    ),
    (
        'cold/train.csv',
        '1,1,1\n1,2\n',
        ":2: expected 3 field(s) with ',' between, found 2: '1,2'",
    ),
    ('users.dat', b'\x1f\x8b\x08\x00', ' is packed with gzip; unpack it'),
    ('users.dat', '<!DOCTYPE html>\n', 'It looks like a web page. Correct th'),
    ('cold/train.csv', '1;1;1\n', "It looks separated by ';'"),
    ('cold/train.csv', '1\t1\t1\n', 'It looks separated by tabs'),
    (
        'cold/train.csv',
        '1,1,1\n\n4,1,1\n',
        ':3: user 4 is out of range; it must be from 1 to 3',
    ),
    ('cold/train.csv', '1,1,1\n0,1,1\n', ':2: user 0 is out of range'),
    (
        'cold/train.csv',
        '1,5,1\n',
        ':1: item 5 is out of range; it must be from 1 to 4',
    ),
    (
        'cold/train.csv',
        '1,1,1\n1,2,0\n',
        ':2: value of a like 0 is out of range',
    ),
    (
        'cold/train.csv',
        '1,1,1\n1,2,nan\n',
        ":2: value of a like 'nan' is not a",
    ),
    (
        'cold/train.csv',
        '1,1,1\n\n3,1,1\n2,1,1\n',
        ':3: user 3 and item 1 (ids from 1) are no pair of',
    ),
    (
        'cold/test.csv',
        '2,4,1\n1,4,1\n',
        ':2: user 1 and item 4 (ids from 1) are no pair of',
    ),
    ('cold/test.csv', '2,3,1\n', ': none of its items is in test_item_ids.csv'),
    ('cold/test.csv', '\ufeff', ': no rows'),
    ('cold/test_item_ids.csv', None, ' does not exist'),
    ('cold/test_item_ids.csv', '4\n5\n', ':2: item 5 is out of range'),
    ('cold/test_item_ids.csv', '4,1\n', ':1: expected 1 field(s)'),
    ('cold/test_item_ids.csv', 'item_id\n4\n', ":1: item 'item_id' is not a"),
]


@pytest.mark.parametrize('name, content, message', BROKEN_A)
def test_broken_a(make_data, name, content, message):
  folder = make_data('citeulike-a', {name: content})
  found = _message(citeulike.load_a, folder, 'published-cold')
  assert message in found and str(folder / name) in found


BROKEN_T = [
    (
        'users.dat',
        '1 0\n2 1 3\n',
        ':2: item 3 is out of range; it must be from 0 to 2',
    ),
    ('mult.dat', None, ' does not exist'),
    ('mult.dat', '1 0:1\n2 0:1\n', ':2: the line says 2 and lists 1 word(s)'),
    (
        'mult.dat',
        '1 0:1\n1 3:1\n',
        ':2: word 3 is out of range; it must be from 0 to 2',
    ),
    (
        'mult.dat',
        '1 0:1\n1 2:0\n',
        ':2: word count 0 is out of range; it must ',
    ),
    ('mult.dat', '1 0:1\n1 2:-1\n', ':2: word count -1 is out of range'),
    ('vocabulary.dat', None, ' does not exist'),
    ('vocabulary.dat', b'a\nb\xe9\n', ':2: byte 0xe9 is not UTF-8'),
]


@pytest.mark.parametrize('name, content, message', BROKEN_T)
def test_broken_t(make_data, name, content, message):
  folder = make_data('citeulike-t', {name: content})
  assert f'{folder / name}{message}' in _message(citeulike.load_t, folder)


@pytest.mark.parametrize('name', ['citeulike-a', 'citeulike-t'])
def test_a_published_list_of_users_that_is_cut_off(
    make_data, monkeypatch, name
):
  load = {
      'citeulike-a': lambda folder: citeulike.load_a(folder, 'random'),
      'citeulike-t': citeulike.load_t,
  }[name]
  dataset = load(make_data(name))
  (column,) = dataset.items.columns.values()
  number = len(dataset.users)
  shape = (column.matrix.shape[1], len(dataset.items))
  monkeypatch.setitem(citeulike._PUBLISHED_USERS, shape, number)
  load(make_data(name))
  lines = (make_data(name) / 'users.dat').read_text().split('\n')
  folder = make_data(name, {'users.dat': '\n'.join(lines[:-1])})
  assert (
      f'{folder / "users.dat"}: {number - 1} users, but the published data set '
      f'with these {shape[1]} items has {number}; the file is cut off.'
  ) in _message(load, folder)


def test_ids_of_the_csv_files_are_told(make_data):
  folder = make_data('citeulike-a')
  dataset = citeulike.load_a(folder, 'published-cold')
  files = tuple(str(folder / f'cold/{name}.csv') for name in ('train', 'test'))
  assert dataset.origin == schema.Origin(files, 1)
  assert citeulike.load_a(folder, 'random').origin is None


def test_missing_files_can_be_told_from_broken_ones(make_data):
  folder = make_data('citeulike-t', {'vocabulary.dat': None})
  with pytest.raises(text.MissingFileError):
    citeulike.load_t(folder)


def _slow_pairs(path: pathlib.Path) -> list[tuple[int, int]]:
  pairs = []
  for line in path.read_text().strip().split('\n'):
    user, item, _ = line.split(',')
    pairs.append((int(user) - 1, int(item) - 1))
  return sorted(pairs)


@pytest.mark.parametrize(
    'kind, num_train, num_test, num_candidates',
    [('cold', 164_210, 40_776, 3_396), ('warm', 170_988, 33_998, 16_980)],
)
def test_real_a(data_dir, kind, num_train, num_test, num_candidates):
  folder = data_dir / 'citeulike-a'
  dataset = citeulike.load_a(folder, f'published-{kind}')
  assert (len(dataset.users), len(dataset.items)) == (5_551, 16_980)
  assert dataset.items.columns['tags'].matrix.shape == (16_980, 46_391)
  (test,) = dataset.held_out.values()
  assert len(dataset.interactions) == num_train and len(test) == num_test
  assert len(test.candidates) == num_candidates
  assert _pairs(dataset.interactions) == _slow_pairs(
      folder / kind / 'train.csv'
  )
  assert _pairs(test) == _slow_pairs(folder / kind / 'test.csv')
  if kind == 'cold':
    assert len(np.unique(test.user)) == 5_410
  # Nothing had to be repaired, and train and test together are users.dat.
  assert not any(
      'repeat' in note or 'left out' in note or 'users.dat' in note
      for note in dataset.notes
  )


def test_real_a_without_split(data_dir):
  folder = data_dir / 'citeulike-a'
  dataset = citeulike.load_a(folder, 'random')
  assert len(dataset.interactions) == 204_986
  lines = (folder / 'users.dat').read_text().split('\n')
  expected = [
      (user, item)
      for user, line in enumerate(lines)
      for item in sorted(map(int, line.split()[1:]))
  ]
  assert _pairs(dataset.interactions) == expected
  tags = dataset.items.columns['tags']
  assert int(np.sum(np.diff(tags.matrix.indptr) == 0)) == 3_461
  lines = (folder / 'item-tag.dat').read_text().split('\n')
  for item in (0, 1, 5_000, 16_979):
    found = tags.matrix[[item]].nonzero()[1].tolist()
    assert found == sorted(map(int, lines[item].split()[1:]))


@pytest.mark.parametrize('name', ['citeulike-a', 'citeulike-t'])
def test_half_of_the_real_users(data_dir, tmp_path, name):
  for path in (data_dir / name).glob('*.dat'):
    (tmp_path / path.name).write_bytes(path.read_bytes())
  lines = (data_dir / name / 'users.dat').read_text().split('\n')
  (tmp_path / 'users.dat').write_text('\n'.join(lines[:2_000]))
  load = {
      'citeulike-a': lambda: citeulike.load_a(tmp_path, 'random'),
      'citeulike-t': lambda: citeulike.load_t(tmp_path),
  }[name]
  assert 'users.dat: 2000 users, but the published' in _message(load)


@pytest.mark.parametrize('name', ['train', 'test', 'test_item_ids'])
def test_half_of_a_real_split(data_dir, tmp_path, name):
  for path in (data_dir / 'citeulike-a' / 'cold').iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  path = tmp_path / f'{name}.csv'
  path.write_text('\n'.join(path.read_text().split('\n')[:1_000]))
  found = _message(layer6.read_split, tmp_path, 'cold', 5_551, 16_980)
  assert f'{path}: 1000 different rows, but the published ' in found


def test_real_t(data_dir):
  folder = data_dir / 'citeulike-t'
  dataset = citeulike.load_t(folder)
  assert (len(dataset.users), len(dataset.items)) == (7_947, 25_975)
  assert len(dataset.interactions) == 134_860
  words = dataset.items.columns['words']
  assert words.matrix.shape == (25_975, 20_000) and len(words.names) == 20_000
  line = (folder / 'mult.dat').read_text().split('\n')[0].split()[1:]
  expected = {int(pair.split(':')[0]): int(pair.split(':')[1]) for pair in line}
  first = words.matrix[[0]].tocoo()
  found = dict(zip(first.coords[1].tolist(), first.data.tolist()))
  assert found == expected
