# SPDX-License-Identifier: Apache-2.0
"""Arguments of `run.py` before absl sees them: each flag known, each value fit.

absl tells of mistakes in words of its own, some of them by a traceback, and
takes the next flag for the value of one that lacks it. Flags and fields of the
configuration are checked here, so that a mistake is one message.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags

from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax import errors

_POLICY = {
    'epsilon': 'chance that a place shows any item; 0.1 for epsilon, else 0.',
    'width': 'deviations of ucb, or a factor on those of thompson; 1.',
    'new_share': 'chance that a place is kept for new items; 0.',
    'boost': 'of new items, in standard deviations of scores; 0.',
    'passes': 'draws that ucb and thompson look at; 16.',
    'seed': 'of its draws; drawn and told if not given.',
    'spread': 'of ucb and thompson: by belief or by masks; belief.',
}
_TYPES: dict[str, Any] = {
    'passes': flags.DEFINE_integer,
    'seed': flags.DEFINE_integer,
    'spread': flags.DEFINE_string,
}


def define_policy() -> tuple[str, ...]:
  """Flags of a policy that shows items or is judged; their names."""
  text = 'Slates by greedy, epsilon, ucb or thompson: shown, or judged.'
  flags.DEFINE_string('policy', None, text)
  for name, what in _POLICY.items():
    define = _TYPES.get(name, flags.DEFINE_float)
    define(name, None, f'--policy: {what}')
  return ('policy', *_POLICY)


def split(argv: Sequence[str]) -> tuple[str | None, list[str]]:
  """The experiment file that the arguments name last, and all the others."""
  path, others = None, []
  arguments = iter(argv)
  for argument in arguments:
    if argument.startswith(('--config=', '-config=')):
      path = argument.split('=', 1)[1]
    elif argument in ('--config', '-config'):
      path = _value_after('config', arguments)
    else:
      others.append(argument)
  return path, others


def _value_after(name: str, arguments: Iterator[str]) -> str:
  """The argument after --NAME; never the next flag, as absl has it."""
  text = next(arguments, '--')
  if text.startswith('--'):
    raise errors.UserError(f'--{name} has no value; write --{name}=VALUE.')
  return text


def check(cfg: config.Config, argv: Sequence[str]) -> list[str]:
  """The arguments, each value in one with its flag and as absl takes it.

  Raises:
    UserError: for an unknown flag or field, and a value that is missing or of
      another type.
  """
  checked = []
  arguments = iter(argv)
  for argument in arguments:
    name, equals, text = argument.lstrip('-').partition('=')
    if not argument.startswith('-') or not name:
      checked.append(argument)
      continue
    hint = _type_of(cfg, name)
    if hint is bool and not equals:
      checked.append(argument)
      continue
    if not equals:
      text = _value_after(name, arguments)
    checked.append(f'--{name}={config_tree.check_text(name, hint, text)}')
  return checked


def _type_of(cfg: config.Config, name: str) -> Any:
  """Annotation of the field or flag that an argument sets."""
  if name.startswith('config.'):
    return config_tree.check_field(cfg, name.removeprefix('config.'))
  if name.startswith('noconfig.'):
    name = name.removeprefix('noconfig.')
    if config_tree.check_field(cfg, name) is not bool:
      raise errors.UserError(
          f'--noconfig.{name}: config.{name} is not true or false; write '
          f'--config.{name}=VALUE.'
      )
    return bool
  known = flags.FLAGS
  if name not in known and name.removeprefix('no') in known:
    name = name.removeprefix('no')
    if not known[name].boolean:
      raise errors.UserError(f'--no{name}: write --{name}=VALUE.')
  if name not in known:
    raise errors.UserError(
        f'Unknown command line flag {name!r}.'
        + errors.did_you_mean(name, known)
        + ' See python run.py --help.'
    )
  return {'bool': bool, 'int': int}.get(known[name].flag_type(), str)
