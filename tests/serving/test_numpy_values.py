# SPDX-License-Identifier: Apache-2.0
"""Odd values in rows: the NumPy runtime does what the library does.

Each value is given to both, alone in a row. Both take it and agree, or both
refuse it.
"""

import datetime
import decimal
import functools
import types
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import arrow_columns
from dropoutnet_jax.data import column_types
from dropoutnet_jax.data import features
from dropoutnet_jax.data import schema
from dropoutnet_jax.serving import facade
from dropoutnet_jax.serving import given_tables
from dropoutnet_jax.serving import numpy_encoders
from dropoutnet_jax.serving import numpy_runtime
from dropoutnet_jax.serving import numpy_values
from dropoutnet_jax.serving import request_tables

_INF, _NAN = float('inf'), float('nan')
_SETTINGS = config.TablesConfig(
    tag_columns=('tags',),
    vector_columns=('vector',),
    sequence_columns=('seen', 'numbers'),
    tag_weight_separator=':',
)
_FEATURE = config.Feature
FEATURES = {
    'strings': _FEATURE('kind', 'category'),
    'whole numbers': _FEATURE('code', 'category'),
    'buckets': _FEATURE('code', 'category', num_buckets=4),
    'number': _FEATURE('size', 'numeric'),
    'logarithm': _FEATURE('size', 'numeric', transform='log1p'),
    'intervals': _FEATURE('size', 'numeric', boundaries=(2.0, 4.0)),
    'vector': _FEATURE('vector', 'dense'),
    'tags': _FEATURE('tags', counts='raw'),
    'tags in a logarithm': _FEATURE('tags', counts='log'),
    'embedded tags': _FEATURE('tags', counts='raw', embedding=2),
    'text': _FEATURE('about', 'text', idf='none'),
    'sequence': _FEATURE('seen', 'sequence'),
    'sequence of numbers': _FEATURE('numbers', 'sequence'),
    'tags of a sequence': _FEATURE('seen', 'tags'),
}
VALUES: dict[str, Any] = {
    'missing': None,
    'NaN': _NAN,
    # Strings, also of numbers and of lists.
    'string': 'a',
    'with spaces': ' a ',
    'blank': '',
    'word': 'red',
    'two tags': 'a|b',
    'tags with weights': 'a:2|b',
    'tag without weight': 'a:|b',
    'vector as text': '1|2|3',
    'whole number as text': '3',
    'number as text': ' 2.5 ',
    'leading zero': '03',
    'NaN as text': 'NaN',
    'infinity as text': 'inf',
    'date as text': '2020-01-31',
    'truth as text': 'True',
    'half a pair': '\ud800',
    'string of NumPy': np.str_('a'),
    # Numbers.
    'whole': 3,
    'float': 3.0,
    'fraction': 3.5,
    'negative': -3,
    'too exact': 2.0**24,
    'too large': 1e39,
    'beyond 64 bits': 2**70,
    'infinite': _INF,
    'minus infinity': -_INF,
    'true': True,
    'float of NumPy': np.float32(2.5),
    'whole of NumPy': np.int64(3),
    'truth of NumPy': np.bool_(True),
    'decimal': decimal.Decimal('2.5'),
    'complex': 1j,
    # Dates.
    'date': datetime.date(1970, 1, 4),
    'moment': datetime.datetime(1970, 1, 4, 12),
    'time': datetime.time(1),
    # Lists.
    'list': ['a', 'b'],
    'tuple': ('a', 'b'),
    'set': {'a', 'b'},
    'array of strings': np.array(['a', 'b']),
    'empty': [],
    'twice': ['a', 'a'],
    'blank in a list': ['a', ' '],
    'None in a list': ['a', None],
    'NaN in a list': ['a', _NAN],
    'None alone': [None],
    'list with weights': ['a:2', 'b'],
    'list with a wrong weight': ['a:x'],
    'list with an infinite weight': ['a:1e39'],
    'strings and numbers': ['a', 1],
    'nested': [['a', 'b']],
    'nested in part': ['a', ['b']],
    'one number': [3.0],
    'whole numbers': [1, 2, 3],
    'whole numbers and NaN': [1, 2, _NAN],
    'numbers': [1.0, 2.0, 3.0],
    'numbers in a tuple': (1.0, 2.0, 3.0),
    'numbers in an array': np.array([1, 2, 3], np.float32),
    'two numbers': [1.0, 2.0],
    'number missing': [1.0, None, 3.0],
    'number NaN': [1.0, _NAN, 3.0],
    'number infinite': [1.0, _INF, 3.0],
    'number too large': [1.0, 1e39, 3.0],
    'numbers as texts': ['1', '2.5', 'NA'],
    'truth values': [True, False, True],
    'matrix': np.ones((1, 3)),
    'number in an array': np.array(2.5),
    'string in an array': np.array('a'),
    'moment of NumPy': np.datetime64('1970-01-04T12:00:00'),
    'range': range(3),
    'bytes in a list': [b'a'],
    # What is neither.
    'bytes': b'a',
    'object': object(),
    'dict': {'a': 1.0, 'b': 2.0},
    'dict of whole numbers': {'a': 1},
    'dict with 0': {'a': 0.0},
    'empty dict': {},
    'dict with None': {'a': None},
    'dict with NaN': {'a': _NAN},
    'dict with a negative weight': {'a': -2.0},
    'dict with infinity': {'a': _INF},
    'dict of a large weight': {'a': 1e31},
    'dict of strings': {'a': '2'},
    'dict of truth': {'a': True},
    'dict of lists': {'a': [1.0]},
    'dict of numbers as names': {1: 2.0},
    'pairs': [('a', 2.0)],
}
# Neither is refused by all kinds, so that the table is not all refusals.
TAKEN = {
    'strings': ['string', 'whole', 'true', 'NaN', 'infinity as text'],
    'whole numbers': ['whole number as text', 'float', 'NaN as text', 'date'],
    'number': ['number as text', 'truth as text', 'decimal', 'moment', 'true'],
    'vector': ['vector as text', 'whole numbers', 'numbers as texts', 'empty'],
    'tags': ['two tags', 'tags with weights', 'tuple', 'dict', 'empty dict'],
    'text': ['string', 'blank', 'word'],
    'sequence': ['two tags', 'set', 'whole numbers', 'None alone'],
}
REFUSED = {
    'strings': ['list', 'fraction', 'infinite', 'bytes', 'date'],
    'whole numbers': ['string', 'fraction', 'infinite', 'too exact'],
    'number': ['string', 'blank', 'infinite', 'one number', 'nested', 'bytes'],
    'logarithm': ['negative', 'minus infinity'],
    'vector': ['number infinite', 'two numbers', 'truth values', 'float'],
    'tags': ['whole', 'nested', 'dict with infinity', 'dict of strings'],
    'tags in a logarithm': ['dict with a negative weight'],
    'embedded tags': ['dict of a large weight', 'dict with a negative weight'],
    'text': ['whole', 'list', 'bytes'],
    'sequence': ['numbers', 'dict', 'nested', 'whole', 'bytes'],
}


