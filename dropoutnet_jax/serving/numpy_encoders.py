# SPDX-License-Identifier: Apache-2.0
"""Raw rows of users and items as what the towers of an export read.

A copy of this file lies in every export, beside `numpy_runtime.py`, which calls
it, and `numpy_values.py`, which reads the values; it needs NumPy, SciPy and
nothing else of the package. A row is a dict: of strings or whole numbers for
categories, numbers, lists of numbers for vectors, strings for texts, lists of
strings for sequences, and lists or dicts of weights for tags. Where the package
takes a string for a list, or a date for a number, so does this. What training
did not know is ignored, what a row lacks is missing.

Features of kind cross, lookup and expression, tags in pieces and tags without
names are left to the package; the manifest says which side has some.
"""

from collections.abc import Callable, Mapping, Sequence
import hashlib
import json
import os
import re
from typing import Any

import numpy as np
import scipy.sparse

_WHOLE = re.compile(r'\d{1,18}', re.ASCII)
_CLIP = 5.0  # standard deviations
_SMALLEST = 1e-5  # standardised columns; what is set to 0
_NOISE = 1e-4  # of a reduced row
_IDS = {'kind': 'strings', 'width': 1}  # whose column training does not keep
Row = Mapping[str, Any]
# `numpy_values.read`, with the separators of the run.
Read = Callable[[Mapping[str, Any], Mapping[str, Any], Any], Any]


def refusals(features: Sequence[Mapping[str, Any]]) -> list[str]:
  """Features of a side that cannot be read here, by name and why."""
  found = []
  for fitted in features:
    kind, feature = fitted['feature']['kind'], fitted['feature']
    why = ''
    if kind in ('cross', 'lookup', 'expression'):
      why = f'kind {kind}'
    elif feature['pieces'] != 'whole':
      why = f'pieces {feature["pieces"]}'
    elif kind in ('tags', 'text'):
      encoder, tokens = fitted['encoder'], fitted['tokens']
      nameless = encoder and encoder['names'] is None
      if nameless or (tokens and not tokens['has_names']):
        why = 'tags without names'
    if why:
      found.append(f'{feature["column"]} ({why})')
  return found


def load(folder: str, read: Read) -> 'Encoders':
  """The encoders of the folder of an export, and what reads raw values."""
  return Encoders(folder, read)


class Encoders:
  """Fitted encoders of both sides, content alone."""

  def __init__(self, folder: str, read: Read):
    self._read = read
    with open(os.path.join(folder, 'features.json'), encoding='utf-8') as file:
      sides = json.load(file)['sides']
    self._sides = {side: sides[side] for side in ('user', 'item')}
    self._parts = {}
    for side, about in self._sides.items():
      with np.load(os.path.join(folder, f'features_{side}.npz')) as arrays:
        self._parts[side] = [
            {
                name: fitted[name] and _unpack(fitted[name], arrays)
                for name in ('encoder', 'scale', 'tokens')
            }
            for fitted in about['features']
        ]

  def encode(
      self, side: str, rows: Sequence[Row]
  ) -> tuple[dict[str, np.ndarray], Any]:
    """Inputs of the tower [N, ...], and sparse content csr_array [N, T].

    Raises:
      ValueError: the side has a feature that only the package can read, or a
        row has a value that the package refuses.
    """
    about = self._sides[side]
    bad = refusals(about['features'])
    if bad:
      raise ValueError(
          f'{side}s have features that this file cannot read: '
          f'{", ".join(bad)}. Encode such rows with dropoutnet_jax.'
      )
    is_row = about['scaling'] == 'row'
    dense = [np.zeros((len(rows), 0), np.float32)]
    sparse, ids, weights = [], [], []
    for fitted, parts in zip(about['features'], self._parts[side]):
      feature = fitted['feature']
      values = self._values(side, feature, rows)
      if fitted['type']:
        encode = _ENCODERS[fitted['type']]
        block, own = encode(feature, parts['encoder'], values)
        block = block.astype(np.float32)
        if is_row:
          block = _unit(block)
        elif parts['scale']:
          block = _standard(block, **parts['scale'])
        dense.append(block)
        sparse.append(own)
      if parts['tokens']:
        own_ids, own_weights = _tokens(feature, parts['tokens'], values)
        ids.append(own_ids)
        weights.append(own_weights)
    joined = np.concatenate(dense, axis=1)
    if is_row:
      joined = _unit(joined) * max(joined.shape[1], 1) ** 0.5
    inputs = {'content': joined.astype(np.float32)}
    if ids:
      inputs['content_ids'] = np.concatenate(ids, axis=1)
      inputs['content_weights'] = np.concatenate(weights, axis=1)
    empty = scipy.sparse.csr_array((len(rows), 0), dtype=np.float32)
    whole = scipy.sparse.hstack([empty, *sparse], format='csr')
    return inputs, _unit_rows(scipy.sparse.csr_array(whole, dtype=np.float32))

  def _values(
      self, side: str, feature: Mapping[str, Any], rows: Sequence[Row]
  ) -> list[Any]:
    """What the rows have for a feature."""
    column = self._sides[side]['columns'].get(feature['column'], _IDS)
    found = []
    for number, row in enumerate(rows):
      if not isinstance(row, Mapping):
        raise ValueError(f'Row {number} is no dict of columns: {row!r:.60}')
      try:
        value = row.get(feature['column'])
        found.append(self._read(feature, column, value))
      except ValueError as error:
        raise ValueError(f'Row {number}, {error}') from None
    return found


