# SPDX-License-Identifier: Apache-2.0
"""Embeddings of new rows that were told of a little after training.

A tower was trained on rows that have either no preference or a settled one. Of
a new row with n interactions it says one thing by its content alone, another
by content and preference; the embedding is the mean of both, the latter with a
weight of n / (n + `features.history_smoothing`), so that a row moves step by
step from one to the other.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.model import input_dropout
from dropoutnet_jax.model import objective
from dropoutnet_jax.model import statistics
from dropoutnet_jax.model import tower_inputs


def preference(
    side: tables_lib.SideTable, rows: jax.Array, state: int
) -> input_dropout.Preference:
  """All preference that a tower sees of rows [B], in one state for all."""
  own = objective.preference(side, rows)
  return tower_inputs.preference(
      side,
      rows,
      own,
      own,
      jnp.full(rows.shape, state),
      counted=statistics.whole(side, rows),
  )


def blended(
    embed: Callable[[int], jax.Array],
    side: tables_lib.SideTable,
    rows: jax.Array,
    is_unit: bool,
) -> jax.Array:
  """Dense embeddings float32 [B, R] of rows [B].

  Args:
    embed: dense embeddings [B, R] with all preferences in one state of
      `input_dropout`, AS_IS or DROPPED.
    side: the table of the rows; where it trusts all preferences wholly,
      nothing is embedded twice.
    rows: int [B].
    is_unit: whether embeddings have norm 1 (`model.normalize`).
  """
  whole = embed(input_dropout.AS_IS)
  if side.trust is None:
    return whole
  trust = side.trust[rows][:, None]
  mean = trust * whole + (1 - trust) * embed(input_dropout.DROPPED)
  return embeddings.normalized(mean) if is_unit else mean
