# SPDX-License-Identifier: Apache-2.0
"""A draft as an experiment file that a person could have written.

Only what differs from the profile, in the layout of the formatter of this
project (pyink), with a comment before each line that means something else than
in EasyRec.
"""

import collections
from collections.abc import Sequence
import dataclasses
import textwrap

from dropoutnet_jax import config
from dropoutnet_jax.easyrec import draft as draft_lib

_WIDTH = 80
_TABLES = 'data.tables.'
_DEFAULT = config.Feature()
_Options = list[tuple[str, str]]  # name ('' by place) and text of each argument


def write(draft: draft_lib.Draft, source: str, out: str, table: str) -> str:
  """The text of the file.

  Args:
    draft: what it sets.
    source: name of EasyRec's configuration.
    out: where the file will be, for the command in its header.
    table: what became of every field, which ends the file as a comment.
  """
  width = _common_width(draft)
  lines = [
      f'r"""{draft.cfg.name}: converted from {source} of EasyRec.',
      '',
      'What became of each of its fields stands at the end.',
      '',
      f'python run.py --config={out}',
      '"""',
      '',
      *(['import functools', ''] if width else []),
      'from dropoutnet_jax import config',
      'from dropoutnet_jax import profiles',
      '',
      '',
      'def get_config() -> config.Config:',
      f'  cfg = profiles.apply(config.Config(name={draft.cfg.name!r}), '
      f'{draft.base!r})',
  ]
  values = draft.differences()
  values.pop('name', None)
  values.pop('profile', None)
  data = [name for name in values if name.startswith('data.')]
  others = [name for name in values if name not in data]
  lines += _settings(draft, values, [n for n in data if _TABLES not in n])
  if any(_TABLES in name for name in data):
    lines.append('  tables = cfg.data.tables')
  lines += _settings(draft, values, [n for n in data if _TABLES in n])
  lines += _features(draft, width)
  lines += _settings(draft, values, others)
  lines += ['  return cfg', '', '']
  lines += [f'# {line}'.rstrip() for line in table.splitlines()]
  return '\n'.join(lines) + '\n'


def _settings(
    draft: draft_lib.Draft, values: dict[str, object], names: Sequence[str]
) -> list[str]:
  lines = []
  for name in names:
    target = f'cfg.{name}'
    if name.startswith(_TABLES):
      target = 'tables.' + name.removeprefix(_TABLES)
    lines += _comment(draft.comments.get(name, ''), 2)
    lines += assignment(target, values[name])
  return lines


def _comment(text: str, indent: int) -> list[str]:
  lead = ' ' * indent + '# '
  return textwrap.wrap(
      text, _WIDTH, initial_indent=lead, subsequent_indent=lead
  )


def assignment(target: str, value: object) -> list[str]:
  """'  target = value', a tuple over several lines where one is too short."""
  line = f'  {target} = {_literal(value)}'
  if len(line) <= _WIDTH:
    return [line]
  if not isinstance(value, tuple):
    return [f'  {target} = (', f'      {_literal(value)}', '  )']
  return [
      f'  {target} = (',
      *(f'      {_literal(one)},' for one in value),
      '  )',
  ]


def _literal(value: object) -> str:
  """As people write numbers and strings."""
  if isinstance(value, tuple):
    inside = ', '.join(_literal(one) for one in value)
    return f'({inside},)' if len(value) == 1 else f'({inside})'
  if isinstance(value, int) and not isinstance(value, bool):
    return f'{value:_}' if value >= 10_000 else str(value)
  return repr(value)


def _common_width(draft: draft_lib.Draft) -> tuple[int, float] | None:
  """(embedding, embedding_std) of three features or more, the most common."""
  found = collections.Counter(
      (feature.embedding, feature.embedding_std)
      for side in ('user', 'item')
      for feature in getattr(draft.cfg.features, side)
      if feature.embedding
  )
  for common, count in found.most_common(1):
    return common if count > 2 else None
  return None


def _features(
    draft: draft_lib.Draft, width: tuple[int, float] | None
) -> list[str]:
  lines = []
  if width is not None:
    options = [('', 'config.Feature'), ('embedding', str(width[0]))]
    if width[1]:
      lines += _comment('EasyRec starts embeddings this small.', 2)
      options.append(('embedding_std', repr(width[1])))
    lines += _call('  embedded = ', 'functools.partial', options, '')
  for side in ('user', 'item'):
    listed = getattr(draft.cfg.features, side)
    if not listed:
      continue
    lines.append(f'  cfg.features.{side} = [')
    for number, feature in enumerate(listed):
      lines += _comment(draft.feature_comments.get((side, number), ''), 6)
      lines += _feature(feature, width)
    lines.append('  ]')
  return lines


def _feature(
    feature: config.Feature, width: tuple[int, float] | None
) -> list[str]:
  is_common = (feature.embedding, feature.embedding_std) == width
  options: _Options = [('', repr(feature.column)), ('', repr(feature.kind))]
  for field in dataclasses.fields(feature):
    value = getattr(feature, field.name)
    if field.name in ('column', 'kind'):
      continue
    if is_common and field.name in ('embedding', 'embedding_std'):
      continue
    if value != getattr(_DEFAULT, field.name):
      options.append((field.name, _literal(value)))
  name = 'embedded' if is_common else 'config.Feature'
  return _call(' ' * 6, name, options, ',')


def _call(lead: str, name: str, options: _Options, after: str) -> list[str]:
  """A call on one line; its arguments on one of their own; or on one each."""
  arguments = [f'{key}={text}' if key else text for key, text in options]
  line = f'{lead}{name}({", ".join(arguments)}){after}'
  if len(line) <= _WIDTH:
    return [line]
  indent = ' ' * (len(lead) - len(lead.lstrip()))
  inside = f'{indent}    {", ".join(arguments)}'
  if len(inside) <= _WIDTH:
    return [f'{lead}{name}(', inside, f'{indent}){after}']
  return [
      f'{lead}{name}(',
      *(f'{indent}    {one},' for one in arguments),
      f'{indent}){after}',
  ]
