# SPDX-License-Identifier: Apache-2.0
"""Input dropout: exact states, frequencies, and one cold row for all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax.model import input_dropout as lib


def _preference(num_rows=4, width=3, seed=0, present=None):
  value = np.random.default_rng(seed).normal(size=(num_rows, width))
  if present is None:
    present = np.ones(num_rows, bool)
  value = np.where(np.asarray(present)[:, None], value, 0)
  return lib.Preference(jnp.asarray(value, jnp.float32), jnp.asarray(present))


def test_each_state_by_hand():
  own, history = _preference(seed=1), _preference(seed=2)
  states = jnp.array([lib.AS_IS, lib.DROPPED, lib.TRANSFORMED, lib.AS_IS])
  got = lib.apply_states(own, history, states)
  np.testing.assert_array_equal(got.value[0], own.value[0])
  np.testing.assert_array_equal(got.value[1], np.zeros(3))
  np.testing.assert_array_equal(got.value[2], history.value[2])
  np.testing.assert_array_equal(got.present, [True, False, True, True])


def test_kept_rows_are_not_rescaled():
  own = _preference(1000)
  states = lib.draw_states(jax.random.key(0), 1000, lib.Rates(0.5, 0.0))
  got = lib.apply_states(own, own, states)
  kept = np.asarray(got.present)
  assert 0 < kept.sum() < 1000
  np.testing.assert_array_equal(got.value[kept], own.value[kept])


@pytest.mark.parametrize(
    'rate, expected', [(0.0, 1.0), (0.5, 2.0), (0.75, 4.0), (1.0, 0.0)]
)
def test_what_is_kept_may_be_divided_by_its_share(rate, expected):
  assert lib.kept_scale(rate) == expected


def test_slopes_at_a_rate_of_one_are_finite():
  slope = jax.grad(lambda rate: lib.kept_scale(rate))
  assert slope(1.0) == 0
  np.testing.assert_allclose(slope(0.5), 4.0)


def test_dropped_cold_and_no_history_are_the_same_bits():
  dropped = lib.apply_states(
      _preference(1), _preference(1), jnp.array([lib.DROPPED])
  )
  nothing = _preference(1, present=[False])
  cold = lib.apply_states(nothing, _preference(1), jnp.array([lib.AS_IS]))
  no_history = lib.apply_states(
      _preference(1), nothing, jnp.array([lib.TRANSFORMED])
  )
  for other in (cold, no_history):
    for a, b in zip(dropped, other, strict=True):
      assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_gradient_of_a_dropped_row_is_zero():
  own = _preference(2)
  states = jnp.array([lib.DROPPED, lib.AS_IS])

  def total(value):
    preference = lib.Preference(value, own.present)
    return jnp.sum(lib.apply_states(preference, own, states).value)

  np.testing.assert_array_equal(jax.grad(total)(own.value), [[0] * 3, [1] * 3])


@pytest.mark.parametrize(
    'rates', [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.3, 0.2), (0.5, 0.5)]
)
def test_independent_frequencies(rates):
  count = 20_000
  states = lib.draw_states(jax.random.key(3), count, lib.Rates(*rates))
  share = np.bincount(np.asarray(states), minlength=3) / count
  expected = np.array([1 - sum(rates), *rates])
  # Five standard deviations of a binomial share; exact at 0 and 1.
  bound = 5 * np.sqrt(expected * (1 - expected) / count)
  assert np.all(np.abs(share - expected) <= bound + 1e-9)


def test_exclusive_modes_have_their_probabilities_and_no_others():
  count = 50_000
  rates = lib.ModeRates(0.3, 0.2, 0.1, 0.15, 0.05)
  user, item = lib.draw_pair_states(jax.random.key(4), count, rates)
  found = np.zeros((3, 3))
  np.add.at(found, (np.asarray(user), np.asarray(item)), 1 / count)
  expected = np.zeros((3, 3))
  expected[lib.DROPPED, lib.AS_IS] = 0.3
  expected[lib.AS_IS, lib.DROPPED] = 0.2
  expected[lib.DROPPED, lib.DROPPED] = 0.1
  expected[lib.TRANSFORMED, lib.AS_IS] = 0.15
  expected[lib.AS_IS, lib.TRANSFORMED] = 0.05
  expected[lib.AS_IS, lib.AS_IS] = 0.2
  bound = 5 * np.sqrt(expected * (1 - expected) / count)
  assert np.all(np.abs(found - expected) <= bound + 1e-9)


def test_exclusive_without_rates_leaves_all_as_they_are():
  user, item = lib.draw_pair_states(
      jax.random.key(0), 100, lib.ModeRates(0, 0, 0, 0, 0)
  )
  assert not np.any(user) and not np.any(item)


def test_history_mean_leaves_out_the_pair():
  other = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 9.0]], np.float32)
  total = jnp.asarray(other.sum(axis=0, keepdims=True))
  got = lib.history_mean(
      total, jnp.array([3]), jnp.asarray(other[2:]), jnp.array([1])
  )
  np.testing.assert_allclose(got.value, [[2.0, 3.0]])
  assert bool(got.present[0])


def test_history_of_only_the_pair_is_absent():
  value = jnp.array([[1.5, -2.0]])
  got = lib.history_mean(value, jnp.array([1]), value, jnp.array([1]))
  np.testing.assert_array_equal(got.value, [[0.0, 0.0]])
  assert not bool(got.present[0])


@pytest.mark.parametrize(
    'schedule, start, expected',
    [
        ('linear', 0.0, {0: 0, 4: 0.4, 5: 0.5, 10: 1, 99: 1}),
        ('linear', 0.5, {0: 0.5, 4: 0.7, 10: 1, 99: 1}),
        # Half a period: 3 of 12 steps are 45 degrees.
        ('cosine', 0.0, {0: 0, 2.5: 0.5 - 0.125**0.5, 5: 0.5, 10: 1, 99: 1}),
        ('cosine', 0.2, {0: 0.2, 5: 0.6, 10: 1, 99: 1}),
        ('constant', 0.0, {0: 1, 99: 1}),
    ],
)
def test_share_of_rates(schedule, start, expected):
  length = 0 if schedule == 'constant' else 20
  found = [
      lib.share_of_rates(jnp.int32(2 * step), schedule, length, start)
      for step in expected
  ]
  np.testing.assert_allclose(found, list(expected.values()), atol=1e-6)


def test_same_key_same_states():
  draw = lambda: lib.draw_states(jax.random.key(7), 50, lib.Rates(0.4, 0.1))
  np.testing.assert_array_equal(draw(), draw())
