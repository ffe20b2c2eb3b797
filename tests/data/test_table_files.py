# SPDX-License-Identifier: Apache-2.0
"""One table in every format and place reads alike."""

import gzip
import json
import pathlib

import fsspec
import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import feather
from pyarrow import ipc
from pyarrow import parquet
import pytest

from dropoutnet_jax import config_data
from dropoutnet_jax import errors
from dropoutnet_jax.data import table_files

ROWS = pa.table(
    {
        'user_id': ['u1', 'u2', 'u1', 'ü3'],
        'item_id': ['7', '8', '8', '7'],
        'extra': ['a, b', 'c', None, 'two\nlines'],
    }
)
REQUIRED = {
    'user_id': 'config.data.tables.user_id',
    'item_id': 'config.data.tables.item_id',
}


def _write(path: pathlib.Path, table: pa.Table) -> None:
  """By the ending of the name."""
  path.parent.mkdir(parents=True, exist_ok=True)
  name = path.name.removesuffix('.gz')
  separator = '\t' if name.endswith('.tsv') else ','
  if name.endswith('.parquet'):
    parquet.write_table(table, path, row_group_size=2)
  elif name.endswith('.feather'):
    feather.write_feather(table, path)
  elif name.endswith('.arrow'):
    with ipc.new_stream(path, table.schema) as stream:
      stream.write_table(table)
  elif name.endswith('.jsonl'):
    lines = [json.dumps(row) for row in table.to_pylist()]
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
  else:
    options = arrow_csv.WriteOptions(delimiter=separator)
    arrow_csv.write_csv(table, path, options)
  if path.suffix == '.gz':
    path.write_bytes(gzip.compress(path.read_bytes()))


def _read(pattern, folder=None, optional=None, header=(), **settings):
  source = table_files.Source(
      str(pattern),
      'config.data.tables.interactions',
      REQUIRED,
      optional,
      header,
  )
  config = config_data.TablesConfig(**settings)
  return table_files.read(source, config, None if not folder else str(folder))


def _values(table: table_files.Table) -> list[dict]:
  return table.data.to_pylist()


NAMES = [
    'a.parquet',
    'a.csv',
    'a.tsv',
    'a.jsonl',
    'a.arrow',
    'a.feather',
    'a.csv.gz',
    'a.jsonl.gz',
]


@pytest.mark.parametrize('name', NAMES)
def test_formats(tmp_path, name):
  _write(tmp_path / name, ROWS)
  table = _read(name, tmp_path)
  assert _values(table) == ROWS.to_pylist()
  assert table.names == ('user_id', 'item_id', 'extra')
  assert table.is_text == ('sv' in name)
  assert table.place(3).endswith(f'{name}, row 4')


@pytest.mark.parametrize('name', NAMES)
def test_only_what_is_wanted(tmp_path, name):
  _write(tmp_path / name, ROWS)
  table = _read(name, tmp_path, optional=['label'])
  assert table.data.column_names == ['user_id', 'item_id']
  assert table.names == ('user_id', 'item_id', 'extra')


@pytest.mark.parametrize('pattern', ['part-*.csv', 'parts', 'p*/part-[01].csv'])
def test_several_files(tmp_path, monkeypatch, pattern):
  folder = tmp_path if pattern.startswith('part-') else tmp_path / 'parts'
  _write(folder / 'part-1.csv', ROWS.slice(1, 2))
  _write(folder / 'part-0.csv', ROWS.slice(0, 1))
  (tmp_path / 'parts').mkdir(exist_ok=True)
  (tmp_path / 'parts' / '_SUCCESS').write_text('')
  (tmp_path / 'parts' / '.part-0.csv.crc').write_text('x')
  monkeypatch.chdir(tmp_path)
  table = _read(pattern)
  assert _values(table) == ROWS.slice(0, 3).to_pylist()
  assert [table.place(row).split('part-')[1] for row in range(3)] == [
      '0.csv, row 1',
      '1.csv, row 1',
      '1.csv, row 2',
  ]
  assert table.name().endswith('part-0.csv and 1 more')


def test_a_part_without_rows_and_one_with_missing_columns(tmp_path):
  _write(tmp_path / '0.parquet', ROWS.slice(0, 0))
  _write(tmp_path / '1.parquet', ROWS.select(['item_id', 'user_id']))
  table = _read('*.parquet', tmp_path)
  assert table.place(0).endswith('1.parquet, row 1')
  assert [row['extra'] for row in _values(table)] == [None] * 4


