# SPDX-License-Identifier: Apache-2.0
"""A trained run as a library calls it: tables in, embeddings and lists out.

`dropoutnet_jax.load(workdir)` gives a `Recommender`. Users and items come as
tables, or as ids alone. An id that the run knows keeps what training knew of
it; any other is new, and what is known of it are its columns and its history.
Columns that are missing are missing values.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools
from typing import Any
import warnings

import numpy as np
import pyarrow as pa
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax.data import own_ids
from dropoutnet_jax.data import table_files
from dropoutnet_jax.exploring import policies
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.serving import embedding_files
from dropoutnet_jax.serving import explain as explain_lib
from dropoutnet_jax.serving import explorer
from dropoutnet_jax.serving import given_tables
from dropoutnet_jax.serving import neighbours
from dropoutnet_jax.serving import plans
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import request_tables
from dropoutnet_jax.serving import rows as rows_lib
from dropoutnet_jax.serving import told_impressions
from dropoutnet_jax.serving.index import names as names_lib

_OTHER = {'user': 'item', 'item': 'user'}
Embedded = embedding_files.Embedded
_ID_FIELDS = {side: f'config.data.tables.{side}_id' for side in _OTHER}


class Recommender:
  """A trained run; wherever rows are asked for, a table will do.

  Tables are Arrow, pandas or Polars ones, dicts of columns, lists of dicts, or
  ids alone; None stands for all of the run. A history maps ids to the ids that
  each has met, or is a table of both; what a user met is that of items, what an
  item met that of users. All methods raise `errors.UserError` for a table that
  cannot be read, a column of another type than in training, and ids that occur
  twice.
  """

  def __init__(
      self, ranker: recommender_lib.Ranker, workdir: str | None = None
  ):
    self.ranker, self._explorer = ranker, explorer.Explorer(ranker, workdir)

  def embed_users(self, table: Any, history: Any = None) -> Embedded:
    """Embeddings of users, old and new, with histories beyond training."""
    rows = self._rows('user', table, 'table', history)[0]
    return embedding_files.on_host(rows.ids, self.ranker.embed_users(rows))

  def embed_items(self, table: Any, history: Any = None) -> Embedded:
    """Embeddings of items, old and new, with users who met them."""
    rows = self._rows('item', table, 'table', history)[0]
    return embedding_files.on_host(rows.ids, self.ranker.embed_items(rows))

  def recommend(
      self,
      users: Any,
      k: int,
      *,
      candidates: Any = None,
      exclude: Any = None,
      history: Any = None,
      exclude_seen: bool = True,
      policy: str | policies.Policy | None = None,
      passes: int = plans.PASSES,
      seed: int | None = None,
      spread: str = plans.SPREADS[0],
      impressions: Mapping[Any, int] | None = None,
  ) -> pa.Table:
    """The k best items of each user, or the k that a policy shows her.

    Args:
      users: N.
      k: items of each, at most.
      candidates: items that are ranked; equal scores go to the first.
      exclude: ids of items that nobody gets; or, by id of a user or in a table
        of pairs, items that she does not get.
      history: what users met beyond training, which candidates are not told
        of; as a table with labels it is impressions of new items too, for the
        spread 'belief'.
      exclude_seen: whether users get nothing that they met, in training or in
        the history.
      policy: what fills the places, or its kind; None for the best items. The
        first call of a run may calibrate it, in seconds to a minute.
      passes: of the policy, where it looks at the spread of scores.
      seed: of its draws; None draws one.
      spread: what it draws by: 'belief' or 'masks', see `plans.Plan`.
      impressions: by id, how often items were shown; they take quota and boost
        of a policy from new ones.

    Returns:
      Columns user_id, rank (from 1), item_id and score: the lists one after the
      other, in the order of the users. Of a policy propensity too, the chance
      of the item at its place given those before it, and policy, its name.
    """
    names_lib.check_k(k)
    plan = None
    if policy is not None:
      if isinstance(policy, str):
        policy = policies.Policy(policy)
      plan = plans.Plan(policy, passes, seed, spread)
      note = self._explorer.check(plan)
      if note:
        warnings.warn(note, stacklevel=2)
    rows, pairs = self._rows('user', users, 'users', history)
    items, _ = self._rows('item', candidates, 'candidates')
    banned = scipy.sparse.csr_array((len(rows), len(items)), dtype=np.float32)
    if exclude_seen:
      banned = banned + self.ranker.seen(rows, items)
      if pairs is not None:  # with new items among the candidates
        banned = banned + _met(pairs, 'user', rows.ids, items.ids)
    if exclude is not None:
      banned = banned + self._excluded(exclude, rows, items)
    across = self._catalogue if candidates is None else None
    k = min(k, max(len(items), 1))
    banned = scipy.sparse.csr_array(banned)
    if plan is not None:
      shown, observed = _counts(impressions, items.ids), None
      if pairs is not None and plan.reads_beliefs:
        believer = self._explorer.believer
        observed = told_impressions.read(self.ranker, believer, pairs, items)
      slates = self._explorer.slates(
          rows, items, k, plan, banned, across, shown, observed
      )
      return _slates_table(rows.ids, items.ids, list(slates), plan, k)
    lists = self.ranker.recommend(rows, items, k, banned, across)
    parts = [(part.item, part.score) for part in lists]
    return _table('user_id', rows.ids, 'item_id', items.ids, *_joined(parts, k))

  def similar_items(self, items: Any, k: int, history: Any = None) -> pa.Table:
    """The k items of the run that are most like each of some items.

    Returns:
      Columns item_id, rank, similar_id and score, a cosine.
    """
    return self._similar('item', items, 'items', k, history)

  def similar_users(self, users: Any, k: int, history: Any = None) -> pa.Table:
    """The k users of the run who are most like each of some users.

    Returns:
      Columns user_id, rank, similar_id and score, a cosine.
    """
    return self._similar('user', users, 'users', k, history)

  def audience(
      self,
      items: Any,
      k: int,
      *,
      history: Any = None,
      exclude_seen: bool = True,
  ) -> pa.Table:
    """The k users of the run with the highest scores for each of some items.

    Args:
      items: such as new ones.
      k: users of each, at most.
      history: users who met the items beyond training.
      exclude_seen: whether those who met an item are left out.

    Returns:
      Columns item_id, rank, user_id and score.
    """
    names_lib.check_k(k)
    rows, _ = self._rows('item', items, 'items', history)
    users = self.ranker.problem.user.ids
    k = min(k, len(users))
    found = neighbours.audience(self.ranker, rows, k, exclude_seen)
    return _table('item_id', rows.ids, 'user_id', users, *found)

  def explain(
      self, user: Any, item: Any, history: Any = None
  ) -> explain_lib.Explanation:
    """What the score of a user and an item is made of.

    Args:
      user: an id, or a dict or table of one row.
      item: likewise.
      history: of the user.
    """
    pair = []
    for side, given in (('user', user), ('item', item)):
      told = history if side == 'user' else None
      rows, _ = self._rows(side, given_tables.as_rows(given), side, told)
      if len(rows) != 1:
        raise errors.UserError(
            f'{side}: {len(rows):,} rows; one score is explained at a time.'
        )
      pair.append(rows)
    return explain_lib.explain(self.ranker, *pair)

  @functools.cached_property
  def _catalogue(self) -> embeddings.Embedding:
    """All items of the run as candidates."""
    return self.ranker.candidates(self.ranker.items())

  def _similar(
      self, side: str, given: Any, name: str, k: int, history: Any
  ) -> pa.Table:
    names_lib.check_k(k)
    rows, _ = self._rows(side, given, name, history)
    known = getattr(self.ranker.problem, side).ids
    found = neighbours.nearest(self.ranker, side, rows, min(k, len(known)))
    return _table(f'{side}_id', rows.ids, 'similar_id', known, *found)

  def _rows(
      self, side: str, given: Any, name: str, history: Any = None
  ) -> tuple[rows_lib.Rows, request_tables.Pairs | None]:
    """The rows of a table with their histories, and the pairs of these."""
    model = self.ranker
    id_name = getattr(model.cfg.data.tables, f'{side}_id')
    if given is None:
      rows = model.users() if side == 'user' else model.items()
    else:
      required = {id_name: _ID_FIELDS[side]}
      table = given_tables.read(given, name, required)
      if not len(table):
        none = np.zeros(0, np.int64)
        known = getattr(model.problem, side).ids
        return rows_lib.Rows(known[:0], none), None
      rows, _ = request_tables.rows_of(table, side, model)
      self._warn_of_spelling(side, table, rows)
    if history is None:
      return rows, None
    pairs = self._pairs(side, history, 'history')
    if pairs is None:
      return rows, None
    own, other = getattr(pairs, side), getattr(pairs, _OTHER[side])
    place = own_ids.find(own, rows.ids)
    if (place < 0).all():
      raise errors.UserError(
          f'history: none of its {own.name}s (such as '
          f'{own.found.values[0].as_py()!r}) is among {name} (such as '
          f'{rows.ids[0].item()!r}). Name the same ones.'
      )
    run_ids = getattr(model.problem, _OTHER[side]).ids
    shape = (len(rows), len(run_ids))
    met = pairs.likes().met(side, place, own_ids.find(other, run_ids), shape)
    return dataclasses.replace(rows, history=met), pairs

  def _pairs(
      self, side: str, given: Any, name: str
  ) -> request_tables.Pairs | None:
    """Who met what, of a mapping or a table; None without any pair."""
    tables = self.ranker.cfg.data.tables
    own = getattr(tables, f'{side}_id')
    other = getattr(tables, f'{_OTHER[side]}_id')
    is_columns = isinstance(given, Mapping) and {own, other} <= {*given}
    if isinstance(given, Mapping) and not is_columns:
      given = given_tables.pairs(given, name, own, other)
    required = {own: _ID_FIELDS[side], other: _ID_FIELDS[_OTHER[side]]}
    table = given_tables.read(given, name, required)
    if not len(table):
      return None
    return request_tables.pairs_of(table, self.ranker)

  def _excluded(
      self, exclude: Any, users: rows_lib.Rows, items: rows_lib.Rows
  ) -> scipy.sparse.csr_array:
    """Items that users must not get: csr_array [N, J]."""
    names = self.ranker.cfg.data.tables
    is_table = hasattr(exclude, 'column_names') or hasattr(exclude, 'columns')
    if isinstance(exclude, Mapping) or is_table:
      pairs = self._pairs('user', exclude, 'exclude')
      if pairs is None:
        return scipy.sparse.csr_array((len(users), len(items)))
      return _met(pairs, 'user', users.ids, items.ids)
    required = {names.item_id: _ID_FIELDS['item']}
    table = given_tables.read(exclude, 'exclude', required)
    place = np.zeros(0, np.int64)
    if len(table):
      place = own_ids.find(own_ids.read(table, names.item_id), items.ids)
      place = np.unique(place[place >= 0])
    starts = len(place) * np.arange(len(users) + 1)
    every = np.tile(place, len(users))
    return scipy.sparse.csr_array(
        (np.ones(len(every), np.float32), every, starts),
        shape=(len(users), len(items)),
    )

  def _warn_of_spelling(
      self, side: str, table: table_files.Table, rows: rows_lib.Rows
  ) -> None:
    """Warns of a column that is nearly called like one that is missing."""
    if not rows.is_new().any():
      return
    types = self.ranker.encoders[side].columns
    missing = [name for name in types if name not in table.names]
    for name in table.names:
      near = table_files.nearest(name, missing)
      if near and name not in types:
        warnings.warn(
            f'{table.name()}: nothing reads column {name!r}.{near}',
            stacklevel=4,
        )


def _met(
    pairs: request_tables.Pairs,
    side: str,
    own: np.ndarray,
    other: np.ndarray,
) -> scipy.sparse.csr_array:
  """1 at pairs of these ids, liked or not: csr_array [N, M]."""
  shape = (len(own), len(other))
  found = getattr(pairs, side), getattr(pairs, _OTHER[side])
  place = own_ids.find(found[0], own), own_ids.find(found[1], other)
  return pairs.met(side, *place, shape)


def _joined(
    parts: Iterable[tuple[np.ndarray, np.ndarray]], k: int
) -> tuple[np.ndarray, np.ndarray]:
  """Lists of some users and of others as one: places and scores [N, k]."""
  items, scores = [np.zeros((0, k), np.int32)], [np.zeros((0, k), np.float32)]
  for item, score in parts:
    missing = ((0, 0), (0, k - item.shape[1]))
    items.append(np.pad(item, missing, constant_values=-1))
    scores.append(np.pad(score, missing, constant_values=-np.inf))
  return np.concatenate(items), np.concatenate(scores)


def _table(
    own_name: str,
    own_ids_: np.ndarray,
    other_name: str,
    other_ids: np.ndarray,
    place: np.ndarray,
    score: np.ndarray,
) -> pa.Table:
  """Lists [N, k] as a table; places of -1 are left out."""
  row, column = np.nonzero(place >= 0)
  return pa.table(
      {
          own_name: own_ids_[row],
          'rank': (column + 1).astype(np.int32),
          other_name: other_ids[place[row, column]],
          'score': score[row, column],
      }
  )


def _counts(
    impressions: Mapping[Any, int] | None, item_ids: np.ndarray
) -> np.ndarray | None:
  """Impressions in the order of the items: int64 [J]."""
  if impressions is None:
    return None
  return np.array([impressions.get(name, 0) for name in item_ids.tolist()])


def _slates_table(
    user_ids: np.ndarray,
    item_ids: np.ndarray,
    slates: Sequence[explorer.Slates],
    plan: plans.Plan,
    k: int,
) -> pa.Table:
  """As `_table`, with what is known of a policy."""
  place, score = _joined([(one.item, one.score) for one in slates], k)
  _, propensity = _joined([(one.item, one.propensity) for one in slates], k)
  table = _table('user_id', user_ids, 'item_id', item_ids, place, score)
  names = pa.array([str(plan)] * len(table), pa.string())
  shown = pa.array(propensity[place >= 0])
  return table.append_column('propensity', shown).append_column('policy', names)


def load(workdir: str) -> Recommender:
  """The best checkpoint of a run folder; see `recommender.load`."""
  return Recommender(recommender_lib.load(workdir), workdir)
