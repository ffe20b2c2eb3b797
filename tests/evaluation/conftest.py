# SPDX-License-Identifier: Apache-2.0
"""A tiny problem with all four quadrants."""

from collections.abc import Iterator

import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.model import embeddings
from tests import compilation

USERS, ITEMS, TAGS, RANK = 30, 40, 25, 4


@pytest.fixture(scope='package', autouse=True)
def quick_compilation() -> Iterator[None]:
  """For all tests of evaluation."""
  with compilation.quick_compilation():
    yield


def _unit_rows(rng, rows):
  dense = rng.random((rows, TAGS)) * (rng.random((rows, TAGS)) < 0.2)
  dense[np.arange(rows), np.arange(rows) % TAGS] += 0.5
  dense /= np.linalg.norm(dense, axis=1, keepdims=True)
  return scipy.sparse.csr_array(dense.astype(np.float32))


def _quadrant(likes, users, items, candidates, exclude_train=False):
  user, item = np.nonzero(likes[np.ix_(users, items)])
  return schema.EvaluationSet(
      users[user].astype(np.int32),
      items[item].astype(np.int32),
      candidates.astype(np.int32),
      exclude_train,
  )


def make_problem(seed=0, user_content=True, item_content=True):
  """24 + 6 cold users, 30 + 10 cold items; warm pairs are held out as well."""
  rng = np.random.default_rng(seed)
  likes = rng.random((USERS, ITEMS)) < 0.25
  warm_users, cold_users = np.arange(24), np.arange(24, USERS)
  warm_items, cold_items = np.arange(30), np.arange(30, ITEMS)
  held = np.zeros_like(likes)
  held[:24, :30] = likes[:24, :30] & (rng.random((24, 30)) < 0.2)
  user, item = np.nonzero((likes & ~held)[:24, :30])
  train = schema.Interactions(user.astype(np.int32), item.astype(np.int32))
  evaluation = {
      'warm': _quadrant(held, warm_users, warm_items, warm_items, True),
      'cold_item': _quadrant(likes, warm_users, cold_items, cold_items),
      'cold_user': _quadrant(likes, cold_users, warm_items, warm_items),
      'cold_both': _quadrant(likes, cold_users, cold_items, cold_items),
  }
  empty = lambda rows: scipy.sparse.csr_array((rows, 0), dtype=np.float32)
  side = lambda prefix, rows, content: problem_lib.Side(
      np.array([f'{prefix}{row}' for row in range(rows)]),
      rng.normal(size=(rows, 5 if content else 0)).astype(np.float32),
      _unit_rows(rng, rows) if content else empty(rows),
  )
  present = (np.arange(USERS) < 24, np.arange(ITEMS) < 30)
  factors = [
      (rng.normal(size=(len(p), RANK)) * p[:, None]).astype(np.float32)
      for p in present
  ]
  return problem_lib.Problem(
      side('u', USERS, user_content),
      side('i', ITEMS, item_content),
      schema.Split(train, evaluation),
      schema.Factors(*factors, *present),
  )


@pytest.fixture
def exact_products(monkeypatch):
  """Shapes of all that goes through the product that is never rounded."""
  calls = []
  exact = embeddings.dense_scores

  def dense_scores(user, item):
    calls.append((user.shape, item.shape))
    return exact(user, item)

  monkeypatch.setattr(embeddings, 'dense_scores', dense_scores)
  return calls


@pytest.fixture(name='problem', scope='session')
def fixture_problem():
  return make_problem()


@pytest.fixture(name='make_problem', scope='session')
def fixture_make_problem():
  return make_problem
