# SPDX-License-Identifier: Apache-2.0
"""Towers: shapes, one cold row for all, batch statistics, precision, sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import parallel
from dropoutnet_jax.model import input_dropout
from dropoutnet_jax.model import tower_inputs
from dropoutnet_jax.model import towers

pytestmark = pytest.mark.usefixtures('quick_compilation')

ROWS, FACTORS, CONTENT, RANK = 6, 3, 5, 4
PAPER = config.ModelConfig(tower='paper', hidden=(8, 7), rank=RANK)
MODERN = config.ModelConfig(
    tower='modern',
    hidden=(8, 7),
    rank=RANK,
    layer_norm=False,
    residual_content=False,
)
RESIDUAL = config.ModelConfig(
    tower='modern',
    hidden=(8,),
    rank=RANK,
    layer_norm=True,
    residual_content=True,
)
GROUPS = config.ModelConfig(
    tower='groups',
    group_hidden=(7, 3),
    hidden=(5,),
    rank=RANK,
    activation='relu',
)
TOWERS = pytest.mark.parametrize(
    'settings',
    [PAPER, MODERN, RESIDUAL, GROUPS],
    ids=['paper', 'modern', 'residual', 'groups'],
)


def make_rows(seed=0, rows=ROWS, factors=FACTORS, content=CONTENT):
  """Preference, of which row 1 is absent, and content."""
  rng = np.random.default_rng(seed)
  present = np.arange(rows) != 1
  value = rng.normal(size=(rows, factors)) * present[:, None]
  preference = input_dropout.Preference(
      jnp.asarray(value, jnp.float32), jnp.asarray(present)
  )
  dense = jnp.float32(rng.normal(size=(rows, content)))
  return preference, tower_inputs.Content(dense)


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _embed(model, variables, method, train, preference, content):
  return model.apply(
      variables,
      preference,
      content,
      train=train,
      method=method,
      mutable=['batch_stats'] if train else False,
  )


def embed(model, variables, rows, method='embed_items', train=False):
  return _embed(model, variables, method, train, *rows)


def init_arguments(**widths):
  """Of users, who have no content, and items."""
  key = jax.random.key(0)
  return key, *make_rows(rows=1, content=0), *make_rows(rows=1, **widths)


def shapes(settings, **widths):
  return jax.eval_shape(
      towers.TwoTower(settings).init, *init_arguments(**widths)
  )


def make_model(settings, **widths):
  """A model, and variables none of which is at its special first value."""
  rng = np.random.default_rng(9)
  variables = jax.tree.map(
      lambda x: jnp.float32(rng.uniform(0.1, 0.6, x.shape)),
      shapes(settings, **widths),
  )
  return HashableTowers(settings), variables


def first_model(settings):
  """A model and its variables before the first step."""
  model = HashableTowers(settings)
  return model, jax.jit(model.init)(*init_arguments())


class HashableTowers(towers.TwoTower):
  """The towers as a static argument of `jit`."""

  def __hash__(self):
    return id(self)

  def __eq__(self, other):
    return self is other


@TOWERS
def test_shapes_and_types(settings):
  model, variables = make_model(settings)
  item = embed(model, variables, make_rows())
  user = embed(model, variables, make_rows(content=0), 'embed_users')
  for got in (user, item):
    assert got.dense.shape == (ROWS, RANK)
    assert got.dense.dtype == jnp.float32
    assert got.sparse is None
  assert not np.array_equal(user.dense, item.dense)


@TOWERS
@pytest.mark.parametrize('widths', [(FACTORS, 0), (0, CONTENT), (0, 0)])
def test_either_width_may_be_zero(settings, widths):
  factors, content = widths
  model, variables = make_model(settings, factors=factors, content=content)
  got = embed(
      model, variables, make_rows(factors=factors, content=content), train=True
  )
  assert got[0].dense.shape == (ROWS, RANK)
  assert np.all(np.isfinite(got[0].dense))


def count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


@pytest.mark.parametrize('hidden', [(8,), (8, 7, 9), ()])
def test_number_of_parameters_of_the_paper_tower(hidden):
  settings = config.ModelConfig(tower='paper', hidden=hidden, rank=RANK)
  variables = shapes(settings)
  widths = (FACTORS + CONTENT, *hidden)
  expected = sum(a * b for a, b in zip(widths, hidden))  # no bias: batch norm
  expected += 2 * sum(hidden)  # its scale and offset
  expected += (widths[-1] + 1) * RANK
  assert count(variables['params']['item_tower']) == expected
  assert count(variables.get('batch_stats', {})) == 2 * 2 * sum(hidden)


@pytest.mark.parametrize('layer_norm', [False, True])
@pytest.mark.parametrize('residual', [False, True])
@pytest.mark.parametrize('hidden', [(8,), (8, 7), ()])
def test_number_of_parameters_of_the_modern_tower(hidden, layer_norm, residual):
  settings = config.ModelConfig(
      hidden=hidden,
      rank=RANK,
      layer_norm=layer_norm,
      residual_content=residual,
      tower='modern',
  )
  variables = shapes(settings)
  first = hidden[0] if hidden else RANK
  # Without hidden layers the residual path is all that reads the content.
  read = FACTORS + (CONTENT if hidden or not residual else 0)
  expected = read * first + 2 * first  # presence: slope, offset
  for a, b in zip(hidden, hidden[1:]):
    expected += (a + 1) * b
  expected += (hidden[-1] + 1) * RANK if hidden else 0
  expected += 2 * sum(hidden) if layer_norm else 0
  expected += CONTENT * RANK if residual else 0
  assert count(variables['params']['item_tower']) == expected
  assert 'batch_stats' not in variables


@TOWERS
def test_dropped_and_cold_rows_are_the_same_bits(settings):
  """Through the whole tower, whatever preference was taken away."""
  model, variables = make_model(settings)
  _, content = make_rows()
  content = jax.tree.map(lambda x: jnp.repeat(x[:1], ROWS, axis=0), content)
  known = input_dropout.Preference(make_rows(3)[0].value, jnp.ones(ROWS, bool))
  nothing = input_dropout.Preference(
      jnp.zeros((ROWS, FACTORS)), jnp.zeros(ROWS, bool)
  )
  state = lambda s: jnp.full(ROWS, s)
  dropped = input_dropout.apply_states(
      known, known, state(input_dropout.DROPPED)
  )
  cold = input_dropout.apply_states(nothing, known, state(input_dropout.AS_IS))
  no_history = input_dropout.apply_states(
      known, nothing, state(input_dropout.TRANSFORMED)
  )
  outputs = [
      np.asarray(embed(model, variables, (rows, content)).dense)
      for rows in (dropped, cold, no_history)
  ]
  assert outputs[0].tobytes() == outputs[1].tobytes() == outputs[2].tobytes()
  assert len({row.tobytes() for row in outputs[0]}) == 1
  warm = embed(model, variables, (known, content)).dense
  assert not np.array_equal(warm, outputs[0])


def test_presence_moves_the_modern_tower_beyond_a_zero_preference():
  model, variables = make_model(MODERN)
  _, content = make_rows()
  zero = jnp.zeros((ROWS, FACTORS))
  present, absent = (
      embed(
          model,
          variables,
          (input_dropout.Preference(zero, jnp.full(ROWS, bit)), content),
      ).dense
      for bit in (True, False)
  )
  assert np.all(np.abs(present - absent).max(axis=1) > 1e-3)


def slow_paper_tower(variables, x, train):
  """Tower of one hidden layer by arithmetic: output, new mean, new variance."""
  params = jax.tree.map(np.asarray, variables['params']['item_tower'])
  stats = jax.tree.map(
      np.asarray, variables['batch_stats']['item_tower']['BatchNorm_0']
  )
  hidden = x @ params['Dense_0']['kernel']
  mean, var = stats['mean'], stats['var']
  if train:
    mean = hidden.sum(axis=0) / len(hidden)
    var = ((hidden - mean) ** 2).sum(axis=0) / len(hidden)
  norm = params['BatchNorm_0']
  hidden = (hidden - mean) / (var + 1e-3) ** 0.5 * norm['scale'] + norm['bias']
  out = (
      np.tanh(hidden) @ params['Dense_1']['kernel'] + params['Dense_1']['bias']
  )
  return out, 0.9 * stats['mean'] + 0.1 * mean, 0.9 * stats['var'] + 0.1 * var


@pytest.mark.parametrize('num_devices', [1, 8])
def test_batch_norm_is_of_the_whole_batch_on_any_number_of_devices(num_devices):
  settings = config.ModelConfig(tower='paper', hidden=(8,), rank=RANK)
  model, variables = make_model(settings)
  preference, content = make_rows(rows=16)
  x = np.concatenate([preference.value, content.dense], axis=1)
  mesh = parallel.make_mesh(config.MeshConfig(), num_devices)
  rows = jax.device_put((preference, content), parallel.by_row(mesh))
  placed = parallel.place(variables, mesh)
  got, updated = embed(model, placed, rows, train=True)
  out, mean, var = slow_paper_tower(variables, x, True)
  np.testing.assert_allclose(got.dense, out, rtol=1e-4, atol=1e-5)
  stats = updated['batch_stats']
  new = stats['item_tower']['BatchNorm_0']
  np.testing.assert_allclose(new['mean'], mean, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(new['var'], var, rtol=1e-4, atol=1e-6)
  # The other tower's statistics are handed on as they were.
  jax.tree.map(
      np.testing.assert_array_equal,
      stats['user_tower'],
      variables['batch_stats']['user_tower'],
  )
  # At serving a row does not depend on its batch.
  whole = embed(model, placed, rows).dense
  np.testing.assert_allclose(
      whole, slow_paper_tower(variables, x, False)[0], rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize('settings', [MODERN, RESIDUAL])
def test_modern_rows_do_not_depend_on_their_batch(settings):
  model, variables = make_model(settings)
  preference, content = make_rows()
  whole, _ = embed(model, variables, (preference, content), train=True)
  half = jax.tree.map(lambda x: x[:3], (preference, content))
  np.testing.assert_allclose(
      embed(model, variables, half).dense, whole.dense[:3], rtol=1e-5, atol=1e-7
  )


@pytest.mark.parametrize('rank', [3, 8])
def test_residual_content_starts_as_the_identity(rank):
  """The content, cut or padded to the rank, but for a small first guess."""
  settings = config.ModelConfig(
      tower='modern', hidden=(8,), rank=rank, residual_content=True
  )
  model, variables = first_model(settings)
  tower = variables['params']['item_tower']
  np.testing.assert_array_equal(
      tower['residual']['kernel'], np.eye(CONTENT, rank)
  )
  assert np.abs(tower['output']['kernel']).max() < 0.03
  tower['output']['kernel'] *= 0
  content = make_rows()[1].dense
  got = embed(model, variables, make_rows()).dense
  expected = np.zeros((ROWS, rank), np.float32)
  width = min(rank, CONTENT)
  norm = np.sqrt((np.asarray(content) ** 2).sum(axis=1, keepdims=True))
  expected[:, :width] = (content / norm)[:, :width]
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('scale', [1.0, CONTENT**0.5, 100.0])
def test_residual_content_starts_as_cosines_at_any_scale_of_the_content(scale):
  """Tables hold content of unit entries: its rows are longer than 1."""
  settings = config.ModelConfig(
      tower='modern', hidden=(8,), rank=CONTENT, residual_content=True
  )
  model, variables = first_model(settings)
  variables['params']['item_tower']['output']['kernel'] *= 0
  preference, content = make_rows()
  dense = (content.dense * scale).at[1].set(0.0)  # a row without content
  content = tower_inputs.Content(dense)
  emb = embed(model, variables, (preference, content)).dense
  rows = np.asarray(dense, float)
  norm = np.sqrt((rows**2).sum(axis=1))
  norm[1] = 1.0
  cosine = rows @ rows.T / np.outer(norm, norm)
  np.testing.assert_allclose(emb @ emb.T, cosine, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('hidden', [(), (8,)])
def test_users_that_start_at_zero_are_learnt_from_the_first_step(hidden):
  """The sparse part is then all of the first score; items start as ever."""
  settings = config.ModelConfig(
      tower='modern', hidden=hidden, rank=RANK, zero_users=True
  )
  model, variables = first_model(settings)
  users = make_rows(content=0)
  user = embed(model, variables, users, 'embed_users').dense
  np.testing.assert_array_equal(user, np.zeros((ROWS, RANK)))
  item = embed(model, variables, make_rows(), 'embed_items').dense
  assert np.abs(item).max() > 0

  def score(params):
    user = embed(model, {'params': params}, users, 'embed_users').dense
    return jnp.sum(user * item)

  gradient = jax.grad(score)(variables['params'])['user_tower']
  assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradient)) > 0


@pytest.mark.parametrize('settings', [PAPER, MODERN])
def test_first_scores_are_small(settings):
  """Teacher scores are near 0; a guess of unit variance would be unlearnt."""
  model, variables = first_model(settings)
  user = embed(model, variables, make_rows(content=0), 'embed_users').dense
  assert np.abs(user).max() < 0.2


@pytest.mark.parametrize('tower', ['paper', 'modern', 'groups'])
def test_bfloat16_computes_close_to_float32_and_returns_float32(tower):
  make = lambda dtype: make_model(
      config.ModelConfig(tower=tower, hidden=(8,), rank=RANK, dtype=dtype)
  )
  (full, variables), (half, _) = make('float32'), make('bfloat16')
  for leaf in jax.tree.leaves(shapes(half.settings)):
    assert leaf.dtype == jnp.float32  # only the computation is in bfloat16
  expected, _ = embed(full, variables, make_rows(), train=True)
  got, stats = embed(half, variables, make_rows(), train=True)
  assert got.dense.dtype == jnp.float32
  for leaf in jax.tree.leaves(stats):
    assert leaf.dtype == jnp.float32
  gap = np.abs(got.dense - expected.dense).max()
  assert 0 < gap < 0.03 * np.abs(expected.dense).max()


@TOWERS
def test_normalize_gives_rows_of_norm_one(settings):
  plain, variables = make_model(settings)
  normed = HashableTowers(
      config.ModelConfig(**(vars(settings) | {'normalize': True}))
  )
  got = embed(normed, variables, make_rows()).dense
  np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, rtol=1e-5)
  direction = embed(plain, variables, make_rows()).dense
  length = np.linalg.norm(direction, axis=1, keepdims=True)
  np.testing.assert_allclose(got, direction / length, rtol=1e-4, atol=1e-6)
