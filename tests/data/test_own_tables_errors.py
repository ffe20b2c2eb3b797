# SPDX-License-Identifier: Apache-2.0
"""Tables that cannot be meant: each refusal says what, where and what to do."""

import gzip
import tempfile

import fsspec
import pyarrow as pa
from pyarrow import parquet
import pytest

from dropoutnet_jax import config_data
from dropoutnet_jax import config_features
from dropoutnet_jax import errors
from dropoutnet_jax.data import columns
from dropoutnet_jax.data import own_tables
from dropoutnet_jax.data import sources
from dropoutnet_jax.data import streamed_tables

GOOD = 'user_id,item_id\na,1\nb,2\n'

# Each case: files, settings, and what the message has to hold.
CASES: dict[str, tuple[dict, dict, list[str]]] = {
    'missing id column': (
        {'pairs.csv': 'userid,item_id\na,1\n'},
        {},
        ["no column 'user_id'", 'data.tables.user_id', "mean 'userid'"],
    ),
    'missing id column of another spelling': (
        {'pairs.csv': 'USER ID,item_id\na,1\n'},
        {},
        ["Did you mean 'USER ID'?", 'Columns are: USER ID, item_id.'],
    ),
    'a chosen column is missing': (
        {'pairs.csv': 'user_id,item_id,click\na,1,1\n'},
        {'label': 'clicks'},
        ["no column 'clicks'", 'data.tables.label', "mean 'click'"],
    ),
    'a default column of another spelling': (
        {'pairs.csv': 'user_id,item_id,Label\na,1,0\n'},
        {},
        ["no column 'label', but 'Label'", 'config.data.tables.label'],
    ),
    'missing id column of a side table': (
        {'pairs.csv': GOOD, 'items.csv': 'id,color\n1,red\n'},
        {'items': 'items.csv'},
        ['items.csv', "no column 'item_id'", 'data.tables.item_id'],
    ),
    'columns of one name': (
        {'pairs.csv': 'user_id,user_id,item_id\na,b,1\n'},
        {},
        ["2 columns are called 'user_id'"],
    ),
    'side columns of one name': (
        {'pairs.csv': GOOD, 'items.csv': 'item_id,x,x\n1,2,3\n'},
        {'items': 'items.csv'},
        ["items.csv: 2 columns are called 'x'", 'rename'],
    ),
    'sample column missing': (
        {'pairs.csv': 'user_id,item_id,age\na,1,3\n'},
        {'interactions': '', 'samples': 'pairs.csv', 'user_columns': ('ages',)},
        ["no column 'ages'", 'data.tables.user_columns', "mean 'age'"],
    ),
    'list column missing': (
        {'pairs.csv': GOOD, 'items.csv': 'item_id,genres\n1,a\n'},
        {'items': 'items.csv', 'tag_columns': ('genre',)},
        ["tag_columns names 'genre'", "mean 'genres'"],
    ),
    'no file': ({}, {}, ['pairs.csv', 'there is no file', '--data_dir']),
    'glob without match': (
        {'pairs.csv': GOOD},
        {'interactions': 'part-*.csv'},
        ["part-*.csv', where there is no file", 'data.tables.interactions'],
    ),
    'folder without files': (
        {'folder/_SUCCESS': ''},
        {'interactions': 'folder'},
        ["folder', where there is no file"],
    ),
    'unknown scheme': (
        {},
        {'interactions': 'nowhere://bucket/a.csv'},
        ['Protocol not known: nowhere', 'available_protocols'],
    ),
    'name without a format': (
        {'u.data': 'a,1\n'},
        {'interactions': 'u.data'},
        ['u.data', 'does not say the format', 'config.data.tables.format'],
    ),
    'empty file': ({'pairs.csv': ''}, {}, ['pairs.csv: no rows', 'empty']),
    'blank file': ({'pairs.csv': '\n\n'}, {}, ["no column 'user_id'", 'none']),
    'header alone': (
        {'pairs.csv': 'user_id,item_id\n'},
        {},
        ['pairs.csv: no rows, only a header'],
    ),
    'empty JSON lines': (
        {'pairs.jsonl': '\n'},
        {'interactions': 'pairs.jsonl'},
        ['pairs.jsonl'],
    ),
    'no header': (
        {'pairs.csv': '5,7,1\n5,8,1\n'},
        {},
        ['first line looks like values', 'config.data.tables.header'],
    ),
    'header twice': (
        {'pairs.csv': GOOD},
        {'header': ('user_id', 'item_id')},
        ['first line repeats the header'],
    ),
    'header of its own under another': (
        {'pairs.csv': GOOD, 'users.csv': 'user_id,age\na,1\nb,2\n'},
        {'users': 'users.csv', 'users_header': ('user_id', 'years')},
        [
            "users.csv: the first line has 'user_id' for an id",
            'Leave out config.data.tables.users_header.',
        ],
    ),
    'header of another width': (
        {'pairs.csv': 'a,1\n'},
        {'header': ('user_id', 'item_id', 'label')},
        ['pairs.csv', 'Expected 3 columns, got 2'],
    ),
    'wrong separator': (
        {'pairs.csv': 'user_id;item_id\na;1\n'},
        {},
        ["looks separated by ';'", 'config.data.tables.separator'],
    ),
    'a row too long': (
        {'pairs.csv': 'user_id,item_id\na,1\nb,2,3\n'},
        {},
        ['pairs.csv', 'Row #3', 'Expected 2 columns, got 3', 'quotes'],
    ),
    'not UTF-8': (
        {'pairs.csv': b'user_id,item_id\na,1\n\xfcber,2\n'},
        {},
        ['pairs.csv:3: byte 0xfc is not UTF-8', 'save'],
    ),
    'header not UTF-8': (
        {'pairs.csv': b'user_id,item_id,\xfc\na,1,2\n'},
        {},
        ['pairs.csv:1: byte 0xfc is not UTF-8'],
    ),
    'JSON not UTF-8': (
        {'pairs.jsonl': b'{"user_id":"a","item_id":1}\n{"user_id":"\xfc"}\n'},
        {'interactions': 'pairs.jsonl'},
        ['pairs.jsonl:2: byte 0xfc is not UTF-8'],
    ),
    'UTF-16': (
        {'pairs.csv': GOOD.encode('utf-16')},
        {},
        ['pairs.csv is UTF-16, not csv', 'UTF-8'],
    ),
    'packed under a plain name': (
        {'pairs.csv': gzip.compress(GOOD.encode())},
        {},
        ['pairs.csv is gzip', 'let its name end in .gz'],
    ),
    'packed in name only': (
        {'pairs.csv.gz': GOOD},
        {'interactions': 'pairs.csv.gz'},
        ['pairs.csv.gz: Not a gzipped file'],
    ),
    'CSV under the name of Parquet': (
        {'pairs.parquet': GOOD},
        {'interactions': 'pairs.parquet'},
        ['pairs.parquet', 'Parquet magic bytes not found', 'tables.format'],
    ),
    'Parquet under the name of CSV': (
        {'pairs.csv': {'user_id': ['a'], 'item_id': [1]}},
        {},
        ['pairs.csv is parquet, not csv', 'config.data.tables.format'],
    ),
    'JSON array': (
        {'pairs.json': '[{"user_id": "a", "item_id": 1}]'},
        {'interactions': 'pairs.json'},
        [
            'pairs.json:1: the file is one array; each line has to hold one '
            "whole object, as jq -c '.[]' FILE writes them. Mend the file"
        ],
    ),
    'JSON object over several lines': (
        {'pairs.jsonl': '{\n  "user_id": "a",\n  "item_id": 1\n}\n'},
        {'interactions': 'pairs.jsonl'},
        [
            'pairs.jsonl:1: the object does not end on its line; each line has '
            'to hold one whole object, as jq -c . FILE writes them. Mend'
        ],
    ),
    'broken JSON': (
        {'pairs.jsonl': '{"user_id":"a","item_id":1}\n{"user_id":\n'},
        {'interactions': 'pairs.jsonl'},
        ['pairs.jsonl:2: '],
    ),
    'mixed types within JSON': (
        {
            'pairs.jsonl': (
                '{"user_id":1,"item_id":1}\n{"user_id":"a","item_id":1}\n'
            )
        },
        {'interactions': 'pairs.jsonl'},
        ['pairs.jsonl:2: Column(/user_id) changed from number to string.'],
    ),
    'files of two formats': (
        {'0.csv': GOOD, '1.parquet': {'user_id': ['a'], 'item_id': [1]}},
        {'interactions': '[01].*'},
        ['delimited files and others (csv, parquet)'],
    ),
    'files of two types': (
        {
            '0.parquet': {'user_id': ['a'], 'item_id': [1]},
            '1.parquet': {'user_id': ['a'], 'item_id': ['1']},
        },
        {'interactions': '*.parquet'},
        ['2 files differ', 'item_id', 'one type'],
    ),
    'missing ids': (
        {'pairs.csv': 'user_id,item_id\na,1\n,2\n,3\n'},
        {},
        ['pairs.csv, row 2: user_id is missing', '2 of 3 rows'],
    ),
    'NaN ids': (
        {'pairs.parquet': {'user_id': [1.0, float('nan')], 'item_id': [1, 2]}},
        {'interactions': 'pairs.parquet'},
        ['row 2: user_id is missing', '1 of 2 rows'],
    ),
    'empty ids': (
        {'pairs.parquet': {'user_id': ['a', ''], 'item_id': [1, 2]}},
        {'interactions': 'pairs.parquet'},
        ['row 2: user_id is missing'],
    ),
    'fractional ids': (
        {'pairs.parquet': {'user_id': [1.5], 'item_id': [1]}},
        {'interactions': 'pairs.parquet'},
        ['user_id holds values of type double', 'Convert'],
    ),
    'ids beyond int64': (
        {
            'pairs.parquet': {
                'user_id': pa.array([2**63], pa.uint64()),
                'item_id': [1],
            }
        },
        {'interactions': 'pairs.parquet'},
        ['beyond 63 bits', 'strings'],
    ),
    'lists as ids': (
        {'pairs.parquet': {'user_id': [['a']], 'item_id': [1]}},
        {'interactions': 'pairs.parquet'},
        ['user_id holds values of type list', 'strings or whole numbers'],
    ),
    'integers here, strings there': (
        {
            'pairs.parquet': {'user_id': ['a'], 'item_id': [1]},
            'items.parquet': {'item_id': ['1']},
        },
        {'interactions': 'pairs.parquet', 'items': 'items.parquet'},
        ['holds integers such as 1', "holds strings such as '1'", 'one type'],
    ),
    'integers here, strings in CSV': (
        {
            'pairs.parquet': {'user_id': ['a'], 'item_id': [1]},
            'items.csv': 'item_id\nx\n',
        },
        {'interactions': 'pairs.parquet', 'items': 'items.csv'},
        ['holds integers such as 1', "items.csv holds strings such as 'x'"],
    ),
    'tables that do not belong together': (
        {'pairs.csv': GOOD, 'users.csv': 'user_id\nx\ny\n'},
        {'users': 'users.csv'},
        ['user_id: no id of', "(such as 'a')", "users.csv (such as 'x')"],
    ),
    'duplicate ids': (
        {'pairs.csv': GOOD, 'items.csv': 'item_id\n1\n2\n1\n3\n3\n3\n'},
        {'items': 'items.csv'},
        [
            'items.csv: 2 item_id occur more than once',
            "'1' (",
            'items.csv, row 1 and ',
            'items.csv, row 3)',
        ],
    ),
    'a label that is no number': (
        {'pairs.csv': 'user_id,item_id,label\na,1,1\nb,1,NA\nb,2,yes\n'},
        {},
        ["pairs.csv, row 3: label: 'yes' is not a number", 'tables.label'],
    ),
    'a label of another type': (
        {
            'pairs.parquet': {
                'user_id': ['a'],
                'item_id': [1],
                'label': [[1.0]],
            }
        },
        {'interactions': 'pairs.parquet'},
        ['label: values of type list', 'are not numbers'],
    ),
    'missing labels': (
        {'pairs.csv': 'user_id,item_id,label\na,1,1\nb,1,\n'},
        {},
        ['pairs.csv, row 2: label is missing', '1 of 2 rows'],
    ),
    'negative labels': (
        {'pairs.csv': 'user_id,item_id,label\na,1,1\nb,1,-1\n'},
        {},
        ['pairs.csv, row 2: label is -1'],
    ),
    'no like': (
        {'pairs.csv': 'user_id,item_id,label\na,1,0\nb,1,0\n'},
        {},
        ['no label is above 0', 'config.data.tables.label'],
    ),
    'negative weights': (
        {'pairs.csv': 'user_id,item_id,weight\na,1,-2\nb,1,-3\n'},
        {},
        ['row 1: weight is -2', '2 of 2 rows', 'config.data.tables.weight'],
    ),
    'infinite weights': (
        {'pairs.parquet': {'user_id': ['a'], 'item_id': [1], 'weight': [1e99]}},
        {'interactions': 'pairs.parquet'},
        ['row 1: weight is 1e+99'],
    ),
    'a time that is none': (
        {'pairs.csv': 'user_id,item_id,time\na,1,2026-01-01\nb,1,soon\n'},
        {},
        ["row 2: time: 'soon' is neither a number nor a time"],
    ),
    'times in two ways': (
        {'pairs.csv': 'user_id,item_id,time\na,1,5\nb,1,2026-01-01\n'},
        {},
        ["row 2: time: '2026-01-01' is", 'is not written as the others are'],
    ),
    'missing times': (
        {'pairs.csv': 'user_id,item_id,time\na,1,5\nb,1,\n'},
        {},
        ['row 2: time: 1 times are missing'],
    ),
    'no time at all': (
        {'pairs.csv': 'user_id,item_id,time\na,1,\nb,1,\n'},
        {},
        ['row 1: time: 2 times are missing'],
    ),
    'seconds among milliseconds': (
        {
            'pairs.csv': (
                'user_id,item_id,time\na,1,1704187743000\nb,1,1704187743\n'
                'b,2,1704363864000\n'
            )
        },
        {},
        [
            'pairs.csv, row 2: time: 1704187743, divided by 1,000',
            'as are 1 of 3 times',
            'are of another unit',
            'config.data.tables.time',
        ],
    ),
    'a time of -1': (
        {'pairs.csv': 'user_id,item_id,time\na,1,1704187743\nb,1,-1\n'},
        {},
        ['row 2: time: -1 is within a year of 1970, as are 1 of 2 times'],
    ),
    'truth values as times': (
        {'pairs.csv': 'user_id,item_id,time\na,1,true\n'},
        {},
        ['time: truth values are no times'],
    ),
    'missing sessions': (
        {'pairs.csv': 'user_id,item_id,session_id\na,1,s\nb,1,\n'},
        {},
        ['row 2: session_id: it is missing', 'config.data.tables.session_id'],
    ),
    'fractional sessions': (
        {
            'pairs.parquet': {
                'user_id': ['a'],
                'item_id': [1],
                'session_id': [0.5],
            }
        },
        {'interactions': 'pairs.parquet'},
        ['session_id: values of type double are neither'],
    ),
    'sequence column missing': (
        {'pairs.csv': GOOD, 'items.csv': 'item_id,seen\n1,a\n'},
        {'items': 'items.csv', 'sequence_columns': ('seem',)},
        ["sequence_columns names 'seem'", "mean 'seen'"],
    ),
    'a sequence that is no list': (
        {
            'pairs.csv': GOOD,
            'items.parquet': {'item_id': [1, 2], 'seen': [3, 4]},
        },
        {'items': 'items.parquet', 'sequence_columns': ('seen',)},
        [
            'seen: values of type int64 are no lists. Correct it',
            'out of config.data.tables.sequence_columns.',
        ],
    ),
    'a sequence of fractions': (
        {
            'pairs.csv': GOOD,
            'items.parquet': {'item_id': [1, 2], 'seen': [[0.5], None]},
        },
        {'items': 'items.parquet', 'sequence_columns': ('seen',)},
        ['seen: lists of double are no sequences', 'strings or whole numbers'],
    ),
    'a sequence of what int64 cannot hold': (
        {
            'pairs.csv': GOOD,
            'items.parquet': {
                'item_id': [1, 2],
                'seen': pa.array([[2**63], None], pa.list_(pa.uint64())),
            },
        },
        {'items': 'items.parquet', 'sequence_columns': ('seen',)},
        ['seen: a sequence holds whole numbers beyond 63 bits', 'strings'],
    ),
    'a sequence of weights': (
        {
            'pairs.csv': GOOD,
            'items.parquet': {
                'item_id': [1, 2],
                'seen': pa.array(
                    [[('a', 1)], None], pa.map_(pa.string(), pa.int8())
                ),
            },
        },
        {'items': 'items.parquet', 'sequence_columns': ('seen',)},
        ['seen: values of type map<string, int8', 'are no lists. Correct'],
    ),
    'vectors of two lengths': (
        {'pairs.csv': GOOD, 'items.csv': 'item_id,v\n1,1|2\n2,3\n'},
        {'items': 'items.csv', 'vector_columns': ('v',)},
        ['items.csv, row 2: v: a vector of 1 numbers where 2 were expected'],
    ),
    'a vector of words, in the row that counts': (
        {'pairs.csv': 'user_id,item_id,v\nb,1,1|2\na,1,x\nb,2,3|4\n'},
        {
            'interactions': '',
            'samples': 'pairs.csv',
            'user_columns': ('v',),
            'vector_columns': ('v',),
        },
        ['row 3: v: a vector of 2 numbers where 1 were expected'],
    ),
}


