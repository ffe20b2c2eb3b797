# SPDX-License-Identifier: Apache-2.0
"""What one optimiser step changes: arrays and nothing else."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.model import input_dropout
from dropoutnet_jax.model import towers


@flax.struct.dataclass
class TrainState:
  """State of a run between two steps; it saves, donates and shards as it is.

  Attributes:
    step: int32 [], steps done; also names the checkpoint.
    params: of both towers.
    batch_stats: running statistics of batch norm; {} without it.
    opt_state: of the optimiser.
    ema_params: moving average of the parameters; {} where it is off.
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: optax.OptState
  ema_params: Any

  def eval_variables(self) -> dict[str, Any]:
    """Variables to embed with: averaged parameters where there are some."""
    return {
        'params': self.ema_params or self.params,
        'batch_stats': self.batch_stats,
    }


def create_state(
    model: towers.TwoTower,
    optimizer: optax.GradientTransformation,
    tables: tables_lib.Tables,
    seed: int,
    use_ema: bool,
) -> TrainState:
  """Fresh parameters for tables of these widths."""

  def one_row(side: tables_lib.SideTable) -> tuple[Any, jax.Array]:
    value = jnp.zeros((1, side.preference.shape[1]))
    present = jnp.zeros((1,), bool)
    content = jnp.zeros((1, side.content.shape[1]))
    return input_dropout.Preference(value, present), content

  variables = model.init(
      jax.random.key(seed), *one_row(tables.user), *one_row(tables.item)
  )
  params = variables['params']
  return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      batch_stats=variables.get('batch_stats', {}),
      opt_state=optimizer.init(params),
      ema_params=jax.tree.map(jnp.copy, params) if use_ema else {},
  )
