# SPDX-License-Identifier: Apache-2.0
"""Embeddings on the host, row by row: checked, chosen from, and sent."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from dropoutnet_jax.model import embeddings
from dropoutnet_jax.serving.index import vectors


class Embedded(NamedTuple):
  """Embeddings of N users or items.

  Attributes:
    dense: float32 [N, R].
    sparse: csr_array float32 [N, T]; None where embeddings have no such part.
  """

  dense: np.ndarray
  sparse: scipy.sparse.csr_array | None

  def is_finite(self) -> np.ndarray:
    """bool [N], rows without numbers that an index refuses."""
    fine = vectors.are_fine(self.dense)
    if self.sparse is not None:
      bad = ~(np.abs(self.sparse.data) <= vectors.LARGEST)  # NaN too
      if bad.any():
        row = np.repeat(np.arange(len(fine)), np.diff(self.sparse.indptr))
        fine[row[bad]] = False
    return fine

  def select(self, rows: Sequence[int] | np.ndarray) -> 'Embedded':
    """Some rows, int [C]."""
    places = np.asarray(rows, np.int64)
    sparse = None if self.sparse is None else self.sparse[places]
    return Embedded(self.dense[places], sparse)

  def without(self, bad: np.ndarray) -> 'Embedded':
    """The same with zeros in some rows, bool [N]."""
    if not bad.any():
      return self
    keep = ~bad
    sparse = self.sparse
    if sparse is not None:
      kept = np.where(np.repeat(keep, np.diff(sparse.indptr)), sparse.data, 0)
      arrays = (kept, sparse.indices, sparse.indptr)
      sparse = scipy.sparse.csr_array(arrays, shape=sparse.shape)
    return Embedded(np.where(keep[:, None], self.dense, 0), sparse)

  def score(self, other: 'Embedded') -> np.ndarray:
    """Scores of all rows with all rows of the other side: float32 [N, M]."""
    scores = self.dense @ other.dense.T
    if self.sparse is not None and other.sparse is not None:
      scores += (self.sparse @ other.sparse.T).toarray()
    return scores

  def as_json(self) -> list[dict[str, Any]]:
    """Each row: {'dense': [...], 'sparse': {'columns', 'values'} or None}."""
    rows: list[dict[str, Any]] = [
        {'dense': row, 'sparse': None} for row in self.dense.tolist()
    ]
    if self.sparse is None:
      return rows
    for place, row in enumerate(rows):
      part = slice(*self.sparse.indptr[place : place + 2])
      row['sparse'] = {
          'columns': self.sparse.indices[part].tolist(),
          'values': self.sparse.data[part].tolist(),
      }
    return rows


def of_device(embedding: embeddings.Embedding) -> Embedded:
  """What a model or an index has on the device."""
  dense = np.asarray(embedding.dense)
  if embedding.sparse is None:
    return Embedded(dense, None)
  return Embedded(dense, embeddings.to_matrix(embedding.sparse))


def join(parts: Sequence[Embedded]) -> Embedded:
  """Rows of several, one after the other."""
  sparse = None
  if parts[0].sparse is not None:
    sparse = scipy.sparse.csr_array(
        scipy.sparse.vstack([part.sparse for part in parts], format='csr')
    )
  return Embedded(np.concatenate([part.dense for part in parts]), sparse)
