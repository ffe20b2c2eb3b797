# SPDX-License-Identifier: Apache-2.0
"""Features: the columns of one side as dense and sparse content and tokens.

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
* 'none': every feature as it is.

The sparse content joins tags and one-hot categories; the block of each feature
has norm 1 in each row, and then the whole row. Features with an embedding are
tokens instead of dense content (token_encoder.py).

Features of the group 'preference' are encoded like content, by an encoder of
their own and without sparse content.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools
import itertools

import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import blocks
from dropoutnet_jax.data import column_types
from dropoutnet_jax.data import columns as columns_lib
from dropoutnet_jax.data import encoder_files
from dropoutnet_jax.data import encoders
from dropoutnet_jax.data import fitted_feature
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import tokens as tokens_lib
from dropoutnet_jax.data import vocabularies as vocabularies_lib


@dataclasses.dataclass(frozen=True, eq=False)
class Content:
  """Encoded rows.

  Attributes:
    dense: float32 [N, F].
    sparse: csr_array float32 [N, T], rows of norm 1 or empty.
    dense_names: F names, for explanations.
    sparse_names: T names.
    tokens: of N rows.
    known: bool [N], rows with a value of any feature.
  """

  dense: np.ndarray
  sparse: scipy.sparse.csr_array
  dense_names: list[str]
  sparse_names: list[str]
  tokens: tokens_lib.Tokens
  known: np.ndarray

  def __len__(self) -> int:
    return len(self.dense)


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
  """Fitted features of one group of one side.

  Attributes:
    side: 'user' or 'item'.
    scaling: 'row', 'column' or 'none'.
    features: fitted, those of the configuration that are of the group.
    num_training_rows: rows that it was fitted on.
    id_name: under which features find the ids.
    notes: what the user should know, one sentence each.
    columns: what the columns held that the features read, by name.
  """

  side: str
  scaling: str
  features: tuple[fitted_feature.FittedFeature, ...]
  num_training_rows: int
  id_name: str
  notes: tuple[str, ...] = ()
  columns: Mapping[str, column_types.ColumnType] = dataclasses.field(
      default_factory=dict
  )

  @functools.cached_property
  def dense_names(self) -> list[str]:
    return _flat(part.dense_names() for part in self._column_encoders())

  @functools.cached_property
  def sparse_names(self) -> list[str]:
    return _flat(part.sparse_names() for part in self._column_encoders())

  def _column_encoders(self) -> list[encoders.ColumnEncoder]:
    found = (fitted.encoder for fitted in self.features)
    return [encoder for encoder in found if encoder is not None]

  @functools.cached_property
  def token_features(self) -> tuple[tokens_lib.TokenFeature, ...]:
    """What the columns of tokens are."""
    found: list[tokens_lib.TokenFeature] = []
    for fitted in self.features:
      if fitted.tokens is not None:
        start = found[-1].stop if found else 0
        found.append(fitted.tokens.token_feature(start))
    return tuple(found)

  def transform(self, entities: schema.Entities) -> Content:
    """Encodes any rows, whether they were there in training or not.

    What training did not know (tags, categories) is ignored. Each row is
    encoded on its own, so the company that it comes in changes nothing.

    Raises:
      UserError: a column is missing, is of another kind or width than in
        training, or holds infinite numbers.
    """
    entities = entities.with_id_name(self.id_name)
    found = []
    for fitted in self.features:
      field = f'config.features.{self.side}[{fitted.number}]'
      found.append(fitted.encode(entities, self.scaling, field))
    num_rows = len(entities)
    tokens = tokens_lib.no_tokens(num_rows)
    tokens = tokens_lib.Tokens(
        np.concatenate([tokens.id, *(block.id for block in found)], axis=1),
        np.concatenate(
            [tokens.weight, *(block.weight for block in found)], axis=1
        ),
        self.token_features,
    )
    known = [np.zeros(num_rows, bool), *(block.known for block in found)]
    return Content(
        blocks.join_dense(
            [block.dense for block in found], self.scaling, num_rows
        ),
        blocks.join_sparse([block.sparse for block in found], num_rows),
        self.dense_names,
        self.sparse_names,
        tokens,
        np.any(known, axis=0),
    )

  def select(self, numbers: Sequence[int]) -> 'Encoder':
    """Some of the features by their places, with the columns they read."""
    kept = tuple(self.features[number] for number in numbers)
    names = column_types.mentioned([one.feature for one in kept])
    return dataclasses.replace(
        self,
        features=kept,
        columns={
            name: self.columns[name] for name in names if name in self.columns
        },
    )

  def check(self, entities: schema.Entities) -> None:
    """Raises what `transform` would raise for a value, and encodes nothing.

    Args:
      entities: with all columns that the features read.

    Raises:
      BadValueError: a feature cannot use a value (bad_values.py).
    """
    entities = entities.with_id_name(self.id_name)
    for fitted in self.features:
      field = f'config.features.{self.side}[{fitted.number}]'
      columns_lib.check(entities, fitted.feature, field)

  def save(self, folder: str, side: str) -> None:
    """Writes features_{side}.npz and this side's part of features.json.

    Raises:
      UserError: a file can't be written, or features.json is damaged.
    """
    arrays: dict[str, np.ndarray] = {}
    described = {
        'side': self.side,
        'scaling': self.scaling,
        'num_training_rows': self.num_training_rows,
        'id_name': self.id_name,
        'num_dense_columns': len(self.dense_names),
        'num_sparse_columns': len(self.sparse_names),
        'num_token_columns': sum(t.stop - t.start for t in self.token_features),
        'notes': self.notes,
        'columns': {
            name: dataclasses.asdict(kind)
            for name, kind in self.columns.items()
        },
        'features': [fitted.pack(arrays) for fitted in self.features],
    }
    encoder_files.save(folder, side, described, arrays)


def fit(
    features: Sequence[config.Feature],
    scaling: str,
    entities: schema.Entities,
    train_rows: np.ndarray,
    seed: int = 0,
    side: str = 'item',
    group: str = 'content',
    vocabularies: Mapping[str, np.ndarray] | None = None,
) -> Encoder:
  """Fits the features of one group of one side on its training rows.

  Args:
    features: settings of all of the side; none of the group gives content
      without columns.
    scaling: of the dense content: 'row', 'column' or 'none'.
    entities: the table; only its training rows are looked at.
    train_rows: int [N], rows with training pairs, in any order.
    seed: of truncated SVDs. The same seed gives the same bits.
    side: 'user' or 'item', for messages.
    group: 'content' or 'preference', which of the features to fit.
    vocabularies: of embedding tables (vocabularies.fit); None takes those of
      this side alone.

  Returns:
    The encoder.

  Raises:
    UserError: a column is missing or does not fit its feature, there are no
      training rows, no value is frequent enough, or a rank is too large.
  """
  training = vocabularies_lib.training_rows(
      side, features, entities, train_rows
  )
  if vocabularies is None:
    vocabularies, _ = vocabularies_lib.fit([training])
  fitted, notes = [], []
  for number, feature in enumerate(features):
    if feature.group == group:
      one, told = fitted_feature.fit(
          number, feature, training, vocabularies, scaling, seed
      )
      fitted.append(one)
      notes += [f'Feature of {side}s {note}' for note in told]
  return Encoder(
      side,
      scaling,
      tuple(fitted),
      len(training.rows),
      training.entities.id_name,
      tuple(notes),
      column_types.of_features([one.feature for one in fitted], entities),
  )


def load(folder: str, side: str) -> Encoder:
  """Reads what `Encoder.save` wrote.

  Raises:
    UserError: a file is missing or damaged, or there is no such side.
  """
  described, arrays = encoder_files.load(folder, side)
  try:
    return Encoder(
        described['side'],
        described['scaling'],
        tuple(
            fitted_feature.unpack(one, arrays) for one in described['features']
        ),
        described['num_training_rows'],
        described['id_name'],
        tuple(described['notes']),
        {
            name: column_types.ColumnType(**kind)
            for name, kind in described['columns'].items()
        },
    )
  except (KeyError, TypeError) as error:
    raise errors.UserError(
        f'{folder}: features.json does not describe the features of side '
        f'{side!r} ({error!r}). Remove the run folder and train again.'
    ) from error


def _flat(lists: Iterable[list[str]]) -> list[str]:
  return list(itertools.chain.from_iterable(lists))
