# SPDX-License-Identifier: Apache-2.0
"""Users and items of requests as rows that the run's model embeds.

What the run knows of an id, what the service was told since, and what the
request itself says come together here: content replaces that of the run,
histories add up.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse

from dropoutnet_jax.data import blocks
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import rows as rows_lib
from dropoutnet_jax.serving.service import asks
from dropoutnet_jax.serving.service import ids as ids_lib
from dropoutnet_jax.serving.service import json_columns
from dropoutnet_jax.serving.service import memory as memory_lib
from dropoutnet_jax.serving.service import refusals

Id = ids_lib.Id


class RowMaker:
  """Makes rows of users and items.

  Attributes:
    users: ids of the run's users.
    items: ids of the run's items.
    encoders: of content, by side.
    types: of the columns that they read, by side.
    memory: what was told since.
  """

  def __init__(self, ranker: recommender_lib.Ranker, memory: memory_lib.Memory):
    self.users = ids_lib.Ids('user', ranker.problem.user.ids)
    self.items = memory.items
    self.memory = memory
    self.encoders = ranker.encoders
    self.types: Mapping[str, json_columns.Types] = {
        side: encoder.columns for side, encoder in self.encoders.items()
    }
    self._item_ids = ranker.problem.item.ids.tolist()
    self._likes = ranker.likes

  def of_users(self, users: Sequence[asks.User]) -> rows_lib.Rows:
    """Rows of users; those without an id are nobody in particular."""
    histories = [self._history(user) for user in users]
    return self._rows(
        self.users,
        [user.id for user in users],
        [user.content for user in users],
        [[self.items.row.get(item, -1) for item in row] for row in histories],
        len(self._item_ids),
        np.array([user.is_forgotten for user in users], bool),
    )

  def of_items(self, items: Sequence[asks.Item]) -> rows_lib.Rows:
    """Rows of items: of the run, told of since, or new."""
    content, met_by = [], []
    for item in items:
      told = item.content
      if told is None and item.id is not None:
        told = self.memory.content.get(item.id)
      content.append(told)
      users = {} if item.id is None else self.memory.met_by.get(item.id, {})
      met_by.append(
          [self.users.row.get(user, -1) for user in memory_lib.liked(users)]
      )
    names = [item.id for item in items]
    return self._rows(self.items, names, content, met_by, len(self.users.row))

  def _rows(
      self,
      ids: ids_lib.Ids,
      names: Sequence[Id | None],
      content: Sequence[Mapping[str, Any] | None],
      met: Sequence[Sequence[int]],
      width: int,
      forgotten: np.ndarray | None = None,
  ) -> rows_lib.Rows:
    """Rows of one side; `met` has rows of the other, -1 is left out."""
    own = ids.array(
        [ids.nobody(n) if x is None else x for n, x in enumerate(names)]
    )
    row = np.array(
        [-1 if x is None else ids.row.get(x, -1) for x in names], np.int64
    )
    given = np.array([value is not None for value in content], bool)
    entities = None
    if given.any():
      entities = json_columns.to_entities(
          own, [value or {} for value in content], self.types[ids.side]
      )
    user = [n for n, row in enumerate(met) for x in row if x >= 0]
    item = [x for row in met for x in row if x >= 0]
    history = None
    if item:
      ones = np.ones(len(item), np.float32)
      history = blocks.pattern(
          scipy.sparse.csr_array(
              (ones, (user, item)), shape=(len(names), width)
          )
      )
    is_known = row >= 0
    if forgotten is not None:
      forgotten = forgotten & is_known if forgotten.any() else None
    changed = given & is_known if (given & is_known).any() else None
    return rows_lib.Rows(own, row, entities, history, changed, forgotten)

  def check(self, side: str, rows: Sequence[Any]) -> None:
    """Raises Refusal for items that neither run nor requests told of."""
    for place, row in enumerate(rows):
      if side == 'item' and row.content is None:
        self.check_item(row.id, f'items[{place}].id')
      for number, item in enumerate(row.history if side == 'user' else ()):
        self.check_item(item, f'users[{place}].history[{number}]')

  def check_item(self, item: Id, where: str = '') -> None:
    """As `check`, for one item."""
    if item not in self.items.row and item not in self.memory.content:
      raise refusals.Refusal(
          f'Item {item!r} is not known: it is not in the run and was not sent '
          'to POST /items.',
          status=404,
          code='unknown_item',
          where=where,
      )

  def _history(self, user: asks.User) -> list[Id]:
    """Liked items beyond training: those told before, and of the request."""
    told: Mapping[Id, float] = {}
    if user.id is not None and not user.is_forgotten:
      told = self.memory.met.get(user.id, {})
    return list(dict.fromkeys([*memory_lib.liked(told), *user.history]))

  def seen(self, user: asks.User) -> list[Id]:
    """All that a user is known to have met, in training and since."""
    found: list[Id] = []
    if user.id is not None:
      found += self.trained_items(user.id)
      found += self.memory.met.get(user.id, {})
    return [*found, *user.history]

  def trained_items(self, user: Id) -> list[Id]:
    """The items that a user met in training, in the order of the run."""
    row = self.users.row.get(user)
    if row is None:
      return []
    start, stop = self._likes.indptr[row : row + 2]
    columns = np.sort(self._likes.indices[start:stop])
    return [self._item_ids[n] for n in columns.tolist()]

  def is_known(self, user: Id | None) -> bool:
    """Whether the run or an interaction told of a user."""
    return user in self.users.row or user in self.memory.met
