# SPDX-License-Identifier: Apache-2.0
"""What a form for new users or items needs to know of a run's columns."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dropoutnet_jax.data import encoders
from dropoutnet_jax.data import features
from dropoutnet_jax.data import fitted_feature
from dropoutnet_jax.data import number_encoder
from dropoutnet_jax.data import tag_encoder

_SUGGESTED = 300  # values of a column at most
_SPREAD = 2.0  # standard deviations around the mean


def of_encoder(encoder: features.Encoder) -> list[dict[str, Any]]:
  """The columns of content of one side.

  Returns:
    Of each column its 'name' and 'kind' (as `column_types.ColumnType`), the
    'width' of a vector, 'values' that training knew, where they have names
    (frequent tags first), and the 'range' [low, high] of most numbers or None.
    'text' says that a string is made of words.
  """
  found: dict[str, dict[str, Any]] = {
      name: {
          'name': name,
          'kind': kind.kind,
          'width': kind.width,
          'values': [],
          'range': None,
          'text': False,
      }
      for name, kind in encoder.columns.items()
  }
  for fitted in encoder.features:
    column = found.get(fitted.feature.column)
    if column is not None and not fitted.feature.columns:
      column['text'] |= fitted.feature.kind == 'text'
      column['values'] = column['values'] or _values(fitted)
      column['range'] = column['range'] or _range(fitted.encoder)
  return list(found.values())


def _values(fitted: fitted_feature.FittedFeature) -> list[str]:
  """Some of what training knew of a column, where that has names."""
  encoder = fitted.encoder
  if fitted.feature.kind == 'text' or fitted.feature.pieces != 'whole':
    return []  # words and pieces of names are no values
  if isinstance(encoder, encoders.CategoryEncoder):
    return list(encoder.values[:_SUGGESTED])
  if isinstance(encoder, tag_encoder.TagEncoder) and encoder.names is not None:
    # The idf of a frequent tag is low.
    order = np.argsort(encoder.weight, kind='stable')
    return encoder.names[order[:_SUGGESTED]].tolist()
  if fitted.tokens is not None and fitted.feature.kind in (
      'category',
      'sequence',
      'tags',
  ):
    return fitted.tokens.vocabulary[:_SUGGESTED].tolist()
  return []


def _range(encoder: object) -> list[float] | None:
  """Where most numbers of training are."""
  if not isinstance(encoder, number_encoder.NumericEncoder):
    return None
  if len(encoder.has_presence) != 1:
    return None
  if encoder.transform in ('min_max', 'quantile'):
    return [float(encoder.knots[0, 0]), float(encoder.knots[0, -1])]
  if not len(encoder.mean):
    return None
  ends = [encoder.mean[0] + sign * _SPREAD * encoder.std[0] for sign in (-1, 1)]
  if encoder.transform == 'log1p':
    ends = [max(float(np.expm1(end)), 0.0) for end in ends]
  return [float(f'{end:.4g}') for end in ends]


def about(content: Mapping[str, Any], most: int = 4) -> str:
  """A few words on content that a request told: 'drama, 1997, sea'."""
  words: list[str] = []
  for name, value in content.items():
    if isinstance(value, (str, int, float)):
      words.append(f'{name}={value}')
    elif value and all(isinstance(x, str) for x in value):
      words += [f'{name}={x}' for x in value]
  return ', '.join(words[:most])
