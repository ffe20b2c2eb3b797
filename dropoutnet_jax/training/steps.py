# SPDX-License-Identifier: Apache-2.0
"""Compiled train steps.

A step is a pure function of (state, tables). Many steps run in one dispatch; a
non-finite loss ends it with the state before the bad step.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dropoutnet_jax import config
from dropoutnet_jax import parallel
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.training import batch_loss
from dropoutnet_jax.training import state as state_lib
from dropoutnet_jax.training import touched_rows


def make_train_steps(
    loss_fn: batch_loss.LossFn,
    optimizer: optax.GradientTransformation,
    settings: config.TrainConfig,
    names: tuple[str, ...],
    find: touched_rows.Find = lambda tables, step: {},
    mesh: parallel.Mesh | None = None,
    find_others: touched_rows.Find = lambda tables, step: {},
) -> Callable[..., tuple[state_lib.TrainState, batch_loss.Metrics]]:
  """Returns jitted (state, tables, count) -> (state, metrics).

  Args:
    loss_fn: see `batch_loss.make_loss_fn`.
    optimizer: of the parameters.
    settings: length of a dispatch and decay of the averages.
    names: of the metrics of the loss function, and 'gradient_norm'.
    find: which rows of tables of embeddings a step touches, of those of which
      it touches no more; see `touched_rows`.
    mesh: of the devices.
    find_others: which rows it looks up of tables that the optimiser works on as
      a whole, of those whose gradient is made of these rows.

  `count` steps (traced, at most train.steps_per_dispatch: one program for any
  number) run in one call; `state` is donated. Metrics are float32
  [steps_per_dispatch] ([num_steps] if those are fewer); entries from the number
  of steps done on are NaN. After a non-finite loss no further step runs and
  state.step stays at the bad step.

  A while loop and not a scan: its number of rounds is traced, so that cut and
  resumed dispatches share the program of whole ones, and it ends at a bad step
  instead of computing on. Its one lack, reverse-mode gradients through the
  loop, is not needed here.
  """
  size = min(settings.steps_per_dispatch, settings.num_steps)

  def one_step(
      state: state_lib.TrainState,
      tables: tables_lib.Tables,
      ids: touched_rows.Ids,
  ) -> tuple[state_lib.TrainState, batch_loss.Metrics]:
    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
    others = find_others(tables, state.step)
    params = touched_rows.take(state.params, others, mesh)
    (_, (stats, metrics)), grads = grad_fn(
        params, state.batch_stats, tables, state.step, ids | others
    )
    grads = touched_rows.whole_gradient(state.params, others, grads, mesh)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    new = state_lib.TrainState(
        step=state.step + 1,
        params=params,
        batch_stats=stats,
        opt_state=opt_state,
        ema_params=state.ema_params,
        ema_batch_stats=state.ema_batch_stats,
    )
    new = new.average(settings.ema) if settings.ema else new
    metrics['gradient_norm'] = optax.tree.norm(grads)
    return new, metrics

  def train_steps(
      state: state_lib.TrainState, tables: tables_lib.Tables, count: jax.Array
  ) -> tuple[state_lib.TrainState, batch_loss.Metrics]:
    empty = {name: jnp.full((size,), jnp.nan) for name in names}

    def go_on(carry: Any) -> jax.Array:
      _, _, done, finite = carry
      return (done < count) & finite

    def body(carry: Any) -> Any:
      state, metrics, done, _ = carry
      ids = find(tables, state.step)
      old = touched_rows.take(state, ids, mesh)
      new, values = one_step(old, tables, ids)
      finite = jnp.isfinite(values['loss/total'])
      finite &= jnp.isfinite(values['gradient_norm'])
      new = jax.tree.map(lambda old, new: jnp.where(finite, new, old), old, new)
      state = touched_rows.put(state, ids, new, mesh)
      metrics = {
          name: metrics[name].at[done].set(values[name]) for name in names
      }
      return state, metrics, done + 1, finite

    carry = (state, empty, jnp.int32(0), jnp.bool_(True))
    state, metrics, _, _ = jax.lax.while_loop(go_on, body, carry)
    return state, metrics

  return jax.jit(train_steps, donate_argnums=0)
