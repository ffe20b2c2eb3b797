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
_GELU = (8 / np.pi) ** 0.5
_SELU = (1.0507009873554805, 1.6732632423543772)
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
    likes = self._teacher_columns(side, met)
    if side == 'item':
      dense = [self._correction(sparse), *likes, tower]
      sparse = sparse.multiply(self._lengths(sparse)[:, None])
      own = scipy.sparse.csr_array((len(tower), about['own_columns']))
    else:
      items = sparse_of(self._arrays, 'item_content')
      taken = met @ self._item_dense
      taken[:, : about['second_width']] *= -1
      towers = about['tower_weight'] * tower
      dense = [-taken / about['divisor'], *likes, towers]
      longer = met.multiply(self._lengths(items)[None, :]).tocsr()
      sparse = (longer @ items) / about['divisor']
      own = longer[:, : about['own_columns']]
    # After the content, a column of each item of the run: none of new ones.
    sparse = scipy.sparse.hstack([sparse, own], format='csr', dtype=np.float32)
    return Embeddings(None, np.hstack(dense).astype(np.float32), sparse)

  def _teacher_columns(self, side: str, met: Any) -> list[np.ndarray]:
    """Factors of those who met others [N, M], where the model has them."""
    about = self.manifest['sparse']['teacher']
    if not about:
      return []
    factors = self._arrays[f'teacher/{_OTHER[side]}'].astype(np.float64)
    found = _beside('numpy_histories').fold_in(factors, met, **about['fold_in'])
    return [found * about['weight'] if side == 'user' else found]

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
    length, size = self._lengths(content)[:, None], content.shape[1]
    weights = self._arrays['correction']
    scaled = content.multiply(length).tocsr()
    if 'second/root' not in self._arrays:
      return scaled @ weights
    predicted = _unit(content @ self._arrays['second/predictor'])
    cosine = predicted @ self._arrays['second/landmarks'].T
    kernel = np.square(np.maximum(cosine, 0)) @ self._arrays['second/root']
    second = length * kernel
    both = scaled @ weights[:size] + second @ weights[size:]
    return np.hstack([second, both])

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
    return value if how == 'none' else _unit(value) * size

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
    return _unit(mean) if is_unit else mean

  def _tower(self, side: str, inputs: Arrays) -> np.ndarray:
    found: Arrays = dict(inputs)
    for step in self.manifest['sides'][side]['steps']:
      arrays = [found[name] for name in step['of']]
      weights = [self._weights[name] for name in step.get('weights', ())]
      found[step['to']] = _STEPS[step['do']](arrays, weights, step)
    return found['embedding'].astype(np.float32)


def _unit(x: np.ndarray) -> np.ndarray:
  norm = np.linalg.norm(x, axis=1, keepdims=True)
  return x / np.where(norm > 0, norm, 1)


def _dense(x: list, weights: list, step: Mapping[str, Any]) -> np.ndarray:
  return x[0] @ weights[0] + (weights[1] if len(weights) > 1 else 0)


def _batch_norm(x: list, weights: list, step: Mapping[str, Any]) -> np.ndarray:
  scale, bias, mean, var = weights
  return (x[0] - mean) / np.sqrt(var + step['epsilon']) * scale + bias


def _layer_norm(x: list, weights: list, step: Mapping[str, Any]) -> np.ndarray:
  gap = x[0] - x[0].mean(axis=1, keepdims=True)
  var = np.mean(gap * gap, axis=1, keepdims=True)
  return gap / np.sqrt(var + step['epsilon']) * weights[0] + weights[1]


def _pool(x: list, weights: list, step: Mapping[str, Any]) -> np.ndarray:
  """Embeddings of tokens, pooled; nothing of a row that has none."""
  columns = slice(*step['columns'])
  weight, emb = x[1][:, columns], weights[0][x[0][:, columns]]
  there = weight > 0
  if step['pooling'] == 'max':
    value = np.where(there[..., None], emb, -np.inf).max(
        axis=1, initial=-np.inf
    )
    return step['scale'] * np.where(there.any(axis=1)[:, None], value, 0)
  if step['pooling'] == 'attention':
    logit = emb @ weights[1] / emb.shape[2] ** 0.5
    logit = np.where(there, logit, -np.inf)
    largest = logit.max(axis=1, initial=-1e30, keepdims=True)
    weight = weight * np.where(there, np.exp(logit - largest), 0)
  total = np.sum(weight[..., None] * emb, axis=1)
  if step['pooling'] != 'sum':
    size = weight.sum(axis=1, keepdims=True)
    total = total / np.where(size > 0, size, 1)
  return step['scale'] * total


_elu: Any = lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
_sigmoid: Any = lambda x: (1 + np.tanh(x / 2)) / 2
_MAPS: dict[str, Any] = {
    'unit': _unit,
    'tanh': np.tanh,
    'relu': lambda x: np.maximum(x, 0),
    'gelu': lambda x: x * _sigmoid(_GELU * (x + 0.044715 * x**3)),
    'elu': _elu,
    'selu': lambda x: _SELU[0] * np.where(x > 0, x, _SELU[1] * _elu(x)),
    'silu': lambda x: x * _sigmoid(x),
    'sigmoid': _sigmoid,
}
_STEPS: dict[str, Any] = {
    'join': lambda x, weights, step: np.concatenate(x, axis=1),
    'add': lambda x, weights, step: sum(x),
    'column': lambda x, weights, step: x[0].astype(np.float32)[:, None],
    'map': lambda x, weights, step: _MAPS[step['by']](x[0]),
    'dense': _dense,
    'batch_norm': _batch_norm,
    'layer_norm': _layer_norm,
    'pool': _pool,
}
