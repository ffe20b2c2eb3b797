# SPDX-License-Identifier: Apache-2.0
"""The towers as StableHLO: functions of plain arrays by name, for any batch.

A tower takes its weights, by their path, and what it sees of N rows:

  content             float32 [N, F], dense content
  content_ids         int32 [N, W], tokens of learnt embeddings; 0 is none
  content_weights     float32 [N, W]
  preference          float32 [N, P], factors or history means, scaled
  present             bool [N], whether there is any preference
  preference_columns  float32 [N, G], its features and statistics
  preference_ids      int32 [N, V]
  preference_weights  float32 [N, V]

of which a side has those that its configuration asks for. N is symbolic.
"""

from collections.abc import Mapping
import functools
from typing import Any

import flax.traverse_util
import jax
from jax import export
import jax.numpy as jnp
import numpy as np

from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.data import tokens as tokens_lib
from dropoutnet_jax.model import input_dropout
from dropoutnet_jax.model import tower_inputs
from dropoutnet_jax.model import towers
from dropoutnet_jax.model import trust

PLATFORMS = ('cpu', 'cuda', 'tpu')
_Arrays = dict[str, Any]


@jax.jit
def inputs_of(table: tables_lib.SideTable) -> _Arrays:
  """What a tower sees of all rows of a table, as the module says."""
  return inputs_of_rows(table, jnp.arange(len(table.present)))


def inputs_of_rows(
    table: tables_lib.SideTable,
    rows: jax.Array,
    state: int = input_dropout.AS_IS,
) -> _Arrays:
  """The same of some rows, int [N], in a state of input dropout."""
  preference = trust.preference(table, rows, state)
  content = tower_inputs.content(table, rows)
  found = {
      'content': content.dense,
      'preference': preference.value,
      'present': preference.present,
  }
  if preference.columns is not None:
    found['preference_columns'] = preference.columns
  for name, tokens in (
      ('content', content.tokens),
      ('preference', preference.tokens),
  ):
    if tokens is not None and tokens.features:
      found[f'{name}_ids'] = tokens.id
      found[f'{name}_weights'] = tokens.weight
  return found


def token_features(
    table: tables_lib.SideTable,
) -> dict[str, tuple[tokens_lib.TokenFeature, ...]]:
  """What the columns of tokens are: of 'content' and of 'preference'."""
  content = () if table.tokens is None else table.tokens.features
  own = table.features
  preference = () if own is None else own.tokens.features
  return {'content': content, 'preference': preference}


def weights_of(
    variables: Any,
    side: str,
    features: Mapping[str, tuple[tokens_lib.TokenFeature, ...]],
) -> dict[str, np.ndarray]:
  """Weights that a side's tower reads, by path: 'params/user_tower/...'."""
  flat = flax.traverse_util.flatten_dict(variables, sep='/')
  tables = {
      f'params/embeddings/{feature.table}'
      for part in features.values()
      for feature in part
  }
  return {
      name: np.asarray(value)
      for name, value in flat.items()
      if name in tables or name.split('/')[1] == f'{side}_tower'
  }


def serialize(
    model: towers.TwoTower,
    side: str,
    weights: Mapping[str, np.ndarray],
    inputs: Mapping[str, np.ndarray],
    features: Mapping[str, tuple[tokens_lib.TokenFeature, ...]],
) -> bytes:
  """A tower as `jax.export` keeps it: (weights, inputs) -> float32 [N, R].

  Args:
    model: both towers.
    side: 'user' or 'item'.
    weights: of `weights_of`; only their shapes count.
    inputs: of `inputs_of`, of any rows; likewise.
    features: of `token_features`.
  """
  (batch,) = export.symbolic_shape('batch')
  embed = functools.partial(_embed, model, side, features)
  shaped = lambda x, shape: jax.ShapeDtypeStruct(shape, x.dtype)
  exported = export.export(jax.jit(embed), platforms=PLATFORMS)(
      {name: shaped(x, x.shape) for name, x in weights.items()},
      {name: shaped(x, (batch, *x.shape[1:])) for name, x in inputs.items()},
  )
  return bytes(exported.serialize())


def _embed(
    model: towers.TwoTower,
    side: str,
    features: Mapping[str, tuple[tokens_lib.TokenFeature, ...]],
    weights: _Arrays,
    inputs: _Arrays,
) -> jax.Array:
  """Runs a tower on arrays by name."""

  def tokens(name: str) -> tokens_lib.Tokens | None:
    if f'{name}_ids' not in inputs:
      return None
    return tokens_lib.Tokens(
        inputs[f'{name}_ids'], inputs[f'{name}_weights'], features[name]
    )

  preference = input_dropout.Preference(
      inputs['preference'],
      inputs['present'],
      inputs.get('preference_columns'),
      tokens('preference'),
  )
  content = tower_inputs.Content(inputs['content'], tokens('content'))
  variables = flax.traverse_util.unflatten_dict(weights, sep='/')
  with jax.default_matmul_precision('highest'):
    embedding: Any = model.apply(
        variables, preference, content, method=f'embed_{side}s'
    )
  return embedding.dense
