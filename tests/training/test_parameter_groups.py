# SPDX-License-Identifier: Apache-2.0
"""Accumulation, and groups of parameters: frozen, embeddings, all others."""

import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.training import checkpoints as checkpoints_lib
from dropoutnet_jax.training import loop
from dropoutnet_jax.training import optimizers
from dropoutnet_jax.training import runtime as runtime_lib
from dropoutnet_jax.training import signals
from dropoutnet_jax.training import state as state_lib
from dropoutnet_jax.training import validation
from tests import descent
from tests import stop_after
from tests import tiny_run
from tests import toy_tokens

PEAK = 0.1


# Accumulation.


@pytest.mark.parametrize('optimizer', ['sgd', 'adam', 'lamb'])
def test_accumulated_steps_are_steps_of_their_mean(optimizer):
  """Clipped after the mean; rates count updates, so the schedules agree."""
  gradients = jnp.float32(np.random.default_rng(0).normal(size=(12, 3)))
  start = jnp.array([1.0, -2.0, 3.0])
  shared = {
      'optimizer': optimizer,
      'learning_rate': 0.1,
      'schedule': 'linear',
      'warmup_steps': 1,
      'gradient_clip': 0.5,
  }
  many = config.TrainConfig(num_steps=12, accumulate=3, **shared)
  few = config.TrainConfig(num_steps=4, **shared)
  path = descent.descend(many, gradients, start)
  means = gradients.reshape(4, 3, 3).mean(axis=1)
  expected = descent.descend(few, means, start)
  np.testing.assert_allclose(path[2::3], expected, rtol=1e-5, atol=1e-6)
  held = [start, start, *np.repeat(path[2::3], 3, axis=0)]
  np.testing.assert_array_equal(path, held[:12])  # nothing moves in between


# Groups of parameters.

PARAMS = {
    'embeddings': {'brand': [1.0, 2.0]},
    'item_tower': {'output': {'bias': [3.0]}},
    'user_tower': {'output': {'bias': [4.0], 'kernel': [[5.0, 6.0]]}},
}
NAMES = (
    'embeddings/brand, item_tower/output/bias, user_tower/output/bias, '
    'user_tower/output/kernel'
)


def arrays(tree):
  is_leaf = lambda x: isinstance(x, list)
  return jax.tree.map(jnp.float32, tree, is_leaf=is_leaf)


def one_update(settings, gradients=None):
  """Updates by name, of the first step."""
  params = arrays(PARAMS)
  optimizer = optimizers.make_optimizer(settings)
  updates, _ = optimizer.update(
      gradients or params, optimizer.init(params), params
  )
  return state_lib.by_name(updates)


def constant(**settings):
  made = config.TrainConfig(
      **({'schedule': 'constant', 'learning_rate': PEAK} | settings)
  )
  made.validate()
  return made


def test_frozen_parameters_stay_without_decay_and_have_no_statistics():
  settings = constant(
      optimizer='adamw',
      weight_decay=0.5,
      freeze=('embeddings/.*', 'item_tower/.*', '.*/kernel'),
  )
  free = one_update(constant(optimizer='adamw', weight_decay=0.5))
  found = one_update(settings)
  for name, update_ in found.items():
    if name == 'user_tower/output/bias':
      np.testing.assert_array_equal(update_, free[name])
    else:
      np.testing.assert_array_equal(update_, np.zeros_like(update_))
  state = optimizers.make_optimizer(settings).init(arrays(PARAMS))
  kept = [name for name in state_lib.by_name(state) if 'count' not in name]
  assert len(kept) == 2  # mean and mean square of the one that is trained
  assert all(name.endswith('user_tower/output/bias') for name in kept)


@pytest.mark.parametrize('optimizer', ['adamw', 'lamb', 'lion'])
@pytest.mark.parametrize('freeze', [(), ('objective/scale',)])
def test_what_the_objective_learns_does_not_decay(optimizer, freeze):
  """It moves by its gradients alone; the towers still decay."""
  settings = constant(optimizer=optimizer, weight_decay=0.5, freeze=freeze)
  params = {
      'objective': {'bias': jnp.float32(3.0), 'scale': jnp.float32(2.0)},
      'tower': jnp.ones(3),
  }
  made = optimizers.make_optimizer(settings)

  @jax.jit
  def moved(grads):
    updates, _ = made.update(grads, made.init(params), params)
    return optax.apply_updates(params, updates)

  still = moved(jax.tree.map(jnp.zeros_like, params))
  assert still['objective'] == params['objective']
  assert (still['tower'] < 1).all()
  found = moved(jax.tree.map(jnp.ones_like, params))['objective']
  assert found['bias'] == pytest.approx(3 - PEAK, rel=1e-5)
  expected = 2.0 if freeze else 2 - PEAK
  assert found['scale'] == pytest.approx(expected, rel=1e-5)


