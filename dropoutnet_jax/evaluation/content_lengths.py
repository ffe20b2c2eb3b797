# SPDX-License-Identifier: Apache-2.0
"""How long the content of an item is, by how much of it there is.

What many tags describe is known better and liked more; see `sparse_part`.
"""

import dataclasses

import numpy as np
import scipy.sparse

from dropoutnet_jax.data import blocks


@dataclasses.dataclass(frozen=True)
class Lengths:
  """Lengths of items by how much content they have.

  Attributes:
    mean: entries of the training items that have any, on average.
    power: 0 makes all of length 1.
  """

  mean: float
  power: float

  def of(self, content: scipy.sparse.csr_array) -> np.ndarray:
    """float32 [N] of content [N, T]; 1 for an item of as many as the mean."""
    entries = np.maximum(np.diff(content.indptr), 1)
    return ((entries / self.mean) ** self.power).astype(np.float32)


def scaled(
    content: scipy.sparse.csr_array, length: np.ndarray
) -> scipy.sparse.csr_array:
  """Rows of content [N, T] times their lengths [N]."""
  return blocks.times_rows(content, length)


def lengthened(
    histories: scipy.sparse.csr_array, length: np.ndarray
) -> scipy.sparse.csr_array:
  """Columns of histories [U, I] times the lengths [I] of the items."""
  return scipy.sparse.csr_array(histories.multiply(length[None, :]))
