# SPDX-License-Identifier: Apache-2.0
"""The two towers; the only file that knows Linen.

A tower maps preference and content of rows (`tower_inputs`) to [B, rank]. Any
width may be 0. Reached by `init` and `apply` alone, with
`method='embed_users'` or `'embed_items'`.

Tables of learnt embeddings belong to both towers: features of one table name
share it, on one side or on both. A pooled embedding stands behind the columns
that need none.
"""

from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from dropoutnet_jax import config
from dropoutnet_jax import config_model
from dropoutnet_jax.data import tokens as tokens_lib
from dropoutnet_jax.model import embedding_rows
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.model import input_dropout
from dropoutnet_jax.model import pooling
from dropoutnet_jax.model import tower_inputs

_ACTIVATIONS = {name: getattr(nn, name) for name in config_model.ACTIVATIONS}


class EmbeddingTables(nn.Module):
  """Learnt tables [ids, width]: parameters 'embeddings/<name of the table>'.

  `apply` also takes some rows of a table in its place, if the collection 'rows'
  has their ids under the same name (`embedding_rows.Rows`).
  """

  @nn.compact
  def __call__(
      self, tokens: tokens_lib.Tokens
  ) -> dict[str, embedding_rows.Rows]:
    """Those that the tokens are of, by name; as `embedding_rows.tables`."""
    return embedding_rows.tables(tokens.features, self._make)

  def _make(self, feature: tokens_lib.TokenFeature) -> embedding_rows.Rows:
    name, first = feature.table, embedding_rows.first_values
    if self.has_variable('rows', name):
      some: Any = self.get_variable('params', name)
      return embedding_rows.Rows(some, self.get_variable('rows', name))
    return embedding_rows.Rows(self.param(name, first, feature))


class PooledTokens(nn.Module):
  """Pooled embeddings of all features of some tokens, side by side.

  With `scaled` times the root of their widths: rows of about norm 1 become
  entries of about unit variance, as all that a tower sees has; narrow ones are
  learnt sooner for it.
  """

  tables: EmbeddingTables
  scaled: bool = True

  @nn.compact
  def __call__(self, tokens: tokens_lib.Tokens) -> jax.Array:
    """Looks up the tokens of B rows alone: [B, all widths together]."""
    tables = self.tables(tokens)
    parts = []
    for feature in tokens.features:
      columns = slice(feature.start, feature.stop)
      query = None
      if feature.pooling == 'attention':
        # Starts as the plain mean.
        zeros = nn.initializers.zeros
        query = self.param(feature.name, zeros, (feature.width,))
      emb = tables[feature.table][tokens.id[:, columns]]
      weight = tokens.weight[:, columns]
      pooled = pooling.pool(emb, weight, feature.pooling, query)
      parts.append(feature.width**0.5 * pooled if self.scaled else pooled)
    return jnp.concatenate(parts, axis=-1)


def _parts(
    tables: EmbeddingTables,
    preference: input_dropout.Preference,
    content: tower_inputs.Content,
    scaled: bool,
) -> dict[str, list[jax.Array]]:
  """Arrays [B, ...] of both inputs; the first is what residual paths read.

  For use within a tower, whose modules are made here.
  """
  parts = {'preference': [preference.value], 'content': [content.dense]}
  if preference.columns is not None:
    parts['preference'].append(preference.columns)
  for name, tokens in (
      ('preference', preference.tokens),
      ('content', content.tokens),
  ):
    if tokens is not None and tokens.features:
      pooled = PooledTokens(tables, scaled, name=f'{name}_queries')(tokens)
      if name == 'preference' and preference.scale is not None:
        pooled = pooled * preference.scale
      parts[name].append(pooled)
  return parts


class PaperTower(nn.Module):
  """The published network: concatenate, (dense, batch norm, tanh), linear."""

  hidden: tuple[int, ...]
  rank: int
  dtype: jnp.dtype
  tables: EmbeddingTables
  scale_embeddings: bool

  @nn.compact
  def __call__(
      self,
      preference: input_dropout.Preference,
      content: tower_inputs.Content,
      *,
      train: bool,
  ) -> jax.Array:
    init = nn.initializers.truncated_normal(0.01)
    parts = _parts(self.tables, preference, content, self.scale_embeddings)
    x = jnp.concatenate(parts['preference'] + parts['content'], axis=-1)
    for width in self.hidden:
      # No bias: batch norm would cancel it, and Adam would turn the rounding
      # noise of its zero gradient into steps of full size.
      x = nn.Dense(width, use_bias=False, kernel_init=init, dtype=self.dtype)(x)
      x = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-3, dtype=self.dtype)(
          x
      )
      x = nn.tanh(x)
    return nn.Dense(self.rank, kernel_init=init, dtype=self.dtype)(x)


