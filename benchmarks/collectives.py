# SPDX-License-Identifier: Apache-2.0
"""What a compiled program sends between devices, read from its text."""

from collections.abc import Iterator
import re
from typing import NamedTuple

KINDS = (
    'all-gather',
    'all-reduce',
    'all-to-all',
    'collective-broadcast',
    'collective-permute',
    'ragged-all-to-all',
    'reduce-scatter',
)
_BITS = {'pred': 8, 'bf16': 16, 'c64': 64, 'c128': 128}
_SHAPE = re.compile(r'\b(pred|bf16|[a-z]\d+(?:e\d\w*)?)\[([\d,]*)\]')
_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'^(?:ROOT )?%?([\w.-]+) = (.+?) ([a-z][\w-]*)\(')
_CALLED = re.compile(
    r'\b(?:body|condition|calls|to_apply|true_computation|false_computation|'
    r'branch_computations)=(\{[^}]*\}|%?[\w.-]+)'
)
_CHANNEL = re.compile(r'\bchannel_id=(\d+)')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


class Array(NamedTuple):
  """Type and shape of an array on one device."""

  dtype: str
  shape: tuple[int, ...]

  @property
  def num_bytes(self) -> int:
    size = 1
    for length in self.shape:
      size *= length
    bits = _BITS.get(self.dtype) or int(re.findall(r'\d+', self.dtype)[0])
    return -(-size * bits // 8)


class Operation(NamedTuple):
  """An instruction of a program: what it makes on each device.

  Attributes:
    kind: its name, 'all-gather'; that of an asynchronous one without '-start'.
    arrays: what it makes.
    times: how often it runs in one round of loops whose length is not known
      when the program is compiled, such as that over the steps.
    text: its line.
  """

  kind: str
  arrays: tuple[Array, ...]
  times: int
  text: str

  @property
  def num_bytes(self) -> int:
    """What it makes in all its rounds, on one device."""
    return self.times * sum(array.num_bytes for array in self.arrays)


def operations(text: str) -> list[Operation]:
  """All instructions of `compiled.as_text()` that are ever reached.

  A loop is as many times its body as the compiler knows that it runs; of a
  branch all sides count. What runs asynchronously counts once, at its start,
  and a fusion is one instruction, beside what it sends.
  """
  computations, entry = _computations(text)
  found: list[Operation] = []

  def visit(name: str, times: int) -> None:
    for line in computations[name]:
      parts = _INSTRUCTION.match(line)
      if parts is None:
        continue
      _, made, kind = parts.groups()
      if not kind.endswith(('-done', '-update')):
        arrays = tuple(_arrays(made))
        if kind.endswith('-start'):
          kind = kind.removesuffix('-start')
          arrays = arrays[len(arrays) // 2 :]  # operands come first
        found.append(Operation(kind, arrays, times, line))
      if kind == 'fusion':
        # What is inside is never in memory; on TPUs it may send.
        for name in _CALLED.findall(line):
          fused(name.lstrip('%'), times)
        continue
      trips = _TRIPS.search(line) if kind == 'while' else None
      inner = times * int(trips.group(1)) if trips else times
      for called in _CALLED.findall(line):
        for one in re.findall(r'[\w.-]+', called):
          visit(one, inner)

  def fused(name: str, times: int) -> None:
    """Collectives that begin in one fusion and end in others, once each."""
    for line in computations.get(name, ()):
      parts = _INSTRUCTION.match(line)
      channel = _CHANNEL.search(line)
      if parts and channel and parts.group(3) in KINDS:
        if channel.group(1) not in channels:
          channels.add(channel.group(1))
          arrays = tuple(_arrays(parts.group(2)))
          found.append(Operation(parts.group(3), arrays, times, line))

  channels: set[str] = set()
  visit(entry, 1)
  return found


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
  computations: dict[str, list[str]] = {}
  entry = name = ''
  for line in text.splitlines():
    start = _COMPUTATION.match(line)
    if start is not None:
      name = start.group(2)
      computations[name] = []
      entry = name if start.group(1) else entry
    elif name:
      computations[name].append(line.strip())
  return computations, entry


def _arrays(made: str) -> Iterator[Array]:
  for dtype, shape in _SHAPE.findall(made):
    yield Array(dtype, tuple(int(x) for x in shape.split(',') if x))


def collectives(text: str) -> list[Operation]:
  """The instructions that send something between devices."""
  return [x for x in operations(text) if x.kind in KINDS]


def bytes_by_kind(text: str) -> dict[str, int]:
  """What the collectives of a kind make on one device, all together."""
  found: dict[str, int] = {}
  for one in collectives(text):
    found[one.kind] = found.get(one.kind, 0) + one.num_bytes
  return found
