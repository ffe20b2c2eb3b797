# SPDX-License-Identifier: Apache-2.0
"""What `run.py tune` may change: fields of a configuration and their ranges.

An experiment file lists them beside its configuration:

  def get_space():
    return [
        space.Float('train.learning_rate', 1e-4, 1e-2, log=True),
        space.Int('model.rank', 16, 64, step=16),
        space.Choice('train.optimizer', ('adam', 'adamw')),
        space.Float('train.weight_decay', 1e-4, 0.1, log=True,
                    when=('train.optimizer', 'adamw')),
    ]

Plain data, like the configuration; `tuning/spaces.py` checks it against one.
"""

import dataclasses
from typing import Any, Union

# A field of an earlier entry, and a value of it: without it the entry is left
# out, and its field has what the experiment file says.
When = tuple[str, Any]


@dataclasses.dataclass(frozen=True)
class Float:
  """A number from low to high, both included; drawn to three digits.

  Attributes:
    field: dotted name, as on the command line without 'config.'.
    low: least value.
    high: greatest value.
    log: whether 0.001 to 0.01 is as far as 0.01 to 0.1.
    step: only low plus multiples of it, if it is above 0.
    when: the condition, if there is one.
  """

  field: str
  low: float
  high: float
  log: bool = False
  step: float = 0.0
  when: When | None = None


@dataclasses.dataclass(frozen=True)
class Int:
  """A whole number from low to high, both included.

  Attributes:
    field: as in `Float`.
    low: least value.
    high: greatest value.
    log: as in `Float`; not with a step.
    step: only low plus multiples of it.
    when: the condition, if there is one.
  """

  field: str
  low: int
  high: int
  log: bool = False
  step: int = 1
  when: When | None = None


@dataclasses.dataclass(frozen=True)
class Choice:
  """One of several values, of which none is nearer to another.

  Attributes:
    field: as in `Float`.
    values: of the field's type.
    when: the condition, if there is one.
  """

  field: str
  values: tuple[Any, ...]
  when: When | None = None


Entry = Union[Float, Int, Choice]
