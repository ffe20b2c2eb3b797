# SPDX-License-Identifier: Apache-2.0
"""What the service was told, as requests look it up: the state file in memory.

Items by id: those that were added or changed, with their content, and those
that are gone. Interactions from both ends. Knows no model.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from dropoutnet_jax.serving.service import ids as ids_lib
from dropoutnet_jax.serving.service import state_file

Id = ids_lib.Id


class Memory:
  """All that was told beside the run.

  Attributes:
    items: of the run.
    content: of items that were added or changed since, by id.
    deleted: items that are gone.
    met: by user, the items that she met and their labels, in that order.
    met_by: by item, the users who met it and their labels.
    interactions: how many pairs were told of.
  """

  def __init__(self, items: ids_lib.Ids):
    self.items = items
    self.content: dict[Id, Mapping[str, Any]] = {}
    self.deleted: set[Id] = set()
    self.met: dict[Id, dict[Id, float]] = {}
    self.met_by: dict[Id, dict[Id, float]] = {}
    self.interactions = 0

  def has_item(self, item: Id) -> bool:
    """Whether an item can be recommended."""
    known = item in self.content or item in self.items.row
    return known and item not in self.deleted

  def put_items(self, content: Mapping[Id, Mapping[str, Any]]) -> None:
    """Items that came or changed; a deleted one is back."""
    self.content.update(content)
    self.deleted.difference_update(content)

  def delete_items(self, ids: Iterable[Id]) -> None:
    """Items that are gone; what they were is forgotten."""
    for name in ids:
      self.content.pop(name, None)
      self.deleted.add(name)

  def put_interactions(self, rows: Iterable[state_file.Interaction]) -> None:
    """Pairs; of one that is there the new label counts."""
    for row in rows:
      of_user = self.met.setdefault(row.user, {})
      self.interactions += row.item not in of_user
      of_user[row.item] = row.label
      self.met_by.setdefault(row.item, {})[row.user] = row.label


def liked(met: Mapping[Id, float]) -> list[Id]:
  """Those that were met with a label above 0."""
  return [name for name, label in met.items() if label > 0]
