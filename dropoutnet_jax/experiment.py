# SPDX-License-Identifier: Apache-2.0
"""Loads an experiment file, so that each of its mistakes gets one message.

ml_collections loads it once more, with the fields that arguments set.
"""

import os
import runpy
import traceback

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
  if not os.path.isfile(path):
    raise errors.UserError(
        f'--config={path}: there is no such file. Those that come with the '
        'program are in experiments/, beside run.py.'
    )
  try:
    module = runpy.run_path(path)
    cfg = module['get_config']() if 'get_config' in module else None
  except (Exception, SystemExit) as error:  # it is code; anything may happen
    what = error.msg if isinstance(error, SyntaxError) else error
    raise errors.UserError(
        f'{_place_of(error, path)}: {type(error).__name__}: {what}'
    ) from error
  if 'get_config' not in module:
    raise errors.UserError(f'{path} defines no function get_config().')
  if not isinstance(cfg, config.Config):
    raise errors.UserError(
        f'{path}: get_config() returns {type(cfg).__name__}; it must return '
        'dropoutnet_jax.config.Config.'
    )
  if cfg.profile in config.PROFILES:  # validate() tells of others
    profiles.check_applied(cfg)
  return cfg


def _place_of(error: BaseException, path: str) -> str:
  """'FILE:LINE' of what an experiment did wrong, or the file alone."""
  if isinstance(error, SyntaxError) and error.lineno:
    return f'{error.filename or path}:{error.lineno}'
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == path]
  return f'{path}:{lines[-1]}' if lines else path
