# SPDX-License-Identifier: Apache-2.0
"""Every format gives the same table; a broken one gives its row."""

import pathlib

import numpy as np
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.data import factors
from dropoutnet_jax.data import layer6
from dropoutnet_jax.data import text

TABLE = np.array([[0.0, 0.0], [0.5, -1.25], [1e-3, 2.0]], np.float32)
LINES = '0 0\n0.5 -1.25\n1e-3 2\n'


def _message(path, *arguments, **options) -> str:
  with pytest.raises(errors.UserError) as info:
    factors.read_factors(path, *arguments, **options)
  return str(info.value)


@pytest.mark.parametrize(
    'content',
    [
        LINES,
        LINES.rstrip('\n'),
        '\ufeff' + LINES.replace('\n', '\r\n'),
        LINES.replace(' ', '\t'),
        LINES.replace(' ', ','),
        LINES.replace(' ', ' , '),
        LINES + '\n\n',
    ],
)
def test_text(tmp_path, content):
  path = tmp_path / 'U.txt'
  path.write_bytes(content.encode())
  table = factors.read_factors(path)
  np.testing.assert_array_equal(table, TABLE)
  assert table.dtype == np.float32


@pytest.mark.parametrize('dtype', [np.float16, np.float64, np.int64])
def test_numpy_files(tmp_path, dtype):
  table = np.array([[0, 1], [2, -3]], dtype)
  np.save(tmp_path / 'U.npy', table)
  np.savez(tmp_path / 'one.npz', anything=table)
  np.savez_compressed(tmp_path / 'two.npz', user=table, item=table + 1)
  for name in ('U.npy', 'one.npz', 'two.npz'):
    found = factors.read_factors(tmp_path / name, 2, 'user')
    np.testing.assert_array_equal(found, table)
    assert found.dtype == np.float32
  found = factors.read_factors(str(tmp_path / 'two.npz'), name='item')
  np.testing.assert_array_equal(found, table + 1)


def test_raw(tmp_path):
  path = tmp_path / 'U.csv.bin'
  TABLE.astype('<f4').tofile(path)
  np.testing.assert_array_equal(factors.read_factors(path, 2), TABLE)
  np.testing.assert_array_equal(factors.read_factors(path, 3).shape, [2, 3])


def test_the_published_packages_are_read_by_the_same_function():
  assert layer6.read_factors is factors.read_factors


@pytest.mark.parametrize(
    'content, message',
    [
        ('', ': no rows'),
        (' \n', ': no rows'),
        ('1 2\n3\n', ':2: 1 numbers, but 2 in the lines above'),
        ('1 2\n3 4 5\n', ':2: 3 numbers, but 2 in the lines above'),
        ('1 2\n\n3 4\n', ':2: blank line'),
        (
            '1 2\n3 x\n',
            ":2: factor 'x' is not a finite number. Correct the line, or fetch",
        ),
        ('1 2\n3 -\n', ":2: factor '-' is not a finite number"),
        ('1 2\n3 4 # end\n', ":2: factor '#' is not a finite number"),
        ('1 2\n3,4\n5 6\n', ":2: factor '3,4' is not a finite number. It look"),
        ('1,2\n3,4\n5 6\n', ":3: factor '5 6' is not a finite number. It look"),
        ('1,2\n3;4\n', ":2: factor '3;4' is not a finite number. It looks se"),
        ('0 0\n0 0\n', ': every number is 0, so there is not one factor'),
        ('1,2\n3,\n', ':2: a number is missing'),
        ('1,2\n3,4 5\n', ":2: factor '4 5' is not a finite number"),
        ('1;2\n', ":1: factor '1;2' is not a finite number"),
        ('0 0\n1 nan\n', ': row 1 (from 0) holds nan in column 1'),
        ('0 0\n\n1 nan\n', ':2: blank line'),
        ('0 0\ninf 1\n', ': row 1 (from 0) holds inf in column 0'),
        ('0 0\n1 -1e39\n', ': row 1 (from 0) holds -inf in column 1'),
        ('1 2'.encode('utf-16'), ':1: the file is UTF-16'),
    ],
)
def test_broken_text(tmp_path, content, message):
  path = tmp_path / 'U.txt'
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  assert f'{path}{message}' in _message(path)


def test_a_blank_line_of_factors_stands_for_no_empty_list(tmp_path):
  path = tmp_path / 'U.txt'
  path.write_text('1 2\n\n3 4\n')
  assert _message(path).endswith('or write the row that it stands for.')


def test_a_sum_that_overflows_is_no_infinite_factor(tmp_path):
  path = tmp_path / 'U.txt'
  path.write_text('3e38 3e38\n-3e38 3e38\n')
  assert factors.read_factors(path).shape == (2, 2)


def _save(path: pathlib.Path, **arrays: np.ndarray) -> pathlib.Path:
  np.savez(path, **arrays)
  return path


@pytest.mark.parametrize(
    'arrays, message',
    [
        (
            {'a': TABLE, 'b': TABLE},
            'holds the arrays a, b; expected one array,',
        ),
        ({}, 'holds the arrays (none); expected one array'),
        ({'a': TABLE[0]}, ': the array is float32 [2]; expected numbers'),
        ({'a': np.array([['x']])}, ': the array is <U1 [1, 1]; expected'),
        ({'a': TABLE[:0]}, ': no rows'),
        ({'a': np.zeros((2, 2))}, ': every number is 0, so there is not one'),
        ({'a': np.float64([[1.0, 1e300]])}, ': row 0 (from 0) holds inf in'),
        ({'a': np.array([[0, 1], [np.nan, 1]])}, ': row 1 (from 0) holds nan'),
        ({'a': np.array([[object()]])}, 'cannot be read as a NumPy file'),
    ],
)
def test_broken_npz(tmp_path, arrays, message):
  path = _save(tmp_path / 'factors.npz', **arrays)
  found = _message(path, name='user')
  assert message in found and str(path) in found


@pytest.mark.parametrize('name', ['U.npz', 'U.npy'])
@pytest.mark.parametrize('content', [b'', b'1 2\n', b'PK\x03\x04broken'])
def test_what_is_no_numpy_file(tmp_path, name, content):
  path = tmp_path / name
  path.write_bytes(content)
  assert f'{path} cannot be read as a NumPy file' in _message(path)


@pytest.mark.parametrize('name', ['U.txt', 'U.npy', 'U.npz', 'U.bin'])
def test_missing_files_say_so(tmp_path, name):
  with pytest.raises(text.MissingFileError, match=f'{name} does not exist'):
    factors.read_factors(tmp_path / name, 2)


def test_another_width_is_refused(tmp_path):
  path = tmp_path / 'U.txt'
  path.write_text(LINES)
  assert f'{path}: rows of 2 numbers, expected 3' in _message(path, 3)


def test_broken_raw(tmp_path):
  path = tmp_path / 'U.bin'
  path.write_bytes(TABLE.tobytes()[:-3])
  assert f'{path}: 21 bytes are no multiple of 8' in _message(path, 2)
  assert 'give the rank' in _message(path)
  path.write_bytes(b'')
  assert f'{path}: no rows' in _message(path, 2)
  np.array([[1, 2], [3, np.nan]], '<f4').tofile(path)
  assert f'{path}: row 1 (from 0) holds nan in column 1' in _message(path, 2)
