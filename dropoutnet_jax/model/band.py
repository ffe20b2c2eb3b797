# SPDX-License-Identifier: Apache-2.0
"""Scores against items rolled by consecutive shifts, as small dense products.

With shifts first, first + 1, ... a row meets a run of neighbouring items, and M
rows together meet 2 M - 1 of them: a band of the product of all users with all
items. One dense product per M rows makes it, at twice the arithmetic that is
needed and none of the scattered reads, in the gradient as well.
"""

import jax
import jax.numpy as jnp

from dropoutnet_jax.model import rolled


def first_shift(key: jax.Array, batch_size: int, num: int) -> jax.Array:
  """Draws the first of `num` consecutive shifts, all in [1, batch_size - 1].

  The order of a batch is random, so that a run of its rows is a random sample
  without repeats, as that of `rolled.roll_shifts`; but neighbouring rows share
  most of it.

  Raises:
    ValueError: unless 1 <= num < batch_size.
  """
  if not 1 <= num < batch_size:
    raise ValueError(f'num must be in [1, {batch_size - 1}]: {num}')
  return jax.random.randint(key, (), 1, batch_size - num + 1, jnp.int32)


def consecutive_scores(
    user_emb: jax.Array,
    item_emb: jax.Array,
    first: jax.Array,
    num: int,
    first_row: jax.Array | int = 0,
) -> jax.Array:
  """Scores of each row with `num` items before its own: float32 [B, M].

  out[b, m] = <user_emb[b], item_emb[(b - first - m) mod B]>, which is
  `rolled_scores` for shifts first + m.

  Args:
    user_emb: [B, D], or [C, D], C of the B rows that follow each other.
    item_emb: [B, D].
    first: int32 [], the first shift.
    num: M, at least 1 and at most B.
    first_row: int32 [], the number of the first of C rows.

  Raises:
    ValueError: if shapes do not fit or M is out of its range.
  """
  rolled.check_shapes(user_emb, item_emb)
  size, width = user_emb.shape
  if not 1 <= num <= len(item_emb):
    raise ValueError(f'num must be in [1, {len(item_emb)}]: {num}')
  # Row c wants rows c - M + 1 ... c of this table. Blocks of M rows, one block
  # in front for those of the first rows: a row's own block and the one before
  # hold all that it wants. Fewer than M rows are one block of their own size.
  table = jnp.roll(item_emb, first - first_row, axis=0)
  front, table = table[len(table) - num :], table[:size]
  if size <= num:
    pairs = jnp.concatenate([front, table])[None]
    rows = user_emb[None]
  else:
    missing = -size % num
    table = jnp.concatenate([front, _padded(table, missing)])
    blocks = table.reshape(-1, num, width)
    pairs = jnp.concatenate([blocks[:-1], blocks[1:]], axis=1)
    rows = _padded(user_emb, missing).reshape(-1, num, width)
  score = jnp.einsum(
      'ncd,nkd->nck', rows, pairs, preferred_element_type=jnp.float32
  )
  return _diagonals(score, num).reshape(-1, num)[:size]


def _padded(rows: jax.Array, missing: int) -> jax.Array:
  return jnp.pad(rows, ((0, missing), (0, 0)))


def _diagonals(score: jax.Array, num: int) -> jax.Array:
  """out[n, c, m] = score[n, c, M + c - m] of [N, C, C + M], without a gather.

  Laid out flat, a row that is one entry longer begins one entry later.
  """
  num_blocks, size, width = score.shape
  flat = jnp.pad(score.reshape(num_blocks, -1), ((0, 0), (0, size)))
  skewed = flat.reshape(num_blocks, size, width + 1)
  return skewed[:, :, num:0:-1]
