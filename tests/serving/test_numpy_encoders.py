# SPDX-License-Identifier: Apache-2.0
"""Raw rows on NumPy alone are encoded as the package encodes them."""

import functools

import numpy as np
import pyarrow as pa
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.data import arrow_columns
from dropoutnet_jax.data import column_types
from dropoutnet_jax.data import features
from dropoutnet_jax.data import schema
from dropoutnet_jax.serving import numpy_encoders
from dropoutnet_jax.serving import numpy_values

_SETTINGS = config.TablesConfig(
    tag_columns=('tags',),
    vector_columns=('vector',),
    sequence_columns=('seen',),
)


def _rows(seed, number):
  """Rows with gaps, values that few have, and some that training lacks."""
  rng = np.random.default_rng(seed)
  pick = lambda names, count: rng.choice(names, count).tolist()
  rows = []
  for _ in range(number):
    row = {
        'kind': pick(['a', 'b', 'c', f'only {seed}'], 1)[0],
        'code': int(rng.integers(0, 8 + seed)),
        'size': float(np.float32(rng.normal(3, 2)))
        if rng.random() < 0.8
        else None,
        'count': int(rng.integers(0, 50)),
        'vector': rng.normal(size=3).astype(np.float32).tolist(),
        'tags': pick([f't{n}' for n in range(9 + seed)], rng.integers(0, 5)),
        'weights': {
            f'w{n}': float(np.float32(rng.random() + 0.1))
            for n in rng.choice(6 + seed, rng.integers(1, 4), False)
        },
        'about': ' '.join(pick(["It's", 'Über', 'jazz,', '1984', 'x_y'], 4)),
        'seen': pick([f's{n}' for n in range(5 + seed)], rng.integers(0, 6)),
    }
    rows.append({k: v for k, v in row.items() if rng.random() < 0.9})
  return rows


def _entities(rows):
  """The same rows as the readers of tables have them."""
  names = dict.fromkeys(name for row in rows for name in row)
  columns = {}
  for name in names:
    values = [row.get(name) for row in rows]
    if name == 'weights':
      values = [None if x is None else [*x.items()] for x in values]
      column = pa.array(values, pa.map_(pa.string(), pa.float64()))
    else:
      column = pa.array(values)
    chunked = pa.chunked_array([column])
    columns[name], _ = arrow_columns.to_column(chunked, name, _SETTINGS, False)
  return schema.Entities(np.arange(len(rows)), columns, 'item_id')


def _load(folder):
  read = functools.partial(numpy_values.read, separators=('|', ''))
  return numpy_encoders.load(str(folder), read)


_FEATURE = config.Feature
FEATURES = {
    'category': [_FEATURE('kind', 'category')],
    'whole numbers': [_FEATURE('code', 'category', min_rows=2)],
    'hashed': [_FEATURE('kind', 'category', hash_buckets=5)],
    'numbered': [_FEATURE('code', 'category', num_buckets=6, sparse=False)],
    'numbers': [
        _FEATURE('size', 'numeric'),
        _FEATURE('count', 'numeric', transform='log1p'),
        _FEATURE('size', 'numeric', transform='min_max'),
        _FEATURE('count', 'numeric', transform='quantile'),
        _FEATURE('size', 'numeric', transform='none'),
    ],
    'intervals': [
        _FEATURE('size', 'numeric', num_intervals=4),
        _FEATURE('count', 'numeric', boundaries=(5.0, 20.0)),
    ],
    'vectors': [_FEATURE('vector', 'dense'), _FEATURE('vector', 'numeric')],
    'tags': [
        _FEATURE('tags'),
        _FEATURE('weights', idf='idf', counts='raw'),
        _FEATURE('weights', counts='log', rank=3),
        _FEATURE('tags', hash_buckets=6),
    ],
    'texts': [
        _FEATURE('about', 'text', counts='log', idf='none'),
        _FEATURE('about', 'text', rank=2, sparse=False, idf='none'),
    ],
    'sequences': [
        _FEATURE('seen', 'sequence'),
        _FEATURE('seen', 'sequence', hash_buckets=4),
    ],
    'embeddings': [
        _FEATURE('kind', 'category', embedding=2),
        _FEATURE('code', 'category', num_buckets=6, embedding=2),
        _FEATURE('tags', embedding=3, max_length=2),
        _FEATURE('weights', embedding=3, counts='raw', hash_buckets=7),
        _FEATURE('about', 'text', embedding=2, idf='none', sparse=False),
        _FEATURE('seen', 'sequence', embedding=2, max_length=3),
        _FEATURE('size', 'numeric', num_intervals=3, embedding=2),
        _FEATURE('vector', 'dense'),
    ],
}


