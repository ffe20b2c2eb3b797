# SPDX-License-Identifier: Apache-2.0
"""Compiled steps: one program, donated, the same on one and eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.training import optimizers
from dropoutnet_jax.training import runtime as runtime_lib
from dropoutnet_jax.training import state as state_lib
from dropoutnet_jax.training import batch_loss
from dropoutnet_jax.training import dropout_rates
from dropoutnet_jax.training import steps
from tests import tiny_run

SIZE = 5  # steps per dispatch
NAMES = batch_loss.metric_names(config.Config())
START = np.array([3.0, -4.0], np.float32)


def bowl(params, batch_stats, tables, step, ids):
  """A loss with gradient 2 (params - target), infinite at one step."""
  loss = jnp.sum((params['x'] - tables['target']) ** 2)
  loss = jnp.where(step == tables['bad_step'], jnp.inf, loss)
  stats = batch_stats + step
  return loss, (stats, {'loss/total': loss, 'loss/teacher': 2 * loss})


def make_bowl(**settings):
  settings = config.TrainConfig(
      optimizer='sgd',
      schedule='constant',
      learning_rate=0.1,
      steps_per_dispatch=SIZE,
      **settings,
  )
  optimizer = optimizers.make_optimizer(settings)
  train_steps = steps.make_train_steps(bowl, optimizer, settings, NAMES)
  params = lambda: {'x': jnp.array(START)}
  start = lambda: state_lib.TrainState(
      step=jnp.int32(0),
      params=params(),
      batch_stats=jnp.float32(0),
      opt_state=optimizer.init(params()),
      ema_params=params() if settings.ema else {},
      ema_batch_stats=jnp.float32(0) if settings.ema else {},
  )
  return train_steps, start


def bowl_tables(bad_step=-1):
  return {'target': jnp.ones(2), 'bad_step': jnp.int32(bad_step)}


def slow_bowl(count, rate=0.1, momentum=0.9, clip=None, ema=0.0):
  """Heavy-ball descent by hand: parameters, losses, norms, average."""
  x, v = START.astype(float), np.zeros(2)
  average, losses, norms = START.astype(float), [], []
  for _ in range(count):
    gradient = 2 * (x - 1)
    losses.append(((x - 1) ** 2).sum())
    norm = (gradient**2).sum() ** 0.5
    norms.append(norm)
    if clip is not None and norm > clip:
      gradient = gradient * clip / norm
    v = gradient + momentum * v
    x = x - rate * v
    n = len(losses)
    decay = min(ema, n / (9 + n))
    average = decay * average + (1 - decay) * x
  return x, losses, norms, average


@pytest.mark.parametrize('clip, ema', [(0.0, 0.0), (1.5, 0.2), (1.5, 0.99)])
def test_steps_match_descent_by_hand(clip, ema):
  train_steps, start = make_bowl(gradient_clip=clip, ema=ema)
  state, metrics = train_steps(start(), bowl_tables(), 4)
  x, losses, norms, average = slow_bowl(4, clip=clip or None, ema=ema)
  np.testing.assert_allclose(state.params['x'], x, rtol=1e-5)
  np.testing.assert_allclose(metrics['loss/total'][:4], losses, rtol=1e-5)
  np.testing.assert_allclose(metrics['gradient_norm'][:4], norms, rtol=1e-5)
  if ema:
    np.testing.assert_allclose(state.ema_params['x'], average, rtol=1e-5)
    variables = state.eval_variables()
    assert variables['params'] is state.ema_params
    assert variables['batch_stats'] is state.ema_batch_stats
  else:
    assert state.ema_params == {}
    assert state.eval_variables()['params'] is state.params
  assert int(state.step) == 4
  assert int(state.batch_stats) == 0 + 1 + 2 + 3  # each step saw its number


def test_metrics_beyond_the_count_are_nan_and_named():
  train_steps, start = make_bowl()
  _, metrics = train_steps(start(), bowl_tables(), 3)
  assert set(metrics) == set(NAMES)
  for values in metrics.values():
    assert values.shape == (SIZE,) and values.dtype == jnp.float32
    np.testing.assert_array_equal(np.isnan(values), [False] * 3 + [True] * 2)


def test_one_program_for_all_numbers_of_steps():
  train_steps, start = make_bowl()
  state = start()
  for count in (1, 5, 3, 2, 4):
    state, _ = train_steps(state, bowl_tables(), jnp.int32(count))
  assert int(state.step) == 15
  assert train_steps._cache_size() == 1


@pytest.mark.parametrize('bad_step', [0, 2, 4])
def test_a_bad_loss_stops_before_the_bad_step(bad_step):
  train_steps, start = make_bowl(ema=0.5)
  expected, _ = train_steps(start(), bowl_tables(), bad_step)
  state, metrics = train_steps(start(), bowl_tables(bad_step), SIZE)
  assert int(state.step) == bad_step
  jax.tree.map(np.testing.assert_array_equal, state, expected)
  finite = np.isfinite(metrics['loss/total'])
  np.testing.assert_array_equal(finite, np.arange(SIZE) < bad_step)
  assert np.isinf(metrics['loss/total'][bad_step])
  # It stays there, and goes on once the cause is gone.
  state, _ = train_steps(state, bowl_tables(bad_step), SIZE)
  assert int(state.step) == bad_step
  state, _ = train_steps(state, bowl_tables(), 1)
  assert int(state.step) == bad_step + 1


def test_a_gradient_that_is_not_finite_stops_as_well():
  def loss_fn(params, batch_stats, tables, step, ids):
    assert not ids
    del tables, step
    loss = jnp.sum(jnp.sqrt(jnp.abs(params)))  # no slope at 0
    return loss, (batch_stats, {'loss/total': loss, 'loss/teacher': loss})

  settings = config.TrainConfig(steps_per_dispatch=SIZE)
  train_steps = steps.make_train_steps(loss_fn, optax.sgd(1.0), settings, NAMES)
  params = jnp.array([1.0, 0.0])
  state = state_lib.TrainState(jnp.int32(7), params, {}, (), {})
  state = state.replace(opt_state=optax.sgd(1.0).init(params))
  state, metrics = train_steps(state, {}, 2)
  assert int(state.step) == 7
  assert np.isfinite(metrics['loss/total'][0])
  assert not np.isfinite(metrics['gradient_norm'][0])
  np.testing.assert_array_equal(state.params, [1.0, 0.0])


def test_the_real_step_is_donated_compiled_once_and_cut_anyhow(compiled):
  train_steps = compiled.train_steps()
  whole, losses = train_steps(
      compiled.fresh_state(), compiled.tables, jnp.int32(3)
  )
  old = compiled.fresh_state()
  state, first = train_steps(old, compiled.tables, jnp.int32(1))
  for leaf in jax.tree.leaves(old):
    assert leaf.is_deleted()
  for leaf in jax.tree.leaves(compiled.tables):
    assert not leaf.is_deleted()
  state, rest = train_steps(state, compiled.tables, jnp.int32(2))
  jax.tree.map(np.testing.assert_array_equal, state, whole)
  for name, values in losses.items():
    parts = np.concatenate([first[name][:1], rest[name][:2]])
    np.testing.assert_array_equal(values, parts)
  assert train_steps._cache_size() == 1


# One hidden layer each: of the offset of a batch norm before another one
# nearly nothing is left in the gradient, and Adam makes steps of rounding.
VARIANTS = {
    'paper tower, published pairs': {
        'model': {'tower': 'paper'},
        'objective': {'pairing': 'published'},
        'dropout': {'kind': 'exclusive', 'user_transform': 0.3},
    },
    'modern tower, blocks': {
        'model': {'tower': 'modern', 'layer_norm': True},
        'train': {'gradient_clip': 1.0, 'optimizer': 'adamw'},
        'dropout': {'item_transform_rate': 0.3},
    },
}


def draw_state(runtime):
  """A state of a run under way, on the host; quicker than a fresh one."""
  rng = np.random.default_rng(0)
  create = lambda tables: state_lib.create_state(
      runtime.model, runtime.optimizer, tables, 0, True
  )
  state = jax.eval_shape(create, runtime.tables)
  zeros = lambda tree: jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), tree)
  draw = lambda x: rng.normal(size=x.shape).astype(x.dtype) / 4
  params = jax.tree.map(draw, state.params)
  return zeros(state).replace(params=params, ema_params=params)


@pytest.mark.parametrize('variant', VARIANTS)
def test_eight_devices_train_like_one(problem, variant):
  sections = {
      'train': {'learning_rate': 1e-3, 'steps_per_dispatch': 5},
      'objective': {'block_users': 16},
  }
  for section, fields in VARIANTS[variant].items():
    sections[section] = sections.get(section, {}) | fields
  sections['train'] |= {'batch_size': 16 * 24}  # 8 divides all that is split
  cfg = tiny_run.changed(**sections)
  results = []
  for num_devices in (1, 8):
    runtime = runtime_lib.build(cfg, problem, num_devices=num_devices)
    assert runtime.pairs_per_step == 16 * 24
    place = jax.tree.leaves(runtime.tables)[0].sharding
    assert place.num_devices == num_devices
    state, losses = runtime.train_steps()(
        jax.device_put(draw_state(runtime), place), runtime.tables, jnp.int32(5)
    )
    for leaf in jax.tree.leaves(state):
      assert leaf.sharding.is_equivalent_to(place, leaf.ndim)
    results.append((losses, state.params, state.batch_stats, state.ema_params))
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
      *results,
  )


def average_state(params, stats):
  """A state before its first step, averages on."""
  return state_lib.TrainState(jnp.int32(0), params, stats, (), params, stats)


@pytest.mark.parametrize('decay', [0.5, 0.995])
def test_averages_hold_statistics_too_and_forget_the_start(decay):
  """A constant is its own average, but for what is left of the start."""
  state = average_state({'x': jnp.float32(1e3)}, {'mean': jnp.float32(-1e3)})
  left = 1.0
  for n in range(1, 61):
    left *= min(decay, n / (9 + n))
    state = state.replace(
        step=jnp.int32(n),
        params={'x': jnp.float32(2.0)},
        batch_stats={'mean': jnp.float32(3.0)},
    ).average(decay)
  assert left < 1e-6
  found = state.eval_variables()
  expected = 2.0 + left * 998, 3.0 - left * 1003
  np.testing.assert_allclose(
      (found['params']['x'], found['batch_stats']['mean']), expected, rtol=1e-4
  )


def test_the_first_average_is_nearly_the_first_step():
  state = average_state({'x': jnp.float32(0.0)}, {'mean': jnp.float32(0.0)})
  state = state.replace(step=jnp.int32(1), params={'x': jnp.float32(1.0)})
  assert float(state.average(0.999).ema_params['x']) == pytest.approx(0.9)


def side_with(content_width):
  class Side:
    has_content = content_width > 0

  return Side()


def rates_of(user_width, item_width, **dropout):
  tables = tables_lib.Tables(
      side_with(user_width), side_with(item_width), None, None, None, None
  )
  return dropout_rates.effective_rates(config.DropoutConfig(**dropout), tables)


def test_a_side_without_content_is_never_dropped():
  rates = rates_of(0, 3, user_rate=0.4, item_rate=0.7)
  assert rates.user.drop == 0 and rates.item.drop == 0.7
  rates = rates_of(3, 0, user_rate=0.4, item_rate=0.7)
  assert rates.user.drop == 0.4 and rates.item.drop == 0


@pytest.mark.parametrize(
    'user_width, item_width, expected',
    [
        (3, 3, (0.05, 0.1, 0.6)),
        (0, 3, (0, 0.7, 0)),
        (3, 0, (0.65, 0, 0)),
        (0, 0, (0, 0, 0)),
    ],
)
def test_dropping_both_drops_the_side_with_content(
    user_width, item_width, expected
):
  found = rates_of(
      user_width,
      item_width,
      kind='exclusive',
      drop_user=0.05,
      drop_item=0.1,
      drop_both=0.6,
      user_transform=0.02,
      item_transform=0.03,
  )
  np.testing.assert_allclose(found.pair[:3], expected, atol=1e-12)
  assert found.pair[3:] == (0.02, 0.03)


def test_a_side_without_content_is_dropped_if_asked_for():
  rates = rates_of(0, 0, user_rate=0.4, drop_without_content=True)
  assert rates.user.drop == 0.4 and rates.item.drop == 0.5
  assert rates.pair[:3] == (0.2, 0.2, 0.2)


@pytest.mark.parametrize(
    'dropout, uses_history',
    [
        ({}, False),
        ({'user_transform_rate': 0.1}, True),
        ({'item_transform_rate': 0.1}, True),
        ({'user_transform': 0.1}, False),  # of the other kind
        ({'kind': 'exclusive', 'item_transform': 0.1}, True),
        ({'kind': 'exclusive', 'item_transform_rate': 0.1}, False),
    ],
)
def test_histories_are_computed_only_where_a_transform_needs_them(
    dropout, uses_history
):
  assert config.DropoutConfig(**dropout).uses_history == uses_history
