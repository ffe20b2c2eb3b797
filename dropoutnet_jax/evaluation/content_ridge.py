# SPDX-License-Identifier: Apache-2.0
"""Content ridge: kernel ridge of histories on sparse content, closed form.

A history r over training items scores new items as r (K + lambda I)^-1 K_new,
with K = C C' and K_new = C C_new' the dot products of content rows of norm 1.
The same from the users' side: content of a new user predicts her history, and
the two compose where both are new.

The dual form, here, is exact and solves with K in place. Beyond `max_gram` rows
with content the rank-k form of `woodbury.py` takes over, or, where a tolerance
is given, the conjugate gradients of `split_ridge.py`.

All in float32; here on the host, by LAPACK. The module knows content, likes and
histories, but no files, features or splits.
"""

import collections
from collections.abc import Iterator, Sequence
import dataclasses
from typing import TypeAlias

import numpy as np
import scipy.linalg.lapack
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax.evaluation import dual_form
from dropoutnet_jax.evaluation import ease
from dropoutnet_jax.evaluation import metrics
from dropoutnet_jax.evaluation import split_ridge
from dropoutnet_jax.evaluation import woodbury


@dataclasses.dataclass(frozen=True)
class Solver:
  """How large a system is solved exactly, and what takes over above that.

  Attributes:
    max_gram: most training rows with content for a Cholesky of K; EASE has
      the same limit.
    rank: k of the Woodbury form beyond it.
    seed: of its random start.
    tolerance: of conjugate gradients instead of that form; 0 for none.
  """

  max_gram: int = ease.MAX_GRAM
  rank: int = 1000
  seed: int = 0
  tolerance: float = 0.0


@dataclasses.dataclass(frozen=True)
class DualRidge:
  """The exact form, for a fixed set of candidates.

  Rows and candidates without content have no part in it: they score 0.

  Attributes:
    weights: float32 [rows, columns], (K + lambda I)^-1 K_new.
    rows: int [N], training rows that have content.
    columns: int [N], candidates that have content.
    num_candidates: candidates in all, J.
  """

  weights: np.ndarray
  rows: np.ndarray
  columns: np.ndarray
  num_candidates: int

  def scores(self, histories: ease.Histories) -> np.ndarray:
    """Scores float32 [N, J] of histories [N, I] over the training rows."""
    result = np.zeros((histories.shape[0], self.num_candidates), np.float32)
    result[:, self.columns] = histories[:, self.rows] @ self.weights
    return result

  def histories(
      self, likes: scipy.sparse.csr_array, candidates: slice
  ) -> np.ndarray:
    """What new rows would like, from what the training rows like.

    Args:
      likes: float32 [U, I]; the training rows are its users.
      candidates: which of the candidates, here new users.

    Returns:
      float32 [N, I].
    """
    first, last = np.searchsorted(
        self.columns, (candidates.start, candidates.stop)
    )
    result = np.zeros(
        (candidates.stop - candidates.start, likes.shape[1]), np.float32
    )
    predicted = self.weights[:, first:last].T @ likes[self.rows]
    result[self.columns[first:last] - candidates.start] = predicted
    return result


@dataclasses.dataclass(frozen=True)
class FactorRidge(dual_form.DualForm):
  """The exact form where candidates are as many as the training rows.

  Keeps the Cholesky factor and solves for each chunk of histories: one matrix
  of [I, I] and no other of [I, J].

  Attributes:
    factor: float32 [N, N], of K + lambda I, in its lower triangle.
  """

  factor: np.ndarray

  def solve(self, right: np.ndarray) -> np.ndarray:
    """By the factor."""
    return scipy.linalg.lapack.spotrs(self.factor, right, lower=1)[0]


ContentRidge: TypeAlias = (
    DualRidge
    | FactorRidge
    | woodbury.WoodburyRidge
    | split_ridge.ConjugateRidge
)


def dual_weights(
    content: scipy.sparse.csr_array,
    candidates: scipy.sparse.csr_array,
    regularizations: Sequence[float],
) -> Iterator[np.ndarray]:
  """(K + lambda I)^-1 K_new for each lambda, from one I x I buffer.

  Args:
    content: float32 [I, T] of the training rows.
    candidates: float32 [J, T].
    regularizations: the lambdas.

  Yields:
    float32 [I, J] in Fortran order, one per lambda.

  Raises:
    UserError: if a lambda is too small for float32.
  """
  gram = ease.dot_products(content, content)
  squared_norm = gram.diagonal().copy()
  for number, regularization in enumerate(regularizations):
    if number:  # the factor took the lower triangle; the upper one is still K
      ease.mirror(gram.T)
    np.fill_diagonal(gram, squared_norm + np.float32(regularization))
    factor = ease.factorize(gram)
    target = ease.dot_products(content, candidates)
    yield scipy.linalg.lapack.spotrs(factor, target, lower=1, overwrite_b=1)[0]


