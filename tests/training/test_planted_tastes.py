# SPDX-License-Identifier: Apache-2.0
"""A world in which learnt embeddings are what tells tastes apart.

Items are what their category is. Of a user her group is known from the start,
but half of her taste is her own, and only her id tells it: that is preference,
which a new user has none of. Targets are those of a teacher that knows the
truth, as in the paper.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import tokens as tokens_lib
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.training import runtime as runtime_lib

USERS, NEW_USERS, ITEMS, NEW_ITEMS, RANK, STEPS = 110, 30, 300, 100, 6, 250
GROUPS, CATEGORIES = 4, 50
CONFIG = config.Config(
    features=config.FeaturesConfig(scaling='column', preference='none'),
    model=config.ModelConfig(tower='paper', hidden=(64,), rank=8),
    train=config.TrainConfig(
        batch_size=(USERS - NEW_USERS) * (ITEMS - NEW_ITEMS),
        num_steps=STEPS,
        steps_per_dispatch=STEPS,
        learning_rate=1e-2,
        embedding_learning_rate=3e-2,
    ),
    evaluation=config.EvaluationConfig(cutoffs=(20,)),
)


def tokens_of(ids, num_ids, name, width=8):
  """One token of weight 1 in each row."""
  feature = tokens_lib.TokenFeature(
      name, name, 0, 1, num_ids, width, 'mean', width**-0.5
  )
  ids = np.asarray(ids, np.int32)[:, None]
  return tokens_lib.Tokens(ids, np.ones(ids.shape, np.float32), (feature,))


def make_side(dense, **more):
  return problem_lib.Side(
      np.arange(len(dense)),
      dense.astype(np.float32),
      scipy.sparse.csr_array((len(dense), 0), dtype=np.float32),
      **more,
  )


def make_problem(seed=0):
  """Likes are the fifth of the items that a user's true factors score best."""
  rng = np.random.default_rng(seed)
  group = np.arange(USERS) % GROUPS
  category = rng.integers(0, CATEGORIES, ITEMS)
  category[:CATEGORIES] = np.arange(CATEGORIES)
  user = rng.normal(size=(GROUPS, RANK))[group]
  user = user + rng.normal(size=(USERS, RANK))
  item = rng.normal(size=(CATEGORIES, RANK))[category]
  score = user @ item.T + 1e-3 * rng.normal(size=(USERS, ITEMS))
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
  size = np.float32(RANK**0.5)
  factors = schema.Factors(
      (user / size * old_user[:, None]).astype(np.float32),
      (item / size * old_item[:, None]).astype(np.float32),
      old_user,
      old_item,
  )
  return problem_lib.Problem(
      make_side(
          np.eye(GROUPS)[group],
          preference_tokens=tokens_of(1 + np.arange(USERS), USERS + 1, 'id'),
          preference_known=np.ones(USERS, bool),
      ),
      make_side(
          rng.normal(size=(ITEMS, 4)),  # noise
          tokens=tokens_of(1 + category, CATEGORIES + 1, 'category'),
      ),
      schema.Split(schema.Interactions(*pairs(old_user, old_item)), evaluation),
      factors,
  )


def without(tokens):
  return jax.tree.map(jnp.zeros_like, tokens)


@pytest.fixture(name='ndcg', scope='module')
def fixture_ndcg():
  """NDCG@20 of old and new users on new items: with all, without one of it.

  What a model is not told has no tokens in the tables, so that one program
  trains all three.
  """
  problem = make_problem()
  runtime = runtime_lib.build(CONFIG, problem, num_devices=1)
  first, train_steps = runtime.fresh_state(), runtime.train_steps()
  put = lambda x, like: jax.device_put(np.array(x), like.sharding)
  whole = runtime.tables
  features = whole.user.features
  no_ids = features.replace(
      tokens=without(features.tokens), known=without(features.known)
  )
  tables = {
      'all': whole,
      'no categories': whole.replace(
          item=whole.item.replace(tokens=without(whole.item.tokens))
      ),
      'no ids': whole.replace(user=whole.user.replace(features=no_ids)),
  }
  found = {}
  for name, told in tables.items():
    told = jax.tree.map(put, told, whole)
    state, _ = train_steps(
        jax.tree.map(put, first, first), told, jnp.int32(STEPS)
    )
    scorer = dataclasses.replace(runtime, tables=told).scorer(state)
    for split, held_out in problem.split.evaluation.items():
      values = protocol.evaluate(
          scorer.methods()['model'](split, held_out),
          held_out,
          problem.likes(),
          CONFIG.evaluation,
          name,
      )
      found[name, split] = values['ndcg@20']
  assert train_steps._cache_size() == 1
  return found


def test_categories_that_decide_are_learnt(ndcg):
  assert ndcg['no categories', 'cold_item'] < 0.3  # a fifth is relevant
  assert ndcg['all', 'cold_item'] > 0.65


def test_ids_as_preference_help_known_users_and_hurt_no_new_ones(ndcg):
  assert ndcg['all', 'cold_item'] > ndcg['no ids', 'cold_item'] + 0.1
  assert ndcg['all', 'cold_both'] > ndcg['no ids', 'cold_both'] - 0.05
  assert ndcg['no ids', 'cold_both'] > 0.35  # the group alone
