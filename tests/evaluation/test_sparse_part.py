# SPDX-License-Identifier: Apache-2.0
"""The sparse part of the embeddings is content ridge, plus the towers."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.evaluation import sparse_file
from dropoutnet_jax.evaluation import sparse_fit
from dropoutnet_jax.model import embeddings


def _settings(**changes):
  return config.SparseConfig(enabled=True, **changes)


def _embed(part, problem, rows, items, tower_weight, seed=0):
  rng = np.random.default_rng(seed)
  user_tower = rng.normal(size=(len(rows), 3)).astype(np.float32)
  item_tower = rng.normal(size=(len(items), 3)).astype(np.float32)
  content = problem.item.sparse
  user = part.embed_users(rows, user_tower, content, tower_weight)
  item = part.embed_items(items, content[items], item_tower)
  return user, item, user_tower @ item_tower.T


def _ridge(problem, rows, items, regularization, length_power=0.0):
  content = problem.item.sparse.toarray().astype(np.float64)
  entries = np.count_nonzero(content, axis=1)
  length = (entries / entries[:30].mean()) ** length_power
  content *= length[:, None]
  train = content[:30]
  history = problem.likes().toarray()[rows][:, :30]
  kernel = train @ train.T + regularization * np.eye(30)
  return history @ np.linalg.solve(kernel, train @ content[items].T)


@pytest.mark.parametrize('regularization', [0.5, 2.0])
@pytest.mark.parametrize('tower_weight', [0.0, 0.7])
@pytest.mark.parametrize('length_power', [0.0, 0.4])
def test_plain_part_is_the_exact_ridge(
    problem, regularization, tower_weight, length_power
):
  settings = _settings(
      regularization=regularization, smoothing=0.0, length_power=length_power
  )
  part = sparse_fit.fit(problem, settings, seed=0)
  rows, items = np.arange(24), np.arange(30, 40)
  user, item, tower = _embed(part, problem, rows, items, tower_weight)
  expected = _ridge(problem, rows, items, regularization, length_power)
  expected += tower_weight * tower
  found = embeddings.score(user, item)
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_smoothed_history_is_ease(problem):
  part = sparse_fit.fit(
      problem, _settings(smoothing=2.0, smoothing_l2=5.0), seed=0
  )
  likes = problem.likes().toarray()[:, :30].astype(np.float64)
  inverse = np.linalg.inv(likes.T @ likes + 5.0 * np.eye(30))
  weights = -inverse / np.diag(inverse)
  np.fill_diagonal(weights, 0)
  smooth = np.maximum(likes + 2.0 * likes @ weights, 0)
  found = part.history.toarray()
  np.testing.assert_allclose(found[:, :30], smooth, rtol=1e-3, atol=1e-4)
  assert not np.any(found[:, 30:])


def test_a_user_without_history_has_the_tower_alone(problem):
  part = sparse_fit.fit(problem, _settings(), seed=0)
  rows, items = np.arange(24, 30), np.arange(40)
  user, item, tower = _embed(part, problem, rows, items, 0.5)
  np.testing.assert_allclose(
      embeddings.score(user, item), 0.5 * tower, rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize('power', [0.0, 0.3])
def test_known_items_have_a_weight_of_their_own(problem, power, tmp_path):
  """What EASE says of an item is added: by itself, and not to new ones."""
  plain, more = (
      sparse_fit.fit(
          problem, _settings(history_weight=w, length_power=power), seed=0
      )
      for w in (0.0, 0.7)
  )
  rows, items = np.arange(30), np.arange(40)
  before, after = (
      np.asarray(embeddings.score(*_embed(x, problem, rows, items, 0.5)[:2]))
      for x in (plain, more)
  )
  own = more.history.toarray() / more.lengths.of(problem.item.sparse)[None, :]
  assert own[:24, :30].any() and not own[:, 30:].any()
  np.testing.assert_allclose(
      after - before, 0.7 * own[rows][:, items], rtol=1e-4, atol=2e-5
  )
  user, item, _ = _embed(more, problem, rows, items, 0.5)
  as_new = more.embed_items(
      np.full(40, -1), problem.item.sparse, np.asarray(item.dense[:, -3:])
  )
  np.testing.assert_allclose(
      embeddings.score(user, as_new), before, rtol=1e-4, atol=2e-5
  )
  sparse_file.save(more, str(tmp_path))
  again = sparse_file.load(str(tmp_path))
  np.testing.assert_array_equal(
      embeddings.score(*_embed(again, problem, rows, items, 0.5)[:2]), after
  )


def test_history_is_cut(problem):
  part = sparse_fit.fit(problem, _settings(history_size=2), seed=0)
  assert np.diff(part.history.indptr).max() == 2


@pytest.mark.parametrize('landmarks', [0, 20])
@pytest.mark.parametrize('history_size', [1, 3])
def test_what_is_cut_counts_through_the_dense_part(
    problem, landmarks, history_size
):
  """With all directions in the dense part, cutting changes no score."""
  scores = []
  for size in (history_size, 30):
    settings = _settings(
        history_size=size, landmarks=landmarks, length_power=0.3
    )
    part = sparse_fit.fit(problem, settings, seed=0)
    assert np.diff(part.history.indptr).max() <= size
    pair = _embed(part, problem, np.arange(24), np.arange(40), 0.5)
    scores.append(np.asarray(embeddings.score(*pair[:2])))
  np.testing.assert_allclose(scores[0], scores[1], rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize('rank', [0, 5])
def test_cut_histories_of_a_few_directions(problem, rank):
  """The sparse side is of what is kept, the dense one of all: by hand."""
  settings = _settings(history_size=2, correction_rank=rank, smoothing=0.0)
  part = sparse_fit.fit(problem, settings, seed=0)
  user, item, _ = _embed(part, problem, np.arange(24), np.arange(30, 40), 0.0)
  found = np.asarray(embeddings.score(user, item))
  content = problem.item.sparse.toarray().astype(np.float64)
  train, new = content[:30], content[30:]
  _, singular, right = np.linalg.svd(train, full_matrices=False)
  right = right[:rank]
  squared, rest = singular[:rank] ** 2, part.correction.divisor - 2.0
  if rank == 0:
    tail = singular**2
    np.testing.assert_allclose(rest, (tail**2).sum() / tail.sum(), rtol=0.3)
  kept = part.history.toarray()[:24, :30]
  whole = problem.likes().toarray()[:24, :30]
  others = np.eye(content.shape[1]) - right.T @ right
  inside = right.T / (squared + 2.0) @ right
  expected = kept @ train @ others @ new.T / (2.0 + rest)
  expected += whole @ train @ inside @ new.T
  np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-3)


def test_users_with_more_than_they_were_fitted_on(problem):
  """What comes on top is added; of rows without a history it is all."""
  part = sparse_fit.fit(problem, _settings(length_power=0.2), seed=0)
  rng = np.random.default_rng(1)
  content = problem.item.sparse
  more = scipy.sparse.random_array((3, 40), density=0.1, rng=rng, format='csr')
  more = scipy.sparse.csr_array(more, dtype=np.float32)
  rows, cold = np.array([2, -1, 25]), np.arange(24, 27)
  told = part.select(rows).with_more(more, more, content)
  length = part.lengths.of(content)
  expected = part.select(rows).history.toarray() + more.toarray() * length
  np.testing.assert_allclose(told.history.toarray(), expected, rtol=1e-6)
  assert part.select(rows).history[[0]].nnz
  assert not part.select(rows).history[[1, 2]].nnz
  every = np.arange(3)
  user = told.embed_users(every, np.zeros((3, 2), np.float32), content, 1.0)
  item = part.embed_items(np.arange(40), content, np.zeros((40, 2), np.float32))
  score = np.asarray(embeddings.score(user, item))
  replaced = part.with_histories(cold, more, content, problem.user.dense[cold])
  user = replaced.embed_users(cold, np.zeros((3, 2), np.float32), content, 1.0)
  other = np.asarray(embeddings.score(user, item))
  np.testing.assert_allclose(score[1:], other[1:], rtol=1e-4, atol=1e-5)
  user = part.embed_users(rows, np.zeros((3, 2), np.float32), content, 1.0)
  before = np.asarray(embeddings.score(user, item))
  np.testing.assert_allclose(
      score[0], before[0] + other[0], rtol=1e-4, atol=1e-5
  )


def test_saved_and_loaded_scores_the_same(problem, tmp_path):
  part = sparse_fit.fit(problem, _settings(length_power=0.2), seed=0)
  assert not sparse_file.exists(str(tmp_path))
  sparse_file.save(part, str(tmp_path))
  assert sparse_file.exists(str(tmp_path))
  again = sparse_file.load(str(tmp_path))
  rows, items = np.arange(24), np.arange(40)
  one = embeddings.score(*_embed(part, problem, rows, items, 1.0)[:2])
  two = embeddings.score(*_embed(again, problem, rows, items, 1.0)[:2])
  np.testing.assert_array_equal(jnp.asarray(one), jnp.asarray(two))


def test_without_sparse_content_it_is_refused(make_problem):
  with pytest.raises(errors.UserError, match='needs sparse content'):
    sparse_fit.fit(make_problem(item_content=False), _settings(), seed=0)
