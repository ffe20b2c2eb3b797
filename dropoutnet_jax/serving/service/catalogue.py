# SPDX-License-Identifier: Apache-2.0
"""The items that can be recommended, in two indexes: known ones and new ones.

An item is known if it has training pairs, and stays so: its content may change,
what the model learnt of it does not. So a request for new items alone searches
nothing else, and one for all joins two short lists.
"""

from collections.abc import Callable, Sequence

import numpy as np

from dropoutnet_jax.serving.index import protocol
from dropoutnet_jax.serving.service import ids as ids_lib

Id = ids_lib.Id
PARTS = ('known', 'new')
# Makes an index of items from their ids and embeddings.
Build = Callable[[np.ndarray, protocol.Embedded], protocol.Index]


class Catalogue:
  """Items by their ids: search, put, delete.

  Attributes:
    parts: the index of known items, and that of new ones.
  """

  def __init__(
      self,
      items: ids_lib.Ids,
      is_trained: np.ndarray,
      parts: dict[str, protocol.Index],
  ):
    """Takes the indexes of the run's items.

    Args:
      items: ids of the run.
      is_trained: bool [I], whether they have training pairs.
      parts: indexes by name, of `PARTS`.
    """
    self._items, self._is_trained = items, is_trained
    self.parts = parts

  def __len__(self) -> int:
    return sum(map(len, self.parts.values()))

  def part_of(self, item: Id) -> str:
    """'known' or 'new'."""
    row = self._items.row.get(item)
    return 'known' if row is not None and self._is_trained[row] else 'new'

  def split(self, names: Sequence[Id]) -> dict[str, list[Id]]:
    """The items of each part that has any of them."""
    found: dict[str, list[Id]] = {}
    for name in names:
      found.setdefault(self.part_of(name), []).append(name)
    return found

  def upsert(
      self, part: str, names: Sequence[Id], embedding: protocol.Embedded
  ) -> None:
    """Adds items of one part, or changes them."""
    self.parts[part].upsert(names, embedding)

  def delete(self, names: Sequence[Id]) -> None:
    """Removes items; unknown ones are skipped."""
    for part, some in self.split(names).items():
      self.parts[part].delete(some)

  def search(
      self,
      users: protocol.Embedded,
      k: int,
      candidates: str = 'all',
      exclude: Sequence[Sequence[Id]] | None = None,
  ) -> list[list[tuple[Id, float]]]:
    """The best k items of each user, best first, fewer where there are fewer.

    Args:
      users: embeddings of N users.
      k: items of each.
      candidates: 'all', 'new' or 'known'.
      exclude: of each user, ids that she must not get.
    """
    names = PARTS if candidates == 'all' else (candidates,)
    found = [
        self.parts[name].search(users, k, exclude=exclude).lists()
        for name in names
        if len(self.parts[name])
    ]
    if not found:
      return [[] for _ in range(len(users.dense))]
    if len(found) == 1:
      return found[0]
    best = lambda pair: -pair[1]
    return [sorted(a + b, key=best)[:k] for a, b in zip(*found, strict=True)]
