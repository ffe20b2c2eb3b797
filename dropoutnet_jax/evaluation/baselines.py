# SPDX-License-Identifier: Apache-2.0
"""The simple methods beside the model in every table.

Each is a `protocol.Method` over a problem. A method that knows nothing of a
quadrant gives constant scores there, which counts as chance.
"""

from collections.abc import Callable
import copy

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import ease
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.model import embeddings

_HELD_SHARE = 0.2  # of the training items
_LINEAR_LAMBDAS = 10.0 ** np.arange(-2, 5)


def make_random(seed: int) -> protocol.Method:
  """Uniform scores, a function of (seed, user row, candidate)."""
  key = jax.random.key(seed)

  def method(quadrant: str, held_out: schema.EvaluationSet) -> protocol.ScoreFn:
    del quadrant
    size = len(held_out.candidates)

    @jax.jit
    def score(rows: jax.Array) -> jax.Array:
      draw = lambda row: jax.random.uniform(
          jax.random.fold_in(key, row), (size,)
      )
      return jax.vmap(draw)(rows)

    return score

  return method


def make_popularity(problem: problem_lib.Problem) -> protocol.Method:
  """Number of training pairs of the candidate."""
  count = problem.like_counts()[1].astype(np.float32)

  def method(quadrant: str, held_out: schema.EvaluationSet) -> protocol.ScoreFn:
    del quadrant
    of_candidate = count[held_out.candidates]
    return lambda rows: np.tile(of_candidate, (len(rows), 1))

  return method


def ideal_popularity(
    quadrant: str, held_out: schema.EvaluationSet
) -> protocol.ScoreFn:
  """Number of held-out pairs of the candidate, which no method can know.

  A bound of what one list for everybody can reach, though not a strict one:
  the best list for a mean over users need not be in the order of the counts.
  """
  del quadrant
  count = np.bincount(held_out.item, minlength=held_out.candidates.max() + 1)
  of_candidate = count[held_out.candidates].astype(np.float32)
  return lambda rows: np.tile(of_candidate, (len(rows), 1))


class ContentKnn:
  """A `protocol.Method`: cosine neighbours in the sparse content.

  A user is the sum of the content of her history; a new one borrows the
  history of all training users, weighted by the cosine of their content. Warm
  candidates of a new user are scored by those histories directly, all others
  by content.

  Weights of the items' content are taken as they are or squared, whichever
  ranks held-out training items better: neighbours want the full inverse
  document frequency where content ridge wants its root.
  """

  def __init__(
      self, problem: problem_lib.Problem, settings: config.EvaluationConfig
  ):
    self._problem, self._settings = problem, settings
    self._likes = self._own = problem.likes()
    self._item: scipy.sparse.csr_array | None = None
    self._power = 0

  def told(
      self, rows: np.ndarray, shown: scipy.sparse.csr_array
  ) -> 'ContentKnn':
    """The same where new users [C] have histories [C, I] of their own."""
    other = copy.copy(self)
    other._own = protocol.with_rows(self._likes, rows, shown)
    return other

  def __call__(
      self, quadrant: str, held_out: schema.EvaluationSet
  ) -> protocol.ScoreFn:
    if self._item is None:
      self._item = self._choose_content()
    likes, item = self._likes, self._item
    user = self._problem.user.sparse
    content = item[held_out.candidates].T.tocsr()
    by_content = lambda history: _dense((history @ item) @ content)

    def score(rows: np.ndarray) -> np.ndarray:
      own = self._own[rows]
      if quadrant not in ('cold_user', 'cold_both'):
        return by_content(own)
      history = (user[rows] @ user.T) @ likes
      if quadrant == 'cold_both':
        borrowed = by_content(history)
      else:
        borrowed = _dense(history[:, held_out.candidates])
      has_own = np.diff(own.indptr) > 0
      if not has_own.any():
        return borrowed
      return np.where(has_own[:, None], by_content(own), borrowed)

    return score

  def chosen(self) -> dict[str, int]:
    """The power of the weights, for results.json."""
    return {'power': self._power}

  def _choose_content(self) -> scipy.sparse.csr_array:
    train = self._problem.split.train
    rng = np.random.default_rng(0)
    items = np.unique(train.item)
    held = np.sort(rng.permutation(items)[: round(_HELD_SHARE * len(items))])
    is_held = np.isin(train.item, held)
    kept = train.select(~is_held).matrix(*self._likes.shape)
    held_out = schema.EvaluationSet(
        train.user[is_held], train.item[is_held], held
    )
    best, best_content = -1.0, self._problem.item.sparse
    for power in (1, 2) if len(held_out) else (1,):
      content = _raised(self._problem.item.sparse, power)
      across = content[held].T.tocsr()
      found = protocol.evaluate(
          lambda rows: _dense((kept[rows] @ content) @ across),
          held_out,
          kept,
          self._settings,
          'content_knn on held-out training items',
      )
      value = found[f'ndcg@{min(self._settings.cutoffs)}']
      if value > best:
        best, best_content, self._power = value, content, power
    return best_content


