# SPDX-License-Identifier: Apache-2.0
"""A model that `run.py export` wrote, on NumPy and SciPy alone.

A copy of this file lies in every export, and needs nothing else of the package:

  import numpy_runtime
  model = numpy_runtime.load('.')
  someone = model.embed('user', [{'age': 31}], histories=[['i4', 'i9']])
  scores = model.score(someone, model.items)  # [1, I]

`model.users` and `model.items` are the embeddings of the run. Others come from
raw rows (dicts, read by `numpy_encoders.py` and `numpy_values.py` beside this
file), from encoded arrays as the manifest names them, and from histories (worth
what `numpy_histories.py` says): of a user ids of items, of an item ids of
users, of the run.
"""

from collections.abc import Mapping, Sequence
import functools
import importlib.util
import json
import os
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

_TYPES = {'BOOL': np.bool_, 'U8': np.uint8, 'I32': np.int32, 'I64': np.int64}
_TYPES |= {'F32': np.float32, 'F64': np.float64}
_CLIP = 5.0  # standard deviations
_OTHER = {'user': 'item', 'item': 'user'}
Arrays = dict[str, np.ndarray]


class Embeddings(NamedTuple):
  """Embeddings of N users or items.

  Attributes:
    ids: N of the run; None for others.
    dense: float32 [N, R].
    sparse: csr_array float32 [N, T]; None without a sparse part.
  """

  ids: list[Any] | None
  dense: np.ndarray
  sparse: Any


def load(folder: str) -> 'Model':
  """The model of the folder of an export."""
  return Model(folder)


@functools.cache
def _beside(name: str) -> Any:
  """The module of a file in the folder of this one, wherever that is."""
  path = os.path.join(os.path.dirname(os.path.abspath(__file__)), f'{name}.py')
  spec: Any = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def read_safetensors(path: str) -> Arrays:
  """Named arrays of a file, mapped into memory."""
  data = np.memmap(path, np.uint8, 'r')
  start = 8 + int.from_bytes(data[:8].tobytes(), 'little')
  header = json.loads(data[8:start].tobytes())
  header.pop('__metadata__', None)
  found = {}
  for name, about in header.items():
    begin, end = (start + x for x in about['data_offsets'])
    values: Any = np.frombuffer(data[begin:end], _TYPES[about['dtype']])
    found[name] = values.reshape(about['shape'])
  return found


def sparse_of(arrays: Mapping[str, np.ndarray], name: str) -> Any:
  """csr_array of the arrays NAME/indptr, /indices, /data and /shape."""
  parts = tuple(arrays[f'{name}/{x}'] for x in ('data', 'indices', 'indptr'))
  return scipy.sparse.csr_array(parts, shape=tuple(arrays[f'{name}/shape']))


