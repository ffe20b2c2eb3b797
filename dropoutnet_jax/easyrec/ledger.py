# SPDX-License-Identifier: Apache-2.0
"""What became of each field of a configuration: exactly one row for each.

A `Node` is a message with its place; reading a field does not settle it, a
verdict on it does. What nobody has settled in the end is not supported, so that
nothing is dropped silently.
"""

from collections.abc import Iterable, Iterator
import re
import textwrap
from typing import Any, NamedTuple

from dropoutnet_jax import errors
from dropoutnet_jax.easyrec import messages

TAKEN, CHANGED, REFUSED = 'taken over', 'changed', 'not supported'
VERDICTS = (TAKEN, CHANGED, REFUSED)
_UNSETTLED = 'nothing here stands for it; leave it out'
_WIDTH = 78


class Row(NamedTuple):
  """A verdict.

  Attributes:
    field: its place, such as 'model_config.losses[1].weight'.
    verdict: one of VERDICTS.
    note: what it became, why it changed, or what to do without it.
  """

  field: str
  verdict: str
  note: str


class Ledger:
  """Verdicts on all fields that a configuration sets."""

  def __init__(self, pipeline: messages.Pipeline):
    self._rows: dict[str, Row | None] = dict.fromkeys(leaves(pipeline.config))
    self._unknown = [
        Row(
            f'{one.message}.{one.name} (line {one.line})',
            REFUSED,
            'EasyRec 0.8.7 has no such field for a DropoutNet; leave it out',
        )
        for one in pipeline.unknown
    ]
    self.root = Node(pipeline.config, '', self)

  def settle(self, place: str, verdict: str, note: str) -> None:
    """A verdict on a field, or on all of a message that are still open."""
    if self._rows.get(place, False) is None:
      self._rows[place] = Row(place, verdict, note)
      return
    for field, row in self._rows.items():
      inside = field.startswith((f'{place}.', f'{place}['))
      if row is None and (inside or not place):
        self._rows[field] = Row(field, verdict, note)

  def rows(self) -> list[Row]:
    """One row for each field, in the order of the format."""
    settled = [
        row or Row(field, REFUSED, _UNSETTLED)
        for field, row in self._rows.items()
    ]
    return settled + self._unknown


class Node:
  """A message of the configuration, and where it stands."""

  def __init__(self, message: Any, place: str, ledger: Ledger):
    self._message, self.place, self._ledger = message, place, ledger

  def has(self, name: str) -> bool:
    """Whether the file sets a field."""
    if self._message.DESCRIPTOR.fields_by_name[name].is_repeated:
      return bool(getattr(self._message, name))
    return self._message.HasField(name)

  def get(self, name: str) -> Any:
    """A value, or its default; lists as tuples, enums by their names."""
    value = getattr(self._message, name)
    field = self._message.DESCRIPTOR.fields_by_name[name]
    if field.enum_type is not None:
      return field.enum_type.values_by_number[value].name
    if field.is_repeated:
      return tuple(_short(one) for one in value)
    return _short(value) if field.type == field.TYPE_FLOAT else value

  def node(self, name: str) -> 'Node':
    """The message that a field holds, without fields where it is not set."""
    return Node(getattr(self._message, name), self._at(name), self._ledger)

  def nodes(self, name: str) -> list['Node']:
    """The messages of a repeated field."""
    return [
        Node(message, f'{self._at(name)}[{number}]', self._ledger)
        for number, message in enumerate(getattr(self._message, name))
    ]

  def which(self, group: str) -> str:
    """Name of the one field of a group that is set, or ''."""
    return self._message.WhichOneof(group) or ''

  def take(self, *names: str, note: str) -> None:
    """Fields that stay what they were; without names all that are open."""
    self._settle(names, TAKEN, note)

  def change(self, *names: str, note: str) -> None:
    """Fields that mean something else from now on."""
    self._settle(names, CHANGED, note)

  def refuse(self, *names: str, note: str) -> None:
    """Fields that nothing here stands for; the note says what to do."""
    self._settle(names, REFUSED, note)

  def _settle(self, names: Iterable[str], verdict: str, note: str) -> None:
    for name in names or ('',):
      place = self._at(name) if name else self.place
      self._ledger.settle(place, verdict, note)

  def _at(self, name: str) -> str:
    return f'{self.place}.{name}'.removeprefix('.')


def leaves(message: Any, place: str = '') -> Iterator[str]:
  """Places of all fields that are set; lists of values are one field."""
  found = False
  for field, value in message.ListFields():
    found = True
    at = f'{place}.{field.name}'.removeprefix('.')
    if field.message_type is None:
      yield at
    elif field.is_repeated:
      for number, one in enumerate(value):
        yield from leaves(one, f'{at}[{number}]')
    else:
      yield from leaves(value, at)
  if not found:
    yield place


def _short(value: Any) -> Any:
  """A float32 as the number that was written: 0.1, not 0.10000000149."""
  return float(f'{value:.7g}') if isinstance(value, float) else value


def describe(rows: Iterable[Row], title: str) -> str:
  """The rows as a text of three lists; fields of one verdict together."""
  rows = list(rows)
  counts = [sum(row.verdict == v for row in rows) for v in VERDICTS]
  parts = ', '.join(f'{n} {v}' for n, v in zip(counts, VERDICTS))
  lines = textwrap.wrap(f'{title}: {len(rows)} fields; {parts}.', _WIDTH)
  for verdict in VERDICTS:
    together: dict[tuple[str, str], list[str]] = {}
    for row in rows:
      if row.verdict == verdict:
        plain = re.sub(r'\[\d+\]', '', row.field)
        together.setdefault((plain, row.note), []).append(row.field)
    lines += ['', f'{verdict}:'] if together else []
    for (plain, note), fields in together.items():
      name = _shown(fields[0] if len(fields) == 1 else plain)
      name += f' ({len(fields)} times)' if len(fields) > 1 else ''
      lines += textwrap.wrap(
          f'{name}: {note}',
          _WIDTH,
          initial_indent='  ',
          subsequent_indent='      ',
          break_long_words=False,
          break_on_hyphens=False,
      )
  return '\n'.join(lines) + '\n'


def _shown(field: str) -> str:
  """A place on one line: of a deep one the last parts."""
  parts = field.split('.')
  while len(parts) > 2 and len('.'.join(parts)) > _WIDTH - 12:
    parts = ['…', *parts[2:]]
  return '.'.join(parts)


def check_strict(rows: Iterable[Row], path: str) -> None:
  """Raises UserError if something is not supported."""
  refused = [
      f'{row.field} ({row.note})' for row in rows if row.verdict == REFUSED
  ]
  if refused:
    raise errors.UserError(
        f'{path}: --strict, and not supported are '
        f'{errors.listed(refused, 5)}. Change the configuration, or leave '
        '--strict out and read what became of it. Nothing was written.'
    )
