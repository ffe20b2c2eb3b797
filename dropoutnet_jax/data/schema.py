# SPDX-License-Identifier: Apache-2.0
"""What every reader returns and everything after it relies on.

Rows are numbered from 0 in the order of `Entities.ids`; pairs hold row
numbers, never ids. Nothing here reads a file or touches a device.
"""

from collections.abc import Callable
import dataclasses
from typing import TypeAlias

import numpy as np
import scipy.sparse

QUADRANTS = ('warm', 'cold_item', 'cold_user', 'cold_both')


@dataclasses.dataclass(frozen=True)
class Tags:
  """Weighted tags or word counts of N rows.

  Attributes:
    matrix: csr_array float32 [N, T], weights or counts, no explicit zeros.
    names: str [T], or None where the source gives no names.
  """

  matrix: scipy.sparse.csr_array
  names: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Sequences:
  """Values of N rows in their order, repeated ones repeatedly.

  Attributes:
    values: object [E] of str, or int64 [E]; those of a row stand together.
    starts: int64 [N + 1], where each row starts, and E.
  """

  values: np.ndarray
  starts: np.ndarray

  def __len__(self) -> int:
    return len(self.starts) - 1

  def rows(self) -> np.ndarray:
    """The row of each value, int64 [E]."""
    return np.repeat(np.arange(len(self)), np.diff(self.starts))

  def take(self, rows: np.ndarray) -> 'Sequences':
    """Some rows, int [M], in the order that they are named."""
    length = np.diff(self.starts)[rows]
    starts = np.concatenate([[0], np.cumsum(length)])
    shift = np.repeat(self.starts[:-1][rows] - starts[:-1], length)
    return Sequences(self.values[np.arange(starts[-1]) + shift], starts)


# A column is Tags, Sequences, numbers (float32 [N] or [N, D], NaN where
# missing; whole ones may be categories) or strings (object [N] of str, None
# where missing: categories or texts).
Column: TypeAlias = Tags | Sequences | np.ndarray


def take(column: Column, rows: np.ndarray) -> Column:
  """Some rows of a column, int [C]."""
  if isinstance(column, Tags):
    return Tags(column.matrix[rows], column.names)
  if isinstance(column, Sequences):
    return column.take(rows)
  return column[rows]


@dataclasses.dataclass(frozen=True)
class Entities:
  """Users or items: ids [N] (int64 or str, distinct) and their columns.

  Features find the ids themselves under `id_name`, where no column has that
  name; '' is for readers that leave the name to others. `left_out` says of
  columns that the source has, but `columns` lacks, why; `advice` is a sentence
  on where columns are to be named, or ''.
  """

  ids: np.ndarray
  columns: dict[str, Column] = dataclasses.field(default_factory=dict)
  id_name: str = ''
  left_out: dict[str, str] = dataclasses.field(default_factory=dict)
  advice: str = ''

  def __len__(self) -> int:
    return len(self.ids)

  def with_id_name(self, name: str) -> 'Entities':
    """The same, with the ids under that name if they have none."""
    return self if self.id_name else dataclasses.replace(self, id_name=name)


@dataclasses.dataclass(frozen=True)
class Interactions:
  """Pairs as row numbers: likes, or what was shown.

  As likes (`Dataset.interactions`, `Split.train`) a pair occurs once and has no
  label. As labelled rows (`Dataset.impressions`) it may occur repeatedly, with
  another label, time or session each time.

  Attributes:
    user: int32 [N], rows of the users.
    item: int32 [N], rows of the items.
    weight: float32 [N] >= 0, or None where all are 1.
    time: int64 [N], seconds since 1970, or None where unknown.
    label: float32 [N] >= 0, 0 where the item was shown without a reaction; or
      None where all are 1.
    session: int64 [N] from 0, the same for what was shown together, or None.
  """

  user: np.ndarray
  item: np.ndarray
  weight: np.ndarray | None = None
  time: np.ndarray | None = None
  label: np.ndarray | None = None
  session: np.ndarray | None = None

  def __len__(self) -> int:
    return len(self.user)

  def select(self, rows: np.ndarray) -> 'Interactions':
    """The pairs at the given positions (or where a bool mask is true)."""
    pick = lambda column: None if column is None else column[rows]
    return Interactions(
        self.user[rows],
        self.item[rows],
        pick(self.weight),
        pick(self.time),
        pick(self.label),
        pick(self.session),
    )

  def matrix(self, num_users: int, num_items: int) -> scipy.sparse.csr_array:
    """float32 csr_array [U, I] with the weight (or 1) of each pair."""
    weight = self.weight
    if weight is None:
      weight = np.ones(len(self), np.float32)
    return scipy.sparse.csr_array(
        (weight, (self.user, self.item)), shape=(num_users, num_items)
    )


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
  """Held-out pairs of one quadrant and the items that are ranked for it.

  Attributes:
    user: int32 [N], user row of each held-out pair.
    item: int32 [N], item row of each held-out pair.
    candidates: int32 [I], the item rows that are ranked, ascending.
    exclude_train: whether a user's training items leave her candidates.
  """

  user: np.ndarray
  item: np.ndarray
  candidates: np.ndarray
  exclude_train: bool = False

  def __len__(self) -> int:
    return len(self.user)


