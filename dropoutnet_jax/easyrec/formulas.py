# SPDX-License-Identifier: Apache-2.0
"""Expressions of EasyRec in the words of features of kind 'expression'.

There they are Python over TensorFlow and are run; here they are read, and what
has no counterpart is refused. Names of columns go into `col('...')` where they
are no names of Python.
"""

import ast
from collections.abc import Sequence
import keyword

from dropoutnet_jax import errors
from dropoutnet_jax.data import expression_parser

_FUNCTIONS = {'minimum': 'min', 'maximum': 'max'}


class FormulaError(Exception):
  """A text that cannot be said here; the message says why."""


def translate(text: str, columns: Sequence[str]) -> str:
  """An expression over these columns.

  Raises:
    FormulaError: naming what has no counterpart.
  """
  return _checked(_Translator().visit(_parse(text)), columns)


def normalized(
    column: str, low: float, high: float, function: str, columns: Sequence[str]
) -> str:
  """The column between two values as 0 to 1, then through a function.

  Args:
    column: its name.
    low: is 0.
    high: is 1; no more than `low` changes nothing.
    function: such as 'tf.math.log1p' or 'lambda x: x / 10'; '' is none.
    columns: names of all.

  Raises:
    FormulaError: naming what has no counterpart.
  """
  value = ast.unparse(_column(column))
  if high > low:
    shifted = f'({value} - {_exact(low)})' if low else value
    value = f'{shifted} / {_exact(high - low)}'
  if not function:
    return _checked(_parse(value), columns)
  tree = _parse(function)
  if isinstance(tree, ast.Lambda) and len(tree.args.args) == 1:
    name, body = tree.args.args[0].arg, tree.body
  else:
    name, body = 'x', ast.Call(tree, [ast.Name('x')], [])
  body = _Translator({name: _parse(value)}).visit(body)
  return _checked(body, columns)


def _exact(number: float) -> str:
  """All digits, as a person writes them: 8, 0.1, 1577836800."""
  return str(int(number)) if number == int(number) else repr(number)


def _parse(text: str) -> ast.expr:
  try:
    return ast.parse(text.strip(), mode='eval').body
  except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
    raise FormulaError(f'{text!r} is no expression') from error


def _column(name: str) -> ast.expr:
  if name.isidentifier() and not keyword.iskeyword(name):
    return ast.Name(name)
  return ast.Call(ast.Name('col'), [ast.Constant(name)], [])


def _checked(tree: ast.expr, columns: Sequence[str]) -> str:
  text = ast.unparse(ast.fix_missing_locations(tree))
  contents = dict.fromkeys(columns, expression_parser.NUMBER)
  try:
    expression_parser.parse(text, 'the expression', contents)
  except errors.UserError as error:
    raise FormulaError(str(error)) from error
  return text


class _Translator(ast.NodeTransformer):
  """'&' and '|' of comparisons, functions of TensorFlow, and one argument."""

  def __init__(self, values: dict[str, ast.expr] | None = None):
    self._values = values or {}

  def visit_Name(self, node: ast.Name) -> ast.expr:
    return self._values.get(node.id, node)

  def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
    left, right = self.visit(node.left), self.visit(node.right)
    if isinstance(node.op, ast.BitOr):
      return ast.Call(ast.Name('max'), [left, right], [])
    both = isinstance(node.op, ast.BitAnd)
    return ast.BinOp(left, ast.Mult() if both else node.op, right)

  def visit_Call(self, node: ast.Call) -> ast.expr:
    name = ast.unparse(node.func)
    arguments = [self.visit(one) for one in node.args]
    if name.startswith('tf.'):
      name = name.rpartition('.')[2]
      name = _FUNCTIONS.get(name, name)
    if not name.isidentifier() or node.keywords:
      raise FormulaError(f'{ast.unparse(node)!r} has no counterpart')
    return ast.Call(ast.Name(name), arguments, [])
