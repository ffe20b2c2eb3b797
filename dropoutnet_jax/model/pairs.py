# SPDX-License-Identifier: Apache-2.0
"""Ordered pairs of a batch: what they cost, which count and which are hardest.

A pair is two rows of one session, the first with the larger label. Its weight
is that of the first row; rows of weight 0 are in no pair.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dropoutnet_jax.model import loss_inputs
from dropoutnet_jax.model import row_chunks

KINDS = ('logistic', 'hinge', 'focal')
_FOCAL_GAMMA = 2.0  # the paper's
# Of what a float32's bits become in `_float_at`: -inf and +inf.
_FIRST, _LAST = -2139095041, 2139095040


class Rows(NamedTuple):
  """B rows, each as either side of pairs.

  Attributes:
    label: float32 [B].
    weight: float32 [B] >= 0.
    session: int32 [B].
    order: float32 [B]; of two pairs, the one with the smaller difference of it
      is the harder.
  """

  label: jax.Array
  weight: jax.Array
  session: jax.Array
  order: jax.Array


class Selection(NamedTuple):
  """The hardest pairs: below `bound` all, at it a share, above it none."""

  bound: jax.Array
  share_at_bound: jax.Array


def make_rows(
    label: jax.Array, weight: jax.Array, session: jax.Array | None
) -> Rows:
  """Rows of arrays [B], all in one session for None.

  Raises:
    ValueError: if shapes differ.
  """
  if session is None:
    session = jnp.zeros(weight.shape, jnp.int32)
  loss_inputs.check_same_shape(label=label, weight=weight, session=session)
  label, weight = jax.lax.stop_gradient((label, weight))
  label = loss_inputs.kept(label, weight)
  weight = loss_inputs.kept(weight, weight)
  return Rows(label, weight, jnp.asarray(session), jnp.zeros_like(label))


def chunk_sum(
    kind: str,
    margin: float,
    label_margin: bool,
    shared: tuple[jax.Array, jax.Array],
    score: jax.Array,
    fixed: tuple[Rows, Selection | None],
    rows: Rows,
) -> jax.Array:
  """Weighted cost of the pairs that a chunk of rows comes first in: []."""
  (second_score, temperature), (second, selection) = shared, fixed
  x = (score[:, None] - second_score[None, :]) / temperature
  if label_margin:
    x -= rows.label[:, None] - second.label[None, :]
  else:
    x -= margin
  cost = jax.nn.relu(-x) if kind == 'hinge' else jax.nn.softplus(-x)
  if kind == 'focal':
    cost *= jax.nn.sigmoid(-x) ** _FOCAL_GAMMA
  return jnp.sum(cost * weights(rows, second, selection))


def counts(rows: Rows) -> jax.Array:
  """In how many pairs each row comes first: int32 [B].

  By sorting, so that nothing of size B x B is needed.
  """
  position = jnp.arange(rows.label.shape[0])
  counted = rows.weight > 0
  ranks = jnp.lexsort((rows.label, rows.session, ~counted))

  def starts(array: jax.Array) -> jax.Array:
    ranked = array[ranks]
    return (position == 0) | (ranked != jnp.roll(ranked, 1))

  new_session = starts(counted) | starts(rows.session)
  new_label = new_session | starts(rows.label)
  first_of_session, first_of_label = (
      jax.lax.cummax(jnp.where(new, position, 0))
      for new in (new_session, new_label)
  )
  smaller = (
      jnp.zeros_like(position).at[ranks].set(first_of_label - first_of_session)
  )
  return jnp.where(counted, smaller, 0)


def weights(
    first: Rows, second: Rows, selection: Selection | None = None
) -> jax.Array:
  """Weight of each pair: float32 [C, B], 0 where it does not count.

  Args:
    first: C rows.
    second: B rows.
    selection: of the hardest pairs, or None for all.
  """
  counted = (
      (first.label[:, None] > second.label[None, :])
      & (first.session[:, None] == second.session[None, :])
      & (second.weight[None, :] > 0)
  )
  weight = jnp.where(counted, first.weight[:, None], 0.0)
  if selection is None:
    return weight
  # NaN is neither above nor at the bound: it is kept, and so it shows.
  gap = first.order[:, None] - second.order[None, :]
  at_bound = jnp.where(gap == selection.bound, selection.share_at_bound, 1.0)
  return weight * jnp.where(gap > selection.bound, 0.0, at_bound)


def hardest(
    rows: Rows,
    weight: jax.Array,
    over_rows: row_chunks.OverRows = row_chunks.on_one_device,
) -> Selection:
  """Selects the hardest pairs of a total weight [], exactly.

  The bound is a quantile of the differences of `order`, found bit by bit: each
  of 32 passes over the pairs halves what the bound can be, so that no list of
  pairs is made or sorted. Pairs at the bound share what is left of the weight.
  """

  def below(
      bound: jax.Array, within: Callable[[jax.Array, jax.Array], jax.Array]
  ) -> jax.Array:
    def chunk_sum(
        shared: None, none: None, fixed: tuple[Rows, jax.Array], first: Rows
    ) -> jax.Array:
      del shared, none
      second, bound = fixed
      gap = first.order[:, None] - second.order[None, :]
      return jnp.sum(jnp.where(within(gap, bound), weights(first, second), 0.0))

    # In chunks, as in the loss: see `sum_over_rows`.
    return row_chunks.sum_over_rows(
        chunk_sum,
        None,
        None,
        (rows, bound),
        rows,
        least_chunks=2,
        over_rows=over_rows,
    )

  def halve(
      _: jax.Array, ends: tuple[jax.Array, jax.Array]
  ) -> tuple[jax.Array, jax.Array]:
    low, high = ends
    middle = (low & high) + ((low ^ high) >> 1)  # a sum would overflow
    enough = below(_float_at(middle), jnp.less_equal) >= weight
    return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

  ends = (jnp.int32(_FIRST), jnp.int32(_LAST))
  bound = _float_at(jax.lax.fori_loop(0, 32, halve, ends)[1])
  at_bound = below(bound, jnp.equal)
  left = weight - below(bound, jnp.less)
  share = left / jnp.where(at_bound > 0, at_bound, 1.0)
  return Selection(bound, jnp.clip(share, 0.0, 1.0))


def _float_at(place: jax.Array) -> jax.Array:
  """The float32 at an int32 place in the order of all of them."""
  bits = jnp.where(place < 0, place ^ 0x7FFFFFFF, place)
  return jax.lax.bitcast_convert_type(bits, jnp.float32)