def _raised(
    content: scipy.sparse.csr_array, power: int
) -> scipy.sparse.csr_array:
  """Content [N, T] with weights to a power, rows of norm 1 or empty."""
  raised = content.power(power)
  norm = np.sqrt(raised.multiply(raised).sum(axis=1))
  scale = 1.0 / np.where(norm > 0, norm, 1.0)
  raised.data *= np.repeat(scale, np.diff(raised.indptr))
  return scipy.sparse.csr_array(raised, dtype=np.float32)


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

  def method(quadrant: str, held_out: schema.EvaluationSet) -> protocol.ScoreFn:
    cold_user = quadrant in ('cold_user', 'cold_both')
    left = user if cold_user else factors.user
    right = factors.item if quadrant == 'cold_user' else item
    return _dot(left, right[held_out.candidates])

  return method


def make_teacher(problem: problem_lib.Problem) -> protocol.Method:
  """The teacher's own scores; chance where it has no factors."""
  factors = problem.factors

  def method(quadrant: str, held_out: schema.EvaluationSet) -> protocol.ScoreFn:
    del quadrant
    return _dot(factors.user, factors.item[held_out.candidates])

  return method


class Ease:
  """A `protocol.Method`: EASE on the training pairs; it knows no content.

  A new user counts once it is told what she met; new items get 0.
  """

  def __init__(self, problem: problem_lib.Problem, l2: float):
    """Raises UserError where users and items are too many for it."""
    likes = problem.likes()
    self._own = likes
    users, self._items = problem.split.train_rows()
    ease.check_size(len(users), len(self._items))
    self._likes = likes[users][:, self._items]
    self._l2 = l2

  def told(self, rows: np.ndarray, shown: scipy.sparse.csr_array) -> 'Ease':
    """The same where new users [C] have histories [C, I] of their own."""
    other = copy.copy(self)
    other._own = protocol.with_rows(self._own, rows, shown)
    return other

  def __call__(
      self, quadrant: str, held_out: schema.EvaluationSet
  ) -> protocol.ScoreFn:
    del quadrant
    candidates = held_out.candidates
    is_known = np.isin(candidates, self._items)
    if not is_known.any():
      return lambda rows: np.zeros((len(rows), len(candidates)), np.float32)
    # Anew for each set, and freed with it: it may take gigabytes.
    smoother = ease.fit(self._likes, self._l2)
    histories = scipy.sparse.csr_array(self._own[:, self._items])
    place = np.searchsorted(self._items, candidates[is_known])

    def score(rows: np.ndarray) -> np.ndarray:
      scores = np.zeros((len(rows), len(candidates)), np.float32)
      scores[:, is_known] = smoother.predict(histories[rows])[:, place]
      return scores

    return score


def make_oracle(truth: np.ndarray) -> protocol.Method:
  """True scores [U, I] of a synthetic world."""

  def method(quadrant: str, held_out: schema.EvaluationSet) -> protocol.ScoreFn:
    del quadrant
    return lambda rows: truth[np.ix_(rows, held_out.candidates)]

  return method


def _dot(
    left: np.ndarray, right: np.ndarray
) -> Callable[[np.ndarray], jax.Array]:
  items = jnp.asarray(right)
  return lambda rows: embeddings.dense_scores(jnp.asarray(left[rows]), items)


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
