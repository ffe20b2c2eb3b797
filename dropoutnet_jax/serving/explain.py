# SPDX-License-Identifier: Apache-2.0
"""Why a user gets an item: what the parts of its score are made of.

The sparse part is linear, so what is said of it is exact. Its dot product is a
sum over the tags of the item, and a sum over the items of the user's history,
of which the item itself may be one; so is the correction, but for what the
smoothing of a training history leaves outside of the items that are kept; and
so is the teacher's, but for what its last half-step would have changed.

A tower is not linear. Of it is said by how much its score falls if one thing is
taken away: a feature of either side, all preference, or one item of the
history. Such differences do not add up.
"""

from collections.abc import Iterable, Mapping
import dataclasses
from typing import Any, NamedTuple, TypeVar

import numpy as np
import scipy.sparse

from dropoutnet_jax.data import blocks
from dropoutnet_jax.data import features
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.evaluation import sparse_part
from dropoutnet_jax.evaluation import teacher_part
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import rows as rows_lib
from dropoutnet_jax.serving import told_preference

_MOST = 200  # items of a history that are taken away one by one
_ALONE = np.array([0])  # the place of the one user of a part
_FACTORS, _FEATURES, _STATISTICS = 'factors', 'features', 'statistics'
# Of the dense content and of tokens, of one feature.
_Columns = tuple[slice, slice]


class Share(NamedTuple):
  """What an item of a user's history adds to the sparse part of a score.

  Attributes:
    item: the id.
    value: of the score.
    met: whether the user has met it; smoothing and the user's content add
      others to a history.
  """

  item: Any
  value: float
  met: bool


class Loss(NamedTuple):
  """How much lower the towers' part of a score is without one thing.

  Attributes:
    side: 'user' or 'item', whose it is.
    kind: 'feature', 'preference' or 'history'.
    name: of the feature; 'factors', 'features' or 'statistics' of a preference;
      the id of an item of the history.
    value: of the score.
  """

  side: str
  kind: str
  name: Any
  value: float


@dataclasses.dataclass(frozen=True)
class Explanation:
  """What a score is made of; contributions with the largest first.

  Attributes:
    user: the id.
    item: the id.
    score: the whole.
    parts: what it is the sum of: 'towers'; with a sparse part 'tags' and
      'correction' too, what the history says of the item 'itself', and the
      'teacher'.
    tags: (name, value) of what item and history share; they sum to 'tags'.
    history: of the sparse part; they sum to all of it but for 'rest'.
    rest: of the correction and the teacher, of no single item.
    without: of the towers; they do not add up.
  """

  user: Any
  item: Any
  score: float
  parts: dict[str, float]
  tags: list[tuple[str, float]]
  history: list[Share]
  rest: float
  without: list[Loss]


_Valued = TypeVar('_Valued', Share, Loss)


def explain(
    model: recommender_lib.Ranker, user: rows_lib.Rows, item: rows_lib.Rows
) -> Explanation:
  """Explains the score of one user, history included, and one item.

  Args:
    model: of the run.
    user: one row.
    item: one row.
  """
  known = model.row_tables.read('item', item)
  tables = {
      'user': model.row_tables.read('user', user).table,
      'item': known.table,
  }
  tower, part = model.user_parts(user)
  item_tower = model.embed_table('item', known.table)[0]
  weight = 1.0 if part is None else model.scorer.tower_weight
  parts = {'towers': weight * float(tower[0] @ item_tower)}
  met = _met(model, user)
  tags: list[tuple[str, float]] = []
  history: list[Share] = []
  if part is not None:
    row = item.preference_row()
    found = _explain_sparse(model, part, int(row[0]), known.sparse)
    parts |= {'tags': found.dot, 'correction': found.correction}
    if part.history_weight:
      parts['itself'] = found.itself
    shares = dict(found.history)
    if part.teacher is not None:
      liked = part.teacher.liked(row, known.whole)
      of_item = part.teacher_columns(known.sparse, liked)[0]
      parts['teacher'] = float(part.teacher.user_columns(_ALONE)[0] @ of_item)
      for n, value in _teacher_shares(part.teacher, met, of_item):
        shares[n] = shares.get(n, 0.0) + value
    names = model.encoders['item'].sparse_names
    tags = [(names[n], value) for n, value in found.tags]
    tags.sort(key=lambda tag: -abs(tag[1]))
    ids, real = model.problem.item.ids, {*met.indices.tolist()}
    history = _sorted(
        Share(ids[n].item(), value, n in real) for n, value in shares.items()
    )
  rest = sum(parts.values()) - parts['towers']
  return Explanation(
      user.ids[0].item(),
      item.ids[0].item(),
      sum(parts.values()),
      parts,
      tags,
      history,
      rest - sum(share.value for share in history),
      _sorted(
          _without(
              model,
              user,
              tables,
              {'user': tower[0], 'item': item_tower},
              weight,
              met,
          )
      ),
  )


