# SPDX-License-Identifier: Apache-2.0
"""How much of what content predicts is left once behaviour is known."""

import numpy as np


def left(number: np.ndarray, smoothing: float) -> np.ndarray:
  """Shares [N] of predictions that so many likes [N] leave: s / (s + n).

  Args:
    number: [N] >= 0.
    smoothing: s >= 0, likes that count as much as a prediction; without likes
      all is left whatever it is.
  """
  return np.where(number > 0, smoothing / np.maximum(smoothing + number, 1), 1)