def _unpack(
    described: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  """Fields of an encoder, arrays among them, and numbers of what it knows."""
  fields: dict[str, Any] = {}
  for name, value in described.items():
    if isinstance(value, dict):
      array = arrays[value['array']]
      value = json.loads(array.tobytes()) if value['text'] else array
    fields[name] = value
  known = [fields.get(name) for name in ('values', 'names', 'vocabulary')]
  for names in known:
    if names is not None:
      fields['number'] = {name: n for n, name in enumerate(names)}
  return fields


def _hash(value: str, buckets: int) -> int:
  text = value.encode('utf-8', 'surrogatepass')
  digest = hashlib.blake2b(text, digest_size=8).digest()
  return 1 + int.from_bytes(digest, 'little') % buckets


def _bucket(value: str, buckets: int) -> int:
  number = int(value) if _WHOLE.fullmatch(value) else buckets
  return number + 1 if number < buckets else 0


def _one_hot(
    ids: Sequence[int], known: Sequence[int], about: Mapping[str, Any]
) -> tuple[np.ndarray, Any]:
  """A column for each known id, and those of them that are dense."""
  place = {one: n for n, one in enumerate(known)}
  found = [(row, place[one]) for row, one in enumerate(ids) if one in place]
  row, column = np.array(found, np.int64).reshape(-1, 2).T
  matrix = scipy.sparse.csr_array(
      (np.ones(len(row), np.float32), (row, column)),
      shape=(len(ids), len(known)),
  )
  dense = matrix[:, list(about['dense_values'])].toarray()
  return dense, matrix if about['in_sparse'] else matrix[:, :0]


def _category(
    feature: Mapping[str, Any], about: dict[str, Any], values: list[Any]
) -> tuple[np.ndarray, Any]:
  number = about['number']
  ids = [number.get(value, -1) for value in values]
  return _one_hot(ids, range(len(number)), about)


def _buckets(
    feature: Mapping[str, Any], about: dict[str, Any], values: list[Any]
) -> tuple[np.ndarray, Any]:
  find = _hash if about['is_hashed'] else _bucket
  size = about['num_buckets']
  ids = [0 if value is None else find(value, size) for value in values]
  return _one_hot(ids, about['known'], about)


def _interval_ids(values: list[Any], edges: Sequence[float]) -> list[int]:
  cut = np.asarray(edges, np.float32)
  return [
      0
      if value is None or np.isnan(value[0])
      else 1 + int(np.searchsorted(cut, np.float32(value[0]), side='right'))
      for value in values
  ]


def _intervals(
    feature: Mapping[str, Any], about: dict[str, Any], values: list[Any]
) -> tuple[np.ndarray, Any]:
  return _one_hot(_interval_ids(values, about['edges']), about['known'], about)


def _table(values: list[Any], width: int, column: str) -> np.ndarray:
  """Numbers [N, D], NaN where missing."""
  found = np.full((len(values), width), np.nan)
  for row, value in enumerate(values):
    if value is not None:
      if len(value) != width:
        raise ValueError(f'{column} has {len(value)} numbers, not {width}.')
      found[row] = np.float32(value)
  return found


def _vector(
    feature: Mapping[str, Any], about: dict[str, Any], values: list[Any]
) -> tuple[np.ndarray, Any]:
  table = _table(values, about['width'], about['column'])
  return np.nan_to_num(table), scipy.sparse.csr_array((len(values), 0))


def _numbers(
    feature: Mapping[str, Any], about: dict[str, Any], values: list[Any]
) -> tuple[np.ndarray, Any]:
  has = np.array(about['has_presence'], bool)
  value = _table(values, len(has), about['column'])
  present, transform = ~np.isnan(value), about['transform']
  if transform in ('min_max', 'quantile'):
    curves = zip(value.T, about['knots'], about['heights'])
    value = np.stack([np.interp(*curve) for curve in curves], axis=1)
  elif transform != 'none':
    value = np.log1p(value) if transform == 'log1p' else value
    std = np.array(about['std'])
    scale = np.where(std > 0, 1 / np.where(std > 0, std, 1), 0)
    value = np.clip((value - np.array(about['mean'])) * scale, -_CLIP, _CLIP)
  parts = [np.where(present, value, 0), present[:, has]]
  return np.concatenate(parts, axis=1), scipy.sparse.csr_array((len(value), 0))


def _counts(weight: np.ndarray, counts: str) -> np.ndarray:
  if counts == 'log':
    return np.log1p(weight)
  return np.ones_like(weight) if counts == 'binary' else weight


def _tags(
    feature: Mapping[str, Any], about: dict[str, Any], values: list[Any]
) -> tuple[np.ndarray, Any]:
  number = about['number']
  found: dict[tuple[int, int], float] = {}
  for number_of_row, value in enumerate(values):
    if isinstance(value, list):  # a sequence: the share of each value
      value = [(name, 1 / len(value)) for name in value]
    else:
      value = [*value.items()]
    for name, weight in value:
      if feature['hash_buckets']:
        name = f'#{_hash(name, feature["hash_buckets"])}'
      elif feature['num_buckets']:
        name = str(_bucket(name, feature['num_buckets']) - 1)
      if name in number:
        place = number_of_row, number[name]
        found[place] = found.get(place, 0.0) + weight
  row, column = np.array([*found], np.int64).reshape(-1, 2).T
  data = np.array([*found.values()], np.float32)
  data = _counts(data, about['counts']) * about['weight'][column]
  shape = len(values), len(number)
  matrix = scipy.sparse.csr_array((data, (row, column)), shape=shape)
  unit = _unit_rows(matrix)
  block = (unit if about['unit'] else matrix)[:, about['reduced']]
  if about['projection'] is None:
    dense = block.toarray()
  else:
    dense = block @ about['projection']
    if about['unit']:
      dense[np.linalg.norm(dense, axis=1) < _NOISE] = 0
  return dense, unit if about['in_sparse'] else unit[:, :0]


def _tokens(
    feature: Mapping[str, Any], about: dict[str, Any], values: list[Any]
) -> tuple[np.ndarray, np.ndarray]:
  """Ids int32 [N, L] and weights float32 [N, L]."""
  ids = np.zeros((len(values), about['length']), np.int32)
  weights = np.zeros((len(values), about['length']), np.float32)
  if feature['kind'] == 'numeric':
    cut = _interval_ids(values, about['edges'])
    values = [str(one) if one else None for one in cut]

  def find(name: str) -> int:
    if about['hash_buckets']:
      return _hash(name, about['hash_buckets'])
    if about['num_buckets']:
      return _bucket(name, about['num_buckets'])
    return 1 + about['number'].get(name, -1)

  for row, value in enumerate(values):
    if isinstance(value, Mapping):
      total: dict[int, float] = {}
      for name, weight in value.items():
        total[find(name)] = total.get(find(name), 0.0) + weight
      total.pop(0, None)
      own = np.array([*total], np.int64)
      weight = _counts(np.array([*total.values()]), about['counts'])
      weight = weight * about['weight'][own]
      order = np.lexsort((own, -weight))[: about['length']]
      order = order[weight[order] > 0]
      own, weight = own[order], weight[order]
    else:
      names = value if isinstance(value, list) else [value]
      known = [find(name) for name in names if name is not None]
      own = np.array([n for n in known if n][-about['length'] :], np.int64)
      weight = np.ones(len(own))
    ids[row, : len(own)], weights[row, : len(own)] = own, weight
  return ids, weights


def _standard(
    dense: np.ndarray, mean: np.ndarray, std: np.ndarray
) -> np.ndarray:
  """The published preprocessing; rows of zeros stay zero."""
  some = np.any(dense, axis=1, keepdims=True)
  value = np.clip((dense - mean) / std, -_CLIP, _CLIP)
  return np.where(some & (np.abs(value) >= _SMALLEST), value, 0)


def _unit(dense: np.ndarray) -> np.ndarray:
  norm = np.linalg.norm(dense.astype(np.float64), axis=1, keepdims=True)
  return (dense / np.where(norm > 0, norm, 1)).astype(np.float32)


def _unit_rows(matrix: Any) -> Any:
  """Rows of a csr_array scaled to norm 1; empty ones stay empty."""
  row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
  square = np.bincount(row, matrix.data.astype(float) ** 2, matrix.shape[0])
  data = (matrix.data / np.sqrt(square)[row]).astype(np.float32)
  parts = (data, matrix.indices, matrix.indptr)
  return scipy.sparse.csr_array(parts, shape=matrix.shape)


_ENCODERS = {
    'CategoryEncoder': _category,
    'BucketEncoder': _buckets,
    'IntervalEncoder': _intervals,
    'VectorEncoder': _vector,
    'NumericEncoder': _numbers,
    'TagEncoder': _tags,
}
