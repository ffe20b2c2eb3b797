# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: the newest few and the best on validation (Orbax).

A checkpoint is written beside its place and renamed when it is whole, in the
background; a kill at any moment leaves the previous one. Its number is the
number of steps done, which is also all that data order and randomness need.

One that a disk or a copy has damaged is skipped for another, with a warning. A
run that goes on moves it out of the way, since it will save that number again.
"""

from collections.abc import Mapping, Sequence
import functools
import itertools
import json
import math
import os
import pathlib
import sys
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from dropoutnet_jax import errors
from dropoutnet_jax import parallel

_METRIC = 'validation'
_ASIDE = 'damaged_checkpoints'  # in the run folder


class Checkpoints:
  """The folder `checkpoints` of a run; all processes must use it alike."""

  def __init__(self, workdir: str, keep: int = 2, read_only: bool = False):
    """Opens or creates the folder.

    Args:
      workdir: the run folder.
      keep: newest checkpoints to keep; the best one is kept beside them.
      read_only: for commands that only restore.

    Raises:
      UserError: if there is no such folder and it may not be made, or no
        checkpoint in it is whole.
    """
    folder = pathlib.Path(os.path.abspath(workdir)) / 'checkpoints'
    if read_only and not folder.is_dir():
      raise errors.UserError(
          f'{workdir} has no checkpoints; train it first, or name the run '
          'folder with --workdir.'
      )
    self._folder, self._read_only = folder, read_only
    self._skipped: Mapping[int, str] = {}
    if read_only:
      self._skipped = self._with_damaged_metrics()
      return  # a manager would stop at them
    parallel.on_writer(lambda: self._skip(self._with_damaged_metrics()))
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
        preservation_policy=policy,
        best_fn=score,  # without it no metrics are written
        cleanup_tmp_directories=True,
    )
    self._manager = ocp.CheckpointManager(folder, options=options)

  def save(
      self, state: Any, step: int, validation: float | None = None
  ) -> None:
    """Starts to save `state` (a pytree) as number `step`."""
    metrics = None
    if validation is not None and math.isfinite(validation):
      metrics = {_METRIC: validation}
    if step in self.numbers():
      return
    self._manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics)

  def numbers(self) -> list[int]:
    """Numbers of the checkpoints that are there and may be whole."""
    if self._read_only:
      return [n for n in self._on_disk() if n not in self._skipped]
    return list(self._manager.all_steps())

  def latest_step(self) -> int | None:
    """Number of the newest checkpoint, or None."""
    return max(self.numbers(), default=None)

  def best_step(self) -> int | None:
    """Number of the best checkpoint on validation, else of the newest."""
    return next(iter(self._best_first()), None)

  def _best_first(self) -> list[int]:
    """By their values; those that have none come last, the newest first."""

    def place(number: int) -> tuple[float, int]:
      score = self._score(number)
      return -math.inf if score is None else score, number

    return sorted(self.numbers(), key=place, reverse=True)

  def _on_disk(self) -> list[int]:
    if not self._folder.is_dir():
      return []
    names = (path.name for path in self._folder.iterdir())
    return [int(name) for name in names if name.isdigit()]

  def _with_damaged_metrics(self) -> dict[int, str]:
    """Checkpoints to skip, and why; raises UserError if that is all of them."""
    numbers = self._on_disk()
    bad = {n: 'its metrics' for n in numbers if self._score(n) is None}
    if bad and len(bad) == len(numbers):
      raise errors.UserError(
          f'No checkpoint in {self._folder} is whole: the metrics of each, in '
          'NUMBER/metrics, are damaged. Where this folder is removed, its '
          'checkpoint counts as one without validation.'
      )
    return bad

  def _score(self, number: int) -> float | None:
    """Value on validation, -inf without one; None where it is damaged."""
    try:
      path = self._folder / str(number) / 'metrics' / 'metrics'
      metrics = json.loads(path.read_text(encoding='utf-8'))
      return float(metrics[_METRIC])
    except FileNotFoundError:
      return -math.inf
    except (OSError, ValueError, TypeError, KeyError):
      return None

  def restore_newest(self, template: Any) -> tuple[Any, int] | None:
    """The newest whole state and its number; None in a new folder.

    Raises:
      UserError: if there are checkpoints and none is whole.
    """
    return self._first_whole(sorted(self.numbers(), reverse=True), template)

  def restore_best(self, template: Any) -> tuple[Any, int] | None:
    """The same of the best on validation that is whole, else of the newest."""
    return self._first_whole(self._best_first(), template)

  def _first_whole(
      self, numbers: Sequence[int], template: Any
  ) -> tuple[Any, int] | None:
    """The first that can be restored by all processes."""
    bad = dict(self._skipped)
    first = None
    for number in numbers:
      state = problem = None
      try:
        state = self.restore(number, template)
      except errors.UserError as error:
        problem, first = error, first or error
      if not parallel.anywhere(problem is not None):
        skip = functools.partial(self._skip, bad, f' for {number}')
        parallel.on_writer(skip)
        if bad and not self._read_only:
          self._manager.reload()
        return state, number
      cause = problem.__cause__ if problem else None
      bad[number] = errors.cause(cause) if cause else 'on another process'
    if numbers:
      raise first or errors.UserError(
          f'No checkpoint in {self._folder} is whole; other processes say why.'
      )
    return None

  def _skip(self, bad: Mapping[int, str], instead: str = '') -> None:
    """Tells of damaged checkpoints, and moves them away in a run's folder."""
    aside = self._folder.parent / _ASIDE
    for number, cause in bad.items():
      where = ''
      if not self._read_only:
        aside.mkdir(exist_ok=True)
        names = (aside / f'{number}.{again}' for again in itertools.count())
        target = next(name for name in names if not name.exists())
        os.rename(self._folder / str(number), target)
        where = f' It is now {target}.'
      print(
          f'Warning: checkpoint {number} in {self._folder} is damaged and is '
          f'skipped{instead} ({cause}).{where}',
          file=sys.stderr,
          flush=True,
      )

  def restore(self, step: int, template: Any) -> Any:
    """State number `step` on the devices of the template, however many.

    Raises:
      UserError: if it does not fit the template or is damaged.
    """
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
    if not self._read_only:
      self._manager.wait_until_finished()
    path = self._folder / str(step) / 'default'  # Orbax's name for it
    # Each process for itself: where one alone reads what is damaged, Orbax
    # would have the others wait for it.
    own, _ = parallel.which_process()
    alone = ocp.options.MultiprocessingOptions(own, {own})
    try:
      with ocp.Checkpointer(
          ocp.StandardCheckpointHandler(multiprocessing_options=alone),
          multiprocessing_options=alone,
      ) as reader:
        return reader.restore(path, args=ocp.args.StandardRestore(abstract))
    except Exception as error:  # Orbax raises many kinds for a bad folder
      raise self._damaged(step, error) from error

  def _damaged(self, step: int, error: Exception) -> errors.UserError:
    return errors.BusyThreadsError(
        f'Checkpoint {step} in {self._folder} cannot be restored: '
        f'{errors.cause(error)}. It is damaged, or of another model; remove '
        f'its folder ({self._folder / str(step)}) to fall back to '
        'an older one.'
    )

  def close(self) -> None:
    """Waits until everything is on disk."""
    if self._read_only:
      return
    self._manager.wait_until_finished()
    self._manager.close()
