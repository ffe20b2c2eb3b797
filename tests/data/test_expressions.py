# SPDX-License-Identifier: Apache-2.0
"""Arithmetic that may be missing: by hand, and against plain Python."""

import math

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dropoutnet_jax.data import expression_parser
from dropoutnet_jax.data import expressions

NAN = math.nan
NAMES = ('x', 'y', 'z')


def compute(text, **columns):
  contents = dict.fromkeys(columns, expression_parser.NUMBER)
  node, _ = expression_parser.parse(text, 'here', contents)
  columns = {name: np.array(value) for name, value in columns.items()}
  return expressions.limit(expressions.evaluate(node, columns))


@pytest.mark.parametrize(
    'text, expected',
    [
        ('x + y * 2', [6, 1, NAN]),
        ('x - y', [0, 4, NAN]),
        ('x / y', [1, -3, NAN]),
        ('x % y', [0, 0, NAN]),
        ('-x % 4', [2, 1, NAN]),  # of the sign of the divisor
        ('x ** 2', [4, 9, NAN]),
        ('2 ** -x', [0.25, 0.125, NAN]),
        ('y ** 3', [8, -1, 27]),
        ('-x', [-2, -3, NAN]),
        ('log(exp(x))', [2, 3, NAN]),
        ('log1p(x - 2)', [0, math.log(2), NAN]),
        ('sqrt(x * 2 + 2)', [math.sqrt(6), math.sqrt(8), NAN]),
        ('abs(y)', [2, 1, 3]),
        ('floor(y / 2)', [1, -1, 1]),
        ('min(x, y, 1)', [1, -1, NAN]),
        ('max(x, y)', [2, 3, NAN]),
        ('clip(y, 0, 2.5)', [2, 0, 2.5]),
        ('x < 3', [1, 0, NAN]),
        ('x <= 3', [1, 1, NAN]),
        ('x > 2', [0, 1, NAN]),
        ('x >= 2', [1, 1, NAN]),
        ('x == y', [1, 0, NAN]),
        ('x != y', [0, 1, NAN]),
        ('(0 < y) * (y < 3)', [1, 0, 0]),
        ('is_missing(x)', [0, 0, 1]),
        ('where(is_missing(x), 10, x)', [2, 3, 10]),
        ('where(y > 0, log(y), 0)', [math.log(2), 0, math.log(3)]),
        ('where(x > 2, 1, 0)', [0, 1, NAN]),
        ('x * is_missing(2)', [0, 0, NAN]),
    ],
)
def test_by_hand(text, expected):
  result = compute(text, x=[2.0, 3.0, NAN], y=[2.0, -1.0, 3.0])
  np.testing.assert_allclose(result.value, expected, rtol=1e-12)
  np.testing.assert_array_equal(result.why > 0, np.isnan(expected))
  assert result.value.dtype == np.float64 and result.why.dtype == np.int8


@pytest.mark.parametrize(
    'text, missing, why',
    [
        ('1 / x', [1, 0, 0, 1], 'a column is missing: 1, division by 0: 1'),
        ('5 % x', [1, 0, 0, 1], 'a column is missing: 1, division by 0: 1'),
        ('log(x)', [1, 0, 1, 1], 'is missing: 1, a logarithm of 0 or less: 2'),
        (
            'log1p(x)',
            [0, 0, 1, 1],
            'is missing: 1, a logarithm of 0 or less: 1',
        ),
        ('sqrt(x)', [0, 0, 1, 1], 'is missing: 1, a root of a negative'),
        ('x ** 0.5', [0, 0, 1, 1], 'a power that is no real number: 1'),
        ('x ** -1', [1, 0, 0, 1], 'a power that is no real number: 1'),
        ('exp(x * 500)', [0, 1, 0, 1], 'too large for float32: 1'),
        (
            'exp(x * 100)',
            [0, 1, 0, 1],
            'too large for float32: 1',
        ),
        ('exp(x * 100) / 1e60', [0, 0, 0, 1], 'a column is missing: 1'),
        ('(1e300 * 1e5) * x ** 0 * 9e5', [1, 1, 1, 1], 'float32: 3'),
        # The first reason in the row counts, and what is not chosen does not.
        ('log(1 / x)', [1, 0, 1, 1], 'division by 0: 1, a logarithm of 0 or'),
        ('where(x > 0, 1 / x, 0)', [0, 0, 0, 1], 'a column is missing: 1'),
        ('where(x / x, 1, 2)', [1, 0, 0, 1], 'division by 0: 1'),
        ('is_missing(1 / x)', [0, 0, 0, 0], ''),
    ],
)
def test_what_is_missing_and_why(text, missing, why):
  result = compute(text, x=[0.0, 2.0, -2.0, NAN])
  np.testing.assert_array_equal(np.isnan(result.value), missing)
  np.testing.assert_array_equal(result.why > 0, missing)
  assert why in result.describe()
  assert bool(why) == bool(result.describe())