def fit_each(
    content: scipy.sparse.csr_array,
    candidates: scipy.sparse.csr_array,
    regularizations: Sequence[float],
    solver: Solver = Solver(),
) -> list[ContentRidge]:
  """One content ridge per lambda, sharing what does not depend on it.

  Args:
    content: float32 [I, T] of the training rows, rows of norm 1 or empty.
    candidates: float32 [J, T] of the rows to score.
    regularizations: the lambdas.
    solver: which form is taken.

  Raises:
    UserError: if no training row has content, the widths differ, or a lambda
      is not positive or too small for float32.
  """
  _check(content, candidates, regularizations)
  rows = np.flatnonzero(np.diff(content.indptr))
  if len(rows) > solver.max_gram and solver.tolerance:
    kept = content[rows]
    system = split_ridge.System(kept)
    return [
        split_ridge.ConjugateRidge(
            kept, rows, candidates, system, value, solver.tolerance
        )
        for value in regularizations
    ]
  if len(rows) > solver.max_gram:
    spectrum = woodbury.decompose(content, solver.rank, solver.seed)
    return [
        woodbury.WoodburyRidge(
            content, candidates, woodbury.correction(spectrum, value)
        )
        for value in regularizations
    ]
  columns = np.flatnonzero(np.diff(candidates.indptr))
  if len(columns) >= len(rows) and len(regularizations) == 1:
    gram = ease.dot_products(content[rows], content[rows])
    np.fill_diagonal(gram, gram.diagonal() + np.float32(regularizations[0]))
    factor = ease.factorize(gram)
    return [FactorRidge(content[rows], rows, candidates, factor)]
  solved = list(
      dual_weights(content[rows], candidates[columns], regularizations)
  )
  ridges: list[ContentRidge] = []
  while solved:  # sparse products need C order; the Gram matrix is freed by now
    weights = np.ascontiguousarray(solved.pop(0))
    ridges.append(DualRidge(weights, rows, columns, candidates.shape[0]))
  return ridges


def fit(
    content: scipy.sparse.csr_array,
    candidates: scipy.sparse.csr_array,
    regularization: float,
    solver: Solver = Solver(),
) -> ContentRidge:
  """`fit_each` of one lambda."""
  return fit_each(content, candidates, (regularization,), solver)[0]


@dataclasses.dataclass(frozen=True)
class Choice:
  """What held-out training rows prefer.

  Attributes:
    regularization: lambda of the best pair.
    smoothing: strength of the smoothing of histories of the best pair.
    ndcg: mean NDCG of each (lambda, smoothing) that was tried.
  """

  regularization: float
  smoothing: float
  ndcg: dict[tuple[float, float], float]


@dataclasses.dataclass(frozen=True)
class Search:
  """What is tried on which held-out rows.

  Attributes:
    regularizations: lambdas.
    smoothings: strengths of R B in the histories of warm users.
    smoothing_l2: l2 of EASE.
    share: of the training rows that is held out, in (0, 1).
    seed: of the draw.
    cutoff: K of the NDCG that decides.
    users_per_chunk: bounds the memory of a block of scores.
  """

  regularizations: tuple[float, ...] = (1.0, 3.0, 10.0)
  smoothings: tuple[float, ...] = (0.0, 3.0)
  smoothing_l2: float = 100.0
  share: float = 0.2
  seed: int = 0
  cutoff: int = 20
  users_per_chunk: int = 512


