# SPDX-License-Identifier: Apache-2.0
"""Content ridge by conjugate gradients, on all devices of a process.

Rows of sparse content are split over the devices; K = C C' is known by its
products alone. In each step every device multiplies its rows, the sum of C' z
over all of them travels, [T, N], and N squared lengths. It is exact up to a
tolerance, whatever the number of rows and columns; see `content_ridge`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax import table_shards as shards
from dropoutnet_jax.evaluation import dual_form
from dropoutnet_jax.model import embeddings

_MOST_STEPS = 1000
_PIECE_FLOATS = 1 << 22  # of products of nonzeros that exist at a time
# Row, column and value of nonzeros, [pieces, size] each.
_Pieces = tuple[jax.Array, jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True)
class ConjugateRidge(dual_form.DualForm):
  """Content ridge for training rows of any number.

  Attributes:
    regularization: lambda.
    tolerance: of residuals, as a share of the right side.
  """

  regularization: float
  tolerance: float

  def solve(self, right: np.ndarray) -> np.ndarray:
    """By `solve`, on all devices of this process."""
    return solve(
        self.content, right, self.regularization, tolerance=self.tolerance
    )


def solve(
    content: scipy.sparse.csr_array,
    right: np.ndarray,
    regularization: float,
    tolerance: float,
    mesh: parallel.Mesh | None = None,
) -> np.ndarray:
  """(C C' + lambda I)^-1 of vectors [N, V]: float32 [N, V].

  Args:
    content: C, csr_array float32 [N, T].
    right: float32 [N, V].
    regularization: lambda.
    tolerance: of the residual of each vector, as a share of its length.
    mesh: of the devices, all of this process; None is all there are.

  Raises:
    UserError: if some vector does not get there.
  """
  mesh = mesh or parallel.local_mesh()
  parts = parallel.num_parts(mesh)
  num_rows, num_vectors = right.shape
  share = -(-num_rows // parts)
  width = 1 << max(num_vectors - 1, 0).bit_length()  # few programs
  padded = np.zeros((share * parts, width), np.float32)
  padded[:num_rows, :num_vectors] = right
  pieces = _pieces(content, share, width, mesh)
  found, left = _conjugate_gradients(
      pieces,
      shards.put_parts(padded, shards.USERS, mesh),
      np.float32(regularization),
      np.float32(tolerance),
      content.shape[1],
      mesh,
  )
  if not float(left) <= tolerance:
    raise errors.UserError(
        f'Content ridge by conjugate gradients is at a residual of '
        f'{float(left):.1e} after {_MOST_STEPS} steps, for lambda '
        f'{regularization:g}. Raise config.evaluation.ridge_tolerance (now '
        f'{tolerance:g}), or take larger config.evaluation.ridge_lambdas.'
    )
  return np.asarray(found)[:num_rows, :num_vectors]


def _pieces(
    content: scipy.sparse.csr_array, share: int, width: int, mesh: parallel.Mesh
) -> _Pieces:
  """Nonzeros of each device's rows, [devices, pieces, size] each."""
  parts = [
      content[n * share : (n + 1) * share]
      for n in range(parallel.num_parts(mesh))
  ]
  capacity = max(part.nnz for part in parts)
  arrays = zip(
      *(embeddings.padded_rows(part, share, capacity) for part in parts)
  )
  row, column, value = (np.stack(x) for x in arrays)
  size = min(row.shape[1], max(_PIECE_FLOATS // width, 1))
  size = 1 << size.bit_length() - 1  # which divides the capacity
  return tuple(  # type: ignore[return-value]
      shards.put_parts(x.reshape(len(parts), -1, size), shards.USERS, mesh)
      for x in (row, column, value)
  )


@functools.partial(jax.jit, static_argnames=('num_columns', 'mesh'))
def _conjugate_gradients(
    pieces: _Pieces,
    right: jax.Array,
    regularization: jax.Array,
    tolerance: jax.Array,
    num_columns: int,
    mesh: parallel.Mesh,
) -> tuple[jax.Array, jax.Array]:
  """The solution [N, V], and the largest residual that is left."""

  def own(
      pieces: _Pieces,
      right: jax.Array,
      regularization: jax.Array,
      tolerance: jax.Array,
  ) -> tuple[jax.Array, jax.Array]:
    nonzeros = tuple(x[0] for x in pieces)
    total = lambda x: jax.lax.psum(x, shards.USER_AXIS)
    square = lambda x: total(jnp.sum(x * x, axis=0))[None, :]

    def times(vectors: jax.Array) -> jax.Array:
      row, column, value = nonzeros
      summed = _scatter((column, row, value), vectors, num_columns)
      product = _scatter((row, column, value), total(summed), len(vectors))
      return product + regularization * vectors

    first = square(right)
    enough = tolerance**2 * first

    def is_not_done(state: tuple[jax.Array, ...]) -> jax.Array:
      return (state[0] < _MOST_STEPS) & jnp.any(state[4] > enough)

    def step(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
      number, solution, residual, direction, left = state
      image = times(direction)
      curvature = total(jnp.sum(direction * image, axis=0))[None, :]
      go_on = left > enough
      size = jnp.where(go_on, left / jnp.where(go_on, curvature, 1), 0)
      solution += size * direction
      residual -= size * image
      now = square(residual)
      turn = jnp.where(go_on, now / jnp.where(go_on, left, 1), 0)
      return number + 1, solution, residual, residual + turn * direction, now

    state: tuple[jax.Array, ...] = (
        jnp.int32(0),
        jnp.zeros_like(right),
        right,
        right,
        first,
    )
    _, solution, _, _, left = jax.lax.while_loop(is_not_done, step, state)
    share = jnp.where(first > 0, left / jnp.where(first > 0, first, 1), 0)
    return solution, jnp.sqrt(jnp.max(share))

  rows, whole = shards.USERS, shards.WHOLE
  return shards.on_parts(own, mesh, (rows, rows, whole, whole), (rows, whole))(
      pieces, right, regularization, tolerance
  )


def _scatter(pieces: _Pieces, vectors: jax.Array, num_rows: int) -> jax.Array:
  """A sparse matrix times vectors: float32 [num_rows, V], piece by piece."""

  def add(total: jax.Array, piece: _Pieces) -> tuple[jax.Array, None]:
    target, source, value = piece
    return total.at[target].add(value[:, None] * vectors[source]), None

  nothing = jnp.zeros((num_rows, vectors.shape[1]), vectors.dtype)
  return jax.lax.scan(add, nothing, pieces)[0]
