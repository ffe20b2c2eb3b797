# SPDX-License-Identifier: Apache-2.0
"""What Arrow columns become: numbers, strings, tags, vectors."""

import decimal

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pyarrow as pa
import pytest

from dropoutnet_jax import config_data
from dropoutnet_jax.data import arrow_columns
from dropoutnet_jax.data import arrow_values
from dropoutnet_jax.data import schema


def _column(values, kind=None, is_text=False, **settings):
  """In two chunks, as files of several blocks come."""
  array = pa.array(values, kind)
  half = len(array) // 2
  if is_text:
    array = array.cast(pa.dictionary(pa.int32(), pa.string()))
  column = pa.chunked_array([array[:half], array[half:]])
  config = config_data.TablesConfig(**settings)
  return arrow_columns.to_column(column, 'x', config, is_text)


def _tags(found: schema.Tags) -> list[dict[str, float]]:
  rows = (found.matrix[[n]] for n in range(found.matrix.shape[0]))
  return [
      dict(zip(found.names[row.indices].tolist(), row.data.tolist()))
      for row in rows
  ]


NAN = float('nan')
_WORDS = st.one_of(st.none(), st.sampled_from(['a', ' b ', '', 'c']))


@pytest.mark.parametrize('fixed', [False, True])
@hypothesis.given(
    rows=st.lists(
        st.one_of(st.none(), st.lists(_WORDS, min_size=2, max_size=2)),
        max_size=6,
    ),
    longer=st.booleans(),
)
def test_sequences(fixed, rows, longer):
  if longer and not fixed:
    rows = [row and row * n for n, row in enumerate(rows)]
  kind = pa.list_(pa.string(), 2) if fixed else pa.list_(pa.string())
  found, remark = _column(rows, kind, sequence_columns=('x',))
  expected = [[v.strip() for v in row or [] if v and v.strip()] for row in rows]
  assert remark == '' and len(found) == len(rows)
  parts = zip(found.starts, found.starts[1:])
  assert [found.values[a:b].tolist() for a, b in parts] == expected
  picked = np.array([len(rows) - 1, 0, 0])[: 3 * bool(rows)]
  taken = found.take(picked)
  parts = zip(taken.starts, taken.starts[1:])
  assert [taken.values[a:b].tolist() for a, b in parts] == [
      expected[row] for row in picked
  ]
  assert taken.rows().tolist() == [
      n for n, row in enumerate(picked) for _ in expected[row]
  ]


@pytest.mark.parametrize('kind', [pa.null(), pa.list_(pa.null())])
def test_sequences_without_any_value(kind):
  found, _ = _column([None, None], kind, sequence_columns=('x',))
  assert len(found) == 2 and len(found.values) == 0


@pytest.mark.parametrize(
    'values, expected, kind',
    [
        (['1', '2'], [1, 2], np.int64),
        (['1', None], [1, NAN], np.float32),
        (['16777217', None], [16777217, NAN], np.float64),
        (['1', 'NA', 'nan', '-'], [1, NAN, NAN, NAN], np.float32),
        (['1.5', ' 2 ', '-.5', '1e3', '+4.'], [1.5, 2, -0.5, 1000, 4], None),
        (['true', 'FALSE', None], [1, 0, NAN], np.float32),
        (['1970-01-02', '1970-01-11 12:00:00'], [1, 10.5], np.float32),
        (['1970-01-02T00:00:00Z', None], [1, NAN], np.float32),
        (['9' * 18, '-1'], [10**18 - 1, -1], np.int64),
        (['9' * 30, '-1'], [1e30, -1], np.float32),
        # Strings, because not all are plain numbers.
        (['007', '8'], ['007', '8'], object),
        (['1', 'x'], ['1', 'x'], object),
        (['NA', None], ['NA', None], object),
        (['1,5', '2'], ['1,5', '2'], object),
        (['2026-99-99', '2026-01-01'], ['2026-99-99', '2026-01-01'], object),
        (['0x10', '1_000'], ['0x10', '1_000'], object),
    ],
)
def test_text(values, expected, kind):
  found, _ = _column(values, is_text=True)
  assert found.dtype == (kind or np.float32)
  if kind is object:
    assert found.tolist() == expected
  else:
    np.testing.assert_allclose(found, expected, rtol=1e-7)


@pytest.mark.parametrize(
    'values, kind, expected, dtype',
    [
        ([1, 2], pa.int8(), [1, 2], np.int64),
        ([1, None], pa.int64(), [1, NAN], np.float32),
        ([2**40, None], pa.int64(), [2**40, NAN], np.float64),
        ([2**63, 1], pa.uint64(), [2.0**63, 1], np.float64),
        ([1.5, None], pa.float64(), [1.5, NAN], np.float32),
        ([True, None], pa.bool_(), [1, NAN], np.float32),
        ([None, None], pa.null(), [NAN, NAN], np.float32),
        ([0, 86400], pa.timestamp('s'), [0, 1], np.float32),
        ([0, 2], pa.date32(), [0, 2], np.float32),
        ([decimal.Decimal('1.25')] * 2, None, [1.25] * 2, np.float32),
    ],
)
def test_types(values, kind, expected, dtype):
  found, _ = _column(values, kind)
  assert found.dtype == dtype
  np.testing.assert_array_equal(found, np.array(expected, dtype))


@pytest.mark.parametrize(
    'kind',
    [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.utf8())],
)
def test_strings_of_typed_files_stay_strings(kind):
  found, remark = _column(['1', None, 'x', '1'], kind)
  assert found.tolist() == ['1', None, 'x', '1'] and found.dtype == object
  assert not remark


