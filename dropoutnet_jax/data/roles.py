# SPDX-License-Identifier: Apache-2.0
"""The roles of rows and pairs in a split: how they are drawn and read.

Every row of a table and every pair gets one role: training, test, validation
or absent. The roles settle everything else: a held-out pair of a training user
and a test item is of 'cold_item', of a test user and a test item of
'cold_both', and so on. A held-out pair whose rows fit no quadrant is in no set:
a test user with a validation item, or a row left without any training pair.

Every draw takes the words of its own seed. This module does not know which
split is asked for or where a share comes from: `splits.py` does.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from dropoutnet_jax import errors
from dropoutnet_jax.data import schema

TRAIN, TEST, VALIDATION, ABSENT = range(4)


@dataclasses.dataclass(frozen=True)
class Roles:
  """A role for each user [U], item [I] and pair [N], int8."""

  user: np.ndarray
  item: np.ndarray
  pair: np.ndarray


def draw_rows(
    rows: np.ndarray,
    num_rows: int,
    share: float,
    periods: Sequence[int],
    seed: Sequence[int],
    field: str,
) -> np.ndarray:
  """Gives a share of the rows that have pairs to each of the periods.

  Args:
    rows: int [N], the row of each pair.
    num_rows: of the table.
    share: of the rows with pairs, rounded to whole rows; 0 draws none.
    periods: roles to hand out, the first draw first.
    seed: words of the seed.
    field: of the config, with what it is a share of, for the message.

  Returns:
    int8 [num_rows]: a period, TRAIN, or ABSENT for rows without pairs.

  Raises:
    UserError: a positive share draws no row, or leaves none.
  """
  with_pairs = np.unique(rows)
  role = np.full(num_rows, ABSENT, np.int8)
  role[with_pairs] = TRAIN
  count = round(share * with_pairs.size)
  needed = 1 + len(periods)
  if share > 0 and with_pairs.size < needed:
    raise errors.UserError(
        f'config.data.{field} of {with_pairs.size:,} is {share}, but with '
        f'fewer than {needed} no share can be held out. Set it to 0, or bring '
        'more data.'
    )
  if share > 0 and (not count or count * len(periods) >= with_pairs.size):
    times = ' for each of test and validation' if len(periods) > 1 else ''
    raise errors.UserError(
        f'config.data.{field} of {with_pairs.size:,} is {share}: this holds '
        f'out {count:,}{times}, but some must be held out and some must stay. '
        f'{"Lower" if count else "Raise"} it, or set it to 0.'
    )
  order = np.random.default_rng(seed).permutation(with_pairs)
  for number, period in enumerate(periods):
    role[order[number * count : (number + 1) * count]] = period
  return role


def make_roles(
    pairs: schema.Interactions, user: np.ndarray, item: np.ndarray
) -> Roles:
  """Adds the roles of the pairs to those of the users and items.

  A pair is held out with its rows; for test if either row is. Training rows
  that lose all their pairs by this become ABSENT.

  Args:
    pairs: all pairs, N.
    user: int8 [U].
    item: int8 [I].

  Raises:
    UserError: no training pair is left.
  """
  pair = of_pairs(user[pairs.user], item[pairs.item])
  trained = pairs.select(pair == TRAIN)
  check_trained(len(trained), len(pairs))
  return Roles(without(user, trained.user), without(item, trained.item), pair)


def of_pairs(user: np.ndarray, item: np.ndarray) -> np.ndarray:
  """Roles of pairs by those of their users and items, int8 [N] each."""
  return first_role(
      ((user == TEST) | (item == TEST), TEST),
      ((user == VALIDATION) | (item == VALIDATION), VALIDATION),
  )


def check_trained(trained: int, total: int) -> None:
  """Raises UserError if no training pair is left of so many."""
  if not trained:
    raise errors.UserError(
        f'No training pair is left of {total:,}: every one has a cold '
        'user or a cold item. Lower config.data.cold_item_share, '
        'cold_user_share or validation_share.'
    )


def without(role: np.ndarray, trained: np.ndarray) -> np.ndarray:
  """Roles where training rows that are not of `trained`, int, are ABSENT."""
  lost = role == TRAIN
  lost[trained] = False
  return np.where(lost, np.int8(ABSENT), role)


def draw_pairs(
    pairs: schema.Interactions, pair: np.ndarray, share: float, seed: list[int]
) -> np.ndarray:
  """Turns a share of the training pairs to test and as many to validation.

  Every user and item that has training pairs keeps at least one, so rows with
  few pairs give fewer.

  Args:
    pairs: all pairs, N.
    pair: int8 [N], roles so far.
    share: of the training pairs, rounded; `data.warm_share`.
    seed: words of the seed.

  Returns:
    int8 [N].

  Raises:
    UserError: a positive share draws no pair, or more than can leave.
  """
  if share == 0:
    return pair
  order = np.random.default_rng(seed).permutation(np.flatnonzero(pair == TRAIN))
  count = round(share * order.size)
  if not count:
    raise errors.UserError(
        f'config.data.warm_share is {share}: this holds out none of '
        f'{order.size:,} pairs between warm rows. Raise it, or set it to 0.'
    )
  spare = order[~_keepers(pairs.user[order], pairs.item[order])]
  if spare.size < 2 * count:
    most = np.floor(500 * spare.size / order.size) / 1000
    raise errors.UserError(
        f'config.data.warm_share is {share}: this holds out {count:,} for '
        f'each of test and validation of {order.size:,} pairs between warm '
        f'rows, but only {spare.size:,} can leave so that every user and item '
        f'keeps a training pair. Lower it to {most:g}.'
    )
  pair = pair.copy()
  pair[spare[:count]] = TEST
  pair[spare[count : 2 * count]] = VALIDATION
  return pair


def draw_pairs_of_each_user(
    pairs: schema.Interactions, pair: np.ndarray, share: float, seed: list[int]
) -> np.ndarray:
  """Turns a share of every user's training pairs to validation.

  As `draw_pairs`, but the share is of each user's pairs, rounded, and one
  period is drawn; `data.validation_share`.
  """
  if share == 0:
    return pair
  order = np.random.default_rng(seed).permutation(np.flatnonzero(pair == TRAIN))
  quota = np.rint(share * np.bincount(pairs.user[order])).astype(np.int64)
  spare = order[~_keepers(pairs.user[order], pairs.item[order])]
  spare = spare[np.argsort(pairs.user[spare], kind='stable')]
  user = pairs.user[spare]
  rank = np.arange(user.size) - np.searchsorted(user, user)
  chosen = spare[rank < quota[user]]
  if not chosen.size:
    raise errors.UserError(
        f'config.data.validation_share is {share}: this holds out none of '
        f'{order.size:,} training pairs, because every user and item keeps '
        'one. Raise it, or set it to 0.'
    )
  pair = pair.copy()
  pair[chosen] = VALIDATION
  return pair


def _keepers(user: np.ndarray, item: np.ndarray) -> np.ndarray:
  """Bool [N]: each user's first pair, and the first of items not in those."""
  keep = np.zeros(user.size, bool)
  keep[np.unique(user, return_index=True)[1]] = True
  items, first = np.unique(item, return_index=True)
  keep[first[~np.isin(items, item[keep])]] = True
  return keep