class ModernTower(nn.Module):
  """Separate branches for content and preference, added, then hidden layers.

  With `residual_content` the dense content reaches the output directly through
  a linear map that starts as the identity (cut or padded to the rank), and with
  `residual_preference` factors or histories do; neither takes learnt embeddings
  or other features along. These paths see rows of norm 1, whatever the scale
  that suits the hidden layers: where both sides have content of one space, or
  one has it and the other histories of it, the first scores are its cosines.
  With `starts_at_zero` there are no such paths, and the first output is 0.
  """

  hidden: tuple[int, ...]
  rank: int
  activation: str
  layer_norm: bool
  residual_content: bool
  residual_preference: bool
  starts_at_zero: bool
  dtype: jnp.dtype
  tables: EmbeddingTables
  scale_embeddings: bool

  @nn.compact
  def __call__(
      self,
      preference: input_dropout.Preference,
      content: tower_inputs.Content,
      *,
      train: bool,
  ) -> jax.Array:
    del train  # nothing here depends on the batch
    parts = _parts(self.tables, preference, content, self.scale_embeddings)
    paths = {}
    if not self.starts_at_zero:
      if self.residual_content and content.dense.shape[-1]:
        paths['residual'] = 'content'
      if self.residual_preference and preference.value.shape[-1]:
        paths['residual_preference'] = 'preference'
    inputs = {}
    for name, arrays in parts.items():
      # A second linear map of the same would be idle.
      idle = not self.hidden and name in paths.values()
      arrays = [x for x in arrays[idle:] if x.shape[-1]]
      if arrays:
        inputs[name] = jnp.concatenate(arrays, axis=-1)
    from_zero = self.starts_at_zero or bool(paths)
    x = self._branches(preference.present, inputs, from_zero)
    for path, name in paths.items():
      x += self._residual(parts[name][0], path)
    return x

  def _branches(
      self, present: jax.Array, inputs: dict[str, jax.Array], from_zero: bool
  ) -> jax.Array:
    """Hidden layers over the inputs; 0 at the start with `from_zero`."""
    activation = _ACTIVATIONS[self.activation]
    first, *rest = self.hidden or (self.rank,)
    lecun, zeros = nn.initializers.lecun_normal(), nn.initializers.zeros
    kernel = zeros if from_zero and not self.hidden else lecun
    # The presence bit lets the tower choose another offset for cold rows.
    x = nn.Dense(first, kernel_init=kernel, dtype=self.dtype, name='presence')(
        present.astype(jnp.float32)[:, None]
    )
    for name, value in inputs.items():
      x += nn.Dense(
          first,
          use_bias=False,
          kernel_init=kernel,
          dtype=self.dtype,
          name=name,
      )(value)
    for number, width in enumerate(rest):
      x = activation(self._norm(x, f'norm_{number}'))
      x = nn.Dense(width, dtype=self.dtype, name=f'hidden_{number}')(x)
    if self.hidden:
      x = activation(self._norm(x, 'norm'))
      # Small, as published: teacher scores are near 0, and a first guess of
      # unit variance would take thousands of steps to unlearn.
      small = nn.initializers.truncated_normal(0.01)
      x = nn.Dense(
          self.rank,
          kernel_init=zeros if from_zero else small,
          dtype=self.dtype,
          name='output',
      )(x)
    return x

  def _residual(self, x: jax.Array, name: str) -> jax.Array:
    eye = lambda key, shape, dtype: jnp.eye(shape[0], shape[1], dtype=dtype)
    return nn.Dense(
        self.rank,
        use_bias=False,
        kernel_init=eye,
        dtype=self.dtype,
        name=name,
    )(embeddings.normalized(x))

  def _norm(self, x: jax.Array, name: str) -> jax.Array:
    if not self.layer_norm:
      return x
    return nn.LayerNorm(dtype=self.dtype, name=name)(x)


class Network(NamedTuple):
  """Hidden layers of a `GroupsTower`."""

  widths: tuple[int, ...]
  batch_norm: bool


