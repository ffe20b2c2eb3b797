# SPDX-License-Identifier: Apache-2.0
"""`python run.py embed`: embeddings in blocks, or one message and no file."""

import csv
import json
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import ipc
from pyarrow import parquet
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.serving import facade
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import request_blocks
from dropoutnet_jax.serving import row_sources
from tests import command_line

_ROWS = [
    {
        'item_id': f'n{n}',
        'tags': [f'word{n % 20}', f'word{(3 * n) % 20}'],
        'image': [float(n % 3), 1.0, -0.5],
    }
    for n in range(40)
]


def _embed(*flags: str) -> command_line.Ended:
  return command_line.call('embed', '--workdir=run', *flags)


def _check(path, expected):
  """Checks a file against what the library gives."""
  table = parquet.read_table(path)
  width = expected.dense.shape[1]
  kind = table.schema.field('dense').type
  assert pa.types.is_fixed_size_list(kind) and kind.list_size == width
  assert table.column(0).to_pylist() == expected.ids.tolist()
  dense = table.column('dense').combine_chunks().flatten().to_numpy()
  np.testing.assert_allclose(
      dense.reshape(-1, width), expected.dense, rtol=1e-5, atol=1e-6
  )
  sparse = expected.sparse
  row = np.repeat(np.arange(len(table)), np.diff(sparse.indptr))
  found = np.zeros(sparse.shape, np.float32)
  for name, values in (('sparse_indices', None), ('sparse_values', found)):
    lists = table.column(name).to_pylist()
    flat = [value for one in lists for value in one]
    if values is None:
      column = np.array(flat)
      assert [len(one) for one in lists] == np.diff(sparse.indptr).tolist()
    else:
      values[row, column] = flat
  np.testing.assert_allclose(found, sparse.toarray(), rtol=1e-6)
  return table


def test_all_of_the_run(shop, here):
  ended = _embed('--output=users.parquet', '--side=user')
  assert (ended.status, ended.err) == (0, '')
  table = _check(
      'users.parquet', facade.Recommender(shop.model).embed_users(None)
  )
  assert table.column_names[0] == 'user_id'
  about = json.loads(
      parquet.read_schema('users.parquet').metadata[b'dropoutnet_jax']
  )
  assert about == {
      'side': 'user',
      'step': 2,
      'run': 'shop',
      'dense_width': 10,
      'sparse_width': 19,
  }
  assert ended.out.splitlines() == [
      '36 embeddings of users, dense numbers: 10 and sparse ones of 19, by the '
      'model after step 2.',
      'Written to users.parquet',
  ]


def _write(path, kind):
  """The rows as a file, in a format whose parts do not say all types."""
  table = pa.Table.from_pylist(_ROWS)
  if kind == 'parquet':
    parquet.write_table(table, path, row_group_size=13)
  elif kind == 'arrow':
    with ipc.new_stream(path, table.schema) as writer:
      writer.write_table(table, 11)
  elif kind == 'jsonl':
    # Some lack a key: not those of the first block.
    lines = [json.dumps(row) for row in _ROWS]
    path.write_text('\n'.join(lines))
  else:
    flat = {
        'item_id': table.column('item_id'),
        'tags': ['|'.join(row['tags']) for row in _ROWS],
        'image': ['|'.join(map(str, row['image'])) for row in _ROWS],
    }
    with open(path, 'wb') as file:
      options = arrow_csv.WriteOptions(delimiter='\t' if kind == 'tsv' else ',')
      arrow_csv.write_csv(pa.table(flat), file, options)


@pytest.mark.parametrize('kind', ['parquet', 'arrow', 'jsonl', 'csv', 'tsv'])
def test_blocks_of_files_are_the_whole(shop, here, monkeypatch, kind):
  monkeypatch.setattr(row_sources, 'BLOCK', 16)
  monkeypatch.setattr(request_blocks, '_BYTES', 512)
  _write(here / f'items.{kind}', kind)
  sizes = []
  real = recommender_lib.Ranker.embed_items
  monkeypatch.setattr(
      recommender_lib.Ranker,
      'embed_items',
      lambda self, rows: sizes.append(len(rows)) or real(self, rows),
  )
  (here / 'met.csv').write_text('user_id,item_id\nu1,n3\nu2,n3\nu4,i2\n')
  ended = _embed(
      f'--items=items.{kind}', '--output=out', '--interactions=met.csv'
  )
  assert (ended.status, ended.err) == (0, ''), ended.err
  assert len(sizes) >= 3 and max(sizes) <= 16 and sum(sizes) == 40
  assert (here / 'out' / 'items.parquet').exists()
  expected = facade.Recommender(shop.model).embed_items(
      _ROWS, {'n3': ['u1', 'u2']}
  )
  _check('out/items.parquet', expected)
  assert ended.out.splitlines()[0] == (
      f'items.{kind}: 40 item(s), 40 of them new to the run.'
  )
  assert ended.out.splitlines()[-1] == 'Written to out/items.parquet'


