# SPDX-License-Identifier: Apache-2.0
"""Which candidates of a row count as negatives, and which are the hardest.

Every mask is True where a negative counts. No loss, config or device is known
here.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dropoutnet_jax.model import rolled

# The negatives themselves are of another file; here is where they are sought.
roll_shifts = rolled.roll_shifts
rolled_scores = rolled.rolled_scores

_ABSENT = np.iinfo(np.int32).max  # above every item row


def mixed_scores(user_emb: jax.Array, item_emb: jax.Array) -> jax.Array:
  """Dot products of users [B, D] with sampled items [S, D]: float32 [B, S]."""
  return jnp.einsum(
      'bd,sd->bs', user_emb, item_emb, preferred_element_type=jnp.float32
  )


def own_scores(user_emb: jax.Array, item_emb: jax.Array) -> jax.Array:
  """Dot products of users [B, D] with items of their own [B, M, D]: [B, M]."""
  return jnp.einsum(
      'bd,bmd->bm', user_emb, item_emb, preferred_element_type=jnp.float32
  )


def not_in_history(candidate: jax.Array, user_history: jax.Array) -> jax.Array:
  """Where candidates int32 [B, M] are none that the user liked: bool [B, M].

  A history has the items that the row's user liked in training: int32 [B, L],
  ascending, then -1, as `History.padded` makes them; or uint32 [B, W], as
  `History.bits` does: a single look-up where the other is a search.
  """
  if user_history.dtype == jnp.uint32:
    word = jnp.take_along_axis(user_history, candidate // 32, axis=1)
    return (word >> (candidate % 32).astype(jnp.uint32)) & 1 == 0
  length = user_history.shape[1]
  if not length:
    return jnp.ones(candidate.shape, bool)
  ordered = jnp.where(user_history < 0, _ABSENT, user_history)
  place = jax.vmap(jnp.searchsorted)(ordered, candidate)
  nearest = jnp.minimum(place, length - 1)
  return jnp.take_along_axis(ordered, nearest, axis=1) != candidate


def valid_candidates(
    candidate: jax.Array,
    item_id: jax.Array,
    user_history: jax.Array | None = None,
    row_mask: jax.Array | None = None,
    mask_same: bool = True,
) -> jax.Array:
  """Which candidates count as negatives: bool [B, M].

  Not the row's own item, nothing that the row's user is known to like, and
  nothing for a row of padding.

  Args:
    candidate: int32 [B, M], or [M] where all rows share a sample.
    item_id: int32 [B], the item of each row.
    user_history: [B, ...], see `not_in_history`; None counts the user's other
      positives as negatives.
    row_mask: bool [B], False for padding; None has no padding.
    mask_same: whether the row's own item is none.
  """
  shape = (item_id.shape[0], candidate.shape[-1])
  candidate = jnp.broadcast_to(jnp.atleast_2d(candidate), shape)
  valid = jnp.ones(shape, bool)
  if mask_same:
    valid = candidate != item_id[:, None]
  if user_history is not None:
    valid &= not_in_history(candidate, user_history)
  return valid if row_mask is None else valid & row_mask[:, None]


def valid_negatives(
    item_id: jax.Array,
    shifts: jax.Array,
    user_history: jax.Array | None = None,
    row_mask: jax.Array | None = None,
    mask_same: bool = True,
) -> jax.Array:
  """Which rolled negatives count: bool [B, M].

  `valid_candidates` among the items of rolled rows, which may not be padding
  either. A row of weight 0 is no padding: it supplies negatives like any other.
  """
  candidate = rolled.roll(item_id, shifts)
  valid = valid_candidates(
      candidate, item_id, user_history, row_mask, mask_same
  )
  return valid if row_mask is None else valid & rolled.roll(row_mask, shifts)


def hardest(
    scores: jax.Array, mask: jax.Array, k: int
) -> tuple[jax.Array, jax.Array]:
  """The k negatives of each row that score most among those that count.

  Returns:
    Of scores [B, M] and mask bool [B, M] the scores [B, k], descending, and
    their mask. Where a row has fewer than k, the rest is 0 and does not count.

  Raises:
    ValueError: if shapes differ or unless 1 <= k <= M.
  """
  if scores.shape != mask.shape:
    raise ValueError(f'Shapes differ: {scores.shape} and {mask.shape}.')
  if not 1 <= k <= scores.shape[1]:
    raise ValueError(f'k must be in [1, {scores.shape[1]}]: {k}')
  counted = jnp.where(mask, jax.lax.stop_gradient(scores), -jnp.inf)
  _, place = jax.lax.top_k(counted, k)
  chosen = jnp.take_along_axis(mask, place, axis=1)
  # Not -inf: a later product with a mask of 0 would be NaN.
  taken = jnp.take_along_axis(scores, place, axis=1)
  return jnp.where(chosen, taken, 0.0), chosen
