# SPDX-License-Identifier: Apache-2.0
"""Labelled rows along a split: what is trained on, what each set is tested on.

Likes are split elsewhere; here the rows with labels, those without a reaction
among them, follow. A row is tested on where its user and item are of the roles
of a set: new films shown to known users belong to 'cold_item'.

Users and items that never had a reaction are in no split of likes, and have a
role here all the same. Without them the rate of reactions would be too high,
and a count that is 0 without a row would say that the row is a like.
"""

import dataclasses

import numpy as np

from dropoutnet_jax.data import schema

_DRAW, _NEVER = 4, 5  # second word of the seed; `splits` takes 0 to 3


@dataclasses.dataclass(frozen=True)
class Labelled:
  """Rows with labels, by use.

  Attributes:
    train: rows of training users with training items.
    evaluation: by name of the evaluation set, with both labels.
  """

  train: schema.Interactions
  evaluation: dict[str, schema.Interactions] = dataclasses.field(
      default_factory=dict
  )

  def describe(self, total: int) -> str:
    """A sentence on what the `total` rows are used for."""
    likes = len(self.train)
    if self.train.label is not None:
      likes = int(np.sum(self.train.label > 0))
    held = sum(map(len, self.evaluation.values()))
    return (
        f'Labelled rows: {len(self.train):,} are trained on, {likes:,} of them '
        f'with a reaction; {held:,} are held out, and '
        f'{total - held - len(self.train):,} are in no set.'
    )


def split(
    impressions: schema.Interactions,
    by: schema.Split,
    seed: int,
    by_time: bool = False,
) -> Labelled:
  """Splits labelled rows as the likes are split.

  Rows of held-out pairs go to their set. Rows without a reaction go where
  their user and item are cold; of those between training rows a share as large
  as that of the warm likes goes to each 'warm' set, drawn by the seed, or by
  time those that are as late as its likes. No pair that is tested on is trained
  on, however often it was shown; rows of no set and without training pairs of
  both sides are left out, and by time those of a cold user or item from before.

  Users who never reacted are cold in the share of the others (items without
  likes are so already), or by time in the period of a row that is drawn; the
  rest of both is trained on with all its rows, as is the only like of a row.

  Args:
    impressions: all labelled rows.
    by: the split of the likes.
    seed: of the data.
    by_time: whether the likes were split by time.
  """
  period = _periods(impressions, by) if by_time else None
  users, items = (
      roles_of(impressions, by, side, seed, period) for side in ('user', 'item')
  )
  known = users.of_training(impressions) & items.of_training(impressions)
  drawable = np.isin(impressions.user, by.train.user)
  drawable &= np.isin(impressions.item, by.train.item)
  pair = schema.pair_numbers(impressions)
  shown = np.zeros(len(impressions), bool)
  if impressions.label is not None:
    shown = impressions.label == 0
  held = {
      name: np.isin(pair, schema.pair_numbers(held_out))
      for name, held_out in by.evaluation.items()
  }
  free = ~np.any([np.zeros_like(shown), *held.values()], axis=0)
  if period is not None:
    allowed = {name: period == _period_of(name) for name in held}
    trainable = ~shown | (period == 0)
  else:
    liked = int(np.sum(drawable & ~shown & free))
    allowed = _draw(pair, by, liked, np.random.default_rng([seed, _DRAW]))
    # Whatever a held-out pair was shown besides goes with it.
    allowed = {name: mask | held[name] for name, mask in allowed.items()}
    trainable = np.ones_like(shown)
  trained = np.isin(pair, schema.pair_numbers(by.train))
  taken = {}
  for name in by.evaluation:
    mine = shown & free & allowed[name]
    if name.startswith('warm'):
      mine &= (known if by_time else drawable) & ~trained
    else:
      mine &= users.of(name, impressions) & items.of(name, impressions)
    free &= ~mine
    taken[name] = held[name] & (~shown | allowed[name]) | mine
  tested = np.any([np.zeros_like(shown), *taken.values()], axis=0)
  trainable &= trained | ~np.isin(pair, pair[tested])
  return Labelled(
      impressions.select(known & free & trainable),
      {name: impressions.select(mask) for name, mask in taken.items()},
  )


def of_training(
    rows: schema.Interactions, train: schema.Interactions
) -> np.ndarray:
  """Which rows are trained on: bool [N].

  Args:
    rows: all of the source, those of one pair on one side of a split, or those
      up to one time.
    train: what the split made of them, merged or not.
  """
  mask = np.isin(schema.pair_numbers(rows), schema.pair_numbers(train))
  if rows.time is not None and train.time is not None:
    mask &= rows.time <= train.time.max(initial=np.iinfo(np.int64).min)
  return mask


