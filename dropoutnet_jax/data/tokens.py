# SPDX-License-Identifier: Apache-2.0
"""Tokens: what learnt embeddings are looked up for, as ids per row.

A feature with an embedding fills some columns of a table of ids: one of a
category, as many as the longest of a sequence. Id 0 is reserved: unknown,
missing and padding alike; it has weight 0, so that it adds nothing and learns
nothing. Features that name the same embedding table share one numbering of
ids.
"""

import dataclasses
from typing import Any

import flax.struct
import numpy as np

# Tables with more rows have a multiple of it, which any usual number of devices
# divides; others are small enough for each of them.
EVEN_ROWS = 128


@dataclasses.dataclass(frozen=True)
class TokenFeature:
  """What is fixed about the tokens of one feature; hashable.

  Attributes:
    name: of the feature, for parameters and explanations.
    table: name of the embedding table.
    start: first of its columns of ids.
    stop: behind its last one.
    num_ids: ids are in [0, num_ids).
    width: of an embedding.
    pooling: 'sum', 'mean', 'max' or 'attention'; over one column all are alike
      but for weights.
    std: of the first values of the table.
  """

  name: str
  table: str
  start: int
  stop: int
  num_ids: int
  width: int
  pooling: str
  std: float

  @property
  def num_rows(self) -> int:
    """Rows of the table: of the ids, and a few behind them that none has."""
    spare = -self.num_ids % EVEN_ROWS if self.num_ids > EVEN_ROWS else 0
    return self.num_ids + spare


@flax.struct.dataclass
class Tokens:
  """Tokens of N rows.

  Attributes:
    id: int32 [N, W].
    weight: float32 [N, W] >= 0, 0 exactly where the id is 0.
    features: what the columns are, in order, without gaps.
  """

  id: Any
  weight: Any
  features: tuple[TokenFeature, ...] = flax.struct.field(
      pytree_node=False, default=()
  )

  def __len__(self) -> int:
    return len(self.id)

  def __getitem__(self, rows: Any) -> 'Tokens':
    """The tokens of some rows."""
    return dataclasses.replace(self, id=self.id[rows], weight=self.weight[rows])

  @property
  def width(self) -> int:
    """Numbers that the embeddings of a row are, all features together."""
    return sum(feature.width for feature in self.features)


def no_tokens(num_rows: int) -> Tokens:
  """Tokens of rows that have none, [N, 0]."""
  return Tokens(
      np.zeros((num_rows, 0), np.int32), np.zeros((num_rows, 0), np.float32)
  )
