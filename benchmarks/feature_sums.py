# SPDX-License-Identifier: Apache-2.0
"""A hybrid of feature embeddings, to compare with: what LightFM is.

A user or an item is the sum of the embeddings and biases of its features, its
own id among them (Kula, "Metadata Embeddings for User and Item Cold-start
Recommendations", 2015). It learns to rank by WARP (Weston, Bengio & Usunier,
IJCAI 2011): of some drawn items the first that violates the margin counts, the
more the sooner it was found. A new row has no id: its content is all it is.

Written from the papers, with batches where LightFM takes one pair at a time.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.sparse

from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import protocol

_DRAWN = 10  # items per pair, of which the first violation counts
_BATCH = 512

_Params = dict[str, dict[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is chosen on validation sets.

  Attributes:
    rank: of the embeddings.
    learning_rate: of Adagrad.
    l2: on the embeddings that a batch uses, per row.
    num_epochs: over all training pairs.
  """

  rank: int = 32
  learning_rate: float = 0.05
  l2: float = 0.0
  num_epochs: int = 60


@dataclasses.dataclass(frozen=True)
class FeatureSums:
  """Embeddings with a last column for the bias: users [U, R + 2], items."""

  user: np.ndarray
  item: np.ndarray

  def method(
      self, quadrant: str, held_out: schema.EvaluationSet
  ) -> protocol.ScoreFn:
    """Its scores, as a `protocol.Method`."""
    del quadrant
    across = self.item[held_out.candidates].T
    return lambda rows: self.user[rows] @ across


def features(problem: problem_lib.Problem, side: str) -> np.ndarray:
  """Content beside the id, which only rows with training pairs have.

  Returns:
    float32 [N, F + N], rows that sum to 1 in magnitude.
  """
  own: Any = getattr(problem, side)
  users, items = problem.split.train_rows()
  known = np.zeros(len(own.ids), np.float32)
  known[users if side == 'user' else items] = 1
  content = own.sparse
  both = scipy.sparse.hstack([content, scipy.sparse.diags_array(known)])
  dense = both.toarray().astype(np.float32)
  total = np.abs(dense).sum(axis=1, keepdims=True)
  return dense / np.maximum(total, 1e-12)


def fit(
    problem: problem_lib.Problem, settings: Settings, seed: int
) -> FeatureSums:
  """Trains on the likes; other columns of the interactions are not used."""
  likes = problem.likes().toarray() > 0
  pairs = np.argwhere(likes)
  _, items = problem.split.train_rows()
  x = {side: jnp.asarray(features(problem, side)) for side in ('user', 'item')}
  optimizer = optax.adagrad(settings.learning_rate)
  params = _init(x, settings.rank, jax.random.key(seed))
  state = optimizer.init(params)
  step = jax.jit(
      functools.partial(
          _step,
          x,
          jnp.asarray(likes),
          jnp.asarray(items),
          optimizer,
          settings.l2,
      )
  )
  for epoch in range(settings.num_epochs):
    key = jax.random.fold_in(jax.random.key(seed + 1), epoch)
    order = np.asarray(jax.random.permutation(key, len(pairs)))
    for number in range(max(len(pairs) // _BATCH, 1)):
      rows = pairs[order[number * _BATCH : (number + 1) * _BATCH]]
      params, state = step(
          params, state, jax.random.fold_in(key, number), jnp.asarray(rows)
      )
  return FeatureSums(*(np.asarray(_sums(params, x, side)) for side in x))


def _init(x: dict[str, jax.Array], rank: int, key: jax.Array) -> _Params:
  """Small embeddings and no biases, as LightFM begins."""
  params = {}
  for number, (side, own) in enumerate(x.items()):
    draw = jax.random.uniform(
        jax.random.fold_in(key, number), (own.shape[1], rank), minval=-0.5
    )
    params[side] = {
        'embedding': (draw - 0.25) * 2 / rank,
        'bias': jnp.zeros(own.shape[1]),
    }
  return params


def _sums(params: _Params, x: dict[str, jax.Array], side: str) -> jax.Array:
  """Both sides with the bias of the other as a 1: their dot is the score."""
  own = x[side] @ params[side]['embedding']
  bias = (x[side] @ params[side]['bias'])[:, None]
  one = jnp.ones_like(bias)
  parts = [own, bias, one] if side == 'user' else [own, one, bias]
  return jnp.concatenate(parts, axis=1)


def warp_loss(
    positive: jax.Array, drawn: jax.Array, allowed: jax.Array, num_items: int
) -> jax.Array:
  """WARP of pairs [B] against drawn items [B, S], in their order.

  The first drawn item that is allowed and within the margin of 1 is pushed
  down, weighted by the log of the rank that finding it so soon speaks for.
  """
  violates = allowed & (drawn > positive[:, None] - 1)
  first = jnp.argmax(violates, axis=1)
  rank = (num_items - 1) // (first + 1)
  weight = jnp.log(jnp.maximum(rank, 1).astype(jnp.float32))
  negative = jnp.take_along_axis(drawn, first[:, None], axis=1)[:, 0]
  loss = weight * (1 - positive + negative)
  return jnp.mean(jnp.where(violates.any(axis=1), loss, 0))


def _step(
    x: dict[str, jax.Array],
    likes: jax.Array,
    items: jax.Array,
    optimizer: optax.GradientTransformation,
    l2: float,
    params: _Params,
    state: Any,
    key: jax.Array,
    pairs: jax.Array,
) -> tuple[_Params, Any]:
  user, item = pairs.T
  drawn = items[jax.random.randint(key, (len(user), _DRAWN), 0, len(items))]
  allowed = ~likes[user[:, None], drawn]

  def loss(params: _Params) -> jax.Array:
    left = _sums(params, {'user': x['user'][user]}, 'user')
    every = _sums(params, x, 'item')
    positive = jnp.sum(left * every[item], axis=1)
    others = jnp.einsum('br,bsr->bs', left, every[drawn])
    size = jnp.mean(jnp.sum(left**2, 1)) + jnp.mean(jnp.sum(every**2, 1))
    return warp_loss(positive, others, allowed, len(items)) + l2 * size

  updates, state = optimizer.update(jax.grad(loss)(params), state, params)
  return optax.apply_updates(params, updates), state
