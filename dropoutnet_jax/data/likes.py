# SPDX-License-Identifier: Apache-2.0
"""Raw pairs in, interactions out: each pair once, in one order.

Knows arrays of row numbers only; what makes a row of a file a like is for
each reader to say.
"""

import numpy as np

from dropoutnet_jax.data import schema


def make_interactions(
    user: np.ndarray,
    item: np.ndarray,
    num_items: int,
    time: np.ndarray | None = None,
) -> tuple[schema.Interactions, int]:
  """Sorts pairs by user, then item, and keeps each once.

  The order of the file therefore changes nothing. A repeated pair keeps its
  earliest time: that is when the user came to like the item.

  Args:
    user: int [N], user rows.
    item: int [N], item rows.
    num_items: item rows are below this.
    time: int [N], seconds since 1970, or None.

  Returns:
    The interactions, and how many repeats were left out.
  """
  pair = user.astype(np.int64) * num_items + item
  if time is None:
    order = np.argsort(pair, kind='stable')
  else:
    order = np.lexsort((time, pair))
  ordered = pair[order]
  is_first = np.ones(len(pair), bool)
  is_first[1:] = ordered[1:] != ordered[:-1]
  order = order[is_first]
  interactions = schema.Interactions(
      user[order].astype(np.int32),
      item[order].astype(np.int32),
      time=None if time is None else time[order].astype(np.int64),
  )
  return interactions, len(pair) - len(order)


def describe_gaps(
    interactions: schema.Interactions, num_users: int, num_items: int
) -> list[str]:
  """Returns a sentence for users, and one for items, without any like."""
  notes = []
  for side, rows, number in (
      ('users', interactions.user, num_users),
      ('items', interactions.item, num_items),
  ):
    missing = number - np.count_nonzero(np.bincount(rows, minlength=number))
    if missing:
      notes.append(f'{missing} of {number} {side} have no like.')
  return notes


def describe_repeats(path: object, repeats: int) -> list[str]:
  """Returns a sentence on repeated pairs of a file, if there are any."""
  if not repeats:
    return []
  return [f'{path} repeats {repeats} pair(s); each counts once.']