def test_numbers_of_a_table_equal_what_people_write():
  """0.7 is less in float32, and a tenth of 7 is more in float64."""
  x = np.float32([0.7, 0.1])
  np.testing.assert_array_equal(compute('x >= 0.7', x=x).value, [1, 0])
  np.testing.assert_array_equal(compute('x == 0.1', x=x).value, [0, 1])
  np.testing.assert_array_equal(compute('x * 10 == 7', x=x).value, [1, 0])
  far = compute('x * 1e200 < 1e201', x=x).value  # float32 has neither
  np.testing.assert_array_equal(far, [1, 1])


@pytest.mark.parametrize('dtype', (np.bool_, np.uint8, np.int64, np.float32))
def test_other_types_of_numbers(dtype):
  result = compute('x - 2', x=np.array([0, 1]).astype(dtype))
  np.testing.assert_array_equal(result.value, [-2, -1])


def test_no_rows():
  result = compute('where(x > 0, 1 / x, 2)', x=np.zeros(0, np.float32))
  assert result.value.shape == result.why.shape == (0,)
  assert result.describe() == ''


def slow(function):
  """Plain Python of one row: None where missing or no finite number."""

  def of_row(*args):
    if any(arg is None for arg in args):
      return None
    try:
      result = float(function(*args))
    except (ZeroDivisionError, OverflowError, ValueError):
      return None
    return result if math.isfinite(result) else None

  return of_row


_SHORT = lambda compare: lambda a, b: compare(np.float32(a), np.float32(b))
_PYTHON = {
    '({} + {})': slow(lambda a, b: a + b),
    '({} - {})': slow(lambda a, b: a - b),
    '({} * {})': slow(lambda a, b: a * b),
    '({} / {})': slow(lambda a, b: a / b),
    '({} % {})': slow(lambda a, b: a % b),
    '(-{})': slow(lambda a: -a),
    'abs({})': slow(abs),
    'floor({})': slow(math.floor),
    'max({}, {})': slow(max),
    'min({}, {}, {})': slow(min),
    'clip({}, {}, {})': slow(lambda x, low, high: min(max(x, low), high)),
    '({} < {})': slow(_SHORT(lambda a, b: a < b)),
    '({} >= {})': slow(_SHORT(lambda a, b: a >= b)),
    '({} == {})': slow(_SHORT(lambda a, b: a == b)),
    'is_missing({})': lambda a: float(a is None),
    'where({}, {}, {})': lambda c, a, b: None if c is None else a if c else b,
}


def _combine(parts):
  """Texts, and functions of a row of x, y and z, of calls of smaller ones."""

  def call(template, args):
    args = args[: template.count('{}')]
    text = template.format(*(part for part, _ in args))
    function = _PYTHON[template]
    return text, lambda row: function(*(of_row(row) for _, of_row in args))

  three = st.tuples(parts, parts, parts)
  return st.builds(call, st.sampled_from(sorted(_PYTHON)), three)


_LEAVES = st.sampled_from(
    [(name, lambda row, n=n: row[n]) for n, name in enumerate(NAMES)]
)
_VALUES = st.sampled_from([None, -2.0, -0.5, 0.0, 0.1, 1.0, 3.0])


@hypothesis.settings(deadline=None, max_examples=120, derandomize=True)
@hypothesis.given(
    case=st.recursive(_LEAVES, _combine, max_leaves=8),
    rows=st.lists(st.tuples(_VALUES, _VALUES, _VALUES), max_size=4),
)
def test_trees_against_plain_python(case, rows):
  text, of_row = case
  hypothesis.assume(len(text) <= expression_parser.MAX_LENGTH)
  table = np.array(rows, float).reshape(len(rows), 3)
  result = compute(text, **dict(zip(NAMES, table.T)))
  expected = np.array([of_row(row) for row in rows], float)
  np.testing.assert_allclose(result.value, expected, rtol=1e-12)
  np.testing.assert_array_equal(result.why > 0, np.isnan(result.value))
