# SPDX-License-Identifier: Apache-2.0
"""What one optimiser step changes: arrays and nothing else."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.model import tower_inputs
from dropoutnet_jax.model import towers


@flax.struct.dataclass
class TrainState:
  """State of a run between two steps; it saves, donates and shards as it is.

  Attributes:
    step: int32 [], steps done; also names the checkpoint.
    params: of both towers, their tables of embeddings, and the objective
      (model/objective_params.py).
    batch_stats: running statistics of batch norm; {} without it.
    opt_state: of the optimiser.
    ema_params: moving average of the parameters; {} where it is off.
    ema_batch_stats: the same average of the running statistics: those of other
      parameters would not fit.
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: optax.OptState
  ema_params: Any
  ema_batch_stats: Any = flax.struct.field(default_factory=dict)

  def average(self, decay: float) -> 'TrainState':
    """Moves the averages towards parameters and statistics, after a step.

    The decay grows with the step n as min(decay, n / (9 + n)), so that the
    random start is soon forgotten (a tenth of it is left after one step) and
    little else later, as in tf.train.ExponentialMovingAverage.
    """
    done = self.step.astype(jnp.float32)
    share = 1.0 - jnp.minimum(decay, done / (9.0 + done))
    move = lambda new, old: optax.incremental_update(new, old, share)
    return dataclasses.replace(
        self,
        ema_params=move(self.params, self.ema_params),
        ema_batch_stats=move(self.batch_stats, self.ema_batch_stats),
    )

  def eval_variables(self) -> dict[str, Any]:
    """Variables to embed with: averaged parameters where there are some."""
    if self.ema_params:
      return {'params': self.ema_params, 'batch_stats': self.ema_batch_stats}
    return {'params': self.params, 'batch_stats': self.batch_stats}


def by_name(tree: Any) -> dict[str, Any]:
  """Leaves by their path, in order: {'user_tower/output/kernel': ...}."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  name = lambda path: jax.tree_util.keystr(path, simple=True, separator='/')
  return {name(path): leaf for path, leaf in leaves}


def table_of(path: tuple[Any, ...]) -> str | None:
  """Of which table of embeddings a leaf of a state holds the rows, if of one.

  Such are its parameters, their average and what the optimiser keeps of them.
  """
  name = jax.tree_util.keystr(path, simple=True, separator='/')
  *_, group, table = '', *name.split('/')
  return table if group == 'embeddings' else None


def create_state(
    model: towers.TwoTower,
    optimizer: optax.GradientTransformation,
    tables: tables_lib.Tables,
    seed: int,
    use_ema: bool,
    more_params: Mapping[str, Any] | None = None,
) -> TrainState:
  """Fresh parameters for tables of these widths, and some beside them."""
  variables = model.init(
      jax.random.key(seed),
      *tower_inputs.blank_row(tables.user),
      *tower_inputs.blank_row(tables.item),
  )
  params = {**variables['params'], **(more_params or {})}
  stats = variables.get('batch_stats', {})
  copied = lambda tree: jax.tree.map(jnp.copy, tree) if use_ema else {}
  return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      batch_stats=stats,
      opt_state=optimizer.init(params),
      ema_params=copied(params),
      ema_batch_stats=copied(stats),
  )