def pair_numbers(rows: Interactions | EvaluationSet) -> np.ndarray:
  """One number for each pair, ordered by user and then item: int64 [N]."""
  return rows.user.astype(np.int64) << 32 | rows.item


def pairs_of(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Users and items int32 [N] of such numbers."""
  item = numbers & (2**32 - 1)
  return (numbers >> 32).astype(np.int32), item.astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Factors:
  """Preference factors of a teacher: float32 [U, P] and [I, P].

  Rows without a factor are zero and marked False in `*_present`.
  """

  user: np.ndarray
  item: np.ndarray
  user_present: np.ndarray
  item_present: np.ndarray


@dataclasses.dataclass(frozen=True)
class Origin:
  """Where the pairs of a published split are written, for messages.

  Attributes:
    files: their paths.
    offset: what is added to an id of the data set to get the id there.
  """

  files: tuple[str, ...]
  offset: int = 0


@dataclasses.dataclass(frozen=True)
class Samples:
  """Rows that describe their user and item themselves, each at its time.

  Attributes:
    rows: all of them, in the order of the source.
    describe: of bool [N], users and items with the columns of the latest of
      these rows that has them; of the latest of all rows where none of these
      has.
  """

  rows: Interactions
  describe: Callable[[np.ndarray], tuple[Entities, Entities]]


@dataclasses.dataclass(frozen=True)
class Dataset:
  """What a reader returns.

  Attributes:
    name: of the data set, as in `config.data.name`.
    users: user table.
    items: item table.
    interactions: all likes; where `held_out` is given, the training ones.
    held_out: published test sets by quadrant; empty where the source has none.
    factors: published teacher factors, or None.
    notes: what the reader counted or repaired, one sentence each.
    origin: of the pairs where `held_out` is given, if known.
    impressions: every labelled row of the source, likes among them, in the
      order of the source and without merging; None where there are only likes.
      `interactions` is what of it has a label above 0, each pair once. No split
      is applied: `impressions.split` says what may be trained on.
    samples: where users and items are described by the latest of many rows, as
      they may be by other rows too; else None.
  """

  name: str
  users: Entities
  items: Entities
  interactions: Interactions
  held_out: dict[str, EvaluationSet] = dataclasses.field(default_factory=dict)
  factors: Factors | None = None
  notes: tuple[str, ...] = ()
  origin: Origin | None = None
  impressions: Interactions | None = None
  samples: Samples | None = None


@dataclasses.dataclass(frozen=True)
class StreamedRows:
  """Counts of labelled training rows that stay in a file.

  Attributes:
    num_rows: of all.
    user_likes: int64 [U], rows of each user with a label above 0.
    item_likes: int64 [I], likewise.
    user_rows: int64 [U], rows of each user.
    item_rows: int64 [I], likewise.
    item_drawn: int64 [I], those of a weight above 0.
    labels: float64 [2], the least and the largest of those, and NaN where
      there are none.
    share: mean label, each row by its weight.
  """

  num_rows: int
  user_likes: np.ndarray
  item_likes: np.ndarray
  user_rows: np.ndarray
  item_rows: np.ndarray
  item_drawn: np.ndarray
  labels: np.ndarray
  share: float


@dataclasses.dataclass(frozen=True)
class Split:
  """Training pairs and the sets to evaluate on.

  Attributes:
    train: training pairs; no cold row occurs in them.
    evaluation: by name: a quadrant, or a quadrant + '_validation'.
    notes: what was held out and how, one sentence each, for the results.
    streamed: what is known of training pairs that are too many for memory;
      `train` is empty then. None where it holds them.
  """

  train: Interactions
  evaluation: dict[str, EvaluationSet]
  notes: tuple[str, ...] = ()
  streamed: StreamedRows | None = None

  def train_rows(self) -> tuple[np.ndarray, np.ndarray]:
    """User and item rows that occur in training, ascending."""
    if self.streamed is not None:
      of = self.streamed
      return np.flatnonzero(of.user_likes), np.flatnonzero(of.item_likes)
    return np.unique(self.train.user), np.unique(self.train.item)
