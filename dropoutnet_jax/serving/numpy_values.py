# SPDX-License-Identifier: Apache-2.0
"""Raw values of rows, read and refused as the package reads and refuses them.

A copy of this file lies in every export, beside `numpy_runtime.py` and
`numpy_encoders.py`, which call it; it needs NumPy and SciPy alone. What a
column held in training decides: a string is split into tags where the column
holds tags, and is one category where it holds strings. Unlike a table of the
package, one row may have a string and the next a list.
"""

from collections.abc import Iterable, Mapping, Sequence
import datetime
import decimal
import math
import re
from typing import Any
import unicodedata

import numpy as np
import scipy.sparse

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
# As `arrow_values` has them.
_EXPONENT = r'([eE][-+]?\d+)?'
_DECIMAL = re.compile(
    rf'\s*([-+]?(0|[1-9]\d*)(\.\d*)?{_EXPONENT}|[-+]?\.\d+{_EXPONENT})\s*',
    re.ASCII,
)
_MISSING = 'NaN nan NA N/A n/a NULL null None none -'.split()
_TRUTH = {'false': 0.0, 'true': 1.0}
_WHOLE_LIMIT = 2**24  # float32 rounds whole numbers from here on
_INTEGERS = range(-(2**63), 2**63)
_LARGEST = float(np.finfo(np.float32).max)
_HEAVIEST = 1e30  # weight of a tag with an embedding
_LISTS = (list, tuple, set, frozenset, np.ndarray)


def read(
    feature: Mapping[str, Any],
    column: Mapping[str, Any],
    value: Any,
    separators: Sequence[str],
) -> Any:
  """A raw value as the kind of the feature has it.

  Args:
    feature: its configuration.
    column: what its column held in training: kind, and width of vectors.
    value: of a row; None or NaN where it is missing.
    separators: of a string of tags, numbers or a sequence; and of a tag and its
      weight, '' for none.

  Returns:
    A str of a category and numbers float64 [D], each None where missing; a list
    of str of a sequence; a dict of weights of tags and texts.

  Raises:
    ValueError: a value that the package refuses.
  """
  value, kind = _plain(value), feature['kind']
  try:
    _check(value)
    if kind == 'category':
      return _category(value, column['kind'])
    if column['kind'] == 'sequences':
      names = _sequence(value, separators[0])
      return names if kind == 'sequence' else _weights((n, 1.0) for n in names)
    if kind == 'tags':
      return _checked(feature, _tags(value, *separators))
    if kind == 'text':
      return _words(value)
    if column['kind'] == 'vectors':
      found = _vector(value, column['width'], separators[0])
    else:
      found = None if value is None else np.array([_number(value)])
    if found is not None and (np.abs(found) > _LARGEST).any():
      raise ValueError('a number is infinite or beyond float32')
    if feature['transform'] == 'log1p' and found is not None:
      if (found.astype(np.float32) <= -1).any():
        raise ValueError('a number <= -1 has no logarithm of 1 + it')
    return found
  except ValueError as error:
    raise ValueError(f'{feature["column"]}: {error}.') from None


def history(
    histories: Sequence[Sequence[Any]], number_of: Mapping[Any, int]
) -> Any:
  """Histories as csr_array [N, M] of 1s, by the numbers of M ids.

  Raises:
    ValueError: a string, whose letters would be ids, or what is no id.
  """
  pairs = set()
  for row, met in enumerate(histories):
    if isinstance(met, (str, bytes)) or not isinstance(met, Iterable):
      raise ValueError(f'History {row} is {_shown(met)}, which is no list.')
    for one in met:
      if isinstance(one, bool) or not isinstance(one, (str, int, np.integer)):
        raise ValueError(f'History {row} has {_shown(one)}, which is no id.')
      if one in number_of:
        pairs.add((row, number_of[one]))
  where = np.array(sorted(pairs), np.int64).reshape(-1, 2).T
  return scipy.sparse.csr_array(
      (np.ones(len(pairs), np.float32), tuple(where)),
      shape=(len(histories), len(number_of)),
  )


def _plain(value: Any) -> Any:
  """Scalars of NumPy as those of Python, and None for NaN and NaT."""
  if isinstance(value, np.datetime64):
    value = value.astype('datetime64[us]')
  if isinstance(value, np.generic):
    value = value.item()
  scalars = (float, decimal.Decimal, datetime.datetime)
  return None if isinstance(value, scalars) and value != value else value


def _check(value: Any) -> None:
  """Refuses tables, and halves of pairs, which are no text in UTF-8."""
  if isinstance(value, np.ndarray) and value.ndim != 1:
    raise ValueError(f'{_shown(value)} is no value and no list of values')
  several = isinstance(value, (*_LISTS, Mapping))
  for one in value if several else [value]:
    try:
      if isinstance(one, str):
        one.encode()
    except UnicodeEncodeError:
      raise _refuse(one, 'text') from None


def _refuse(value: Any, wanted: str) -> ValueError:
  return ValueError(f'{_shown(value)} is no {wanted}')


def _shown(value: Any) -> str:
  text = ascii(value)
  return text if len(text) <= 60 else f'{text[:60]} ...'


