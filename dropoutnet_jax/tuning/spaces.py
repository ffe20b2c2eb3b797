# SPDX-License-Identifier: Apache-2.0
"""The space of a study, checked before anything runs, and its points.

A point is a value for each entry whose condition holds, by field. All that can
be refused is refused here: a field that is none, ends that its section does
not allow, what would make trials no longer comparable.
"""

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import math
from typing import Any

from dropoutnet_jax import checks
from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax import experiment
from dropoutnet_jax import space
from dropoutnet_jax import unread

Point = Mapping[str, Any]
_KINDS = (space.Float, space.Int, space.Choice)
_DIGITS = 3  # of numbers that a person would write
# What trials must share, and why.
_FIXED = (
    ('data.', 'other rows would be held out, and values would not compare'),
    ('evaluation.', 'values of the trials would be of different metrics'),
    ('train.select_by', 'values of the trials would be of different metrics'),
    ('train.eval_every', 'curves are compared at the same steps'),
    (
        'features.history_smoothing',
        'what it changes is told after training, and no trial is judged by it',
    ),
    (
        'train.seed',
        'the best of several seeds is luck; average over them instead '
        '(config.sweep)',
    ),
    ('train.warm_start', 'it belongs to the experiment file'),
    ('name', 'it names the study'),
    ('profile', 'it belongs to the experiment file'),
    ('mesh.', 'it changes where is computed, not what'),
    ('sweep.', 'a study makes single runs'),
    ('comparison.', 'a study makes single runs'),
)


def load(path: str, flag: str) -> list[space.Entry]:
  """What get_space() of a file returns, each entry well formed.

  Args:
    path: of an experiment file, or of a file with nothing else in it.
    flag: that names the file, for messages.

  Raises:
    UserError: if there is no such file or function, it fails, or it returns
      something else.
  """
  found = experiment.call(path, 'get_space', flag)
  if not isinstance(found, (list, tuple)) or not found:
    raise errors.UserError(
        f'{path}: get_space() returns {found!r}; it must return a list of '
        'space.Float, space.Int and space.Choice, one or more.'
    )
  for number, entry in enumerate(found):
    if not isinstance(entry, _KINDS):
      raise errors.UserError(
          f'{path}: entry {number} of get_space() is {entry!r}; it must be a '
          'space.Float, space.Int or space.Choice.'
      )
  return list(found)


def check(cfg: config.Config, entries: Sequence[space.Entry]) -> None:
  """Checks a space against the configuration that its points change.

  Each end and each value of an entry is tried, with the others as the
  configuration has them; what only some combinations refuse is found by the
  trial that draws them.

  Raises:
    UserError: naming the first entry that cannot be.
  """
  known: dict[str, space.Entry] = {}
  for entry in entries:
    if not isinstance(entry.field, str):
      raise _error(entry, f'the field is {entry.field!r}; it must be its name')
    if entry.field in known:
      raise _error(entry, 'the field is there twice; each has one range')
    _check_tunable(entry)
    hint = config_tree.check_field(cfg, entry.field)
    if isinstance(entry, space.Choice):
      _check_choice(entry)
    else:
      _check_range(entry, hint)
    if entry.when is not None:
      _check_condition(entry, known)
    known[entry.field] = entry
    _check_values(cfg, entry, known)
  _check_read(cfg, entries)


def _error(entry: space.Entry, what: str) -> errors.UserError:
  return errors.UserError(f'get_space(): {entry.field}: {what}.')


def _check_tunable(entry: space.Entry) -> None:
  for start, why in _FIXED:
    whole = not start.endswith('.')
    if entry.field == start or (not whole and entry.field.startswith(start)):
      raise _error(entry, f'it cannot be tuned: {why}')


def _check_range(entry: space.Float | space.Int, hint: Any) -> None:
  is_int = isinstance(entry, space.Int)
  if hint not in ((int, float) if is_int else (float,)):
    name = getattr(hint, '__name__', str(hint))
    advice = 'space.Int' if hint is int else 'space.Choice'
    raise _error(
        entry,
        f'a space.{type(entry).__name__} for a field of type {name}; use '
        f'{advice}',
    )
  kind = 'whole number' if is_int else 'finite number'
  for name in ('low', 'high', 'step'):
    value = getattr(entry, name)
    is_number = isinstance(value, int if is_int else (int, float))
    if isinstance(value, bool) or not is_number or not math.isfinite(value):
      raise _error(entry, f'{name} is {value!r}; it must be a {kind}')
  if entry.low >= entry.high:
    raise _error(
        entry,
        f'the range from {entry.low!r} to {entry.high!r} is empty; low must be '
        'below high',
    )
  least = 1 if is_int else 0
  if not least <= entry.step <= entry.high - entry.low:
    raise _error(
        entry,
        f'step is {entry.step!r}; it must be from {least} to the width of the '
        f'range, {entry.high - entry.low!r}',
    )
  if entry.log and (entry.low <= 0 or entry.step > least):
    raise _error(
        entry,
        f'log=True with low={entry.low!r} and step={entry.step!r}; low must be '
        'above 0, and there can be no step',
    )