def test_categories_of_numbers():
  found, _ = _column([5, 7, None], pa.dictionary(pa.int8(), pa.int64()))
  np.testing.assert_array_equal(found, np.float32([5, 7, NAN]))


@pytest.mark.parametrize(
    'values, kind, why',
    [
        ([b'x', b'y'], pa.binary(), 'binary'),
        ([[b'x'], []], pa.list_(pa.binary()), 'lists of binary'),
        ([{'a': 'x'}, None], None, 'more than numbers'),
        ([[[1]], [[2]]], None, 'lists of list'),
        ([[], None], None, 'empty'),
    ],
)
def test_what_no_feature_reads(values, kind, why):
  found, remark = _column(values, kind)
  assert found is None and why in remark


def test_a_column_without_values():
  found, remark = _column([None, None], pa.string(), is_text=True)
  assert found is None and remark.startswith('it is empty in all ')


def test_strings_that_are_numbers_but_for_a_few():
  found, remark = _column(['1'] * 30 + ['n.b.'], is_text=True)
  assert found.dtype == object
  assert "strings because 1 are no plain numbers, such as 'n.b.'" in remark
  assert not _column(['1', 'a', 'b'], is_text=True)[1]


@pytest.mark.parametrize(
    'kind', [pa.list_(pa.string()), pa.large_list(pa.utf8())]
)
def test_lists_of_strings_are_tags(kind):
  found, _ = _column([['b', 'a', 'b'], None, [], ['a', None, '']], kind)
  assert _tags(found) == [{'a': 1, 'b': 2}, {}, {}, {'a': 1}]
  assert found.names.tolist() == ['a', 'b']
  assert found.matrix.dtype == np.float32


def test_lists_of_whole_numbers_are_what_the_settings_say():
  values = [[1, 2], [2, 10]]
  assert _column(values)[0].names.tolist() == ['1', '10', '2']
  found, _ = _column(values, vector_columns=('x',))
  assert found.tolist() == values and found.dtype == np.float32
  fixed = pa.list_(pa.int64(), 2)
  assert _column([[1, 2], None], fixed)[0].shape == (2, 2)
  assert isinstance(_column(values, fixed, tag_columns=('x',))[0], schema.Tags)


def test_lists_of_numbers_are_vectors():
  found, _ = _column([[1.5, 2], None, [3, None]])
  np.testing.assert_array_equal(found, [[1.5, 2], [NAN, NAN], [3, NAN]])


@pytest.mark.parametrize(
    'values, settings, row, message',
    [
        ([[1.0, 2.0], [1.0], [3.0]], {}, 1, 'a vector of 1 numbers where 2'),
        ([['1'], ['x']], {'vector_columns': ('x',)}, 1, "'x' is not a number"),
        (
            ['a:1|b:2', 'c:z'],
            {'tag_columns': ('x',), 'tag_weight_separator': ':'},
            1,
            "'z' is not a number after ':' of a tag",
        ),
    ],
)
def test_lists_that_do_not_fit(values, settings, row, message):
  with pytest.raises(arrow_values.ColumnError, match=message) as info:
    _column(values, is_text=isinstance(values[0], str), **settings)
  assert info.value.row == row


def test_lists_in_delimited_files():
  settings = {'tag_columns': ('x',), 'is_text': True}
  found, _ = _column(['b| a|', None, '5', 'a'], **settings)
  assert _tags(found) == [{'a': 1, 'b': 1}, {}, {'5': 1}, {'a': 1}]
  found, _ = _column(
      ['b:2;a:x:0.5', 'c', 'b:1;b:1'],
      list_separator=';',
      tag_weight_separator=':',
      **settings,
  )
  assert _tags(found) == [{'a:x': 0.5, 'b': 2}, {'c': 1}, {'b': 2}]
  found, _ = _column(['1|2', None, '1|2'], is_text=True, vector_columns=('x',))
  np.testing.assert_array_equal(found, [[1, 2], [NAN, NAN], [1, 2]])


def test_maps_and_objects_are_weighted_tags():
  kind = pa.map_(pa.string(), pa.float64())
  values = [[('a', 2.0), ('b', 0.0)], None, [], [('c', 1.0)]]
  found, _ = _column(values, kind)
  assert _tags(found) == [{'a': 2}, {}, {}, {'c': 1}]
  found, _ = _column([{'a': 1, 'b': None}, None, {'a': None, 'b': 2.5}])
  assert _tags(found) == [{'a': 1}, {}, {'b': 2.5}]


@hypothesis.given(
    values=st.lists(st.none() | st.sampled_from(['a', 'b', 'c', 'dd'])),
    chunk=st.integers(1, 5),
)
def test_encoding_gives_every_value_back(values, chunk):
  parts = [values[n : n + chunk] for n in range(0, len(values), chunk)]
  kind = pa.dictionary(pa.int32(), pa.string())
  column = pa.chunked_array(
      [pa.array(part, pa.string()).cast(kind) for part in parts], kind
  )
  found = arrow_values.encode(column)
  table = [*found.values.to_pylist(), None]
  assert [table[code] for code in found.codes] == values
  assert sorted(table[:-1]) == sorted({v for v in values if v is not None})


@hypothesis.given(st.lists(st.floats(allow_nan=False, width=32), min_size=1))
def test_printed_numbers_are_read_exactly(values):
  hypothesis.assume(all(np.isfinite(values)))
  column = pa.chunked_array([[repr(value) for value in values]])
  np.testing.assert_array_equal(arrow_values.to_numbers(column), values)
