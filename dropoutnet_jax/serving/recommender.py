# SPDX-License-Identifier: Apache-2.0
"""A trained run as a recommender: any users, any items, the best k of them.

Users and items are those of the run and new ones, which the run's own encoders
and the same towers embed. Scores are those of the evaluation: both parts of the
embedding, exact products, every candidate. Equal scores go to the candidate
that comes first. Nothing here reads a user's file or prints.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.data import blocks
from dropoutnet_jax.data import column_types
from dropoutnet_jax.data import features
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.evaluation import sparse_part
from dropoutnet_jax.evaluation import top_k
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.serving import rows as rows_lib
from dropoutnet_jax.serving import told_preference
from dropoutnet_jax.training import resident
from dropoutnet_jax.training import run_folder
from dropoutnet_jax.training import runtime as runtime_lib

CANDIDATES = ('all', 'new', 'known')
_SCORES = 1 << 26  # of users times items at a time: 256 MB
_CHUNK = 512  # users scored at a time, at most
_BLOCK = 32 * _CHUNK  # users of one table, at most
_PART = 2048  # rows embedded at a time
_SIDES = ('user', 'item')


class Lists(NamedTuple):
  """The lists of some of the users that were asked about.

  Attributes:
    users: which of them, C.
    item: int32 [C, k], best first, places among the candidates; -1 fills up
      where there are fewer.
    score: float32 [C, k], descending; -inf where it is filled up.
  """

  users: slice
  item: np.ndarray
  score: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Recommender:
  """A trained run on one device.

  Attributes:
    cfg: its configuration.
    problem: its data.
    scorer: its towers, tables and sparse part.
    encoders: fitted, of 'user' and 'item'.
    step: of the checkpoint.
  """

  cfg: config.Config
  problem: problem_lib.Problem
  scorer: model_scores.Scorer
  encoders: Mapping[str, features.Encoder]
  step: int = 0

  @functools.cached_property
  def likes(self) -> scipy.sparse.csr_array:
    """The training pairs with their weights, [U, I]."""
    return self.problem.likes()

  def users(self) -> rows_lib.Rows:
    """All users of the run."""
    ids = self.problem.user.ids
    return rows_lib.Rows(ids, np.arange(len(ids)))

  def items(self) -> rows_lib.Rows:
    """All items of the run."""
    ids = self.problem.item.ids
    return rows_lib.Rows(ids, np.arange(len(ids)))

  def is_trained(self, items: rows_lib.Rows) -> np.ndarray:
    """bool [J], whether items have training pairs."""
    trained = np.zeros(len(self.problem.item.ids) + 1, bool)
    trained[self.problem.split.train_rows()[1]] = True
    return trained[items.row]  # of a new one the last

  def seen(
      self, users: rows_lib.Rows, items: rows_lib.Rows
  ) -> scipy.sparse.csr_array:
    """Candidates that users know from training or their histories: [N, J]."""
    met = rows_lib.pattern(blocks.take_rows(self.likes, users.row))
    if users.history is not None:
      met = met + users.history
    known = np.flatnonzero(~items.is_new())
    place = scipy.sparse.csr_array(
        (np.ones(len(known), np.float32), (items.row[known], known)),
        shape=(met.shape[1], len(items)),
    )
    return scipy.sparse.csr_array(met @ place)

  def embed_items(self, items: rows_lib.Rows) -> embeddings.Embedding:
    """Embeddings of items, new ones included."""
    table = self.scorer.tables.item.select(items.row)
    table, new_content = self._encode_new('item', items, table)
    tower = self._embed('item', table)
    if self.scorer.sparse is None:
      return embeddings.Embedding(jnp.asarray(tower))
    content = blocks.take_rows(self.problem.item.sparse, items.row)
    if new_content is not None:
      place = np.full(len(items), -1)
      place[items.is_new()] = np.arange(len(new_content))
      content = content + blocks.take_rows(new_content.sparse, place)
    content = scipy.sparse.csr_array(content)
    return self.scorer.sparse.embed_items(content, tower)

  def embed_users(self, users: rows_lib.Rows) -> embeddings.Embedding:
    """Embeddings of users, new ones and histories included."""
    rows = np.arange(len(users))
    return self._join_users(rows, *self._embed_users(users))

  def recommend(
      self,
      users: rows_lib.Rows,
      items: rows_lib.Rows,
      k: int,
      exclude: scipy.sparse.csr_array | None = None,
  ) -> Iterator[Lists]:
    """Ranks all candidates for every user.

    Memory grows with the items and with what is known of the users, not with
    users times items.

    Args:
      users: N, in any order.
      items: J candidates, in any order; of equal scores the first one wins.
      k: items of each user.
      exclude: csr_array [N, J], stored where a user must not get an item, such
        as `seen`.

    Yields:
      The lists of some users after those of others, in their order.

    Raises:
      UserError: if scores are not finite.
      ValueError: if k is below 1, or exclude has another shape.
    """
    wanted = (len(users), len(items))
    if k < 1 or (exclude is not None and exclude.shape != wanted):
      raise ValueError(f'k must be at least 1: {k}; exclude {wanted}.')
    across = self.embed_items(items)
    catalogue = self._spread(across)
    most = max(_SCORES // max(len(items), 1), 1)
    size = min(_CHUNK, most, len(_padded(users.row)))
    block = min(_BLOCK, 32 * size)
    for begin in range(0, len(users), block):
      part = slice(begin, min(begin + block, len(users)))
      banned = None if exclude is None else exclude[part]
      yield Lists(
          part,
          *self._rank(users.select(part), across, catalogue, k, size, banned),
      )

  def _spread(self, across: embeddings.Embedding) -> top_k.Catalogue | None:
    """The candidates on all devices; None for one device, or a sparse part."""
    mesh, dense = parallel.local_mesh(), np.asarray(across.dense)
    if mesh.size == 1 or across.sparse is not None:
      return None
    if not np.all(np.isfinite(dense)):
      return None  # scores are counted that are not finite
    return top_k.Catalogue(dense, mesh=mesh)

  def _rank(
      self,
      users: rows_lib.Rows,
      across: embeddings.Embedding,
      catalogue: top_k.Catalogue | None,
      k: int,
      size: int,
      exclude: scipy.sparse.csr_array | None,
  ) -> tuple[np.ndarray, np.ndarray]:
    """Items and scores [C, k] of a block of users, `size` scored at a time."""
    tower, part = self._embed_users(users)
    if catalogue is not None and np.all(np.isfinite(tower)):
      banned = None if exclude is None else _exclusions(exclude)
      score, item = catalogue.top(
          tower, k, users_per_chunk=size, exclude=banned
      )
      return item, score

    def score_rows(rows: np.ndarray) -> jax.Array:
      scores, bad = _score(self._join_users(rows, tower, part), across)
      if bad:
        raise errors.UserError(
            f'{int(bad)} scores are not finite, for users from '
            f'{users.ids[rows[0]]} on; lists of such scores mean nothing. '
            'Train again with a lower config.train.learning_rate.'
        )
      return scores

    score = np.empty((len(users), k), np.float32)
    item = np.empty((len(users), k), np.int32)
    for begin in range(0, len(users), size):
      rows = np.arange(begin, min(begin + size, len(users)))
      banned = None
      if exclude is not None:
        banned = _exclusions(exclude[rows])
      score[rows], item[rows] = top_k.top_scored(
          score_rows, rows, k, users_per_chunk=size, exclude=banned
      )
    return item, score

  def _embed_users(
      self, users: rows_lib.Rows
  ) -> tuple[np.ndarray, sparse_part.SparsePart | None]:
    """What the towers make of users [C], and the sparse part of them alone."""
    table = self.scorer.tables.user.select(users.row)
    table, _ = self._encode_new('user', users, table)
    more = self._beyond_training(users)
    if more is not None:
      table = self._with_preference(users, table, more)
      number = np.diff(more.indptr)
      table = table.with_reactions(np.arange(len(users)), number)
    part = self.scorer.sparse
    if part is not None:
      part = part.select(users.row)
      if more is not None:
        part = part.with_more(more, self.problem.item.sparse)
    return self._embed('user', table), part

  def _join_users(
      self,
      rows: np.ndarray,
      tower: np.ndarray,
      part: sparse_part.SparsePart | None,
  ) -> embeddings.Embedding:
    """Both parts of the embeddings of rows [C] of `_embed_users`."""
    if part is None:
      return embeddings.Embedding(jnp.asarray(tower[rows]))
    content, weight = self.scorer.content, self.scorer.tower_weight
    return part.embed_users(rows, tower[rows], content, weight)

  def _beyond_training(
      self, users: rows_lib.Rows
  ) -> scipy.sparse.csr_array | None:
    """The part of the users' histories that is no training pair: [C, I]."""
    if users.history is None or not users.history.nnz:
      return None
    trained = rows_lib.pattern(blocks.take_rows(self.likes, users.row))
    told = rows_lib.pattern(users.history)
    more = scipy.sparse.csr_array(told - told.multiply(trained))
    more.eliminate_zeros()
    return more if more.nnz else None

  def _with_preference(
      self,
      users: rows_lib.Rows,
      table: tables_lib.SideTable,
      more: scipy.sparse.csr_array,
  ) -> tables_lib.SideTable:
    """The table of users [C] who have more pairs [C, I] than training knew.

    Features of their preference stay as they are: none of new users.
    """
    if self.cfg.features.preference == 'none':
      return table
    is_told = np.diff(more.indptr) > 0
    if self.cfg.features.preference == 'factors' and (
        not told_preference.can_fold_in(self.cfg)
    ):
      is_told &= ~table.present  # factors say more than a mean
    told = np.flatnonzero(is_told)
    if not len(told):
      return table
    histories = blocks.take_rows(self.likes, users.row[told]) + more[told]
    value, present = told_preference.preference(
        self.cfg, self.problem, self.scorer.tables, 'user', histories
    )
    table = dataclasses.replace(
        table, preference=table.preference.copy(), present=table.present.copy()
    )
    table.preference[told], table.present[told] = value, present
    return table

  def _encode_new(
      self, side: str, rows: rows_lib.Rows, table: tables_lib.SideTable
  ) -> tuple[tables_lib.SideTable, features.Content | None]:
    """The table with the content of new rows, and that content."""
    new = np.flatnonzero(rows.is_new())
    if rows.entities is None or not len(new):
      return table, None
    encoder = self.encoders[side]
    known = column_types.select(rows.entities, new)
    content = encoder.transform(column_types.fill(known, encoder.columns))
    return resident.with_content(self.cfg, table, new, content), content

  def _embed(self, side: str, table: tables_lib.SideTable) -> np.ndarray:
    """What a tower makes of all rows of a table: float32 [N, R]."""
    embedder, variables = self.scorer.embedder, self.scorer.variables
    parts = []
    for rows in np.split(
        np.arange(len(table.present)),
        range(_PART, len(table.present), _PART),
    ):
      part = table.select(_padded(rows))
      parts.append(embedder(side, variables, part, np.arange(len(rows))))
    return np.concatenate(parts)


