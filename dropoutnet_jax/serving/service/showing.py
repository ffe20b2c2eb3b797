# SPDX-License-Identifier: Apache-2.0
"""Slates by a policy: chosen, logged with their chances, and read again.

For the model's thread, like engine.py, which finds the pools. A slate is in the
state file before its answer goes out; how often each item was shown takes quota
and boost from new items.
"""

from collections.abc import Mapping, Sequence
import json
import time
from typing import Any, NamedTuple

import numpy as np

from dropoutnet_jax import errors
from dropoutnet_jax.serving import explorer as explorer_lib
from dropoutnet_jax.serving.service import asks
from dropoutnet_jax.serving.service import engine as engine_lib
from dropoutnet_jax.serving.service import ids as ids_lib
from dropoutnet_jax.serving.service import refusals
from dropoutnet_jax.serving.service import remembered
from dropoutnet_jax.serving.service import state_file

Id = ids_lib.Id
# Of each user, items with their scores.
_Lists = Sequence[Sequence[tuple[Id, float]]]


class LogPart(NamedTuple):
  """Asks for the log from behind a number on, at most so many rows."""

  after: int
  limit: int


class Showing:
  """Answers requests that name a policy.

  Attributes:
    explorer: fills the slates.
    impressions: of each item that was shown, how often.
  """

  def __init__(
      self,
      engine: engine_lib.Engine,
      state: state_file.StateFile,
      explorer: explorer_lib.Explorer,
  ):
    """Reads how often items were shown so far."""
    self._engine, self._state, self.explorer = engine, state, explorer
    self.impressions: dict[Id, int] = state.impressions()
    self._remembered = remembered.Remembered(engine, state, explorer.believer)
    self._last = state.last_slate()

  def recommend(self, requests: Sequence[asks.Recommend]) -> Sequence[Any]:
    """Slates of all users of each request, or a refusal."""
    answers: list[Any] = []
    shown: list[state_file.Shown] = []
    inputs: list[tuple[int, np.ndarray | None]] = []
    for request in requests:
      try:
        self._engine.rows.check('user', request.users)
        answer, rows, seen = self._slates(request, time.time())
      except refusals.Refusal as refusal:
        answers.append(refusal)
        continue
      except errors.UserError as error:
        answers.append(refusals.Refusal(str(error), where='policy'))
        continue
      answers.append(answer)
      shown += rows
      inputs.append((len(rows), seen))
    if shown:
      whole = _joined(inputs)
      self._state.put_shown(shown, remembered.as_blobs(whole))
      self._remembered.add(shown, whole)
      for row in shown:
        self.impressions[row.item] = self.impressions.get(row.item, 0) + 1
    return answers

  def put_interactions(
      self, requests: Sequence[Sequence[asks.Interaction]]
  ) -> Sequence[Any]:
    """As that of the engine; what was shown before has its clicks then."""
    answers = self._engine.put_interactions(requests)
    for pairs, answer in zip(requests, answers, strict=True):
      if not isinstance(answer, refusals.Refusal):
        self._remembered.tell(pairs)
    return answers

  def log(self, requests: Sequence[LogPart]) -> Sequence[str]:
    """Lines of JSON; a log of one row for each item that was shown."""
    return [
        ''.join(
            _as_json(*row)
            for row in self._state.shown(request.after, request.limit)
        )
        for request in requests
    ]

  def _slates(
      self, request: asks.Recommend, now: float
  ) -> tuple[list[dict[str, Any]], list[state_file.Shown], np.ndarray | None]:
    """The answer, and what is to be logged of it with the inputs of users."""
    assert request.plan is not None
    plan, engine = request.plan.with_seed(), self._engine
    self.explorer.check(plan)
    observed = self._remembered.observed() if plan.reads_beliefs else None
    lists = self._pools(request)
    names = list(dict.fromkeys(name for one in lists for name, _ in one))
    if not names:
      empty = [engine.list_of(user, [], False) for user in request.users]
      return empty, [], None
    filled = self.explorer.fill(
        engine.rows.of_users(request.users),
        engine.rows.of_items([asks.Item(name) for name in names]),
        _pool(lists, {name: place for place, name in enumerate(names)}),
        request.k,
        plan,
        np.random.default_rng(plan.seed),
        np.array([engine.catalogue.part_of(name) == 'new' for name in names]),
        np.array([self.impressions.get(name, 0) for name in names]),
        observed,
    )
    inputs = self._remembered.inputs(request.users)
    answer, rows = [], []
    columns = (filled.item, filled.score, filled.propensity)
    for user, *slate in zip(request.users, *(x.tolist() for x in columns)):
      self._last += 1
      found = [
          (names[place], score, chance)
          for place, score, chance in zip(*slate)
          if place >= 0
      ]
      one = engine.list_of(user, [x[:2] for x in found], request.reasons)
      for item, (_, _, chance) in zip(one['items'], found, strict=True):
        item['propensity'] = chance
      answer.append(one | {'slate': self._last})
      rows += [
          state_file.Shown(self._last, now, user.id, place, *item, str(plan))
          for place, item in enumerate(found, start=1)
      ]
    if inputs is not None:
      inputs = np.repeat(inputs, np.sum(filled.item >= 0, axis=1), axis=0)
    return answer, rows, inputs

  def _pools(self, request: asks.Recommend) -> _Lists:
    """What each user may be shown, with scores; see `explorer`."""
    engine, which = self._engine, request.candidates
    seen = [
        engine.rows.seen(user) if request.exclude_seen else []
        for user in request.users
    ]
    size = max(explorer_lib.POOL, request.k)
    if which == 'new':
      size += explorer_lib.NEW
    searched = engine.search(request.users, size, which, seen)
    refusal = engine_lib.not_finite('users', searched.is_finite)
    if refusal is not None:
      raise refusal
    if which != 'all':
      return searched.lists
    new = engine.catalogue.search(
        searched.embedding, explorer_lib.NEW, 'new', seen
    )
    return [
        list(dict([*best, *more]).items())
        for best, more in zip(searched.lists, new, strict=True)
    ]


def _joined(
    inputs: Sequence[tuple[int, np.ndarray | None]],
) -> np.ndarray | None:
  """Those of the places of all requests; 0 before the one that made a prior."""
  found = [one for _, one in inputs if one is not None]
  if not found:
    return None
  width = found[0].shape[1]
  parts = [
      np.zeros((count, width), np.float32) if one is None else one
      for count, one in inputs
  ]
  return np.concatenate(parts)


def _pool(lists: _Lists, place_of: Mapping[Id, int]) -> explorer_lib.Pool:
  """Lists of different lengths as a table."""
  width = max(len(one) for one in lists)
  place = np.zeros((len(lists), width), np.int64)
  mean = np.zeros((len(lists), width), np.float32)
  for row, one in enumerate(lists):
    place[row, : len(one)] = [place_of[name] for name, _ in one]
    mean[row, : len(one)] = [score for _, score in one]
  length = np.array([len(one) for one in lists])
  return explorer_lib.Pool(place, mean, np.arange(width) < length[:, None])


def _as_json(number: int, row: state_file.Shown, liked: bool) -> str:
  """A line of the log, by the names that `recommend` and `evaluate` have."""
  found = {
      'number': number,
      'slate': row.slate,
      'time': row.time,
      'user_id': row.user,
      'rank': row.place,
      'item_id': row.item,
      'score': row.score,
      'propensity': row.propensity,
      'policy': row.policy,
      'reward': int(liked),
  }
  return json.dumps(found) + '\n'
