# SPDX-License-Identifier: Apache-2.0
"""Command line: python run.py [COMMAND] [--config=experiments/NAME.py] ...

Commands:
  train     trains an experiment, or goes on with it, and evaluates it (default)
  evaluate  evaluates the best checkpoint of a run folder
  recommend writes the best items of each user to a file
  embed     writes embeddings of users or items to a file
  export    writes the model as a folder that other programs can use
  serve     answers requests over HTTP until it is stopped
  describe  counts what the data and the model are
  tune      finds settings on the validation sets, then trains the winner
  convert   makes an experiment file of a configuration of EasyRec
  reproduce runs experiments over seeds and says what moved in their table
  bench     measures speed and accuracy beside other implementations

Any field of the configuration can be set: --config.train.batch_size=512.
"""

import signal

if __name__ == '__main__' and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
  # Without a traceback of the imports: nothing has begun before they are done.
  signal.signal(signal.SIGINT, signal.SIG_DFL)

from collections.abc import Iterator, Sequence
import contextlib
import errno
import os
import sys
from types import FrameType
from typing import Any, NoReturn

from absl import app
from absl import flags
from absl import logging
from ml_collections import config_flags

from dropoutnet_jax import arguments as arguments_lib
from dropoutnet_jax import config as config_lib
from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax import experiment
from dropoutnet_jax import profiles

COMMANDS = (
    'train',
    'evaluate',
    'recommend',
    'embed',
    'export',
    'serve',
    'describe',
    'tune',
    'convert',
    'reproduce',
    'bench',
)
_QUICKSTART = os.path.abspath(f'{__file__}/../experiments/quickstart.py')
_POLICY = arguments_lib.define_policy()
_PROCESSES = ('coordinator', 'num_processes', 'process_id', 'distributed')
# Commands that take a trained one.
_OF_A_RUN = ('recommend', 'embed', 'export', 'serve')
# Flags that one command looks at, or two, and no other.
_OWN = {
    'evaluate': ('against', 'logged', 'clip', *_POLICY),
    'recommend': ('output', 'users', 'items', 'interactions', 'k')
    + ('candidates', 'exclude_seen', *_POLICY),
    'tune': ('space', 'trials', 'minutes', 'prune'),
    'convert': ('easyrec', 'out', 'base_profile', 'strict', 'overwrite')
    + ('user_id', 'item_id'),
    'embed': ('output', 'side', 'users', 'items', 'interactions'),
    'export': ('output',),
    'serve': ('host', 'port', 'state', 'api_key', 'index', 'keep_shown'),
    'reproduce': ('output', 'experiments', 'seeds', 'check'),
    'bench': ('suite',),
}
# Others that it does not look at: refused, lest somebody rely on them.
_UNREAD = {
    'train': (),
    'evaluate': ('data_dir', 'profile'),
    'recommend': ('config', 'data_dir', 'profile', *_PROCESSES),
    'embed': ('config', 'data_dir', 'profile'),
    'export': ('config', 'data_dir', 'profile', *_PROCESSES),
    'serve': ('config', 'data_dir', 'profile', *_PROCESSES),
    'describe': ('profile',),
    'tune': ('profile', *_PROCESSES),
    'convert': ('config', 'workdir', 'data_dir', 'profile', *_PROCESSES),
    'reproduce': ('config', 'profile', *_PROCESSES),
    'bench': ('config', 'workdir', 'profile', *_PROCESSES),
}

