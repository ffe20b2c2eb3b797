# SPDX-License-Identifier: Apache-2.0
"""Worlds in which a learnt embedding is what tells tastes apart.

Targets are those of a teacher that knows the truth, as in the paper.
"""

import jax.numpy as jnp
import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import tokens as tokens_lib
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.training import runtime as runtime_lib

USERS, NEW_USERS, ITEMS, NEW_ITEMS, RANK, STEPS = 80, 30, 300, 100, 6, 200
GROUPS, CATEGORIES = 4, 50


def tokens_of(ids, num_ids, name, width=8):
  """One token of weight 1 in each row."""
  feature = tokens_lib.TokenFeature(
      name, name, 0, 1, num_ids, width, 'mean', width**-0.5
  )
  ids = np.asarray(ids, np.int32)[:, None]
  return tokens_lib.Tokens(ids, (ids > 0).astype(np.float32), (feature,))


def make_side(dense, **more):
  return problem_lib.Side(
      np.arange(len(dense)),
      dense.astype(np.float32),
      scipy.sparse.csr_array((len(dense), 0), dtype=np.float32),
      **more,
  )


def make_problem(user, item, user_side, item_side):
  """Likes are the fifth of the items that a user's true factors score best."""
  score = user @ item.T
  likes = score > np.quantile(score, 0.8, axis=1, keepdims=True)
  old_user = np.arange(USERS) < USERS - NEW_USERS
  old_item = np.arange(ITEMS) < ITEMS - NEW_ITEMS
  pairs = lambda users, items: [
      x.astype(np.int32) for x in np.nonzero(likes & np.outer(users, items))
  ]
  new = np.flatnonzero(~old_item).astype(np.int32)
  evaluation = {
      'cold_item': schema.EvaluationSet(*pairs(old_user, ~old_item), new),
      'cold_both': schema.EvaluationSet(*pairs(~old_user, ~old_item), new),
  }
  split = schema.Split(
      schema.Interactions(*pairs(old_user, old_item)), evaluation
  )
  size = np.float32(RANK**0.5)
  factors = schema.Factors(
      (user / size * old_user[:, None]).astype(np.float32),
      (item / size * old_item[:, None]).astype(np.float32),
      old_user,
      old_item,
  )
  return problem_lib.Problem(user_side, item_side, split, factors)


def train_and_rank(problem, preference='factors', **dropout):
  """NDCG@20 of old and of new users over the new items."""
  cfg = config.Config(
      features=config.FeaturesConfig(scaling='column', preference=preference),
      dropout=config.DropoutConfig(**dropout),
      model=config.ModelConfig(tower='paper', hidden=(32,), rank=8),
      train=config.TrainConfig(
          batch_size=(USERS - NEW_USERS) * 100,
          num_steps=STEPS,
          steps_per_dispatch=STEPS,
          learning_rate=1e-2,
      ),
      evaluation=config.EvaluationConfig(cutoffs=(20,)),
  )
  runtime = runtime_lib.build(cfg, problem, num_devices=1)
  state, _ = runtime.train_steps()(
      runtime.fresh_state(), runtime.tables, jnp.int32(STEPS)
  )
  method = runtime.scorer(state).methods()['model']
  return {
      name: protocol.evaluate(
          method(name, held_out),
          held_out,
          problem.likes(),
          cfg.evaluation,
          name,
      )['ndcg@20']
      for name, held_out in problem.split.evaluation.items()
  }


def test_categories_that_decide_are_learnt():
  """Items are what their category is; their other columns are noise."""
  rng = np.random.default_rng(0)
  category = rng.integers(0, CATEGORIES, ITEMS)
  category[:CATEGORIES] = np.arange(CATEGORIES)
  user = rng.normal(size=(USERS, RANK))
  item = rng.normal(size=(CATEGORIES, RANK))[category]
  users, noise = np.zeros((USERS, 0)), rng.normal(size=(ITEMS, 4))
  learnt = tokens_of(category + 1, CATEGORIES + 1, 'category')
  found = {}
  for name, more in (('blind', {}), ('learnt', {'tokens': learnt})):
    sides = make_side(users), make_side(noise, **more)
    problem = make_problem(user, item, *sides)
    found[name] = train_and_rank(problem, item_rate=0.9)['cold_item']
  assert found['blind'] < 0.3  # a fifth of the candidates is relevant
  assert found['learnt'] > 0.75


def test_ids_as_preference_help_known_users_and_hurt_no_new_ones():
  """Of a user only the group is known, but half of the taste is her own."""
  rng = np.random.default_rng(1)
  group = np.arange(USERS) % GROUPS
  user = rng.normal(size=(GROUPS, RANK))[group]
  user = user + rng.normal(size=(USERS, RANK))
  item = rng.normal(size=(ITEMS, RANK))
  known = {
      'preference_tokens': tokens_of(1 + np.arange(USERS), USERS + 1, 'id'),
      'preference_known': np.ones(USERS, bool),
  }
  found = {}
  for name, more in (('blind', {}), ('learnt', known)):
    sides = make_side(np.eye(GROUPS)[group], **more), make_side(item)
    problem = make_problem(user, item, *sides)
    found[name] = train_and_rank(problem, 'none', user_rate=0.5)
  blind, learnt = found['blind'], found['learnt']
  assert learnt['cold_item'] > blind['cold_item'] + 0.1
  assert learnt['cold_both'] > blind['cold_both'] - 0.03
