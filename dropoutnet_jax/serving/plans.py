# SPDX-License-Identifier: Apache-2.0
"""A policy, and what it draws from."""

import dataclasses

import numpy as np

from dropoutnet_jax import errors
from dropoutnet_jax.exploring import policies

PASSES, MOST_PASSES = 16, 64
SPREADS = ('belief', 'masks')


@dataclasses.dataclass(frozen=True)
class Plan:
  """A policy, and what it draws from.

  Attributes:
    policy: how slates are filled.
    passes: T, of 'ucb' and 'thompson'; others look at the mean alone.
    seed: of masks and draws; None draws one.
    spread: where passes come from: 'belief' (draws of what is believed of new
      items, see `exploring.belief`) or 'masks' (of input dropout).
  """

  policy: policies.Policy
  passes: int = PASSES
  seed: int | None = None
  spread: str = SPREADS[0]

  def __post_init__(self) -> None:
    """Raises UserError for numbers that are out of range."""
    if not isinstance(self.policy, policies.Policy):
      raise errors.UserError(
          f'{self.policy!r} is no policy; name one of '
          f'{", ".join(policies.KINDS)}, or give a policies.Policy.'
      )
    if self.spread not in SPREADS:
      raise errors.UserError(
          f'spread of the policy is {self.spread!r}; it must be one of '
          f'{", ".join(SPREADS)}.'
          + errors.did_you_mean(str(self.spread), SPREADS)
      )
    if not 1 <= self.passes <= MOST_PASSES:
      raise errors.UserError(
          f'passes of the policy are {self.passes}; they must be 1 to '
          f'{MOST_PASSES}.'
      )
    if self.seed is not None and not 0 <= self.seed < 2**31:
      raise errors.UserError(
          f'seed of the policy is {self.seed}; it must be 0 to {2**31 - 1}.'
      )

  @property
  def has_spread(self) -> bool:
    """Whether more is looked at than the mean."""
    return self.policy.needs_passes and self.passes > 1

  @property
  def reads_beliefs(self) -> bool:
    """Whether what is believed of new items is looked at."""
    return self.policy.needs_passes and self.spread == 'belief'

  def with_seed(self) -> 'Plan':
    """The same with a seed, drawn if there is none."""
    if self.seed is not None:
      return self
    seed = int(np.random.default_rng().integers(2**31))
    return dataclasses.replace(self, seed=seed)

  def __str__(self) -> str:
    """The policy, and what it looks at beside means."""
    if self.reads_beliefs:
      return f'{self.policy} spread=belief'
    return str(self.policy)
