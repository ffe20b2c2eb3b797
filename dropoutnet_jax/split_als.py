# SPDX-License-Identifier: Apache-2.0
"""ALS whose tables and rows are split over a mesh, as in ALX.

After Mehta et al., "ALX: Large Scale Matrix Factorization on TPUs" (2021). Each
device solves for rows of its own and keeps their factors. For a half-step the
fixed side is whitened where it lies; then each device along 'model' has its
share of it, on which devices that solve look rows up: with `mesh.model` = M a
device holds 1/M of the fixed side, and of both sides its own rows. With M = 1
that is the whole fixed side, and nothing is looked up elsewhere.

A row's place in the table of its side is where it is solved for, so that what
is solved stays where it is, and the other side's likes name places.
"""

from collections.abc import Callable
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from dropoutnet_jax import config as config_lib
from dropoutnet_jax import normal_equations
from dropoutnet_jax import parallel
from dropoutnet_jax import table_shards as shards

_dot = normal_equations.dot


@dataclasses.dataclass(frozen=True, eq=False)
class Side:
  """One side's likes on the devices.

  Attributes:
    chunks: rows by length, split over all devices.
    position: int64 [N], place of each row in the table; -1 where it has none.
    share: rows of a table on each device.
    settings: of the teacher.
    mesh: of the devices.
  """

  chunks: tuple[normal_equations.Chunk, ...]
  position: np.ndarray
  share: int
  settings: config_lib.TeacherConfig
  mesh: parallel.Mesh

  def place(self, factors: np.ndarray) -> jax.Array:
    """The table of factors [N, P]."""
    table = np.zeros((self.share * self.mesh.size, factors.shape[1]), 'f4')
    known = self.position >= 0
    table[self.position[known]] = factors[known]
    return shards.put_parts(table, shards.SHARED, self.mesh)

  def to_host(self, table: jax.Array) -> np.ndarray:
    """Factors float32 [N, P] of a table; zero without likes."""
    found = shards.to_host(table, self.mesh)[self.position]
    found[self.position < 0] = 0
    return found

  def solve(self, other: jax.Array) -> jax.Array:
    """The table of this side, given that of the other: a half-step."""
    rows, inverse = _whiten(other, self.settings.regularization, self.mesh)
    solved = [
        _solve_chunk(rows, chunk, self.settings.cg_steps, self.mesh)
        for chunk in self.chunks
    ]
    # Else XLA may give up collectives that wait while few cores solve for many.
    solved = jax.block_until_ready(solved)
    return _join(solved, inverse, self.share, self.mesh)


@dataclasses.dataclass(frozen=True)
class _Group:
  """Rows that are solved together; on each device `size` from `offset` on."""

  rows: np.ndarray
  length: int
  size: int
  offset: int

  def places(self, share: int) -> np.ndarray:
    part, place = np.divmod(np.arange(len(self.rows)), self.size)
    return part * share + self.offset + place


def lay_out(
    likes: scipy.sparse.csr_array,
    liked_by: scipy.sparse.csr_array,
    settings: config_lib.TeacherConfig,
    mesh: parallel.Mesh,
) -> tuple[Side, Side]:
  """Arranges likes [U, I] and [I, U] on the devices, users and items.

  Raises:
    UserError: a weight is negative or not finite.
  """
  extras = [
      normal_equations.with_confidence(side, settings.confidence)
      for side in (likes, liked_by)
  ]
  groups = [_groups(side, settings.rank, mesh) for side in extras]
  # One table size for both sides, so that both share compiled chunks.
  share = max(one[-1].offset + one[-1].size for one in groups)
  positions = []
  for side, own in zip(extras, groups):
    position = np.full(side.shape[0], -1)
    for group in own:
      position[group.rows] = group.places(share)
    positions.append(position)
  user, item = (
      Side(_chunks(side, own, other, mesh), position, share, settings, mesh)
      for side, own, position, other in zip(
          extras, groups, positions, positions[::-1]
      )
  )
  return user, item


def _groups(
    likes: scipy.sparse.csr_array, rank: int, mesh: parallel.Mesh
) -> list[_Group]:
  copies = shards.num_parts(shards.CANDIDATES, mesh)
  found, offset = [], 0
  for rows, length, size in normal_equations.group_rows(
      np.diff(likes.indptr), rank, mesh.size, copies
  ):
    found.append(_Group(rows, length, size, offset))
    offset += size
  return found


def _chunks(
    likes: scipy.sparse.csr_array,
    groups: list[_Group],
    place: np.ndarray,
    mesh: parallel.Mesh,
) -> tuple[normal_equations.Chunk, ...]:
  """The chunks of one side; `place` is of the rows of the other."""
  named = scipy.sparse.csr_array(
      (likes.data, place[likes.indices], likes.indptr),
      shape=(likes.shape[0], max(likes.shape[1], int(place.max()) + 1)),
  )
  chunks = []
  for group in groups:
    slots = group.size * mesh.size
    arrays = normal_equations.pad_rows(named, group.rows, group.length, slots)
    placed = (shards.put_parts(x, shards.SHARED, mesh) for x in arrays)
    chunks.append(normal_equations.Chunk(*placed))
  return tuple(chunks)


@functools.partial(jax.jit, static_argnames='mesh')
def _whiten(
    factors: jax.Array, regularization: float, mesh: parallel.Mesh
) -> tuple[jax.Array, jax.Array]:
  """V of a table, as CANDIDATES; and L^-1 [P, P]."""

  def own(
      factors: jax.Array, regularization: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    gram = _dot('np,nq->pq', factors, factors)
    gram = jax.lax.psum(gram, (shards.USER_AXIS, shards.CANDIDATE_AXIS))
    inverse = normal_equations.whitening(gram, regularization)
    rows = _dot('np,qp->nq', factors, inverse)
    return jax.lax.all_gather(rows, shards.USER_AXIS, tiled=True), inverse

  return shards.on_parts(
      own,
      mesh,
      (shards.SHARED, shards.WHOLE),
      (shards.CANDIDATES, shards.WHOLE),
  )(factors, regularization)


@functools.partial(jax.jit, static_argnames=('cg_steps', 'mesh'))
def _solve_chunk(
    rows: jax.Array,
    chunk: normal_equations.Chunk,
    cg_steps: int,
    mesh: parallel.Mesh,
) -> jax.Array:
  """q of a chunk, each device of its own rows."""
  solve: Callable[..., jax.Array] = functools.partial(
      normal_equations.solve_chunk, cg_steps=cg_steps
  )
  if shards.num_parts(shards.CANDIDATES, mesh) > 1:
    solve = functools.partial(solve, look_up=shards.look_up)
  return shards.on_parts(
      solve, mesh, (shards.CANDIDATES, shards.SHARED), shards.SHARED
  )(rows, chunk)


@functools.partial(jax.jit, static_argnames=('share', 'mesh'))
def _join(
    solved: list[jax.Array],
    inverse: jax.Array,
    share: int,
    mesh: parallel.Mesh,
) -> jax.Array:
  """The table of all chunks, without the whitening; nothing travels."""

  def own(solved: list[jax.Array], inverse: jax.Array) -> jax.Array:
    rows = _dot('np,pq->nq', jnp.concatenate(solved), inverse)
    return jnp.pad(rows, ((0, share - len(rows)), (0, 0)))

  return shards.on_parts(
      own, mesh, (shards.SHARED, shards.WHOLE), shards.SHARED
  )(solved, inverse)