@pytest.mark.parametrize('scaling', ['row', 'column'])
@pytest.mark.parametrize('name', FEATURES)
def test_rows_are_encoded_as_by_the_package(tmp_path, name, scaling):
  training = _entities(_rows(0, 60))
  fitted = features.fit(
      FEATURES[name], scaling, training, np.arange(60), side='item'
  )
  for side in ('user', 'item'):
    fitted.save(str(tmp_path), side)
  rows = _rows(1, 30) + [{}]
  entities = column_types.fill(_entities(rows), fitted.columns)
  content = fitted.transform(entities)
  inputs, sparse = _load(tmp_path).encode('item', rows)
  assert content.known[:-1].mean() > 0.5  # else nothing is compared
  size = max(content.dense.shape[1], 1) ** 0.5 if scaling == 'row' else 1.0
  np.testing.assert_allclose(
      inputs['content'], size * content.dense, rtol=1e-5, atol=1e-5
  )
  np.testing.assert_allclose(
      sparse.toarray(), content.sparse.toarray(), rtol=1e-5, atol=1e-6
  )
  assert ('content_ids' in inputs) == bool(content.tokens.features)
  if content.tokens.features:
    np.testing.assert_array_equal(inputs['content_ids'], content.tokens.id)
    np.testing.assert_allclose(
        inputs['content_weights'], content.tokens.weight, rtol=1e-5
    )
  assert not inputs['content'][-1].any() and not sparse[[-1]].nnz


def test_one_row_alone_is_what_it_is_among_others(tmp_path):
  training = _entities(_rows(0, 60))
  fitted = features.fit(FEATURES['tags'], 'row', training, np.arange(60))
  for side in ('user', 'item'):
    fitted.save(str(tmp_path), side)
  encoders, rows = _load(tmp_path), _rows(1, 9)
  whole, _ = encoders.encode('item', rows)
  for number, row in enumerate(rows):
    alone, _ = encoders.encode('item', [row])
    np.testing.assert_allclose(
        alone['content'][0], whole['content'][number], rtol=1e-6
    )
  nobody, sparse = encoders.encode('item', [])
  assert len(nobody['content']) == 0 and sparse.shape[0] == 0


@pytest.mark.parametrize(
    'feature, why',
    [
        (_FEATURE('x', 'cross', columns=('kind', 'code')), 'kind cross'),
        (_FEATURE('y', 'expression', expression='size * 2'), 'kind expression'),
        (_FEATURE('tags', pieces='words'), 'pieces words'),
    ],
)
def test_what_only_the_package_reads_is_refused(tmp_path, feature, why):
  training = _entities(_rows(0, 60))
  fitted = features.fit([feature], 'row', training, np.arange(60))
  for side in ('user', 'item'):
    fitted.save(str(tmp_path), side)
  encoders = _load(tmp_path)
  with pytest.raises(
      ValueError, match='features that this file cannot read:'
  ) as e:
    encoders.encode('item', [{}])
  assert f'({why})' in str(e.value)


def test_another_width_is_refused(tmp_path):
  training = _entities(_rows(0, 60))
  fitted = features.fit(FEATURES['vectors'], 'row', training, np.arange(60))
  for side in ('user', 'item'):
    fitted.save(str(tmp_path), side)
  encoders = _load(tmp_path)
  with pytest.raises(ValueError, match='Row 0, vector: 2 numbers, not 3'):
    encoders.encode('item', [{'vector': [1.0, 2.0]}])
