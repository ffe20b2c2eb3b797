# SPDX-License-Identifier: Apache-2.0
"""Files of lists read back as they were meant, or are not there at all."""

import csv
import errno
import json
import os

import numpy as np
import pyarrow as pa
from pyarrow import ipc
from pyarrow import parquet
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.serving import list_files
from dropoutnet_jax.serving import recommender as recommender_lib

ENDINGS = ('.csv', '.tsv', '.json', '.jsonl', '.parquet', '.arrow')
_USERS = np.array(['plain', 'a, b', 'tab\tü"', 'line\nbreak', ''])
_ITEMS = np.array([7, 2**53 + 1, -3])


def _lists():
  """Three users, then two of another part; the last one gets nothing."""
  score = np.array([[0.1, -1e-8], [3e20, 1 / 3], [1, 0.5]], np.float32)
  yield _USERS[:4], recommender_lib.Lists(
      slice(0, 3), np.array([[0, 2], [1, 0], [2, 1]], np.int32), score
  )
  yield _USERS[2:], recommender_lib.Lists(
      slice(1, 3),
      np.array([[1, -1], [-1, -1]], np.int32),
      np.array([[2, -np.inf], [-np.inf, -np.inf]], np.float32),
  )


def _read(path):
  """Columns by name."""
  if path.suffix == '.parquet':
    return parquet.read_table(path).to_pydict()
  if path.suffix == '.arrow':
    return ipc.open_file(pa.OSFile(str(path))).read_all().to_pydict()
  if path.suffix in ('.json', '.jsonl'):
    rows = [json.loads(x) for x in path.read_text('utf-8').split('\n')[:-1]]
  else:
    separator = ',' if path.suffix == '.csv' else '\t'
    with open(path, newline='', encoding='utf-8') as file:
      rows = list(csv.DictReader(file, delimiter=separator))
  return {name: [row[name] for row in rows] for name in rows[0]}


@pytest.mark.parametrize('ending', ENDINGS)
def test_every_format_reads_back(tmp_path, ending):
  path = tmp_path / f'lists{ending}'
  path.write_text('something older')
  assert list_files.write(str(path), _USERS, _ITEMS, _lists()) == 7
  assert os.listdir(tmp_path) == [path.name]
  found = _read(path)
  assert list(found) == list(list_files.NAMES)
  users = [name for name in _USERS[:3].tolist() for _ in range(2)]
  assert found['user_id'] == [*users, 'line\nbreak']
  expected = {
      'rank': [1, 2, 1, 2, 1, 2, 1],
      'item_id': _ITEMS[[0, 2, 1, 0, 2, 1, 1]].tolist(),
      'score': np.float32([0.1, -1e-8, 3e20, 1 / 3, 1, 0.5, 2]).tolist(),
  }
  if ending in ('.csv', '.tsv'):
    for name in ('rank', 'item_id'):
      found[name] = [int(value) for value in found[name]]
  for name in ('rank', 'item_id'):
    assert found[name] == expected[name]
  score = np.array(found['score'], np.float64).astype(np.float32)
  assert score.tolist() == expected['score']  # to the last bit
  if ending in ('.parquet', '.arrow'):
    assert type(found['user_id'][0]) is str and type(found['rank'][0]) is int


@pytest.mark.parametrize('ending', ENDINGS)
def test_no_rows_are_a_file_as_well(tmp_path, ending):
  path = tmp_path / f'lists{ending}'
  assert list_files.write(str(path), _USERS, _ITEMS, iter([])) == 0
  if ending == '.parquet':
    assert parquet.read_table(path).column_names == list(list_files.NAMES)
  elif ending in ('.csv', '.tsv'):
    separator = ',' if ending == '.csv' else '\t'
    assert path.read_text() == separator.join(list_files.NAMES) + '\n'


@pytest.mark.parametrize('ending', ENDINGS)
@pytest.mark.parametrize(
    'error, kind',
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), errors.UserError),
        (errors.UserError('scores are not finite'), errors.UserError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=['full', 'refused', 'interrupted'],
)
def test_nothing_is_half_written(tmp_path, ending, error, kind):
  def interrupted():
    yield next(_lists())
    raise error

  path = tmp_path / f'lists{ending}'
  path.write_text('something older')
  with pytest.raises(kind) as caught:
    list_files.write(str(path), _USERS, _ITEMS, interrupted())
  assert os.listdir(tmp_path) == [path.name]
  assert path.read_text() == 'something older'
  if isinstance(error, OSError):
    assert str(caught.value).endswith('Free space or choose another --output.')


def test_places_that_will_not_do(tmp_path):
  (tmp_path / 'folder.csv').mkdir()
  (tmp_path / 'users.csv').write_text('user_id\nu1\n')
  cases = {
      'lists': 'its name does not say the format; let it end in one of .csv, ',
      'lists.cvs': ".arrow. Did you mean '.csv'?",
      'lists.csv.gz': 'its name does not say the format',
      'no/lists.csv': f'there is no folder {tmp_path}/no. Make it, or correct',
      'folder.csv': 'is a folder; name a file in it',
      './users.csv': 'is a file that is read; name another one',
  }
  for name, message in cases.items():
    with pytest.raises(errors.UserError) as caught:
      list_files.check(f'{tmp_path}/{name}', [f'{tmp_path}/users.csv'])
    assert message in str(caught.value)
  list_files.check(f'{tmp_path}/lists.CSV')
