# SPDX-License-Identifier: Apache-2.0
"""One feature: fitted on training rows, applied to any, kept in a run folder.

Chooses the encoders by the feature's kind. What features of a side are together
is in features.py.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import config_features
from dropoutnet_jax.data import blocks
from dropoutnet_jax.data import bucket_encoder
from dropoutnet_jax.data import columns
from dropoutnet_jax.data import encoder_files
from dropoutnet_jax.data import encoders
from dropoutnet_jax.data import id_values
from dropoutnet_jax.data import intervals
from dropoutnet_jax.data import number_encoder
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import tag_encoder
from dropoutnet_jax.data import token_encoder
from dropoutnet_jax.data import tokens as tokens_lib
from dropoutnet_jax.data import vocabularies

# By the names that they are kept under; a kind has one or several.
_ENCODERS: dict[str, Any] = {
    made.__name__: made
    for made in (
        tag_encoder.TagEncoder,
        number_encoder.NumericEncoder,
        intervals.IntervalEncoder,
        encoders.CategoryEncoder,
        bucket_encoder.BucketEncoder,
        encoders.VectorEncoder,
    )
}


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
  """What one feature is of N rows.

  Attributes:
    dense: float32 [N, F].
    sparse: csr_array float32 [N, T].
    id: int32 [N, L], of tokens.
    weight: float32 [N, L].
    known: bool [N], rows with a value.
  """

  dense: np.ndarray
  sparse: scipy.sparse.csr_array
  id: np.ndarray
  weight: np.ndarray
  known: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class FittedFeature:
  """One feature: its encoders, and how its dense columns are scaled.

  Attributes:
    number: its position in the configuration.
    feature: its settings.
    encoder: of its dense and sparse columns, fitted on training rows; None for
      a feature that is tokens alone.
    scale: standardises the columns; None where they are left as they are.
    tokens: encoder of its tokens; None without an embedding.
  """

  number: int
  feature: config.Feature
  encoder: encoders.ColumnEncoder | None
  scale: blocks.ColumnScale | None
  tokens: token_encoder.TokenEncoder | None

  def encode(
      self, entities: schema.Entities, scaling: str, field: str
  ) -> Block:
    """The block of any rows, scaled."""
    column: Any = columns.read(entities, self.feature, field)
    num_rows = len(entities)
    dense = np.zeros((num_rows, 0), np.float32)
    sparse = blocks.no_columns(num_rows)
    if self.encoder is not None:
      dense, sparse = self.encoder.encode(_for_columns(self.feature, column))
    if self.tokens is not None:
      ids, weight = self.tokens.encode(column)
    else:
      nothing = tokens_lib.no_tokens(num_rows)
      ids, weight = nothing.id, nothing.weight
    known = dense.any(axis=1) | weight.any(axis=1)
    known |= np.diff(sparse.indptr) > 0
    if self.feature.kind in config_features.NUMBER_KINDS:
      # A number may be encoded as 0, its mean, without being missing.
      missing = np.isnan(column)
      known |= ~(missing if column.ndim == 1 else missing.all(axis=1))
    if scaling == 'row':
      blocks.scale_rows(dense)
    elif self.scale is not None:
      self.scale.apply(dense)
    return Block(dense, sparse, ids, weight, known)

  def pack(self, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """JSON of it; arrays are put into `arrays`."""
    packed: dict[str, Any] = {
        'number': self.number,
        'feature': dataclasses.asdict(self.feature),
        'type': self.encoder and type(self.encoder).__name__,
    }
    for name in ('encoder', 'scale', 'tokens'):
      part, prefix = getattr(self, name), f'{self.number}/{name}'
      packed[name] = part and encoder_files.pack(part, prefix, arrays)
    return packed


def unpack(
    packed: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> FittedFeature:
  """Inverse of `FittedFeature.pack`; KeyError or TypeError if it is none."""
  settings: Any = {
      name: tuple(value) if isinstance(value, list) else value
      for name, value in packed['feature'].items()
  }
  kinds: dict[str, Any] = {
      'encoder': packed['type'] and _ENCODERS[packed['type']],
      'scale': blocks.ColumnScale,
      'tokens': token_encoder.TokenEncoder,
  }
  parts: Any = {
      name: packed[name] and made(**encoder_files.unpack(packed[name], arrays))
      for name, made in kinds.items()
  }
  return FittedFeature(packed['number'], config.Feature(**settings), **parts)


def fit(
    number: int,
    feature: config.Feature,
    training: vocabularies.TrainingRows,
    vocabulary_of: Mapping[str, np.ndarray],
    scaling: str,
    seed: int,
) -> tuple[FittedFeature, list[str]]:
  """Fits a feature.

  Args:
    number: its position in the configuration.
    feature: its settings.
    training: the rows to fit on.
    vocabulary_of: vocabularies by embedding table.
    scaling: of the dense content, 'row' or 'column'.
    seed: of a truncated SVD.

  Returns:
    The feature, and notes for the user.

  Raises:
    UserError: see features.fit.
  """
  field = f'config.features.{training.side}[{number}]'
  column = columns.read(training.entities, feature, field, training.rows)
  notes = columns.describe_missing(
      training.entities, feature, field, training.rows
  )
  notes += id_values.note_outside(feature, column)
  tokens = encoder = scale = None
  if feature.embedding:
    embedded = training.embedded[number]
    vocabulary = vocabulary_of[embedded.table]
    tokens, told = token_encoder.fit(embedded, vocabulary, column)
    notes = [*told, *notes]
  wanted = dataclasses.replace(feature, column=feature.name)
  if feature.group != 'content':
    wanted.sparse = False
  if wanted.sparse or not feature.embedding:
    column = _for_columns(feature, column)
    encoder, told = _fit_encoder(wanted, column, scaling, seed, field)
    notes = [*told, *notes]
    # Numbers are scaled already, and their 0 need not be a missing value.
    is_number = isinstance(encoder, number_encoder.NumericEncoder)
    if scaling == 'column' and not is_number:
      scale = blocks.fit_scale(encoder.encode(column)[0])
  elif isinstance(column, np.ndarray) and column.dtype == object:
    notes = [*encoders.note_ids(wanted, column), *notes]
  return FittedFeature(number, feature, encoder, scale, tokens), notes


def _for_columns(feature: config.Feature, column: Any) -> Any:
  """A column as the encoders of dense and sparse columns read it."""
  if feature.kind in ('tags', 'text', 'sequence'):
    return id_values.to_tags(column, feature)
  return column


def _fit_encoder(
    feature: config.Feature,
    column: Any,
    scaling: str,
    seed: int,
    field: str,
) -> tuple[encoders.ColumnEncoder, list[str]]:
  if feature.kind == 'sequence':  # shares of values, as they are
    feature = dataclasses.replace(feature, idf='none', counts='raw')
  if feature.kind in ('tags', 'text', 'sequence'):
    return tag_encoder.fit_tags(feature, column, scaling, seed, field)
  if feature.kind == 'dense':
    return encoders.VectorEncoder(feature.column, column.shape[1]), []
  if feature.kind in config_features.NUMBER_KINDS:
    if feature.boundaries or feature.num_intervals:
      return intervals.fit_intervals(feature, column, field)
    return number_encoder.fit_numeric(feature, column, scaling)
  if feature.hash_buckets or feature.num_buckets:
    return bucket_encoder.fit_buckets(feature, column, field)
  return encoders.fit_category(feature, column, field)