def choose_for_items(
    content: scipy.sparse.csr_array,
    likes: scipy.sparse.csr_array,
    search: Search = Search(),
    solver: Solver = Solver(),
) -> Choice:
  """Lambda and smoothing, by ranking held-out training items as new ones.

  The held-out items leave the histories and are ranked for every user who
  likes one of them. Where both sides have more than `solver.max_gram` rows
  histories cannot be smoothed, and no smoothing is tried.

  Args:
    content: float32 [I, T] of the training items.
    likes: float32 [U, I].
    search: what to try.
    solver: see `fit_each`.

  Raises:
    UserError: see `fit_each` and `ease.fit`; also if no like is held out.
  """
  kept, held = _hold_out(content.shape[0], search)
  history, relevant = likes[:, kept], likes[:, held]
  smoothings = search.smoothings
  if min(history.shape) > solver.max_gram:
    smoothings = (0.0,)
  ridges = fit_each(
      content[kept], content[held], search.regularizations, solver
  )
  smoother = None
  if any(smoothings):
    smoother = ease.fit(history, search.smoothing_l2, max_gram=solver.max_gram)
  users = np.flatnonzero(np.diff(relevant.indptr))
  totals: dict[tuple[float, float], float] = collections.defaultdict(float)
  for chunk in ease.chunks(len(users), search.users_per_chunk):
    rows = users[chunk]
    for strength in smoothings:
      given = ease.smoothed(history[rows], smoother, strength)
      for regularization, ridge in zip(search.regularizations, ridges):
        totals[regularization, strength] += _ndcg(
            ridge.scores(given), relevant[rows], search.cutoff
        )
  return _best(totals, len(users))


def choose_for_users(
    content: scipy.sparse.csr_array,
    likes: scipy.sparse.csr_array,
    search: Search = Search(),
    solver: Solver = Solver(),
) -> Choice:
  """Lambda of the users' side, by ranking all items for held-out users.

  Args:
    content: float32 [U, T] of the training users.
    likes: float32 [U, I].
    search: what to try; the smoothings have no part in it.
    solver: see `fit_each`.

  Raises:
    UserError: see `fit_each`; also if no like is held out.
  """
  kept, held = _hold_out(content.shape[0], search)
  held = held[np.diff(likes.indptr)[held] > 0]
  history, relevant = likes[kept], likes[held]
  ridges = fit_each(
      content[kept], content[held], search.regularizations, solver
  )
  totals: dict[tuple[float, float], float] = collections.defaultdict(float)
  for chunk in ease.chunks(len(held), search.users_per_chunk):
    for regularization, ridge in zip(search.regularizations, ridges):
      scores = ridge.histories(history, chunk)
      totals[regularization, 0.0] += _ndcg(
          scores, relevant[chunk], search.cutoff
      )
  return _best(totals, len(held))


def _hold_out(num_rows: int, search: Search) -> tuple[np.ndarray, np.ndarray]:
  """Rows kept and rows held out, both ascending."""
  order = np.random.default_rng(search.seed).permutation(num_rows)
  num_held = round(search.share * num_rows)
  return np.sort(order[num_held:]), np.sort(order[:num_held])


def _ndcg(
    scores: np.ndarray, relevant: scipy.sparse.csr_array, cutoff: int
) -> float:
  """Sum of NDCG at `cutoff`; each row of relevant [N, J] has an entry."""
  num_users, num_candidates = scores.shape
  row = np.repeat(np.arange(num_users), np.diff(relevant.indptr))
  found = metrics.rank_intervals(scores, row, relevant.indices)
  allowed = np.full(num_users, num_candidates)
  per_user = metrics.user_metrics(
      row, found.greater, found.tied, allowed, (cutoff,)
  )
  return float(per_user[f'ndcg@{cutoff}'].sum())


def _best(totals: dict[tuple[float, float], float], num_users: int) -> Choice:
  """The pair of the highest mean; of equal ones the first that was tried."""
  if not num_users:
    raise errors.UserError(
        'No like falls on the held-out training rows, so the lambda of content '
        'ridge cannot be chosen. Hold out a larger share, or check that the '
        'training likes are not empty.'
    )
  ndcg = {pair: total / num_users for pair, total in totals.items()}
  regularization, smoothing = max(ndcg, key=ndcg.__getitem__)
  return Choice(regularization, smoothing, ndcg)


def _check(
    content: scipy.sparse.csr_array,
    candidates: scipy.sparse.csr_array,
    regularizations: Sequence[float],
) -> None:
  woodbury.check_content(content)
  if content.shape[1] != candidates.shape[1]:
    raise errors.UserError(
        f'Training rows have {content.shape[1]} content columns and candidates '
        f'{candidates.shape[1]}: encode both with the same fitted features.'
    )
  for value in regularizations:
    if not 0 < value < float('inf'):
      raise errors.UserError(
          f'The lambda {value!r} of content ridge must be positive: see '
          'config.evaluation.ridge_lambdas.'
      )
