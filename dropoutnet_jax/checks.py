# SPDX-License-Identifier: Apache-2.0
"""Checks of single settings; each names the field, its value and the rule."""

import dataclasses
import math
import typing
from typing import Any

from dropoutnet_jax import errors


def check(condition: bool, field: str, value: Any, rule: str) -> None:
  """Raises UserError with the field, its value and the rule, unless true."""
  if not condition:
    raise errors.UserError(f'config.{field} is {value!r}; it must be {rule}.')


def check_choice(field: str, value: Any, known: tuple[str, ...]) -> None:
  """Raises UserError unless the value is one of the known names."""
  if value not in known:
    raise errors.UserError(
        f'config.{field} is {value!r}; it must be one of {", ".join(known)}.'
        + errors.did_you_mean(str(value), known)
    )


def check_rate(field: str, value: Any) -> None:
  """Raises UserError unless the value is a probability."""
  ok = isinstance(value, (int, float)) and 0.0 <= value <= 1.0
  check(ok, field, value, 'a probability in [0, 1]')


def check_at_least(field: str, value: Any, least: float) -> None:
  """Raises UserError unless the value is finite and at least `least`."""
  ok = isinstance(value, (int, float)) and least <= value < float('inf')
  check(ok, field, value, f'at least {least}')


def check_seed(field: str, value: Any) -> None:
  """Raises UserError unless every generator takes the value as a seed."""
  ok = isinstance(value, int) and 0 <= value < 2**31
  check(ok, field, value, 'from 0 to 2147483647')


def check_types(settings: Any, path: str = '') -> None:
  """Checks that every field holds what its annotation says, at any depth.

  Neither experiment files nor config.json are checked by Python, and plain
  dataclasses take attributes that no field declares.

  Args:
    settings: a dataclass instance.
    path: its dotted name below `config`, '' for the whole.

  Raises:
    UserError: naming the first field that holds another type, or is none.
  """
  hints = typing.get_type_hints(type(settings))
  for name in vars(settings):
    if name not in hints:
      raise errors.UserError(
          f'config{path and "."}{path} has no field {name!r}.'
          + errors.did_you_mean(name, hints)
      )
  for name, hint in hints.items():
    field = f'{path}.{name}'.removeprefix('.')
    _check_type(hint, getattr(settings, name), field)


def _check_type(hint: Any, value: Any, field: str) -> None:
  container = typing.get_origin(hint)
  if container in (list, tuple):
    check(isinstance(value, container), field, value, f'a {container.__name__}')
    for number, entry in enumerate(value):
      _check_type(typing.get_args(hint)[0], entry, f'{field}[{number}]')
  elif dataclasses.is_dataclass(hint):
    kind: Any = hint
    check(isinstance(value, kind), field, value, f'a {kind.__name__}')
    check_types(value, field)
  elif hint is float:
    ok = isinstance(value, (int, float)) and not isinstance(value, bool)
    check(ok and math.isfinite(value), field, value, 'a finite number')
  elif hint is int:
    ok = isinstance(value, int) and not isinstance(value, bool)
    check(ok, field, value, 'a whole number')
    check(abs(value) < 2**31, field, value, 'below 2147483648')  # int32 steps
  else:
    rule = {bool: 'True or False', str: 'text'}[hint]
    check(isinstance(value, hint), field, value, rule)