# The same of interactions that are streamed: folders of Parquet.
PART = {'user_id': ['a', 'b'], 'item_id': [1, 2]}
STREAMED: dict[str, tuple[dict, dict, list[str]]] = {
    'not Parquet': (
        {'pairs/0.csv': GOOD},
        {},
        ['0.csv is csv, but with config.data.mode', "mode to 'resident'"],
    ),
    'a missing id in a later file': (
        {
            'pairs/0.parquet': PART,
            'pairs/1.parquet': PART | {'user_id': ['c', None]},
        },
        {},
        ['1.parquet, row 2: user_id is missing, as in 1 of 1 rows'],
    ),
    'a label below 0 in a later block': (
        {'pairs/0.parquet': PART | {'label': [1.0, -2.0]}},
        {},
        ['0.parquet, row 2: label is -2; 1 of 1 rows have no number from 0'],
    ),
    'no label above 0': (
        {'pairs/0.parquet': PART | {'label': [0, 0]}},
        {},
        ['no label is above 0', 'config.data.tables.label'],
    ),
    'ids of two types': (
        {
            'pairs/0.parquet': PART,
            'pairs/1.parquet': PART | {'user_id': [1, 2]},
        },
        {},
        ['1.parquet: user_id holds int64 and in ', '0.parquet string'],
    ),
    'files of other columns': (
        {'pairs/0.parquet': PART, 'pairs/1.parquet': PART | {'weight': [1, 2]}},
        {},
        ['1.parquet has other columns than', 'user_id, item_id, weight'],
    ),
    'no rows': (
        {
            'pairs/0.parquet': {
                'user_id': pa.array([], pa.string()),
                'item_id': pa.array([], pa.int8()),
            }
        },
        {},
        ['0.parquet: no rows', 'config.data.tables.interactions'],
    ),
    'too many rows': (
        {f'pairs/{n}.parquet': PART for n in range(3)},
        {},
        ["interactions is 'pairs', which has more than 5 rows", 'fewer files'],
    ),
    'no Parquet inside': (
        {'pairs/0.parquet': 'user_id,item_id'},
        {},
        ['0.parquet cannot be read', 'config.data.tables.interactions'],
    ),
    'a missing column': (
        {'pairs/0.parquet': {'user': ['a'], 'item_id': [1]}},
        {},
        ["no column 'user_id'", "Did you mean 'user'?"],
    ),
    'no ids in common': (
        {'pairs/0.parquet': PART, 'items.csv': 'item_id,x\n7,1\n'},
        {'items': 'items.csv'},
        ['item_id: no id of', 'is in'],
    ),
}


