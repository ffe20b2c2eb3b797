# SPDX-License-Identifier: Apache-2.0
"""Schedules where a reader knows them, optimisers beside slow ones."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.training import optimizers
from tests import descent

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
        ({'schedule': 'polynomial'}, {0: 1, 50: 0.25, 90: 0.01, 100: 0}),
        (
            {'schedule': 'polynomial', 'power': 0.5, 'end_share': 0.2},
            {0: 1, 75: 0.6, 100: 0.2, 500: 0.2},
        ),
        ({'schedule': 'linear', 'end_share': 0.4}, {0: 1, 50: 0.7, 100: 0.4}),
        ({'schedule': 'cosine', 'end_share': 0.4}, {0: 1, 50: 0.7, 100: 0.4}),
        (
            {
                'schedule': 'exponential',
                'decay_every': 10,
                'decay_rate': 0.5,
                'end_share': 0.2,
                'warmup_steps': 2,
            },
            {0: 0, 1: 0.5, 2: 1, 12: 0.5, 22: 0.25, 32: 0.2, 90: 0.2},
        ),
        (  # a rate that never decays stays above the least
            {
                'schedule': 'piecewise',
                'decay_every': 10,
                'decay_rate': 1.0,
                'end_share': 0.5,
            },
            {0: 1, 99: 1},
        ),
        (
            {
                'schedule': 'piecewise',
                'boundaries': (20, 50),
                'decay_rate': 0.5,
            },
            {0: 1, 19: 1, 20: 0.5, 49: 0.5, 50: 0.25, 99: 0.25},
        ),
        (  # boundaries count from the start, whatever the warm-up
            {
                'schedule': 'piecewise',
                'boundaries': (20, 50, 60),
                'multiples': (0.3, 2.0, 0.0),
                'warmup_steps': 10,
            },
            {0: 0, 5: 0.5, 10: 1, 19: 1, 20: 0.3, 49: 0.3, 50: 2, 60: 0, 99: 0},
        ),
        (  # 25 updates of 4 steps
            {'schedule': 'linear', 'accumulate': 4, 'warmup_steps': 5},
            {0: 0, 5: 1, 15: 0.5, 25: 0},
        ),
    ],
)
def test_schedules(settings, expected):
  found = rates(expected, **settings)
  wanted = [PEAK * share for share in expected.values()]
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-7)


def test_every_name_of_the_config_is_made_and_no_other():
  assert set(optimizers.OPTIMIZERS) == set(config.OPTIMIZERS)
  assert set(optimizers.ROW_OPTIMIZERS) == set(config.ROW_OPTIMIZERS)
  assert set(optimizers.SCHEDULES) == set(config.SCHEDULES)


def test_which_tables_are_touched_by_row():
  names = ['embeddings/genre', 'embeddings/maker', 'item_tower/embeddings/x']
  find = lambda **train: optimizers.touched_tables(
      config.TrainConfig(**train), names
  )
  assert find() == find(embedding_optimizer='adagrad') == []
  assert find(embedding_optimizer='lazy_adam') == ['genre', 'maker']
  some = {'embedding_parameters': 'embeddings/m.*'}
  assert find(embedding_optimizer='row_adagrad', **some) == ['maker']


def test_adagrad_of_rows_is_adagrad_where_they_are_narrow():
  gradients = jnp.float32(np.random.default_rng(0).normal(size=(5, 3, 1)))
  gradients = gradients.at[:, 1].set(0.0)  # a row that nothing looks up
  start = {'embeddings': {'x': jnp.ones((3, 1))}, 'tower': jnp.ones((3, 1))}
  both = {'embeddings': {'x': gradients}, 'tower': gradients}
  settings = config.TrainConfig(
      optimizer='adagrad', embedding_optimizer='row_adagrad', accumulator=0.2
  )
  path = descent.descend(settings, both, start)
  found = path['embeddings']['x']
  np.testing.assert_allclose(found, path['tower'], rtol=1e-6)
  np.testing.assert_array_equal(found[:, 1], np.ones((5, 1)))


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


# Slow versions: each updates one array in float64 by the formula of its paper.


class SlowAdam:
  """Kingma and Ba (2015); Dozat (2016) with Nesterov's momentum."""

  def __init__(self, beta1, beta2, epsilon, nesterov):
    self.betas, self.epsilon, self.nesterov = (beta1, beta2), epsilon, nesterov
    self.mean = self.square = self.count = 0

  def direction(self, gradient):
    one, two = self.betas
    self.count += 1
    self.mean = one * self.mean + (1 - one) * gradient
    self.square = two * self.square + (1 - two) * gradient**2
    top = self.mean / (1 - one**self.count)
    if self.nesterov:
      top = one * self.mean / (1 - one ** (self.count + 1))
      top = top + (1 - one) * gradient / (1 - one**self.count)
    root = np.sqrt(self.square / (1 - two**self.count))
    return top / (root + self.epsilon)