def _training() -> schema.Entities:
  """Twenty items, as training reads them."""
  rows = [
      {
          'kind': 'abc3'[n % 4],
          'code': n % 5,
          'size': n % 7 + 0.5,
          'vector': [float(n), 1.0, 2.0 * (n % 3)],
          'tags': ['a', 'b'] if n % 2 else ['b', 'c:2'],
          'about': 'red fox' if n % 2 else 'a blue sea of 1984',
          'seen': ['a', 'b', '3'] if n % 2 else ['c'],
          'numbers': [1, 2] if n % 2 else [3],
      }
      for n in range(20)
  ]
  columns = {}
  for name in rows[0]:
    column = pa.chunked_array([pa.array([row[name] for row in rows])])
    columns[name], _ = arrow_columns.to_column(column, name, _SETTINGS, False)
  return schema.Entities(np.arange(20), columns, 'item_id')


def _model(encoder):
  """As much of a run as reading its tables needs."""
  space = types.SimpleNamespace
  return space(
      encoders={'item': encoder},
      cfg=space(data=space(tables=_SETTINGS)),
      problem=space(item=space(ids=np.array(['known']))),
  )


def _read(encoder, row):
  """The table of a new item, as the library reads it."""
  rows = [{'item_id': 'new', **row}]
  table = given_tables.read(rows, 'items', {'item_id': 'an option'})
  found, _ = request_tables.rows_of(table, 'item', _model(encoder))
  return column_types.fill(found.entities, encoder.columns)


@pytest.fixture(scope='module', name='fitted')
def fixture_fitted(tmp_path_factory):
  """By name of a feature: its encoder in the library, and on NumPy alone."""
  training, found = _training(), {}
  read = functools.partial(numpy_values.read, separators=('|', ':'))
  for name, feature in FEATURES.items():
    folder = str(tmp_path_factory.mktemp('fitted'))
    encoder = features.fit([feature], 'row', training, np.arange(20))
    for side in ('user', 'item'):
      encoder.save(folder, side)
    found[name] = encoder, numpy_encoders.load(folder, read)
  return found