def first_role(*cases: tuple[np.ndarray, int]) -> np.ndarray:
  """int8 [N]: the role of the first true mask [N], TRAIN where none is."""
  masks, roles = zip(*cases)
  return np.select(masks, roles, TRAIN).astype(np.int8)


def first_period(
    rows: np.ndarray, pair: np.ndarray, num_rows: int
) -> np.ndarray:
  """int8 [num_rows]: the period of each row's first pair, ABSENT if none.

  Args:
    rows: int [N], the row of each pair.
    pair: int8 [N], its period: TRAIN, then VALIDATION, then TEST.
    num_rows: of the table.
  """
  role = np.full(num_rows, ABSENT, np.int8)
  for period in (TEST, VALIDATION, TRAIN):  # earlier periods overwrite
    role[rows[pair == period]] = period
  return role


def select_quadrant(
    pairs: schema.Interactions, roles: Roles, period: int, quadrant: str
) -> schema.EvaluationSet:
  """The period's pairs of one quadrant; it may be empty.

  A cold row has the period's role and a warm one TRAIN; the candidates are all
  items of the role that the quadrant's items have.
  """
  user_role = period if quadrant in ('cold_user', 'cold_both') else TRAIN
  item_role = period if quadrant in ('cold_item', 'cold_both') else TRAIN
  chosen = roles.pair == period
  chosen &= roles.user[pairs.user] == user_role
  chosen &= roles.item[pairs.item] == item_role
  candidates = np.flatnonzero(roles.item == item_role).astype(np.int32)
  return schema.EvaluationSet(
      pairs.user[chosen], pairs.item[chosen], candidates, quadrant == 'warm'
  )
