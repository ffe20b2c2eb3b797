# SPDX-License-Identifier: Apache-2.0
"""A configuration as a tree: JSON and back, dotted names, sweeps."""

import ast
from collections.abc import Callable, Iterable, Mapping
import copy
import dataclasses
import json
import typing
from typing import Any

from absl import flags

from dropoutnet_jax import config as config_lib
from dropoutnet_jax import errors

_VALUES: dict[Any, tuple[Callable[[str], object], str]] = {
    bool: (flags.BooleanParser().parse, 'true or false'),
    int: (int, 'a whole number'),
    float: (float, 'a number'),
}


def swept(config: config_lib.Config, value: float) -> config_lib.Config:
  """A copy of a sweep's configuration for one value, itself no sweep.

  Raises:
    UserError: if the field does not exist, or the value is out of its range.
  """
  check_field(config, config.sweep.field)
  if config.sweep.field.startswith('sweep.'):
    raise errors.UserError(
        f'config.sweep.field is {config.sweep.field!r}; a sweep cannot sweep '
        'itself. Name a field of another section, such as train.seed.'
    )
  if '[' in config.sweep.field:
    raise errors.UserError(
        f'config.sweep.field is {config.sweep.field!r}; fields of list entries '
        'cannot be swept.'
    )
  result = copy.deepcopy(config)
  _set(result, config.sweep.field, value)
  result.sweep = config_lib.SweepConfig()
  result.validate()
  return result


def varied(
    config: config_lib.Config, settings: Iterable[str]
) -> config_lib.Config:
  """A copy of a configuration with some fields set, itself no comparison.

  Args:
    config: is left as it is.
    settings: each 'field=value', as on the command line.

  Raises:
    UserError: for an unknown field and a value that it cannot have.
  """
  result = copy.deepcopy(config)
  result.comparison = config_lib.ComparisonConfig()
  for setting in settings:
    name, equals, text = setting.partition('=')
    if not equals:
      raise errors.UserError(
          f'config.comparison: {setting!r} sets nothing; write FIELD=VALUE.'
      )
    hint = check_field(result, name)
    _set(result, name, _parse(name, hint, text))
  result.validate()
  return result


def with_values(
    config: config_lib.Config, values: Mapping[str, Any]
) -> config_lib.Config:
  """A copy of a configuration with other values of some fields, by name.

  Raises:
    UserError: for an unknown field and a value that it cannot have.
  """
  result = copy.deepcopy(config)
  for name, value in values.items():
    check_field(result, name)
    _set(result, name, value)
  result.validate()
  return result


def _set(config: config_lib.Config, name: str, value: Any) -> None:
  *parents, last = name.replace('[', '.[').split('.')
  node: Any = config
  for part in parents:
    is_index = part.startswith('[')
    node = node[int(part[1:-1])] if is_index else getattr(node, part)
  setattr(node, last, value)


def _parse(name: str, hint: Any, text: str) -> Any:
  """The value that a text stands for in a field of this annotation."""
  text = check_text(name, hint, text)
  if hint in _VALUES:
    return _VALUES[hint][0](text)
  if typing.get_origin(hint) is not tuple:
    return text
  try:
    value = ast.literal_eval(text)
  except (SyntaxError, ValueError):
    raise errors.UserError(
        f'{name}={text}: expected values in brackets, such as (1, 2).'
    ) from None
  return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def to_json(config: config_lib.Config) -> str:
  """The whole configuration as JSON, fields in their order of declaration."""
  return json.dumps(dataclasses.asdict(config), indent=2) + '\n'


def fields(config: config_lib.Config) -> dict[str, Any]:
  """Every value by the dotted name that sets it: 'features.item[0].rank'."""

  def walk(node: Any, path: str) -> dict[str, Any]:
    if dataclasses.is_dataclass(node):
      names = [f'.{field.name}' for field in dataclasses.fields(node)]
      parts = [getattr(node, name[1:]) for name in names]
    elif isinstance(node, list):
      names, parts = [f'[{n}]' for n in range(len(node))], node
    else:
      return {path.removeprefix('.'): node}
    found: dict[str, Any] = {}
    for name, part in zip(names, parts):
      found |= walk(part, path + name)
    return found

  return walk(config, '')


