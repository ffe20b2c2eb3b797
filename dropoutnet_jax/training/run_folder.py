# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: who may write it, and which experiment it holds.

A folder belongs to its experiment from the first whole checkpoint on. Before,
it holds nothing but what was prepared, and another experiment may replace it:
a start that was killed while it prepared is no reason to refuse a change.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import shlex
from typing import Any, TextIO

from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.data import files

_CONFIG = 'config.json'
_LOCK = '.lock'
# Everything that is written before the first checkpoint, in the order in which
# it goes: without config.json the rest would be somebody else's files.
_PREPARED = (
    'problem.npz',
    'likes.npz',  # while several processes train the teacher
    'rows.bin',
    'sparse_part.npz',
    'features.json',
    'features_user.npz',
    'features_item.npz',
    _CONFIG,
)
_LATER = (
    'metrics.jsonl',
    'per_user.npz',
    'results.json',
    'exploring.json',
    'belief.json',
    'off_policy.json',
    'off_policy.md',
)
# Of an export, which has the first one and may stand for its run.
_EXPORTED = (
    'manifest.json',
    'check.safetensors',
    'model.safetensors',
    'towers.safetensors',
    *(
        f'{side}{name}'
        for side in ('user', 'item')
        for name in ('s.parquet', 's.safetensors', '_tower.stablehlo')
    ),
)


def open_folder(
    workdir: str, cfg: config.Config
) -> contextlib.AbstractContextManager[Any]:
  """Creates or reopens a run folder for writing; returns its lock.

  Args:
    workdir: the run folder.
    cfg: the experiment; kept as config.json in a new folder.

  Returns:
    An open file that holds the lock; closing it releases the folder. One
    process of a run holds it for all.

  Raises:
    UserError: if the folder can't be written, is in use, or holds another
      experiment; the differing fields are named.
  """
  lock = parallel.on_writer(lambda: _lock_folder(workdir, cfg))
  return contextlib.nullcontext() if lock is None else lock


def _lock_folder(workdir: str, cfg: config.Config) -> TextIO:
  path = os.path.join(workdir, _LOCK)
  try:
    os.makedirs(workdir, exist_ok=True)
    _check_no_foreign_folder(workdir)  # before anything is written into it
    lock = open(path, 'a', encoding='utf-8')
  except OSError as error:
    raise errors.UserError(
        f'{workdir} cannot be written: {error.strerror}. Choose another '
        '--workdir.'
    ) from error
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    lock.close()
    raise errors.UserError(
        f'{workdir} is in use by another run. Wait for it, or choose another '
        '--workdir.'
    ) from error
  try:
    _take(workdir, cfg)
    _remove_half_written(workdir)  # by a run that was killed
  except errors.UserError:
    lock.close()
    raise
  return lock


def _check_no_foreign_folder(workdir: str) -> None:
  """Refuses a folder that holds something else than a run."""
  names = os.listdir(workdir)
  others = [
      name
      for name in sorted(names)
      if name != _LOCK and not _is_half_written(name)
  ]
  if others and _CONFIG not in names:
    raise errors.UserError(
        f'{workdir} is no run folder: it has no {_CONFIG}, but it holds '
        f'{", ".join(others[:3])}. Choose an empty or new --workdir.'
    )


def _is_half_written(name: str) -> bool:
  """Whether `files.write` made it for a file of a run: 'config.json.123.tmp'.

  Other files that end like that are somebody else's.
  """
  stem = re.sub(rf'\.\d+{re.escape(files.TEMPORARY)}$', '', name)
  return stem != name and stem in (*_PREPARED, *_LATER)


def _remove_half_written(workdir: str) -> None:
  for name in (*_PREPARED, *_LATER):
    files.remove_left(os.path.join(workdir, name))


def _take(workdir: str, cfg: config.Config) -> None:
  """Makes a folder that holds nothing that was trained one of this experiment.

  Raises:
    UserError: as `check_same_experiment`.
  """
  check_same_experiment(workdir, cfg)
  if differences(workdir, cfg):
    remove_prepared(workdir)
  path = os.path.join(workdir, _CONFIG)
  if not os.path.exists(path) or read_config(workdir).mesh != cfg.mesh:
    files.write_text(path, config_tree.to_json(cfg))


def check_same_experiment(workdir: str, cfg: config.Config) -> None:
  """Raises UserError if the folder holds what another experiment trained.

  The differing fields are named. A folder that does not exist will do.
  """
  differing = differences(workdir, cfg)
  if differing and _is_begun(workdir):
    raise errors.UserError(
        f'{workdir} holds another experiment; it differs in '
        + errors.listed(differing, 4, 'fields')
        + '. Choose another --workdir, or repeat the command of that run.'
    )


