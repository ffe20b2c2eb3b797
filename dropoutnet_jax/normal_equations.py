# SPDX-License-Identifier: Apache-2.0
"""One half-step of ALS: the rows of one side, solved with the other side fixed.

The objective is that of `teacher`. With one side fixed, each row x of the other
is a ridge regression:

  (Y'Y + lambda I + Y_u' E Y_u) x = Y_u' (1 + e),   E = diag e, e = c - 1,

Y_u [n, P] the factors of what the row likes, c their confidences. Three things
make it fast:

* Whitening. With L L' = Y'Y + lambda I, computed once for all rows, V = Y L^-T
  and q = L' x, the system is (I + V_u' E V_u) q = V_u' (1 + e). As V'V < I, its
  condition number is at most 1 + max e: float32 is enough.
* The smaller of two systems. With S = E^1/2 V_u [n, P] and r = E^-1/2 (1 + e),
  q = (I + S'S)^-1 S'r = S' (I + S S')^-1 r, and most rows are short: n < P.
* Rows of similar length are padded to one length and solved together. Padding
  has S = 0 and r = 0, which leaves the solution as it is, exactly.

Rows are solved exactly, by Cholesky, or by a few steps of conjugate gradients
(Takacs, Pilaszy & Tikk, RecSys 2011), for which whitening is the preconditioner
and neither matrix is formed.
"""

from collections.abc import Callable, Iterator
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from dropoutnet_jax import errors

# Floats gathered at a time: few enough to stay in a CPU's cache.
_CHUNK_FLOATS = 1 << 19
_SHORTEST = 8  # length that the shortest rows are padded to
# A like of weight 0 counts 1, like this; e > 0 tells likes from padding.
_LEAST_EXTRA = 1e-8
# jaxlib 0.10 shares a batch of LAPACK calls of more operations than this out to
# the threads of XLA's CPU pool and waits for them on one of these threads. Such
# batches at the same time can take every thread to wait on, and wait forever.
_MOST_LAPACK_OPERATIONS = 200_000
_ROUNDING = 1e-7  # share of a residual that conjugate gradients leave
_MOST_UNROLLED = 4  # steps; compilation grows with them
dot = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
# From rows [N, P], or one device's part of them, and int32 [B, n] to [B, n, P].
_LookUp = Callable[[jax.Array, jax.Array], jax.Array]


class Chunk(NamedTuple):
  """Rows that are solved together, padded to one length n.

  Attributes:
    liked: int32 [B, n], rows of the other side that each row likes.
    extra: float32 [B, n], e = confidence * weight; 0 is padding.
  """

  liked: jax.Array
  extra: jax.Array


class Plan(NamedTuple):
  """One side's likes, arranged for `solve`.

  Attributes:
    chunks: rows by length, no longer in their order.
    position: int32 [N], where row i is among the rows of all chunks; the number
      of those rows where row i likes nothing.
  """

  chunks: tuple[Chunk, ...]
  position: jax.Array


class Whitened(NamedTuple):
  """The fixed side, prepared for `solve`.

  Attributes:
    rows: float32 [N or more, P], V = Y L^-T; zero rows at the end are padding.
    inverse: float32 [P, P], L^-1.
  """

  rows: jax.Array
  inverse: jax.Array


def _power_of_two_up_to(value: int) -> int:
  return 1 << (value.bit_length() - 1)


def _padded_lengths(lengths: np.ndarray, rank: int) -> np.ndarray:
  """Rounds int [N] up to a power of two, or to halfway between two.

  Few lengths mean few compilations, so halfway is for lengths below the rank
  alone, where time grows with the square of the length.
  """
  power = 2 ** np.ceil(np.log2(np.maximum(lengths, _SHORTEST))).astype(int)
  halfway = power * 3 // 4
  use_halfway = (power > 64) & (lengths <= halfway) & (halfway < rank)
  return np.where(use_halfway, halfway, power)


def pad_rows(
    likes: scipy.sparse.csr_array, rows: np.ndarray, length: int, slots: int
) -> tuple[np.ndarray, np.ndarray]:
  """The given rows of likes as `Chunk` [slots, length], padded with zeros."""
  liked = np.zeros((slots, length), np.int32)
  extra = np.zeros((slots, length), np.float32)
  start, stop = likes.indptr[rows], likes.indptr[rows + 1]
  source = start[:, None] + np.arange(length)
  real = source < stop[:, None]
  liked[: len(rows)][real] = likes.indices[source[real]]
  extra[: len(rows)][real] = likes.data[source[real]]
  return liked, extra


