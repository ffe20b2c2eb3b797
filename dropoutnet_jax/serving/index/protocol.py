# SPDX-License-Identifier: Apache-2.0
"""What every index of items can do, and what a search gives.

An index holds items by their ids and the embeddings they had when they were
put in; it knows no model. The score of a user and an item is that of
`model.embeddings`: dense dot plus sparse dot.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

Id = int | str


class Embedded(Protocol):
  """Embeddings of N rows, on the device or on the host; there are several."""

  @property
  def dense(self) -> Any:
    """float32 [N, R], an array of JAX or NumPy."""

  @property
  def sparse(self) -> Any:
    """[N, T], `embeddings.SparseRows` or csr_array; or None."""


class Found(NamedTuple):
  """The best items of N users.

  Attributes:
    ids: object [N, k], Python ints or strings, best first; None fills up where
      a user has fewer than k items to choose from.
    scores: float32 [N, k], descending; -inf where it is filled up.
  """

  ids: np.ndarray
  scores: np.ndarray

  def lists(self) -> list[list[tuple[Id, float]]]:
    """The (id, score) of each user without what fills up."""
    return [
        [(name, score) for name, score in zip(*row) if name is not None]
        for row in zip(self.ids.tolist(), self.scores.tolist())
    ]


class Index(Protocol):
  """Items that can be searched and changed; safe to use from many threads.

  A search sees all changes that had returned when it began, and none by half.
  Equal scores are in the order in which items came in; an item that is changed
  comes in anew.

  Attributes:
    kind: 'exact', 'flat', 'ivf' or 'hnsw'.
  """

  kind: str

  @property
  def ids(self) -> np.ndarray:
    """int64 or str [J], the items in their order."""

  def __len__(self) -> int:
    """J, the number of items."""

  def __contains__(self, name: Id) -> bool:
    """Whether an item is there."""

  def upsert(self, ids: Sequence[Id] | np.ndarray, embedding: Embedded) -> None:
    """Adds items [M], or changes those that are there; the next search sees it.

    Args:
      ids: M, distinct, of the kind (whole numbers or strings) of the index.
      embedding: of the items, of the widths of the index.

    Raises:
      UserError: if ids are repeated or of another kind, or the embedding has
        another width or number of rows, or a value that is not finite.
    """

  def delete(self, ids: Sequence[Id] | np.ndarray) -> int:
    """Removes items; returns how many there were, unknown ids are skipped."""

  def search(
      self,
      users: Embedded,
      k: int,
      *,
      exclude: Sequence[Sequence[Id]] | None = None,
      allow: Sequence[Id] | np.ndarray | None = None,
  ) -> Found:
    """The best k items of each user.

    Args:
      users: embeddings of N users, of the widths of the index.
      k: items per user; may exceed their number.
      exclude: N lists of ids that the user at that place must not get; unknown
        ids are harmless.
      allow: only these ids may be found, by all users; unknown ids are
        harmless. None: all.

    Raises:
      UserError: if k is below 1, lists are not one per user, the embedding has
        other widths, or a value that is not finite.
    """

  def save(self, folder: str) -> None:
    """Writes all of it into a folder; `factory.load` reads it.

    Raises:
      UserError: if the folder cannot be written.
    """
