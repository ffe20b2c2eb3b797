# SPDX-License-Identifier: Apache-2.0
"""Scores against items rolled by consecutive shifts, as small dense products.

With shifts first, first + 1, ... a row meets a run of neighbouring items, and M
rows together meet 2 M - 1 of them: a band of the product of all users with all
items. One dense product per M rows makes it, at twice the arithmetic that is
needed and none of the scattered reads, in the gradient as well.
"""

import jax
import jax.numpy as jnp


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
    user_emb: jax.Array, item_emb: jax.Array, first: jax.Array, num: int
) -> jax.Array:
  """Scores of each row with `num` items before its own: float32 [B, M].

  out[b, m] = <user_emb[b], item_emb[(b - first - m) mod B]>, which is
  `rolled_scores` for shifts first + m.

  Args:
    user_emb: [B, D].
    item_emb: [B, D].
    first: int32 [], the first shift.
    num: M, at least 1 and at most B.

  Raises:
    ValueError: if shapes differ or M is out of its range.
  """
  if user_emb.shape != item_emb.shape or user_emb.ndim != 2:
    raise ValueError(f'Shapes differ: {user_emb.shape} and {item_emb.shape}.')
  size, width = user_emb.shape
  if not 1 <= num <= size:
    raise ValueError(f'num must be in [1, {size}]: {num}')
  # Row b wants rows b - M + 1 ... b of this table. Blocks of M rows, one block
  # in front for those of the first rows: a row's own block and the one before
  # hold all that it wants.
  table = jnp.roll(item_emb, first, axis=0)
  missing = -size % num
  table = jnp.concatenate([table[size - num :], _padded(table, missing)])
  blocks = table.reshape(-1, num, width)
  pairs = jnp.concatenate([blocks[:-1], blocks[1:]], axis=1)
  rows = _padded(user_emb, missing).reshape(-1, num, width)
  score = jnp.einsum(
      'ncd,nkd->nck', rows, pairs, preferred_element_type=jnp.float32
  )
  return _diagonals(score).reshape(-1, num)[:size]


def _padded(rows: jax.Array, missing: int) -> jax.Array:
  return jnp.pad(rows, ((0, missing), (0, 0)))


def _diagonals(score: jax.Array) -> jax.Array:
  """out[n, c, m] = score[n, c, M + c - m] of [N, M, 2 M], without a gather.

  Laid out flat, a row that is one entry longer begins one entry later.
  """
  num_blocks, num, width = score.shape
  flat = jnp.pad(score.reshape(num_blocks, -1), ((0, 0), (0, num)))
  skewed = flat.reshape(num_blocks, num, width + 1)
  return skewed[:, :, num:0:-1]
