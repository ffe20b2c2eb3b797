# SPDX-License-Identifier: Apache-2.0
"""Why a loss is not finite: the rows to blame, by id."""

import jax
import numpy as np

from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.training import runtime as runtime_lib
from dropoutnet_jax.training import state as state_lib


def non_finite_error(
    runtime: runtime_lib.Runtime, state: state_lib.TrainState
) -> errors.UserError:
  """The error for a loss or gradient that is not finite.

  Args:
    runtime: of the run.
    state: as it was before the bad step, which `state.step` names.
  """
  step = int(state.step)
  loss, (_, metrics) = jax.jit(runtime.loss_fn())(
      state.params, state.batch_stats, runtime.tables, state.step
  )
  del metrics
  worst = []
  for side in ('user', 'item'):
    table = parallel.local(getattr(runtime.tables, side))
    norms = _input_norms(table)
    emb = runtime.embedder(
        side,
        parallel.local(state.eval_variables()),
        table,
        np.arange(len(norms)),
    )
    size = np.linalg.norm(emb.astype(np.float64), axis=1)  # no overflow
    size = np.where(np.isfinite(size), size, np.inf)
    rows = np.argsort(-size, kind='stable')[:3]
    ids = getattr(runtime.problem, side).ids[rows].tolist()
    shown = ', '.join(
        f'{name} (embedding {size[row]:.3g}, input {norms[row]:.3g})'
        for name, row in zip(ids, rows)
    )
    worst.append(f'{side}s {shown}')
  rate = runtime.cfg.train.learning_rate
  return errors.UserError(
      f'Step {step}: the loss is {float(loss)} or its gradient is not finite. '
      f'Largest rows by norm: {"; ".join(worst)}. Usual causes: '
      f'train.learning_rate {rate:g} too high (try a tenth, or '
      'train.gradient_clip=1), or unscaled columns in the content. The last '
      'checkpoint is whole; the run can go on from it after a change in a new '
      '--workdir.'
  )


def _input_norms(table: model_scores.tables_lib.SideTable) -> np.ndarray:
  """Norm of what the tower reads of each row: float [N]."""
  content = np.asarray(table.content)
  preference = np.asarray(table.preference)
  return np.sqrt((content**2).sum(axis=1) + (preference**2).sum(axis=1))
