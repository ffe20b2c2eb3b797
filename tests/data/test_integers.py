# SPDX-License-Identifier: Apache-2.0
"""The scan and the reading by lines agree, and every refusal has its line."""

import pathlib

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.data import integers

PAIR = (integers.Field('user', 1, 9), integers.Field('item', 0, 20))
ITEM = integers.Field('item', 0, 9)


def _write(folder: pathlib.Path, content: bytes | str) -> pathlib.Path:
  path = folder / 'file.dat'
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  return path


def _outcome(call):
  """What a call returns, as lists, or the text of its refusal."""
  try:
    result = call()
  except errors.UserError as error:
    return str(error)
  arrays = [getattr(result, name) for name in vars(result)]
  return [None if array is None else array.tolist() for array in arrays]


@pytest.mark.parametrize(
    'content',
    [
        '1,0\n9,20\n3,7\n',  # the plain form: scanned
        '1,0\n9,20\n3,7',
        '\ufeff1,0\r\n9,20\r\n3,7\r\n',
        '1,0\r\n9,20\n3,7\r',
        '01,000\n9,20\n3,7\n',
        ' 1, 0\n9 ,20\n3,7\n\n',  # from here on by lines
        '1,0\n9,20\n3,7\n\n\n',
    ],
)
def test_columns(tmp_path, content):
  columns = integers.read_columns(_write(tmp_path, content), PAIR)
  np.testing.assert_array_equal(columns.value, [[1, 0], [9, 20], [3, 7]])
  np.testing.assert_array_equal(columns.line, [1, 2, 3])
  assert columns.value.dtype == np.int64 and len(columns) == 3


def test_lines_are_counted_across_blank_ones(tmp_path):
  columns = integers.read_columns(_write(tmp_path, '\n1,2\n\n\n3,4\n'), PAIR)
  np.testing.assert_array_equal(columns.line, [2, 5])


@pytest.mark.parametrize(
    'content, message',
    [
        ('', ': no rows'),
        ('\n \n', ': no rows'),
        (
            'user,item\n',
            ":1: user 'user' is not a whole number. The file has no "
            'heading line.',
        ),
        (
            '<p>,<p>\n',
            ":1: user '<p>' is not a whole number. It looks like a w",
        ),
        ('user,item\n1,2\n', ":1: user 'user' is not a whole number"),
        ('1,2\nx,2\n', ":2: user 'x' is not a whole number."),
        (
            '1;2\n',
            ":1: expected 2 field(s) with ',' between, found 1: '1;2'. It "
            "looks separated by ';'.",
        ),
        ('1\t2\n3\t4\n', 'It looks separated by tabs.'),
        ('1 2\n', 'It looks separated by spaces.'),
        ('1,2\n3\n', ":2: expected 2 field(s) with ',' between, found 1: '3'."),
        ('1,2\n3,4,5\n6\n', ':2: expected 2 field(s)'),
        ('1,2,3\n4\n', ':1: expected 2 field(s)'),  # four numbers in all
        ('1,2\n\n3,4,5\n', ':3: expected 2 field(s)'),
        ('1,2\n3,\n', ":2: item '' is not a whole number"),
        ('1 1,,2\n', ':1: expected 2 field(s)'),
        ('1 1,2\n', ":1: user '1 1' is not a whole number"),
        ('1,2\n3,1.0\n', ":2: item '1.0' is not a whole number"),
        ('1,2\n3,NaN\n', ":2: item 'NaN' is not a whole number"),
        ('1,"2"\n', ':1: item \'"2"\' is not a whole number'),
        ('1,2\n3,-1\n', ':2: item -1 is out of range; it must be from 0 to 20'),
        ('1,2\n0,2\n', ':2: user 0 is out of range; it must be from 1 to 9.'),
        ('1,2\n10,2\n', ':2: user 10 is out of range'),
        ('1,2\n3,21\n1,22\n', ':2: item 21 is out of range'),
        ('1,2\n\n3,21\n', ':3: item 21 is out of range'),
        ('1,9999999999999999999\n', ":1: item '9999999999999999999' is not"),
        ('1,999999999999999999\n', ':1: item 999999999999999999 is out of'),
        ('1,2\n3,4'.encode('utf-16'), ':1: the file is UTF-16'),
        (b'1,2\n3,\xb2\n', ':2: byte 0xb2 is not UTF-8'),
        (b'1,2\n3,\x004\n', ':2: found a NUL byte'),
    ],
)
def test_broken_columns(tmp_path, content, message):
  path = _write(tmp_path, content)
  found = _outcome(lambda: integers.read_columns(path, PAIR))
  assert message in found and str(path) in found


