# SPDX-License-Identifier: Apache-2.0
"""Intervals over users: wide as the theory says, paired where they compare."""

import math

import numpy as np
import pytest

from dropoutnet_jax.evaluation import bootstrap


def test_an_interval_is_as_wide_as_the_deviation_of_the_mean():
  values = np.random.default_rng(0).normal(3.0, 2.0, 900)
  found = bootstrap.intervals({'x': values, 'y': -values}, 4000)
  half = 1.96 * values.std() / math.sqrt(len(values))
  expected = [values.mean() - half, values.mean() + half]
  np.testing.assert_allclose(found['x'], expected, atol=0.02)
  # The same draws for all.
  np.testing.assert_allclose(found['y'], [-found['x'][1], -found['x'][0]])


def test_about_every_twentieth_interval_misses_the_truth():
  missed = 0
  for seed in range(200):
    values = np.random.default_rng(seed).exponential(1.0, 200)
    low, high = bootstrap.intervals({'x': values}, 300, seed)['x']
    missed += not low <= 1.0 <= high
  assert 3 <= missed <= 25


def test_neither_blocks_nor_company_change_an_interval(monkeypatch):
  rng = np.random.default_rng(1)
  values = {'a': rng.random(50), 'b': rng.random(50)}
  whole = bootstrap.intervals(values, 100)
  monkeypatch.setattr(bootstrap, '_BLOCK', 350)  # 7 draws at once
  np.testing.assert_allclose(
      bootstrap.intervals({'b': values['b']}, 100)['b'], whole['b'], rtol=1e-12
  )


def test_nothing_has_no_interval():
  assert bootstrap.intervals({}, 10) == bootstrap.differences({}, 10) == {}


def test_a_constant_is_certain():
  found = bootstrap.intervals({'x': np.full(10, 0.25)}, 50)
  assert found['x'] == pytest.approx([0.25, 0.25])


def test_a_difference_is_of_the_same_users():
  rng = np.random.default_rng(2)
  base = rng.normal(0, 5, 400)
  better = base + rng.choice([0.5, 0.0, -0.1], 400, p=[0.5, 0.25, 0.25])
  (found,) = bootstrap.differences({'x': (better, base)}, 1000).values()
  gap = better - base
  assert found['difference'] == pytest.approx(gap.mean())
  assert found['better'] == pytest.approx(np.mean(gap > 0))
  assert found['worse'] == pytest.approx(np.mean(gap < 0))
  # Unpaired, the spread of the users would hide it.
  assert 0 < found['low'] < found['difference'] < found['high']
  assert found['high'] - found['low'] < 0.1


def test_users_and_items_vary_as_much_as_both_do():
  """Of one world with effects of users and of items, against many worlds."""
  num_users, num_items = 80, 30
  pair = np.arange(num_users * num_items)
  user, item = np.divmod(pair, num_items)

  def world(seed):
    rng = np.random.default_rng(seed)
    of_users, of_items = rng.normal(0, 1, num_users), rng.normal(
        0, 1, num_items
    )
    return 0.2 * of_users[user] + 0.5 * of_items[item] + 0.1

  means = [world(seed).sum() / num_users for seed in range(1000)]
  # The mean over users of the sum over items.
  assert np.mean(means) == pytest.approx(0.1 * num_items, abs=0.3)
  widths, inside = [], 0
  for seed in range(60):
    found = bootstrap.two_way({'x': world(seed)}, user, item, 200, seed)['x']
    widths.append(found[1] - found[0])
    inside += found[0] <= 0.1 * num_items <= found[1]
  assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(means), rel=0.15)
  assert inside >= 50


def test_one_item_that_all_want_is_no_certainty():
  user = np.repeat(np.arange(200), 2)
  item = np.tile([0, 1], 200)
  values = {'lost': np.where(item == 0, -0.1, 0.01)}
  of_user = np.bincount(user, values['lost'])
  users_alone = bootstrap.intervals({'lost': of_user}, 200)['lost']
  assert users_alone[1] < 0
  low, high = bootstrap.two_way(values, user, item, 200)['lost']
  assert low < of_user.mean() < 0 < high


def test_blocks_of_draws_change_no_interval_of_pairs(monkeypatch):
  rng = np.random.default_rng(3)
  user, item = np.arange(60) % 20, np.arange(60) % 12
  values = {'a': rng.normal(size=60)}
  whole = bootstrap.two_way(values, user, item, 4000)['a']
  monkeypatch.setattr(bootstrap, '_BLOCK', 60 * 7)
  blocks = bootstrap.two_way(values, user, item, 4000)['a']
  np.testing.assert_allclose(blocks, whole, atol=0.1 * (whole[1] - whole[0]))
  assert bootstrap.two_way({}, user, item, 10) == {}
