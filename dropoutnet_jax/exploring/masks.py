# SPDX-License-Identifier: Apache-2.0
"""Masks of input dropout at serving: what a pass takes from a row.

Of a row with n interactions each is as if dropped with the rate that training
had, at most 1/2. All are with chance rate^n: then its preference is dropped, as
in training. Else a mask over the entries of the preference, with a chance of
rate / (rate + n (1 - rate)), moves it as much as dropping single interactions
moves a mean over them. Entries of the content are dropped with the chance
CONTENT / (CONTENT + (1 - CONTENT) (1 + n)): the variance of what is kept falls
as 1 / (1 + n), so that what is new is less sure than what is known, and grows
surer with what it meets.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import blocks
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.model import input_dropout
from dropoutnet_jax.model import tower_inputs
from dropoutnet_jax.training import dropout_rates

CONTENT = 0.2  # of the entries of a row without interactions
_MOST = 0.5  # of the preference, whatever the rate of training


class Rates(NamedTuple):
  """Rates at which single interactions are as if dropped, by side."""

  user: float
  item: float

  def of(self, side: str) -> float:
    """That of 'user' or 'item'."""
    return self.user if side == 'user' else self.item


def rates_of(cfg: config.Config, tables: tables_lib.Tables) -> Rates:
  """Rates of a run, at most 1/2; 0 for a side that training never dropped.

  Raises:
    UserError: if it dropped neither, so that towers do not know such inputs.
  """
  rates = dropout_rates.effective_rates(cfg.dropout, tables)
  if cfg.dropout.kind == 'exclusive':
    found = Rates(
        float(rates.pair.drop_user + rates.pair.drop_both),
        float(rates.pair.drop_item + rates.pair.drop_both),
    )
  else:
    found = Rates(float(rates.user.drop), float(rates.item.drop))
  if not any(found):
    raise errors.UserError(
        'This run was trained without input dropout, so that what its towers '
        'make of masked inputs says nothing: ucb and thompson need it with '
        'spread masks. Take spread belief, greedy or epsilon, or train with '
        'config.dropout.item_rate above 0.'
    )
  return Rates(*(min(rate, _MOST) for rate in found))


def preference(
    key: jax.Array,
    own: input_dropout.Preference,
    count: jax.Array,
    rate: float,
) -> tuple[input_dropout.Preference, jax.Array]:
  """Masks factors or history means.

  Args:
    key: of the pass.
    own: as they are, [B, P] and [B].
    count: int32 [B], interactions; one with a preference has at least 1.
    rate: of an interaction.

  Returns:
    The preference with masked entries, and the state int32 [B] of its row.
  """
  count = jnp.maximum(count, 1)
  keys = jax.random.split(key)
  is_dropped = jax.random.uniform(keys[0], count.shape) < rate**count
  chance = rate / (rate + count * (1 - rate))[:, None]
  kept = jax.random.uniform(keys[1], own.value.shape) >= chance
  value = jnp.where(kept, own.value / (1 - chance), 0.0)
  state = jnp.where(is_dropped, input_dropout.DROPPED, input_dropout.AS_IS)
  return own._replace(value=value), state


def content(
    key: jax.Array,
    whole: tower_inputs.Content,
    count: jax.Array,
    keeps_norm: bool,
) -> tower_inputs.Content:
  """Masks entries of dense content, and tokens.

  Args:
    key: of the pass.
    whole: of B rows.
    count: int32 [B], interactions.
    keeps_norm: whether rows are scaled to a norm, as in features.scaling 'row':
      what is left gets the norm of all.
  """
  chance = _content_chance(count)[:, None]
  keys = jax.random.split(key)
  dense, tokens = whole
  kept = jax.random.uniform(keys[0], dense.shape) >= chance
  masked = jnp.where(kept, dense, 0.0)
  if keeps_norm:
    before, after = (
        jnp.linalg.norm(x, axis=1, keepdims=True) for x in (dense, masked)
    )
    masked = masked * before / jnp.where(after > 0, after, 1.0)
  if tokens is not None:
    kept = jax.random.uniform(keys[1], tokens.id.shape) >= chance
    tokens = jax.tree.map(
        lambda x: jnp.where(kept, x, jnp.zeros((), x.dtype)), tokens
    )
  return tower_inputs.Content(masked, tokens)


def _content_chance(count: jax.typing.ArrayLike) -> jax.Array:
  return CONTENT / (CONTENT + (1 - CONTENT) * (1 + jnp.asarray(count)))


def sparse_content(
    rng: np.random.Generator, whole: scipy.sparse.csr_array, count: np.ndarray
) -> scipy.sparse.csr_array:
  """Masks entries of sparse content [N, T]; rows have norm 1 again, or none."""
  row = np.repeat(np.arange(whole.shape[0]), np.diff(whole.indptr))
  chance = np.asarray(_content_chance(count))[row]
  kept = rng.random(len(row)) >= chance
  masked = with_values(whole, np.where(kept, whole.data[: len(row)], 0)).copy()
  masked.eliminate_zeros()  # in place
  return blocks.unit_rows(masked)


def with_values(
    matrix: scipy.sparse.csr_array, values: np.ndarray
) -> scipy.sparse.csr_array:
  """The matrix [N, M] with other values [Z] at the same places.

  Arrays of a sum may be longer than what is stored.
  """
  places = matrix.indices[: len(values)], matrix.indptr
  return scipy.sparse.csr_array((values, *places), shape=matrix.shape)