def _draw(
    pair: np.ndarray, by: schema.Split, liked: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
  """Rows that a set may have, [N] by name: of 'warm' ones a share, drawn.

  Args:
    pair: int64 [N]; the rows of one share a draw, that of the first of them.
    by: the split of the likes.
    liked: rows with a reaction that are trained on.
    rng: draws.
  """
  _, first, place = np.unique(pair, return_index=True, return_inverse=True)
  draw = rng.random(len(pair))[first[place]]
  allowed, begin = {}, 0.0
  for name, held_out in by.evaluation.items():
    allowed[name] = np.ones(len(pair), bool)
    if name.startswith('warm'):
      end = begin + len(held_out) / (max(liked, 1) + len(held_out))
      allowed[name], begin = (draw >= begin) & (draw < end), end
  return allowed


def _periods(rows: schema.Interactions, by: schema.Split) -> np.ndarray:
  """0 where a row is as early as training likes, 1 validation, 2 test: [N].

  The likes of a period are known by their pairs, and its rows without a
  reaction by the times of those.
  """
  if rows.time is None or by.train.time is None:
    raise ValueError('Rows without times were not split by time.')
  pair = schema.pair_numbers(rows)
  last = by.train.time.max(initial=np.iinfo(np.int64).min)
  held = [h for n, h in by.evaluation.items() if not n.endswith('_validation')]
  test = np.concatenate(
      [np.zeros(0, np.int64), *map(schema.pair_numbers, held)]
  )
  # A pair counts once, at its latest like; earlier rows of it, with a reaction
  # or without, may be of validation.
  liked = np.isin(pair, test) & (rows.time > last)
  if rows.label is not None:
    liked &= rows.label > 0
  _, place = np.unique(pair[liked], return_inverse=True)
  latest = np.full(place.max(initial=-1) + 1, last)
  np.maximum.at(latest, place, rows.time[liked])
  begin = latest.min(initial=np.iinfo(np.int64).max)
  return np.where(rows.time <= last, 0, np.where(rows.time < begin, 1, 2))


def _period_of(name: str) -> int:
  """The period of an evaluation set, as `_periods` numbers them."""
  return 1 if name.endswith('_validation') else 2


@dataclasses.dataclass(frozen=True)
class Roles:
  """Which users (or items) are trained on, and which are cold in which set.

  Attributes:
    side: 'user' or 'item'.
    training: rows, ascending.
    cold: rows by the name of the set, of those in which this side is cold.
  """

  side: str
  training: np.ndarray
  cold: dict[str, np.ndarray]

  def of_training(self, rows: schema.Interactions) -> np.ndarray:
    """bool [N], whose user (or item) is trained on."""
    return np.isin(getattr(rows, self.side), self.training)

  def of(self, name: str, rows: schema.Interactions) -> np.ndarray:
    """bool [N], whose user (or item) is of the role that a set wants."""
    wanted = self.cold.get(name, self.training)
    return np.isin(getattr(rows, self.side), wanted)


def roles_of(
    rows: schema.Interactions,
    by: schema.Split,
    side: str,
    seed: int,
    period: np.ndarray | None,
) -> Roles:
  """Roles of one side, those that never had a reaction among them.

  Args:
    rows: all labelled ones.
    by: the split of the likes.
    side: 'user' or 'item'.
    seed: of the data.
    period: of each row (`_periods`); None for a split by chance.
  """
  row = getattr(rows, side)
  training = np.unique(getattr(by.train, side))
  cold = {
      name: held_out.candidates if side == 'item' else np.unique(held_out.user)
      for name, held_out in by.evaluation.items()
      if name.startswith((f'cold_{side}', 'cold_both'))
  }
  liking = row if rows.label is None else row[rows.label > 0]
  never = np.setdiff1d(row, np.concatenate([liking, *cold.values()]))
  of_period = {
      number: np.unique(
          np.concatenate(
              [never[:0]]
              + [x for name, x in cold.items() if _period_of(name) == number]
          )
      )
      for number in (1, 2)
  }
  if period is not None:
    # Others are of the period of their first like, which may be any row.
    order = np.random.default_rng([seed, _NEVER]).permutation(len(row))
    some = np.zeros(row.max(initial=0) + 1, int)
    some[row[order]] = order
    role = period[some[never]]
  elif side == 'item':  # the split of the likes has drawn a share of these
    role = np.zeros(len(never), int)
  else:
    total = max(len(np.unique(liking)), 1)
    ends = np.cumsum([len(of_period[number]) / total for number in (2, 1)])
    draw = np.random.default_rng([seed, _NEVER]).random(len(never))
    role = np.select([draw < ends[0], draw < ends[1]], [2, 1], 0)
  return Roles(
      side,
      np.union1d(training, never[role == 0]),
      {
          name: np.union1d(mine, never[role == _period_of(name)])
          for name, mine in cold.items()
      },
  )
