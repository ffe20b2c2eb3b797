# SPDX-License-Identifier: Apache-2.0
"""The training loop: dispatch, log, validate, save, stop."""

from collections.abc import Callable, Mapping
import dataclasses
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax import parallel
from dropoutnet_jax.training import checkpoints as checkpoints_lib
from dropoutnet_jax.training import diagnosis
from dropoutnet_jax.training import row_feed
from dropoutnet_jax.training import runtime as runtime_lib
from dropoutnet_jax.training import signals
from dropoutnet_jax.training import state as state_lib
from dropoutnet_jax.training import telemetry
from dropoutnet_jax.training import validation
from dropoutnet_jax.training import warm_start


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a loop ended: steps done, and why, '' for all of them."""

  step: int
  seconds: float
  reason: str = ''
  interrupted: bool = False


def next_stop(step: int, settings: config.TrainConfig) -> int:
  """The step at which the host has something to do next.

  A function of the step alone, so that an interrupted run is cut into the
  same dispatches as an uninterrupted one.
  """
  periods = (
      settings.steps_per_dispatch,
      settings.log_every,
      settings.checkpoint_every,
      settings.eval_every,
  )
  stops = [(step // period + 1) * period for period in periods if period]
  return min(*stops, settings.num_steps)


def is_due(step: int, every: int, last: int) -> bool:
  """Whether something of this period (0: only at the end) happens now."""
  return step == last or (every > 0 and step % every == 0)


def run(
    runtime: runtime_lib.Runtime,
    workdir: str,
    stop: signals.StopRequest,
    profile: bool = False,
    watch: Callable[[int, float], str] | None = None,
) -> Outcome:
  """Trains from the newest checkpoint, or from the start, to the end.

  Args:
    runtime: of the run.
    workdir: the run folder.
    stop: asks for an early, clean end.
    profile: writes a trace of one dispatch into `workdir/profile`.
    watch: is told the step and the value to select by after each evaluation,
      and says why training should stop, or ''; it is asked once more where a
      run goes on.

  Raises:
    UserError: if the loss is not finite.
  """
  settings = runtime.cfg.train
  last = settings.num_steps
  checkpoints = checkpoints_lib.Checkpoints(workdir, settings.keep_checkpoints)
  state, step = _first_state(runtime, workdir, checkpoints)
  past = telemetry.read_metrics(workdir, step)
  writer = telemetry.MetricsWriter(workdir, step)
  progress = telemetry.Progress(last, step, runtime.pairs_per_step)
  for note in runtime.notes():
    progress.say(note)
  train_steps = runtime.train_steps()
  reason = _patience_is_over(past, settings) or _watched(past, watch)
  feed: row_feed.Feed | None = None
  try:
    feed = runtime.feed(workdir, step)
    if step < last and not reason:
      coming = feed.tables(step, next_stop(step, settings))
    while step < last and not reason:
      begin, step, tables = step, next_stop(step, settings), coming
      started = time.monotonic()
      with _trace(workdir, profile):
        state, losses = train_steps(state, tables, jnp.int32(step - begin))
        if step < last:  # while the devices compute
          coming = feed.tables(step, next_stop(step, settings))
        losses = jax.device_get(losses)
      profile, spent = False, time.monotonic() - started
      if int(state.step) < step:
        raise diagnosis.non_finite_error(runtime, state, tables)
      losses = {name: part[: step - begin] for name, part in losses.items()}
      progress.update(step, float(losses['loss/total'][-1]))
      row, selected = _measure(runtime, state, step, losses, progress)
      if row:
        row['step_seconds'] = spent / (step - begin)
        past.append({'step': step} | row)
        writer.write(step, row)
      reason = _patience_is_over(past, settings) or _watched(past, watch, step)
      # Asked once: a signal between saving and leaving waits for its turn.
      interrupted = parallel.anywhere(bool(stop.name)) and step < last
      if (
          is_due(step, settings.checkpoint_every, last)
          or selected is not None
          or interrupted
          or reason
      ):
        checkpoints.save(state, step, selected)
      if interrupted:
        name = stop.name or 'A signal to another process'
        return Outcome(step, writer.seconds(), f'{name} came', True)
    return Outcome(step, writer.seconds(), reason)
  finally:
    if feed is not None:
      feed.close()
    progress.close()
    checkpoints.close()
    writer.close()


def _first_state(
    runtime: runtime_lib.Runtime,
    workdir: str,
    checkpoints: checkpoints_lib.Checkpoints,
) -> tuple[state_lib.TrainState, int]:
  """The newest saved state and its step; a first one, saved, if none is."""
  found = checkpoints.restore_newest(runtime.abstract_state())
  if found is None:  # so that whatever happens there is one to come back to
    state = runtime.fresh_state()
    origin = runtime.cfg.train.warm_start
    if origin:
      state, note = warm_start.load(origin, state)
      if parallel.is_writer():
        print(note, flush=True)
    checkpoints.save(state, 0)
    return state, 0
  if found[1] and parallel.is_writer():
    print(f'Resuming {workdir} after step {found[1]}.', flush=True)
  return found


def _trace(workdir: str, profile: bool) -> Any:
  if profile:
    return jax.profiler.trace(f'{workdir}/profile')
  return jax.profiler.TraceAnnotation('train_steps')


def _measure(
    runtime: runtime_lib.Runtime,
    state: state_lib.TrainState,
    step: int,
    losses: Mapping[str, np.ndarray],
    progress: telemetry.Progress,
) -> tuple[dict[str, float], float | None]:
  """What is to be logged after a step, and the value to select by."""
  settings = runtime.cfg.train
  row: dict[str, float] = {}
  if is_due(step, settings.log_every, settings.num_steps):
    row = {name: float(np.mean(value)) for name, value in losses.items()}
    row['examples_per_second'] = progress.pairs_per_second()
  if not is_due(step, settings.eval_every, settings.num_steps):
    return row, None
  values = validation.validate(runtime, state)
  row |= {f'validation/{name}': value for name, value in values.items()}
  chosen = validation.selection_value(values, settings)
  if chosen is not None:
    row['validation/selection'] = chosen
    progress.say(
        f'step {step}: loss {losses["loss/total"][-1]:.4g}, '
        f'validation {chosen:.4f}'
    )
  return row, chosen


def _watched(
    past: list[dict[str, Any]],
    watch: Callable[[int, float], str] | None,
    step: int | None = None,
) -> str:
  """What `watch` says of the newest evaluation, or of that of a step."""
  values = [row for row in past if 'validation/selection' in row]
  if watch is None or not values:
    return ''
  newest = values[-1]
  if step is not None and newest['step'] != step:
    return ''
  value = newest['validation/selection']
  # Not finite: it is in no file, so a resumed run has none.
  return watch(newest['step'], value) if math.isfinite(value) else ''


def _patience_is_over(
    past: list[dict[str, Any]], settings: config.TrainConfig
) -> str:
  """Why training stops early, or ''; a function of what was logged."""
  if not settings.patience:
    return ''
  best, best_step, since = -math.inf, 0, 0
  for row in past:
    value = row.get('validation/selection')
    if value is None or not math.isfinite(value):
      continue  # not finite: it is in no file, so a resumed run has none
    since += 1
    if value > best:
      best, best_step, since = value, row['step'], 0
  if since < settings.patience:
    return ''
  return (
      f'no better validation than {best:.4f} (step {best_step}) in '
      f'{since} evaluations'
  )