def slow_steps(name, s, x, gradients, rate):
  """What parameters x become; `s` holds every hyper-parameter, no default."""
  adam = SlowAdam(s['momentum'], s['beta2'], s['epsilon'], s['nesterov'])
  trace = mean = total = 0.0
  total = total + s['accumulator']
  for g in gradients:
    if name in ('adam', 'adamw'):
      decay = s['weight_decay'] if name == 'adamw' else 0.0
      change = adam.direction(g) + decay * x
    elif name == 'lamb':
      change = adam.direction(g) + s['weight_decay'] * x
      change = change * np.linalg.norm(x) / np.linalg.norm(change)
    elif name == 'lion':
      one, two = s['momentum'], s['beta2']
      change = np.sign(one * trace + (1 - one) * g) + s['weight_decay'] * x
      trace = two * trace + (1 - two) * g
    elif name == 'adagrad':
      total = total + g**2
      change = g / np.sqrt(total + s['epsilon'])
    else:
      if name == 'rmsprop':
        mean = s['beta2'] * mean + (1 - s['beta2']) * g**2
        g = g / np.sqrt(mean + s['epsilon'])
      trace = s['momentum'] * trace + g
      change = s['momentum'] * trace + g if s['nesterov'] else trace
    x = x - rate * change
  return x


USUAL = {
    'adam': {'beta2': 0.999, 'epsilon': 1e-8},
    'adamw': {'beta2': 0.999, 'epsilon': 1e-8},
    'adagrad': {'epsilon': 1e-7},
    'lamb': {'beta2': 0.999, 'epsilon': 1e-6},
    'lion': {'beta2': 0.99},
    'rmsprop': {'beta2': 0.9, 'epsilon': 1e-8},
    'sgd': {},
}
OTHERS = {'momentum': 0.6, 'beta2': 0.8, 'epsilon': 1e-2, 'accumulator': 0.5}


@pytest.mark.parametrize(
    'name, given_',
    [(name, {}) for name in USUAL]
    + [(name, OTHERS) for name in USUAL]
    + [(name, {'weight_decay': 0.3}) for name in ('adamw', 'lamb', 'lion')]
    + [
        (name, {'nesterov': True, 'momentum': 0.7})
        for name in ('adam', 'adamw', 'rmsprop', 'sgd')
    ]
    + [(name, {'momentum': 0.0}) for name in ('adam', 'rmsprop', 'sgd')],
)
def test_optimizers_match_their_papers(name, given_):
  rng = np.random.default_rng(3)
  x, gradients = rng.normal(size=4), rng.normal(size=(7, 4))
  settings = config.TrainConfig(
      optimizer=name, schedule='constant', learning_rate=0.05, **given_
  )
  settings.validate()
  path = descent.descend(settings, jnp.float32(gradients), jnp.float32(x))
  base = {
      'momentum': 0.9,
      'nesterov': False,
      'weight_decay': 0.0,
      'accumulator': 0.1,
      'beta2': 0.0,
      'epsilon': 0.0,
  }
  hyper = base | USUAL[name] | given_
  expected = slow_steps(name, hyper, x, gradients, 0.05)
  np.testing.assert_allclose(path[-1], expected, rtol=2e-5, atol=2e-5)
