# SPDX-License-Identifier: Apache-2.0
"""Content features: the columns of one side as dense and sparse content.

An `Encoder` is fitted on training rows alone. Rows that are cold in the split
are never looked at, neither for vocabulary and idf nor for means and SVD, so
that they are encoded exactly as an entity that arrives after training.

Scaling of the dense content:

* 'row': the block of each feature is scaled to norm 1 in each row, so that all
  features count alike, and so is the whole row. A feature that a row lacks is
  a zero block; a row that lacks all is zero. This is what dot products want.
* 'column': the published preprocessing. Each column is standardised over the
  training rows in which its block is not zero, and clipped at 5; zero blocks
  stay zero. Numbers are what their transform makes of them.

The sparse content joins tags and one-hot categories; the block of each feature
has norm 1 in each row, and then the whole row.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools
import itertools
from typing import Any

import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import config_features
from dropoutnet_jax import errors
from dropoutnet_jax.data import blocks
from dropoutnet_jax.data import bucket_encoder
from dropoutnet_jax.data import columns
from dropoutnet_jax.data import encoder_files
from dropoutnet_jax.data import encoders
from dropoutnet_jax.data import intervals
from dropoutnet_jax.data import number_encoder
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import tag_encoder

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
class Content:
  """Encoded rows.

  Attributes:
    dense: float32 [N, F].
    sparse: csr_array float32 [N, T], rows of norm 1 or empty.
    dense_names: F names, for explanations.
    sparse_names: T names.
  """

  dense: np.ndarray
  sparse: scipy.sparse.csr_array
  dense_names: list[str]
  sparse_names: list[str]

  def __len__(self) -> int:
    return len(self.dense)


@dataclasses.dataclass(frozen=True, eq=False)
class FittedFeature:
  """One feature: its encoder, and how its dense columns are scaled.

  Attributes:
    feature: its settings.
    encoder: fitted on training rows.
    scale: standardises the columns; None where they are left as they are.
  """

  feature: config.Feature
  encoder: encoders.ColumnEncoder
  scale: blocks.ColumnScale | None

  def encode(
      self, entities: schema.Entities, scaling: str, field: str
  ) -> tuple[np.ndarray, scipy.sparse.csr_array]:
    """Dense and sparse block of any rows, scaled."""
    column = columns.read(entities, self.feature, field)
    dense, sparse = self.encoder.encode(column)
    if scaling == 'row':
      blocks.scale_rows(dense)
    elif self.scale is not None:
      self.scale.apply(dense)
    return dense, sparse


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
  """Fitted features of one side.

  Attributes:
    side: 'user' or 'item'.
    scaling: 'row' or 'column'.
    features: fitted, one per feature of the configuration.
    num_training_rows: rows that it was fitted on.
    notes: what the user should know, one sentence each.
  """

  side: str
  scaling: str
  features: tuple[FittedFeature, ...]
  num_training_rows: int
  notes: tuple[str, ...] = ()

  @functools.cached_property
  def dense_names(self) -> list[str]:
    return _flat(fitted.encoder.dense_names() for fitted in self.features)

  @functools.cached_property
  def sparse_names(self) -> list[str]:
    return _flat(fitted.encoder.sparse_names() for fitted in self.features)

  def transform(self, entities: schema.Entities) -> Content:
    """Encodes any rows, whether they were there in training or not.

    What training did not know (tags, categories) is ignored. Each row is
    encoded on its own, so the company that it comes in changes nothing.

    Raises:
      UserError: a column is missing, is of another kind or width than in
        training, or holds infinite numbers.
    """
    dense, sparse = [], []
    for number, fitted in enumerate(self.features):
      field = f'config.features.{self.side}[{number}]'
      pair = fitted.encode(entities, self.scaling, field)
      dense.append(pair[0])
      sparse.append(pair[1])
    return Content(
        blocks.join_dense(dense, self.scaling, len(entities)),
        blocks.join_sparse(sparse, len(entities)),
        self.dense_names,
        self.sparse_names,
    )

  def save(self, folder: str, side: str) -> None:
    """Writes features_{side}.npz and this side's part of features.json.

    Raises:
      UserError: a file can't be written, or features.json is damaged.
    """
    arrays: dict[str, np.ndarray] = {}
    packed = []
    for number, fitted in enumerate(self.features):
      pack = functools.partial(encoder_files.pack, arrays=arrays)
      packed.append(
          {
              'feature': dataclasses.asdict(fitted.feature),
              'type': type(fitted.encoder).__name__,
              'encoder': pack(fitted.encoder, f'{number}/encoder'),
              'scale': fitted.scale and pack(fitted.scale, f'{number}/scale'),
          }
      )
    described = {
        'scaling': self.scaling,
        'num_training_rows': self.num_training_rows,
        'num_dense_columns': len(self.dense_names),
        'num_sparse_columns': len(self.sparse_names),
        'notes': self.notes,
        'features': packed,
    }
    encoder_files.save(folder, side, described, arrays)


def fit(
    features: Sequence[config.Feature],
    scaling: str,
    entities: schema.Entities,
    train_rows: np.ndarray,
    seed: int = 0,
    side: str = 'item',
) -> Encoder:
  """Fits the features of one side on its training rows.

  Args:
    features: their settings; none gives content without columns.
    scaling: of the dense content, 'row' or 'column'.
    entities: the table; only its training rows are looked at.
    train_rows: int [N], rows with training pairs, in any order.
    seed: of truncated SVDs. The same seed gives the same bits.
    side: 'user' or 'item', for messages.

  Returns:
    The encoder.

  Raises:
    UserError: a column is missing or does not fit its feature, there are no
      training rows, no value is frequent enough, or a rank is too large.
  """
  rows = np.unique(np.asarray(train_rows, np.int64))
  if features and not len(rows):
    raise errors.UserError(
        f'config.features.{side}: no {side} has a training pair, so there is '
        'nothing to fit the features on. Hold out less in config.data.'
    )
  fitted, notes = [], []
  for number, feature in enumerate(features):
    field = f'config.features.{side}[{number}]'
    column = columns.read(entities, feature, field, rows)
    encoder, found = _fit_encoder(feature, column, scaling, seed, field)
    found += columns.describe_missing(entities, feature, field, rows)
    notes += [f'Feature of {side}s {note}' for note in found]
    scale = None
    # Numbers are scaled already, and their 0 need not be a missing value.
    is_number = isinstance(encoder, number_encoder.NumericEncoder)
    if scaling == 'column' and not is_number:
      scale = blocks.fit_scale(encoder.encode(column)[0])
    fitted.append(FittedFeature(feature, encoder, scale))
  return Encoder(side, scaling, tuple(fitted), len(rows), tuple(notes))


def _fit_encoder(
    feature: config.Feature,
    column: Any,
    scaling: str,
    seed: int,
    field: str,
) -> tuple[encoders.ColumnEncoder, list[str]]:
  feature = dataclasses.replace(feature, column=feature.name)
  if feature.kind in ('tags', 'text'):
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


def load(folder: str, side: str) -> Encoder:
  """Reads what `Encoder.save` wrote.

  Raises:
    UserError: a file is missing or damaged, or there is no such side.
  """
  described, arrays = encoder_files.load(folder, side)
  try:
    return Encoder(
        side,
        described['scaling'],
        tuple(_load_feature(one, arrays) for one in described['features']),
        described['num_training_rows'],
        tuple(described['notes']),
    )
  except (KeyError, TypeError) as error:
    raise errors.UserError(
        f'{folder}: features.json does not describe the features of side '
        f'{side!r} ({error!r}). Remove the run folder and train again.'
    ) from error


def _load_feature(
    described: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> FittedFeature:
  settings: Any = {
      name: tuple(value) if isinstance(value, list) else value
      for name, value in described['feature'].items()
  }
  feature = config.Feature(**settings)
  unpack = lambda name: encoder_files.unpack(described[name], arrays)
  encoder = _ENCODERS[described['type']](**unpack('encoder'))
  scale = described['scale'] and blocks.ColumnScale(**unpack('scale'))
  return FittedFeature(feature, encoder, scale)


def _flat(lists: Iterable[list[str]]) -> list[str]:
  return list(itertools.chain.from_iterable(lists))