_ARGV: list[str] = []  # all arguments, where ml_collections looks for fields
# `_parse` puts the default in: absl loads it before a mistake can be told.
_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'Experiment file.', lock_config=False, sys_argv=_ARGV
)
flags.FLAGS['config'].default_as_str = "'experiments/quickstart.py'"
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
_SUITES = (
    'bench: of speed, labels, accuracy, hybrid, teacher, memory, streaming, '
    'tables, search, serve and explore.'
)
_SUITE = flags.DEFINE_list('suite', ['all'], _SUITES)
flags.DEFINE_list('experiments', ['all'], 'reproduce: names, or all.')
flags.DEFINE_list('seeds', ['0', '1', '2'], 'reproduce: of each experiment.')
flags.DEFINE_bool('check', False, 'reproduce: compare, and write no table.')
for _name, _help in (
    ('output', 'recommend: file of the lists; others: see the README.'),
    ('users', 'recommend: file of users; all of the run if not given.'),
    ('items', 'recommend: file of candidates; all items if not given.'),
    ('interactions', 'recommend, embed: file of who met what beside training.'),
    ('state', 'serve: RUN/service.sqlite if not given.'),
    ('api_key', 'serve: that each request must bring.'),
    ('against', 'evaluate: a run folder to compare with.'),
    ('logged', 'evaluate: a log of slates that tells what its own are worth.'),
    ('space', 'tune: file with get_space(), if another.'),
    ('easyrec', 'convert: pipeline.config of EasyRec.'),
    ('out', 'convert: the experiment file to write.'),
    ('user_id', 'convert: column of the id of users; a guess if not given.'),
    ('item_id', 'convert: column of the id of items; a guess if not given.'),
):
  flags.DEFINE_string(_name, None, _help)
flags.DEFINE_float('clip', None, 'evaluate --logged: the largest weight.')
flags.DEFINE_integer('k', 20, 'recommend: items of each user, at most.')
flags.DEFINE_string('candidates', 'all', 'recommend: all, new or known items.')
flags.DEFINE_bool('exclude_seen', True, 'recommend: nothing that users know.')
flags.DEFINE_string('side', None, 'embed: user or item, whose embeddings.')
flags.DEFINE_string('host', '127.0.0.1', 'serve: address to listen on.')
flags.DEFINE_integer('port', 8000, 'serve: 0 takes any that is free.')
flags.DEFINE_string('index', 'exact', 'serve: of the items.')
flags.DEFINE_integer('keep_shown', 1_000_000, 'serve: places in GET /shown.')
flags.DEFINE_integer('trials', None, 'tune: in all; 30 without --minutes.')
flags.DEFINE_float('minutes', None, 'tune: in all; then no trial begins.')
flags.DEFINE_bool('prune', True, 'tune: stop trials that do badly early.')
flags.DEFINE_string('base_profile', 'easyrec', 'convert: easyrec or default.')
flags.DEFINE_bool('strict', False, 'convert: all is supported, or an error.')
flags.DEFINE_bool('overwrite', False, 'convert: replace what --out names.')
flags.DEFINE_string('distributed', 'auto', 'Join a cluster: auto, on or off.')
flags.DEFINE_string('coordinator', '', 'host:port of process 0, of several.')
flags.DEFINE_integer('num_processes', 0, 'Of this run.')
flags.DEFINE_integer('process_id', -1, 'Of this process.')


def _parse(argv: Sequence[str]) -> list[str]:
  """Parses the flags; returns the program's name and the command.

  Raises:
    UserError: for an unknown command, flag or field, a value of the wrong
      type, and what the command would not read.
  """
  try:
    argv = [argv[0], *flags.FLAGS.read_flags_from_files(argv[1:], False)]
  except (flags.Error, ValueError) as error:
    raise errors.UserError(f'--flagfile: {error}') from error
  path, others = arguments_lib.split(argv)
  cfg = experiment.load(_QUICKSTART if path is None else path)
  arguments = arguments_lib.check(cfg, others[1:])
  _ARGV[:] = [argv[0], f'--config={path or _QUICKSTART}', *arguments]
  try:
    name, *rest = flags.FLAGS(_ARGV)
  except (flags.Error, ValueError, TypeError, AttributeError) as error:
    message = str(error).rstrip('.')
    raise errors.UserError(f'{message}. See python run.py --help.') from error
  except SystemExit:  # --help, which absl ends with status 1
    print('fields of the configuration, with their values:')
    for field, value in config_tree.fields(cfg).items():
      print(f'  --config.{field}={value!r}')
    sys.stdout.flush()
    sys.exit(0)
  command = _command_of(rest)
  _check_read(command, path is not None)
  fields = config_flags.get_override_values(flags.FLAGS['config'])
  if 'profile' in fields:
    profiles.change(_CONFIG.value, cfg.profile, fields['profile'], fields)
  return [name, command]


