# SPDX-License-Identifier: Apache-2.0
"""Checks of single settings; each names the field, its value and the rule."""

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
