# SPDX-License-Identifier: Apache-2.0
"""Rates of input dropout in a run, and the factors that follow from them."""

from typing import NamedTuple

import jax

from dropoutnet_jax import config
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.model import input_dropout


class Rates(NamedTuple):
  """Dropout rates of this run, sides without content already spared."""

  user: input_dropout.Rates
  item: input_dropout.Rates
  pair: input_dropout.ModeRates


def effective_rates(
    settings: config.DropoutConfig, tables: tables_lib.Tables
) -> Rates:
  """Rates per side; 0 for a side without content, unless asked otherwise.

  A dropped row without content is a constant input: regressing onto many
  different targets from it teaches nothing (half of the published pairs on
  CiteULike are of this kind). Where a pair would lose both sides, the side
  with content still loses its own.
  """
  keep = settings.drop_without_content
  user = float(keep or tables.user.has_content)
  item = float(keep or tables.item.has_content)
  s = settings
  return Rates(
      input_dropout.Rates(user * s.user_rate, s.user_transform_rate),
      input_dropout.Rates(item * s.item_rate, s.item_transform_rate),
      input_dropout.ModeRates(
          user * (s.drop_user + (1.0 - item) * s.drop_both),
          item * (s.drop_item + (1.0 - user) * s.drop_both),
          user * item * s.drop_both,
          s.user_transform,
          s.item_transform,
      ),
  )


def kept_scales(
    settings: config.DropoutConfig, rates: Rates
) -> tuple[jax.Array | None, jax.Array | None]:
  """Factors on what users and items keep, at the rates of a step."""
  if not settings.rescale_kept:
    return None, None
  user, item = rates.user.drop, rates.item.drop
  if settings.kind == 'exclusive':
    user = rates.pair.drop_user + rates.pair.drop_both
    item = rates.pair.drop_item + rates.pair.drop_both
  return input_dropout.kept_scale(user), input_dropout.kept_scale(item)
