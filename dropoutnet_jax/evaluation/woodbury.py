# SPDX-License-Identifier: Apache-2.0
"""Content ridge as a sparse dot product minus a dense one of rank k.

With the singular values s and right vectors V of training content C [I, T],
  (C'C + lambda I)^-1
    = (I - V diag((s^2 - m) / (s^2 + lambda)) V') / (lambda + m)
where m stands for the s^2 of all directions that V leaves out. With all of V
nothing is left out and this is Woodbury's identity for any m. Cut to the k
largest s, the plain cut (m = 0) does not shrink the others at all; m, their
mean weighted by energy, shrinks them alike, at no cost when scoring.

No square matrix: this is the form for more rows than a Cholesky can take, and
the form that a two-tower embedding holds. It knows content and histories only.
"""

import dataclasses

import numpy as np
import scipy.linalg
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax.data import sparse_products
from dropoutnet_jax.evaluation import ease
from dropoutnet_jax.evaluation import subspace

_NUM_PROBES = 64  # random vectors that estimate what is left out


@dataclasses.dataclass(frozen=True)
class Spectrum:
  """The k largest singular values of content, and what is left out.

  Attributes:
    directions: float32 [T, k], right singular vectors times s.
    squared: float32 [k], s^2, ascending.
    rest: mean s^2 of the other directions, weighted by s^2; 0 if none.
  """

  directions: np.ndarray
  squared: np.ndarray
  rest: float


@dataclasses.dataclass(frozen=True)
class Correction:
  """What content ridge subtracts from the sparse dot product.

  With histories H [U, I] over the training rows and any rows c [J, T], scores
  are (H C c' - (H C W) (c W)') / divisor.

  Attributes:
    weights: W, float32 [T, k].
    divisor: lambda + m.
  """

  weights: np.ndarray
  divisor: float


def decompose(
    content: scipy.sparse.csr_array,
    rank: int,
    seed: int,
    *,
    more: np.ndarray | None = None,
    num_iterations: int = 3,
) -> Spectrum:
  """The largest singular values of content, by subspace iteration.

  After Halko, Martinsson & Tropp (SIAM Review, 2011), on the rows' side: the
  basis has I rows, and only the result has T.

  Args:
    content: float32 [I, T]; rows without content have no part in it.
    rank: k; min(I, T) where that is smaller, which is exact.
    seed: of the random start.
    more: float32 [I, F], further columns, dense; T then counts them, and they
      come last. Rows without content have none.
    num_iterations: products with C C' before the last one.

  Raises:
    UserError: if no row has content.
  """
  check_content(content)
  rows = np.flatnonzero(np.diff(content.indptr))
  columns = _Columns(content[rows], None if more is None else more[rows])
  num_rows = len(rows)
  rank = min(rank, *columns.shape)
  generator = np.random.default_rng(seed)
  basis = subspace.iterate(
      lambda basis: columns.times(columns.transposed_times(basis)),
      num_rows,
      rank,
      generator,
      num_iterations,
  )
  width = basis.shape[1]
  projected = columns.transposed_times(basis)  # [T, width]
  squared, rotation = scipy.linalg.eigh(projected.T @ projected, driver='evd')
  squared, rotation = squared[width - rank :], rotation[:, width - rank :]
  squared = np.maximum(squared, 0)
  directions = projected @ rotation
  if rank == min(columns.shape):
    return Spectrum(directions, squared, 0.0)
  probes = generator.standard_normal((num_rows, _NUM_PROBES), np.float32)
  left = basis @ rotation
  probes -= left @ (left.T @ probes)
  moved = columns.transposed_times(probes)
  again = columns.times(moved)
  rest = np.vdot(again, again) / max(np.vdot(moved, moved), 1e-30)
  # Where next to nothing is left out the quotient is noise, and harmless.
  return Spectrum(
      directions, squared, float(min(rest, squared.min(initial=np.inf)))
  )


