# SPDX-License-Identifier: Apache-2.0
"""The towers as a list of steps that `numpy_runtime.py` can follow.

Each step reads values by name, the inputs of `tower_export.py` among them, and
weights by their path, and makes one value; the last is 'embedding'. That the
list says what `model/towers.py` does is checked with every export.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from dropoutnet_jax import config
from dropoutnet_jax.data import tokens as tokens_lib

_BATCH_NORM = 1e-3  # epsilons, as in towers.py, and
_LAYER_NORM = 1e-6  # that of Flax


@dataclasses.dataclass
class _Steps:
  """A list that grows.

  Attributes:
    tower: 'user_tower' or 'item_tower'.
    known: paths of all weights.
    steps: so far.
    widths: of the values so far, by name.
  """

  tower: str
  known: Mapping[str, Any]
  steps: list[dict[str, Any]]
  widths: dict[str, int]

  def add(
      self,
      do: str,
      of: Sequence[str],
      width: int,
      weights: Sequence[str] = (),
      **settings: Any,
  ) -> str:
    """A step; the name of what it makes."""
    name = f'value {len(self.steps)}'
    step = {'do': do, 'of': [*of], 'to': name, **settings}
    if weights:
      step['weights'] = [*weights]
    self.steps.append(step)
    self.widths[name] = width
    return name

  def join(self, parts: Sequence[str]) -> str:
    parts = [part for part in parts if self.widths[part]] or parts
    if len(parts) == 1:
      return parts[0]
    return self.add('join', parts, sum(self.widths[part] for part in parts))

  def dense(self, of: str, layer: str) -> str:
    """A linear map, with a bias where the layer has one."""
    kernel = f'params/{self.tower}/{layer}/kernel'
    bias = f'params/{self.tower}/{layer}/bias'
    weights = [kernel, bias] if bias in self.known else [kernel]
    return self.add('dense', [of], self.known[kernel].shape[1], weights)

  def norm(self, of: str, layer: str, kind: str) -> str:
    """Batch norm by its moving moments, or layer norm."""
    paths = [f'params/{self.tower}/{layer}/{x}' for x in ('scale', 'bias')]
    epsilon = _LAYER_NORM
    if kind == 'batch_norm':
      moments = f'batch_stats/{self.tower}/{layer}'
      paths += [f'{moments}/{x}' for x in ('mean', 'var')]
      epsilon = _BATCH_NORM
    return self.add(kind, [of], self.widths[of], paths, epsilon=epsilon)

  def act(self, of: str, kind: str) -> str:
    return self.add('map', [of], self.widths[of], by=kind)

  def total(self, parts: Sequence[str]) -> str:
    if len(parts) == 1:
      return parts[0]
    return self.add('add', parts, self.widths[parts[0]])


def of_tower(
    settings: config.ModelConfig,
    side: str,
    weights: Mapping[str, Any],
    inputs: Mapping[str, Any],
    features: Mapping[str, Sequence[tokens_lib.TokenFeature]],
) -> list[dict[str, Any]]:
  """The steps of a side's tower.

  Args:
    settings: of the model.
    side: 'user' or 'item'.
    weights: by path, as `tower_export.weights_of` gives them.
    inputs: arrays by name, as `tower_export.inputs_of` gives them.
    features: as `tower_export.token_features` gives them.
  """
  widths = {name: x.shape[1] for name, x in inputs.items() if x.ndim == 2}
  steps = _Steps(f'{side}_tower', weights, [], widths)
  parts = _parts(steps, features, settings.scale_embeddings)
  make = {'paper': _paper, 'modern': _modern, 'groups': _groups}
  last = make[settings.tower](steps, settings, side, parts)
  if settings.normalize:
    last = steps.act(last, 'unit')
  if not steps.steps:
    last = steps.total([last])
  steps.steps[-1]['to'] = 'embedding'
  return steps.steps


def _parts(
    steps: _Steps,
    features: Mapping[str, Sequence[tokens_lib.TokenFeature]],
    scaled: bool,
) -> dict[str, list[str]]:
  """Values of both inputs in the order of `towers._parts`."""
  parts = {'preference': ['preference'], 'content': ['content']}
  if 'preference_columns' in steps.widths:
    parts['preference'].append('preference_columns')
  for name in ('preference', 'content'):
    pooled = []
    for feature in features[name]:
      paths = [f'params/embeddings/{feature.table}']
      if feature.pooling == 'attention':
        query = f'{name}_queries/{feature.name}'
        paths.append(f'params/{steps.tower}/{query}')
      pooled.append(
          steps.add(
              'pool',
              [f'{name}_ids', f'{name}_weights'],
              feature.width,
              paths,
              columns=[feature.start, feature.stop],
              pooling=feature.pooling,
              scale=feature.width**0.5 if scaled else 1.0,
          )
      )
    parts[name] += pooled
  return parts


def _paper(
    steps: _Steps,
    settings: config.ModelConfig,
    side: str,
    parts: dict[str, list[str]],
) -> str:
  del side
  x = steps.join(parts['preference'] + parts['content'])
  for number in range(len(settings.hidden)):
    x = steps.dense(x, f'Dense_{number}')
    x = steps.act(steps.norm(x, f'BatchNorm_{number}', 'batch_norm'), 'tanh')
  return steps.dense(x, f'Dense_{len(settings.hidden)}')


def _groups(
    steps: _Steps,
    settings: config.ModelConfig,
    side: str,
    parts: dict[str, list[str]],
) -> str:

  def stack(x: str, name: str) -> str:
    own = f'{side}_{"tower" if name == "joined" else name}'
    default = settings.hidden if name == 'joined' else settings.group_hidden
    widths = settings.groups.widths(own, tuple(default))
    for number in range(len(widths)):
      x = steps.dense(x, f'{name}_{number}')
      if own not in settings.groups.no_batch_norm:
        x = steps.norm(x, f'{name}_norm_{number}', 'batch_norm')
      x = steps.act(x, settings.activation)
    return x

  found = []
  for name in ('content', 'preference'):
    if any(steps.widths[part] for part in parts[name]):
      x = steps.join(parts[name])
      found.append(stack(x, name))
  x = steps.join(found) if found else 'content'
  return steps.dense(stack(x, 'joined'), 'output')


def _modern(
    steps: _Steps,
    settings: config.ModelConfig,
    side: str,
    parts: dict[str, list[str]],
) -> str:
  paths = {}
  if not (settings.zero_users and side == 'user'):
    if settings.residual_content and steps.widths['content']:
      paths['content'] = 'residual'
    if settings.residual_preference and steps.widths['preference']:
      paths['preference'] = 'residual_preference'
  present = steps.add('column', ['present'], 1)
  branches = [steps.dense(present, 'presence')]
  for name, values in parts.items():
    # As in the tower: a second linear map of the same would be idle.
    idle = not settings.hidden and name in paths
    values = [x for x in values[idle:] if steps.widths[x]]
    if values:
      branches.append(steps.dense(steps.join(values), name))
  x = steps.total(branches)

  def norm(x: str, layer: str) -> str:
    if settings.layer_norm:
      x = steps.norm(x, layer, 'layer_norm')
    return steps.act(x, settings.activation)

  for number in range(len(settings.hidden) - 1):
    x = steps.dense(norm(x, f'norm_{number}'), f'hidden_{number}')
  if settings.hidden:
    x = steps.dense(norm(x, 'norm'), 'output')
  residual = [
      steps.dense(steps.act(name, 'unit'), layer)
      for name, layer in paths.items()
  ]
  return steps.total([x, *residual])
