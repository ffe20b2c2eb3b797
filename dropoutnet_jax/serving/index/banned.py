# SPDX-License-Identifier: Apache-2.0
"""Items that a user must not get."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Banned:
  """Pairs that must not be found, by ascending row.

  Attributes:
    row: int64 [P], of items.
    user: int64 [P].
  """

  row: np.ndarray
  user: np.ndarray

  def of_users(self, begin: int, end: int) -> 'Banned':
    """The pairs of users [begin, end), who count from 0 then."""
    mine = (self.user >= begin) & (self.user < end)
    return Banned(self.row[mine], self.user[mine] - begin)

  def of(self, users: np.ndarray) -> 'Banned':
    """The pairs of ascending users [C], who count from 0 then."""
    place = np.searchsorted(users, self.user)
    there = users[np.minimum(place, len(users) - 1)] == self.user
    return Banned(self.row[there], place[there])

  def count(self, num_users: int, allowed: np.ndarray | None) -> np.ndarray:
    """How many of the allowed rows, bool [J], each user must not get."""
    pairs = np.unique(np.stack([self.user, self.row]), axis=1)
    if allowed is not None:
      pairs = pairs[:, allowed[pairs[1]]]
    return np.bincount(pairs[0], minlength=num_users)

  def of_rows(self, begin: int, end: int) -> 'Banned':
    """The pairs of items [begin, end), which count from 0 then."""
    part = slice(*np.searchsorted(self.row, [begin, end]))
    return Banned(self.row[part] - begin, self.user[part])

  def among(self, rows: np.ndarray) -> 'Banned':
    """The pairs of ascending rows [C], which count from 0 then."""
    place = np.searchsorted(rows, self.row)
    there = (
        rows[np.minimum(place, len(rows) - 1)] == self.row
        if len(rows)
        else np.zeros(len(place), bool)
    )
    return Banned(place[there], self.user[there])

  def most(self) -> int:
    """The largest number of pairs of a user."""
    return int(np.bincount(self.user).max(initial=0))

  def holds(self, rows: np.ndarray, num_rows: int) -> np.ndarray:
    """bool [N, C], whether rows [N, C] of users are among the pairs."""
    pair = self.user * num_rows + self.row
    asked = np.arange(len(rows))[:, None] * num_rows + rows
    return np.isin(asked, pair) & (rows >= 0)


def make_banned(row: np.ndarray, user: np.ndarray) -> Banned:
  """Pairs in any order."""
  order = np.argsort(row, kind='stable')
  return Banned(row[order], user[order])
