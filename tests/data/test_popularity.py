# SPDX-License-Identifier: Apache-2.0
"""Draws by popularity against exact laws; how often items are met."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax.data import popularity


@pytest.mark.parametrize('power', [0.0, 0.75, 1.0, -1.0, 50.0])
def test_popularity_table_has_exact_shares(power):
  count = np.array([0, 3, 1, 0, 8, 2, 0])
  table = popularity.popularity_table(count, power)
  powers = {i: float(c) ** power for i, c in enumerate(count) if c}
  share = np.array([x / math.fsum(powers.values()) for x in powers.values()])
  np.testing.assert_array_equal(table.item, list(powers))
  width = np.diff(np.append(table.start.astype(np.int64), 2**32))
  np.testing.assert_allclose(width / 2**32, share, rtol=0, atol=2**-31)
  np.testing.assert_allclose(
      table.log_probability[table.item], np.log(share), rtol=1e-5, atol=1e-7
  )
  assert np.isneginf(table.log_probability[count == 0]).all()
  assert table.item.dtype == np.int32 and table.start.dtype == np.uint32


def test_samples_follow_the_table():
  count = np.array([5, 0, 1, 0, 4, 0])
  table = popularity.popularity_table(count, 1.0)
  drawn = popularity.sample_items(jax.random.key(1), table, (100, 200))
  assert drawn.dtype == jnp.int32 and drawn.shape == (100, 200)
  found = np.bincount(np.ravel(drawn), minlength=6)
  assert found.sum() == 20_000 and not found[count == 0].any()
  share = count / 10
  deviation = np.sqrt(20_000 * share * (1 - share))
  assert (np.abs(found - 20_000 * share) <= 4 * deviation).all()
  again = popularity.sample_items(jax.random.key(1), table, (100, 200))
  np.testing.assert_array_equal(drawn, again)


@pytest.mark.parametrize('draw', [0, 2**31 - 1, 2**31, 2**32 - 1])
def test_the_ends_of_every_share_are_drawn_from_it(draw, monkeypatch):
  """Halves; whole numbers above the largest int32 must not become negative."""
  bits = lambda key, shape, dtype: jnp.full(shape, draw, dtype)
  monkeypatch.setattr(jax.random, 'bits', bits)
  table = popularity.popularity_table(np.array([0, 7, 0, 7, 0]), 0.5)
  got = popularity.sample_items(jax.random.key(0), table, (2,))
  assert got.tolist() == [1 if draw < 2**31 else 3] * 2


def test_rare_items_of_a_large_catalogue_keep_their_share():
  count = np.ones(1_000_000)
  count[0] = 1e7
  table = popularity.popularity_table(count, 1.0)
  width = np.diff(np.append(table.start.astype(np.int64), 2**32))
  exact = 2**32 / (1e7 + 999_999)
  assert (np.abs(width[1:] - exact) < 1 + 1e-3).all()


def test_log_frequency_is_that_of_draws():
  count = np.array([1, 3, 0, 6])
  got = popularity.log_frequency(count)
  assert got.dtype == np.float32
  # None counts as if it had one.
  np.testing.assert_allclose(np.exp(got), [0.1, 0.3, 0.1, 0.6], rtol=1e-6)
  draws = np.random.default_rng(0).choice(4, (50_000, 3), p=count / 10)
  occurrences = np.mean(np.sum(draws == 1, axis=1))
  assert 3 * np.exp(got[1]) == pytest.approx(occurrences, abs=0.01)


def test_log_frequency_of_extremes():
  np.testing.assert_array_equal(
      popularity.log_frequency([0, 5]), np.float32(np.log([0.2, 1.0]))
  )
  rare = popularity.log_frequency(np.array([1.0, 1e12]))
  assert rare[0] == pytest.approx(math.log(1e-12), rel=1e-6)


@pytest.mark.parametrize(
    'count, message',
    [
        ([1, -2], r'count\[1\] is -2.0: not finite and >= 0'),
        ([1, 2, math.nan], r'count\[2\] is nan'),
        ([0, 0], 'No item has interactions'),
        ([], 'No item has interactions'),
    ],
)
def test_wrong_counts(count, message):
  with pytest.raises(ValueError, match=message):
    popularity.popularity_table(np.array(count), 1.0)
  with pytest.raises(ValueError, match=message):
    popularity.log_frequency(np.array(count))
