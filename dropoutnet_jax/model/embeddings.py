# SPDX-License-Identifier: Apache-2.0
"""What a tower returns, and the one bilinear score over it.

An embedding has a dense part, the tower's output, and an optional sparse part,
the content itself (for a user: the summed content of her history), whole and
never reduced, because reduction loses the rare tags. The score of a pair is

  dense dot + sparse dot,

so a weight between the two is simply a scale of one of them.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

# Of one temporary table in sparse scores; larger ones are no faster.
_BLOCK_BYTES = 2**24


@flax.struct.dataclass
class SparseRows:
  """N sparse rows over T columns as a flat list of nonzeros, sorted by row.

  A list and not a padded table: one item in a thousand has a hundred tags, and
  padding all rows to it costs 25 times the memory. Padding entries have value
  0 and the last row's number, so that they keep the order and add nothing.

  Attributes:
    row: int32 [Z].
    column: int32 [Z].
    value: float32 [Z].
    num_rows: N.
    num_columns: T.
  """

  row: jax.Array
  column: jax.Array
  value: jax.Array
  num_rows: int = flax.struct.field(pytree_node=False)
  num_columns: int = flax.struct.field(pytree_node=False)


@flax.struct.dataclass
class Embedding:
  """Embeddings of B users or items: dense [B, R] and sparse rows or None."""

  dense: jax.Array
  sparse: SparseRows | None = None


def sparse_rows(
    matrix: scipy.sparse.csr_array, num_rows: int | None = None
) -> SparseRows:
  """Puts csr_array [N, T] on the device, padded to few distinct sizes.

  The number of nonzeros is rounded up to a power of two, and rows may be added
  up to `num_rows`, so that chunks of a table share compiled programs.
  """
  num_rows = matrix.shape[0] if num_rows is None else num_rows
  parts = padded_rows(matrix, num_rows, matrix.nnz)
  row, column, value = (jnp.asarray(part) for part in parts)
  return SparseRows(row, column, value, num_rows, matrix.shape[1])


def padded_rows(
    matrix: scipy.sparse.csr_array, num_rows: int, capacity: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Row, column and value of nonzeros, as `SparseRows` has them, on the host.

  Args:
    matrix: csr_array [N, T].
    num_rows: N or more.
    capacity: nonzeros at least; rounded up to a power of two.
  """
  size = 1 << max(int(capacity) - 1, 0).bit_length()
  row = np.full(size, max(num_rows - 1, 0), np.int32)
  column = np.zeros(size, np.int32)
  value = np.zeros(size, np.float32)
  lengths = np.diff(matrix.indptr)
  row[: matrix.nnz] = np.repeat(np.arange(matrix.shape[0]), lengths)
  column[: matrix.nnz] = matrix.indices
  value[: matrix.nnz] = matrix.data
  return row, column, value


def to_matrix(rows: SparseRows) -> scipy.sparse.csr_array:
  """Sparse rows on the host: csr_array [N, T], what `sparse_rows` got."""
  row, column, value = (
      np.asarray(part) for part in (rows.row, rows.column, rows.value)
  )
  real = value != 0  # the others are padding, or add nothing
  return scipy.sparse.csr_array(
      (value[real], (row[real], column[real])),
      shape=(rows.num_rows, rows.num_columns),
  )


