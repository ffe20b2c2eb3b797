# SPDX-License-Identifier: Apache-2.0
"""Steps that touch a few rows of large tables of embeddings, and no others.

Before the loss is computed it is known which ids a step looks up. Their rows of
the table, and those of what the optimiser keeps of it, are taken out; the step
works on these as if there were no more; then they are put back. So the cost of
a step is that of its batch, whatever the size of the table.

What is touched are the tokens of all users and items that a step embeds,
whether or not input dropout takes them away: with Adam those move on by their
mean gradient. A row that no step touches stays as it is, bit for bit.

Where an optimiser works on whole tables, their gradient is made of such rows
all the same on many devices, lest a sum as large as a table travels.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from dropoutnet_jax import config
from dropoutnet_jax import parallel
from dropoutnet_jax import table_shards
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.data import tokens as tokens_lib
from dropoutnet_jax.model import tower_inputs
from dropoutnet_jax.training import state as state_lib
from dropoutnet_jax.training import step_batch

# By name of a table: int32 [n], ascending and distinct ids; what is left of n
# has the number of the table's rows.
Ids = dict[str, jax.Array]
# (tables, step) -> Ids
Find = Callable[[tables_lib.Tables, jax.Array], Ids]


def make_find(
    cfg: config.Config,
    names: Iterable[str],
    mesh: parallel.Mesh | None,
    if_fewer: bool = False,
) -> Find:
  """Returns what finds the ids that a step looks up.

  Args:
    cfg: the experiment.
    names: of tables of embeddings whose rows a step takes out.
    mesh: of the devices, each of which gets all of the ids.
    if_fewer: leaves out tables of which a device has no more rows than these.
  """
  names = tuple(names)
  model = 1 if mesh is None else mesh.shape['model']

  def find(tables: tables_lib.Tables, step: jax.Array) -> Ids:
    if not names:
      return {}
    users, items = parallel.gather_rows(
        step_batch.rows_of_step(cfg, tables, step), mesh
    )
    tokens = tower_inputs.all_tokens(tables.user, users)
    tokens += tower_inputs.all_tokens(tables.item, items)
    found = {}
    for name in names:
      ids, num_rows = _ids(name, tokens)
      if not if_fewer or len(ids) < num_rows // model:
        found[name] = ids
    return parallel.gather_rows(found, mesh)

  return find


def _ids(name: str, tokens: list[tokens_lib.Tokens]) -> tuple[jax.Array, int]:
  """Distinct ids of one table among tokens, and 0; how many rows it has."""
  found, num_rows = [jnp.zeros(1, jnp.int32)], 0  # what is dropped becomes 0
  for one in tokens:
    for feature in one.features:
      if feature.table == name:
        found.append(one.id[:, feature.start : feature.stop].reshape(-1))
        num_rows = feature.num_rows
  together = jnp.concatenate(found)
  size = min(len(together), num_rows)
  return jnp.unique(together, size=size, fill_value=num_rows), num_rows


def take(tree: Any, ids: Ids, mesh: parallel.Mesh | None) -> Any:
  """A state or parameters with only these rows, on every device."""

  def pick(leaf: jax.Array, rows: jax.Array | None) -> jax.Array:
    return leaf if rows is None else table_shards.take(leaf, rows, mesh)

  return _map(pick, ids, tree)


def put(tree: Any, ids: Ids, new: Any, mesh: parallel.Mesh | None) -> Any:
  """`new`, which has these rows alone, with all rows of `tree`."""

  def write(
      leaf: jax.Array, rows: jax.Array | None, values: jax.Array
  ) -> jax.Array:
    if rows is None:
      return values
    return table_shards.put(leaf, rows, values, mesh)

  return _map(write, ids, tree, new)


def whole_gradient(
    params: Any, ids: Ids, grads: Any, mesh: parallel.Mesh | None
) -> Any:
  """`grads` of these rows alone as those of all rows: the others have none."""
  if not ids:
    return grads
  return put(jax.tree.map(jnp.zeros_like, params), ids, grads, mesh)


def _map(
    function: Callable[..., Any], ids: Mapping[str, Any], state: Any, *more: Any
) -> Any:
  """Maps (leaf, ids of its table or None, more leaves) to a leaf."""

  def apply(path: Any, leaf: jax.Array, *others: jax.Array) -> Any:
    table = state_lib.table_of(path)
    rows = None if table is None else ids.get(table)
    return function(leaf, rows, *others)

  return jax.tree_util.tree_map_with_path(apply, state, *more)