def test_urls():
  system = fsspec.filesystem('memory')
  with system.open('/own_tables/a.csv', 'wb') as file:
    file.write(b'user_id,item_id\nu,1\n')
  for pattern, folder in (
      ('memory://own_tables/a.csv', None),
      ('memory://own_tables/*.csv', None),
      ('memory://own_tables', None),
      ('a.csv', 'memory://own_tables'),
  ):
    table = _read(pattern, folder)
    assert _values(table) == [{'user_id': 'u', 'item_id': '1'}]
    assert table.name() == 'memory:///own_tables/a.csv'
  system.rm('/own_tables', recursive=True)


def test_where_relative_paths_start(tmp_path, monkeypatch):
  _write(tmp_path / 'x' / 'a.csv', ROWS)
  monkeypatch.chdir(tmp_path)
  here = pathlib.Path('x', 'a.csv')
  for pattern, folder in (
      (here, None),
      ('a.csv', 'x'),
      (tmp_path / here, tmp_path / 'elsewhere'),
  ):
    table = _read(pattern, folder)
    assert len(table) == 4 and table.name() == str(here)


def test_a_name_with_signs_of_globs(tmp_path):
  _write(tmp_path / 'a[1].csv', ROWS)
  assert len(_read('a[1].csv', tmp_path)) == 4


@pytest.mark.parametrize(
    'content',
    [
        b'\xef\xbb\xbfuser_id,item_id\nu,1\n',
        b'user_id,item_id\r\nu,1\r\n',
        b'user_id,item_id\nu,1',
        b'\nuser_id,item_id\n\nu,1\n\n',
        b'"user_id","item_id"\n"u","1"\n',
    ],
)
def test_editors_change_nothing(tmp_path, content):
  (tmp_path / 'a.csv').write_bytes(content)
  assert _values(_read('a.csv', tmp_path)) == [{'user_id': 'u', 'item_id': '1'}]


def test_files_without_a_header_and_with_other_names(tmp_path):
  (tmp_path / 'u.data').write_text('u;1;x\nv;2;y\n', encoding='utf-8')
  header = ('user_id', 'item_id', 'extra')
  table = _read('u.data', tmp_path, header=header, format='csv', separator=';')
  assert table.data.column('extra').to_pylist() == ['x', 'y']
  assert table.names == header


def test_no_value_depends_on_where_a_block_ends(tmp_path, monkeypatch):
  """Numbers for long, then a string: pyarrow itself would fail there."""
  monkeypatch.setattr('dropoutnet_jax.data.table_formats._BLOCK', 64)
  values = [str(number) for number in range(200)] + ['x1']
  lines = [f'u{value},{value}' for value in values]
  content = 'user_id,item_id\n' + '\n'.join(lines) + '\n'
  (tmp_path / 'a.csv').write_text(content, encoding='utf-8')
  table = _read('a.csv', tmp_path)
  assert table.data.column('item_id').to_pylist() == values
  assert table.data.column('item_id').num_chunks > 1


def test_starts_of_files_are_row_numbers(tmp_path):
  sizes = [1, 3, 2]
  for number, size in enumerate(sizes):
    _write(tmp_path / f'{number}.csv', ROWS.slice(0, size))
  table = _read('*.csv', tmp_path)
  np.testing.assert_array_equal(table.starts, [0, 1, 4, 6])


@pytest.mark.parametrize(
    'name, known, same',
    [
        ('user_id', ['UserId', 'x'], 'UserId'),
        ('user_id', ['user', 'x'], ''),
        ('label', ['LABEL'], 'LABEL'),
        ('label', [], ''),
    ],
)
def test_same_name(name, known, same):
  assert table_files.same_name(name, known) == same
  if same:
    assert same in table_files.nearest(name, known)


def test_a_file_system_that_fails(tmp_path, monkeypatch):
  def fail(*args, **kwargs):
    raise RuntimeError('token expired')

  monkeypatch.setattr(fsspec.core, 'url_to_fs', fail)
  with pytest.raises(errors.UserError, match='token expired. Correct the path'):
    _read('s3://bucket/a.csv')


def test_a_file_for_which_memory_is_too_small(tmp_path, monkeypatch):
  def fail(*args, **kwargs):
    raise MemoryError

  _write(tmp_path / 'a.csv', ROWS)
  monkeypatch.setattr(arrow_csv, 'read_csv', fail)
  message = 'a.csv cannot be read: it asks for more memory than there is. Unle'
  with pytest.raises(errors.UserError, match=message):
    _read('a.csv', tmp_path)
