# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: who may write it, and which experiment it holds."""

import contextlib
import fcntl
import json
import os
from typing import Any, TextIO

from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.data import files

_CONFIG = 'config.json'
_LOCK = '.lock'


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
    _check_same_experiment(workdir, cfg)
    for name in os.listdir(workdir):
      if name.endswith(files.TEMPORARY):  # of a run that was killed
        os.remove(os.path.join(workdir, name))
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
      if name != _LOCK and not name.endswith(files.TEMPORARY)
  ]
  if others and _CONFIG not in names:
    raise errors.UserError(
        f'{workdir} is no run folder: it has no {_CONFIG}, but it holds '
        f'{", ".join(others[:3])}. Choose an empty or new --workdir.'
    )


def _check_same_experiment(workdir: str, cfg: config.Config) -> None:
  path = os.path.join(workdir, _CONFIG)
  text = config_tree.to_json(cfg)
  if not os.path.exists(path):
    files.write_text(path, text)
    return
  found, wanted = flatten(read_config(workdir)), flatten(json.loads(text))
  differing = [
      name
      for name in sorted(found.keys() | wanted.keys())
      if found.get(name) != wanted.get(name)
  ]
  if differing:
    shown = ', '.join(
        f'{name} ({found.get(name)!r} there, {wanted.get(name)!r} now)'
        for name in differing[:4]
    )
    more = len(differing) - 4
    raise errors.UserError(
        f'{workdir} holds another experiment; it differs in {shown}'
        + (f' and {more} more fields' if more > 0 else '')
        + '. Choose another --workdir, or repeat the command of that run.'
    )


def read_config(workdir: str) -> dict[str, Any]:
  """config.json of a run folder as nested dicts.

  Raises:
    UserError: if it is missing or no JSON.
  """
  path = os.path.join(workdir, _CONFIG)
  try:
    with open(path, encoding='utf-8') as file:
      return json.load(file)
  except FileNotFoundError as error:
    raise errors.UserError(
        f'{workdir} is no run folder: {path} does not exist.'
    ) from error
  except ValueError as error:
    raise errors.UserError(f'{path} is damaged: {error}.') from error


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