def _by_library(encoder, row):
  """Content of a new item, as `embed_items` reads it; None if refused."""
  try:
    content = encoder.transform(_read(encoder, row))
  except errors.UserError:
    return None
  width = max(content.dense.shape[1], 1) ** 0.5
  tokens = content.tokens
  return [width * content.dense, content.sparse.toarray()] + (
      [tokens.id, tokens.weight] if tokens.features else []
  )


def _by_runtime(encoders, row):
  try:
    inputs, sparse = encoders.encode('item', [row])
  except ValueError as error:
    assert str(error).startswith('Row 0, ')
    return None
  more = [x for name, x in inputs.items() if name != 'content']
  return [inputs['content'], sparse.toarray(), *more]


@pytest.mark.filterwarnings('error::RuntimeWarning')
@pytest.mark.parametrize('name', FEATURES)
def test_odd_values_are_taken_or_refused_alike(fitted, name):
  encoder, encoders = fitted[name]
  column = FEATURES[name].column
  given = {label: {column: value} for label, value in VALUES.items()}
  taken = set()
  for label, row in {'no key': {}, **given}.items():
    expected, found = _by_library(encoder, row), _by_runtime(encoders, row)
    assert (expected is None) == (found is None), label
    if expected is None:
      continue
    taken.add(label)
    assert len(expected) == len(found), label
    for one, other in zip(expected, found):
      np.testing.assert_allclose(other, one, atol=1e-5, err_msg=label)
  assert {'no key', 'missing', 'NaN', *TAKEN.get(name, ())} <= taken
  assert not taken & set(REFUSED.get(name, ()))


@pytest.mark.parametrize(
    'feature, value, message',
    [
        ('tags', 7, 'tags: 7 is no list of strings'),
        ('tags', {'a': _INF}, "tags: the weight inf of 'a' is none between"),
        ('number', _INF, 'size: a number is infinite or beyond float32'),
        ('number', b'1', "size: b'1' is no number"),
        ('vector', [1.0], 'vector: 1 numbers, not 3'),
        ('whole numbers', 3.5, r'code: 3.5 is no string and no whole number\.'),
        (
            'whole numbers',
            2.0**24,
            'code: 16777216.0 is no string and no whole number; other than '
            r'integers they have to be below 2\*\*24\.',
        ),
        (
            'whole numbers',
            _INF,
            r'code: inf is no string and no whole number\.',
        ),
        ('text', ['x' * 99], r"about: \['x{58} \.\.\. is no text"),
    ],
)
def test_messages_name_row_and_column(fitted, feature, value, message):
  _, encoders = fitted[feature]
  with pytest.raises(ValueError, match=f'Row 1, {message}'):
    encoders.encode('item', [{}, {FEATURES[feature].column: value}])


def test_rows_are_dicts(fitted):
  _, encoders = fitted['tags']
  for rows in (['i1'], {'tags': 'a'}):
    with pytest.raises(ValueError, match='Row 0 is no dict of columns'):
      encoders.encode('item', rows)


@pytest.mark.parametrize(
    'column, value, message',
    [
        ('tags', [['a'], ['b']], 'lists of list<item: string>'),
        ('tags', {'a': 'x'}, 'objects of more than numbers'),
        ('size', b'3', 'values of type binary are not numbers'),
        ('size', [3.0], 'lists of numbers, where training had single numbers'),
        ('vector', 3.0, 'single numbers, where training had lists of numbers'),
        (
            'kind',
            datetime.date(2020, 1, 1),
            'dates, where training had strings',
        ),
    ],
)
def test_the_library_says_what_it_cannot_read(fitted, column, value, message):
  name = next(x for x, one in FEATURES.items() if one.column == column)
  with pytest.raises(errors.UserError, match=f'items: {column}: .*{message}'):
    _read(fitted[name][0], {column: value})


def test_whole_embeddings_of_strings_agree(shop, shop_export):
  """A string of tags is no list of letters."""
  runtime = numpy_runtime.load(shop_export)
  library = facade.Recommender(shop.model)
  rows = {
      'item': [{'tags': 'word1|word2', 'image': '0.5|1|2'}, {'tags': 'word3'}],
      'user': [{'visits': 'word4| word5', 'age': '31'}, {'visits': 'word6'}],
  }
  for side, embed in (
      ('item', library.embed_items),
      ('user', library.embed_users),
  ):
    given = [{f'{side}_id': f'new{n}', **x} for n, x in enumerate(rows[side])]
    expected, found = embed(given), runtime.embed(side, rows[side])
    np.testing.assert_allclose(found.dense, expected.dense, atol=1e-5)
    assert expected.sparse is not None
    gap = found.sparse - expected.sparse
    assert abs(gap).max() < 1e-5
    assert np.abs(expected.dense[0] - expected.dense[1]).max() > 1e-3
