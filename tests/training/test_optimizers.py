# SPDX-License-Identifier: Apache-2.0
"""Schedules at the steps where a reader knows them; clipping; names."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.training import optimizers

PEAK = 0.1


def rates(steps, **settings):
  settings = {'learning_rate': PEAK, 'num_steps': 100} | settings
  schedule = optimizers.make_schedule(config.TrainConfig(**settings))
  return [float(schedule(step)) for step in steps]


@pytest.mark.parametrize(
    'settings, expected',
    [
        ({'schedule': 'constant'}, {0: 1, 50: 1, 100: 1}),
        ({'schedule': 'linear'}, {0: 1, 25: 0.75, 100: 0}),
        (
            {'schedule': 'linear', 'warmup_steps': 20},
            {0: 0, 10: 0.5, 20: 1, 60: 0.5, 100: 0},
        ),
        ({'schedule': 'cosine'}, {0: 1, 25: 0.85355, 50: 0.5, 100: 0}),
        (
            {'schedule': 'exponential', 'decay_every': 10, 'decay_rate': 0.5},
            {0: 1, 5: math.sqrt(0.5), 10: 0.5, 20: 0.25},
        ),
        (
            {'schedule': 'piecewise', 'decay_every': 10, 'decay_rate': 0.5},
            {0: 1, 9: 1, 10: 0.5, 19: 0.5, 20: 0.25},
        ),
        (
            {'schedule': 'cosine', 'warmup_steps': 20},
            {0: 0, 10: 0.5, 20: 1, 60: 0.5, 100: 0},
        ),
        (
            {'schedule': 'constant', 'warmup_steps': 4},
            {0: 0, 1: 0.25, 4: 1, 50: 1},
        ),
    ],
)
def test_schedules(settings, expected):
  found = rates(expected, **settings)
  wanted = [PEAK * share for share in expected.values()]
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-7)


def test_every_name_of_the_config_is_made_and_no_other():
  assert set(optimizers.OPTIMIZERS) == set(config.OPTIMIZERS)
  assert set(optimizers.SCHEDULES) == set(config.SCHEDULES)


def update(gradient, **settings):
  settings = config.TrainConfig(
      **({'schedule': 'constant', 'learning_rate': PEAK} | settings)
  )
  optimizer = optimizers.make_optimizer(settings)
  params = jnp.array([2.0, 0.0])
  updates, _ = optimizer.update(
      jnp.array(gradient), optimizer.init(params), params
  )
  return np.asarray(updates)


def test_first_updates_by_hand():
  np.testing.assert_allclose(
      update([3.0, -4.0], optimizer='sgd'), [-0.3, 0.4], rtol=1e-5
  )
  np.testing.assert_allclose(
      update([3.0, -4.0], optimizer='adam'), [-0.1, 0.1], rtol=1e-4
  )
  np.testing.assert_allclose(  # decay shrinks: - rate * decay * parameter
      update([3.0, -4.0], optimizer='adamw', weight_decay=0.5),
      [-0.1 - PEAK * 0.5 * 2, 0.1],
      rtol=1e-4,
  )
  # Adagrad: over the root of 0.1, its start, and the squares so far.
  np.testing.assert_allclose(
      update([3.0, -4.0], optimizer='adagrad'),
      [-0.1 * 3 / 9.1**0.5, 0.1 * 4 / 16.1**0.5],
      rtol=1e-4,
  )
  np.testing.assert_allclose(  # as long as the parameters, [2, 0]
      np.linalg.norm(update([3.0, -4.0], optimizer='lamb')),
      PEAK * 2,
      rtol=1e-4,
  )


@pytest.mark.parametrize('clip, share', [(1.0, 0.2), (5.0, 1.0), (9.0, 1.0)])
def test_gradients_are_clipped_by_their_norm_first(clip, share):
  found = update([3.0, -4.0], optimizer='sgd', gradient_clip=clip)
  np.testing.assert_allclose(found, [-0.3 * share, 0.4 * share], rtol=1e-5)