def _command_of(words: Sequence[str]) -> str:
  command, *rest = list(words) or ['train']
  if command not in COMMANDS:
    raise errors.UserError(
        f'{command!r} is no command; there are {", ".join(COMMANDS)}.'
        + errors.did_you_mean(command, COMMANDS)
    )
  if rest:
    raise errors.UserError(
        f'Unknown arguments {" ".join(rest)}; flags start with --.'
    )
  return command


def _check_read(command: str, has_config: bool) -> None:
  """Raises UserError for flags that the command would not look at."""
  fields = config_flags.get_override_values(flags.FLAGS['config'])
  given = [name for name in flags.FLAGS if flags.FLAGS[name].present]
  given.remove('config')
  given += ['config'] * has_config
  others = {*sum(_OWN.values(), ())} - {*_OWN.get(command, ())}
  unread = [name for name in given if name in {*_UNREAD[command], *others}]
  why = f'{command} does not read that'
  from_folder = command in ('evaluate', 'describe') and 'workdir' in given
  if from_folder:
    unread += [name for name in ('config', 'data_dir') if name in given]
  if from_folder or command in ('evaluate', *_OF_A_RUN):
    why = f'{command} takes everything from the run folder'
  if set(_PROCESSES) & {*unread} and command in _OF_A_RUN:
    why += ', in one process'
  if fields and (from_folder or command not in ('train', 'describe', 'tune')):
    unread += [f'config.{name}' for name in fields]
  if unread:
    listed = ', '.join(f'--{name}' for name in dict.fromkeys(unread))
    raise errors.UserError(f'{why}; leave out {listed}.')
  for name in ('workdir', 'data_dir'):
    if flags.FLAGS[name].value == '':
      raise errors.UserError(
          f"--{name} is empty; name a folder ('.' is the current one)."
      )


def _workdir() -> str:
  """The run folder: as given, or named after the experiment file."""
  path = config_flags.get_config_filename(flags.FLAGS['config'])
  name = os.path.splitext(os.path.basename(path))[0]
  name += '_tuning' * ('tune' in _ARGV[1:])
  return _WORKDIR.value or os.path.join('runs', name)


def main(argv: Sequence[str]) -> None:
  """Runs one command; raises UserError for what the user can mend."""
  command = argv[1]
  if not flags.FLAGS['verbosity'].present:
    # Orbax tells its life otherwise; its errors come as exceptions as well.
    logging.set_verbosity(logging.FATAL)
  cfg: config_lib.Config = _CONFIG.value
  cfg.validate()
  data_dir = _DATA_DIR.value
  if data_dir is not None and not os.path.isdir(data_dir):
    raise errors.UserError(
        f'--data_dir={data_dir} is no folder; give the folder that holds one '
        'folder per data set, or leave the flag out to download public data.'
    )
  own: Any = {name: flags.FLAGS[name].value for name in _OWN.get(command, ())}
  if command == 'convert':
    from dropoutnet_jax.easyrec import convert

    print(convert.run(**own), end='')
    return
  # These take seconds to import; a mistake in the arguments is told before.
  # pylint: disable=g-import-not-at-top
  from dropoutnet_jax import commands
  from dropoutnet_jax import comparisons
  from dropoutnet_jax import log_commands
  from dropoutnet_jax import parallel
  from dropoutnet_jax import processes
  from dropoutnet_jax import reproduce
  from dropoutnet_jax import serving_commands
  from dropoutnet_jax import sweeps

  if command == 'reproduce':  # which leaves the devices to its runs
    places = data_dir, _WORKDIR.value, _COMPILE_CACHE.value
    sys.exit(reproduce.run(reproduce.Request(__file__, *places, **own)))
  parallel.make_deterministic()
  note = parallel.set_compile_cache(_COMPILE_CACHE.value)
  if 'distributed' not in _UNREAD[command]:
    place: Any = [flags.FLAGS[name].value for name in _PROCESSES]
    processes.initialize(*place)
  if note:
    commands.say(note)
  with processes.with_others():
    if command == 'train' and cfg.comparison.variants:
      comparisons.run(cfg, _workdir(), data_dir, _PROFILE.value)
    elif command == 'train' and cfg.sweep.values:
      sweeps.run(cfg, _workdir(), data_dir, _PROFILE.value)
    elif command == 'train':
      commands.train(cfg, _workdir(), data_dir, _PROFILE.value)
    elif command == 'evaluate':
      log_commands.evaluate(_workdir(), **own)
    elif command == 'recommend':
      commands.recommend(_WORKDIR.value, **own)
    elif command == 'tune':
      from dropoutnet_jax.tuning import tune

      path = config_flags.get_config_filename(flags.FLAGS['config'])
      tune.run(tune.Request(cfg, path, _workdir(), data_dir, **own))
    elif command == 'embed':
      serving_commands.embed(_WORKDIR.value, **own)
    elif command == 'export':
      serving_commands.export(_WORKDIR.value, **own)
    elif command == 'serve':
      serving_commands.serve(_WORKDIR.value, **own)
    elif command == 'describe':
      commands.describe(cfg, _WORKDIR.value, data_dir)
    else:
      from benchmarks import suite

      suite.run(_SUITE.value, data_dir)


