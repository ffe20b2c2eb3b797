# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: who may write it, and which experiment it holds."""

import fcntl
import json
import os
from typing import Any

from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax.data import files

_CONFIG = 'config.json'


def open_folder(workdir: str, cfg: config.Config) -> Any:
  """Creates or reopens a run folder for writing; returns its lock.

  Args:
    workdir: the run folder.
    cfg: the experiment; kept as config.json in a new folder.

  Returns:
    An open file that holds the lock; closing it releases the folder.

  Raises:
    UserError: if the folder can't be written, is in use, or holds another
      experiment; the differing fields are named.
  """
  try:
    os.makedirs(workdir, exist_ok=True)
    lock = open(os.path.join(workdir, '.lock'), 'w', encoding='utf-8')
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
  except errors.UserError:
    lock.close()
    raise
  return lock


def _check_same_experiment(workdir: str, cfg: config.Config) -> None:
  path = os.path.join(workdir, _CONFIG)
  text = config_tree.to_json(cfg)
  if not os.path.exists(path):
    others = sorted(set(os.listdir(workdir)) - {'.lock'})
    if others:
      raise errors.UserError(
          f'{workdir} is no run folder: it has no {_CONFIG}, but it holds '
          f'{", ".join(others[:3])}. Choose an empty or new --workdir.'
      )
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
