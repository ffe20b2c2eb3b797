# SPDX-License-Identifier: Apache-2.0
"""What the model's thread does: lists, embeddings, and changes of state.

Each method takes the requests of a turn and returns an answer, or a Refusal,
for each. Changes are made in this order: embed, which may fail; write, so that
they survive; put into the index and the memory. What a call has acknowledged is
seen by the next.
"""

from collections.abc import Iterable, Sequence
import math
import time
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from dropoutnet_jax.evaluation import examples
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import rows as rows_lib
from dropoutnet_jax.serving.service import asks
from dropoutnet_jax.serving.service import catalogue as catalogue_lib
from dropoutnet_jax.serving.service import embedded
from dropoutnet_jax.serving.service import forms
from dropoutnet_jax.serving.service import ids as ids_lib
from dropoutnet_jax.serving.service import limits
from dropoutnet_jax.serving.service import memory as memory_lib
from dropoutnet_jax.serving.service import reasons
from dropoutnet_jax.serving.service import refusals
from dropoutnet_jax.serving.service import row_maker
from dropoutnet_jax.serving.service import state_file

Id = ids_lib.Id
Answers = Sequence[Any]
_PART = 16_384  # items embedded at a time at the start


class Searched(NamedTuple):
  """What a search found for N users.

  Attributes:
    lists: of each, best first.
    is_finite: bool [N], whether the list means anything.
    embedding: of the users.
  """

  lists: list[list[tuple[Id, float]]]
  is_finite: np.ndarray
  embedding: embedded.Embedded