@pytest.mark.parametrize(
    'content',
    [
        '2 5 0\n0\n1 9\n',
        '2 5 0\n0\n1 9',
        '\ufeff2 5 0\r\n0\r\n1 9\r\n',
        '2  5 0 \n0 \n1 9\n\n\n',
        '2\t5\t0\n0\n1\t9\n \n',
    ],
)
def test_lists(tmp_path, content):
  lists = integers.read_lists(_write(tmp_path, content), ITEM)
  np.testing.assert_array_equal(lists.value, [5, 0, 9])
  np.testing.assert_array_equal(lists.start, [0, 2, 2, 3])
  np.testing.assert_array_equal(lists.rows(), [0, 0, 2])
  assert len(lists) == 3 and lists.count is None


@pytest.mark.parametrize(
    'content, message',
    [
        ('', ': no rows'),
        ('1 2\n\n1 3\n', ':2: blank line, but line n of this file is row n'),
        ('1 2\n\n1 3\n', "it stands for ('0' for an empty list)."),
        (
            '<!DOCTYPE html>\n',
            ":1: the count '<!DOCTYPE' is not a whole number. It looks like a "
            'web page. Correct the line, or fetch the file again.',
        ),
        ('1 2\n2 3\n', ':2: the line says 2 and lists 1 item(s).'),
        ('1 2\n0 3\n', ':2: the line says 0 and lists 1 item(s).'),
        ('2 1\n0 2\n', ':1: the line says 2 and lists 1 item(s).'),
        (
            '1,2\n',
            ":1: the count '1,2' is not a whole number. It looks "
            "separated by ','.",
        ),
        ('1;2\n', "It looks separated by ';'."),
        ('1 2\n1 x\n', ":2: item 'x' is not a whole number."),
        ('1 2\n1 2:1\n', ":2: item '2:1' is not a whole number."),
        ('1 2\n1 nan\n', ":2: item 'nan' is not a whole number."),
        ('1 2\n-1\n', ':2: the line says -1 and lists 0 item(s).'),
        (
            '1 2\n0\n2 3 10\n',
            ':3: item 10 is out of range; it must be from 0 to 9',
        ),
        ('1 2\n1 -3\n', ':2: item -3 is out of range'),
        ('1 2'.encode('utf-16'), ':1: the file is UTF-16'),
    ],
)
def test_broken_lists(tmp_path, content, message):
  path = _write(tmp_path, content)
  found = _outcome(lambda: integers.read_lists(path, ITEM))
  assert message in found and str(path) in found


@pytest.mark.parametrize(
    'content',
    [
        '2 5:3 0:1\n0\n1 9:12\n',
        '\ufeff2 5:3 0:1\r\n0\r\n1 9:12',
        '2 5:3  0:1 \n0\n1\t9:12\n\n',
    ],
)
def test_counted_lists(tmp_path, content):
  lists = integers.read_counted_lists(_write(tmp_path, content), ITEM)
  np.testing.assert_array_equal(lists.value, [5, 0, 9])
  np.testing.assert_array_equal(lists.count, [3, 1, 12])
  np.testing.assert_array_equal(lists.start, [0, 2, 2, 3])


