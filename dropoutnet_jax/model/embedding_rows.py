# SPDX-License-Identifier: Apache-2.0
"""Rows of tables of learnt embeddings: their first values, and look-ups.

A tower reads a table by ids, and does not care whether all rows of it are there
or those of the ids of a batch alone.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from dropoutnet_jax.data import tokens as tokens_lib

# Of a large table, values that are drawn at once: the memory that it takes
# beside the table; and in how many parts of the table at once, so that as many
# devices or fewer have whole parts.
_DRAWN = 2**20
_PARTS = tokens_lib.EVEN_ROWS


@flax.struct.dataclass
class Rows:
  """Rows of a table.

  Attributes:
    values: float32 [n, D].
    ids: int32 [n], ascending, which rows these are; None for all of them.
  """

  values: Any
  ids: Any = None

  def __getitem__(self, ids: jax.Array) -> jax.Array:
    """Embeddings [..., D] of ids [...], each of which must be there."""
    if self.ids is None:
      return self.values[ids]
    return self.values[jnp.searchsorted(self.ids, ids)]


def of_params(
    params: Mapping[str, Any], ids: Mapping[str, jax.Array] | None = None
) -> dict[str, Rows]:
  """The tables among parameters of a model, by name.

  Args:
    params: of the model.
    ids: by name of the table, of those that only some rows are there of.
  """
  known = ids or {}
  return {
      name: Rows(values, known.get(name))
      for name, values in params.get('embeddings', {}).items()
  }


def tables(
    features: Iterable[tokens_lib.TokenFeature],
    make: Callable[[tokens_lib.TokenFeature], Rows],
) -> dict[str, Rows]:
  """The tables that features are of, by name; `make` makes each once.

  Raises:
    ValueError: if features share a table and disagree about its shape.
  """
  found: dict[str, Rows] = {}
  for feature in features:
    name, shape = feature.table, (feature.num_rows, feature.width)
    rows = found[name] = found.get(name) or make(feature)
    if rows.ids is None and rows.values.shape != shape:
      raise ValueError(
          f'Features of embedding table {name!r} want it to be {shape} and '
          f'{rows.values.shape}.'
      )
  return found


def first_values(key: jax.Array, feature: tokens_lib.TokenFeature) -> jax.Array:
  """Normal rows of the table of a feature, float32 [rows, width].

  A row is a function of the key and its number: neither the size of the table
  nor the devices that it is split over change it. Rows that no id has are 0. A
  large table is filled piece by piece, so that it needs no memory beside
  itself.
  """
  num_rows, width = feature.num_rows, feature.width

  def draw(number: jax.Array) -> jax.Array:
    row = jax.random.normal(jax.random.fold_in(key, number), (width,))
    return jnp.where(number < feature.num_ids, feature.std * row, 0.0)

  if num_rows % _PARTS or num_rows * width <= _DRAWN:
    return jax.vmap(draw)(jnp.arange(num_rows))
  size = num_rows // _PARTS
  step = max(1, min(size, _DRAWN // (_PARTS * width)))
  first = size * jnp.arange(_PARTS)

  def fill(number: jax.Array, table: jax.Array) -> jax.Array:
    start = jnp.minimum(number * step, size - step)  # the last overlaps
    rows = first[:, None] + (start + jnp.arange(step))[None]
    return jax.lax.dynamic_update_slice_in_dim(
        table, jax.vmap(jax.vmap(draw))(rows), start, axis=1
    )

  empty = jnp.zeros((_PARTS, size, width))
  filled = jax.lax.fori_loop(0, -(-size // step), fill, empty)
  return filled.reshape(num_rows, width)
