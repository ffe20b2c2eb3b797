# SPDX-License-Identifier: Apache-2.0
"""Tokens of a feature: by hand, and against loops over rows."""

import math

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import encoder_files
from dropoutnet_jax.data import id_maps
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import token_encoder
from dropoutnet_jax.data import vocabularies

COLORS = np.array(['blue', 'green', 'red'], object)


def fit(column, vocabulary=COLORS, **settings):
  feature = config.Feature('x', embedding=4, **settings)
  embedded = vocabularies.Embedded(feature, 'config.features.item[0]', 'x', 't')
  return token_encoder.fit(embedded, vocabulary, column)


def strings(*values):
  return np.array(values, object)


def sequences(rows):
  starts = np.cumsum([0, *map(len, rows)])
  return schema.Sequences(np.array(sum(rows, []), object), starts)


def tags(rows, names=tuple(COLORS)):
  matrix = scipy.sparse.csr_array(np.array(rows, np.float32))
  return schema.Tags(matrix, None if names is None else np.array(names))


def test_categories_by_hand():
  encoder, notes = fit(strings('red', 'blue', None), kind='category')
  ids, weight = encoder.encode(strings('green', 'pink', None, 'red'))
  assert ids.dtype == np.int32 and weight.dtype == np.float32
  assert ids.tolist() == [[2], [0], [0], [3]]
  assert weight.tolist() == [[1], [0], [0], [1]]
  assert encoder.token_feature(7) == token_encoder.tokens_lib.TokenFeature(
      'x', 't', 7, 8, num_ids=4, width=4, pooling='mean', std=0.5
  )
  assert notes == [
      "'x': embeddings of width 4 for 3 values (table 't'); 1 of 3 training "
      'rows have none.'
  ]


def test_a_sequence_keeps_its_last_values_in_their_order():
  train = sequences([['red', 'blue', 'red'], ['pink'] * 9, []])
  encoder, _ = fit(train, kind='sequence', max_length=3)
  found = encoder.encode(
      sequences(
          [['red', 'red', 'green', 'pink', 'blue', 'green'], ['blue'], []]
      )
  )
  # An unknown value takes no place; padding is behind.
  assert found[0].tolist() == [[2, 1, 2], [1, 0, 0], [0, 0, 0]]
  assert found[1].tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]


def test_there_are_as_many_columns_as_the_longest_training_row_has():
  train = sequences([['red', 'blue'], ['pink', 'red']])
  encoder, _ = fit(train, kind='sequence')
  assert encoder.length == 2
  ids, _ = encoder.encode(sequences([['red', 'green', 'blue']]))
  assert ids.tolist() == [[2, 1]]
  _, notes = fit(train, kind='sequence', max_length=1)
  assert notes[0].endswith(
      '0 of 2 training rows have none, 1 keep the last 1 of more.'
  )


def test_the_heaviest_tags_by_hand():
  """Ties in the order of ids; weights are those of the tag encoder."""
  train = tags([[1, 4, 0], [2, 0, 0], [0, 0, 3], [0, 0, 0]])
  encoder, _ = fit(train, counts='log', idf='idf', max_length=2)
  ids, weight = encoder.encode(tags([[1, 1, 1], [0, 5, 2]]))
  # Blue in two of four rows, green and red in one.
  assert ids.tolist() == [[2, 3], [2, 3]]
  rare = math.log(4)
  np.testing.assert_allclose(
      weight,
      [
          [rare * math.log(2), rare * math.log(2)],
          [rare * math.log(6), rare * math.log(3)],
      ],
      rtol=1e-6,
  )


def test_a_tag_of_every_row_has_no_token_with_idf():
  train = tags([[1, 1, 0], [1, 0, 0]])
  encoder, _ = fit(train)
  assert encoder.encode(train)[0].tolist() == [[2], [0]]
  encoder, _ = fit(train, idf='none', counts='raw')
  assert encoder.encode(train)[0].tolist() == [[1, 2], [1, 0]]


def test_a_tag_that_others_brought_into_the_table_weighs_like_a_rare_one():
  encoder, _ = fit(tags([[1, 0, 0], [0, 1, 0], [0, 1, 0]]), idf='idf')
  ids, weight = encoder.encode(tags([[1, 0, 0], [0, 1, 0], [0, 0, 1]]))
  assert ids.tolist() == [[1], [2], [3]]
  expected = np.log([[3], [1.5], [3]])
  np.testing.assert_allclose(weight, expected, rtol=1e-6)


_TABLE = st.lists(
    st.lists(
        st.sampled_from([0.0, 0.0, 0.5, 1.0, 3.0]), min_size=5, max_size=5
    ),
    min_size=1,
    max_size=6,
)


