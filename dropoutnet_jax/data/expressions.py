# SPDX-License-Identifier: Apache-2.0
"""Arithmetic over columns of numbers that may be missing.

An expression is a tree: a number, the name of a column, or a call of one of
FUNCTIONS on trees. All is computed in float64. A result is missing, with a
reason, where something that it needs is missing and where it is no real number:
nothing is ever infinite. Comparisons give 0 or 1, and compare as float32, which
is how tables keep numbers, so that a price of 0.7 is >= 0.7. Texts become trees
in expression_parser.py.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import TypeAlias, Union

import numpy as np

_REASONS = (
    '',
    'a column is missing',
    'division by 0',
    'a logarithm of 0 or less',
    'a root of a negative number',
    'a power that is no real number',
    'too large for float32',
)
(
    _MISSING,
    _DIVISION,
    _LOGARITHM,
    _ROOT,
    _POWER,
    _OVERFLOW,
) = range(1, len(_REASONS))
_LARGEST = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class Call:
  """A function, or an operator, on what it is applied to."""

  function: str
  args: tuple['Node', ...]


Node: TypeAlias = Union[float, str, Call]


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
  """Numbers, and why some are missing.

  Attributes:
    value: float64 [N], or [] of a constant; NaN exactly where missing.
    why: int8 of the same shape, 0 where there is a number; else its reason.
  """

  value: np.ndarray
  why: np.ndarray

  def describe(self) -> str:
    """'a column is missing: 2, division by 0: 1', or '' where none is."""
    count = np.bincount(self.why.ravel(), minlength=len(_REASONS))
    return ', '.join(
        f'{reason}: {number:,}'
        for reason, number in zip(_REASONS[1:], count[1:])
        if number
    )


@dataclasses.dataclass(frozen=True)
class Function:
  """What a function computes.

  Attributes:
    num_args: how many it takes; least and most, which is None for any number.
    compute: float64 arrays to one.
    undefined: where there is no result, as bool; None for nowhere.
    reason: number of the reason there.
  """

  num_args: tuple[int, int | None]
  compute: Callable[..., np.ndarray]
  undefined: Callable[..., np.ndarray] | None = None
  reason: int = _OVERFLOW


def _compare(compare: np.ufunc) -> Function:
  """Numbers that float32 can't tell apart are equal."""

  def compute(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return compare(_round(left), _round(right)).astype(np.float64)

  return Function((2, 2), compute)


def _round(value: np.ndarray) -> np.ndarray:
  """To float32 as far as that reaches, as float64."""
  inside = np.abs(value) <= _LARGEST
  rounded = np.where(inside, value, 0.0).astype(np.float32)
  return np.where(inside, rounded, value)


OPERATORS = {
    '+': Function((2, 2), np.add),
    '-': Function((2, 2), np.subtract),
    '*': Function((2, 2), np.multiply),
    '/': Function((2, 2), np.divide, lambda x, y: y == 0, _DIVISION),
    '%': Function((2, 2), np.mod, lambda x, y: y == 0, _DIVISION),
    '**': Function(
        (2, 2),
        np.power,
        lambda x, y: ((x < 0) & (y != np.floor(y))) | ((x == 0) & (y < 0)),
        _POWER,
    ),
    'negative': Function((1, 1), np.negative),
    '<': _compare(np.less),
    '<=': _compare(np.less_equal),
    '>': _compare(np.greater),
    '>=': _compare(np.greater_equal),
    '==': _compare(np.equal),
    '!=': _compare(np.not_equal),
}
FUNCTIONS = {
    'log': Function((1, 1), np.log, lambda x: x <= 0, _LOGARITHM),
    'log1p': Function((1, 1), np.log1p, lambda x: x <= -1, _LOGARITHM),
    'exp': Function((1, 1), np.exp),
    'sqrt': Function((1, 1), np.sqrt, lambda x: x < 0, _ROOT),
    'abs': Function((1, 1), np.abs),
    'floor': Function((1, 1), np.floor),
    'min': Function((2, None), lambda *x: _reduce(np.minimum, x)),
    'max': Function((2, None), lambda *x: _reduce(np.maximum, x)),
    'clip': Function(
        (3, 3), lambda x, low, high: np.minimum(np.maximum(x, low), high)
    ),
    # These two look at what is missing; `evaluate` knows them.
    'where': Function((3, 3), np.where),
    'is_missing': Function((1, 1), np.isnan),
}


def evaluate(node: Node, columns: Mapping[str, np.ndarray]) -> Result:
  """Computes an expression.

  Args:
    node: the tree.
    columns: numbers [N] of all columns that it names, NaN where missing.

  Returns:
    float64 [N], or [] where no column is named. Finite or missing.
  """
  if isinstance(node, str):
    value = np.asarray(columns[node], np.float64)
    return Result(value, np.isnan(value) * np.int8(_MISSING))
  if isinstance(node, float):
    return Result(np.asarray(node), np.zeros((), np.int8))
  args = [evaluate(arg, columns) for arg in node.args]
  if node.function == 'is_missing':
    why = args[0].why
    return Result((why > 0).astype(np.float64), np.zeros_like(why))
  if node.function == 'where':
    return _where(*args)
  return _apply((OPERATORS | FUNCTIONS)[node.function], args)


def limit(result: Result) -> Result:
  """Lets what a float32 column could not hold be missing."""
  with np.errstate(invalid='ignore'):
    far = np.abs(result.value) > _LARGEST
  return _without(result, far, _OVERFLOW)


def _apply(function: Function, args: list[Result]) -> Result:
  """Missing where an argument is, or where there is no finite result."""
  why = args[0].why
  for arg in args[1:]:
    why = np.where(why > 0, why, arg.why)
  values = [arg.value for arg in args]
  with np.errstate(all='ignore'):
    result = Result(np.asarray(function.compute(*values)), why)
    if function.undefined is not None:
      bad = np.asarray(function.undefined(*values)) & (why == 0)
      result = _without(result, bad, function.reason)
  bad = ~np.isfinite(result.value) & (result.why == 0)
  return _without(result, bad, _OVERFLOW)


def _where(condition: Result, then: Result, other: Result) -> Result:
  """What is not chosen may be missing."""
  chosen = condition.value != 0
  why = np.where(chosen, then.why, other.why)
  why = np.where(condition.why > 0, condition.why, why)
  value = np.where(chosen, then.value, other.value)
  return _without(Result(value, why), why > 0, 0)


def _without(result: Result, bad: np.ndarray, reason: int) -> Result:
  """Takes numbers away; a reason of 0 leaves the reasons that there are."""
  why = np.where(bad, np.int8(reason), result.why) if reason else result.why
  value = np.where(why > 0, np.nan, result.value)
  return Result(value, np.asarray(why, np.int8))


def _reduce(function: np.ufunc, values: tuple[np.ndarray, ...]) -> np.ndarray:
  result = values[0]
  for value in values[1:]:
    result = function(result, value)
  return result
