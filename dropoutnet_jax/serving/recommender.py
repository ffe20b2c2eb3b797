# SPDX-License-Identifier: Apache-2.0
"""A trained run as a ranker: any users, any items, the best k of them.

Users and items are those of the run and new ones, which the run's own encoders
and the same towers embed. Scores are those of the evaluation: both parts of the
embedding, exact products, every candidate. Equal scores go to the candidate
that comes first. Nothing here reads a user's file or prints.
"""

from collections.abc import Iterable, Iterator, Mapping
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
from dropoutnet_jax.data import features
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.evaluation import sparse_file
from dropoutnet_jax.evaluation import sparse_part
from dropoutnet_jax.evaluation import top_k
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.serving import exported
from dropoutnet_jax.serving import row_tables as row_tables_lib
from dropoutnet_jax.serving import rows as rows_lib
from dropoutnet_jax.training import resident
from dropoutnet_jax.training import run_folder
from dropoutnet_jax.training import runtime as runtime_lib

CANDIDATES = ('all', 'new', 'known')
_SCORES = 1 << 26  # of users times items at a time: 256 MB
_CHUNK = 512  # users scored at a time, at most
_BLOCK = 32 * _CHUNK  # users of one table, at most
_PART = 2048  # rows embedded at a time
_FEW = 1 << 18  # candidates that one device ranks as fast as many do
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
class Ranker:
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
    met = blocks.pattern(blocks.take_rows(self.likes, users.row))
    if users.history is not None:
      met = met + users.history
    known = np.flatnonzero(~items.is_new())
    place = scipy.sparse.csr_array(
        (np.ones(len(known), np.float32), (items.row[known], known)),
        shape=(met.shape[1], len(items)),
    )
    return scipy.sparse.csr_array(met @ place)

  @functools.cached_property
  def row_tables(self) -> row_tables_lib.RowTables:
    """What the run says of rows that are asked about."""
    return row_tables_lib.RowTables(
        self.cfg, self.problem, self.scorer.tables, self.encoders, self.likes
    )

  def embed_items(self, items: rows_lib.Rows) -> embeddings.Embedding:
    """Embeddings of items, new ones and histories of their users included."""
    return self._embed_items(items, len(items))

  def candidates(self, items: rows_lib.Rows) -> embeddings.Embedding:
    """The same, for `recommend`: filled up with zeros to one of few sizes."""
    return self._embed_items(items, rows_lib.padded_size(len(items)))

  def _embed_items(
      self, items: rows_lib.Rows, num_rows: int
  ) -> embeddings.Embedding:
    known = self.row_tables.read('item', items)
    missing = num_rows - len(items)
    tower = np.pad(
        self.embed_table('item', known.table), ((0, missing), (0, 0))
    )
    if self.scorer.sparse is None:
      return embeddings.Embedding(jnp.asarray(tower))
    sparse = blocks.with_empty_rows(known.sparse, num_rows)
    rows = np.append(items.preference_row(), np.full(missing, -1))
    likes = known.whole
    if likes is not None:
      likes = blocks.with_empty_rows(likes, num_rows)
    liked = self.scorer.sparse.liked(rows, likes)
    return self.scorer.sparse.embed_items(rows, sparse, tower, liked)

  def embed_users(self, users: rows_lib.Rows) -> embeddings.Embedding:
    """Embeddings of users, new ones and histories included."""
    rows = np.arange(len(users))
    return self.join_users(rows, *self.user_parts(users))

  def recommend(
      self,
      users: rows_lib.Rows,
      items: rows_lib.Rows,
      k: int,
      exclude: scipy.sparse.csr_array | None = None,
      across: embeddings.Embedding | None = None,
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
      across: what `candidates` makes of the items, for callers who keep it.

    Yields:
      The lists of some users after those of others, in their order.

    Raises:
      UserError: if scores are not finite.
      ValueError: if k is below 1, or exclude has another shape.
    """
    parts = self.recommend_parts([(users, exclude)], items, k, across)
    for _, lists in parts:
      yield lists

  def recommend_parts(
      self,
      parts: Iterable[tuple[rows_lib.Rows, scipy.sparse.csr_array | None]],
      items: rows_lib.Rows,
      k: int,
      across: embeddings.Embedding | None = None,
  ) -> Iterator[tuple[rows_lib.Rows, Lists]]:
    """`recommend` for users who come in parts, each with what it excludes.

    Yields:
      A part of the users, and the lists of some of them.
    """
    across = self.candidates(items) if across is None else across
    spread = self._spread(across, len(items))
    most = max(_SCORES // max(len(items), 1), 1)
    size = 0
    for users, exclude in parts:
      wanted = (len(users), len(items))
      if k < 1 or (exclude is not None and exclude.shape != wanted):
        raise ValueError(f'k must be at least 1: {k}; exclude {wanted}.')
      # A smaller part is filled up: nothing is compiled for it.
      size = max(size, min(_CHUNK, most, len(_padded(users.row))))
      block = min(_BLOCK, 32 * size)
      for begin in range(0, len(users), block):
        part = slice(begin, min(begin + block, len(users)))
        some = users.select(part)
        banned = None if exclude is None else exclude[part]
        found = self._rank(some, across, spread, len(items), k, size, banned)
        yield users, Lists(part, *found)

  def _spread(
      self, across: embeddings.Embedding, num_items: int
  ) -> top_k.Catalogue | None:
    """Many candidates on all devices; None for few, or with a sparse part."""
    mesh = parallel.local_mesh()
    if mesh.size == 1 or num_items < _FEW or across.sparse is not None:
      return None
    dense = np.asarray(across.dense)[:num_items]
    # What is not finite is counted where all scores are at hand.
    finite = np.all(np.isfinite(dense))
    return top_k.Catalogue(dense, mesh=mesh) if finite else None

  def _rank(
      self,
      users: rows_lib.Rows,
      across: embeddings.Embedding,
      spread: top_k.Catalogue | None,
      num_items: int,
      k: int,
      size: int,
      exclude: scipy.sparse.csr_array | None,
  ) -> tuple[np.ndarray, np.ndarray]:
    """Items and scores [C, k] of a block of users, `size` scored at a time."""
    tower, part = self.user_parts(users)
    if spread is not None and np.all(np.isfinite(tower)):
      banned = None if exclude is None else _exclusions(exclude)
      score, item = spread.top(tower, k, users_per_chunk=size, exclude=banned)
      return item, score

    def score_rows(rows: np.ndarray) -> jax.Array:
      user = self.join_users(rows, tower, part)
      scores, bad = _score(user, across, num_items)
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

  def user_parts(
      self, users: rows_lib.Rows
  ) -> tuple[np.ndarray, sparse_part.SparsePart | None]:
    """What the tower makes of users [C], and the sparse part of them alone."""
    known = self.row_tables.read('user', users)
    part = self.sparse_of_users(users, known)
    return self.embed_table('user', known.table), part

  def sparse_of_users(
      self, users: rows_lib.Rows, known: row_tables_lib.Known
  ) -> sparse_part.SparsePart | None:
    """The sparse part of users [C] alone, of whom this is known."""
    part, content = self.scorer.sparse, self.problem.item.sparse
    if part is not None:
      part = part.select(users.preference_row())
      if known.more is not None and known.whole is not None:
        part = part.with_more(known.more, known.whole, content)
      part = self._with_expected(part, users, known)
    return part

  def _with_expected(
      self,
      part: sparse_part.SparsePart,
      users: rows_lib.Rows,
      known: row_tables_lib.Known,
  ) -> sparse_part.SparsePart:
    """The part of users [C] with the histories that are expected of them.

    Rows of the run have theirs already, and less of it with what they are told
    beyond training; or another one, where their content is read again.
    """
    if part.expected is None:
      return part
    row, content = users.preference_row(), self.problem.item.sparse
    number = np.diff(self.row_tables.training_pairs('user', row).indptr)
    had = np.where(row >= 0, part.expected.share(number), np.float32(0))
    if known.more is not None:
      number = number + np.diff(known.more.indptr)
    has, is_same = part.expected.share(number), ~users.is_read()
    gone = np.where(is_same, 0, -had)
    part = part.with_expected(gone, self.problem.user.dense[row], content)
    width = known.table.content.shape[1]
    now = known.table.content / resident.entry_scale(self.cfg, width)
    more = has - np.where(is_same, had, 0)
    return part.with_expected(more, now, content)

  def join_users(
      self,
      rows: np.ndarray,
      tower: np.ndarray,
      part: sparse_part.SparsePart | None,
  ) -> embeddings.Embedding:
    """Both parts of the embeddings of rows [C] of `user_parts`."""
    if part is None:
      return embeddings.Embedding(jnp.asarray(tower[rows]))
    content, weight = self.scorer.content, self.scorer.tower_weight
    return part.embed_users(rows, tower[rows], content, weight)

  def embed_table(self, side: str, table: tables_lib.SideTable) -> np.ndarray:
    """What a tower makes of all rows of a table: float32 [N, R].

    Args:
      side: 'user' or 'item'.
      table: of rows of that side, such as those of `row_tables`.
    """
    embedder, variables = self.scorer.embedder, self.scorer.variables
    parts = [np.zeros((0, self.cfg.model.rank), np.float32)]
    for begin in range(0, len(table.present), _PART):
      rows = np.arange(begin, min(begin + _PART, len(table.present)))
      part = table.select(_padded(rows))
      parts.append(embedder(side, variables, part, np.arange(len(rows))))
    return np.concatenate(parts)


def _exclusions(stored: scipy.sparse.csr_array) -> np.ndarray:
  """For `top_k`, what is stored for each user: [C, J] -> int32 [C, L]."""
  user = np.repeat(np.arange(stored.shape[0]), np.diff(stored.indptr))
  return top_k.exclusion_lists(user, stored.indices, stored.shape[0])


@jax.jit
def _score(
    user: embeddings.Embedding, item: embeddings.Embedding, num_items: int
) -> tuple[jax.Array, jax.Array]:
  """Scores [C, J], and how many of them are not finite.

  Only the first `num_items` are candidates; the others get -inf.
  """
  scores = embeddings.score(user, item)
  is_candidate = (jnp.arange(scores.shape[1]) < num_items)[None, :]
  bad = jnp.sum(is_candidate & ~jnp.isfinite(scores))
  return jnp.where(is_candidate, scores, -jnp.inf), bad


def _padded(rows: np.ndarray) -> np.ndarray:
  """Rows [N] and then -1, up to one of few sizes: each is compiled for."""
  missing = rows_lib.padded_size(len(rows)) - len(rows)
  return np.append(rows, np.full(missing, -1))


def load(workdir: str) -> Ranker:
  """The best checkpoint of a run folder, finished or not; or an export.

  It uses one device, whatever the run was trained on.

  Raises:
    UserError: if the folder holds no run or no checkpoint, or a file of it is
      damaged.
  """
  if exported.is_export(workdir):
    return Ranker(*exported.read(workdir))
  cfg = run_folder.load_config(workdir)
  problem = problem_lib.load(workdir)
  part = sparse_file.load(workdir) if cfg.model.sparse.enabled else None
  cfg = dataclasses.replace(cfg, mesh=config.MeshConfig())
  runtime = runtime_lib.build(cfg, problem, part, num_devices=1)
  state = runtime.restore_best(workdir)
  encoders = {side: features.load(workdir, side) for side in _SIDES}
  return Ranker(cfg, problem, runtime.scorer(state), encoders, int(state.step))
