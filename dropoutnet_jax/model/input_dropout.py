# SPDX-License-Identifier: Apache-2.0
"""Input dropout: what a row's preference becomes before the tower sees it.

Algorithm 1 of Volkovs, Yu & Poutanen (NIPS 2017) as one state per row: as it
is, dropped, or replaced by the mean over the row's history ("transform"). A
dropped row, a cold row in serving and a row without history are one and the
same input, bit for bit, because `apply_states` makes all three. Kept rows are
not rescaled, as serving does not rescale either, unless a run asks for it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dropoutnet_jax.data import tokens as tokens_lib

AS_IS, DROPPED, TRANSFORMED = 0, 1, 2


class Preference(NamedTuple):
  """Preference of B rows; all is zero where it is not present.

  What is dropped or transformed here has the first two alone;
  `tower_inputs.join_preference` adds the others for a tower.

  Attributes:
    value: float32 [B, P], factors or the mean of a history.
    present: bool [B].
    columns: float32 [B, G], of features and statistics; None without any.
    tokens: what embeddings are looked up for; None without any.
    scale: float32 [], factor that their embeddings are still to get, and
      nothing else; None for 1.
  """

  value: jax.Array
  present: jax.Array
  columns: jax.Array | None = None
  tokens: tokens_lib.Tokens | None = None
  scale: jax.Array | None = None


class Rates(NamedTuple):
  """Independent probabilities of one side's states; the rest is as it is."""

  drop: jax.Array | float
  transform: jax.Array | float


class ModeRates(NamedTuple):
  """Exclusive probabilities of the modes of a pair; the rest is as it is."""

  drop_user: jax.Array | float
  drop_item: jax.Array | float
  drop_both: jax.Array | float
  user_transform: jax.Array | float
  item_transform: jax.Array | float


# Row m: the states of (user, item) in mode m of ModeRates, then "as is".
_MODE_STATES = (
    (DROPPED, AS_IS),
    (AS_IS, DROPPED),
    (DROPPED, DROPPED),
    (TRANSFORMED, AS_IS),
    (AS_IS, TRANSFORMED),
    (AS_IS, AS_IS),
)


def share_of_rates(
    step: jax.Array, schedule: str, ramp_steps: int, start_share: float
) -> jax.Array:
  """Factor in [0, 1] on all rates at a step: float32 [].

  Args:
    step: int32 [].
    schedule: 'constant' is 1; 'linear' and 'cosine' (level at both ends) rise
      from start_share at step 0 to 1 at ramp_steps and stay there.
    ramp_steps: length of the rise, positive unless constant.
    start_share: in [0, 1].
  """
  if schedule == 'constant':
    return jnp.ones((), jnp.float32)
  done = jnp.minimum(step.astype(jnp.float32) / ramp_steps, 1.0)
  if schedule == 'cosine':
    done = (1.0 - jnp.cos(jnp.pi * done)) / 2.0
  return start_share + (1.0 - start_share) * done


def draw_states(key: jax.Array, num_rows: int, rates: Rates) -> jax.Array:
  """Independent states of one side's rows: int32 [num_rows]."""
  draw = jax.random.uniform(key, (num_rows,))
  transformed = jnp.where(
      draw < rates.drop + rates.transform, TRANSFORMED, AS_IS
  )
  return jnp.where(draw < rates.drop, DROPPED, transformed)


def draw_pair_states(
    key: jax.Array, num_pairs: int, rates: ModeRates
) -> tuple[jax.Array, jax.Array]:
  """Exclusive modes, one per pair, as states of user and item: int32 [B].

  The paper picks one of its options for each pair; two independent masks, as
  in the published code, would take both sides from a quarter of the pairs.
  """
  bounds = jnp.cumsum(jnp.stack([jnp.asarray(r, jnp.float32) for r in rates]))
  draw = jax.random.uniform(key, (num_pairs,))
  mode = jnp.searchsorted(bounds, draw, side='right')
  states = jnp.asarray(_MODE_STATES, jnp.int32)[mode]
  return states[:, 0], states[:, 1]


def kept_scale(drop: jax.Array | float) -> jax.Array:
  """1 / (share that is kept) of a drop rate in [0, 1]: float32 [].

  Nothing is kept at rate 1, where the factor is 0.
  """
  kept = 1.0 - jnp.asarray(drop, jnp.float32)
  return jnp.where(kept > 0, 1.0 / jnp.where(kept > 0, kept, 1.0), 0.0)


def apply_states(
    own: Preference, history: Preference, state: jax.Array
) -> Preference:
  """Factors or history mean that the tower sees.

  Args:
    own: factors of the rows, [B, P] and [B]; no columns or tokens.
    history: mean over the other side's history, without the pair in training.
    state: int32 [B], one of AS_IS, DROPPED, TRANSFORMED.

  Returns:
    Preference; exactly zero wherever it is not present. A transformed row
    without history is not present, like a cold one.
  """
  transformed = state == TRANSFORMED
  present = jnp.where(transformed, history.present, own.present)
  present &= state != DROPPED
  value = jnp.where(transformed[:, None], history.value, own.value)
  return Preference(jnp.where(present[:, None], value, 0.0), present)


def history_mean(
    total: jax.Array, count: jax.Array, left_out: jax.Array, num_left: jax.Array
) -> Preference:
  """Mean over a history with what is being trained on left out.

  Args:
    total: [B, P], sum of the other side's preference over the whole history.
    count: int32 [B], length of the history.
    left_out: [B, P], sum over the part that must not be seen.
    num_left: int32 [B], length of that part.

  Returns:
    Preference, not present where nothing is left.
  """
  remaining = count - num_left
  present = remaining > 0
  mean = (total - left_out) / jnp.maximum(remaining, 1)[:, None]
  return Preference(jnp.where(present[:, None], mean, 0.0), present)
