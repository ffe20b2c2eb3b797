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
