# SPDX-License-Identifier: Apache-2.0
"""Both groups of features of users and items: fitted, kept, applied to rows.

The features of the group 'preference' have an encoder of their own, kept beside
that of the content under the name of the side with '_preference'. Embedding
tables have one numbering on both sides.
"""

from collections.abc import Mapping
import dataclasses

import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax.data import encoder_files
from dropoutnet_jax.data import features
from dropoutnet_jax.data import problem
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import vocabularies

NAMES = ('user', 'item')


@dataclasses.dataclass(frozen=True, eq=False)
class SideEncoder:
  """Fitted features of one side.

  Attributes:
    content: of the group 'content'.
    preference: of the group 'preference'; without features where there are
      none.
  """

  content: features.Encoder
  preference: features.Encoder

  @property
  def notes(self) -> tuple[str, ...]:
    return (*self.content.notes, *self.preference.notes)

  def transform(self, entities: schema.Entities) -> problem.Side:
    """Encodes any rows, each on its own (features.Encoder.transform).

    Raises:
      UserError: a column is missing or does not fit its feature.
    """
    content = self.content.transform(entities)
    preference = self.preference.transform(entities)
    return problem.Side(
        entities.ids,
        content.dense,
        content.sparse,
        content.tokens,
        preference.dense,
        preference.tokens,
        preference.known,
    )

  def save(self, folder: str) -> None:
    """Writes features_{side}.npz, its part of features.json, and so on.

    Raises:
      UserError: a file can't be written, or features.json is damaged.
    """
    side = self.content.side
    self.content.save(folder, side)
    if self.preference.features:
      self.preference.save(folder, _preference_name(side))


def fit(
    settings: config.FeaturesConfig,
    entities: Mapping[str, schema.Entities],
    train_rows: Mapping[str, np.ndarray],
    seed: int,
) -> tuple[dict[str, SideEncoder], list[str]]:
  """Fits all features on training rows alone.

  Args:
    settings: validated.
    entities: tables by side, 'user' and 'item'.
    train_rows: int [N] of each, rows with training pairs.
    seed: of truncated SVDs.

  Returns:
    Encoders by side, and notes for the user.

  Raises:
    UserError: see features.fit.
  """
  training = [
      vocabularies.training_rows(
          side, getattr(settings, side), entities[side], train_rows[side]
      )
      for side in NAMES
  ]
  vocabulary_of, notes = vocabularies.fit(training)
  found = {}
  for one in training:
    content, preference = (
        features.fit(
            one.features,
            settings.scaling,
            one.entities,
            one.rows,
            seed,
            one.side,
            group,
            vocabulary_of,
        )
        for group in ('content', 'preference')
    )
    found[one.side] = SideEncoder(content, preference)
    notes += found[one.side].notes
  return found, notes


def load(folder: str, side: str) -> SideEncoder:
  """Reads what `SideEncoder.save` wrote.

  Raises:
    UserError: a file is missing or damaged, or there is no such side.
  """
  content = features.load(folder, side)
  name = _preference_name(side)
  if name in encoder_files.sides(folder):
    return SideEncoder(content, features.load(folder, name))
  return SideEncoder(
      content, dataclasses.replace(content, features=(), notes=())
  )


def _preference_name(side: str) -> str:
  return f'{side}_preference'
