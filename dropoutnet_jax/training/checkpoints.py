# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: the newest few and the best on validation (Orbax).

A checkpoint is written beside its place and renamed when it is whole, in the
background; a kill at any moment leaves the previous one. Its number is the
number of steps done, which is also all that data order and randomness need.
"""

import math
import os
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from dropoutnet_jax import errors

_METRIC = 'validation'


class Checkpoints:
  """The folder `checkpoints` of a run."""

  def __init__(self, workdir: str, keep: int = 2, read_only: bool = False):
    """Opens or creates the folder.

    Args:
      workdir: the run folder.
      keep: newest checkpoints to keep; the best one is kept beside them.
      read_only: for commands that only restore.
    """
    score = lambda metrics: metrics[_METRIC]
    policy = checkpoint_managers.AnyPreservationPolicy(
        policies=[
            checkpoint_managers.LatestN(keep),
            checkpoint_managers.BestN(
                get_metric_fn=score,
                n=1,
                keep_checkpoints_without_metrics=False,
            ),
        ]
    )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=None if read_only else policy,
        best_fn=score,  # without it no metrics are written
        cleanup_tmp_directories=not read_only,
        create=not read_only,
        read_only=read_only,
    )
    folder = os.path.abspath(os.path.join(workdir, 'checkpoints'))
    if read_only and not os.path.isdir(folder):
      raise errors.UserError(
          f'{workdir} has no checkpoints; train it first, or name the run '
          'folder with --workdir.'
      )
    try:
      self._manager = ocp.CheckpointManager(folder, options=options)
    except ValueError as error:  # the JSON of a checkpoint's metrics
      raise errors.UserError(
          f'{folder}: the metrics of a checkpoint are damaged ({error}). They '
          "are in NUMBER/metrics; remove the damaged one's folder NUMBER to "
          'fall back to the others.'
      ) from error

  def save(
      self, state: Any, step: int, validation: float | None = None
  ) -> None:
    """Starts to save `state` (a pytree) as number `step`."""
    metrics = None
    if validation is not None and math.isfinite(validation):
      metrics = {_METRIC: validation}
    if step in self._manager.all_steps():
      return
    self._manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics)

  def latest_step(self) -> int | None:
    """Number of the newest checkpoint, or None."""
    return self._manager.latest_step()

  def best_step(self) -> int | None:
    """Number of the best checkpoint on validation, else of the newest."""
    scored = []
    for step in self._manager.all_steps():
      metrics = self._manager.metrics(step)
      if metrics:
        try:
          scored.append((float(metrics[_METRIC]), step))
        except (TypeError, KeyError, ValueError) as error:
          raise self._damaged(step, error) from error
    return max(scored)[1] if scored else self.latest_step()

  def restore(self, step: int, template: Any) -> Any:
    """State number `step` on the devices of the template.

    Raises:
      UserError: if it does not fit the template or is damaged.
    """
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
    try:
      return self._manager.restore(
          step, args=ocp.args.StandardRestore(abstract)
      )
    except Exception as error:  # Orbax raises many kinds for a bad folder
      raise self._damaged(step, error) from error

  def _damaged(self, step: int, error: Exception) -> errors.UserError:
    return errors.BusyThreadsError(
        f'Checkpoint {step} in {self._manager.directory} cannot be restored: '
        f'{errors.cause(error)}. It is damaged, or of another model; remove '
        f'its folder ({self._manager.directory / str(step)}) to fall back to '
        'an older one.'
    )

  def close(self) -> None:
    """Waits until everything is on disk."""
    self._manager.wait_until_finished()
    self._manager.close()
