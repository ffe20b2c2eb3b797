# SPDX-License-Identifier: Apache-2.0
"""Several pairs of towers as one: each is one that was trained alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.model import members
from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import runtime as runtime_lib
from tests import tiny_run

pytestmark = pytest.mark.usefixtures('quick_compilation')
NUM, STEPS = 3, 5


def test_the_dot_product_is_the_mean():
  rng = np.random.default_rng(0)
  user, item = (
      jnp.asarray(rng.normal(size=(n, NUM, 4)), jnp.float32) for n in (5, 6)
  )
  expected = jnp.einsum('umr,imr->ui', user, item) / NUM
  found = members.join(user) @ members.join(item).T
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  alone = user[:, :1]
  np.testing.assert_array_equal(members.join(alone), alone[:, 0])


def test_seeds_are_far_apart():
  cfg = config.Config()
  assert members.config_of(cfg, 0) is cfg
  seeds = [members.config_of(cfg, n).train.seed for n in range(4)]
  assert len(set(seeds)) == 4 and min(seeds[1:]) > 1000
  cfg.train.seed = 1
  others = {members.config_of(cfg, n).train.seed for n in range(4)}
  assert not others & set(seeds)


def _runtime(cfg, problem):
  return runtime_lib.build(cfg, problem, num_devices=1)


def _member(tree, number):
  """What one member has of parameters or statistics, as if it were alone."""
  return {
      name: value[f'members_{number}'] if name.endswith('_tower') else value
      for name, value in tree.items()
  }


@pytest.mark.parametrize(
    'pairing, term',
    [
        ('blocks', 'teacher'),
        ('interactions', 'in_batch_softmax'),
    ],
)
def test_each_is_trained_as_if_alone(pairing, term):
  """Parameters, statistics and scores, by plain descent: no scale of loss."""
  cfg = tiny_run.changed(
      objective=dict(pairing=pairing, teacher=0.0) | {term: 1.0},
      train=dict(ema=0.0, batch_size=100, optimizer='sgd', learning_rate=0.3),
  )
  problem = prepare.prepare(cfg, None, None)
  several = dataclasses.replace(
      cfg,
      model=dataclasses.replace(cfg.model, members=NUM),
      # The mean over the members has a share of the gradient of each.
      train=dataclasses.replace(cfg.train, learning_rate=0.3 * NUM),
  )
  together = _runtime(several, problem)
  state = together.fresh_state()
  first = jax.device_get(state)
  state, _ = together.train_steps()(state, together.tables, jnp.int32(STEPS))
  rows = np.arange(7)
  sides = [(side, getattr(together.tables, side)) for side in ('user', 'item')]
  whole = [
      together.embedder(side, state.eval_variables(), table, rows)
      for side, table in sides
  ]
  assert whole[0].shape == (7, NUM * cfg.model.rank)
  total = np.zeros((7, 7))
  for number in range(NUM):
    alone = _runtime(members.config_of(cfg, number), problem)
    own = alone.fresh_state()
    own = own.replace(
        params=_member(first.params, number),
        batch_stats=_member(first.batch_stats, number),
    )
    own, _ = alone.train_steps()(own, alone.tables, jnp.int32(STEPS))
    for found, expected in (
        (_member(state.params, number), own.params),
        (_member(state.batch_stats, number), own.batch_stats),
    ):
      jax.tree.map(
          lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
          jax.device_get(found),
          jax.device_get(expected),
      )
    user, item = (
        alone.embedder(side, own.eval_variables(), table, rows)
        for side, table in sides
    )
    total += user @ item.T
  np.testing.assert_allclose(
      whole[0] @ whole[1].T, total / NUM, rtol=1e-3, atol=1e-5
  )