@pytest.mark.parametrize('name', STREAMED)
def test_streamed_tables(tmp_path, name, monkeypatch):
  monkeypatch.setattr(streamed_tables, '_BLOCK', 1)
  monkeypatch.setattr(streamed_tables, '_MOST_ROWS', 5)
  files, settings, expected = STREAMED[name]
  write(tmp_path, files)
  config = config_data.TablesConfig(**{'interactions': 'pairs', **settings})
  with pytest.raises(errors.UserError) as info, tempfile.TemporaryFile() as out:
    streamed_tables.stage(config, str(tmp_path), out)
  message = str(info.value)
  assert all(part in message for part in expected), message
  assert message.endswith('.') and '\n' not in message


def write(folder, files):
  for path, content in files.items():
    target = folder / path
    target.parent.mkdir(exist_ok=True)
    if isinstance(content, dict):
      parquet.write_table(pa.table(content), target)
    else:
      is_text = isinstance(content, str)
      target.write_bytes(content.encode() if is_text else content)


@pytest.mark.parametrize('name', CASES)
def test_tables(tmp_path, name):
  files, settings, expected = CASES[name]
  write(tmp_path, files)
  config = config_data.TablesConfig(**{'interactions': 'pairs.csv', **settings})
  config.validate()
  with pytest.raises(errors.UserError) as info:
    own_tables.load(config, str(tmp_path))
  message = str(info.value)
  assert all(part in message for part in expected), message
  assert message.endswith('.') and '\n' not in message
  assert '..' not in message.replace('...', ''), message


