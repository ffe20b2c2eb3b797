# SPDX-License-Identifier: Apache-2.0
"""Both groups of features of both sides, with embeddings, end to end."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import features
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import sides

Feature = config.Feature
NAN = math.nan
NUM_USERS, NUM_ITEMS = 8, 10


def strings(*values):
  return np.array(values, object)


def make_tables(rng):
  """A shop: what users viewed and clicked, what items are and were read as."""
  length = rng.integers(0, 5, NUM_USERS)
  viewed = rng.integers(100, 100 + NUM_ITEMS, length.sum())
  flags = lambda num, width: scipy.sparse.csr_array(
      (rng.random((num, width)) < 0.4) * rng.integers(1, 4, width)
  ).astype(np.float32)
  users = schema.Entities(
      np.array([f'u{n}' for n in range(NUM_USERS)]),
      {
          'region': rng.choice(strings('n', 's', None), NUM_USERS),
          'viewed': schema.Sequences(viewed, np.cumsum([0, *length])),
          'clicks': rng.integers(0, 9, NUM_USERS),
      },
  )
  items = schema.Entities(
      np.arange(100, 100 + NUM_ITEMS),
      {
          'tags': schema.Tags(flags(NUM_ITEMS, 4), np.array(list('abcd'))),
          'price': rng.random(NUM_ITEMS).astype(np.float32),
          'reads': np.where(
              rng.random(NUM_ITEMS) < 0.3, NAN, rng.random(NUM_ITEMS)
          ).astype(np.float32),
      },
  )
  return {'user': users, 'item': items}


SETTINGS = config.FeaturesConfig(
    user=[
        Feature('region', 'category'),
        Feature(
            'viewed',
            'sequence',
            'preference',
            embedding=4,
            embedding_table='items',
        ),
        Feature('viewed', 'sequence'),
        Feature('clicks', 'numeric', 'preference'),
        Feature('viewed', 'tags', embedding=3, max_length=2),
    ],
    item=[
        Feature('tags', embedding=2, idf='none'),
        Feature('price', 'numeric', num_intervals=3, embedding=2, sparse=False),
        Feature(
            'item_id',
            'category',
            'preference',
            embedding=4,
            embedding_table='items',
        ),
        Feature('reads', 'numeric', 'preference'),
        Feature('tags', 'tags', 'preference'),
    ],
)
TRAIN = {'user': np.arange(6), 'item': np.arange(7)}


def fit(tables, settings=SETTINGS, rows=None):
  settings.validate()
  return sides.fit(settings, tables, rows or TRAIN, seed=0)


@pytest.fixture(name='tables')
def fixture_tables():
  return make_tables(np.random.default_rng(3))


def assert_same(found, expected):
  """Two sides are equal bit by bit."""
  assert found.tokens.features == expected.tokens.features
  assert found.preference_tokens.features == expected.preference_tokens.features
  for name in ('dense', 'preference_dense', 'preference_known'):
    np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
  np.testing.assert_array_equal(
      found.sparse.toarray(), expected.sparse.toarray()
  )
  for group in ('tokens', 'preference_tokens'):
    for name in ('id', 'weight'):
      np.testing.assert_array_equal(
          getattr(getattr(found, group), name),
          getattr(getattr(expected, group), name),
      )


def test_groups_and_tokens(tables):
  encoders, notes = fit(tables)
  user = encoders['user'].transform(tables['user'])
  content, preference = encoders['user'].content, encoders['user'].preference
  width = len(content.dense_names)
  assert user.dense.shape == (NUM_USERS, width)
  assert {name.split('=')[0] for name in content.dense_names} == {
      'region',
      'viewed',
  }
  assert preference.dense_names == ['clicks', 'clicks present']
  assert user.preference_dense.shape == (NUM_USERS, 2)
  # Names are unique on a side, tables are shared where they are named.
  assert [(t.name, t.table, t.width) for t in user.tokens.features] == [
      ('viewed 2', 'user.viewed 2', 3)
  ]
  assert [(t.name, t.table) for t in user.preference_tokens.features] == [
      ('viewed', 'items')
  ]
  assert user.preference_known.all()  # clicks are known, be they 0 or not
  item = encoders['item'].transform(tables['item'])
  assert item.dense.shape == (NUM_ITEMS, 0)  # embeddings alone
  sparse_names = encoders['item'].content.sparse_names
  assert {name.split('=')[0] for name in sparse_names} == {'tags'}
  assert encoders['item'].preference.sparse_names == []
  starts = [(t.start, t.stop) for t in item.tokens.features]
  assert starts == [(0, starts[0][1]), (starts[0][1], starts[0][1] + 1)]
  assert item.tokens.id.shape == (NUM_ITEMS, starts[-1][1])
  for tokens in (
      user.tokens,
      user.preference_tokens,
      item.tokens,
      item.preference_tokens,
  ):
    assert ((tokens.weight > 0) == (tokens.id > 0)).all()
    assert (tokens.weight >= 0).all()
    for t in tokens.features:
      ids = tokens.id[:, t.start : t.stop]
      assert 0 <= ids.min() and ids.max() < t.num_ids
  assert any('embeddings of width 4 for' in note for note in notes)


def test_shared_ids_are_the_same_on_both_sides(tables):
  encoders, _ = fit(tables)
  user = encoders['user'].transform(tables['user']).preference_tokens
  item = encoders['item'].transform(tables['item']).preference_tokens
  id_of = dict(zip(tables['item'].ids.tolist(), item.id[:, 0].tolist()))
  viewed = tables['user'].columns['viewed']
  trained = set(viewed.take(TRAIN['user']).values.tolist())
  trained |= set(tables['item'].ids[TRAIN['item']].tolist())
  assert {i for i, n in id_of.items() if n} == trained & set(id_of)
  assert user.features[0].num_ids == item.features[0].num_ids
  length = user.id.shape[1]
  for row in range(NUM_USERS):
    values = viewed.take(np.array([row])).values.tolist()
    known = [id_of[v] for v in values if id_of[v]][-length:]
    assert user.id[row].tolist() == known + [0] * (length - len(known))


def test_cold_rows_change_nothing(tables):
  other = make_tables(np.random.default_rng(4))
  mixed = {}
  for side, table in tables.items():
    cold = np.arange(len(table)) >= len(TRAIN[side])
    columns = {}
    for name, column in table.columns.items():
      new = other[side].columns[name]
      if isinstance(column, schema.Tags):
        rows = [(new if c else column).matrix[[n]] for n, c in enumerate(cold)]
        matrix = scipy.sparse.csr_array(scipy.sparse.vstack(rows))
        columns[name] = schema.Tags(matrix, column.names)
      elif isinstance(column, schema.Sequences):
        rows = [
            (new if c else column).take(np.array([n])).values
            for n, c in enumerate(cold)
        ]
        starts = np.cumsum([0, *map(len, rows)])
        columns[name] = schema.Sequences(np.concatenate(rows), starts)
      else:
        columns[name] = np.where(cold, new, column)
    mixed[side] = schema.Entities(table.ids, columns)
  first, _ = fit(tables)
  second, _ = fit(mixed)
  for side, table in tables.items():
    found = second[side].transform(table)
    assert_same(found, first[side].transform(table))
    assert not np.array_equal(
        second[side].transform(mixed[side]).tokens.id, found.tokens.id
    )


@pytest.mark.parametrize('with_preference', [True, False])
def test_kept_in_a_run_folder(tables, with_preference, tmp_path):
  settings = SETTINGS
  if not with_preference:
    settings = config.FeaturesConfig(
        user=[Feature('region', 'category', embedding=4)]
    )
  encoders, _ = fit(tables, settings)
  for encoder in encoders.values():
    encoder.save(str(tmp_path))
  path = tmp_path / 'features_user_preference.npz'
  assert path.exists() == with_preference
  for side, encoder in encoders.items():
    loaded = sides.load(str(tmp_path), side)
    assert loaded.content.side == loaded.preference.side == side
    assert loaded.notes == encoder.notes
    new = dataclasses.replace(tables[side], ids=tables[side].ids[::-1])
    assert_same(loaded.transform(new), encoder.transform(new))


def test_rows_are_encoded_one_by_one(tables):
  encoders, _ = fit(tables)
  whole = encoders['user'].transform(tables['user'])
  for row in (0, 7):
    columns = {
        name: column.take(np.array([row]))
        if isinstance(column, schema.Sequences)
        else column[[row]]
        for name, column in tables['user'].columns.items()
    }
    one = schema.Entities(tables['user'].ids[[row]], columns)
    found = encoders['user'].transform(one)
    np.testing.assert_array_equal(found.tokens.id[0], whole.tokens.id[row])
    np.testing.assert_allclose(found.dense[0], whole.dense[row], rtol=1e-6)
    assert found.preference_known[0] == whole.preference_known[row]


@pytest.mark.parametrize('scaling', ['row', 'column'])
def test_rows_with_a_value_of_the_preference_are_known(scaling):
  """A number that is its mean is not missing; an unknown tag is."""
  table = schema.Entities(
      np.arange(4),
      {
          'count': np.array([1, 2, 3, NAN], np.float32),
          'seen': schema.Sequences(
              strings('a', 'b', 'x'), np.array([0, 1, 2, 2, 3])
          ),
      },
  )
  rows = {'user': np.arange(3), 'item': np.arange(0)}
  tables = {'user': table, 'item': schema.Entities(np.arange(0))}

  def known(*found):
    settings = config.FeaturesConfig(user=list(found), scaling=scaling)
    encoders, _ = fit(tables, settings, rows)
    return encoders['user'].transform(table).preference_known.tolist()

  count = Feature('count', 'numeric', 'preference')
  seen = Feature('seen', 'sequence', 'preference')
  tokens = Feature('seen', 'sequence', 'preference', embedding=2)
  assert known(count) == [True, True, True, False]
  assert known(seen) == known(tokens) == [True, True, False, False]
  assert known(count, tokens) == [True, True, True, False]
  assert known(Feature('seen', 'sequence')) == [False] * 4


def test_numbers_of_any_kind_are_cut_for_embeddings():
  """A lookup, whose weights may be negative; a vector of one; a quotient."""
  weights = scipy.sparse.csr_array(np.float32([[-2, 1], [0, 3], [5, 0]]))
  table = schema.Entities(
      np.arange(3),
      {
          'tags': schema.Tags(weights, np.array(['a', 'b'])),
          'which': strings('a', 'b', 'b'),
          'size': np.float32([[1], [NAN], [9]]),
          'price': np.float32([1, 8, 9]),
      },
  )
  cut = {'boundaries': (0.0, 2.0), 'embedding': 2}
  encoder = features.fit(
      [
          Feature('tags', 'lookup', key='which', **cut),
          Feature('size', 'numeric', **cut),
          Feature('rate', 'expression', expression='price / 4 - 1', **cut),
      ],
      'row',
      table,
      np.arange(3),
  )
  tokens = encoder.transform(table).tokens
  # Intervals 1 and 3; 2 and 3; 1 and 2: numbered as far as they occur.
  assert tokens.id.tolist() == [[1, 1, 1], [2, 0, 2], [0, 2, 2]]
  names = [feature.name for feature in tokens.features]
  assert names == ['tags[which]', 'size', 'rate']


def test_words_of_texts_are_tokens():
  table = schema.Entities(
      np.arange(4),
      {'plot': strings('A dog, a cat', 'cat', None, 'The dog dog zebra')},
  )
  plot = Feature('plot', 'text', embedding=2, idf='none', counts='raw')
  encoder = features.fit([plot], 'row', table, np.arange(3))
  tokens = encoder.transform(table).tokens
  # a, cat, dog; the heaviest first.
  assert tokens.id.tolist() == [[1, 2, 3], [2, 0, 0], [0, 0, 0], [3, 0, 0]]
  assert tokens.weight[[0, 3]].tolist() == [[2, 1, 1], [2, 0, 0]]
  assert encoder.dense_names == []
  assert encoder.sparse_names == ['plot=a', 'plot=cat', 'plot=dog']


def test_ids_are_a_column_only_where_there_is_none():
  table = schema.Entities(np.array([5, 7]), {'x': np.zeros(2)})
  own = Feature('item_id', 'category')
  encoder = features.fit([own], 'row', table, np.arange(2))
  assert encoder.sparse_names == ['item_id=5', 'item_id=7']
  assert list(table.columns) == ['x']
  table.columns['item_id'] = strings('a', 'b')
  encoder = features.fit([own], 'row', table, np.arange(2))
  assert encoder.sparse_names == ['item_id=a', 'item_id=b']
  # Under the name that the tables give them, and not under another side's.
  named = schema.Entities(np.array(['p', 'q']), {}, 'sku')
  encoder = features.fit(
      [Feature('sku', 'category')], 'row', named, np.arange(2)
  )
  new = schema.Entities(np.array(['q', 'r']))
  assert encoder.transform(new).sparse.toarray().tolist() == [[0, 1], [0, 0]]
  with pytest.raises(errors.UserError, match="no column 'item_id'"):
    features.fit([own], 'row', named, np.arange(2))


def test_sequences_without_embeddings_are_bags():
  table = schema.Entities(
      np.arange(4),
      {
          'seen': schema.Sequences(
              strings('a', 'b', 'a', 'a', 'z', 'b'), np.array([0, 4, 4, 6, 6])
          )
      },
  )
  settings = [Feature('seen', 'sequence')]
  encoder = features.fit(settings, 'column', table, np.arange(2))
  content = encoder.transform(table)
  assert encoder.dense_names == ['seen=a', 'seen=b']
  five = math.hypot(3, 1)
  np.testing.assert_allclose(
      content.sparse.toarray(),
      [[3 / five, 1 / five], [0, 0], [0, 1], [0, 0]],
      rtol=1e-6,
  )
  # The shares themselves, before they are standardised.
  shares, _ = encoder.features[0].encoder.encode(
      schema.Tags(
          scipy.sparse.csr_array(np.float32([[0.75, 0.25], [0, 0.5]])),
          strings('a', 'b'),
      )
  )
  np.testing.assert_array_equal(shares, [[0.75, 0.25], [0, 0.5]])
  # As tags they are counted, and weighed like all tags.
  counted = features.fit(
      [Feature('seen', counts='raw', idf='none')], 'row', table, np.arange(2)
  )
  np.testing.assert_allclose(
      counted.transform(table).sparse.toarray(), content.sparse.toarray()
  )
  assert counted.notes[0].startswith("Feature of items 'seen': 2 of 2 tags")
  assert encoder.notes[0].startswith("Feature of items 'seen': 2 of 2 values")