class Engine:
  """A run, its items in an index, and what it was told since.

  For one thread.

  Attributes:
    ranker: the model.
    memory: what was told.
    rows: makes rows of requests.
    catalogue: the items that can be recommended.
    touched_users: whose histories have grown, for whoever keeps embeddings.
  """

  def __init__(
      self,
      ranker: recommender_lib.Ranker,
      state: state_file.StateFile,
      build: catalogue_lib.Build,
  ):
    """Embeds the items of the run; what the state holds comes on top.

    Args:
      ranker: the model.
      state: of this run.
      build: makes an index.
    """
    self.ranker, self._state = ranker, state
    items = ids_lib.Ids('item', ranker.problem.item.ids)
    self.memory = memory_lib.Memory(items)
    self.rows = row_maker.RowMaker(ranker, self.memory)
    everything = ranker.items()
    is_trained = ranker.is_trained(everything)
    parts = {}
    for part in catalogue_lib.PARTS:
      chosen = everything.select(
          np.flatnonzero(is_trained == (part == 'known'))
      )
      parts[part] = build(chosen.ids, ranker.embed_items(chosen))
    self.catalogue = catalogue_lib.Catalogue(items, is_trained, parts)
    names = ranker.encoders['item'].sparse_names
    self._words = examples.content_words(ranker.problem.item, names)
    self.touched_users: set[Id] = set()
    self._replay()

  def _replay(self) -> None:
    """Puts the state on top of the run."""
    content = dict(self._state.items())
    self.memory.put_interactions(self._state.interactions())
    gone = [name for name, value in content.items() if value is None]
    self.memory.delete_items(gone)
    self.memory.put_items({x: content[x] for x in content.keys() - {*gone}})
    self.catalogue.delete(gone)
    self._refresh([*self.memory.content, *self.memory.met_by])

  def warm(self) -> None:
    """Compiles for every size of a turn, so that no request waits for it."""
    for size in limits.SIZES:
      self.embed_users([asks.User()] * size)
      self.embed_items([asks.Item(None, {})] * size)
    if self.ranker.cfg.features.preference != 'none':
      self._warm_preferences()
    self.recommend([asks.Recommend([asks.User()], 1)])

  def _warm_preferences(self) -> None:
    """Of histories; any number of rows of a turn may have one.

    And towers: of tables in which some rows were told of something, they make
    two embeddings of each (model/trust.py), by another program.
    """
    tables = self.ranker.row_tables
    sides = {'user': self.rows.items, 'item': self.rows.users}
    sizes = {rows_lib.padded_size(n) for n in range(1, limits.SIZES[-1] + 1)}
    of_turns = {rows_lib.padded_size(size) for size in limits.SIZES}
    for side, other in sides.items():
      for size in sorted(sizes):
        met = (np.ones(size, np.float32), np.zeros(size, int))
        starts = np.arange(size + 1)
        shape = (size, len(other.row))
        told = tables.preference(
            side,
            scipy.sparse.csr_array((*met, starts), shape=shape),
            np.ones(size, bool),
        )
        if size in of_turns:
          blank = getattr(tables.tables, side).select(np.full(size, -1))
          table = blank.with_told(np.arange(size), told)
          self.ranker.embed_table(side, table)

  def recommend(self, requests: Sequence[asks.Recommend]) -> Answers:
    """Lists of all users; the requests agree in their candidates."""
    answers: list[Any] = [self._check('user', x.users) for x in requests]
    users = [
        user
        for request, refusal in zip(requests, answers, strict=True)
        for user in request.users
        if refusal is None
    ]
    if not users:
      return answers
    searched = self.search(
        users,
        max(request.k for request in requests),
        requests[0].candidates,
        [
            self.rows.seen(user) if request.exclude_seen else []
            for request, refusal in zip(requests, answers, strict=True)
            if refusal is None
            for user in request.users
        ],
    )
    place = 0
    for number, request in enumerate(requests):
      if answers[number] is None:
        part = slice(place, place + len(request.users))
        place = part.stop
        refusal = not_finite('users', searched.is_finite[part])
        lists = zip(request.users, searched.lists[part], strict=True)
        answers[number] = refusal or [
            self.list_of(user, one[: request.k], request.reasons)
            for user, one in lists
        ]
    return answers

  def list_of(
      self,
      user: asks.User,
      found: Sequence[tuple[Id, float]],
      has_reasons: bool,
  ) -> dict[str, Any]:
    """The list of one user as JSON."""
    items: list[dict[str, Any]] = [
        {'id': name, 'score': score} for name, score in found
    ]
    if has_reasons and items:
      own = self.rows.of_users([user])
      across = self.rows.of_items([asks.Item(item['id']) for item in items])
      for place, item in enumerate(items):
        pair = across.select(slice(place, place + 1))
        item |= self.about(item['id'])
        item['reasons'] = reasons.of_pair(self.ranker, own, pair)
    return {
        'user': user.id,
        'known': self.rows.is_known(user.id),
        'items': items,
    }

  def search(
      self,
      users: Sequence[asks.User],
      k: int,
      candidates: str,
      exclude: Sequence[Sequence[Id]],
  ) -> Searched:
    """Lists of users.

    Args:
      users: N.
      k: items of each list, at most.
      candidates: 'all', 'new' or 'known'.
      exclude: N lists of items that a user must not get.
    """
    found = self.embed_users(users)
    is_finite = found.is_finite()
    found = found.without(~is_finite)
    lists = self.catalogue.search(found, k, candidates, exclude)
    # Finite embeddings may still have a product that is too large.
    is_finite &= [all(math.isfinite(x) for _, x in one) for one in lists]
    return Searched(lists, is_finite, found)

  def embed(self, requests: Sequence[asks.Embed]) -> Answers:
    """Embeddings (dense [N, R], sparse csr_array [N, T] or None)."""
    answers: list[Any] = []
    for request in requests:
      refusal = self._check(request.side, request.rows)
      if refusal is None:
        make = self.embed_users if request.side == 'user' else self.embed_items
        found = make(request.rows)
        refusal = not_finite(f'{request.side}s', found.is_finite())
      answers.append(refusal or found)
    return answers

  def put_items(self, requests: Sequence[Sequence[asks.PutItem]]) -> Answers:
    """Adds items or changes them; how many of them are new."""
    everything = [item for items in requests for item in items]
    found = self.embed_items([asks.Item(*item) for item in everything])
    is_finite = found.is_finite()
    answers: list[Any] = []
    accepted: dict[Id, int] = {}  # of one that comes twice the last one counts
    place = 0
    for items in requests:
      part = range(place, place + len(items))
      place = part.stop
      refusal = not_finite('items', is_finite[part.start : part.stop])
      names = [item.id for item in items]
      fresh = [
          name
          for name in names
          if not self.memory.has_item(name) and name not in accepted
      ]
      answers.append(refusal or {'put': len(names), 'new': len(fresh)})
      if refusal is None:
        accepted |= zip(names, part)
    if accepted:
      content = {x: everything[n].content for x, n in accepted.items()}
      self._state.put_items(content)
      self.memory.put_items(content)
      for kind, some in self.catalogue.split(list(accepted)).items():
        chosen = found.select([accepted[name] for name in some])
        self.catalogue.upsert(kind, some, chosen)
    return answers

  def delete_items(self, requests: Sequence[Id]) -> Answers:
    """Takes items out of all lists."""
    answers: list[Any] = []
    gone: list[Id] = []
    for name in requests:
      if not self.memory.has_item(name) or name in gone:
        refusal = refusals.Refusal(
            f'There is no item {name!r} to delete.',
            status=404,
            code='unknown_item',
        )
        answers.append(refusal)
      else:
        gone.append(name)
        answers.append({'deleted': name})
    if gone:
      self._state.delete_items(gone)
      self.memory.delete_items(gone)
      self.catalogue.delete(gone)
    return answers

  def put_interactions(
      self, requests: Sequence[Sequence[asks.Interaction]]
  ) -> Answers:
    """Histories grow, of users and of items."""
    answers: list[Any] = []
    rows = []
    now = time.time()
    for pairs in requests:
      refusal = None
      for place, pair in enumerate(pairs):
        try:
          self.rows.check_item(pair.item, f'interactions[{place}].item')
        except refusals.Refusal as error:
          refusal = error
          break
      answers.append(refusal or {'added': len(pairs)})
      if refusal is None:
        rows += [state_file.Interaction(*pair, now) for pair in pairs]
    if rows:
      self._state.put_interactions(rows)
      self.memory.put_interactions(rows)
      self.touched_users.update(row.user for row in rows)
      self._refresh(row.item for row in rows)
    return answers

  def about(self, item: Id) -> dict[str, Any]:
    """An item with a few words on its content."""
    told = self.memory.content.get(item)
    if told is not None:
      return {'id': item, 'about': forms.about(told)}
    row = self.rows.items.row.get(item)
    return {'id': item, 'about': '' if row is None else self._words(row)}

  def _refresh(self, names: Iterable[Id]) -> None:
    """Embeds items anew and puts them into the index.

    One of which that makes no finite numbers stays as it was.
    """
    there = [x for x in dict.fromkeys(names) if self.memory.has_item(x)]
    for begin in range(0, len(there), _PART):
      parts = self.catalogue.split(there[begin : begin + _PART])
      for part, some in parts.items():
        found = self.embed_items([asks.Item(name) for name in some])
        fine = np.flatnonzero(found.is_finite())
        kept = [some[n] for n in fine.tolist()]
        if kept:
          self.catalogue.upsert(part, kept, found.select(fine))

  def _check(self, side: str, rows: Sequence[Any]) -> refusals.Refusal | None:
    try:
      self.rows.check(side, rows)
    except refusals.Refusal as refusal:
      return refusal
    return None

  def embed_users(self, users: Sequence[asks.User]) -> embedded.Embedded:
    """Embeddings of N users, whose programs are compiled for few sizes."""
    rows = self.rows.of_users(filled_up(users, asks.User()))
    found = embedded.of_device(self.ranker.embed_users(rows))
    return found.select(np.arange(len(users)))

  def embed_items(self, items: Sequence[asks.Item]) -> embedded.Embedded:
    """Embeddings of N items, likewise."""
    rows = self.rows.of_items(filled_up(items, asks.Item()))
    found = embedded.of_device(self.ranker.embed_items(rows))
    return found.select(np.arange(len(items)))


def filled_up(rows: Sequence[Any], blank: Any) -> list[Any]:
  """Rows and then blank ones, up to the next of the sizes."""
  larger = [size for size in limits.SIZES if size >= len(rows)]
  missing = min(larger, default=len(rows)) - len(rows)
  return [*rows, *[blank] * missing]


def not_finite(what: str, is_finite: np.ndarray) -> refusals.Refusal | None:
  """A refusal if embeddings of some of the rows mean nothing."""
  if is_finite.all():
    return None
  place = int(np.argmin(is_finite))
  return refusals.Refusal(
      'The model makes no finite numbers of this content; a number in it is '
      'far from all that training knew.',
      code='not_finite',
      where=f'{what}[{place}].content',
  )