def _exclusions(stored: scipy.sparse.csr_array) -> np.ndarray:
  """For `top_k`, what is stored for each user: [C, J] -> int32 [C, L]."""
  user = np.repeat(np.arange(stored.shape[0]), np.diff(stored.indptr))
  return top_k.exclusion_lists(user, stored.indices, stored.shape[0])


@jax.jit
def _score(
    user: embeddings.Embedding, item: embeddings.Embedding
) -> tuple[jax.Array, jax.Array]:
  """Scores [C, J], and how many of them are not finite."""
  scores = embeddings.score(user, item)
  return scores, jnp.sum(~jnp.isfinite(scores))


def _padded(rows: np.ndarray) -> np.ndarray:
  """Rows [N] and then -1, up to one of few sizes: each is compiled for."""
  size = max(8, 1 << max(len(rows) - 1, 0).bit_length())
  return np.append(rows, np.full(size - len(rows), -1))


def load(workdir: str) -> Recommender:
  """The best checkpoint of a run folder, finished or not.

  It uses one device, whatever the run was trained on.

  Raises:
    UserError: if the folder holds no run or no checkpoint, or a file of it is
      damaged.
  """
  cfg = run_folder.load_config(workdir)
  problem = problem_lib.load(workdir)
  part = sparse_part.load(workdir) if cfg.model.sparse.enabled else None
  cfg = dataclasses.replace(cfg, mesh=config.MeshConfig())
  runtime = runtime_lib.build(cfg, problem, part, num_devices=1)
  state = runtime.restore_best(workdir)
  encoders = {side: features.load(workdir, side) for side in _SIDES}
  return Recommender(
      cfg, problem, runtime.scorer(state), encoders, int(state.step)
  )
