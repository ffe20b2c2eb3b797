# SPDX-License-Identifier: Apache-2.0
"""Command line: python run.py [COMMAND] [--config=experiments/NAME.py] ...

Commands: train (default), evaluate, describe, bench. Any field of the
configuration can be set, as in --config.train.batch_size=512.
"""

from collections.abc import Sequence
import os
import runpy
import sys

from absl import app
from absl import flags
from absl import logging
from ml_collections import config_flags

from dropoutnet_jax import commands
from dropoutnet_jax import config as config_lib
from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax import sweeps

COMMANDS = ('train', 'evaluate', 'describe', 'bench')
_HERE = os.path.dirname(os.path.abspath(__file__))
_QUICKSTART = os.path.join(_HERE, 'experiments', 'quickstart.py')

_CONFIG = config_flags.DEFINE_config_file(
    'config', _QUICKSTART, 'Experiment file.', lock_config=False
)
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Run folder; runs/EXPERIMENT if not given.'
)
_DATA_DIR = flags.DEFINE_string(
    'data_dir', None, 'Folder with one folder per data set (citeulike-a, ...).'
)
_PROFILE = flags.DEFINE_bool(
    'profile', False, 'Write a device trace of one dispatch to the run folder.'
)
_COMPILE_CACHE = flags.DEFINE_string(
    'compile_cache',
    os.path.join(os.path.expanduser('~'), '.cache', 'dropoutnet_jax', 'xla'),
    "Folder for compiled programs; '' is off.",
)
_SUITE = flags.DEFINE_list(
    'suite', ['all'], 'bench: which comparisons, such as speed,teacher.'
)
_COORDINATOR = flags.DEFINE_string(
    'coordinator', '', 'host:port of process 0, for several processes.'
)
_NUM_PROCESSES = flags.DEFINE_integer('num_processes', 0, 'Of this run.')
_PROCESS_ID = flags.DEFINE_integer('process_id', -1, 'Of this process.')


def _experiment_path(argv: Sequence[str]) -> str:
  """The experiment file that the arguments name."""
  path = _QUICKSTART
  for position, argument in enumerate(argv):
    if argument.startswith(('--config=', '-config=')):
      path = argument.split('=', 1)[1]
    elif argument in ('--config', '-config') and position + 1 < len(argv):
      path = argv[position + 1]
  return path


def _check_experiment(path: str) -> config_lib.Config:
  """Loads an experiment file once, so that its mistakes get one message."""
  if not os.path.isfile(path):
    raise errors.UserError(
        f'--config={path}: there is no such file. Experiments are in '
        f'{os.path.dirname(_QUICKSTART)}.'
    )
  try:
    cfg = runpy.run_path(path)['get_config']()
  except KeyError as error:
    raise errors.UserError(
        f'{path} defines no function get_config().'
    ) from error
  except Exception as error:  # an experiment is code; anything may go wrong
    line = getattr(error, 'lineno', None)
    where = f'{path}:{line}' if line else path
    raise errors.UserError(
        f'{where}: {type(error).__name__}: {error}'
    ) from error
  if not isinstance(cfg, config_lib.Config):
    raise errors.UserError(
        f'{path}: get_config() returns {type(cfg).__name__}; it must return '
        'dropoutnet_jax.config.Config.'
    )
  return cfg


def _parse(argv: Sequence[str]) -> list[str]:
  """Parses the flags; returns what is left, the program's name first.

  Raises:
    UserError: for an unknown flag or field, or a value of the wrong type.
  """
  overrides = [a.lstrip('-') for a in argv[1:] if a.startswith('-')]
  overrides = [a for a in overrides if a.startswith('config.')]
  cfg = _check_experiment(_experiment_path(argv))
  for override in overrides:
    config_tree.check_field(
        cfg, override.split('=', 1)[0].removeprefix('config.')
    )
  try:
    return flags.FLAGS(list(argv))
  except (flags.Error, ValueError, TypeError, AttributeError) as error:
    raise errors.UserError(f'{error} See python run.py --help.') from error


def main(argv: Sequence[str]) -> None:
  """Runs one command; raises UserError for what the user can mend."""
  command, *rest = list(argv[1:]) or ['train']
  if command not in COMMANDS:
    raise errors.UserError(
        f'{command!r} is no command; there are {", ".join(COMMANDS)}.'
        + errors.did_you_mean(command, COMMANDS)
    )
  if rest:
    raise errors.UserError(
        f'Unknown arguments {" ".join(rest)}; flags start with --.'
    )
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.ERROR)  # Orbax tells its life otherwise
  cfg: config_lib.Config = _CONFIG.value
  cfg.validate()
  parallel.set_compile_cache(_COMPILE_CACHE.value)
  parallel.initialize(
      _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
  )
  name = os.path.splitext(os.path.basename(_experiment_path(sys.argv)))[0]
  workdir = _WORKDIR.value or os.path.join('runs', name)
  if command == 'train' and cfg.sweep.values:
    sweeps.run(cfg, workdir, _DATA_DIR.value)
  elif command == 'train':
    commands.train(cfg, workdir, _DATA_DIR.value, _PROFILE.value)
  elif command == 'evaluate':
    commands.evaluate(workdir)
  elif command == 'describe':
    commands.describe(cfg, _WORKDIR.value, _DATA_DIR.value)
  else:
    from benchmarks import suite  # pylint: disable=g-import-not-at-top

    suite.run(_SUITE.value, _DATA_DIR.value)


def _main_or_exit(argv: Sequence[str]) -> None:
  try:
    main(argv)
  except errors.UserError as error:
    sys.exit(_complain(error))


def _complain(error: errors.UserError) -> int:
  print(f'run.py: {error}', file=sys.stderr)
  return 2


def _parse_or_exit(argv: Sequence[str]) -> list[str]:
  try:
    return _parse(argv)
  except errors.UserError as error:
    sys.exit(_complain(error))


if __name__ == '__main__':
  app.run(_main_or_exit, flags_parser=_parse_or_exit)
