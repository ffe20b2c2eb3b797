# SPDX-License-Identifier: Apache-2.0
"""Lines come out clean, and what is not text is refused with its line."""

import math
import pathlib

import numpy as np
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.data import text

PLAIN = 'a b\ncafé\n\nlast\n'
LINES = [(1, 'a b'), (2, 'café'), (3, ''), (4, 'last')]


def _write(tmp_path: pathlib.Path, content: bytes) -> pathlib.Path:
  path = tmp_path / 'file.dat'
  path.write_bytes(content)
  return path


def _message(call, *arguments) -> str:
  with pytest.raises(errors.UserError) as info:
    result = call(*arguments)
    list(result)  # a generator raises only when it is read
  return str(info.value)


@pytest.mark.parametrize(
    'content',
    [
        PLAIN.encode(),
        PLAIN.rstrip('\n').encode(),  # no end behind the last line
        PLAIN.encode('utf-8-sig'),
        PLAIN.replace('\n', '\r\n').encode(),
        PLAIN.replace('\n', '\r\n').encode('utf-8-sig'),
        PLAIN.replace('\n', '\r').encode(),  # old Macs
        b'a b\r\n' + 'café\n\rlast'.encode(),  # mixed
    ],
)
def test_marks_and_line_ends_leave_no_trace(tmp_path, content):
  path = _write(tmp_path, content)
  assert list(text.iterate_lines(path)) == LINES


@pytest.mark.parametrize('encoding', ['latin-1', 'utf-8', 'utf-8-sig'])
def test_utf_8_is_tried_before_the_declared_encoding(tmp_path, encoding):
  path = _write(tmp_path, PLAIN.encode(encoding))
  assert list(text.iterate_lines(path, 'latin-1')) == LINES


def test_only_line_ends_end_a_line(tmp_path):
  content = 'a\x0bb\x1cc\x85d\u2028e\n'
  path = _write(tmp_path, content.encode())
  assert list(text.iterate_lines(path)) == [(1, content[:-1])]


