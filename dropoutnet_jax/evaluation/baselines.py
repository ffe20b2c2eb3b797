# SPDX-License-Identifier: Apache-2.0
"""The simple methods beside the model in every table.

Each is a `protocol.Method` over a problem. A method that knows nothing of a
quadrant gives constant scores there, which counts as chance.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import protocol

_LINEAR_LAMBDAS = 10.0 ** np.arange(-2, 5)


def make_random(seed: int) -> protocol.Method:
  """Uniform scores, a function of (seed, user row, candidate)."""
  key = jax.random.key(seed)

  def method(
      quadrant: str, held_out: schema.EvaluationSet
  ) -> protocol.ScoreFn:
    del quadrant
    size = len(held_out.candidates)

    @jax.jit
    def score(rows: jax.Array) -> jax.Array:
      draw = lambda row: jax.random.uniform(jax.random.fold_in(key, row), size)
      return jax.vmap(draw)(rows)

    return score

  return method


def make_popularity(problem: problem_lib.Problem) -> protocol.Method:
  """Number of training pairs of the candidate."""
  count = np.bincount(
      problem.split.train.item, minlength=len(problem.item.ids)
  ).astype(np.float32)

  def method(
      quadrant: str, held_out: schema.EvaluationSet
  ) -> protocol.ScoreFn:
    del quadrant
    of_candidate = count[held_out.candidates]
    return lambda rows: np.tile(of_candidate, (len(rows), 1))

  return method


def make_content_knn(problem: problem_lib.Problem) -> protocol.Method:
  """Cosine neighbours in the sparse content.

  A warm user is the sum of the content of her history; a new user borrows the
  history of all training users, weighted by the cosine of their content.
  Warm candidates of a new user are scored by those histories directly, all
  others by content.
  """
  likes = problem.likes()
  user, item = problem.user.sparse, problem.item.sparse

  def method(
      quadrant: str, held_out: schema.EvaluationSet
  ) -> protocol.ScoreFn:
    content = item[held_out.candidates].T.tocsr()

    def score(rows: np.ndarray) -> np.ndarray:
      history = likes[rows]
      if quadrant in ('cold_user', 'cold_both'):
        history = (user[rows] @ user.T) @ likes
      if quadrant == 'cold_user':
        return _dense(history[:, held_out.candidates])
      return _dense((history @ item) @ content)

    return score

  return method


def _dense(matrix: scipy.sparse.csr_array) -> np.ndarray:
  return matrix.toarray().astype(np.float32)


def make_linear_content(problem: problem_lib.Problem) -> protocol.Method:
  """Ridge regression from dense content to the teacher's factors.

  Cold sides use predicted factors, warm sides the teacher's own; on `warm`
  items are predicted too, so the table shows what content alone knows.
  """
  factors = problem.factors
  train_users, train_items = problem.split.train_rows()
  user = predict_factors(problem.user.dense, factors.user, train_users)
  item = predict_factors(problem.item.dense, factors.item, train_items)

  def method(
      quadrant: str, held_out: schema.EvaluationSet
  ) -> protocol.ScoreFn:
    cold_user = quadrant in ('cold_user', 'cold_both')
    left = user if cold_user else factors.user
    right = factors.item if quadrant == 'cold_user' else item
    return _dot(left, right[held_out.candidates])

  return method


def make_teacher(problem: problem_lib.Problem) -> protocol.Method:
  """The teacher's own scores; chance where it has no factors."""
  factors = problem.factors

  def method(
      quadrant: str, held_out: schema.EvaluationSet
  ) -> protocol.ScoreFn:
    del quadrant
    return _dot(factors.user, factors.item[held_out.candidates])

  return method


def make_oracle(truth: np.ndarray) -> protocol.Method:
  """True scores [U, I] of a synthetic world."""

  def method(
      quadrant: str, held_out: schema.EvaluationSet
  ) -> protocol.ScoreFn:
    del quadrant
    return lambda rows: truth[np.ix_(rows, held_out.candidates)]

  return method


def _dot(
    left: np.ndarray, right: np.ndarray
) -> Callable[[np.ndarray], jax.Array]:
  items = jnp.asarray(right.T)
  return lambda rows: jnp.asarray(left[rows]) @ items


def predict_factors(
    content: np.ndarray, factors: np.ndarray, train_rows: np.ndarray
) -> np.ndarray:
  """Ridge from content [N, F] to factors [N, P]: predictions float32 [N, P].

  Lambda minimises the leave-one-out error over training rows, in closed form
  from one eigendecomposition of the F x F Gram matrix.

  Args:
    content: dense content of all rows; F may be 0 (predicts the mean).
    factors: the teacher's.
    train_rows: int [M], rows to fit on.
  """
  features = np.hstack([content, np.ones((len(content), 1), np.float32)])
  x, y = features[train_rows], factors[train_rows]
  values, vectors = np.linalg.eigh((x.T @ x).astype(np.float64))
  rotated = (x @ vectors.astype(np.float32)).astype(np.float32)
  moments = rotated.T @ y
  best, coefficients = np.inf, np.zeros_like(moments)
  for strength in _LINEAR_LAMBDAS:
    shrunk = 1.0 / (np.maximum(values, 0.0) + strength)
    candidate = (shrunk[:, None] * moments).astype(np.float32)
    leverage = (rotated**2) @ shrunk.astype(np.float32)
    left_out = (y - rotated @ candidate) / (1.0 - leverage)[:, None]
    error = float(np.mean(left_out**2))
    if error < best:
      best, coefficients = error, candidate
  weights = vectors.astype(np.float32) @ coefficients
  return (features @ weights).astype(np.float32)