def _sorted(found: Iterable[_Valued]) -> list[_Valued]:
  return sorted(found, key=lambda one: -abs(one.value))


def _met(
    model: recommender_lib.Ranker, user: rows_lib.Rows
) -> scipy.sparse.csr_array:
  """What the user met in training or is told to have met: [1, I]."""
  met = model.row_tables.training_pairs('user', user.preference_row())
  if user.history is not None:
    told = blocks.pattern(user.history)
    more = scipy.sparse.csr_array(told - told.multiply(blocks.pattern(met)))
    more.eliminate_zeros()
    met = rows_lib.joined(met, more)
  met.sort_indices()
  return met


@dataclasses.dataclass(frozen=True)
class _Sparse:
  """The sparse part of a score, by tag and by item of the run."""

  dot: float
  correction: float
  itself: float
  tags: list[tuple[int, float]]
  history: list[tuple[int, float]]


def _explain_sparse(
    model: recommender_lib.Ranker,
    part: sparse_part.SparsePart,
    row: int,
    content: scipy.sparse.csr_array,
) -> _Sparse:
  """Of a user's part, that row alone; row and content [1, T] of an item."""
  divisor = part.correction.divisor
  scale = part.item_scale(content)[0]
  length = scale * part.lengths.of(content)[0]
  own = scipy.sparse.csr_array(content * (length / divisor))
  items = np.unique(part.history.indices)
  weights = part.history[:, items].toarray()[0].astype(np.float64)
  liked = model.problem.item.sparse[items]
  profile = liked.T @ weights
  by_tag = own.data * profile[own.indices]
  by_item = weights * (liked @ own.toarray()[0])
  item_dense = scale * part.item_dense(content)[0].astype(np.float64)
  # The weights of the history hold the lengths of its items already.
  plain = weights / part.lengths.of(liked)
  dense = part.item_dense(liked)
  width = 0 if part.second is None else part.second.width
  signs = np.where(np.arange(dense.shape[1]) < width, 1, -1)
  by_item = by_item + plain * (dense @ (signs * item_dense)) / divisor
  correction = -float(part.user_dense[0] @ item_dense) / divisor
  itself = np.where(items == row, plain * part.history_weight, 0)
  by_item = by_item + itself
  return _Sparse(
      float(by_tag.sum()),
      correction,
      float(itself.sum()),
      list(zip(own.indices.tolist(), by_tag.tolist())),
      list(zip(items.tolist(), by_item.tolist())),
  )


def _teacher_shares(
    teacher: teacher_part.TeacherPart,
    met: scipy.sparse.csr_array,
    of_item: np.ndarray,
) -> list[tuple[int, float]]:
  """What items of a history [1, I] add to the score of one with factors [P]."""
  if not met.nnz:
    return []
  shares = teacher.fold_users.shares(met, of_item)
  return list(zip(met.indices.tolist(), shares.tolist()))


def _without(
    model: recommender_lib.Ranker,
    user: rows_lib.Rows,
    tables: Mapping[str, tables_lib.SideTable],
    emb: Mapping[str, np.ndarray],
    weight: float,
    met: scipy.sparse.csr_array,
) -> list[Loss]:
  """What the towers' part loses where one thing is taken away."""
  whole = float(emb['user'] @ emb['item'])
  found = []
  for side, other in (('user', 'item'), ('item', 'user')):
    names, changed = _take_away(model, side, tables[side])
    if names:
      scores = model.embed_table(side, changed) @ emb[other]
      lost = (weight * (whole - scores)).tolist()
      found += [Loss(side, *name, x) for name, x in zip(names, lost)]
  ids = model.problem.item.ids
  for row, loss in _without_items(
      model, user, tables['user'], emb['item'], met
  ):
    found.append(Loss('user', 'history', ids[row].item(), weight * loss))
  return found


