# SPDX-License-Identifier: Apache-2.0
"""Whatever bytes a file has, it is a table or one message that names it."""

from collections.abc import Callable, Iterator
import io
import itertools
import random

import pyarrow as pa
from pyarrow import feather
from pyarrow import json as arrow_json
from pyarrow import parquet
import pytest

from dropoutnet_jax import config_data
from dropoutnet_jax import errors
from dropoutnet_jax.data import json_lines
from dropoutnet_jax.data import table_files
from dropoutnet_jax.serving import request_blocks

_MANY = 150  # damaged files of each format
_ROWS = pa.table(
    {
        'user_id': ['a', 'b', 'c'],
        'region': ['north', None, 'x'],
        'age': [1.5, None, 3.0],
        'tags': [['s', 't'], [], None],
    }
)
_CSV = b'user_id,region,age\na,north,1.5\nb,,\n"c ""q""",x,3\n'
_LINES = (
    b'{"user_id": "a", "age": 1.5, "tags": ["s"]}\n'
    b'{"user_id": "b", "age": null}\n{"user_id": "c", "more": {"x": 1}}\n'
)
_PIECES = (
    b'"',
    b'\n',
    b',',
    b'\0',
    b'\xff',
    b'{',
    b'[',
    b'1e999',
    b'NaN',
    b'null',
    b'\nnull\n',
    b'\xef\xbb\xbf',
    b'\\ud800',
    b'9' * 20,
)


def _whole(kind: str) -> bytes:
  file = io.BytesIO()
  if kind == 'parquet':
    parquet.write_table(_ROWS, file)
  elif kind == 'arrow':
    feather.write_feather(_ROWS, file, compression='uncompressed')
  return {'csv': _CSV, 'jsonl': _LINES}.get(kind) or file.getvalue()


def _damage(rng: random.Random, whole: bytes) -> bytes:
  data = bytearray(whole)
  for _ in range(rng.randint(1, 5)):
    place = rng.randrange(len(data) + 1)
    change = rng.randrange(6)
    if change == 0:
      data[place : place + 1] = rng.randbytes(1)
    elif change == 1:
      data[place:place] = rng.randbytes(rng.randint(1, 8))
    elif change == 2:
      del data[place : place + rng.randint(1, 10)]
    elif change == 3:
      data[place:place] = rng.choice(_PIECES)
    elif change == 4:
      data[place:] = data[place:] * 2
    elif rng.random() < 0.3:
      del data[place:]
  return bytes(data)


def _both(source: table_files.Source) -> Iterator[Callable[[], int]]:
  """Reads the source whole and in blocks; gives how many rows there are."""
  settings = config_data.TablesConfig()
  yield lambda: len(table_files.read(source, settings, None))
  yield lambda: sum(map(len, request_blocks.read(source, settings, 2)))