@pytest.mark.parametrize(
    'content, message',
    [
        ('1 2\n3'.encode('utf-16'), ':1: the file is UTF-16; save it as UTF-8'),
        ('1 2\n3'.encode('utf-16-be'), ':1: found a NUL byte'),
        (b'\xfe\xff\x00a', ':1: the file is UTF-16'),
        (b'a\nb\r\nc\0d\n', ':3: found a NUL byte, so the file is not text'),
        (b'\x1f\x8b\x08\x00\x00', ' is packed with gzip; unpack it and put'),
        (b'PK\x03\x04\x14\x00', ' is packed with zip; unpack it and put'),
        (b'a\nAm\xe9lie\n', ':2: byte 0xe9 is not UTF-8; save the file as'),
        (b'\xef\xbb\xbfa\r\nb\r\n\xff', ':3: byte 0xff is not UTF-8'),
    ],
)
def test_what_is_not_text_is_refused(tmp_path, content, message):
  path = _write(tmp_path, content)
  assert f'{path}{message}' in _message(text.iterate_lines, path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
  missing = tmp_path / 'none.dat'
  with pytest.raises(text.MissingFileError, match='none.dat does not exist'):
    text.read_bytes(missing)
  assert f'{tmp_path} cannot be read' in _message(text.read_bytes, tmp_path)


@pytest.mark.parametrize(
    'content, message',
    [
        (b'1\n\n2\n', ':2: blank line, but line n of this file is row n'),
        (b'\n\n2\n', ':1: blank line'),
        (b'1\n \t\n\n2\n', ':2: blank line'),
        (b'', ': no rows; the file is empty'),
        (b' \n\n', ': no rows'),
        (b'\xef\xbb\xbf', ': no rows'),
    ],
)
def test_rows_are_never_renumbered(tmp_path, content, message):
  path = _write(tmp_path, content)
  assert f'{path}{message}' in _message(text.iterate_rows, path)


@pytest.mark.parametrize(
    'arguments, message',
    [
        ((), 'Delete it, or write the row that it stands for.'),
        (("'0' for no tag",), "write the row that it stands for ('0' for no"),
    ],
)
def test_a_blank_line_says_how_an_empty_row_is_written(
    tmp_path, arguments, message
):
  path = _write(tmp_path, b'1\n\n2\n')
  assert message in _message(text.iterate_rows, path, *arguments)


def test_blank_lines_at_the_end_are_no_rows(tmp_path):
  path = _write(tmp_path, b'1\n2\n\n \n\n')
  assert list(text.iterate_rows(path)) == [(1, '1'), (2, '2')]


def test_a_no_break_space_is_a_name(tmp_path):
  path = _write(tmp_path, 'word\n\xa0\n two words \n'.encode())
  assert text.read_names(path) == ['word', '\xa0', 'two words']


def test_records_skip_blank_lines_and_keep_their_line(tmp_path):
  path = _write(tmp_path, b'1|a\n\n 2 | b c\t\n')
  records = [(1, ['1', 'a']), (3, ['2', 'b c'])]
  assert text.read_records(path, 2, '|') == records


def test_blanks_may_be_several_where_they_separate(tmp_path):
  path = _write(tmp_path, b'30 users \n 4  items\n5\tratings\n')
  records = [(1, ['30', 'users']), (2, ['4', 'items']), (3, ['5', 'ratings'])]
  assert text.read_records(path, 2, ' ') == records


@pytest.mark.parametrize(
    'separator, content, message',
    [
        (
            ',',
            b'1,2\n1;2\n',
            ":2: expected 2 field(s) with ',' between, found 1",
        ),
        (',', b'1;2\n', "'1;2'. It looks separated by ';'."),
        (',', b'1\t2\n', 'It looks separated by tabs.'),
        ('\t', b'1 2\n', 'with tabs between, found 1'),
        ('\t', b'1 2\n', 'It looks separated by spaces.'),
        ('|', b'1,2\n', "It looks separated by ','."),
        (',', b'1,2\n\n1,2,3\n', ':3: expected 2 field(s)'),
        (',', b'1,2\n1,2,3\n', "found 3: '1,2,3'. Correct the line, or fetch"),
        # No other separator where the right one is there, or none would do.
        ('|', b'1|A B|C (1995)\n', "found 3: '1|A B|C (1995)'. Correct the"),
        ('|', b'1 2 3\n', "found 1: '1 2 3'. Correct the line"),
        (',', b'<html> <p>\n', "'<html> <p>'. It looks like a web page. Corr"),
        (',', b'\n\n', ': no rows'),
    ],
)
def test_ragged_records_are_refused(tmp_path, separator, content, message):
  path = _write(tmp_path, content)
  found = _message(text.read_records, path, 2, separator)
  assert message in found and str(path) in found


@pytest.mark.parametrize('token', ['0', '-3', '007', '123456789012345678'])
def test_whole_numbers_are_read(token):
  assert text.parse_integer(token, pathlib.Path('f'), 1, 'id') == int(token)


@pytest.mark.parametrize(
    'token', ['', '1.0', '1_0', '+1', 'x', '1e3', '٣', ' 1', 'NULL', '9' * 19]
)
def test_anything_else_is_no_whole_number(token):
  found = _message(text.parse_integer, token, pathlib.Path('f'), 7, 'user')
  assert found == (
      f'f:7: user {token!r} is not a whole number. Correct the line, or fetch '
      'the file again.'
  )


@pytest.mark.parametrize('token', ['0', '-3', '+.5', '2.', '1e3', '1.25E-2'])
def test_numbers_are_read(token):
  value = text.parse_number(token, pathlib.Path('f'), 1, 'age')
  np.testing.assert_equal(value, float(token))


def test_an_empty_number_is_missing():
  arguments = ('', pathlib.Path('f'), 1, 'age')
  assert math.isnan(text.parse_number(*arguments, may_be_empty=True))
  found = _message(text.parse_number, *arguments)
  assert found.startswith("f:1: age '' is not a finite number. Correct the")


@pytest.mark.parametrize(
    'token', ['-', 'inf', 'nan', '1,200', '1_0', 'NULL', '1e999', '1e39', '0x1']
)
def test_anything_else_is_no_number(token):
  arguments = (token, pathlib.Path('f'), 7, 'age', ' A hint.')
  for may_be_empty, remedy in (
      (False, 'Correct the line, or fetch the file again.'),
      (True, 'Leave the field empty where the value is missing.'),
  ):
    assert _message(text.parse_number, *arguments, may_be_empty) == (
        f'f:7: age {token!r} is not a finite number. A hint. {remedy}'
    )


@pytest.mark.parametrize(
    'line, expected, num_fields, hint',
    [
        ('1,2', ' \t', 0, " It looks separated by ','."),
        ('1,2', ' \t', 3, ''),
        ('1,2;3;4', '\t', 3, " It looks separated by ';'."),
        ('1 2,3', ' \t', 0, ''),
        ('word', ',', 0, ''),
        ('word', ',', 1, ''),
        (' <!DOCTYPE html>', ' \t', 0, ' It looks like a web page.'),
    ],
)
def test_separator_hint(line, expected, num_fields, hint):
  assert text.separator_hint(line, expected, num_fields) == hint
