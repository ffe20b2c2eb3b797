# SPDX-License-Identifier: Apache-2.0
"""How sure scores are: passes of both towers under masks of input dropout.

Each pass masks the inputs of every user and every item anew (`masks`), embeds
them and scores pairs; an item has the same mask for all users of a call. After
Gal & Ghahramani (ICML 2016), who read such passes as draws from an approximate
posterior. Around the score without masks, which stays the mean, their
deviations are taken times a scale, which `calibration` fits to held-out items.

With a sparse part entries of the items' sparse content are masked like dense
ones, and single items of the users' histories like interactions: what is kept
of a history is divided by the share that is kept. The correction follows, on
both sides, and so do factors that content predicts; those of likes stay.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import blocks
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.evaluation import sparse_part
from dropoutnet_jax.evaluation import teacher_part
from dropoutnet_jax.exploring import masks
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.model import input_dropout
from dropoutnet_jax.model import objective
from dropoutnet_jax.model import statistics
from dropoutnet_jax.model import tower_inputs
from dropoutnet_jax.model import towers
from dropoutnet_jax.model import trust

_PART = 2048  # rows embedded at a time, at most
_SIZES = (8, 64, 256, 1024, _PART)  # then powers of two
_NUMBERS = 1 << 26  # of the embeddings of all passes of a call: 256 MB


class Users(NamedTuple):
  """Users whose inputs are masked.

  Attributes:
    table: of C rows, NumPy arrays.
    met: int [C], interactions of each.
    sparse: the sparse part of them alone, or None.
  """

  table: tables_lib.SideTable
  met: np.ndarray
  sparse: sparse_part.SparsePart | None = None


class Items(NamedTuple):
  """Items whose inputs are masked.

  Attributes:
    table: of J rows, NumPy arrays.
    met: int [J], interactions of each.
    row: int [J], their rows in the run; -1 for new ones.
    sparse: csr_array float32 [J, T], their sparse content.
    likes: as of `teacher_part.TeacherPart.liked`.
  """

  table: tables_lib.SideTable
  met: np.ndarray
  row: np.ndarray
  sparse: scipy.sparse.csr_array
  likes: scipy.sparse.csr_array | None = None


class Uncertainty:
  """Makes passes of a trained model."""

  def __init__(self, cfg: config.Config, scorer: model_scores.Scorer):
    """Compiles nothing yet.

    Args:
      cfg: of the run.
      scorer: its model.

    Raises:
      UserError: if the run was trained without input dropout, and for an
        export.
    """
    if not scorer.embedder.has_model:
      raise errors.UserError(
          'With spread masks ucb and thompson look at scores under masks, and '
          'an export has no towers that masks of input dropout fit into. Use '
          'the run that it was made of, spread belief, or policy greedy or '
          'epsilon.'
      )
    self._cfg, self._scorer = cfg, scorer
    self._rates = masks.rates_of(cfg, scorer.tables)
    self._embed_side = {
        side: make_embed(
            scorer.embedder.model,
            side,
            self._rates.of(side),
            cfg.features.scaling == 'row',
        )
        for side in ('user', 'item')
    }

  def most_items(self, num_passes: int) -> int:
    """Items of a call of `passes`, so that their embeddings fit."""
    return max(_NUMBERS // (num_passes * max(self._cfg.model.rank, 1)), 1)

  def passes(
      self,
      users: Users,
      items: Items,
      pool: np.ndarray,
      num_passes: int,
      seed: int,
  ) -> np.ndarray:
    """Scores of pairs under masks.

    Args:
      users: C.
      items: J.
      pool: int [C, P], places among the items that are scored for each user.
      num_passes: T.
      seed: of the masks.

    Returns:
      float32 [T, C, P], as they come: neither centred nor scaled.
    """
    keys = jax.random.split(jax.random.key(seed), 2)
    user = self._embed('user', users.table, users.met, keys[0], num_passes)
    item = self._embed('item', items.table, items.met, keys[1], num_passes)
    liked = self._liked(items, item.shape[1])
    found = np.empty((num_passes, *pool.shape), np.float32)
    for number in range(num_passes):
      rng = np.random.default_rng([seed, number])
      scores = _score(
          self._join_users(users, user[number], rng),
          self._join_items(items, liked, item[number], rng),
      )
      scores = np.asarray(scores)[: len(pool)]
      found[number] = np.take_along_axis(scores, pool, axis=1)
    return found

  def _embed(
      self,
      side: str,
      table: tables_lib.SideTable,
      count: np.ndarray,
      key: jax.Array,
      num_passes: int,
  ) -> np.ndarray:
    """Of all rows under masks: [T, size, R], filled up to one of few sizes."""
    size = padded_size(len(count))
    found = np.empty((num_passes, size, self._cfg.model.rank), np.float32)
    embed, part = self._embed_side[side], min(size, _PART)
    found[:, len(count) :] = 0
    for number, begin in enumerate(range(0, len(count), part)):
      rows = np.arange(begin, begin + part)
      rows = np.where(rows < len(count), rows, -1)
      some = jax.tree.map(jnp.asarray, table.select(rows))
      met = np.where(rows >= 0, count[rows], 0).astype(np.int32)
      keys = jax.random.split(jax.random.fold_in(key, number), num_passes)
      parts = [embed(self._scorer.variables, some, met, one) for one in keys]
      found[:, begin : begin + part] = np.stack(parts)
    return found

  def _join_users(
      self, users: Users, tower: np.ndarray, rng: np.random.Generator
  ) -> embeddings.Embedding:
    part, scorer = users.sparse, self._scorer
    if part is None or scorer.content is None:
      return embeddings.Embedding(jnp.asarray(tower))
    part = self._masked_histories(part, rng)
    part = part.select(_filled_up(np.arange(len(users.met)), len(tower)))
    return part.embed_users(
        np.arange(len(tower)), tower, scorer.content, scorer.tower_weight
    )

  def _masked_histories(
      self, part: sparse_part.SparsePart, rng: np.random.Generator
  ) -> sparse_part.SparsePart:
    """Both sides of the part, which are linear in the history."""
    rate, history = self._rates.user, part.history
    values = history.data[: history.nnz]
    factor = (rng.random(history.nnz) >= rate) / (1 - rate)
    kept = values * factor.astype(np.float32)
    change = (kept - values) / self._lengths[history.indices[: history.nnz]]
    more = masks.with_values(history, change) @ self._item_dense
    # As in the part: what is added of the second kernel has the other sign.
    more[:, : 0 if part.second is None else part.second.width] *= -1
    return dataclasses.replace(
        part,
        history=masks.with_values(history, kept),
        user_dense=(part.user_dense + more).astype(np.float32),
    )

  @functools.cached_property
  def _lengths(self) -> np.ndarray:
    """Of the items of the run, [I]."""
    part, content = self._scorer.sparse, self._scorer.content
    assert part is not None and content is not None
    return part.lengths.of(content)

  @functools.cached_property
  def _item_dense(self) -> np.ndarray:
    """What is summed over histories, of the items of the run: [I, F + k]."""
    part, content = self._scorer.sparse, self._scorer.content
    assert part is not None and content is not None
    return part.item_dense(content)

  def _liked(self, items: Items, size: int) -> teacher_part.Liked | None:
    """The same in all passes, of all rows of one of few sizes."""
    part, likes = self._scorer.sparse, items.likes
    if part is None:
      return None
    if likes is not None:
      likes = blocks.with_empty_rows(likes, size)
    return part.liked(_filled_up(items.row, size), likes)

  def _join_items(
      self,
      items: Items,
      liked: teacher_part.Liked | None,
      tower: np.ndarray,
      rng: np.random.Generator,
  ) -> embeddings.Embedding:
    part = self._scorer.sparse
    if part is None:
      return embeddings.Embedding(jnp.asarray(tower))
    masked = masks.sparse_content(rng, items.sparse, items.met)
    masked.resize((len(tower), masked.shape[1]))
    row = _filled_up(items.row, len(tower))
    return part.embed_items(row, masked, tower, liked)


def _filled_up(rows: np.ndarray, size: int) -> np.ndarray:
  """Rows [N] and then -1: int [size]."""
  return np.append(rows, np.full(size - len(rows), -1))


def make_embed(
    model: towers.TwoTower, side: str, rate: float, keeps_norm: bool
) -> Callable[..., jax.Array]:
  """A jitted (variables, table, count [B], key) -> float32 [B, R].

  Of one pass, so that nothing is compiled for their number.
  """

  @jax.jit
  def embed(
      variables: Any,
      table: tables_lib.SideTable,
      count: jax.Array,
      key: jax.Array,
  ) -> jax.Array:
    rows = jnp.arange(len(count))
    own = objective.preference(table, rows)
    of_preference, of_content = jax.random.split(key)
    masked, masked_state = masks.preference(of_preference, own, count, rate)
    content = masks.content(
        of_content, tower_inputs.content(table, rows), count, keeps_norm
    )

    def in_state(state: int) -> jax.Array:
      is_dropped = state == input_dropout.DROPPED
      preference = tower_inputs.preference(
          table,
          rows,
          masked,
          masked,
          jnp.full(rows.shape, state) if is_dropped else masked_state,
          counted=statistics.whole(table, rows),
      )
      with jax.default_matmul_precision('highest'):
        embedding: Any = model.apply(
            variables, preference, content, method=f'embed_{side}s'
        )
      return embedding.dense

    return trust.blended(in_state, table, rows, model.settings.normalize)

  return embed


@jax.jit
def _score(user: embeddings.Embedding, item: embeddings.Embedding) -> jax.Array:
  return embeddings.score(user, item)


def padded_size(count: int) -> int:
  """One of few sizes that holds so many rows, each of which is compiled for."""
  few = [size for size in _SIZES if size >= count]
  return few[0] if few else 1 << (count - 1).bit_length()


def centred(mean: np.ndarray, passes: np.ndarray, scale: float) -> np.ndarray:
  """Draws of scores around their mean.

  Args:
    mean: float32 [C, P], without masks.
    passes: float32 [T, C, P].
    scale: of their deviations.

  Returns:
    float32 [T, C, P], whose average is the mean and whose population variance
    is scale^2 times the sample variance of the passes, whatever T is.
  """
  count = len(passes)
  if count < 2:
    return np.repeat(mean[None], count, axis=0)
  factor = np.float32(scale * (count / (count - 1)) ** 0.5)
  return mean + factor * (passes - passes.mean(axis=0))