class Model:
  """An export; `manifest` is what its manifest.json says."""

  def __init__(self, folder: str):
    self._folder = folder
    with open(os.path.join(folder, 'manifest.json'), encoding='utf-8') as file:
      self.manifest = json.load(file)
    self._weights = self._arrays_of('towers')
    self._arrays = self._arrays_of('model')

  def _arrays_of(self, name: str) -> Arrays:
    return read_safetensors(os.path.join(self._folder, f'{name}.safetensors'))

  @functools.cached_property
  def users(self) -> Embeddings:
    """Of all users of the run."""
    return self._read('user')

  @functools.cached_property
  def items(self) -> Embeddings:
    """Of all items of the run."""
    return self._read('item')

  def _read(self, side: str) -> Embeddings:
    arrays = self._arrays_of(f'{side}s')
    is_text = 'ids_json' in arrays  # strings are no type of the format
    ids = json.loads(arrays['ids_json'].tobytes()) if is_text else arrays['ids']
    has_sparse = bool(self.manifest['sparse'])
    sparse = sparse_of(arrays, 'sparse') if has_sparse else None
    return Embeddings(list(ids), arrays['dense'], sparse)

  def embed(
      self,
      side: str,
      rows: Sequence[Mapping[str, Any]] | None = None,
      histories: Sequence[Sequence[Any]] | None = None,
  ) -> Embeddings:
    """Embeddings of users or items, whether the run knows them or not.

    Args:
      side: 'user' or 'item'.
      rows: raw values of each by the name of the column; None where nothing is
        known. What is missing is left out.
      histories: ids of the other side that each has met, of which those of the
        run count, as those of a new row; None for none.

    Raises:
      ValueError: there is no such side, or a value that the package refuses.
    """
    if side not in _OTHER:
      raise ValueError(f"There is no side {side!r}, only 'user' and 'item'.")
    number = len(histories or ()) if rows is None else len(rows)
    if histories is not None and len(histories) != number:
      raise ValueError(f'{number} rows, but {len(histories)} histories.')
    inputs = {
        name: np.zeros((number, *about['shape'][1:]), about['dtype'])
        for name, about in self.manifest['sides'][side]['inputs'].items()
    }
    width = self.manifest['sides'][side]['sparse_width']
    sparse = scipy.sparse.csr_array((number, width), dtype=np.float32)
    if rows is not None:
      content, sparse = self._encoders.encode(side, rows)
      inputs |= content
    met = self.history(side, histories or [()] * number)
    return self.embed_encoded(side, self.told(side, inputs, met), sparse, met)

  def embed_encoded(
      self, side: str, inputs: Arrays, sparse: Any = None, met: Any = None
  ) -> Embeddings:
    """Embeddings of encoded rows.

    Args:
      side: 'user' or 'item'.
      inputs: arrays [N, ...], as manifest['sides'][side]['inputs'] names them.
      sparse: of items, csr_array [N, T]: sparse content, rows of norm 1 or 0.
      met: csr_array [N, M] of 1s: of users the items of their histories, of
        items the users who met them; None for nothing.
    """
    tower, about = self.tower(side, inputs), self.manifest['sparse']
    if not about:
      return Embeddings(None, tower, None)
    number = self.manifest['sides'][_OTHER[side]]['rows']
    if met is None:
      met = scipy.sparse.csr_array((len(tower), number), dtype=np.float32)
    if side == 'item':
      scale = self._scale(sparse)
      dense = [scale * self._correction(sparse), *self._liked(sparse, met)]
      sparse = sparse.multiply(scale * self._lengths(sparse)[:, None])
      own = scipy.sparse.csr_array((len(tower), about['own_columns']))
    else:
      items = sparse_of(self._arrays, 'item_content')
      factors = self._factors('user', met)
      if about['expected']:
        met = met + _beside('numpy_histories').expected(
            inputs['content'],
            np.diff(met.indptr),
            self._arrays['expected/weights'],
            self._arrays['expected/bias'],
            **about['expected'],
        )
      taken = met @ self._item_dense
      taken[:, : about['second_width']] *= -1
      tower = about['tower_weight'] * tower
      dense = [-taken / about['divisor'], *factors]
      longer = met.multiply(self._lengths(items)[None, :]).tocsr()
      sparse = (longer @ items) / about['divisor']
      own = longer[:, : about['own_columns']]
    # After the content, a column of each item of the run: none of new ones.
    sparse = scipy.sparse.hstack([sparse, own], format='csr', dtype=np.float32)
    joined = np.hstack([*dense, tower]).astype(np.float32)
    return Embeddings(None, joined, sparse)

  def _factors(self, side: str, met: Any) -> list[np.ndarray]:
    """Of those who met others [N, M], where embeddings have any: [N, P]."""
    about = self.manifest['sparse']['teacher']
    if not about:
      return []
    factors = self._arrays[f'teacher/{_OTHER[side]}']
    fold_in = _beside('numpy_histories').fold_in
    return [fold_in(factors, met, **about['fold_in'])]

  def _liked(self, content: Any, met: Any) -> list[np.ndarray]:
    """Of items: factors of likes [N, U], and those that content predicts."""
    found, about = self._factors('item', met), self.manifest['sparse']
    found = [about['teacher']['weight'] * x for x in found]
    if 'predictor' in self._arrays:
      predicted = self._times(content, self._arrays['predictor'])
      unit = _beside('numpy_towers').unit(predicted)
      left = _beside('numpy_histories').left
      share = left(np.diff(met.indptr), about['teacher']['smoothing'])
      unit = about['teacher']['predicted_weight'] * share[:, None] * unit
      found[0] = found[0] + unit
    return found

  def score(self, users: Embeddings, items: Embeddings) -> np.ndarray:
    """Scores float32 [U, I]."""
    scores = users.dense @ items.dense.T
    if users.sparse is None:
      return scores
    return scores + (users.sparse @ items.sparse.T).toarray()

  @functools.cached_property
  def _encoders(self) -> Any:
    """The files beside this one, which raw rows alone need."""
    tables = self.manifest['config']['data']['tables']
    marks = tables['list_separator'], tables['tag_weight_separator']
    read = functools.partial(_beside('numpy_values').read, separators=marks)
    return _beside('numpy_encoders').load(self._folder, read)

  @functools.cached_property
  def _item_dense(self) -> np.ndarray:
    return self._correction(sparse_of(self._arrays, 'item_content'))

  def _lengths(self, content: Any) -> np.ndarray:
    """Lengths [N] of items by how much content they have."""
    about = self.manifest['sparse']
    entries = np.maximum(np.diff(content.indptr), 1)
    return (entries / about['length_mean']) ** about['length_power']

  def _correction(self, content: Any) -> np.ndarray:
    """The items' side of what the sparse part subtracts: [N, F + k]."""
    weights = self._times(content, self._arrays['correction'])
    return np.hstack([*self._second(content), weights])

  def _times(self, content: Any, weights: np.ndarray) -> np.ndarray:
    """All that the ridge sees of items with content [N, T], times weights."""
    size = content.shape[1]
    product = content.multiply(self._lengths(content)[:, None]).tocsr()
    product = product @ weights[:size]
    for second in self._second(content):
      product = product + second @ weights[size:]
    return product

  def _second(self, content: Any) -> list[np.ndarray]:
    """Features of the second kernel, where there is one: [N, F]."""
    if 'second/root' not in self._arrays:
      return []
    predicted = _beside('numpy_towers').unit(
        content @ self._arrays['second/predictor']
    )
    cosine = predicted @ self._arrays['second/landmarks'].T
    kernel = np.square(np.maximum(cosine, 0)) @ self._arrays['second/root']
    return [self._lengths(content)[:, None] * kernel]

  def _scale(self, content: Any) -> np.ndarray:
    """What scores of content of items are multiplied by: [N, 1]."""
    about = self.manifest['sparse']
    if not about['norm_power']:
      return np.ones((content.shape[0], 1), np.float32)
    predicted = content @ self._arrays['second/predictor']
    norm = np.linalg.norm(predicted, axis=1, keepdims=True)
    share = norm / self._arrays['second/usual']
    share = np.maximum(share, about['smallest_norm'])
    return np.where(norm > 0, share, 1) ** -about['norm_power']

  @functools.cached_property
  def _numbers(self) -> dict[str, dict[Any, int]]:
    ids = {side: self._read(side).ids or [] for side in _OTHER}
    return {side: {x: n for n, x in enumerate(ids[side])} for side in ids}

  def history(self, side: str, histories: Sequence[Sequence[Any]]) -> Any:
    """Histories as csr_array [N, M] of 1s; ids that nobody knows are none."""
    number_of = self._numbers[_OTHER[side]]
    return _beside('numpy_values').history(histories, number_of)

  def told(self, side: str, inputs: Arrays, met: Any) -> Arrays:
    """Inputs of rows that met others of the run [N, M], and no one else.

    With 'trust' float32 [N], the weight of what they met.
    """
    inputs, about = dict(inputs), self.manifest['sides'][side]
    present, fold_in = inputs['present'], self.manifest['fold_in']
    if self.manifest['preference'] != 'none':
      factors = self._arrays[f'{side}/met_factors'].astype(np.float64)
      count = met @ np.any(factors != 0, axis=1).astype(np.float64)
      if fold_in:
        total = _beside('numpy_histories').fold_in(factors, met, **fold_in)
        kind = 'preference'
        total *= count[:, None]
      else:
        total, kind = met @ factors, 'history'
      # New rows alone have histories here: the usual one counts as some rows.
      smoothing, found = about['history_smoothing'], count > 0
      total += smoothing * self._arrays[f'{side}/{kind}_mean']
      number = np.where(found, count + smoothing, 1)
      value = total / number[:, None]
      value = np.where(found[:, None], self._scaled(side, kind, value), 0)
      inputs['preference'] = value.astype(np.float32)
      present = present | found
      trust = np.where(found, count / number, 1)
      inputs['trust'] = trust.astype(np.float32)
    if about['counts']:
      number = np.diff(met.indptr)
      counted = _beside('numpy_histories').counted(number, about['counts'])
      columns = inputs['preference_columns'].copy()
      columns[:, columns.shape[1] - counted.shape[1] :] = counted
      inputs['preference_columns'] = columns
      present = present | (number > 0)
    inputs['present'] = present
    return inputs

  def _scaled(self, side: str, kind: str, value: np.ndarray) -> np.ndarray:
    """Preferences [N, P], scaled as those of the run."""
    how = self.manifest['sides'][side]['scaling']
    if how == 'standard':
      mean, scale = (
          self._arrays[f'{side}/{kind}_{x}'] for x in ('mean', 'scale')
      )
      return np.clip((value - mean) / scale, -_CLIP, _CLIP)
    size = value.shape[1] ** 0.5 if how == 'unit' else 1.0
    return (
        value if how == 'none' else _beside('numpy_towers').unit(value) * size
    )

  def tower(self, side: str, inputs: Arrays) -> np.ndarray:
    """What a tower makes of encoded arrays: float32 [N, R].

    With 'trust', the mean of that and of what it makes without preference.
    """
    whole = self._tower(side, inputs)
    if 'trust' not in inputs:
      return whole
    is_told = lambda name: name.startswith(('preference', 'present'))
    bare = {
        name: np.zeros_like(x) if is_told(name) else x
        for name, x in inputs.items()
    }
    trust = inputs['trust'][:, None]
    mean = trust * whole + (1 - trust) * self._tower(side, bare)
    is_unit = self.manifest['sides'][side]['steps'][-1].get('by') == 'unit'
    return _beside('numpy_towers').unit(mean) if is_unit else mean

  def _tower(self, side: str, inputs: Arrays) -> np.ndarray:
    found, steps = dict(inputs), _beside('numpy_towers').STEPS
    for step in self.manifest['sides'][side]['steps']:
      arrays = [found[name] for name in step['of']]
      weights = [self._weights[name] for name in step.get('weights', ())]
      found[step['to']] = steps[step['do']](arrays, weights, step)
    return found['embedding'].astype(np.float32)