class GroupsTower(nn.Module):
  """The network of EasyRec: one per group of inputs, joined, hidden layers.

  Every layer but the last is dense, batch norm unless its network has none,
  activation. A group of width 0 has no network. The presence bit is not read:
  batch norm of the preference sees the zeros of dropped and cold rows among the
  others, and its moving moments are those of the mixture that training saw.
  """

  content: Network
  preference: Network
  joined: Network
  rank: int
  activation: str
  dtype: jnp.dtype
  tables: EmbeddingTables
  scale_embeddings: bool

  @nn.compact
  def __call__(
      self,
      preference: input_dropout.Preference,
      content: tower_inputs.Content,
      *,
      train: bool,
  ) -> jax.Array:
    groups = _parts(self.tables, preference, content, self.scale_embeddings)
    parts = []
    for name in ('content', 'preference'):
      x = jnp.concatenate(groups[name], axis=-1)
      if x.shape[-1]:
        parts.append(self._stack(x, name, train))
    x = jnp.concatenate(parts, axis=-1) if parts else content.dense
    x = self._stack(x, 'joined', train)
    return self._dense(x, self.rank, 'output', use_bias=True)

  def _stack(self, x: jax.Array, name: str, train: bool) -> jax.Array:
    """Hidden layers of a network; none hand their input on."""
    widths, batch_norm = getattr(self, name)
    for number, width in enumerate(widths):
      # No bias before batch norm: see PaperTower.
      x = self._dense(x, width, f'{name}_{number}', use_bias=not batch_norm)
      if batch_norm:
        x = nn.BatchNorm(
            not train,
            momentum=0.99,
            epsilon=1e-3,
            dtype=self.dtype,
            name=f'{name}_norm_{number}',
        )(x)
      x = _ACTIVATIONS[self.activation](x)
    return x

  def _dense(
      self, x: jax.Array, width: int, name: str, use_bias: bool
  ) -> jax.Array:
    glorot, zeros = nn.initializers.glorot_uniform(), nn.initializers.zeros
    return nn.Dense(
        width,
        use_bias=use_bias,
        # The other one divides by the number of columns.
        kernel_init=glorot if x.shape[-1] else zeros,
        dtype=self.dtype,
        name=name,
    )(x)


def _network(settings: config.ModelConfig, name: str) -> Network:
  """One of config_model.NETWORKS."""
  is_tower = name.endswith('_tower')
  default = settings.hidden if is_tower else settings.group_hidden
  widths = settings.groups.widths(name, tuple(default))
  return Network(widths, name not in settings.groups.no_batch_norm)


class TwoTower(nn.Module):
  """A user tower and an item tower of the same make and rank."""

  settings: config.ModelConfig

  def setup(self) -> None:
    self.embeddings = EmbeddingTables()
    self.user_tower = self._make_tower('user')
    self.item_tower = self._make_tower('item')

  def _make_tower(self, side: str) -> nn.Module:
    s = self.settings
    common: dict[str, Any] = {
        'rank': s.rank,
        'dtype': jnp.dtype(s.dtype),
        'tables': self.embeddings,
        'scale_embeddings': s.scale_embeddings,
    }
    if s.tower == 'paper':
      return PaperTower(hidden=tuple(s.hidden), **common)
    if s.tower == 'groups':
      content, preference, joined = (
          _network(s, f'{side}_{part}')
          for part in ('content', 'preference', 'tower')
      )
      return GroupsTower(
          content, preference, joined, activation=s.activation, **common
      )
    return ModernTower(
        hidden=tuple(s.hidden),
        activation=s.activation,
        layer_norm=s.layer_norm,
        residual_content=s.residual_content,
        residual_preference=s.residual_preference,
        starts_at_zero=s.zero_users and side == 'user',
        **common,
    )

  def embed_users(
      self,
      preference: input_dropout.Preference,
      content: tower_inputs.Content,
      *,
      train: bool = False,
  ) -> embeddings.Embedding:
    return self._finish(self.user_tower(preference, content, train=train))

  def embed_items(
      self,
      preference: input_dropout.Preference,
      content: tower_inputs.Content,
      *,
      train: bool = False,
  ) -> embeddings.Embedding:
    return self._finish(self.item_tower(preference, content, train=train))

  def _finish(self, dense: jax.Array) -> embeddings.Embedding:
    dense = dense.astype(jnp.float32)
    if self.settings.normalize:
      dense = embeddings.normalized(dense)
    return embeddings.Embedding(dense)

  def __call__(
      self,
      user_preference: input_dropout.Preference,
      user_content: tower_inputs.Content,
      item_preference: input_dropout.Preference,
      item_content: tower_inputs.Content,
  ) -> tuple[embeddings.Embedding, embeddings.Embedding]:
    """Both sides at once; used to initialise the parameters."""
    return (
        self.embed_users(user_preference, user_content),
        self.embed_items(item_preference, item_content),
    )
