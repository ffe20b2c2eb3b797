# SPDX-License-Identifier: Apache-2.0
"""Learnt embeddings of tokens, as Linen modules that both towers share.

Tables of learnt embeddings belong to both towers: features of one table name
share it, on one side or on both. A pooled embedding stands behind the columns
that need none.
"""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from dropoutnet_jax.data import tokens as tokens_lib
from dropoutnet_jax.model import embedding_rows
from dropoutnet_jax.model import input_dropout
from dropoutnet_jax.model import pooling
from dropoutnet_jax.model import tower_inputs


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


def parts(
    tables: EmbeddingTables,
    preference: input_dropout.Preference,
    content: tower_inputs.Content,
    scaled: bool,
) -> dict[str, list[jax.Array]]:
  """Arrays [B, ...] of both inputs; the first is what residual paths read.

  For use within a tower, whose modules are made here.
  """
  found = {'preference': [preference.value], 'content': [content.dense]}
  if preference.columns is not None:
    found['preference'].append(preference.columns)
  for name, tokens in (
      ('preference', preference.tokens),
      ('content', content.tokens),
  ):
    if tokens is not None and tokens.features:
      pooled = PooledTokens(tables, scaled, name=f'{name}_queries')(tokens)
      if name == 'preference' and preference.scale is not None:
        pooled = pooled * preference.scale
      found[name].append(pooled)
  return found
