# SPDX-License-Identifier: Apache-2.0
"""Loads an experiment file, so that each of its mistakes gets one message.

ml_collections loads it once more, with the fields that arguments set.
"""

import os
import runpy
import traceback
from typing import Any

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import profiles


def load(path: str) -> config.Config:
  """Runs the file and returns what its get_config() returns.

  Args:
    path: of the file.

  Raises:
    UserError: if there is none, it fails, or it returns something else or a
      profile that it has not applied.
  """
  cfg = call(path, 'get_config', '--config')
  if not isinstance(cfg, config.Config):
    raise errors.UserError(
        f'{path}: get_config() returns {type(cfg).__name__}; it must return '
        'dropoutnet_jax.config.Config.'
    )
  if cfg.profile in config.PROFILES:  # validate() tells of others
    profiles.check_applied(cfg)
  return cfg


def call(path: str, function: str, flag: str) -> Any:
  """Runs the file and returns what a function of it returns.

  Args:
    path: of the file.
    function: its name; it takes no arguments.
    flag: that names the file, for the message.

  Raises:
    UserError: if there is no such file or function, or if it fails.
  """
  if not os.path.isfile(path):
    raise errors.UserError(
        f'{flag}={path}: there is no such file. Those that come with the '
        'program are in experiments/, beside run.py.'
    )
  try:
    module = runpy.run_path(path)
    found = module[function]() if function in module else None
  except (Exception, SystemExit) as error:  # it is code; anything may happen
    what = error.msg if isinstance(error, SyntaxError) else error
    raise errors.UserError(
        f'{_place_of(error, path)}: {type(error).__name__}: {what}'
    ) from error
  if function not in module:
    raise errors.UserError(f'{path} defines no function {function}().')
  return found


def _place_of(error: BaseException, path: str) -> str:
  """'FILE:LINE' of what an experiment did wrong, or the file alone."""
  if isinstance(error, SyntaxError) and error.lineno:
    return f'{error.filename or path}:{error.lineno}'
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == path]
  return f'{path}:{lines[-1]}' if lines else path