def _check_choice(entry: space.Choice) -> None:
  values = entry.values
  if not isinstance(values, (tuple, list)) or len(values) < 2:
    raise _error(entry, f'values is {values!r}; give two or more in brackets')
  if len({label(value) for value in values}) < len(values):
    raise _error(entry, f'values is {values!r}; each may be there once')


def _check_condition(
    entry: space.Entry, known: Mapping[str, space.Entry]
) -> None:
  when: Any = entry.when
  if not isinstance(when, tuple) or len(when) != 2:
    raise _error(entry, f'when is {when!r}; it must be (FIELD, VALUE)')
  field, value = when
  if field not in known:
    listed = ', '.join(known) or 'none'
    raise _error(
        entry,
        f'when names {field!r}, which no earlier entry tunes; before it '
        f'there are: {listed}',
    )
  parent = known[field]
  if not isinstance(parent, space.Choice) or value not in parent.values:
    rule = 'a value of a space.Choice'
    if isinstance(parent, space.Choice):
      rule = f'one of {", ".join(map(repr, parent.values))}'
    raise _error(entry, f'when wants {field} = {value!r}; it must be {rule}')


def _check_values(
    cfg: config.Config, entry: space.Entry, known: Mapping[str, space.Entry]
) -> None:
  """Tries ends and values of an entry where its condition holds."""
  given: dict[str, Any] = {}
  one = entry
  while one.when is not None:
    given[one.when[0]] = one.when[1]
    one = known[one.when[0]]
  for value in edges(entry):
    try:
      config_tree.with_values(cfg, given | {entry.field: value})
    except errors.UserError as error:
      where = f' where {shown(given)}' if given else ''
      raise errors.UserError(
          f'get_space(): {entry.field} cannot be {value!r}{where}: {error}'
      ) from error


def _check_read(cfg: config.Config, entries: Sequence[space.Entry]) -> None:
  """Refuses what nothing reads, with the file's values and with all raised."""
  raised = {x.field: edges(x)[-1] for x in entries if x.when is None}
  for entry in entries:
    if entry.when is not None:
      continue  # its condition is there for a reason
    value = raised[entry.field]
    if value == config_tree.fields(cfg)[entry.field]:
      value = edges(entry)[0]
    readers = []
    for point in ({}, raised):
      with contextlib.suppress(errors.UserError):
        made = config_tree.with_values(cfg, point | {entry.field: value})
        readers.append(unread.fields(made).get(entry.field))
    if all(readers):
      raise _error(
          entry,
          'nothing reads it under the settings of the experiment; '
          f'{readers[0]} would',
      )


def edges(entry: space.Entry) -> list[Any]:
  """Values of an entry that are tried: all of a choice, else both ends."""
  if isinstance(entry, space.Choice):
    return list(entry.values)
  return [entry.low, entry.high]


def label(value: Any) -> str:
  """A value of a choice as text, which storages and tables take."""
  return repr(value)


def holds(entry: space.Entry, point: Point) -> bool:
  """Whether the condition of an entry holds among the values before it."""
  if entry.when is None:
    return True
  field, value = entry.when
  return field in point and point[field] == value


def rounded(entry: space.Float, value: float) -> float:
  """A drawn number as it is tried: three digits, within the range."""
  if entry.step:
    return float(f'{value:.12g}')
  return min(max(float(f'{value:.{_DIGITS}g}'), entry.low), entry.high)


def own_point(
    cfg: config.Config, entries: Sequence[space.Entry]
) -> dict[str, Any] | None:
  """The point that the configuration itself is; None if it is outside."""
  values = config_tree.fields(cfg)
  point: dict[str, Any] = {}
  for entry in entries:
    if not holds(entry, point):
      continue
    value = values[entry.field]
    if not _contains(entry, value):
      return None
    point[entry.field] = value
  return point


def _contains(entry: space.Entry, value: Any) -> bool:
  if isinstance(entry, space.Choice):
    return value in entry.values
  if not entry.low <= value <= entry.high:
    return False
  if isinstance(entry, space.Int):
    return (value - entry.low) % entry.step == 0
  if not entry.step:
    return True
  steps = (value - entry.low) / entry.step
  return math.isclose(steps, round(steps), abs_tol=1e-9)


def as_data(entries: Sequence[space.Entry]) -> list[dict[str, Any]]:
  """Entries as JSON has them, for comparing and for the report."""
  found = []
  for entry in entries:
    row = {'kind': type(entry).__name__.lower()} | dataclasses.asdict(entry)
    if isinstance(entry, space.Choice):
      row['values'] = [label(value) for value in entry.values]
    if entry.when is not None:
      row['when'] = [entry.when[0], label(entry.when[1])]
    found.append(row)
  return found


def shown(point: Point) -> str:
  """'a = 1, b = 2' of a point."""
  return ', '.join(f'{name} = {value!r}' for name, value in point.items())


def check_selection(cfg: config.Config) -> None:
  """Raises UserError where trials would not be chosen on validation."""
  if cfg.data.validation != 'keep_out':
    raise errors.UserError(
        f'config.data.validation is {cfg.data.validation!r}: there would be '
        'nothing to choose by but the test sets. tune needs --config.data.'
        'validation=keep_out.'
    )
  for field in ('sweep.values', 'comparison.variants'):
    section, name = field.split('.')
    value = getattr(getattr(cfg, section), name)
    checks.check(not value, field, value, 'empty for tune')
