# SPDX-License-Identifier: Apache-2.0
"""A fresh run that starts from the parameters of another run.

For transfer between domains, and to go on with newer data: a run on other data
whose towers begin where those of the other run have ended. An array is taken
where its path and its shape are the same, which says nothing of what its
columns mean: the SVD of other tags, factors of another teacher, and tables of
embeddings by another vocabulary have the same shape and another basis. Freeze
or take with care.

Step, optimiser and schedule begin anew. A run that has a checkpoint of its own
never comes here.
"""

from collections.abc import Mapping
import contextlib
import dataclasses
import os
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.training import checkpoints as checkpoints_lib
from dropoutnet_jax.training import state as state_lib

_SHOWN = 8  # names of parameters in a note or message


def check(folder: str) -> None:
  """Raises UserError unless the folder is one of a run with a checkpoint."""
  names: list[str] = []
  with contextlib.suppress(OSError):
    names = os.listdir(os.path.join(folder, 'checkpoints'))
  if not any(name.isdigit() for name in names):
    raise errors.UserError(
        f'config.train.warm_start is {folder!r}, but there is no whole '
        'checkpoint in its folder checkpoints. Name the run folder (--workdir) '
        "of a training that has begun, or '' for a fresh start."
    )


def load(
    folder: str, state: state_lib.TrainState
) -> tuple[state_lib.TrainState, str]:
  """Takes what fits from the best checkpoint of a run, else from its newest.

  Averaged parameters are taken where that run has some. All processes must
  call this; each reads the files for itself.

  Args:
    folder: of the other run.
    state: a fresh state, where it stays.

  Returns:
    The state with what was taken in parameters, statistics and both averages,
    and a note that says how much that was and what stays fresh.

  Raises:
    UserError: if the folder holds no checkpoint, it can't be read, or nothing
      in it fits.
  """
  check(folder)
  step, params, stats, averaged = _read(folder)
  here, there = state_lib.by_name(state.params), state_lib.by_name(params)
  left = [name for name, x in here.items() if not _fits(there.get(name), x)]
  origin = f'checkpoint {step} of {folder}'
  if len(left) == len(here):
    raise errors.UserError(
        f'config.train.warm_start: no array of {origin} has name and shape of '
        f'a parameter here. Here: {_shapes(here)}. There: {_shapes(there)}.'
    )
  statistics = state_lib.by_name(stats)
  state = dataclasses.replace(
      state,
      params=_take(state.params, there),
      batch_stats=_take(state.batch_stats, statistics),
      ema_params=_take(state.ema_params, there),
      ema_batch_stats=_take(state.ema_batch_stats, statistics),
  )
  kind = 'averaged parameters' if averaged else 'parameters'
  note = (
      f'Warm start from {origin}: {len(here) - len(left)} of {len(here)} '
      f'arrays of parameters are its {kind}'
  )
  if left:
    note += f'; fresh are {_reasons(left, here, there)}'
  return state, f'{note}.'


def _read(folder: str) -> tuple[int, Any, Any, bool]:
  """(step, parameters, statistics, averaged?) as NumPy arrays.

  Reads no more of the checkpoint than that: neither its optimiser nor the
  number of its devices need to be those of this run.
  """
  saved = checkpoints_lib.Checkpoints(folder, read_only=True)
  with contextlib.closing(saved):
    step = saved.best_step()
  path = os.path.abspath(os.path.join(folder, 'checkpoints', str(step)))
  path = os.path.join(path, 'default')  # Orbax's name for the only item
  try:
    with ocp.PyTreeCheckpointer() as reader:
      found = reader.metadata(path).item_metadata.tree
      averaged = bool(found['ema_params'])
      names = ('params', 'batch_stats')
      if averaged:
        names = ('ema_params', 'ema_batch_stats')
      wanted = {name: found[name] for name in names}
      values = reader.restore(
          path,
          args=ocp.args.PyTreeRestore(
              item=jax.tree.map(
                  lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), wanted
              ),
              restore_args=jax.tree.map(
                  lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted
              ),
              partial_restore=True,
          ),
      )
  except Exception as error:  # Orbax raises many kinds for a bad folder
    raise errors.BusyThreadsError(
        f'config.train.warm_start: checkpoint {step} of {folder} cannot be '
        f'read: {errors.cause(error)}. It is damaged, or no checkpoint of a '
        f'training; remove {os.path.dirname(path)} to take another one.'
    ) from error
  params, stats = (values.get(name, {}) for name in names)
  return int(step or 0), params, stats, averaged


def _fits(value: Any, like: Any) -> bool:
  return value is not None and np.shape(value) == np.shape(like)


def _take(tree: Any, values: Mapping[str, Any]) -> Any:
  """The tree with those of the values that fit, where its own arrays were."""

  def pick(name: str, old: jax.Array) -> jax.Array:
    value = values.get(name)
    if not _fits(value, old):
      return old
    # A copy: steps overwrite the state, parameters and averages apart.
    return parallel.put(np.array(value, old.dtype), old.sharding)

  picked = [pick(*pair) for pair in state_lib.by_name(tree).items()]
  return jax.tree.unflatten(jax.tree.structure(tree), picked)


def _shapes(arrays: Mapping[str, Any]) -> str:
  return errors.listed(
      [f'{name} {_shape(x)}' for name, x in arrays.items()], _SHOWN
  )


def _reasons(
    left: list[str], here: Mapping[str, Any], there: Mapping[str, Any]
) -> str:
  return errors.listed(
      [
          f'{name} ({_shape(here[name])} here, {_shape(there[name])} there)'
          if name in there
          else f'{name} (not there)'
          for name in left
      ],
      _SHOWN,
  )


def _shape(array: Any) -> str:
  return f'[{", ".join(map(str, np.shape(array)))}]'