def test_an_id_may_come_twice_and_keys_late(shop, here, monkeypatch):
  """Rows of the file are rows of the output; blocks differ in their columns."""
  monkeypatch.setattr(request_blocks, '_BYTES', 64)
  (here / 'users.jsonl').write_text(
      '{"user_id": "n", "age": 30}\n\n'
      + '{"user_id": "u3", "region": null}\n' * 3
      + '{"user_id": "n", "age": 30, "about": "loud music", "regio": "x"}'
  )
  (here / 'met.csv').write_text('user_id,item_id\nn,i3\nn,i4\nx,i2\nn,i99\n')
  ended = _embed(
      '--users=users.jsonl', '--output=u.parquet', '--interactions=met.csv'
  )
  assert (ended.status, ended.err) == (0, ''), ended.err
  library = facade.Recommender(shop.model)
  told = {'n': ['i3', 'i4']}
  first, last = (
      library.embed_users([{'user_id': 'n', 'age': 30, **more}], told)
      for more in ({}, {'about': 'loud music'})
  )
  known = library.embed_users(['u3'])
  dense = np.concatenate([first.dense, *3 * [known.dense], last.dense])
  table = parquet.read_table('u.parquet')
  assert table.column('user_id').to_pylist() == ['n', *3 * ['u3'], 'n']
  found = table.column('dense').combine_chunks().flatten().to_numpy()
  np.testing.assert_allclose(found.reshape(5, -1), dense, rtol=1e-5, atol=1e-6)
  assert ended.out.splitlines()[:5] == [
      'users.jsonl: 5 user(s), 2 of them new to the run.',
      'users.jsonl: region, age, about of users of the run are not read again; '
      'these keep what they had in training.',
      "users.jsonl has no column 'visits', which features read: it counts as "
      'missing.',
      'met.csv: 1 row(s) are left out, whose user_id (1 of them, such as x) is '
      'not among the users that are asked about.',
      'met.csv: 1 row(s) are left out, whose item_id (1 of them, such as i99) '
      'is not among the items of the run.',
  ]


def _as_process(monkeypatch, number, count=3):
  monkeypatch.setattr(parallel, 'which_process', lambda: (number, count))


@pytest.mark.parametrize('flags', ['--items=folder', '--side=item'])
def test_processes_write_a_part_each(shop, here, monkeypatch, flags):
  """Of rows that lie across files, row groups and blocks."""
  monkeypatch.setattr(row_sources, 'BLOCK', 5)
  (here / 'folder').mkdir()
  table = pa.Table.from_pylist(_ROWS)
  for name, begin, size in (('a', 0, 3), ('b', 3, 1), ('c', 4, 36)):
    parquet.write_table(
        table[begin : begin + size],
        here / 'folder' / f'{name}.parquet',
        row_group_size=11,
    )
  assert _embed('--output=one.parquet', flags).status == 0
  for number in range(3):
    _as_process(monkeypatch, number)
    ended = _embed('--output=out', flags)
    assert (ended.status, ended.err) == (0, '')
  one = parquet.read_table('one.parquet')
  names = [f'items-0000{n}-of-00003.parquet' for n in range(3)]
  assert sorted(p.name for p in (here / 'out').iterdir()) == names
  parts = [parquet.read_table(f'out/{name}') for name in names]
  assert max(map(len, parts)) - min(map(len, parts)) <= 1
  both = pa.concat_tables(parts)
  assert both.schema == one.schema
  assert both.column(0) == one.column(0)
  np.testing.assert_allclose(
      *(np.stack(x['dense'].to_numpy()) for x in (both, one)),
      rtol=1e-5,
      atol=1e-6,
  )


