# SPDX-License-Identifier: Apache-2.0
"""What the page shows beyond lists: audiences, and users who warm up.

For the model's thread, like engine.py, which it asks for lists. An audience is
a search the other way round: scores are symmetric, so that an index of users
answers who wants an item.
"""

import bisect
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from dropoutnet_jax.serving.index import protocol
from dropoutnet_jax.serving.service import asks
from dropoutnet_jax.serving.service import catalogue as catalogue_lib
from dropoutnet_jax.serving.service import embedded
from dropoutnet_jax.serving.service import engine as engine_lib
from dropoutnet_jax.serving.service import forms
from dropoutnet_jax.serving.service import ids as ids_lib
from dropoutnet_jax.serving.service import refusals

Id = ids_lib.Id
_PART = 2048  # users embedded at a time
_MOST_USERS = 50_000  # of the run, that audiences are looked for among
_SAMPLE = 200  # users whose lists say where an item lands
_DEPTHS = (10, 100)  # of these lists
_SHOWN = 20  # users of a search by the beginning of their ids
_OFFERED = 40  # users and items that are offered unasked
_ENOUGH = 5  # interactions of those users


class Audience(NamedTuple):
  """Who would want an item of this content: the first k of them."""

  content: asks.Content
  k: int


class WarmUp(NamedTuple):
  """The list of a user of whom nothing is known but so many interactions."""

  user: Id
  revealed: int
  k: int


