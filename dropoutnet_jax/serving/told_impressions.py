# SPDX-License-Identifier: Apache-2.0
"""Labelled pairs of a table as impressions of new items.

A label says that an item was shown, 0 that nothing came of it. Of whoever saw
it the run knows which items with training pairs the same table says she likes:
with the new ones a score would know its own click. A table without labels has
likes alone, which are no impressions.
"""

import jax
import numpy as np

from dropoutnet_jax.data import own_ids
from dropoutnet_jax.exploring import observed as observed_lib
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.serving import believer as believer_lib
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import request_tables
from dropoutnet_jax.serving import rows as rows_lib

_MOST = 1_000_000  # impressions, the last of the table
_SCORES = 1 << 24  # of users times items at a time
_USERS = 512  # likewise


def read(
    ranker: recommender_lib.Ranker,
    believer: believer_lib.Believer,
    pairs: request_tables.Pairs,
    items: rows_lib.Rows,
) -> observed_lib.Observed | None:
  """What a table says of new items.

  Args:
    ranker: the run.
    believer: of the run.
    pairs: the table.
    items: J candidates, whose towers know nothing of it.

  Returns:
    Impressions by ids of items; None where there are none.
  """
  if pairs.shown.label is None:
    return None
  place = own_ids.find(pairs.item, items.ids)[pairs.shown.item]
  is_new = ~ranker.is_trained(items)
  rows = np.flatnonzero((place >= 0) & is_new[place])[-_MOST:]
  if not len(rows):
    return None
  codes, user = np.unique(pairs.shown.user[rows], return_inverse=True)
  used, item = np.unique(place[rows], return_inverse=True)
  users = _users(ranker, pairs, codes)
  across = ranker.candidates(items.select(used))
  inputs = np.empty((len(users), believer.prior.width - 1))
  score = np.empty(len(rows), np.float32)
  step = int(np.clip(_SCORES // len(used), 1, _USERS))
  for begin in range(0, len(users), step):
    part = slice(begin, min(begin + step, len(users)))
    some = users.select(part)
    inputs[part] = believer.inputs(some)
    scores = np.asarray(_score(ranker.embed_users(some), across))
    mine = np.flatnonzero((user >= begin) & (user < part.stop))
    score[mine] = scores[user[mine] - begin, item[mine]]
  found = observed_lib.Observed(believer.prior, towers_are_told=False)
  names = items.ids[used].tolist()
  found.add(
      [names[n] for n in item.tolist()],
      inputs[user],
      score,
      pairs.shown.label[rows] > 0,
  )
  return found


def _users(
    ranker: recommender_lib.Ranker,
    pairs: request_tables.Pairs,
    codes: np.ndarray,
) -> rows_lib.Rows:
  """Those of some distinct ids of the table, int [C], and what they like."""
  row = own_ids.find(pairs.user, ranker.problem.user.ids)[codes]
  own = np.full(len(pairs.user.found.values), -1)
  own[codes] = np.arange(len(codes))
  known = ranker.items()
  item = own_ids.find(pairs.item, known.ids)
  item = np.where(ranker.is_trained(known)[item], item, -1)
  history = pairs.likes().met('user', own, item, (len(codes), len(known)))
  return rows_lib.Rows(codes, row, history=history)


_score = jax.jit(embeddings.score)
