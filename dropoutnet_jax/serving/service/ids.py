# SPDX-License-Identifier: Apache-2.0
"""Ids as clients write them, and as a run has them.

Ids of a run are whole numbers or strings. JSON says which it means, a path of a
URL does not: '7' and 7 are the same id, of whatever kind those of the run are.
"""

import re

import numpy as np

from dropoutnet_jax.serving.service import limits
from dropoutnet_jax.serving.service import refusals
from dropoutnet_jax.serving.service import state_file

Id = state_file.Id
_WHOLE = re.compile(r'0|-?[1-9]\d{0,18}', re.ASCII)
_LIMIT = 2**63
# Neither control characters nor halves of pairs, which OpenAPI cannot name.
PATTERN = '^[^\\u0000-\\u001f\\u007f-\\u009f]+$'
_PLAIN = re.compile('[^\\u0000-\\u001f\\u007f-\\u009f\\ud800-\\udfff]+')


class Ids:
  """The ids of one side of a run: where each is, and which others can be.

  Attributes:
    side: 'user' or 'item'.
    is_whole: whether ids are whole numbers.
    row: the row of each id of the run.
  """

  def __init__(self, side: str, known: np.ndarray):
    self.side = side
    self.is_whole = known.dtype == np.int64
    self.row: dict[Id, int] = {
        name: row for row, name in enumerate(known.tolist())
    }

  def read(self, value: Id, where: str = '') -> Id:
    """An id, of the kind that the run has.

    Raises:
      Refusal: if it cannot be one.
    """
    if self.is_whole:
      if isinstance(value, str) and _WHOLE.fullmatch(value):
        value = int(value)
      if isinstance(value, str) or not -_LIMIT <= value < _LIMIT:
        raise refusals.Refusal(
            f'{ascii(value)[:60]} is no id: those of {self.side}s of this run '
            'are whole numbers of 64 bits.',
            code='bad_id',
            where=where,
        )
      return value
    value = str(value)
    is_plain = _PLAIN.fullmatch(value) and len(value) <= limits.ID_LENGTH
    if not is_plain and value not in self.row:
      raise refusals.Refusal(
          f'{ascii(value)[:60]} is no id: it must have 1 to '
          f'{limits.ID_LENGTH} characters, none of them for control.',
          code='bad_id',
          where=where,
      )
    return value

  def array(self, ids: list[Id]) -> np.ndarray:
    """int64 or str [N]."""
    return np.array(ids, np.int64 if self.is_whole else np.str_)

  def nobody(self, number: int) -> Id:
    """What stands for one who has no id."""
    return -_LIMIT + number if self.is_whole else ''