def test_frozen_parameters_have_no_part_in_the_norm_that_clips():
  found = one_update(
      constant(
          optimizer='sgd',
          gradient_clip=1.0,
          freeze=('embeddings/.*', 'item_tower/.*', '.*/bias'),
      )
  )
  expected = -PEAK * np.array([[5.0, 6.0]]) / np.hypot(5.0, 6.0)
  np.testing.assert_allclose(
      found['user_tower/output/kernel'], expected, rtol=1e-6
  )


def test_embeddings_have_an_optimizer_and_a_rate_of_their_own():
  found = one_update(
      constant(
          optimizer='sgd',
          embedding_optimizer='adam',
          embedding_learning_rate=0.02,
      )
  )
  np.testing.assert_allclose(
      found['embeddings/brand'], [-0.02, -0.02], rtol=1e-5
  )
  np.testing.assert_allclose(
      found['user_tower/output/kernel'], [[-0.5, -0.6]], rtol=1e-6
  )


@pytest.mark.parametrize(
    'own, expected',
    [
        ({'embedding_learning_rate': 0.3}, [-0.3, -0.6]),
        ({'embedding_optimizer': 'lion'}, [-0.1, -0.1]),
        ({'embedding_parameters': '.*'}, [-0.1, -0.2]),  # alone it is nothing
        (
            {'embedding_learning_rate': 0.3, 'freeze': ('embeddings/.*',)},
            [0.0, 0.0],
        ),
    ],
)
def test_what_is_not_said_of_embeddings_is_the_same(own, expected):
  found = one_update(constant(optimizer='sgd', **own))
  np.testing.assert_allclose(found['embeddings/brand'], expected, rtol=1e-5)
  np.testing.assert_allclose(found['item_tower/output/bias'], [-0.3], rtol=1e-6)


@pytest.mark.parametrize('optimizer', ['adamw', 'lamb', 'lion'])
@pytest.mark.parametrize('own', ['', 'adamw'])
def test_weight_decay_spares_tables_of_embeddings(optimizer, own):
  """A row without a gradient stays where it is, whatever trains it."""
  settings = constant(
      optimizer=optimizer, weight_decay=0.5, embedding_optimizer=own
  )
  nothing = jax.tree.map(jnp.zeros_like, arrays(PARAMS))
  found = one_update(settings, nothing)
  np.testing.assert_array_equal(found['embeddings/brand'], [0, 0])
  for name in ('item_tower/output/bias', 'user_tower/output/kernel'):
    assert np.all(found[name] < 0)


def test_rates_of_embeddings_follow_the_schedule():
  settings = config.TrainConfig(
      optimizer='sgd',
      momentum=0.0,
      learning_rate=1.0,
      schedule='linear',
      num_steps=4,
      embedding_learning_rate=10.0,
  )
  ones = jax.tree.map(lambda x: jnp.ones((4, *x.shape)), arrays(PARAMS))
  path = descent.descend(settings, ones, arrays(PARAMS))
  moved = 1.0 - path['embeddings']['brand'][:, 0]
  np.testing.assert_allclose(moved, np.cumsum([10, 7.5, 5, 2.5]), rtol=1e-6)
  moved = 3.0 - path['item_tower']['output']['bias'][:, 0]
  np.testing.assert_allclose(moved, np.cumsum([1, 0.75, 0.5, 0.25]), rtol=1e-6)