@contextlib.contextmanager
def _one_message() -> Iterator[None]:
  """Turns what the user can mend, and interrupts, into a message and a status.

  Anything else is a defect of this program and keeps its traceback.
  """
  try:
    yield
    sys.stdout.flush()
  except errors.BusyThreadsError as error:
    _say(str(error))
    os._exit(2)
  except errors.UserError as error:
    _exit(str(error), 2)
  except errors.Interrupted as error:  # which has been told
    sys.exit(128 + error.number)
  except BrokenPipeError:  # whoever read the output, such as head, has gone
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)
  except Exception as error:
    if errors.is_full_disk(error):
      why = os.strerror(errno.ENOSPC)
      _say(f'{_place(error)}{why}. Free some and run again.')
      os._exit(2)  # threads of libraries would go on complaining
    if not errors.is_mendable(error):
      raise
    _exit(f'{_place(error)}{error.strerror}.', 2)
  except KeyboardInterrupt as error:
    number = error.args[0] if error.args else signal.SIGINT
    _exit(
        f'{signal.Signals(number).name} came; the same command starts again, '
        'from the last checkpoint where there is one.',
        128 + number,
    )


def _place(error: Exception) -> str:
  """'FILE: ' of an error, else 'RUN FOLDER: ' of a command that writes one."""
  place = getattr(error, 'filename', None)
  folderless = {'bench', 'reproduce'} & {*_ARGV}
  if not place and flags.FLAGS.is_parsed() and not folderless:
    place = _workdir()
  return f'{place}: ' if place else ''


def _exit(message: str, status: int) -> NoReturn:
  _say(message)
  sys.exit(status)


def _say(message: str) -> None:
  sys.stdout.flush()
  print(f'run.py: {message}', file=sys.stderr, flush=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
  del frame
  raise KeyboardInterrupt(number)


def _report_unraisable(what: Any) -> None:
  """Python's report, but for callbacks into an event loop that is closed.

  TensorStore's threads go on to call it after a failure that has come here as
  an exception.
  """
  if str(what.exc_value) != 'Event loop is closed':
    sys.__unraisablehook__(what)


def _main_or_exit(argv: Sequence[str]) -> None:
  with _one_message():
    main(argv)


def _parse_or_exit(argv: Sequence[str]) -> list[str]:
  with _one_message():
    return _parse(argv)


if __name__ == '__main__':
  sys.unraisablehook = _report_unraisable
  # So that files half written are removed.
  signal.signal(signal.SIGTERM, _interrupt)
  if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
    signal.signal(signal.SIGINT, _interrupt)
  app.run(_main_or_exit, flags_parser=_parse_or_exit)
