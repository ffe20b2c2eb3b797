# SPDX-License-Identifier: Apache-2.0
"""Features of what was counted, without the pairs that are being trained on.

All rows of a pair are left out, and one that is left with none is not present:
the user of a single pair is in training what a new one is at serving.

What is left out is exact, and so a count is lower by one, and a rate lower by
a little, where the row was a reaction: towers that can tell a single user by
her content could read a label off that. With labels that nothing explains no
feature is correlated with the label of its row, but for what the split does:
where warm likes are held out, every user and item keeps one for training, and
of a row whose user has no other like it is a little likelier that it is one.
"""

import jax
import jax.numpy as jnp

from dropoutnet_jax.data import batches
from dropoutnet_jax.data import statistics
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.model import input_dropout

_CLIP = 5.0  # standard deviations


def left_out(bits: jax.Array, num_windows: int) -> statistics.LeftOut:
  """One like for each of B users or items.

  Args:
    bits: int32 [B], its windows; 0 leaves nothing out.
    num_windows: W.
  """
  shown = in_windows(bits, num_windows).astype(jnp.int32)
  return statistics.LeftOut(shown, shown.astype(jnp.float32))


def in_windows(bits: jax.Array, num_windows: int) -> jax.Array:
  """Bits [...] of `data.statistics.window_bits` as bool [..., 1 + W]."""
  place = jnp.arange(1 + num_windows).reshape((1,) * bits.ndim + (-1,))
  return (bits[..., None] >> place) & 1 == 1


def features(
    counts: statistics.Counts,
    rows: jax.Array,
    left: statistics.LeftOut | None = None,
) -> input_dropout.Preference:
  """Features of users or items.

  Args:
    counts: of their side.
    rows: int32 [B].
    left: what to leave out; None for nothing.

  Returns:
    Value [B, S] and presence [B]: by window how often it was shown, then where
    there are labels by window its rate of reactions. Each has about variance 1
    over training and is clipped at 5; a rate of 0 is the usual one.
  """
  shown, reacted = counts.shown[rows], counts.reacted[rows]
  if left is not None:
    shown -= left.shown
  present = shown[:, 0] > 0
  shown = shown[:, 1:].astype(jnp.float32)
  size = jnp.log1p(shown) - counts.mean[None, :]
  columns = [size / counts.std[None, :]]
  if reacted.shape[1]:
    if left is not None:
      # What is left of fractions may be a rounding error below 0.
      reacted -= left.reacted / counts.largest_label
      reacted = jnp.maximum(reacted, 0.0)
    rate = statistics.smoothed_logits(
        reacted[:, 1:], shown, counts.prior, counts.smoothing
    )
    columns.append(rate / counts.rate_std[None, :])
  value = jnp.clip(jnp.concatenate(columns, axis=1), -_CLIP, _CLIP)
  return input_dropout.Preference(
      jnp.where(present[:, None], value, 0.0), present
  )


def whole(
    side: tables_lib.SideTable, rows: jax.Array
) -> input_dropout.Preference | None:
  """Features of rows [B] with nothing left out; None without statistics."""
  return None if side.counts is None else features(side.counts, rows)


_Sides = tuple[input_dropout.Preference | None, input_dropout.Preference | None]


def without_pairs(
    tables: tables_lib.Tables,
    pairs: batches.Pairs | tables_lib.LabelledRows,
) -> _Sides:
  """Features of the users and items of a batch, each without its pair."""
  user, item = tables.user.counts, tables.item.counts
  if user is None or item is None:
    return None, None
  if isinstance(pairs, tables_lib.LabelledRows):
    left = pairs.counted
  else:
    bits = batches.pair_windows(
        tables.user_history, tables.history_windows, pairs
    )
    left = left_out(bits, user.num_windows)
  return features(user, pairs.user, left), features(item, pairs.item, left)


def without_block(tables: tables_lib.Tables, block: batches.Block) -> _Sides:
  """Features of the users and items of a block, without all of its pairs."""
  user, item = tables.user.counts, tables.item.counts
  if user is None or item is None:
    return None, None
  bits = batches.block_windows(
      tables.user_history,
      tables.history_windows,
      block,
      len(tables.item.present),
  )

  def without(
      counts: statistics.Counts, rows: jax.Array, axis: int
  ) -> input_dropout.Preference:
    # Window by window: no array of all pairs in all windows.
    number = range(1 + counts.num_windows)
    shown = [jnp.sum(bits >> n & 1, axis=axis) for n in number]
    left = jnp.stack(shown, axis=1)
    return features(
        counts, rows, statistics.LeftOut(left, left.astype(jnp.float32))
    )

  return without(user, block.user, 1), without(item, block.item, 0)
