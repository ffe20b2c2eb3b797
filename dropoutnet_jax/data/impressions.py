# SPDX-License-Identifier: Apache-2.0
"""Labelled rows along a split: what is trained on, what each set is tested on.

Likes are split elsewhere; here the rows with labels, those without a reaction
among them, follow. A row is tested on where its user and item are of the roles
of a set: new films shown to known users belong to 'cold_item'.
"""

import dataclasses

import numpy as np

from dropoutnet_jax.data import schema

_DRAW = 4  # second word of the seed; `splits` takes 0 to 3


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


def split(
    impressions: schema.Interactions, by: schema.Split, seed: int
) -> Labelled:
  """Splits labelled rows as the likes are split.

  Rows of held-out pairs go to their set. Rows without a reaction go where
  their user and item are cold; of those between training rows a share as large
  as that of the warm likes goes to each 'warm' set, drawn by the seed. Nothing
  that is tested on is trained on; rows of no set and without training pairs of
  both sides are left out.

  Args:
    impressions: all labelled rows.
    by: the split of the likes.
    seed: of the data.
  """
  users, items = by.train_rows()
  known = np.isin(impressions.user, users) & np.isin(impressions.item, items)
  pair = _pair(impressions)
  free = np.ones(len(impressions), bool)
  shown = (
      np.zeros(len(impressions), bool)
      if impressions.label is None
      else impressions.label == 0
  )
  taken = {
      name: np.isin(pair, _pair(held_out))
      for name, held_out in by.evaluation.items()
  }
  for mask in taken.values():
    free &= ~mask
  draw = np.random.default_rng([seed, _DRAW]).random(len(impressions))
  liked = max(int(np.sum(known & ~shown & free)), 1)
  begin = 0.0
  for name, held_out in by.evaluation.items():
    if name.startswith('warm'):
      share = len(held_out) / (liked + len(held_out))
      mine = known & (draw >= begin) & (draw < begin + share)
      begin += share
    else:
      mine = _of_roles(impressions, held_out, name, users, items)
    mine &= shown & free
    taken[name] |= mine
    free &= ~mine
  return Labelled(
      impressions.select(known & free),
      {name: impressions.select(mask) for name, mask in taken.items()},
  )


def _of_roles(
    rows: schema.Interactions,
    held_out: schema.EvaluationSet,
    name: str,
    users: np.ndarray,
    items: np.ndarray,
) -> np.ndarray:
  """Rows whose user and item are as cold as those of a set: bool [N]."""
  cold_user = name.startswith(('cold_user', 'cold_both'))
  cold_item = name.startswith(('cold_item', 'cold_both'))
  user = np.unique(held_out.user) if cold_user else users
  item = held_out.candidates if cold_item else items
  return np.isin(rows.user, user) & np.isin(rows.item, item)


def _pair(rows: schema.Interactions | schema.EvaluationSet) -> np.ndarray:
  """One number for each pair: int64 [N]."""
  return rows.user.astype(np.int64) << 32 | rows.item
