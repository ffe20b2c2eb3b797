# SPDX-License-Identifier: Apache-2.0
"""A world whose right answer is known, and which needs the paper's idea."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.training import runtime as runtime_lib

USERS, ITEMS, COLD, STEPS = 32, 256, 64, 300


def two_taste_world(seed):
  """Even users like even items, odd like odd; the last 64 items are cold.

  Content tells the parity as the difference of two signs, beside noise, so
  that no linear map finds it. Preference tells it plainly, so that a model
  that is never without preference has no need to find it in the content.
  """
  parity = np.arange(ITEMS) % 2
  rng = np.random.default_rng(seed)
  sign = rng.integers(0, 2, ITEMS)
  signs = 4 * np.stack([sign, sign ^ parity], axis=1) - 2
  content = np.concatenate([signs, rng.normal(size=(ITEMS, 4))], axis=1)
  likes = np.arange(USERS)[:, None] % 2 == parity[None]
  taste = np.array([[1.0, -1.0], [-1.0, 1.0]], np.float32)
  warm = np.arange(ITEMS) < ITEMS - COLD
  user, item = np.nonzero(likes & warm)
  cold_user, cold_item = np.nonzero(likes & ~warm)
  split = schema.Split(
      schema.Interactions(user.astype(np.int32), item.astype(np.int32)),
      {
          'cold_item': schema.EvaluationSet(
              cold_user.astype(np.int32),
              cold_item.astype(np.int32),
              np.flatnonzero(~warm).astype(np.int32),
          )
      },
  )
  factors = schema.Factors(
      taste[np.arange(USERS) % 2],
      taste[parity] / 2 * warm[:, None],
      np.ones(USERS, bool),
      warm,
  )
  nothing = lambda rows: scipy.sparse.csr_array((rows, 0), dtype=np.float32)
  return problem_lib.Problem(
      problem_lib.Side(
          np.arange(USERS), np.zeros((USERS, 0), np.float32), nothing(USERS)
      ),
      problem_lib.Side(
          np.arange(ITEMS), content.astype(np.float32), nothing(ITEMS)
      ),
      split,
      factors,
  )


SETTINGS = {
    'features': config.FeaturesConfig(scaling='column'),
    'model': config.ModelConfig(tower='paper', hidden=(32,), rank=8),
    'train': config.TrainConfig(
        batch_size=USERS * 96,
        num_steps=STEPS,
        steps_per_dispatch=STEPS,
        learning_rate=1e-2,
    ),
    'evaluation': config.EvaluationConfig(cutoffs=(32,)),
}


@pytest.fixture(scope='module')
def first():
  """A runtime and its fresh state, the same for every rate and seed."""
  cfg = config.Config(**SETTINGS)
  runtime = runtime_lib.build(cfg, two_taste_world(0), num_devices=1)
  return runtime, runtime.fresh_state()


def cold_recalls(first, rate, seeds):
  """Recall@32 over 64 candidates, half of them relevant, of each world."""
  cfg = config.Config(dropout=config.DropoutConfig(item_rate=rate), **SETTINGS)
  embedder, state = first[0].embedder, first[1]
  train_steps = dataclasses.replace(first[0], cfg=cfg).train_steps()
  copy = lambda x: jax.device_put(np.array(x), x.sharding)
  found = []
  for seed in seeds:
    problem = two_taste_world(seed)
    runtime = runtime_lib.build(cfg, problem, num_devices=1)
    runtime = dataclasses.replace(runtime, embedder=embedder)
    trained, losses = train_steps(
        jax.tree.map(copy, state), runtime.tables, jnp.int32(STEPS)
    )
    assert losses['loss/total'][-1] < 0.1 * losses['loss/total'][0]
    held_out = problem.split.evaluation['cold_item']
    values = protocol.evaluate(
        runtime.scorer(trained).methods()['model']('cold_item', held_out),
        held_out,
        problem.likes(),
        cfg.evaluation,
        'the model',
    )
    found.append(values['recall@32'])
  return found


def test_cold_items_are_ranked_right_with_input_dropout(first):
  assert min(cold_recalls(first, 0.9, seeds=range(4))) > 0.95


def test_the_same_training_without_the_idea_is_at_chance(first):
  assert max(cold_recalls(first, 0.0, seeds=range(4))) < 0.75
