# SPDX-License-Identifier: Apache-2.0
"""From bodies of requests to what is asked of the model.

Everything that can be told without the model and the state is refused here.
"""

from collections.abc import Sequence
from typing import Any

from dropoutnet_jax.exploring import policies
from dropoutnet_jax.serving import plans
from dropoutnet_jax.serving.service import asks
from dropoutnet_jax.serving.service import ids as ids_lib
from dropoutnet_jax.serving.service import json_columns
from dropoutnet_jax.serving.service import limits
from dropoutnet_jax.serving.service import refusals
from dropoutnet_jax.serving.service import row_maker
from dropoutnet_jax.serving.service import value_rules
from dropoutnet_jax.serving.service import wire


class Reader:
  """Checks requests against what a run's ids and columns are."""

  def __init__(self, rows: row_maker.RowMaker):
    self._users, self._items = rows.users, rows.items
    self._types = rows.types
    self._rules = {
        side: value_rules.ValueRules(encoder)
        for side, encoder in rows.encoders.items()
    }

  def recommend(self, body: wire.Recommend) -> asks.Recommend:
    """Raises Refusal for what is wrong with a request, as all of these do."""
    listed = len(body.users) * body.k
    if listed > limits.LISTED:
      raise refusals.Refusal(
          f'{len(body.users)} lists of {body.k} items are {listed:,} items; at '
          f'most {limits.LISTED:,} come at once.',
          where='k',
      )
    if body.reasons and listed > limits.EXPLAINED:
      raise refusals.Refusal(
          f'Reasons are given for at most {limits.EXPLAINED} items of a '
          f'request, not for {listed:,}.',
          where='reasons',
      )
    plan = None if body.policy is None else _plan(body.policy)
    passes = 0 if plan is None else plan.passes
    passed = len(body.users) * passes
    if passed > limits.PASSED:
      raise refusals.Refusal(
          f'{len(body.users)} users under {passes} passes are '
          f'{passed:,} rows; at most {limits.PASSED:,} come at once.',
          where='policy.passes',
      )
    users = self._each('users', body.users, self.user)
    self._check_rules('user', users)
    return asks.Recommend(
        users,
        body.k,
        body.candidates,
        body.exclude_seen,
        body.reasons,
        plan,
    )

  def embed(self, body: wire.Embed) -> asks.Embed:
    """Users or items, one of the two."""
    if (body.users is None) == (body.items is None):
      raise refusals.Refusal('Give users or items, and not both.')
    if body.users is not None:
      ask = asks.Embed('user', self._each('users', body.users, self.user))
    else:
      items = self._each('items', body.items or (), self.item)
      ask = asks.Embed('item', items)
    self._check_rules(ask.side, ask.rows)
    return ask

  def items(self, body: wire.PutItems) -> list[asks.PutItem]:
    """Items with their content; each once."""

    def read(item: wire.NewItem) -> asks.PutItem:
      content = self._content('item', item.content)
      return asks.PutItem(self._items.read(item.id, 'id'), content)

    items = self._each('items', body.items, read)
    self._check_rules('item', items)
    self._check_distinct([item.id for item in items])
    return items

  def interactions(self, body: wire.PutInteractions) -> list[asks.Interaction]:
    """Pairs; of one that is repeated the last one counts."""

    def read(pair: wire.Interaction) -> asks.Interaction:
      return asks.Interaction(
          self._users.read(pair.user, 'user'),
          self._items.read(pair.item, 'item'),
          pair.label,
      )

    return self._each('interactions', body.interactions, read)

  def user(self, user: wire.User) -> asks.User:
    """One user."""
    return asks.User(
        None if user.id is None else self._users.read(user.id, 'id'),
        self._content('user', user.content),
        [
            self._items.read(item, f'history[{place}]')
            for place, item in enumerate(user.history)
        ],
    )

  def item(self, item: wire.Item) -> asks.Item:
    """One item."""
    if item.id is None and item.content is None:
      raise refusals.Refusal('An item needs an id, or content.', where='id')
    return asks.Item(
        None if item.id is None else self._items.read(item.id, 'id'),
        self._content('item', item.content),
    )

  def content(self, side: str, content: wire.ItemContent) -> Any:
    """Content of a request that has no more of it."""
    found = self._content(side, content)
    bad = self._rules[side].check([found])
    if bad is not None:
      raise bad[1].within('content')
    return found

  def _content(
      self, side: str, content: wire.UserContent | wire.ItemContent | None
  ) -> Any:
    """Content of one row, or None where there is none; not yet all checked."""
    if content is None:
      return None
    try:
      return json_columns.check(content.root, self._types[side])
    except refusals.Refusal as refusal:
      raise refusal.within('content') from refusal

  def _each(self, name: str, rows: Sequence[Any], read: Any) -> list[Any]:
    """All of them read; what is wrong with one names its place."""
    found = []
    for place, row in enumerate(rows):
      try:
        found.append(read(row))
      except refusals.Refusal as refusal:
        raise refusal.within(f'{name}[{place}]') from refusal
    return found

  def _check_rules(self, side: str, rows: Sequence[Any]) -> None:
    """All rows at once: tables are made of them, which takes time."""
    bad = self._rules[side].check([row.content for row in rows])
    if bad is not None:
      place, refusal = bad
      raise refusal.within(f'{side}s[{place}].content')

  def _check_distinct(self, names: Sequence[ids_lib.Id]) -> None:
    place_of: dict[ids_lib.Id, int] = {}
    for place, name in enumerate(names):
      first = place_of.setdefault(name, place)
      if first != place:
        raise refusals.Refusal(
            f'Item {name!r} comes twice, at {first} and {place}; say once what '
            'it is.',
            code='repeated',
            where=f'items[{place}].id',
        )


def _plan(policy: wire.Policy) -> plans.Plan:
  """A policy as the model takes it."""
  fields = policy.model_dump()
  own = {name: fields.pop(name) for name in ('passes', 'seed', 'spread')}
  return plans.Plan(policies.Policy(**fields), **own)
