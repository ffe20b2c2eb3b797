# SPDX-License-Identifier: Apache-2.0
"""EasyRec configurations in protocol buffers' text format, read from a file.

Messages are built when they are needed, from the table in schema.py. A field
that is not in it does not stop the reading: it is set aside with its line.
"""

import functools
import re
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message_factory
from google.protobuf import text_format

from dropoutnet_jax import errors
from dropoutnet_jax.easyrec import schema

_PACKAGE = 'easyrec'
_UNKNOWN = re.compile(
    r'Message type "(?:\w+\.)?(\w+)" has no field named "(\w+)"'
)
_TOKEN = re.compile(
    r"""\s+ | \#[^\n]* | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*'
      | [{}<>\[\]:;,] | [^\s{}<>\[\]:;,\#"']+""",
    re.VERBOSE,
)


class Unknown(NamedTuple):
  """A field that schema.py does not know."""

  line: int
  message: str  # that it stands in
  name: str


class Pipeline(NamedTuple):
  """A configuration as it was read.

  Attributes:
    config: the message `EasyRecConfig`.
    unknown: what was set aside.
  """

  config: Any
  unknown: tuple[Unknown, ...]


def read(path: str) -> Pipeline:
  """Reads a configuration.

  Raises:
    UserError: if there is no such file, it is empty, no text, or not in the
      text format.
  """
  try:
    with open(path, 'rb') as file:
      text = file.read().decode('utf-8-sig')
  except OSError as error:
    raise errors.UserError(
        f'--easyrec={path}: {error.strerror}. Name the pipeline.config that '
        'EasyRec trains with.'
    ) from error
  except UnicodeDecodeError as error:
    raise errors.UserError(
        f'{path}: byte {error.start} is not UTF-8; a configuration of EasyRec '
        'is a text file.'
    ) from error
  if not text.strip():
    raise errors.UserError(f'{path}: the file is empty.')
  if text.lstrip().startswith('{'):
    raise errors.UserError(
        f'{path} begins with a brace, as JSON does. Give the text that EasyRec '
        'reads: field: value, one after another.'
    )
  return parse(text, path)


def parse(text: str, path: str) -> Pipeline:
  """Parses a configuration; `path` is what messages call it.

  Raises:
    UserError: naming the line that is not in the text format.
  """
  unknown: list[Unknown] = []
  while True:
    config = new_config()()
    try:
      text_format.Parse(text, config)
      return Pipeline(config, tuple(unknown))
    except text_format.ParseError as error:
      found = _UNKNOWN.search(str(error))
      line, column = error.GetLine(), error.GetColumn()
      if found is None or line is None or column is None:
        raise errors.UserError(_explain(error, path)) from error
      unknown.append(Unknown(line, found[1], found[2]))
      text = _without_field(text, line, column, path)


def _explain(error: text_format.ParseError, path: str) -> str:
  what = errors.cause(error)
  line = error.GetLine()
  if line is None:
    return f'{path}: {what}'
  what = re.sub(r'^\d+:\d+ : ', '', what).replace(f'{_PACKAGE}.', '')
  return f'{path}:{line}: {what.rstrip(".")}. Mend the configuration there.'


def _without_field(text: str, line: int, column: int, path: str) -> str:
  """The text with the field at this place, both from 1, as blanks."""
  lines = text.split('\n')[: line - 1]
  start = sum(len(one) + 1 for one in lines) + column - 1
  end = _end_of_field(text, start)
  if end is None:
    raise errors.UserError(
        f'{path}:{line}: a string in what begins here is not closed. Mend the '
        'configuration there.'
    )
  blank = ''.join(c if c == '\n' else ' ' for c in text[start:end])
  return text[:start] + blank + text[end:]


def _end_of_field(text: str, start: int) -> int | None:
  """Where 'name: value', 'name { ... }' or 'name: [ ... ]' is over.

  Strings that follow each other are one value. None if one is not closed.
  """
  depth, place = 0, start
  seen: list[str] = []
  while place < len(text):
    match = _TOKEN.match(text, place)
    if match is None:
      return None
    token, end = match[0], match.end()
    is_blank = token[0] == '#' or token.isspace()
    is_string = token[0] in '"\''
    if seen and seen[-1][0] in '"\'' and not (depth or is_blank or is_string):
      return place
    if not is_blank:
      seen.append(token)
      depth += (token in '{<[') - (token in '}>]')
    has_value = len(seen) > 1 and token != ':' and not (is_blank or is_string)
    if has_value and depth <= 0:
      return end
    place = end
  return place


@functools.cache
def new_config() -> Any:
  """The class of the whole configuration, a protocol buffer message."""
  file = descriptor_pb2.FileDescriptorProto(
      name='easyrec.proto', package=_PACKAGE, syntax='proto2'
  )
  for name, values in schema.ENUMS.items():
    enum = file.enum_type.add(name=name)
    for number, value in enumerate(values.split()):
      # The values of an enum are names of the whole package.
      enum.value.add(name=value, number=number)
  for name, fields in schema.MESSAGES.items():
    _add_fields(file.message_type.add(name=name), fields)
  pool = descriptor_pool.DescriptorPool()
  pool.Add(file)
  found = pool.FindMessageTypeByName(f'{_PACKAGE}.{schema.ROOT}')
  return message_factory.GetMessageClass(found)


def _add_fields(message: Any, fields: str) -> None:
  """Adds the fields of a text as in schema.MESSAGES."""
  groups: dict[str, int] = {}
  for number, text in enumerate(fields.split(';'), start=1):
    text, _, group = text.strip().partition(' @')
    declared, has_default, default = text.partition(' = ')
    if not declared:
      continue
    kind, name = declared.split()
    field = message.field.add(name=name, number=number)
    field.label = field.LABEL_OPTIONAL
    if kind.endswith('*'):
      kind, field.label = kind[:-1], field.LABEL_REPEATED
    if kind in schema.MESSAGES or kind in schema.ENUMS:
      is_enum = kind in schema.ENUMS
      field.type = field.TYPE_ENUM if is_enum else field.TYPE_MESSAGE
      field.type_name = f'.{_PACKAGE}.{kind}'
    else:
      field.type = getattr(field, f'TYPE_{kind.upper()}')
    if has_default:
      field.default_value = default
    if group:
      if group not in groups:
        groups[group] = len(groups)
        message.oneof_decl.add(name=group)
      field.oneof_index = groups[group]