def sparse_scores(user: SparseRows, item: SparseRows) -> jax.Array:
  """Dot products of all user rows with all item rows: float32 [U, I].

  A block of users at a time is spread over the columns, [T, B], and met by a
  chunk of the items' nonzeros, [Z, B]; whatever the sizes, both stay below
  `_BLOCK_BYTES`, but for a single user with more columns than that. No table
  of items times columns is ever made. The loops over nonzeros have bounds that
  depend on the data, so there is no reverse-mode gradient.
  """
  largest = max(user.num_columns, item.num_rows, 1)
  size = min(_power_of_two(_BLOCK_BYTES // (4 * largest)), user.num_rows)
  if not (size and item.num_rows and user.num_columns):
    return jnp.zeros((user.num_rows, item.num_rows), user.value.dtype)
  chunk = _power_of_two(_BLOCK_BYTES // (4 * size))
  users, items = _chunks(user, chunk), _chunks(item, chunk)

  def score_block(first: jax.Array) -> jax.Array:
    wide = _spread(user, users, first, size)

    def add_chunk(number: jax.Array, total: jax.Array) -> jax.Array:
      row, column, value = (part[number] for part in items)
      terms = wide[column] * value[:, None]
      return total.at[row].add(terms, indices_are_sorted=True)

    total = jnp.zeros((item.num_rows, size), wide.dtype)
    return jax.lax.fori_loop(0, len(items[0]), add_chunk, total).T

  first = jnp.arange(0, user.num_rows, size)
  blocks = jax.lax.map(score_block, first)
  return blocks.reshape(-1, item.num_rows)[: user.num_rows]


def _spread(
    user: SparseRows,
    chunks: tuple[jax.Array, ...],
    first: jax.Array,
    size: int,
) -> jax.Array:
  """User rows [first, first + size) as columns of a table: [T, size].

  Rows are sorted, so only the chunks of nonzeros that hold the block are read.
  """
  bounds = jnp.searchsorted(user.row, jnp.stack([first, first + size]))
  width = chunks[0].shape[1]

  def add_chunk(number: jax.Array, wide: jax.Array) -> jax.Array:
    row, column, value = (part[number] for part in chunks)
    inside = (row >= first) & (row < first + size)
    place = jnp.where(inside, row - first, size)  # past the end is dropped
    return wide.at[column, place].add(value, mode='drop')

  wide = jnp.zeros((user.num_columns, size), user.value.dtype)
  return jax.lax.fori_loop(
      bounds[0] // width, -(-bounds[1] // width), add_chunk, wide
  )


def _chunks(rows: SparseRows, size: int) -> tuple[jax.Array, ...]:
  """Nonzeros as row, column, value, each [chunks, size or all]; padded."""
  length = len(rows.row)
  size = min(size, max(length, 1))
  missing = -length % size if length else size
  last = max(rows.num_rows - 1, 0)
  pad = lambda x, value: jnp.pad(
      x, (0, missing), constant_values=value
  ).reshape(-1, size)
  return pad(rows.row, last), pad(rows.column, 0), pad(rows.value, 0)


def _power_of_two(limit: int) -> int:
  """The largest power of two up to limit; at least 1."""
  return 1 << max(limit, 1).bit_length() - 1


def score(user: Embedding, item: Embedding) -> jax.Array:
  """Scores of all users with all items: float32 [U, I].

  Args:
    user: embeddings of U users.
    item: embeddings of I items, of the same rank and sparse width.

  Returns:
    float32 [U, I]; dense and sparse dot products added.

  Raises:
    ValueError: if only one of the two has a sparse part.
  """
  if (user.sparse is None) != (item.sparse is None):
    raise ValueError('Only one of the two embeddings has a sparse part.')
  dense = dense_scores(user.dense, item.dense)
  if user.sparse is None or item.sparse is None:
    return dense
  return dense + sparse_scores(user.sparse, item.sparse)


def dense_scores(user: jax.Array, item: jax.Array) -> jax.Array:
  """Exact dot products of user rows [U, R] with item rows [I, R]: [U, I].

  Accelerators round the factors of a product by default, enough to swap
  neighbours in a ranking; evaluation does not let them. Training does, in the
  losses.
  """
  return jnp.matmul(
      user,
      item.T,
      precision=jax.lax.Precision.HIGHEST,
      preferred_element_type=jnp.float32,
  )


def normalized(x: jax.Array) -> jax.Array:
  """Rows of x [..., R] scaled to norm 1; a zero row stays zero, gradient 0."""
  square = jnp.sum(x * x, axis=-1, keepdims=True)
  safe = jnp.where(square > 0, square, 1.0)
  return jnp.where(square > 0, x * jax.lax.rsqrt(safe), 0.0)
