# SPDX-License-Identifier: Apache-2.0
"""Why a loss is not finite: the rows of the bad step to blame, by id."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.training import runtime as runtime_lib
from dropoutnet_jax.training import state as state_lib
from dropoutnet_jax.training import step_batch

_SHOWN = 3  # rows of each side


def non_finite_error(
    runtime: runtime_lib.Runtime,
    state: state_lib.TrainState,
    placed: tables_lib.Tables | None = None,
) -> errors.UserError:
  """The error for a loss or gradient that is not finite.

  Args:
    runtime: of the run.
    state: as it was before the bad step, which `state.step` names.
    placed: what that step has read; None for the tables of the runtime.
  """
  step = int(state.step)
  placed = runtime.tables if placed is None else placed
  loss, _ = jax.jit(runtime.loss_fn())(
      state.params, state.batch_stats, placed, state.step
  )
  tables = runtime.own(placed)
  batch = _batch_rows(runtime, tables, step)
  sizes = ' and '.join(f'{len(rows):,} {side}s' for side, rows in batch.items())
  worst = '; '.join(
      f'{side}s {_largest(runtime, state, side, getattr(tables, side), rows)}'
      for side, rows in batch.items()
  )
  rate = runtime.cfg.train.learning_rate
  return errors.UserError(
      f'Step {step}: the loss is {float(loss)} or its gradient is not finite. '
      f'Of its {sizes}, the largest by norm: {worst}. Usual causes: '
      f'train.learning_rate {rate:g} too high (try a tenth, or '
      'train.gradient_clip=1), unscaled columns in the content, or huge '
      'factors of the teacher. Started again, this run stops at the same '
      'step: change the cause and train from the start in a new --workdir.'
  )


def _batch_rows(
    runtime: runtime_lib.Runtime, tables: tables_lib.Tables, step: int
) -> dict[str, np.ndarray]:
  """Distinct rows of users and items in the batch of a step, ascending."""
  cfg = runtime.cfg
  draw = jax.jit(functools.partial(step_batch.batch_of_step, cfg))
  batch = parallel.local(draw(tables, jnp.int32(step)))
  return {'user': np.unique(batch.user), 'item': np.unique(batch.item)}


def _largest(
    runtime: runtime_lib.Runtime,
    state: state_lib.TrainState,
    side: str,
    table: tables_lib.SideTable,
    rows: np.ndarray,
) -> str:
  """Ids and norms of the rows that are most likely to blame.

  First those with anything that is not finite, then by the embedding; among
  equals (all are, once the parameters are broken) by what the table holds.
  """
  # As the step embedded them: with its own parameters, not with averaged ones.
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  emb = runtime.embedder(side, runtime.own(variables), table, rows)
  size = _norms(emb)
  given, teacher = _table_norms(table, rows)
  order = np.lexsort((-teacher, -given, -size))[:_SHOWN]
  ids = getattr(runtime.problem, side).ids[rows[order]].tolist()
  return ', '.join(
      f'{name} (embedding {size[n]:.3g}, input {given[n]:.3g}, teacher '
      f'{teacher[n]:.3g})'
      for name, n in zip(ids, order)
  )


def _table_norms(
    table: tables_lib.SideTable, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Norms of the towers' input and of the teacher's factors, each [B].

  Without learnt embeddings: theirs are parameters.
  """
  pick = lambda x: np.asarray(parallel.local(jnp.asarray(x)[rows]))
  given = [pick(table.content), pick(table.preference)]
  if table.features is not None:
    given.append(pick(table.features.dense))
  return _norms(np.concatenate(given, axis=1)), _norms(pick(table.factors))


def _norms(values: np.ndarray) -> np.ndarray:
  """Norm of each row of values [B, R], infinite where one is not finite."""
  size = np.linalg.norm(values.astype(np.float64), axis=1)  # no overflow
  return np.where(np.isfinite(size), size, np.inf)