def test_no_part_is_there_where_another_process_fails(shop, here, monkeypatch):
  """Its file waits under a name that no reader of the folder looks at."""
  asked = []

  def agree(is_well=True):
    asked.append(is_well)
    if len(asked) == 2:
      found.extend(path.name for path in (here / 'out').iterdir())
      raise errors.UserError('Another process has stopped; its message says.')

  found: list[str] = []
  monkeypatch.setattr(parallel, 'agree', agree)
  _as_process(monkeypatch, 1)
  before = command_line.snapshot(here)
  ended = _embed('--output=out', '--side=item')
  command_line.check(ended, 2, 'Another process has stopped; its message')
  assert asked == [True, True]
  assert [name.startswith('.items-00001-of-00003.') for name in found] == [True]
  assert command_line.snapshot(here) == before


@pytest.mark.parametrize(
    'flags, message',
    [
        (
            '--output=e.parquet --side=item',
            '--output=e.parquet: 3 processes write a file each; name a fold',
        ),
        (
            '--output=new --items=i.csv',
            '--items=i.csv: several processes share the rows of Parquet files',
        ),
        (
            '--output=new --items=few.parquet',
            '--items=few.parquet has 2 rows for 3 processes; start one process',
        ),
        (
            '--output=old --side=item',
            '--output=old holds items-00000-of-00002.parquet, which is of ano',
        ),
        ('--output=older --side=user', '--output=older holds users.parquet, w'),
    ],
)
def test_mistakes_of_several(shop, here, monkeypatch, flags, message):
  (here / 'i.csv').write_text('item_id\ni1\n')
  few = pa.table({'item_id': ['a', 'b']})
  for path in (
      'few.parquet',
      'old/items-00000-of-00002.parquet',
      'older/users.parquet',
      'older/items.parquet',
  ):
    (here / path).parent.mkdir(exist_ok=True)
    parquet.write_table(few, here / path)
  _as_process(monkeypatch, 0)
  before = command_line.snapshot(here)
  ended = _embed(*flags.split())
  command_line.check(ended, 2, message)
  assert command_line.snapshot(here) == before


def _read_text(path):
  """Rows of JSON lines, or of a delimited file whose lists are JSON."""
  with open(path, encoding='utf-8', newline='') as file:
    if path.endswith(('.json', '.jsonl')):
      return [json.loads(line) for line in file]
    separator = '\t' if path.endswith('.tsv') else ','
    rows = list(csv.DictReader(file, delimiter=separator))
  return [
      {
          name: text if name == 'item_id' else json.loads(text)
          for name, text in row.items()
      }
      for row in rows
  ]


@pytest.mark.parametrize('ending', ['csv', 'tsv', 'json', 'jsonl', 'arrow'])
def test_formats_hold_the_same_numbers(shop, here, monkeypatch, ending):
  """Bit by bit, and the same rows with ids that need quotes."""
  monkeypatch.setattr(row_sources, 'BLOCK', 16)
  ids = ['a,"b"', 'c\td', 'é', "['", '1']
  rows = [{**row, 'item_id': x} for x, row in zip(ids, _ROWS)] + _ROWS[5:]
  rows.append({'item_id': 'bare', 'tags': [], 'image': None})
  parquet.write_table(pa.Table.from_pylist(rows), 'items.parquet')
  name = f'e.{ending}'
  for output in ('e.parquet', name):
    ended = _embed('--items=items.parquet', f'--output={output}')
    assert (ended.status, ended.err) == (0, ''), ended.err
  assert ended.out.splitlines()[-1] == f'Written to {name}'
  expected = parquet.read_table('e.parquet')
  assert expected.column('sparse_indices')[-1].as_py() == []
  if ending == 'arrow':
    with ipc.open_file(name) as reader:
      found = reader.read_all()
    assert found.schema.metadata == expected.schema.metadata
  else:
    found = pa.Table.from_pylist(_read_text(name), expected.schema)
  assert found == expected
  assert sorted(path.name for path in here.glob('*e.*')) == sorted(
      ['e.parquet', name]
  )


@pytest.mark.parametrize('ending', ['csv', 'jsonl'])
def test_parts_of_other_formats(shop, here, monkeypatch, ending):
  """The folder's name says the format; its parts read back as one table."""
  assert _embed(f'--output=one.{ending}', '--side=item').status == 0
  for number in range(2):
    _as_process(monkeypatch, number, 2)
    ended = _embed(f'--output=out.{ending}/', '--side=item')
    assert (ended.status, ended.err) == (0, ''), ended.err
  names = [f'out.{ending}/items-0000{n}-of-00002.{ending}' for n in range(2)]
  assert sorted(str(p) for p in (here / f'out.{ending}').iterdir()) == [
      str(here / name) for name in names
  ]
  parts = [row for name in names for row in _read_text(name)]
  one = _read_text(f'one.{ending}')
  for row, other in zip(parts, one, strict=True):
    assert row.keys() == other.keys() and row['item_id'] == other['item_id']
    for key in row.keys() - {'item_id'}:
      np.testing.assert_allclose(row[key], other[key], rtol=1e-5, atol=1e-6)
  ended = _embed(f'--output=out.{ending}', '--side=user')
  assert ended.status == 0, ended.err
  assert (here / f'out.{ending}/users-00001-of-00002.{ending}').exists()