def _take_away(
    model: recommender_lib.Ranker, side: str, table: tables_lib.SideTable
) -> tuple[list[tuple[str, str]], tables_lib.SideTable]:
  """The row of a table without each thing that it has; their kind and name."""
  encoder = model.encoders[side]
  things = {
      name: columns
      for name, columns in _columns(encoder).items()
      if _has(table, columns)
  }
  more = [name for name, has in _preference_parts(table) if has]
  changed = table.select(np.zeros(len(things) + len(more), np.int64))
  for row, columns in enumerate(things.values()):
    for dense, tokens in columns:
      changed.content[row, dense] = 0
      if changed.tokens is not None:
        changed.tokens.id[row, tokens] = 0
        changed.tokens.weight[row, tokens] = 0
    if encoder.scaling == 'row':  # as it is where the feature is missing
      after = np.linalg.norm(changed.content[row])
      changed.content[row] *= np.linalg.norm(table.content) / (after or 1)
  for row, name in enumerate(more, start=len(things)):
    if name == _FACTORS:
      changed.preference[row], changed.present[row] = 0, False
      if changed.trust is not None:  # it is in what is gone
        changed.trust[row] = 1
    elif name == _STATISTICS:
      assert changed.counts is not None
      changed.counts.shown[row], changed.counts.reacted[row] = 0, 0
    else:
      assert changed.features is not None
      own = changed.features
      own.dense[row], own.known[row] = 0, False
      own.tokens.id[row], own.tokens.weight[row] = 0, 0
  names = [('feature', name) for name in things]
  return [*names, *(('preference', name) for name in more)], changed


def _preference_parts(table: tables_lib.SideTable) -> list[tuple[str, bool]]:
  """The parts of the preference, and whether the one row has them."""
  own, counts = table.features, table.counts
  return [
      (_FACTORS, bool(table.present[0])),
      (_FEATURES, own is not None and bool(own.known[0])),
      (_STATISTICS, counts is not None and bool(counts.shown[0, 0])),
  ]


def _columns(encoder: features.Encoder) -> dict[str, list[_Columns]]:
  """Columns of the dense content and of tokens by name of a feature."""
  found: dict[str, list[_Columns]] = {}
  dense = token = 0
  for fitted in encoder.features:
    width = length = 0
    if fitted.encoder is not None:
      width = len(fitted.encoder.dense_names())
    if fitted.tokens is not None:
      length = fitted.tokens.length
    columns = slice(dense, dense + width), slice(token, token + length)
    found.setdefault(fitted.feature.name, []).append(columns)
    dense, token = dense + width, token + length
  return found


def _has(table: tables_lib.SideTable, columns: list[_Columns]) -> bool:
  """Whether the one row of a table has anything in some columns."""
  return any(
      table.content[0, dense].any()
      or (table.tokens is not None and table.tokens.id[0, tokens].any())
      for dense, tokens in columns
  )


def _without_items(
    model: recommender_lib.Ranker,
    user: rows_lib.Rows,
    table: tables_lib.SideTable,
    item_emb: np.ndarray,
    met: scipy.sparse.csr_array,
) -> list[tuple[int, float]]:
  """Rows of items, and how much lower the score is without each in the history.

  None where the preference is not made of a history.
  """
  cfg, tables = model.cfg, model.scorer.tables
  is_mean = cfg.features.preference == 'factors' and (
      not told_preference.can_fold_in(cfg)
  )
  row = user.preference_row()
  has_own = bool(tables.user.select(row).present[0])
  is_fixed = cfg.features.preference == 'none' or (is_mean and has_own)
  if is_fixed or not met.nnz:
    return []
  items = met.indices
  if len(items) > _MOST:  # those most like the item
    known = model.row_tables.read('item', model.items().select(items))
    score = model.embed_table('item', known.table) @ item_emb
    items = np.sort(items[np.argsort(-score, kind='stable')[:_MOST]])
  histories = scipy.sparse.lil_array(
      scipy.sparse.vstack([met] * (len(items) + 1))
  )
  histories[1 + np.arange(len(items)), items] = 0
  is_new = np.repeat(model.row_tables.is_new('user', row), len(items) + 1)
  told = model.row_tables.preference(
      'user', scipy.sparse.csr_array(histories), is_new
  )
  rows = np.arange(len(told.present))
  changed = table.select(np.zeros_like(rows)).with_told(rows, told)
  scores = model.embed_table('user', changed) @ item_emb
  return list(zip(items.tolist(), (scores[0] - scores[1:]).tolist()))