def with_confidence(
    likes: scipy.sparse.csr_array, confidence: float
) -> scipy.sparse.csr_array:
  """e of each like; what is stored is liked, a stored 0 as well.

  Args:
    likes: weights >= 0.
    confidence: a like counts 1 + confidence * weight.

  Raises:
    UserError: a weight is negative or not finite.
  """
  with np.errstate(over='ignore'):
    extra = np.float32(confidence) * likes.data.astype(np.float32)
  bad = ~(np.isfinite(extra) & (extra >= 0))
  if bad.any():
    raise errors.UserError(
        f'{bad.sum()} of {bad.size} likes have a negative or non-finite weight '
        f'(or one too large for float32), like {likes.data[bad][0]}: a weight '
        'says how much a like counts. Drop these interactions, or give them a '
        'finite weight of 0 or more.'
    )
  extra = np.maximum(extra, _LEAST_EXTRA)
  return scipy.sparse.csr_array(
      (extra, likes.indices, likes.indptr), shape=likes.shape
  )


def group_rows(
    lengths: np.ndarray, rank: int, parts: int = 1, copies: int = 1
) -> Iterator[tuple[np.ndarray, int, int]]:
  """Rows that are solved together, by their numbers of likes [N].

  Args:
    lengths: int [N]; rows of length 0 are in no group.
    rank: width P of the factors.
    parts: devices that share a group.
    copies: how many times what a device gathers is in its memory.

  Yields:
    Rows, ascending; the length that they are padded to; and how many of them
    each part has, the first part the first ones.
  """
  padded = np.where(lengths > 0, _padded_lengths(lengths, rank), 0)
  for length in np.unique(padded[padded > 0]).tolist():
    rows = np.flatnonzero(padded == length)
    fitting = _CHUNK_FLOATS // (length * rank * copies)
    size = _power_of_two_up_to(max(1, fitting))
    # Rather compile again than pad so much.
    while len(rows) <= size * parts // 16 and size > 1:
      size = max(1, size // 16)
    slots = size * parts
    for start in range(0, len(rows), slots):
      yield rows[start : start + slots], length, size


def make_plan(
    likes: scipy.sparse.csr_array, confidence: float, rank: int
) -> Plan:
  """Arranges likes [N, M] for solving for its rows, on one device.

  Args:
    likes: as in `with_confidence`.
    confidence: likewise.
    rank: width P of the factors.

  Raises:
    UserError: a weight is negative or not finite.
  """
  likes = with_confidence(likes, confidence)
  lengths = np.diff(likes.indptr)
  chunks = []
  position = np.full(len(lengths), -1, np.int32)
  num_slots = 0
  for rows, length, size in group_rows(lengths, rank):
    arrays = pad_rows(likes, rows, length, size)
    chunks.append(Chunk(*map(jnp.asarray, arrays)))
    position[rows] = num_slots + np.arange(len(rows))
    num_slots += size
  position[position < 0] = num_slots
  return Plan(tuple(chunks), jnp.asarray(position))


@functools.partial(jax.jit, static_argnames='num_rows')
def whiten(
    factors: jax.Array, regularization: float, num_rows: int = 0
) -> Whitened:
  """Prepares the fixed side's factors [N, P]; pads V to num_rows rows."""
  gram = dot('np,nq->pq', factors, factors)
  inverse = whitening(gram, regularization)
  rows = dot('np,qp->nq', factors, inverse)
  padding = max(0, num_rows - len(rows))
  return Whitened(jnp.pad(rows, ((0, padding), (0, 0))), inverse)


def whitening(gram: jax.Array, regularization: jax.Array | float) -> jax.Array:
  """L^-1 of Y'Y [P, P]."""
  eye = jnp.eye(len(gram), dtype=gram.dtype)
  lower = jax.lax.linalg.cholesky(gram + regularization * eye)
  return jax.lax.linalg.triangular_solve(lower, eye, left_side=True, lower=True)


def _cholesky_solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
  """Solves matrix [n, n] (its lower half is read) for right [n]."""
  linalg = jax.lax.linalg
  lower = linalg.cholesky(matrix, symmetrize_input=False)
  half = functools.partial(
      linalg.triangular_solve, lower, left_side=True, lower=True
  )
  return half(half(right[:, None]), transpose_a=True)[:, 0]


def _solve_all(matrix: jax.Array, right: jax.Array) -> jax.Array:
  """Solves positive definite systems [B, n, n] for right [B, n]."""
  size, length = right.shape
  most = max(1, 3 * _MOST_LAPACK_OPERATIONS // length**3)
  few = min(size, _power_of_two_up_to(most))
  return jax.lax.platform_dependent(
      matrix,
      right,
      cpu=lambda *systems: jax.lax.map(
          lambda system: _cholesky_solve(*system), systems, batch_size=few
      ),
      default=jax.vmap(_cholesky_solve),
  )


def _take(rows: jax.Array, liked: jax.Array) -> jax.Array:
  return jnp.take(rows, liked, axis=0, mode='clip')


def _scaled_rows(
    rows: jax.Array, chunk: Chunk, look_up: _LookUp
) -> tuple[jax.Array, jax.Array]:
  """S [B, n, P] and r [B, n] of the module's docstring."""
  extra = chunk.extra
  root = jnp.sqrt(extra)
  right = jnp.where(extra > 0, (1 + extra) / jnp.where(extra > 0, root, 1), 0)
  return look_up(rows, chunk.liked) * root[..., None], right


def _conjugate_gradients(
    scaled: jax.Array, right: jax.Array, num_steps: int
) -> jax.Array:
  """q of (I + S'S) q = S'r, each row with step sizes of its own.

  The curvature along a direction d is |d|^2 + |S d|^2, so that the last step
  reads S once: the compiler cuts it short where the loop is unrolled. A row is
  left alone once its residual is down to rounding: what is left has no
  direction, and its squares would run out of float32.

  Args:
    scaled: S, float32 [B, n, P].
    right: r, float32 [B, n]; a row of zeros has the solution 0.
    num_steps: from q = 0. Each lowers the objective of the row.

  Returns:
    float32 [B, P].
  """
  start = dot('bnp,bn->bp', scaled, right)
  square = jnp.sum(start**2, axis=1)
  enough = _ROUNDING**2 * square

  def step(_: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    solution, residual, direction, square = state
    go_on = square > enough
    image = dot('bnp,bp->bn', scaled, direction)
    curvature = jnp.sum(direction**2, axis=1) + jnp.sum(image**2, axis=1)
    size = jnp.where(go_on, square / jnp.where(go_on, curvature, 1), 0)
    back = direction + dot('bnp,bn->bp', scaled, image)
    residual = residual - size[:, None] * back
    left = jnp.sum(residual**2, axis=1)
    turn = jnp.where(go_on, left / jnp.where(go_on, square, 1), 0)
    return (
        solution + size[:, None] * direction,
        residual,
        residual + turn[:, None] * direction,
        left,
    )

  state = (jnp.zeros_like(start), start, start, square)
  few = num_steps <= _MOST_UNROLLED
  return jax.lax.fori_loop(0, num_steps, step, state, unroll=few or None)[0]


def solve_chunk(
    rows: jax.Array, chunk: Chunk, cg_steps: int, look_up: _LookUp = _take
) -> jax.Array:
  """q [B, P] of the rows of one chunk.

  Args:
    rows: V [N, P], or one device's part of it.
    chunk: the rows to solve for.
    cg_steps: as in `solve`.
    look_up: how rows of V are found.
  """
  length, rank = chunk.liked.shape[1], rows.shape[1]
  longest = _power_of_two_up_to(_CHUNK_FLOATS // rank)
  if cg_steps and length <= longest:
    scaled, right = _scaled_rows(rows, chunk, look_up)
    # Else XLA gathers again in each step.
    scaled = jax.lax.optimization_barrier(scaled)
    return _conjugate_gradients(scaled, right, cg_steps)
  if length < rank:
    scaled, right = _scaled_rows(rows, chunk, look_up)
    gram = dot('bip,bjp->bij', scaled, scaled)
    dual = _solve_all(gram + jnp.eye(length, dtype=rows.dtype)[None], right)
    return dot('bip,bi->bp', scaled, dual)

  def add_piece(
      sums: tuple[jax.Array, jax.Array], piece: Chunk
  ) -> tuple[tuple[jax.Array, jax.Array], None]:
    scaled, right = _scaled_rows(rows, piece, look_up)
    gram = dot('bip,biq->bpq', scaled, scaled)
    return (sums[0] + gram, sums[1] + dot('bip,bi->bp', scaled, right)), None

  # A row with a million likes is gathered in pieces, for the memory's sake.
  size = len(chunk.liked)
  piece = min(length, longest)
  pieces = jax.tree.map(
      lambda x: x.reshape(size, -1, piece).swapaxes(0, 1), chunk
  )
  eye = jnp.broadcast_to(jnp.eye(rank, dtype=rows.dtype), (size, rank, rank))
  start = (eye, jnp.zeros((size, rank), rows.dtype))
  (gram, right), _ = jax.lax.scan(add_piece, start, pieces)
  return _solve_all(gram, right)


_solve_chunk = functools.partial(jax.jit, static_argnames='cg_steps')(
    solve_chunk
)


@jax.jit
def _assemble(
    solved: list[jax.Array], position: jax.Array, inverse: jax.Array
) -> jax.Array:
  """Puts the rows of all chunks in order and takes the whitening back."""
  nothing = jnp.zeros((1, inverse.shape[0]), inverse.dtype)
  rows = jnp.concatenate([*solved, nothing])[position]
  return dot('np,pq->nq', rows, inverse)


def solve(fixed: Whitened, plan: Plan, cg_steps: int = 0) -> jax.Array:
  """Factors [N, P] of one side, given the other; zero without likes.

  A half-step of ALS is `solve(whiten(factors, regularization), plan)`.

  Args:
    fixed: the other side.
    plan: likes of this side.
    cg_steps: conjugate gradient steps for each row, from zero; 0 solves
      exactly, as are rows too long to be gathered at once (thousands of likes).

  Returns:
    float32 [N, P].
  """
  solved = [_solve_chunk(fixed.rows, chunk, cg_steps) for chunk in plan.chunks]
  return _assemble(solved, plan.position, fixed.inverse)