@pytest.mark.parametrize('accumulate', [1, 3])
@pytest.mark.parametrize(
    'labels',
    ['free', 'free ice', 'embedding ice', 'ice free embedding free ice'],
)
def test_groups_move_as_if_each_were_alone(labels, accumulate):
  rng = np.random.default_rng(len(labels))
  names = {f'{label}{n}': label for n, label in enumerate(labels.split())}
  draw = lambda *shape: jnp.float32(rng.normal(size=shape))
  start = {name: draw(2) for name in names}
  gradients = {name: draw(2 * accumulate, 2) for name in names}
  shared = {
      'schedule': 'constant',
      'accumulate': accumulate,
      'num_steps': 2 * accumulate,
  }
  both = {}
  if 'ice' in labels:
    both['freeze'] = ('ice.*',)
  if 'embedding' in labels:
    both |= {'embedding_optimizer': 'adagrad', 'embedding_learning_rate': 0.5}
    both['embedding_parameters'] = 'embedding.*'
  mixed = config.TrainConfig(optimizer='adam', **shared, **both)
  found = descent.descend(mixed, gradients, start)
  alone = {
      'free': config.TrainConfig(optimizer='adam', **shared),
      'embedding': config.TrainConfig(
          optimizer='adagrad', learning_rate=0.5, **shared
      ),
  }
  for name, label in names.items():
    expected = np.broadcast_to(start[name], (2 * accumulate, 2))
    if label != 'ice':
      expected = descent.descend(alone[label], gradients[name], start[name])
    np.testing.assert_allclose(found[name], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    'settings, message',
    [
        (
            {'freeze': ('item_tower/.*', 'item_towr/.*')},
            "config.train.freeze[1] is 'item_towr/.*', which is the whole name "
            f'of no parameter. There are {NAMES}.',
        ),
        (
            {'freeze': ('item_tower',)},
            "config.train.freeze[0] is 'item_tower', which is the whole name",
        ),
        (
            {'freeze': ('embeddings.*', 'item.*', 'user.*')},
            'config.train.freeze names all parameters, so that nothing is left '
            f'to train. There are {NAMES}.',
        ),
        (
            {
                'embedding_optimizer': 'sgd',
                'embedding_parameters': 'table.*',
            },
            "config.train.embedding_parameters is 'table.*', which is the "
            f'whole name of no parameter. There are {NAMES}.',
        ),
        (
            {
                'embedding_optimizer': 'row_adagrad',
                'embedding_parameters': 'embeddings/.*|.*/bias',
            },
            "config.train.embedding_optimizer is 'row_adagrad', which moves "
            'rows of tables of embeddings, but '
            "config.train.embedding_parameters is 'embeddings/.*|.*/bias', "
            'which also names item_tower/output/bias, user_tower/output/bias. '
            'Let it name embeddings/... alone, or choose one of adam, adamw, ',
        ),
    ],
)
def test_patterns_that_name_nothing_or_everything(settings, message):
  optimizer = optimizers.make_optimizer(constant(**settings))
  with pytest.raises(errors.UserError) as caught:
    jax.eval_shape(optimizer.init, arrays(PARAMS))
  assert message in str(caught.value)


def test_a_message_names_no_more_than_forty_parameters():
  optimizer = optimizers.make_optimizer(constant(freeze=('x',)))
  params = {f'p{n:02}': jnp.zeros(1) for n in range(43)}
  with pytest.raises(errors.UserError, match=r'p39 and 3 more\.$'):
    optimizer.init(params)


# In whole runs.

MIXED = {
    'accumulate': 4,
    'optimizer': 'adam',
    'gradient_clip': 1.0,
    'learning_rate': 1e-3,
    'warmup_steps': 2,
    'embedding_optimizer': 'adagrad',
    'embedding_learning_rate': 1.0,
    'freeze': ('user_tower/Dense_0/.*',),
    'steps_per_dispatch': 3,  # cuts within an accumulation
    'num_steps': 12,
    'eval_every': 0,
}


def last_state(runtime, workdir):
  saved = checkpoints_lib.Checkpoints(str(workdir), read_only=True)
  state = saved.restore(saved.latest_step(), runtime.fresh_state())
  saved.close()
  return state


@pytest.fixture(scope='module')
def mixed(problem):
  """A runtime of all that is above, on one device, compiled once."""
  cfg = tiny_run.changed(
      objective={'block_users': 16},
      train=MIXED | {'batch_size': 16 * 24, 'checkpoint_every': 2},
  )
  problem = toy_tokens.with_tokens(problem)
  return runtime_lib.build(cfg, problem, num_devices=1)


def test_runs_with_groups_and_accumulation_resume_exactly(
    mixed, tmp_path, monkeypatch
):
  """Also where they are cut within an accumulation."""
  monkeypatch.setattr(validation, 'validate', lambda runtime, state: {})
  whole, cut = tmp_path / 'whole', tmp_path / 'cut'
  for folder in (whole, cut):
    os.mkdir(folder)
  loop.run(mixed, str(whole), signals.StopRequest())
  stops = []
  while not stops or stops[-1] < 12:
    stops.append(loop.run(mixed, str(cut), stop_after.StopAfter(1)).step)
  assert stops[:2] == [2, 3]
  state = last_state(mixed, whole)
  jax.tree.map(np.testing.assert_array_equal, last_state(mixed, cut), state)
  assert mixed.train_steps()._cache_size() == 1
  before = state_lib.by_name(mixed.fresh_state().params)
  after = state_lib.by_name(state.params)
  same = {name for name in after if np.array_equal(after[name], before[name])}
  frozen = {n for n in after if re.fullmatch('user_tower/Dense_0/.*', n)}
  assert same == frozen and frozen


def test_groups_and_accumulation_are_the_same_on_eight_devices(mixed):
  many = runtime_lib.build(mixed.cfg, mixed.problem, num_devices=8)
  states = []
  for runtime in (mixed, many):
    place = parallel.replicated(runtime.mesh)
    state, steps = mixed.fresh_state(), runtime.train_steps()
    state = jax.device_put(jax.device_get(state), place)
    for _ in range(3):
      state, _ = steps(state, runtime.tables, jnp.int32(3))
    for leaf in jax.tree.leaves(state):
      assert leaf.sharding.is_equivalent_to(place, leaf.ndim)
    states.append((state.params, state.opt_state, state.ema_params))
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      *states,
  )