@pytest.mark.parametrize('kind', ['csv', 'jsonl', 'parquet', 'arrow'])
def test_damaged_files(kind, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(request_blocks, '_BYTES', 64)
  rng, whole = random.Random(kind), _whole(kind)
  name = f'f.{kind}'
  wanted = {'user_id': 'config.data.tables.user_id'}
  source = table_files.Source(name, '--users', wanted, ('age', 'tags'))
  files = [whole, *(_damage(rng, whole) for _ in range(_MANY))]
  told, read = 0, 0
  for data in files:
    (tmp_path / name).write_bytes(data)
    for reading in _both(source):
      try:
        assert reading() > 0
        read += 1
      except errors.UserError as error:
        assert str(error).startswith(name) and len(str(error)) < 1000
        told += 1
  assert read >= 2 and told > _MANY // 4


@pytest.mark.parametrize(
    'before',
    ['', ' ', '\n\n', '\t', '\r\n', '\ufeff', '{"user_id":"a"}\n'],
    ids=repr,
)
@pytest.mark.parametrize(
    'value', ['null', 'null{"user_id":"c"}', '3', '[]', '[1]']
)
def test_lines_that_are_no_objects(before, value, tmp_path, monkeypatch):
  """Where pyarrow sees null first it ends the process."""
  monkeypatch.chdir(tmp_path)
  text = f'{before}{value}\n{{"user_id":"b"}}\n'
  (tmp_path / 'm.jsonl').write_bytes(text.encode())
  monkeypatch.setattr(request_blocks, '_BYTES', 8)
  wanted = {'user_id': 'config.data.tables.user_id'}
  source = table_files.Source('m.jsonl', '--users', wanted)
  line = 1 + before.count('\n')
  what = 'an array' if value.startswith('[') else 'a value'
  for reading in _both(source):
    with pytest.raises(errors.UserError) as caught:
      reading()
    assert str(caught.value) == (
        f'm.jsonl:{line}: {what} where an object belongs; each line has to '
        'hold one whole object. Mend the file, or change --users.'
    )


_ROW = '{"user_id":"a","tags":["s"]}\n'
_OBJECT_PER_LINE = 'each line has to hold one whole object, as jq -c '
_UNFINISHED = (
    f'the object does not end on its line; {_OBJECT_PER_LINE}. FILE writes them'
)
_ONE_ARRAY = f"the file is one array; {_OBJECT_PER_LINE}'.[]' FILE writes them"


@pytest.mark.parametrize('num_bytes', [8, 1 << 20])
@pytest.mark.parametrize(
    'text, line, told',
    [
        ('{\n  "user_id": "a",\n  "tags": []\n}\n', 1, _UNFINISHED),
        ('{"user_id": "a",\n "tags": []}\n' + _ROW, 1, _UNFINISHED),
        (_ROW + '\n{"user_id": "b", "tags": [\n"s"\n]}\n', 3, _UNFINISHED),
        (_ROW + _ROW + '{"user_id": "b",', 3, _UNFINISHED),
        (_ROW + '{"user_id"', 2, _UNFINISHED),
        (_ROW + '{"user_id": "b', 2, 'Unterminated string starting at'),
        (_ROW + '{"user_id": ["b"}\n', 2, "Expecting ',' delimiter"),
        (f'[{_ROW.strip()}, {_ROW.strip()}]', 1, _ONE_ARRAY),
        (f'\n \n[\n  {_ROW}]\n', 3, _ONE_ARRAY),
        (f'[ {{\n"user_id": "a"}},\n{_ROW}]\n', 1, _ONE_ARRAY),
        (_ROW + f'[{_ROW.strip()}]\n', 2, 'an array where an object belongs'),
    ],
    ids=range(11),
)
def test_json_that_is_not_an_object_per_line(
    text, line, told, num_bytes, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(request_blocks, '_BYTES', num_bytes)
  (tmp_path / 'm.jsonl').write_text(text)
  wanted = {'user_id': 'config.data.tables.user_id'}
  source = table_files.Source('m.jsonl', '--users', wanted)
  for reading in _both(source):
    with pytest.raises(errors.UserError) as caught:
      reading()
    assert str(caught.value).startswith(f'm.jsonl:{line}: {told}')


def _read(data: bytes, num_bytes: int) -> pa.Table:
  return json_lines.table(lambda: io.BytesIO(data), num_bytes)


def test_deep_and_long_lines(monkeypatch):
  flat = b'{"a": "' + b'[' * 500 + b'", "b": [' + b'[1],' * 200 + b'[2]]}\n'
  assert len(_read(flat, 1 << 20)) == 1
  for deep in (b'[' * 100_000 + b']' * 100_000, b'{"a":' * 101 + b'[[' * 999):
    with pytest.raises(json_lines.LineError, match='more than 100 t') as caught:
      _read(b'{"b": 1}\n\n{"a": ' + deep + b'}', 16)
    assert caught.value.line == 3
  # Nested from line to line; each begins as an object does.
  over = b'{"a": [\n' * 50_000 + b'{}, ' + b'{}' + b']}' * 50_000 + b'\n'
  with pytest.raises(json_lines.LineError, match='does not end') as caught:
    _read(over, 1 << 20)
  assert caught.value.line == 1
  monkeypatch.setattr(json_lines, '_LONGEST', 100)
  with pytest.raises(json_lines.LineError, match='one array; each') as caught:
    _read(b'\n[' + flat, 16)
  assert caught.value.line == 2
  with pytest.raises(json_lines.LineError, match='longer than 100 b') as caught:
    _read(b'{}\n' + flat, 16)
  assert caught.value.line == 2


_VALUES = {
    'null': 'null',
    'number': '1',
    'fraction': '1.5',
    'word': '"b"',
    'day': '"2020-01-01"',
    'instant': '"2020-01-01T00:00:00.5"',
    'truth': 'true',
    'none': '[]',
    'list': '[1]',
    'fractions': '[1.5, null]',
    'words': '["b"]',
    'days': '["2020-01-01"]',
    'object': '{"x": 1}',
    'others': '{"y": [2.5], "x": null}',
}


@pytest.mark.parametrize('first', _VALUES)
def test_columns_do_not_depend_on_where_a_block_ends(first):
  """As pyarrow reads them at once; it ends where they change their kind."""
  for second in _VALUES:
    values = [_VALUES[first], _VALUES[first], _VALUES[second]]
    data = ''.join(f'{{"n": {n}, "a": {x}}}\n' for n, x in enumerate(values))
    # As many bytes as a row; a row per block.
    sizes = [len(line) for line in data.splitlines(keepends=True)]
    try:
      expected = arrow_json.read_json(io.BytesIO(data.encode()))
    except pa.ArrowInvalid:
      with pytest.raises(json_lines.LineError) as caught:
        _read(data.encode(), min(sizes))
      assert caught.value.line == 3, (first, second)
      continue
    found = _read(data.encode(), min(sizes))
    assert found.column('n').num_chunks > 1
    assert found.schema == expected.schema, (first, second)
    assert found.combine_chunks() == expected.combine_chunks()


def test_blocks_of_one_file_lack_columns():
  lines = [f'{{"n": {n}, "{"ab"[n % 2]}": "x"}}\n' for n in range(9)]
  blank = itertools.chain.from_iterable(zip(lines, ['\n', ' \n', '\r\n'] * 3))
  found = _read(''.join(blank).encode(), 20)
  assert found.column_names == ['n', 'a', 'b']
  assert found.column('n').to_pylist() == list(range(9))
  assert found.column('b').null_count == 5
