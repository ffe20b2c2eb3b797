# SPDX-License-Identifier: Apache-2.0
"""Texts such as 'log1p(price) / (pages + 1)' as trees of known functions.

Python's own parser reads the text; what it finds is translated piece by piece
from a short list, and nothing is ever run. Every refusal names the place.
"""

import ast
from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import NoReturn
import warnings

from dropoutnet_jax import errors
from dropoutnet_jax.data import expressions

MAX_LENGTH = 1000  # characters
_MAX_DEPTH = 100
_SHOWN = 60  # characters of the text in a message
_LISTED = 20  # columns in a message
NUMBER = 'one number per row'  # what a column must hold

_SYMBOLS: dict[type[ast.AST], str] = {
    ast.Add: '+',
    ast.Sub: '-',
    ast.Mult: '*',
    ast.Div: '/',
    ast.Mod: '%',
    ast.Pow: '**',
    ast.USub: 'negative',
    ast.Lt: '<',
    ast.LtE: '<=',
    ast.Gt: '>',
    ast.GtE: '>=',
    ast.Eq: '==',
    ast.NotEq: '!=',
}
_INSTEAD: dict[type[ast.AST], str] = {
    ast.FloorDiv: 'Write floor(a / b).',
    ast.UAdd: 'Leave the + out.',
    ast.Not: 'Write 1 - x.',
    ast.BoolOp: "Write a * b for 'and', max(a, b) for 'or'.",
    ast.IfExp: 'Write where(condition, a, b).',
    ast.BitXor: 'A power is written a ** b.',
}
_KNOWN = (
    'An expression has numbers, columns, + - * / % **, comparisons and the '
    f'functions {", ".join(expressions.FUNCTIONS)}.'
)
_QUOTED = "Columns with other names are written col('my column')."


def parse(
    text: str, field: str, contents: Mapping[str, str]
) -> tuple[expressions.Node, tuple[str, ...]]:
  """Reads an expression.

  Args:
    text: the expression.
    field: where it is in the configuration, for errors.
    contents: what each column of the table holds, 'one number per row' where
      an expression can name it.

  Returns:
    The tree, and the columns that it names in their order.

  Raises:
    UserError: it is no expression, is too long or nested too deeply, names what
      is no column of numbers or no function, or computes what is no number
      from numbers alone.
  """
  reader = _Reader(text.strip(), field, contents)
  tree = reader.parse()
  root = reader.translate(tree, 0)
  if not reader.columns:
    reader.fail(0, 'it names no column, so that all rows would be alike.')
  return root, tuple(reader.columns)


