# SPDX-License-Identifier: Apache-2.0
"""What a tower sees of its rows: content, and preference joined of its parts.

Content is known from the start. Preference comes with interactions and may
have four parts: the teacher's factors or the mean of a history, columns of
features, statistics, and tokens of features that embeddings are learnt for.
Input dropout takes all of them away at once, so that a dropped row, a cold one
and one of which nothing is known are the same input, bit for bit.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.data import tokens as tokens_lib
from dropoutnet_jax.model import input_dropout


class Content(NamedTuple):
  """Content of B rows.

  Attributes:
    dense: float32 [B, F].
    tokens: what embeddings are looked up for; None where no feature has any.
  """

  dense: jax.Array
  tokens: tokens_lib.Tokens | None = None


def content(side: tables_lib.SideTable, rows: jax.Array) -> Content:
  """Content of rows [B]."""
  tokens = None if side.tokens is None else side.tokens[rows]
  return Content(side.content[rows], tokens)


def preference(
    side: tables_lib.SideTable,
    rows: jax.Array,
    own: input_dropout.Preference,
    history: input_dropout.Preference,
    state: jax.Array,
    scale: jax.Array | None = None,
    counted: input_dropout.Preference | None = None,
) -> input_dropout.Preference:
  """All preference that a tower sees of rows in these states.

  Args:
    side: the side that the rows belong to.
    rows: int32 [B].
    own: their factors or history means, as they are.
    history: what a transform replaces these by.
    state: int32 [B], of `input_dropout`.
    scale: float32 [], factor on all of it; None for 1.
    counted: their statistics, without what is being trained on; None where
      there are none.
  """
  return join_preference(
      input_dropout.apply_states(own, history, state),
      state != input_dropout.DROPPED,
      None if side.features is None else side.features[rows],
      counted,
      scale,
  )


def join_preference(
    own: input_dropout.Preference,
    kept: jax.Array,
    features: tables_lib.PreferenceFeatures | None = None,
    statistics: input_dropout.Preference | None = None,
    scale: jax.Array | None = None,
) -> input_dropout.Preference:
  """All that a tower sees as the preference of B rows.

  A transform replaces factors by the mean of a history and leaves the rest as
  it is: a transformed row stands for one with few interactions, whose features
  are known as well. Only a dropped row loses them.

  Args:
    own: factors or history means, [B, P] and [B], as `apply_states` made them.
    kept: bool [B], False for rows that input dropout takes everything from.
    features: of the rows; None where the side has none.
    statistics: value [B, S] and presence [B] of what is counted in
      interactions, without the pair in training; None where nothing is.
    scale: float32 [], factor on all parts; None for 1.

  Returns:
    Preference, present where any part is; exactly zero, with tokens of id and
    weight 0, in every part that is not.
  """
  present, columns, tokens = own.present, [], None
  if features is not None:
    shown = kept & features.known
    present |= shown
    columns.append(jnp.where(shown[:, None], features.dense, 0.0))
    tokens = jax.tree.map(
        lambda x: jnp.where(shown[:, None], x, jnp.zeros((), x.dtype)),
        features.tokens,
    )
  if statistics is not None:
    shown = kept & statistics.present
    present |= shown
    columns.append(jnp.where(shown[:, None], statistics.value, 0.0))
  value = own.value
  joined = jnp.concatenate(columns, axis=1) if columns else None
  if scale is not None:
    value = value * scale
    joined = None if joined is None else joined * scale
  return input_dropout.Preference(value, present, joined, tokens, scale)


def all_tokens(
    side: tables_lib.SideTable, rows: jax.Array
) -> list[tokens_lib.Tokens]:
  """Tokens of rows [B]: of content and of preference, dropped or not."""
  found = []
  if side.tokens is not None:
    found.append(side.tokens[rows])
  if side.features is not None:
    found.append(side.features.tokens[rows])
  return found


def blank_row(
    side: tables_lib.SideTable,
) -> tuple[input_dropout.Preference, Content]:
  """A row of which nothing is known, to make parameters of a table's widths."""
  blank = lambda tree: jax.tree.map(
      lambda x: jnp.zeros((1, *x.shape[1:]), x.dtype), tree
  )
  own = input_dropout.Preference(blank(side.preference), blank(side.present))
  counted = None
  if side.counts is not None:
    value = jnp.zeros((1, side.counts.width))
    counted = input_dropout.Preference(value, own.present)
  preference = join_preference(own, own.present, blank(side.features), counted)
  return preference, Content(blank(side.content), blank(side.tokens))
