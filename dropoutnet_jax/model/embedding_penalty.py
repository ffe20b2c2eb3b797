# SPDX-License-Identifier: Apache-2.0
"""L2 of learnt embeddings, of the rows of the tables that a batch looks up.

Rows that nobody looks up are left alone. Weight decay would shrink them in
every step, the rare ones most: those that are seldom pulled back.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from dropoutnet_jax.data import tokens as tokens_lib


def penalty(
    tables: Mapping[str, Any],
    tokens: Iterable[tokens_lib.Tokens],
    by: str,
    is_real: jax.Array | None = None,
) -> jax.Array:
  """Half the sum of squares of the embeddings of a batch: float32 [].

  Args:
    tables: float32 [ids, width] or `embedding_rows.Rows`, by name.
    tokens: of the users and of the items of the batch. Every token counts,
      whatever its weight unless that is 0; an id counts as often as it occurs.
    by: 'row', the mean over the rows [B] of each of the tokens, so that the
      strength beside a mean loss is the same for any batch; 'batch', the sum
      over them, as in EasyRec.
    is_real: bool [B], False for rows that are padding; None has none.
  """
  total = jnp.zeros(())
  for one in tokens:
    square = jnp.zeros(())
    for feature in one.features:
      columns = slice(feature.start, feature.stop)
      emb = tables[feature.table][one.id[:, columns]]
      there = one.weight[:, columns] > 0
      if is_real is not None:
        there &= is_real[:, None]
      square += jnp.sum(jnp.where(there[..., None], emb * emb, 0.0))
    if by == 'row':
      rows = len(one) if is_real is None else jnp.sum(is_real)
      square /= jnp.maximum(rows, 1)
    total += square / 2
  return total
