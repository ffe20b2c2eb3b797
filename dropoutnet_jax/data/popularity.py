# SPDX-License-Identifier: Apache-2.0
"""How often items occur: draws by popularity, and what corrects for it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special


class PopularityTable(NamedTuple):
  """Which items are sampled, and how often.

  Attributes:
    item: int32 [J], rows of the items that can be drawn.
    start: uint32 [J], where each one's share of all 2**32 numbers begins;
      float32 would lose the rare items of a large catalogue.
    log_probability: float32 [I] of one draw, for the correction of sampling
      bias; -inf for items that are never drawn.
  """

  item: np.ndarray
  start: np.ndarray
  log_probability: np.ndarray


def popularity_table(count: np.ndarray, power: float) -> PopularityTable:
  """Prepares draws with probability proportional to count ** power.

  The count [I] is of training interactions. Items without any are never drawn,
  even uniformly (power 0): they are cold, and taught as negatives they would
  be pushed away from everybody.

  Raises:
    ValueError: if counts are negative or not finite, or none is positive.
  """
  count = _checked_count(count)
  item = np.flatnonzero(count)
  log_share = special.log_softmax(power * np.log(count[item]))
  share = np.exp(log_share)
  before = np.concatenate([[0.0], np.cumsum(share)[:-1]])
  start = np.minimum(np.floor(before * 2.0**32), 2.0**32 - 1)
  log_probability = np.full(len(count), -np.inf, np.float32)
  log_probability[item] = log_share
  return PopularityTable(
      item.astype(np.int32), start.astype(np.uint32), log_probability
  )


def sample_items(
    key: jax.Array, table: PopularityTable, shape: tuple[int, ...]
) -> jax.Array:
  """Draws item rows independently, with repeats: int32 of this shape."""
  draw = jax.random.bits(key, shape, jnp.uint32)
  place = jnp.searchsorted(jnp.asarray(table.start), draw, side='right') - 1
  return jnp.asarray(table.item)[place]


def log_frequency(count: np.ndarray) -> np.ndarray:
  """Log of each item's share of all draws, by its count [I]: float32 [I].

  In-batch negatives are corrected by it: Yi et al., "Sampling-Bias-Corrected
  Neural Modeling for Large Corpus Item Recommendations", RecSys 2019, who
  estimate it from a stream. Here the rows that batches are drawn from are
  counted, so that it is exact: an item occurs in B rows B times its share, in
  the mean, and each occurrence is a negative. (That it occurs at all, of which
  they speak, is nearly as likely for rare items.) The factor B is left out,
  since the same for all items changes no softmax. An item without any row
  counts as if it had one, so that every value is finite.

  Raises:
    ValueError: on wrong counts, see `popularity_table`.
  """
  count = _checked_count(count)
  return np.log(np.maximum(count, 1.0) / count.sum()).astype(np.float32)


def _checked_count(count: np.ndarray) -> np.ndarray:
  count = np.asarray(count, np.float64)
  wrong = ~(np.isfinite(count) & (count >= 0))
  if wrong.any():
    item = int(np.flatnonzero(wrong)[0])
    raise ValueError(f'count[{item}] is {count[item]}: not finite and >= 0.')
  if not count.any():
    raise ValueError('No item has interactions to be drawn by.')
  return count