class _Columns:
  """Sparse columns, and dense ones after them."""

  def __init__(
      self, content: scipy.sparse.csr_array, more: np.ndarray | None
  ) -> None:
    self._content, self._more = content, more
    self._transposed = content.T.tocsr()
    width = content.shape[1] + (0 if more is None else more.shape[1])
    self.shape = (content.shape[0], width)

  def times(self, right: np.ndarray) -> np.ndarray:
    """[I, T] @ [T, N]."""
    size = self._content.shape[1]
    product = sparse_products.times(self._content, right[:size])
    return (
        product if self._more is None else product + self._more @ right[size:]
    )

  def transposed_times(self, right: np.ndarray) -> np.ndarray:
    """[T, I] @ [I, N]."""
    product = sparse_products.times(self._transposed, right)
    if self._more is None:
      return product
    return np.concatenate([product, self._more.T @ right])


def correction(spectrum: Spectrum, regularization: float) -> Correction:
  """The correction of one lambda."""
  squared = np.maximum(spectrum.squared, np.float32(1e-30))
  gain = (1 - spectrum.rest / squared) / (squared + regularization)
  return Correction(
      spectrum.directions * np.sqrt(gain)[None, :],
      regularization + spectrum.rest,
  )


def solve(
    correction: Correction,
    content: scipy.sparse.csr_array,
    targets: np.ndarray,
    more: np.ndarray | None = None,
) -> np.ndarray:
  """The ridge from content to targets: float32 [T, P].

  Args:
    correction: of the content, further columns included.
    content: csr_array float32 [I, T] of the training rows.
    targets: float32 [I, P].
    more: float32 [I, F], the further columns; T then counts them.
  """
  moments = _Columns(content, more).transposed_times(targets)
  weights = correction.weights
  moments -= weights @ (weights.T @ moments)
  return (moments / np.float32(correction.divisor)).astype(np.float32)


def outside(spectrum: Spectrum, correction: Correction) -> np.ndarray:
  """What c W is multiplied by for histories that have no sparse part: [k].

  With f of this and histories D whose dot product D C c' is left out,
  (D C W) f (c W)' / divisor is their ridge in the k directions.
  """
  gap = spectrum.squared - np.float32(spectrum.rest)
  # Without a gap there is nothing of a direction in W, and nothing to restore.
  smallest = np.float32(1e-6) * np.maximum(spectrum.squared, 1e-24)
  return np.float32(correction.divisor) / np.maximum(gap, smallest)


def user_dense(
    histories: ease.Histories, train_dense: np.ndarray
) -> np.ndarray:
  """Dense part of users, float32 [U, k]: the sum over their histories.

  Args:
    histories: float32 [U, I], plain or from `ease.top_weights`.
    train_dense: float32 [I, k], `item_dense` of the training rows.
  """
  return histories @ train_dense


@dataclasses.dataclass(frozen=True)
class WoodburyRidge:
  """Content ridge in this form, for a fixed set of candidates.

  Attributes:
    content: csr_array float32 [I, T] of the training rows.
    candidates: csr_array float32 [J, T].
    correction: of one lambda.
  """

  content: scipy.sparse.csr_array
  candidates: scipy.sparse.csr_array
  correction: Correction

  def scores(self, histories: ease.Histories) -> np.ndarray:
    """Scores float32 [N, J] of histories [N, I] over the training rows."""
    return self._ridge(histories @ self.content, self.candidates)

  def histories(
      self, likes: scipy.sparse.csr_array, candidates: slice
  ) -> np.ndarray:
    """What new rows would like, float32 [N, I].

    Args:
      likes: float32 [U, I]; the training rows are its users.
      candidates: which of the candidates, here new users.
    """
    liked_content = (likes.T @ self.content).tocsr()
    return self._ridge(self.candidates[candidates], liked_content)

  def _ridge(
      self, left: ease.Histories, right: scipy.sparse.csr_array
  ) -> np.ndarray:
    """Scores of rows of summed content left [N, T] for right [M, T]."""
    dot = left @ right.T
    result = dot if isinstance(dot, np.ndarray) else dot.toarray()
    weights = self.correction.weights
    result -= (left @ weights) @ (right @ weights).T
    result /= np.float32(self.correction.divisor)
    return result


def check_content(content: scipy.sparse.csr_array) -> None:
  """Raises UserError if no training row has content."""
  if not content.nnz:
    raise errors.UserError(
        f'None of the {content.shape[0]} training rows has sparse content, so '
        'content ridge has nothing to compare. Name a column of tags in '
        'config.features, or take content_ridge out of '
        'config.evaluation.baselines and set config.model.sparse.enabled to '
        'False.'
    )
