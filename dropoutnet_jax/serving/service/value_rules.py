# SPDX-License-Identifier: Apache-2.0
"""Content of the right types that a feature of the run cannot use all the same.

A price of -3 is a number, but has no logarithm. The features themselves are
asked, before a request waits for the model.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax.data import bad_values
from dropoutnet_jax.data import column_types
from dropoutnet_jax.data import features
from dropoutnet_jax.serving.service import json_columns
from dropoutnet_jax.serving.service import refusals

_Content = Mapping[str, Any] | None


class ValueRules:
  """What the features of one side say of content."""

  def __init__(self, encoder: features.Encoder):
    """Keeps those features that can refuse anything."""
    self._encoder = encoder.select(
        [
            number
            for number, fitted in enumerate(encoder.features)
            if _can_refuse(fitted.feature, encoder.columns)
        ]
    )
    self._types = self._encoder.columns

  def check(self, rows: Sequence[_Content]) -> tuple[int, Any] | None:
    """The first of N rows that is refused: its place and the Refusal.

    Args:
      rows: of checked content (`json_columns.check`), None where there is none.
    """
    given = [
        place
        for place, row in enumerate(rows)
        if row is not None and not self._types.keys().isdisjoint(row)
    ]
    if (
        not given
        or self._refusal([rows[place] or {} for place in given]) is None
    ):
      return None
    # One by one, since a column of several may be another than that of one.
    for place in given:
      refusal = self._refusal([rows[place] or {}])
      if refusal is not None:
        return place, refusal
    return None

  def _refusal(
      self, rows: Sequence[Mapping[str, Any]]
  ) -> refusals.Refusal | None:
    """For one of the rows, which names no place but the column."""
    # Whatever comes in a turn, rows without the column may come with it.
    content = [*rows, {}]
    try:
      table = json_columns.to_entities(
          np.arange(len(content)), content, self._types
      )
      self._encoder.check(column_types.fill(table, self._types))
    except refusals.Refusal as refusal:
      return refusal
    except bad_values.BadValueError as error:
      value = rows[0].get(error.column)
      is_given = value is not None
      rule = error.rule.rstrip(',')
      if is_given and rule.startswith(bad_values.NO_CATEGORY):
        # Whole numbers of JSON are read in float64, in whatever company.
        rule = f'{bad_values.NO_CATEGORY} below 2**{bad_values.FLOAT64_BITS}'
      shown = (
          f' is {json_columns.shown(value)}' if is_given else ', as computed'
      )
      return refusals.Refusal(
          f'{error.column}{shown}: this run cannot use {rule}. Leave out what '
          'is not known.',
          code='bad_value',
          where=error.column if is_given else '',
      )
    return None


def _can_refuse(feature: config.Feature, types: json_columns.Types) -> bool:
  """Whether there is JSON of the right type that a feature cannot use."""
  own = types.get(feature.column)
  if feature.transform == 'log1p' or feature.kind in ('cross', 'lookup'):
    return True
  if own is None:
    return False
  # Weights of two tags that differ in blanks alone are added up.
  return own.kind == 'tags' or (
      own.kind == 'number' and feature.kind == 'category'
  )