@dataclasses.dataclass
class _Reader:
  """Translates one text; collects the columns that it names."""

  text: str
  field: str
  contents: Mapping[str, str]
  columns: dict[str, None] = dataclasses.field(default_factory=dict)

  def parse(self) -> ast.expr:
    """Python's tree of the text."""
    if len(self.text) > MAX_LENGTH:
      size = f'{len(self.text):,} characters'
      self.fail(MAX_LENGTH, f'it has {size}; the most is {MAX_LENGTH:,}.')
    if len(self.text.splitlines()) > 1:
      place = len(self.text.splitlines()[0])
      self.fail(place, 'the line ends; write all on one line.')
    if '\0' in self.text:
      self.fail(self.text.find('\0'), 'there is a NUL character.')
    try:
      with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of code that is refused below
        return ast.parse(self.text, mode='eval').body
    except SyntaxError as error:
      if not error.offset:
        self.fail(len(self.text), 'it ends too early.')
      self.fail(error.offset - 1, f'{error.msg}. {_QUOTED}')
    except (RecursionError, MemoryError):
      self._fail_deep(0)
    except ValueError as error:  # half a surrogate pair
      self.fail(0, f'{errors.cause(error)}.')

  def translate(self, tree: ast.AST, depth: int) -> expressions.Node:
    """The node of a part of Python's tree."""
    if depth > _MAX_DEPTH:
      self._fail_deep(self._place(tree))
    if isinstance(tree, ast.Constant):
      return self._number(tree)
    if isinstance(tree, ast.Name):
      return self._column(tree, self._source(tree))
    if isinstance(tree, ast.Call):
      return self._call(tree, depth)
    if isinstance(tree, ast.BinOp):
      return self._operation(tree, tree.op, [tree.left, tree.right], depth)
    if isinstance(tree, ast.UnaryOp):
      return self._operation(tree, tree.op, [tree.operand], depth)
    if isinstance(tree, ast.Compare):
      if len(tree.ops) > 1:
        advice = 'Write (a < b) * (b < c) for a < b < c.'
        self.fail(self._place(tree), f'comparisons are chained. {advice}')
      sides = [tree.left, *tree.comparators]
      return self._operation(tree, tree.ops[0], sides, depth)
    self._refuse(tree, tree)

  def _operation(
      self,
      tree: ast.AST,
      operator: ast.AST,
      operands: Sequence[ast.AST],
      depth: int,
  ) -> expressions.Node:
    if type(operator) not in _SYMBOLS:
      self._refuse(tree, operator)
    args = tuple(self.translate(operand, depth + 1) for operand in operands)
    return self._fold(tree, expressions.Call(_SYMBOLS[type(operator)], args))

  def _call(self, tree: ast.Call, depth: int) -> expressions.Node:
    if not isinstance(tree.func, ast.Name):
      self._refuse(tree, tree)
    name = tree.func.id
    if tree.keywords or any(isinstance(a, ast.Starred) for a in tree.args):
      found = f'{name} takes its arguments one after the other, by place alone'
      self.fail(self._place(tree), f'{found}.')
    if name == 'col':
      return self._quoted(tree)
    if name not in expressions.FUNCTIONS:
      self._fail_function(tree, name)
    least, most = expressions.FUNCTIONS[name].num_args
    if len(tree.args) < least or (most and len(tree.args) > most):
      needed = f'{least} argument(s)' if most else f'at least {least} arguments'
      found = f'{name} takes {needed}, found {len(tree.args)}'
      self.fail(self._place(tree), f'{found}.')
    args = tuple(self.translate(arg, depth + 1) for arg in tree.args)
    return self._fold(tree, expressions.Call(name, args))

  def _quoted(self, tree: ast.Call) -> expressions.Node:
    """The column in col('my column')."""
    name = tree.args[0] if len(tree.args) == 1 else None
    if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
      found = "col takes the name of a column in quotes: col('my column')"
      self.fail(self._place(tree), f'{found}.')
    return self._column(name, name.value)

  def _column(self, tree: ast.AST, name: str) -> expressions.Node:
    place = self._place(tree)
    usable = [n for n, content in self.contents.items() if content == NUMBER]
    if name in usable:
      self.columns[name] = None
      return name
    listed = errors.listed(usable, _LISTED, 'columns') or 'none'
    if name in self.contents:
      found = f'column {name!r} holds {self.contents[name]}'
      self.fail(
          place, f'{found}; one number per row is needed, as in: {listed}.'
      )
    found = f'there is no column {name!r}'
    if name in expressions.FUNCTIONS:
      found = f'{name} is a function, and is written {name}(...)'
    self.fail(
        place,
        f'{found}. Columns of numbers are: {listed}.'
        + errors.did_you_mean(name, usable),
    )

  def _number(self, tree: ast.Constant) -> float:
    value = tree.value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
      self._refuse(tree, tree)
    try:
      number = float(value)
    except OverflowError:
      number = math.inf
    if not math.isfinite(number):
      self.fail(self._place(tree), 'the number is too large.')
    return number

  def _fold(self, tree: ast.AST, call: expressions.Call) -> expressions.Node:
    """Computes what no column takes part in."""
    if not all(isinstance(arg, float) for arg in call.args):
      return call
    result = expressions.evaluate(call, {})
    if result.why:
      what = result.describe().rpartition(':')[0]
      source = _cut(self._source(tree))
      self.fail(self._place(tree), f'{source!r} is no number: {what}.')
    return float(result.value)

  def _source(self, tree: ast.AST) -> str:
    return ast.get_source_segment(self.text, tree) or ''

  def _place(self, tree: ast.AST) -> int:
    """Where it starts, in characters from 0."""
    in_bytes = getattr(tree, 'col_offset', 0)
    return len(self.text.encode()[:in_bytes].decode())

  def _refuse(self, tree: ast.AST, what: ast.AST) -> NoReturn:
    advice = _INSTEAD.get(type(what), _KNOWN)
    source = _cut(self._source(tree))
    self.fail(self._place(tree), f'{source!r} cannot be used. {advice}')

  def _fail_function(self, tree: ast.Call, name: str) -> NoReturn:
    known = ', '.join(expressions.FUNCTIONS)
    advice = f'Functions are: {known}.'
    advice += errors.did_you_mean(name, expressions.FUNCTIONS)
    if name in self.contents:
      advice = f'{name!r} is a column; is an operator missing before the (?'
    self.fail(self._place(tree), f'there is no function {name!r}. {advice}')

  def _fail_deep(self, place: int) -> NoReturn:
    self.fail(
        place,
        f'it is nested more than {_MAX_DEPTH} levels deep. Put parentheses '
        'around parts of long sums, or make a column of a part.',
    )

  def fail(self, place: int, found: str) -> NoReturn:
    """Raises UserError with the place, in characters from 0."""
    raise errors.UserError(
        f'{self.field} is {_cut(self.text)!r}: at character {place + 1}: '
        f'{found}'
    )


def _cut(text: str) -> str:
  return text if len(text) <= _SHOWN else f'{text[:_SHOWN]}…'