def _number(value: Any) -> float:
  """A number, a truth value, a date as days since 1970, or a string of one."""
  if isinstance(value, str):
    if _DECIMAL.fullmatch(value):
      return float(value)
    if value in _MISSING:
      return math.nan
    if value.lower() in _TRUTH:
      return _TRUTH[value.lower()]
  elif isinstance(value, datetime.datetime):
    zone = value.tzinfo or datetime.timezone.utc
    seconds = value.replace(tzinfo=zone).timestamp()
    return math.floor(seconds) / 86_400
  elif isinstance(value, datetime.date):
    return float(value.toordinal() - datetime.date(1970, 1, 1).toordinal())
  elif isinstance(value, (bool, float, decimal.Decimal)):
    return float(value)
  elif isinstance(value, int) and value in _INTEGERS:
    return float(value)
  raise _refuse(value, 'number')


def _category(value: Any, kind: str) -> str | None:
  """A string, or a whole number as one."""
  if value is None or (isinstance(value, str) and kind == 'strings'):
    return value
  if isinstance(value, int) and value in _INTEGERS:
    return str(int(value))
  if isinstance(value, datetime.date) and kind == 'strings':
    raise _refuse(value, 'string')
  number = _number(value)
  if math.isnan(number):
    return None
  rounded = float(np.float32(number)) if abs(number) < _WHOLE_LIMIT else 0.5
  if abs(rounded) >= _WHOLE_LIMIT or rounded != int(rounded):
    wanted = 'string and no whole number'
    if math.isfinite(number) and number == int(number):
      wanted += '; other than integers they have to be below 2**24'
    raise _refuse(value, wanted)
  return str(int(rounded))


def _listed(value: Any, separator: str, wanted: str) -> list[Any]:
  """Strings or numbers, all of one kind; those that are missing are None.

  Raises:
    ValueError: it is neither a list nor a string, which is split.
  """
  if isinstance(value, str):
    return [*value.split(separator)]
  if value is None:
    return []
  if not isinstance(value, _LISTS):
    raise _refuse(value, wanted)
  found = [_plain(one) for one in value]
  known = [one for one in found if one is not None]
  is_number = lambda x: isinstance(x, (int, float)) and not isinstance(x, bool)
  if not all(isinstance(x, str) for x in known) and not all(
      is_number(x) and (isinstance(x, float) or x in _INTEGERS) for x in known
  ):
    raise _refuse(value, wanted)
  return found


def _names(value: Any, separator: str, wanted: str) -> list[str]:
  """Strings of a list of strings or whole numbers, without missing ones."""
  found = _listed(value, separator, wanted)
  known = [one for one in found if one is not None]
  if any(isinstance(one, float) for one in known):
    raise _refuse(value, wanted)
  return [str(one) for one in known]


def _sequence(value: Any, separator: str) -> list[str]:
  names = _names(value, separator, 'list of strings or whole numbers')
  stripped = [name.strip() for name in names]
  return [name for name in stripped if name]


def _tags(value: Any, separator: str, weight_separator: str) -> dict:
  """Weights of a list, of a string that is split, or of a dict."""
  if isinstance(value, Mapping):
    pairs = []
    for name, given in value.items():
      weight = 0.0 if _plain(given) is None else _plain(given)
      is_number = isinstance(weight, (int, float))
      is_number = is_number and not isinstance(weight, bool)
      if not isinstance(name, str) or not is_number:
        raise _refuse(value, 'dict of strings and their weights')
      pairs.append((name, float(weight)))
    return _weights(pairs)
  wanted = 'list of strings or whole numbers, and no dict of weights'
  names = _names(value, separator, wanted)
  if not weight_separator:
    return _weights((name, 1.0) for name in names)
  pairs = []
  for name in names:
    own, found, weight = name.rpartition(weight_separator)
    pairs.append((own, _number(weight)) if found else (name, 1.0))
  return _weights(pairs)


def _weights(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
  """Sums by name, without blank names and weights of 0."""
  total: dict[str, float] = {}
  for name, weight in pairs:
    name = name.strip()
    if name:
      total[name] = total.get(name, 0.0) + weight
  return {name: weight for name, weight in total.items() if weight}


def _checked(feature: Mapping[str, Any], weights: dict) -> dict:
  """The weights, if the feature can use them."""
  for name, weight in weights.items():
    lowest = 0 if feature['counts'] == 'log' else -_LARGEST
    highest = _LARGEST
    if feature['embedding']:
      lowest, highest = 0, _HEAVIEST
    if not lowest <= weight <= highest:
      raise ValueError(
          f'the weight {weight:g} of {name[:60]!r} is none between '
          f'{lowest:g} and {highest:g}'
      )
  return weights


def _words(value: Any) -> dict[str, float]:
  """Counts of the words of a text."""
  if value is None:
    return {}
  if not isinstance(value, str):
    raise _refuse(value, 'text')
  composed = unicodedata.normalize('NFC', value.replace('\u2019', "'"))
  return _weights((word, 1.0) for word in _WORD.findall(composed.lower()))


def _vector(value: Any, width: int, separator: str) -> np.ndarray | None:
  """Numbers [D], NaN where missing; None for none."""
  found = _listed(value, separator, 'list of numbers')
  if not any(one is not None for one in found):
    return None
  numbers = [math.nan if one is None else _number(one) for one in found]
  if len(numbers) != width:
    raise ValueError(f'{len(numbers)} numbers, not {width}')
  return np.array(numbers)
