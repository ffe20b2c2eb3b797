# SPDX-License-Identifier: Apache-2.0
"""Masks: what is dropped how often, and that little of the known is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import tokens as tokens_lib
from dropoutnet_jax.exploring import masks
from dropoutnet_jax.model import input_dropout
from dropoutnet_jax.model import tower_inputs
from tests import compilation

_ROWS = 4000


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  with compilation.quick_compilation():
    yield


def _preference(count, rate, width=3):
  own = input_dropout.Preference(
      jnp.ones((_ROWS, width)), jnp.ones(_ROWS, bool)
  )
  found, state = masks.preference(
      jax.random.key(0), own, jnp.full(_ROWS, count), rate
  )
  return np.asarray(found.value), np.asarray(state)


@pytest.mark.parametrize('count', [0, 1, 3, 20])
def test_a_mask_varies_as_a_mean_over_what_is_kept_of_the_history(count):
  """A preference of 1s: mean 1, variance rate / (1 - rate) / count."""
  rate, many = 0.4, max(count, 1)
  value, state = _preference(count, rate)
  dropped = np.mean(state == input_dropout.DROPPED)
  assert dropped == pytest.approx(rate**many, abs=0.03)
  assert value.mean() == pytest.approx(1, abs=0.04)
  variance = rate / (1 - rate) / many
  assert value.var() == pytest.approx(variance, rel=0.1)


def test_a_side_that_was_never_dropped_keeps_its_preference():
  value, state = _preference(1, 0.0)
  assert (value == 1).all() and (state == input_dropout.AS_IS).all()


@pytest.mark.parametrize('count', [0, 4])
def test_content_loses_less_the_more_is_known(count):
  rng = np.random.default_rng(0)
  dense = rng.normal(size=(_ROWS, 5)).astype(np.float32)
  tokens = tokens_lib.Tokens(
      np.ones((_ROWS, 2), np.int32), np.full((_ROWS, 2), 0.5, np.float32)
  )
  whole = tower_inputs.Content(jnp.asarray(dense), tokens)
  counts = jnp.full(_ROWS, count)
  found = masks.content(jax.random.key(1), whole, counts, False)
  lost = masks.CONTENT / (masks.CONTENT + (1 - masks.CONTENT) * (1 + count))
  # What is kept, over its expectation, has variance lost / (1 - lost).
  share = masks.CONTENT / (1 - masks.CONTENT) / (1 + count)
  assert lost / (1 - lost) == pytest.approx(share)
  kept = np.asarray(found.dense)
  assert np.mean(kept == 0) == pytest.approx(lost, abs=0.01)
  assert (kept[kept != 0] == dense[kept != 0]).all()
  assert np.mean(np.asarray(found.tokens.id) == 0) == pytest.approx(
      lost, abs=0.02
  )
  np.testing.assert_array_equal(
      np.asarray(found.tokens.weight), 0.5 * np.asarray(found.tokens.id)
  )
  scaled = np.asarray(
      masks.content(jax.random.key(1), whole, counts, True).dense
  )
  norm = np.linalg.norm(scaled, axis=1)
  some = kept.any(axis=1)
  np.testing.assert_allclose(
      norm[some], np.linalg.norm(dense, axis=1)[some], rtol=1e-5
  )
  assert not norm[~some].any()


def test_sparse_content_keeps_its_norm_and_the_original():
  whole = scipy.sparse.csr_array(
      np.random.default_rng(0).random((400, 6)).astype(np.float32)
  )
  before = whole.toarray()
  count = np.repeat([0, 9], 200)
  found = masks.sparse_content(np.random.default_rng(1), whole, count)
  np.testing.assert_array_equal(whole.toarray(), before)
  lost = (found.toarray() == 0).reshape(2, -1).mean(axis=1)
  np.testing.assert_allclose(lost, [0.2, 0.2 / 8.2], atol=0.03)
  norm = np.sqrt((found**2).sum(axis=1))
  np.testing.assert_allclose(norm[np.diff(found.indptr) > 0], 1, rtol=1e-5)


class _Tables:
  """As much of tables as rates read."""

  def __init__(self, user=True, item=True):
    side = lambda has: type('Side', (), {'has_content': has})()
    self.user, self.item = side(user), side(item)


def _rates(tables=_Tables(), **dropout):
  cfg = config.Config(dropout=config.DropoutConfig(**dropout))
  return masks.rates_of(cfg, tables)


def test_rates_are_those_of_training_and_at_most_a_half():
  assert _rates(user_rate=0.2, item_rate=0.9) == (0.2, 0.5)
  assert _rates(kind='exclusive', drop_user=0.1, drop_both=0.2) == (
      pytest.approx((0.3, 0.4))
  )
  assert _rates(_Tables(user=False)) == (0.0, 0.5)


def test_without_dropout_in_training_there_are_no_masks():
  with pytest.raises(errors.UserError, match='without input dropout'):
    _rates(user_rate=0.0, item_rate=0.0)
  with pytest.raises(errors.UserError, match='config.dropout.item_rate above'):
    _rates(kind='exclusive', drop_user=0.0, drop_item=0.0, drop_both=0.0)
