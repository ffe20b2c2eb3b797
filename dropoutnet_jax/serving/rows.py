# SPDX-License-Identifier: Apache-2.0
"""Users or items that somebody asks about: those of a run, and new ones."""

import dataclasses

import numpy as np
import scipy.sparse

from dropoutnet_jax.data import column_types
from dropoutnet_jax.data import schema

_FEW = 1 << 15  # rows that are padded to powers of two


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
  """N users or items, in the order in which they are asked about.

  Attributes:
    ids: int64 or str [N], distinct.
    row: int64 [N], their rows in the run; -1 for those that it does not know.
    entities: the columns of all N, of which those of new ones are read; None
      where nothing is known of new ones.
    history: csr_array float32 [N, M], 1 for rows of the other side in the run
      that they met; beyond training or not. None where nothing is known.
    changed: bool [N], rows of the run whose columns are read all the same, in
      place of the content that they had in training; None where there are none.
    forgotten: bool [N], rows of the run of which nothing but content counts, as
      of new ones; None where there are none.
  """

  ids: np.ndarray
  row: np.ndarray
  entities: schema.Entities | None = None
  history: scipy.sparse.csr_array | None = None
  changed: np.ndarray | None = None
  forgotten: np.ndarray | None = None

  def __len__(self) -> int:
    return len(self.ids)

  def select(self, part: slice | np.ndarray) -> 'Rows':
    """Some of them: a slice, or their places int [C]."""
    entities = self.entities
    if entities is not None:
      places = np.arange(len(self))[part]
      entities = column_types.select(entities, places)
    pick = lambda values: None if values is None else values[part]
    return Rows(
        self.ids[part],
        self.row[part],
        entities,
        pick(self.history),
        pick(self.changed),
        pick(self.forgotten),
    )

  def is_new(self) -> np.ndarray:
    """bool [N], whether the run does not know them."""
    return self.row < 0

  def is_read(self) -> np.ndarray:
    """bool [N], whether their content is that of their columns."""
    is_new = self.is_new()
    return is_new if self.changed is None else is_new | self.changed

  def preference_row(self) -> np.ndarray:
    """int64 [N], rows of the run whose preference counts; -1 for others."""
    if self.forgotten is None:
      return self.row
    return np.where(self.forgotten, -1, self.row)


def joined(
    one: scipy.sparse.csr_array, other: scipy.sparse.csr_array
) -> scipy.sparse.csr_array:
  """What either of two [N, M] stores, which share no entry: csr_array.

  A sum would lose weights of 0.
  """
  parts = [x.tocoo() for x in (one, other)]
  data, row, column = (
      np.concatenate([getattr(x, name) for x in parts])
      for name in ('data', 'row', 'col')
  )
  return scipy.sparse.csr_array((data, (row, column)), shape=one.shape)


def padded_size(count: int) -> int:
  """One of few sizes that holds so many rows, lest each number is compiled for.

  Powers of two; of many rows eighths between them, which waste less memory.
  """
  power = max(8, 1 << max(count - 1, 0).bit_length())
  step = power // 16 if power > _FEW else power
  return -(-count // step) * step if count else power