def from_dict(tree: Mapping[str, Any]) -> config_lib.Config:
  """Inverse of `to_json`, from parsed JSON.

  Raises:
    UserError: for fields that this version does not know or does not find,
      naming the first, and for a tree of another shape.
  """
  return _from_dict(config_lib.Config, tree, 'config')


def _from_dict(kind: Any, tree: Any, path: str) -> Any:
  _check_shape(tree, Mapping, path)
  hints = typing.get_type_hints(kind)
  unknown = sorted(set(tree) - set(hints))
  if unknown:
    raise errors.UserError(
        f'{path} has the field {unknown[0]!r}, which this version does not '
        'know; it was written by another version of dropoutnet_jax.'
        + errors.did_you_mean(unknown[0], hints)
    )
  values = {}
  for name, value in tree.items():
    hint = hints[name]
    if dataclasses.is_dataclass(hint):
      value = _from_dict(hint, value, f'{path}.{name}')
    elif typing.get_origin(hint) is list:
      _check_shape(value, list, f'{path}.{name}')
      (entry,) = typing.get_args(hint)
      value = [_from_dict(entry, v, f'{path}.{name}') for v in value]
    elif typing.get_origin(hint) is tuple:
      _check_shape(value, list, f'{path}.{name}')
      value = tuple(value)
    values[name] = value
  missing = [name for name in hints if name not in values]
  if missing:  # a default could be another value than the one it had
    raise errors.UserError(
        f'{path} lacks the field {missing[0]!r}; the rest is lost, or another '
        'version of dropoutnet_jax wrote it.'
    )
  return kind(**values)


def _check_shape(value: Any, kind: type, path: str) -> None:
  if not isinstance(value, kind):
    raise errors.UserError(
        f'{path} is {value!r}; expected a '
        f'{"list" if kind is list else "section"}.'
    )


def check_field(config: Any, name: str) -> Any:
  """Checks that a dotted name such as 'train.seed' is a field to override.

  Returns:
    Its annotation, such as `int`.

  Raises:
    UserError: naming the first part that does not exist and the nearest one;
      also for a section or a list, which can only be set field by field.
  """
  node, path, hint = config, 'config', type(config)
  for part in name.replace('[', '.[').split('.'):
    if part.startswith('['):
      index = part[1:-1]
      if not isinstance(node, list) or not index.isdigit():
        raise errors.UserError(f'{path} is no list; {part} picks nothing.')
      if int(index) >= len(node):
        raise errors.UserError(
            f'{path} has {len(node)} entries; {part} does not exist.'
        )
      node, path = node[int(index)], path + part
      continue
    known = (
        [field.name for field in dataclasses.fields(node)]
        if dataclasses.is_dataclass(node)
        else []
    )
    if part not in known:
      listed = f' It has {", ".join(known)}.' if known else ''
      raise errors.UserError(
          f'{path} has no field {part!r}.{errors.did_you_mean(part, known)}'
          + listed
      )
    hint = typing.get_type_hints(type(node))[part]
    node, path = getattr(node, part), f'{path}.{part}'
  if dataclasses.is_dataclass(node):
    known = [f'{path}.{field.name}' for field in dataclasses.fields(node)]
    raise errors.UserError(
        f'{path} is a section; set its fields: {", ".join(known[:3])} ...'
    )
  if isinstance(node, list):
    (entry,) = typing.get_args(hint)
    first = dataclasses.fields(entry)[0].name
    raise errors.UserError(
        f'{path} is a list; set fields of its entries, such as '
        f'{path}[0].{first}, or change the experiment file.'
    )
  return hint


def check_text(name: str, hint: Any, text: str) -> str:
  """Checks a value that an argument gives to a field or a flag.

  Args:
    name: of the argument, for the message.
    hint: annotation, as `check_field` returns it.
    text: the value.

  Returns:
    The value as ml_collections takes it: of several words, 'a,b', a tuple.

  Raises:
    UserError: if a number or a bool is set to something else.
  """
  if hint in _VALUES:
    parse, kind = _VALUES[hint]
    try:
      parse(text)
    except ValueError:
      message = f'--{name}={text}: expected {kind}.'
      raise errors.UserError(message) from None
  if typing.get_args(hint)[:1] == (str,) and not text.startswith(('(', '[')):
    words = [word.strip('\'" ') for word in text.split(',')]
    return repr(tuple(word for word in words if word))
  return text
