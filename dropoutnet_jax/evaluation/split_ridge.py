# SPDX-License-Identifier: Apache-2.0
"""Content ridge by conjugate gradients, on all devices of all processes.

Rows of sparse content are split over the devices; K = C C' is known by its
products alone. In each step every device multiplies its rows, the sum of C' z
over all of them travels, [T, N], and N squared lengths. It is exact up to a
tolerance, whatever the number of rows and columns; see `content_ridge`.

Process 0 asks for it, and has content and right sides: of several processes
each device gets its rows from there, content once for all that is solved.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax import joint
from dropoutnet_jax import parallel
from dropoutnet_jax import table_shards as shards
from dropoutnet_jax.evaluation import dual_form
from dropoutnet_jax.model import embeddings

_MOST_STEPS = 1000
_PIECE_FLOATS = 1 << 22  # of products of nonzeros that exist at a time
# Row, column and value of nonzeros.
_Nonzeros = tuple[jax.Array, jax.Array, jax.Array]


class System:
  """K + lambda I of content that lies on the devices, for many right sides."""

  def __init__(
      self,
      content: scipy.sparse.csr_array,
      mesh: parallel.Mesh | None = None,
  ):
    """Puts content on the devices.

    Args:
      content: C, csr_array float32 [N, T].
      mesh: of the devices, all of this process; None is all there are, also
        those of processes that wait for this one.
    """
    parts = parallel.num_parts(mesh or parallel.joint_mesh())
    self._num_rows, num_columns = content.shape
    self._share = -(-self._num_rows // parts)
    self._parts = parts
    nonzeros = _nonzeros(content, self._share, parts)
    self._content = joint.Joint(
        _Content, nonzeros[0].shape[1], num_columns, mesh, own=nonzeros
    )

  def solve(
      self, right: np.ndarray, regularization: float, tolerance: float
  ) -> np.ndarray:
    """(C C' + lambda I)^-1 of vectors [N, V]: float32 [N, V].

    Args:
      right: float32 [N, V].
      regularization: lambda.
      tolerance: of the residual of each vector, as a share of its length.

    Raises:
      UserError: if some vector does not get there.
    """
    num_vectors = right.shape[1]
    width = 1 << max(num_vectors - 1, 0).bit_length()  # few programs
    padded = np.zeros((self._parts * self._share, width), np.float32)
    padded[: self._num_rows, :num_vectors] = right
    found, left = self._content(
        _Content.solve,
        self._share,
        width,
        regularization,
        tolerance,
        own=padded.reshape(self._parts, -1),
    )
    if not left <= tolerance:
      raise errors.UserError(
          f'Content ridge by conjugate gradients is at a residual of '
          f'{left:.1e} after {_MOST_STEPS} steps, for lambda '
          f'{regularization:g}. Raise config.evaluation.ridge_tolerance (now '
          f'{tolerance:g}), or take larger config.evaluation.ridge_lambdas.'
      )
    return found.reshape(-1, width)[: self._num_rows, :num_vectors]


@dataclasses.dataclass(frozen=True)
class ConjugateRidge(dual_form.DualForm):
  """Content ridge for training rows of any number.

  Attributes:
    system: of the content; those of several lambdas share it.
    regularization: lambda.
    tolerance: of residuals, as a share of the right side.
  """

  system: System
  regularization: float
  tolerance: float

  def solve(self, right: np.ndarray) -> np.ndarray:
    """By the system."""
    return self.system.solve(right, self.regularization, self.tolerance)


def _nonzeros(
    content: scipy.sparse.csr_array, share: int, num_parts: int
) -> tuple[np.ndarray, ...]:
  """Row, column and value of each part's nonzeros, [parts, capacity] each."""
  parts = [content[n * share : (n + 1) * share] for n in range(num_parts)]
  capacity = max(part.nnz for part in parts)
  arrays = zip(
      *(embeddings.padded_rows(part, share, capacity) for part in parts)
  )
  return tuple(np.stack(x) for x in arrays)


class _Content:
  """Content on the devices, as each process has it; see `joint.Joint`."""

  def __init__(
      self,
      capacity: int,
      num_columns: int,
      mesh: parallel.Mesh | None,
      nonzeros: tuple[np.ndarray, ...] | None,
  ):
    self._mesh = mesh = mesh or parallel.joint_mesh()
    self._num_columns = num_columns
    row, column, value = nonzeros or (None, None, None)
    self._nonzeros = (
        shards.from_writer(row, capacity, np.int32, mesh),
        shards.from_writer(column, capacity, np.int32, mesh),
        shards.from_writer(value, capacity, np.float32, mesh),
    )

  def solve(
      self,
      share: int,
      width: int,
      regularization: float,
      tolerance: float,
      right: np.ndarray | None,
  ) -> tuple[np.ndarray, float]:
    """The solution of right sides [devices, share * width], in one row."""
    found, left = _conjugate_gradients(
        self._nonzeros,
        shards.from_writer(right, share * width, np.float32, self._mesh),
        np.float32(regularization),
        np.float32(tolerance),
        width,
        self._num_columns,
        self._mesh,
    )
    return shards.to_host(found, self._mesh), float(left)


@functools.partial(jax.jit, static_argnames=('width', 'num_columns', 'mesh'))
def _conjugate_gradients(
    nonzeros: _Nonzeros,
    right: jax.Array,
    regularization: jax.Array,
    tolerance: jax.Array,
    width: int,
    num_columns: int,
    mesh: parallel.Mesh,
) -> tuple[jax.Array, jax.Array]:
  """The solution [N * V], and the largest residual that is left."""
  capacity = nonzeros[0].shape[1]
  size = min(capacity, max(_PIECE_FLOATS // width, 1))
  size = 1 << size.bit_length() - 1  # which divides the capacity

  def own(
      nonzeros: _Nonzeros,
      right: jax.Array,
      regularization: jax.Array,
      tolerance: jax.Array,
  ) -> tuple[jax.Array, jax.Array]:
    row, column, value = (x.reshape(-1, size) for x in nonzeros)
    right = right.reshape(-1, width)
    total = lambda x: jax.lax.psum(x, shards.USER_AXIS)
    square = lambda x: total(jnp.sum(x * x, axis=0))[None, :]

    def times(vectors: jax.Array) -> jax.Array:
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
    return solution.reshape(-1), jnp.sqrt(jnp.max(share))

  rows, whole = shards.USERS, shards.WHOLE
  return shards.on_parts(own, mesh, (rows, rows, whole, whole), (rows, whole))(
      nonzeros, right, regularization, tolerance
  )


def _scatter(pieces: _Nonzeros, vectors: jax.Array, num_rows: int) -> jax.Array:
  """A sparse matrix times vectors: float32 [num_rows, V], piece by piece.

  Args:
    pieces: target row, source row and value of nonzeros, [pieces, size] each.
    vectors: [M, V].
    num_rows: of the result.
  """

  def add(total: jax.Array, piece: _Nonzeros) -> tuple[jax.Array, None]:
    target, source, value = piece
    return total.at[target].add(value[:, None] * vectors[source]), None

  nothing = jnp.zeros((num_rows, vectors.shape[1]), vectors.dtype)
  return jax.lax.scan(add, nothing, pieces)[0]