def differences(workdir: str, cfg: config.Config) -> list[str]:
  """Fields in which config.json differs, 'train.seed (0 there, 1 now)'.

  None where there is no config.json. The mesh is none of them: a run goes on on
  other devices.

  Raises:
    UserError: if it is damaged.
  """
  if not os.path.exists(os.path.join(workdir, _CONFIG)):
    return []
  wanted = flatten(json.loads(config_tree.to_json(cfg)))
  found = flatten(json.loads(config_tree.to_json(read_config(workdir))))
  return [
      f'{name} ({found.get(name)!r} there, {wanted.get(name)!r} now)'
      for name in sorted(found.keys() | wanted.keys())
      if found.get(name) != wanted.get(name) and not name.startswith('mesh.')
  ]


def _is_begun(workdir: str) -> bool:
  """Whether there is something that training has cost time for."""
  path = pathlib.Path(workdir)
  log = path / 'metrics.jsonl'
  return (
      (path / 'results.json').exists()
      or (log.exists() and log.stat().st_size > 0)
      # Orbax writes beside the place; a number is a whole checkpoint.
      or any(x.name.isdigit() for x in path.glob('checkpoints/*'))
  )


def check_not_owned(workdir: str, flag: str, path: str) -> None:
  """Raises UserError where a flag names a file that the run keeps."""
  folder, name = os.path.split(os.path.realpath(path))
  is_kept = name in (*_PREPARED, *_LATER)
  if os.path.exists(os.path.join(workdir, _EXPORTED[0])):
    is_kept |= name in _EXPORTED
  if is_kept and folder == os.path.realpath(workdir):
    raise errors.UserError(
        f'--{flag}={path} is a file of the run; name another one.'
    )


def remove_prepared(workdir: str) -> None:
  """Removes what is written before the first checkpoint."""
  _remove_half_written(workdir)
  for name in _PREPARED:
    path = pathlib.Path(workdir, name)
    if path.exists():
      path.unlink()


def load_config(workdir: str) -> config.Config:
  """As `read_config`, and validated: for what is computed from it."""
  cfg = read_config(workdir)
  try:
    cfg.validate()
  except errors.UserError as error:
    raise _damaged(workdir, error) from error
  return cfg


def read_config(workdir: str) -> config.Config:
  """The configuration that a run folder was made with.

  Raises:
    UserError: if config.json is missing or damaged.
  """
  path = os.path.join(workdir, _CONFIG)
  try:
    with open(path, encoding='utf-8') as file:
      return config_tree.from_dict(json.load(file))
  except OSError as error:
    runs = _runs_below(workdir)
    advice = 'Name the folder of a training with --workdir.'
    if runs:
      advice = (
          f'It holds {len(runs)} runs of a sweep or a comparison; name one of '
          f'them, such as --workdir={shlex.quote(str(runs[0]))}.'
      )
    raise errors.UserError(
        f'{workdir} is no run folder: {path}: {error.strerror}. {advice}'
    ) from error
  except (ValueError, errors.UserError) as error:
    raise _damaged(workdir, error) from error


def _runs_below(workdir: str) -> list[pathlib.Path]:
  """The folders of the runs of a sweep or a comparison."""
  with contextlib.suppress(OSError):
    for below in ('*', '*/*'):
      found = pathlib.Path(workdir).glob(f'{below}/{_CONFIG}')
      if runs := sorted(path.parent for path in found):
        return runs
  return []


def _damaged(workdir: str, error: Exception) -> errors.UserError:
  why = str(error).rstrip('.')
  return errors.UserError(
      f'{os.path.join(workdir, _CONFIG)} is damaged: {why}. Choose another '
      '--workdir, or train again.'
  )


def flatten(tree: Any, prefix: str = '') -> dict[str, Any]:
  """Nested dicts and lists as one dict: {'train.seed': 0, ...}."""
  if isinstance(tree, dict):
    children = [(f'{prefix}{key}', value) for key, value in tree.items()]
  elif isinstance(tree, list) and tree:
    children = [(f'{prefix}{n}', value) for n, value in enumerate(tree)]
  else:
    return {prefix.removesuffix('.'): tree}
  flat: dict[str, Any] = {}
  for name, value in children:
    flat |= flatten(value, name + '.')
  return flat
