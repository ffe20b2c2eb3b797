# SPDX-License-Identifier: Apache-2.0
"""Tokens and preference features by hand, for a problem that has none."""

import dataclasses

import numpy as np

from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import tokens as tokens_lib

# Of all poolings; the words of items and of users are one table.
ITEM = (
    tokens_lib.TokenFeature('maker', 'maker', 0, 1, 5, 3, 'sum', 0.5),
    tokens_lib.TokenFeature('words', 'word', 1, 4, 7, 2, 'attention', 0.7),
)
USER = (
    tokens_lib.TokenFeature('words', 'word', 0, 3, 7, 2, 'mean', 0.7),
    tokens_lib.TokenFeature('places', 'place', 3, 5, 4, 2, 'max', 0.7),
)
USER_PREFERENCE = (
    tokens_lib.TokenFeature('seen', 'maker', 0, 2, 5, 3, 'attention', 0.5),
)
MAKER = ITEM[:1]


def make(
    num_rows: int, features: tuple[tokens_lib.TokenFeature, ...], seed: int = 0
) -> tokens_lib.Tokens:
  """Random tokens, a third of them none, with weights of several sizes."""
  rng = np.random.default_rng(seed)
  width = features[-1].stop
  sizes = np.zeros(width, np.int32)
  for feature in features:
    sizes[feature.start : feature.stop] = feature.num_ids
  ids = rng.integers(1, sizes, (num_rows, width)).astype(np.int32)
  ids *= rng.random(ids.shape) < 2 / 3
  weight = np.where(ids > 0, rng.uniform(0.5, 2.0, ids.shape), 0.0)
  return tokens_lib.Tokens(ids, weight.astype(np.float32), features)


def with_tokens(
    problem: problem_lib.Problem,
    user_content: tuple[tokens_lib.TokenFeature, ...] = (),
    item_content: tuple[tokens_lib.TokenFeature, ...] = MAKER,
) -> problem_lib.Problem:
  """The problem with learnt content, and with features of users' preference.

  No more than one table by default: each is compiled forwards and backwards.
  """
  users, items = len(problem.user.ids), len(problem.item.ids)
  rng = np.random.default_rng(3)
  known = rng.random(users) < 0.8
  preference = make(users, USER_PREFERENCE, 2)
  dense = rng.normal(size=(users, 2)) * known[:, None]
  user = dataclasses.replace(
      problem.user,
      tokens=(
          make(users, user_content, 1)
          if user_content
          else tokens_lib.no_tokens(users)
      ),
      preference_dense=dense.astype(np.float32),
      preference_tokens=dataclasses.replace(
          preference,
          id=preference.id * known[:, None],
          weight=preference.weight * known[:, None],
      ),
      preference_known=known,
  )
  item = dataclasses.replace(problem.item, tokens=make(items, item_content))
  return dataclasses.replace(problem, user=user, item=item)
