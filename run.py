# SPDX-License-Identifier: Apache-2.0
"""Command line: python run.py [COMMAND] [--config=experiments/NAME.py] ...

Commands:
  train     trains an experiment, or goes on with it, and evaluates it (default)
  evaluate  evaluates the best checkpoint of a run folder
  describe  counts what the data and the model are
  bench     measures speed and accuracy beside other implementations

Any field of the configuration can be set: --config.train.batch_size=512.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import errno
import os
import runpy
import signal
import sys
import traceback
from types import FrameType
from typing import NoReturn

from absl import app
from absl import flags
from absl import logging
from ml_collections import config_flags

from dropoutnet_jax import config as config_lib
from dropoutnet_jax import config_tree
from dropoutnet_jax import errors

COMMANDS = ('train', 'evaluate', 'describe', 'bench')
_HERE = os.path.dirname(os.path.abspath(__file__))
_QUICKSTART = os.path.join(_HERE, 'experiments', 'quickstart.py')
_VALUES: dict[object, tuple[Callable[[str], object], str]] = {
    bool: (flags.BooleanParser().parse, 'true or false'),
    int: (int, 'a whole number'),
    float: (float, 'a number'),
}
_MENDABLE = (
    errno.EACCES,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EISDIR,
    errno.EMFILE,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)

# Without a default, which would be loaded, overrides and all, before a mistake
# in it can be told; `_parse` puts the quickstart in.
_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'Experiment file; else the quickstart.', lock_config=False
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


def _split_argv(argv: Sequence[str]) -> tuple[str, list[str]]:
  """The experiment file that the arguments name last, and all the others."""
  path, others = _QUICKSTART, []
  arguments = iter(argv)
  for argument in arguments:
    if argument.startswith(('--config=', '-config=')):
      path = argument.split('=', 1)[1]
    elif argument in ('--config', '-config'):
      path = next(arguments, '')
    else:
      others.append(argument)
  return path, others


def _check_experiment(path: str) -> config_lib.Config:
  """Loads an experiment file once, so that its mistakes get one message."""
  if not os.path.isfile(path):
    raise errors.UserError(
        f'--config={path}: there is no such file. Experiments are in '
        f'{os.path.dirname(_QUICKSTART)}.'
    )
  try:
    module = runpy.run_path(path)
    cfg = module['get_config']() if 'get_config' in module else None
  except Exception as error:  # an experiment is code; anything may go wrong
    what = error.msg if isinstance(error, SyntaxError) else error
    raise errors.UserError(
        f'{_place_of(error, path)}: {type(error).__name__}: {what}'
    ) from error
  if 'get_config' not in module:
    raise errors.UserError(f'{path} defines no function get_config().')
  if not isinstance(cfg, config_lib.Config):
    raise errors.UserError(
        f'{path}: get_config() returns {type(cfg).__name__}; it must return '
        'dropoutnet_jax.config.Config.'
    )
  return cfg


def _place_of(error: Exception, path: str) -> str:
  """'FILE:LINE' of what an experiment did wrong, or the file alone."""
  if isinstance(error, SyntaxError) and error.lineno:
    return f'{error.filename or path}:{error.lineno}'
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == path]
  return f'{path}:{lines[-1]}' if lines else path


def _overrides(argv: Sequence[str]) -> list[tuple[str, str | None]]:
  """Fields that the arguments set: ('train.seed', '1'); None: no '='."""
  found: list[tuple[str, str | None]] = []
  for argument in argv[1:]:
    name, equals, value = argument.lstrip('-').partition('=')
    if argument.startswith('-') and name.startswith('config.'):
      found.append((name.removeprefix('config.'), value if equals else None))
  return found


def _check_value(name: str, hint: object, text: str | None) -> None:
  """Raises UserError if a number or a bool is set to something else."""
  if text is None or hint not in _VALUES:
    return
  parse, kind = _VALUES[hint]
  try:
    parse(text)
  except ValueError:
    raise errors.UserError(
        f'--config.{name}={text}: expected {kind}.'
    ) from None


def _parse(argv: Sequence[str]) -> list[str]:
  """Parses the flags; returns what is left, the program's name first.

  Raises:
    UserError: for an unknown flag or field, or a value of the wrong type.
  """
  path, others = _split_argv(argv)
  cfg = _check_experiment(path)
  for name, text in _overrides(argv):
    _check_value(name, config_tree.check_field(cfg, name), text)
  try:
    return flags.FLAGS([others[0], f'--config={path}', *others[1:]])
  except (flags.Error, ValueError, TypeError, AttributeError) as error:
    message = str(error).rstrip('.')
    raise errors.UserError(f'{message}. See python run.py --help.') from error


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
    # Orbax tells its life otherwise; its errors come as exceptions as well.
    logging.set_verbosity(logging.FATAL)
  cfg: config_lib.Config = _CONFIG.value
  cfg.validate()
  from_folder = command == 'evaluate' or (
      command == 'describe' and _WORKDIR.value
  )
  if from_folder and _overrides(sys.argv):
    raise errors.UserError(
        f'{command} takes the configuration of the run folder; leave out '
        f'--config.{_overrides(sys.argv)[0][0]}.'
    )
  # These take seconds to import; a mistake in the arguments is told before.
  # pylint: disable=g-import-not-at-top
  from dropoutnet_jax import commands
  from dropoutnet_jax import parallel
  from dropoutnet_jax import sweeps

  parallel.set_compile_cache(_COMPILE_CACHE.value)
  parallel.initialize(
      _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
  )
  path, _ = _split_argv(sys.argv)
  name = os.path.splitext(os.path.basename(path))[0]
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
    from benchmarks import suite

    suite.run(_SUITE.value, _DATA_DIR.value)


@contextlib.contextmanager
def _one_message() -> Iterator[None]:
  """Turns what the user can mend, and interrupts, into a message and a status.

  Anything else is a defect of this program and keeps its traceback.
  """
  try:
    yield
    sys.stdout.flush()
  except errors.UserError as error:
    _exit(str(error), 2)
  except BrokenPipeError:  # whoever read the output, such as head, has gone
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)
  except Exception as error:
    if _is_full_disk(error):
      _say(f'{os.strerror(errno.ENOSPC)}. Free some and run again.')
      os._exit(2)  # threads of libraries would go on complaining
    if not isinstance(error, OSError) or error.errno not in _MENDABLE:
      raise
    where = f'{error.filename}: ' if error.filename else ''
    _exit(f'{where}{error.strerror}.', 2)
  except KeyboardInterrupt as error:
    number = error.args[0] if error.args else signal.SIGINT
    _exit(
        f'{signal.Signals(number).name} came; the same command starts again, '
        'from the last checkpoint where there is one.',
        128 + number,
    )


def _is_full_disk(error: BaseException | None) -> bool:
  """Whether a full disk is behind an error; Orbax raises several kinds."""
  while error is not None:
    if os.strerror(errno.ENOSPC) in str(error):
      return True
    error = error.__cause__ or error.__context__
  return False


def _exit(message: str, status: int) -> NoReturn:
  _say(message)
  sys.exit(status)


def _say(message: str) -> None:
  sys.stdout.flush()
  print(f'run.py: {message}', file=sys.stderr, flush=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
  del frame
  raise KeyboardInterrupt(number)


def _main_or_exit(argv: Sequence[str]) -> None:
  with _one_message():
    main(argv)


def _parse_or_exit(argv: Sequence[str]) -> list[str]:
  with _one_message():
    try:
      return _parse(argv)
    except SystemExit:  # --help, which absl ends with status 1
      sys.stdout.flush()
      sys.exit(0)


if __name__ == '__main__':
  # So that files half written are removed, as with SIGINT.
  signal.signal(signal.SIGTERM, _interrupt)
  app.run(_main_or_exit, flags_parser=_parse_or_exit)