class Case(NamedTuple):
  """A mistake: the flags, and what must be said of it."""

  name: str
  flags: str
  message: str


_RUN = '--workdir=run --output=e.parquet'
CASES = [
    Case(
        'no flags', '', 'embed needs a run and a place for its embeddings; wr'
    ),
    Case('no run', '--output=e.parquet', 'write python run.py embed --workdi'),
    Case(
        'no side', _RUN, 'embed got neither --users nor --items; say with --s'
    ),
    Case(
        'both sides',
        f'{_RUN} --users=u.csv --items=i.csv',
        'embed got both files; say with --side=user or --side=item whose',
    ),
    Case(
        'another side',
        f'{_RUN} --side=users',
        "--side=users: it must be one of user, item. Did you mean 'user'?",
    ),
    Case(
        'the other file',
        f'{_RUN} --side=user --items=i.csv',
        '--items names items, but --side=user asks for users; leave out one',
    ),
    Case('empty', f'{_RUN} --side=', '--side is empty; give it a value.'),
    Case(
        'a format',
        '--workdir=run --output=e.jsom --side=user',
        '--output=e.jsom: its name does not say the format; let it end in one ',
    ),
    Case(
        'no folder',
        '--workdir=run --output=no/e.parquet --side=user',
        '--output=no/e.parquet: there is no folder no. Make it, or correct',
    ),
    Case(
        'no folder of a folder',
        '--workdir=run --output=no/more --side=user',
        '--output=no/more: there is no folder no. Make it, or correct the pat',
    ),
    Case(
        'over the input',
        '--workdir=run --output=p.parquet --users=p.parquet',
        '--output=p.parquet is a file that is read; name another one.',
    ),
    Case(
        'no file', f'{_RUN} --users=no.csv', "--users is 'no.csv', where there"
    ),
    Case(
        'no ids',
        '--workdir=run --output=new --users=i.csv',
        "i.csv: there is no column 'user_id', which config.data.tables.user_id",
    ),
    Case(
        'no ids in JSON',
        f'{_RUN} --items=bad.jsonl',
        "bad.jsonl: there is no column 'item_id', which config.data.tables.it",
    ),
    Case('no rows', f'{_RUN} --users=none.csv', 'none.csv: no rows.'),
    Case(
        'a broken line', f'{_RUN} --items=broken.jsonl', 'broken.jsonl:2: Expec'
    ),
    Case(
        'a value, far behind',
        '--workdir=run --output=new --users=old.csv',
        "old.csv, row 3: age: 'old' is not a number. Correct it, or leave it",
    ),
    Case(
        'interactions of others',
        '--workdir=run --output=new --users=u.csv --interactions=c.csv',
        'c.csv: no user_id (1 of them, such as z) is among the users that are',
    ),
    Case(
        'interactions without items',
        f'{_RUN} --side=user --interactions=d.csv',
        'd.csv: no item_id (1 of them, such as j) is among the items of the r',
    ),
    Case(
        'other settings',
        f'{_RUN} --side=user --k=3 --data_dir=.',
        'embed takes everything from the run folder; leave out --data_dir, --k',
    ),
]


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_mistakes(case, here, monkeypatch):
  monkeypatch.setattr(request_blocks, '_BYTES', 30)
  command_line.write(
      here,
      {
          'u.csv': 'user_id\nu1\nu1\n',
          'i.csv': 'item_id\ni1\n',
          'none.csv': 'user_id\n',
          'old.csv': 'user_id,age\nn,30\nm,31\no,old\n',
          'c.csv': 'user_id,item_id\nz,i1\n',
          'd.csv': 'user_id,item_id\nu1,j\n',
          'bad.jsonl': '{"item": 3}\n',
          'broken.jsonl': '{"item_id": "a"}\n{"item_id" "b"}\n',
          'p.parquet': 'PAR1',
      },
  )
  before = command_line.snapshot(here)
  ended = command_line.call('embed', *case.flags.split())
  command_line.check(ended, 2, case.message)
  assert command_line.snapshot(here) == before
