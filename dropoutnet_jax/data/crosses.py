# SPDX-License-Identifier: Apache-2.0
"""Several categories of a row as one."""

from collections.abc import Sequence

import numpy as np

_SEPARATOR = ' & '


def join(columns: Sequence[np.ndarray]) -> np.ndarray:
  r"""Joins categories so that different rows of them never become the same.

  'red' and 'small' become 'red & small'; a '&' or '\' in a value is written
  '\&' or '\\', which tells it from what separates.

  Args:
    columns: of categories, each object [N] of str, None where missing.

  Returns:
    object [N] of str; None where the row lacks one of them.
  """
  escaped = [_escape(column) for column in columns]
  joined = [
      None if None in row else _SEPARATOR.join(row)
      for row in zip(*escaped, strict=True)
  ]
  result = np.empty(len(joined), object)
  result[:] = joined
  return result


def _escape(column: np.ndarray) -> list[str | None]:
  return [
      value and value.replace('\\', '\\\\').replace('&', '\\&')
      for value in column
  ]