@hypothesis.given(
    train=_TABLE,
    new=_TABLE,
    counts=st.sampled_from(['binary', 'log', 'raw']),
    idf=st.sampled_from(['idf', 'root', 'none']),
    most=st.integers(1, 4),
    num_buckets=st.sampled_from([0, 2, 3]),
)
def test_tags_are_what_a_loop_over_rows_finds(
    train, new, counts, idf, most, num_buckets
):
  names = ('blue', 'green', 'red', 'pink', 'blue')
  settings = {'counts': counts, 'idf': idf, 'max_length': most}
  id_of = dict(zip(COLORS, (1, 2, 3))) | {'pink': 0}
  if num_buckets:
    settings['hash_buckets'] = num_buckets
    id_of = dict(zip(names, id_maps.hashed_ids(names, num_buckets)))
  vocabulary = np.zeros(0, object) if num_buckets else COLORS

  def by_id(row):
    total = {}
    for name, weight in zip(names, row):
      if id_of[name] and weight:
        total[id_of[name]] = total.get(id_of[name], 0.0) + weight
    return total

  rows = [by_id(row) for row in train]
  power = {'idf': 1.0, 'root': 0.5, 'none': 0.0}[idf]
  count = {'binary': lambda w: 1.0, 'log': np.log1p, 'raw': lambda w: w}[counts]

  def heaviest(row):
    weighed = []
    for number, weight in by_id(row).items():
      frequency = max(sum(number in other for other in rows), 1)
      share = np.float32(np.log(len(rows) / frequency) ** power)
      value = np.float32(count(np.float32(weight))) * share
      if value > 0:
        weighed.append((-value, number))
    return sorted(weighed)

  lengths = [len(heaviest(row)) for row in train]
  if not any(lengths):
    with pytest.raises(errors.UserError, match='no value that an embedding'):
      fit(tags(train, names), vocabulary, **settings)
    return
  encoder, _ = fit(tags(train, names), vocabulary, **settings)
  assert encoder.length == min(max(lengths), most)
  ids, weight = encoder.encode(tags(new, names))
  for row, (found, weights) in enumerate(zip(ids, weight)):
    expected = heaviest(new[row])[: encoder.length]
    padding = [0] * (encoder.length - len(expected))
    assert found.tolist() == [n for _, n in expected] + padding
    np.testing.assert_allclose(
        weights, [-w for w, _ in expected] + padding, rtol=1e-6
    )


def test_tags_without_names_are_their_columns():
  encoder, _ = fit(tags([[1, 0, 1]], None), strings('0', '2'), idf='none')
  for names in (None, ('a', 'b', 'c')):
    ids, _ = encoder.encode(tags([[0, 1, 1], [3, 0, 0]], names))
    assert ids.tolist() == [[2, 0], [1, 0]]


def test_names_that_are_missing_later_are_told():
  encoder, _ = fit(tags([[1, 0, 1]]), idf='none')
  with pytest.raises(errors.UserError, match="Column 'x' has tags without"):
    encoder.encode(tags([[1, 0, 1]], None))


def test_several_numbers_later_are_told():
  numbers = np.array([1, 5, math.nan], np.float32)
  settings = {'kind': 'numeric', 'boundaries': (3.0,)}
  encoder, _ = fit(numbers, strings('1', '2'), **settings)
  assert encoder.encode(numbers)[0].tolist() == [[1], [2], [0]]
  assert encoder.encode(numbers[:, None])[0].tolist() == [[1], [2], [0]]
  with pytest.raises(errors.UserError, match='has 2 numbers per row, but had'):
    encoder.encode(np.ones((3, 2)))


@pytest.mark.parametrize('setting', ['hash_buckets', 'num_buckets'])
def test_buckets_need_no_vocabulary(setting):
  values = ['3', '0', '8', '30', None]
  nothing = np.zeros(0, object)
  encoder, notes = fit(
      strings(*values), nothing, kind='category', **{setting: 9}
  )
  assert encoder.num_ids == 10 and 'for 9 buckets' in notes[0]
  function = {
      'hash_buckets': id_maps.hashed_ids,
      'num_buckets': id_maps.bucket_ids,
  }[setting]
  ids, weight = encoder.encode(strings('7', *values))
  expected = function(['7', *values], 9)
  np.testing.assert_array_equal(ids[:, 0], expected)
  np.testing.assert_array_equal(weight[:, 0], expected > 0)


@pytest.mark.parametrize(
    'column, settings',
    [
        (strings('red', None), {'kind': 'category'}),
        (tags([[1, 0, 2], [0, 0, 1]]), {'embedding_std': 0.25}),
        (tags([[1, 0, 2], [0, 0, 1]]), {'hash_buckets': 5, 'idf': 'none'}),
        (
            np.array([1, 9, 3], np.float32),
            {'kind': 'numeric', 'num_intervals': 2},
        ),
    ],
)
def test_kept_in_a_run_folder(column, settings, tmp_path):
  vocabulary = COLORS
  if 'hash_buckets' in settings:
    vocabulary = vocabulary[:0]
  if 'kind' in settings and settings['kind'] == 'numeric':
    vocabulary = strings('1', '2')
  encoder, _ = fit(column, vocabulary, **settings)
  arrays = {}
  packed = encoder_files.pack(encoder, 'x', arrays)
  encoder_files.save(str(tmp_path), 'item', {'x': packed}, arrays)
  described, arrays = encoder_files.load(str(tmp_path), 'item')
  fields = encoder_files.unpack(described['x'], arrays)
  loaded = token_encoder.TokenEncoder(**fields)
  assert loaded.token_feature(0) == encoder.token_feature(0)
  for found, expected in zip(loaded.encode(column), encoder.encode(column)):
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype
