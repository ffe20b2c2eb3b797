# SPDX-License-Identifier: Apache-2.0
"""The best items of each user, exactly, in chunks on the device.

For lists that are shown. Ties go to the lower item row, which favours some
items over others; metrics count ties fairly and live in `metrics`. Scores come
from two tables of embeddings or from a function; nothing here knows a model.
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp
import numpy as np

from dropoutnet_jax import parallel
from dropoutnet_jax import table_shards

_SMALLEST_WIDTH = 8  # of exclusion lists


class Catalogue:
  """Embeddings of items, to be ranked for any users, split over devices.

  Each device ranks its own items for the same users, and the best k of each
  are merged: scores stay where they are.
  """

  def __init__(
      self,
      item_dense: jax.Array | np.ndarray,
      items_per_chunk: int = 8192,
      mesh: parallel.Mesh | None = None,
  ):
    """Places the items.

    Args:
      item_dense: [I, R].
      items_per_chunk: the most items that a device scores together.
      mesh: of the devices; None for one.
    """
    _check_positive(items_per_chunk=items_per_chunk)
    self._num_items, self._mesh = len(item_dense), mesh
    # Chunks of one size, the least that makes no more of them.
    parts = 1 if mesh is None else mesh.size
    share = -(-self._num_items // parts)
    num_chunks = max(1, -(-share // items_per_chunk))
    size = max(1, -(-share // num_chunks))
    padded = _pad_rows(item_dense, parts * num_chunks * size)
    chunks = padded.reshape(-1, size, padded.shape[1])
    self._items = table_shards.spread(chunks, mesh)

  def top(
      self,
      user_dense: jax.Array | np.ndarray,
      k: int,
      *,
      users_per_chunk: int = 512,
      exclude: np.ndarray | None = None,
  ) -> tuple[np.ndarray, np.ndarray]:
    """Ranks the items for users [U, R]; see `top_items`."""
    num_users, rank = len(user_dense), self._items.shape[-1]
    if user_dense.shape[1:] != (rank,):
      raise ValueError(
          f'user_dense {user_dense.shape} and item_dense '
          f'{(self._num_items, rank)} must be [U, R] and [I, R].'
      )
    _check_positive(k=k, users_per_chunk=users_per_chunk)
    users = jnp.asarray(_pad_rows(user_dense, users_per_chunk))
    banned = _padded_exclusions(exclude, num_users, len(users))
    _check_rows(banned, self._num_items)

    def top_of_chunk(start: int) -> tuple[jax.Array, jax.Array]:
      return _top_of_embeddings(
          users,
          start,
          self._items,
          self._num_items,
          banned[start : start + users_per_chunk],
          users_per_chunk=users_per_chunk,
          k=k,
          mesh=self._mesh,
      )

    return _join(top_of_chunk, num_users, users_per_chunk, k)


def top_items(
    user_dense: jax.Array | np.ndarray,
    item_dense: jax.Array | np.ndarray,
    k: int,
    *,
    users_per_chunk: int = 512,
    items_per_chunk: int = 8192,
    exclude: np.ndarray | None = None,
    mesh: parallel.Mesh | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Ranks items by the dot product of embeddings.

  Scores exist for one chunk of users and of items at a time; a running list of
  k per user is merged with each chunk of items. Chunks are padded, so one
  program is compiled for all of them.

  Args:
    user_dense: [U, R].
    item_dense: [I, R].
    k: items per user; may exceed I.
    users_per_chunk: users scored together.
    items_per_chunk: the most items scored together.
    exclude: int [U, L], item rows that a user must not get, such as those of
      `exclusion_lists`; -1 is padding.
    mesh: of devices that the items are split over; None for one. The lists are
      the same, ties included.

  Returns:
    Scores float32 [U, k], descending, and item rows int32 [U, k]. Where a user
    has fewer than k items to choose from, -inf and -1 fill up the rest. Items
    whose score is NaN or -inf are never chosen.

  Raises:
    ValueError: if shapes or sizes do not fit.
  """
  if item_dense.ndim != 2 or user_dense.shape[1:] != item_dense.shape[1:]:
    raise ValueError(
        f'user_dense {user_dense.shape} and item_dense {item_dense.shape} must '
        'be [U, R] and [I, R].'
    )
  catalogue = Catalogue(item_dense, items_per_chunk, mesh)
  return catalogue.top(
      user_dense, k, users_per_chunk=users_per_chunk, exclude=exclude
  )


def top_scored(
    score_fn: Callable[[np.ndarray], jax.Array | np.ndarray],
    user_rows: np.ndarray,
    k: int,
    *,
    users_per_chunk: int = 512,
    exclude: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Ranks items by any score, for methods without embeddings.

  Args:
    score_fn: from user rows int32 [users_per_chunk] to scores
      [users_per_chunk, I]. The last chunk is filled up with repeated rows, so
      a compiled function sees one shape.
    user_rows: int [U], the users to rank for.
    k: items per user; may exceed I.
    users_per_chunk: users scored together.
    exclude: int [U, L], item rows that the user at the same place in
      `user_rows` must not get; -1 is padding.

  Returns:
    As `top_items`, in the order of `user_rows`.

  Raises:
    ValueError: if shapes or sizes do not fit.
  """
  _check_positive(k=k, users_per_chunk=users_per_chunk)
  num_users = len(user_rows)
  num_padded = num_users + -num_users % users_per_chunk
  rows = np.resize(np.asarray(user_rows, np.int32), num_padded)
  banned = _padded_exclusions(exclude, num_users, num_padded)

  def top_of_chunk(start: int) -> tuple[jax.Array, jax.Array]:
    chunk = slice(start, start + users_per_chunk)
    scores = score_fn(rows[chunk])
    _check_rows(banned[chunk], scores.shape[1])
    return _top_of_scores(scores, banned[chunk], k=k)

  return _join(top_of_chunk, num_users, users_per_chunk, k)


def no_items(num_rows: int, k: int) -> tuple[jax.Array, jax.Array]:
  """Scores and items [C, k] to begin `add_block` with."""
  return _nothing(num_rows, k)


@jax.jit
def add_block(
    best: tuple[jax.Array, jax.Array],
    scores: jax.Array,
    first: int,
    count: int,
    exclude: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """The best so far with those of further items, which come block by block.

  Args:
    best: scores float32 [C, k] and items int32 [C, k], of earlier blocks.
    scores: [C, J] of this block.
    first: number of its first item, above those of earlier blocks.
    count: of its items; the columns behind them are padding.
    exclude: int32 [C, L], items that a row must not get; -1 is padding.

  Returns:
    The same as `best`; ties go to the lower number.
  """
  is_padding = jnp.arange(scores.shape[1]) >= count
  scores = jnp.where(is_padding[None], -jnp.inf, scores)
  inside = (exclude >= first) & (exclude < first + count)
  banned = jnp.where(inside, exclude - first, -1)
  return _merge(best, _masked(scores, banned), first)


def exclusion_lists(
    user: np.ndarray, item: np.ndarray, num_users: int
) -> np.ndarray:
  """Gathers pairs (seen, banned, sold out ...) as lists of item rows.

  Args:
    user: int [N], user row of each pair.
    item: int [N], item row of each pair; repeated pairs are harmless.
    num_users: U.

  Returns:
    int32 [U, L], each user's items, then -1; L is the longest list.
  """
  counts = np.bincount(user, minlength=num_users)
  order = np.argsort(user, kind='stable')
  place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
  lists = np.full((num_users, counts.max(initial=0)), -1, np.int32)
  lists[np.asarray(user)[order], place] = np.asarray(item)[order]
  return lists


@functools.partial(jax.jit, static_argnames=('users_per_chunk', 'k', 'mesh'))
def _top_of_embeddings(
    users: jax.Array,
    start: jax.Array,
    items: jax.Array,
    num_items: jax.Array,
    exclude: jax.Array,
    *,
    users_per_chunk: int,
    k: int,
    mesh: parallel.Mesh | None,
) -> tuple[jax.Array, jax.Array]:
  """Best items of users [start, start + C) among items [chunks, size, R]."""
  users = jax.lax.dynamic_slice_in_dim(users, start, users_per_chunk)
  size = items.shape[1]

  def top_of_part(
      items: jax.Array,
      first_chunk: jax.Array,
      users: jax.Array,
      exclude: jax.Array,
      num_items: jax.Array,
  ) -> tuple[jax.Array, jax.Array]:
    def merge_chunk(
        best: tuple[jax.Array, jax.Array], chunk: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
      emb, number = chunk
      # Accelerators round the factors of a product by default; lists are exact.
      scores = jnp.dot(users, emb.T, precision=jax.lax.Precision.HIGHEST)
      first = number * size
      is_padding = first + jnp.arange(size) >= num_items
      scores = jnp.where(is_padding[None], -jnp.inf, scores)
      return _merge(best, _masked(scores, exclude - first), first), None

    numbers = first_chunk + jnp.arange(len(items))
    empty = _nothing(users_per_chunk, k)
    return jax.lax.scan(merge_chunk, empty, (items, numbers))[0]

  scores, rows = table_shards.side_by_side(top_of_part, mesh)(
      items, users, exclude, num_items
  )
  return (scores, rows) if mesh is None else _merge_lists(scores, rows, k)


def _merge_lists(
    scores: jax.Array, items: jax.Array, k: int
) -> tuple[jax.Array, jax.Array]:
  """The best k of lists [C, n] side by side, each of higher rows than before.

  top_k keeps the first of equals; so ties go to the lower row here as well.
  """
  top, place = jax.lax.top_k(scores, k)
  return top, jnp.take_along_axis(items, place, axis=1)


@functools.partial(jax.jit, static_argnames='k')
def _top_of_scores(
    scores: jax.Array, exclude: jax.Array, *, k: int
) -> tuple[jax.Array, jax.Array]:
  """Best columns of scores [C, I]."""
  scores = _masked(jnp.asarray(scores, jnp.float32), exclude)
  return _merge(_nothing(scores.shape[0], k), scores, 0)


def _masked(scores: jax.Array, exclude: jax.Array) -> jax.Array:
  """Scores [C, I], -inf at columns exclude [C, L]; others are dropped."""
  num_rows, num_columns = scores.shape
  # A negative index would count from the end; one past it is dropped.
  column = jnp.where(exclude < 0, num_columns, exclude)
  row = jnp.arange(num_rows)[:, None]
  scores = scores.at[row, column].set(-jnp.inf, mode='drop')
  scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
  return jnp.where(scores == 0.0, 0.0, scores)  # top_k puts 0 above -0


def _merge(
    best: tuple[jax.Array, jax.Array], scores: jax.Array, first: jax.Array | int
) -> tuple[jax.Array, jax.Array]:
  """Best scores and items [C, k] with those of items from first on [C, I].

  The list stands before the new items, which all have higher rows, and top_k
  keeps the first of equals; so ties go to the lower row.
  """
  best_scores, best_items = best
  k = best_scores.shape[1]
  together = jnp.concatenate([best_scores, scores], axis=1)
  top, place = jax.lax.top_k(together, k)
  kept = jnp.take_along_axis(best_items, jnp.minimum(place, k - 1), axis=1)
  items = jnp.where(place < k, kept, place - k + first)
  return top, jnp.where(top > -jnp.inf, items, -1)


def _nothing(num_rows: int, k: int) -> tuple[jax.Array, jax.Array]:
  shape = (num_rows, k)
  return jnp.full(shape, -jnp.inf, jnp.float32), jnp.full(shape, -1, jnp.int32)


def _join(
    top_of_chunk: Callable[[int], tuple[jax.Array, jax.Array]],
    num_users: int,
    users_per_chunk: int,
    k: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Lists of all users from those of the chunk that begins at each start."""
  scores = np.empty((num_users, k), np.float32)
  items = np.empty((num_users, k), np.int32)
  for start in range(0, num_users, users_per_chunk):
    chunk = slice(start, min(start + users_per_chunk, num_users))
    for whole, part in zip((scores, items), top_of_chunk(start)):
      whole[chunk] = np.asarray(part)[: chunk.stop - start]
  return scores, items


def _check_positive(**sizes: int) -> None:
  for name, size in sizes.items():
    if size < 1:
      raise ValueError(f'{name} must be at least 1: {size}')


def _padded_exclusions(
    exclude: np.ndarray | None, num_users: int, padded_users: int
) -> np.ndarray:
  """exclude as int32 [padded_users, L], L a power of two: few programs."""
  if exclude is None:
    return np.full((padded_users, 0), -1, np.int32)
  exclude = np.asarray(exclude)
  if exclude.ndim != 2 or len(exclude) != num_users:
    raise ValueError(f'exclude {exclude.shape} must be [{num_users}, L].')
  width = _SMALLEST_WIDTH
  while width < exclude.shape[1]:
    width *= 2
  padded = np.full((padded_users, width), -1, np.int32)
  padded[:num_users, : exclude.shape[1]] = exclude
  return padded


def _check_rows(exclude: np.ndarray, num_items: int) -> None:
  largest = exclude.max(initial=-1)
  if largest >= num_items:
    raise ValueError(f'exclude holds item {largest} of {num_items} items.')


def _pad_rows(
    values: jax.Array | np.ndarray, multiple: int
) -> jax.Array | np.ndarray:
  """values [N, R] as float32 with zero rows up to a multiple of rows."""
  # On the host where they are there: an eager jnp.pad compiles for each shape.
  numpy = np if isinstance(values, np.ndarray) else jnp
  missing = -len(values) % multiple
  return numpy.pad(values.astype(np.float32), ((0, missing), (0, 0)))
