# SPDX-License-Identifier: Apache-2.0
"""A policy and what it draws from, as flags of the command line name them."""

from collections.abc import Mapping
from typing import Any

from dropoutnet_jax import errors
from dropoutnet_jax.exploring import policies
from dropoutnet_jax.serving import plans

NAMES = ('epsilon', 'width', 'new_share', 'boost', 'passes', 'seed', 'spread')
_OF_PLAN = ('passes', 'seed', 'spread')


def plan(policy: str | None, values: Mapping[str, Any]) -> plans.Plan | None:
  """The policy with its numbers; None without one.

  Args:
    policy: its kind; None for none.
    values: of NAMES, those that were given; None is not given.

  Raises:
    UserError: for a policy that there is not, numbers that it can't have, or
      numbers without one.
  """
  given = {name: values[name] for name in NAMES if values[name] is not None}
  if policy is None:
    if given:
      raise errors.UserError(
          f'--{next(iter(given))} is of a policy; name one with --policy, '
          f'such as {policies.KINDS[-1]}, or leave it out.'
      )
    return None
  if policy not in policies.KINDS:
    raise errors.UserError(
        f'--policy={policy}: it must be one of {", ".join(policies.KINDS)}.'
        + errors.did_you_mean(policy, policies.KINDS)
    )
  own = {x: given.pop(x) for x in _OF_PLAN if x in given}
  return plans.Plan(policies.Policy(policy, **given), **own).with_seed()
