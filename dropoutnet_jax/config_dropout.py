# SPDX-License-Identifier: Apache-2.0
"""Settings of input dropout.

Part of `config.py`, which gives them their names; see there.
"""

import dataclasses

from dropoutnet_jax import checks


@dataclasses.dataclass
class DropoutConfig:
  """Input dropout (Algorithm 1): what is taken from a row, and how often.

  A dropped row loses all of its preference, features of that group as well. A
  transform replaces factors or history and leaves those features: it stands for
  a row of few interactions, not of none.

  'independent': each side is dropped or transformed with its own rates.
  'exclusive': one of six modes per pair, as in the paper; the probability of
  'as is' is what the other five leave.
  """

  kind: str = 'independent'
  user_rate: float = 0.5  # independent: preference dropped
  item_rate: float = 0.5
  user_transform_rate: float = 0.0  # independent: replaced by the history mean
  item_transform_rate: float = 0.0
  drop_user: float = 0.2  # exclusive
  drop_item: float = 0.2
  drop_both: float = 0.2
  user_transform: float = 0.0
  item_transform: float = 0.0
  # All rates are multiplied by a share: 1 ('constant'), or one that grows from
  # start_share to 1 over ramp_steps ('linear', 'cosine').
  schedule: str = 'constant'
  ramp_steps: int = 0
  start_share: float = 0.0
  # A side without content is not dropped: nothing would be left to learn from.
  drop_without_content: bool = False
  # What is kept of a side is divided by the share that is kept, in training
  # alone (EasyRec): the towers then never see inputs of that size again.
  rescale_kept: bool = False

  @property
  def uses_history(self) -> bool:
    """Whether some rows become the mean over their history."""
    if self.kind == 'exclusive':
      return bool(self.user_transform or self.item_transform)
    return bool(self.user_transform_rate or self.item_transform_rate)

  def validate(self) -> None:
    kinds = ('independent', 'exclusive')
    checks.check_choice('dropout.kind', self.kind, kinds)
    for field in dataclasses.fields(self):
      if field.type is float or field.type == 'float':
        checks.check_rate(f'dropout.{field.name}', getattr(self, field.name))
    for side in ('user', 'item'):
      total = getattr(self, f'{side}_rate') + getattr(
          self, f'{side}_transform_rate'
      )
      name = f'dropout.{side}_rate + {side}_transform_rate'
      checks.check(total <= 1.0, name, total, 'at most 1')
    total = (
        self.drop_user
        + self.drop_item
        + self.drop_both
        + self.user_transform
        + self.item_transform
    )
    name = 'dropout: the five exclusive probabilities together'
    checks.check(total <= 1.0 + 1e-9, name, total, 'at most 1')
    schedules = ('constant', 'linear', 'cosine')
    checks.check_choice('dropout.schedule', self.schedule, schedules)
    checks.check_at_least('dropout.ramp_steps', self.ramp_steps, 0)
    name, steps = 'dropout.ramp_steps', self.ramp_steps
    if self.schedule == 'constant':
      expected = "0 where dropout.schedule is 'constant'"
      checks.check(steps == 0, name, steps, expected)
    else:
      expected = f'at least 1 where dropout.schedule is {self.schedule!r}'
      checks.check(steps > 0, name, steps, expected)