class Stories:
  """Answers of the page's own paths."""

  def __init__(self, engine: engine_lib.Engine, build: catalogue_lib.Build):
    """Prepares what is quick; users are embedded when they are asked for."""
    self._engine, self._build = engine, build
    self._users: protocol.Index | None = None
    self._user_ids: list[Id] = engine.ranker.problem.user.ids.tolist()
    self._item_ids: list[Id] = engine.ranker.problem.item.ids.tolist()
    self._pairs = _all_pairs(engine)
    self._is_trained = np.diff(engine.ranker.likes.indptr) > 0
    # As they are written. Not when first asked for: the thread that reads all
    # requests would stand still.
    self._names = sorted(map(str, self._user_ids))
    self._columns = {
        side: forms.of_encoder(encoder)
        for side, encoder in engine.ranker.encoders.items()
    }

  def about_run(self) -> dict[str, Any]:
    """What the page is made from; needs no turn of the model."""
    engine, ranker = self._engine, self._engine.ranker
    counts = np.diff(self._pairs.indptr)
    rows = np.flatnonzero(counts >= _ENOUGH)
    items = np.arange(len(self._item_ids))
    return {
        'name': ranker.cfg.name,
        'step': ranker.step,
        'users': len(self._user_ids),
        'items': len(engine.catalogue),
        'new_items': len(engine.catalogue.parts['new']),
        'columns': self._columns,
        'some_users': [self._describe_user(n) for n in _spread(rows, _OFFERED)],
        'some_items': [
            engine.about(self._item_ids[n]) for n in _spread(items, _OFFERED)
        ],
    }

  def find_users(self, start: str) -> list[dict[str, Any]]:
    """Users of the run whose ids begin like this; needs no turn either."""
    first = bisect.bisect_left(self._names, start)
    names = [
        name
        for name in self._names[first : first + _SHOWN]
        if name.startswith(start)
    ]
    ids = self._engine.rows.users
    return [self._describe_user(ids.row[ids.read(name)]) for name in names]

  def _describe_user(self, row: int) -> dict[str, Any]:
    start, stop = self._pairs.indptr[row : row + 2]
    return {
        'id': self._user_ids[row],
        'interactions': int(stop - start),
        'trained': bool(self._is_trained[row]),
    }

  def audience(self, requests: Sequence[Audience]) -> Sequence[Any]:
    """Who would want an item that nobody has seen, and where it lands."""
    return [self._audience(request) for request in requests]

  def _audience(self, request: Audience) -> Any:
    engine = self._engine
    item = engine.embed_items([asks.Item(None, request.content)])
    if not item.is_finite().all():
      return refusals.Refusal(
          'The model makes no finite numbers of this content.',
          code='not_finite',
          where='content',
      )
    found = self._user_index().search(item, request.k).lists()[0]
    sampled = _spread(np.arange(len(self._user_ids)), _SAMPLE)
    names = [name for name, _ in found]
    names += [self._user_ids[n] for n in sampled]
    places = self._places(names, item)
    of_sample = places[len(found) :]
    return {
        'users': [
            {'id': name, 'score': score, 'place': place}
            for (name, score), place in zip(found, places)
        ],
        'lists': len(of_sample),
        'landing': {
            str(depth): sum(x is not None and x <= depth for x in of_sample)
            for depth in _DEPTHS
        },
        'items': len(engine.catalogue),
    }

  def _places(
      self, users: Sequence[Id], item: embedded.Embedded
  ) -> list[int | None]:
    """Where an item would stand in each user's list; None beyond its end."""
    asked = [asks.User(name) for name in users]
    seen = [self._engine.rows.seen(user) for user in asked]
    found = self._engine.search(asked, _DEPTHS[-1], 'all', seen)
    own = found.embedding.score(item)[:, 0]
    above = [
        sum(score > mine for _, score in one)
        for one, mine in zip(found.lists, own.tolist(), strict=True)
    ]
    return [1 + n if n < _DEPTHS[-1] else None for n in above]

  def _user_index(self) -> protocol.Index:
    """Users of the run and of interactions, as they are now.

    Of a large run some from all over it: who asks first waits for all.
    """
    engine = self._engine
    if self._users is None:
      rows = _spread(np.arange(len(self._user_ids)), _MOST_USERS)
      ids = engine.ranker.problem.user.ids[rows]
      parts = [
          engine.embed_users([asks.User(name) for name in some])
          for some in _parts(ids.tolist())
      ]
      found = embedded.join(parts)
      found = found.without(~found.is_finite())
      self._users = self._build(ids, found)
      engine.touched_users.update(engine.memory.met)
    for some in _parts(list(engine.touched_users)):
      found = engine.embed_users([asks.User(name) for name in some])
      found = found.without(~found.is_finite())
      self._users.upsert(some, found)
    engine.touched_users.clear()
    return self._users

  def warm_up(self, requests: Sequence[WarmUp]) -> Sequence[Any]:
    """Lists of users as if they had just come, with a part of what they met."""
    return [self._warm_up(request) for request in requests]

  def _warm_up(self, request: WarmUp) -> Any:
    engine = self._engine
    if not engine.rows.is_known(request.user):
      return refusals.Refusal(
          f'There is no user {request.user!r} in the run.',
          status=404,
          code='unknown_user',
          where='user',
      )
    pairs = self._interactions(request.user)
    shown, hidden = pairs[: request.revealed], set(pairs[request.revealed :])
    user = asks.User(request.user, None, shown, True)
    (found,) = engine.search([user], request.k, 'all', [shown]).lists
    items = [
        engine.about(name) | {'score': score, 'hit': name in hidden}
        for name, score in found
    ]
    return {
        'user': request.user,
        'total': len(pairs),
        'revealed': [engine.about(name) for name in shown],
        'hidden': len(hidden),
        'hits': sum(item['hit'] for item in items),
        'items': items,
    }

  def _interactions(self, user: Id) -> list[Id]:
    """All items that are known of a user, in an order that stays the same."""
    engine = self._engine
    row = engine.rows.users.row.get(user)
    found: list[Id] = []
    if row is not None:
      start, stop = self._pairs.indptr[row : row + 2]
      places = np.sort(self._pairs.indices[start:stop])
      # By number they might be by subject as well.
      places = np.random.default_rng(row).permutation(places)
      found = [self._item_ids[n] for n in places.tolist()]
    told = engine.memory.met.get(user, {})
    found += [name for name, label in told.items() if label > 0]
    return [x for x in dict.fromkeys(found) if engine.memory.has_item(x)]


def _all_pairs(engine: engine_lib.Engine) -> scipy.sparse.csr_array:
  """Pairs of training and those that were held out of it, [U, I]."""
  problem = engine.ranker.problem
  found = engine.ranker.likes
  for held_out in problem.split.evaluation.values():
    ones = np.ones(len(held_out), np.float32)
    found = found + scipy.sparse.csr_array(
        (ones, (held_out.user, held_out.item)), shape=found.shape
    )
  return scipy.sparse.csr_array(found)


def _spread(rows: np.ndarray, most: int) -> list[int]:
  """At most so many of the rows, from the first to the last."""
  if len(rows) <= most:
    return rows.tolist()
  places = np.linspace(0, len(rows) - 1, most).astype(np.int64)
  return rows[places].tolist()


def _parts(names: Sequence[Id]) -> Iterable[Sequence[Id]]:
  return (names[n : n + _PART] for n in range(0, len(names), _PART))