@pytest.mark.parametrize(
    'content, settings, message',
    [
        (
            'user_id,item_id,age\na,1,\nb,2,\n',
            {'user_columns': ('age',)},
            "column 'age' is left out: it is empty in all 2 rows. Mend",
        ),
        (
            'user_id,item_id,age\na,1,3\nb,2,4\n',
            {'item_columns': ('age',)},
            "no column 'age'. .* named in config.data.tables.user_columns.",
        ),
    ],
)
def test_columns_that_features_do_not_find(
    tmp_path, content, settings, message
):
  (tmp_path / 'a.csv').write_text(content)
  config = config_data.TablesConfig(samples='a.csv', **settings)
  dataset = own_tables.load(config, str(tmp_path))
  feature = config_features.Feature('age', 'numeric')
  with pytest.raises(errors.UserError, match=message):
    columns.read(dataset.users, feature, 'config.features.user[0]')


SETTINGS = [
    ({}, 'data.tables.interactions is'),
    ({'interactions': 'a', 'samples': 'b'}, 'empty where data.tables.samples'),
    ({'users': 'a', 'samples': 'b'}, 'data.tables.users is'),
    ({'interactions': 'a', 'user_columns': ('x',)}, 'data.tables.user_columns'),
    ({'format': 'cvs'}, 'one of parquet, csv, tsv, json, arrow. Did you'),
    ({'separator': '||'}, 'data.tables.separator'),
    ({'user_id': ''}, 'data.tables.user_id'),
    ({'list_separator': ''}, 'data.tables.list_separator'),
    ({'item_id': 'user_id'}, 'another column than data.tables.user_id'),
    ({'label': 'time'}, 'another column than data.tables.label'),
    ({'header': ('a', 'a')}, 'distinct names'),
    (
        {'tag_columns': ('a', 'b'), 'vector_columns': ('b',)},
        "without 'b', which data.tables.vector_columns names",
    ),
    ({'sequence_columns': ('a', 'a')}, 'data.tables.sequence_columns is'),
    (
        {'tag_columns': ('a', 'b'), 'sequence_columns': ('a',)},
        "tag_columns is ('a', 'b'); it must be without 'a', which "
        'data.tables.sequence_columns names',
    ),
    (
        {'vector_columns': ('a',), 'sequence_columns': ('a',)},
        "vector_columns is ('a',); it must be without 'a', which",
    ),
]


