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
  capacity = 1 << max(int(matrix.nnz) - 1, 0).bit_length()
  row = np.full(capacity, max(num_rows - 1, 0), np.int32)
  column = np.zeros(capacity, np.int32)
  value = np.zeros(capacity, np.float32)
  lengths = np.diff(matrix.indptr)
  row[: matrix.nnz] = np.repeat(np.arange(matrix.shape[0]), lengths)
  column[: matrix.nnz] = matrix.indices
  value[: matrix.nnz] = matrix.data
  return SparseRows(
      jnp.asarray(row),
      jnp.asarray(column),
      jnp.asarray(value),
      num_rows,
      matrix.shape[1],
  )


def sparse_scores(user: SparseRows, item: SparseRows) -> jax.Array:
  """Dot products of all user rows with all item rows: float32 [U, I].

  Only the chunk of users is spread over the columns, [T, U]; the items stay a
  list of nonzeros, and no table of items times columns is ever made.
  """
  wide = jnp.zeros((user.num_columns, user.num_rows), user.value.dtype)
  wide = wide.at[user.column, user.row].add(user.value)
  terms = wide[item.column] * item.value[:, None]
  total = jax.ops.segment_sum(
      terms, item.row, item.num_rows, indices_are_sorted=True
  )
  return total.T


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
  dense = jnp.matmul(
      user.dense, item.dense.T, preferred_element_type=jnp.float32
  )
  if user.sparse is None or item.sparse is None:
    return dense
  return dense + sparse_scores(user.sparse, item.sparse)


def normalized(x: jax.Array) -> jax.Array:
  """Rows of x [..., R] scaled to norm 1; a zero row stays zero, gradient 0."""
  square = jnp.sum(x * x, axis=-1, keepdims=True)
  safe = jnp.where(square > 0, square, 1.0)
  return jnp.where(square > 0, x * jax.lax.rsqrt(safe), 0.0)