@pytest.mark.parametrize(
    'content, message',
    [
        ('1 2:1\n1 2\n', ":2: found '2'; expected item:count."),
        ('1 2 1\n', ':1: the line says 1 and lists 2 item(s).'),
        ('2 2:1 3:\n', ":1: item count '' is not a whole number"),
        ('1 :4\n', ":1: item '' is not a whole number"),
        ('1 2:1:4\n', ":1: item count '1:4' is not a whole number"),
        ('1 2:0.5\n', ":1: item count '0.5' is not a whole number"),
        ('1 2:1\n1 3:0\n', ':2: item count 0 is out of range; it must be'),
        ('1 2:1\n1 10:1\n', ':2: item 10 is out of range'),
        ('1 2: 1\n', ':1: the line says 1 and lists 2 item(s).'),
        ('1:1 2\n', ":1: the count '1:1' is not a whole number"),
        ('1 2,1\n', ":1: found '2,1'; expected item:count. Correct the line"),
        ('1 2:1\n\n0\n', ':2: blank line'),
    ],
)
def test_broken_counted_lists(tmp_path, content, message):
  path = _write(tmp_path, content)
  found = _outcome(lambda: integers.read_counted_lists(path, ITEM))
  assert f'{path}{message}' in found


# Mostly near misses of the plain form, which is where a scan could be fooled.
_NEAR = st.lists(
    st.sampled_from(['1', '2', '12', ',', ' ', ':', '\n', '0', '-', 'x', '\t']),
    max_size=24,
).map(''.join)


@hypothesis.settings(deadline=None)  # other work may share the cores
@hypothesis.given(content=_NEAR)
def test_a_scan_of_columns_means_what_the_lines_mean(content):
  scanned = integers._scan_columns(content.encode(), 2, ',')
  if scanned is not None:
    _check_same_columns(content, scanned)


def _check_same_columns(content, scanned):
  lines = content.rstrip('\n').split('\n')
  expected = [[int(token) for token in line.split(',')] for line in lines]
  assert scanned.value.tolist() == expected
  assert scanned.line.tolist() == list(range(1, len(lines) + 1))


@hypothesis.settings(deadline=None)
@hypothesis.given(content=_NEAR, counted=st.booleans())
def test_a_scan_of_lists_means_what_the_lines_mean(content, counted):
  scanned = integers._scan_lists(content.encode(), counted)
  if scanned is None:
    return
  value, count = [], []
  rows = content.rstrip('\n').split('\n')
  for line in rows:
    head, *tokens = line.split()
    assert int(head) == len(tokens)
    for token in tokens:
      left, *right = token.split(':')
      assert len(right) == counted
      value.append(int(left))
      count += [int(number) for number in right]
  assert scanned.value.tolist() == value and len(scanned) == len(rows)
  assert (scanned.count is None) != counted
  assert not counted or scanned.count.tolist() == count


@hypothesis.settings(deadline=None)
@hypothesis.given(
    rows=st.lists(
        st.lists(st.integers(0, 10**17), max_size=5), min_size=1, max_size=6
    ),
    counted=st.booleans(),
)
def test_plain_lists_are_scanned(rows, counted):
  end = ':7' if counted else ''
  lines = [
      ' '.join([str(len(row))] + [f'{value}{end}' for value in row])
      for row in rows
  ]
  lists = integers._scan_lists('\n'.join(lines).encode(), counted)
  assert lists is not None  # the fast way is the one taken
  assert np.split(lists.value, lists.start[1:-1])[0].tolist() == rows[0]
  assert lists.value.tolist() == [value for row in rows for value in row]
  assert np.diff(lists.start).tolist() == [len(row) for row in rows]


@hypothesis.settings(deadline=None)
@hypothesis.given(
    rows=st.lists(
        st.tuples(st.integers(0, 10**17), st.integers(0, 10**17)), min_size=1
    )
)
def test_plain_columns_are_scanned(rows):
  content = ''.join(f'{left},{right}\n' for left, right in rows)
  columns = integers._scan_columns(content.encode(), 2, ',')
  assert columns is not None
  assert columns.value.tolist() == [list(row) for row in rows]