@pytest.mark.parametrize('settings, expected', SETTINGS)
def test_settings(settings, expected):
  if settings and 'samples' not in settings:
    settings = {'interactions': 'a.csv', **settings}
  config = config_data.DataConfig(
      name='tables', tables=config_data.TablesConfig(**settings)
  )
  with pytest.raises(errors.UserError) as info:
    config.validate()
  assert expected in str(info.value), str(info.value)


def test_tables_of_another_source():
  config = config_data.DataConfig(
      tables=config_data.TablesConfig(interactions='a.csv')
  )
  with pytest.raises(
      errors.UserError, match="'tables' where data.tables.inter"
  ):
    config.validate()


def test_published_splits_and_folders(tmp_path):
  config = config_data.DataConfig(name='tables', split='published-cold')
  with pytest.raises(errors.UserError, match='without a published split'):
    sources.load(config, None)
  config = config_data.DataConfig(name='tables')
  with pytest.raises(errors.UserError, match='is no folder'):
    sources.load(config, str(tmp_path / 'none'))


def test_a_package_that_is_not_installed(monkeypatch):
  def fail(*args, **kwargs):
    raise ImportError('Install s3fs to access S3')

  monkeypatch.setattr(fsspec.core, 'url_to_fs', fail)
  config = config_data.TablesConfig(interactions='s3://bucket/a.csv')
  with pytest.raises(
      errors.UserError, match='Install s3fs to access S3. Known'
  ):
    own_tables.load(config, None)
