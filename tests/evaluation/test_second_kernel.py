# SPDX-License-Identifier: Apache-2.0
"""The second kernel: predictions without the item, features, and the ridge."""

import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.evaluation import second_kernel
from dropoutnet_jax.evaluation import sparse_file
from dropoutnet_jax.evaluation import sparse_fit
from dropoutnet_jax.evaluation import woodbury
from dropoutnet_jax.model import embeddings

LAMBDA = 0.7


def _content(problem):
  return problem.item.sparse[np.arange(30)]


def _correction(problem, regularization=LAMBDA):
  spectrum = woodbury.decompose(_content(problem), 30, 0)
  return woodbury.correction(spectrum, regularization)


def _settings(landmarks, weight, **changes):
  return config.SparseConfig(
      enabled=True, landmarks=landmarks, second_weight=weight, **changes
  )


def _predict(problem, train, rows):
  """Factors of items by ridge on some training items: float64 [N, P]."""
  content = problem.item.sparse.toarray().astype(np.float64)
  gram = content[train].T @ content[train] + LAMBDA * np.eye(content.shape[1])
  moments = content[train].T @ problem.factors.item[train]
  return content[rows] @ np.linalg.solve(gram, moments)


def _kernel(one, other):
  unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
  return np.maximum(unit(one) @ unit(other).T, 0) ** 2


def test_training_items_are_predicted_without_themselves(problem):
  predicted, predictor = second_kernel.leave_one_out(
      _content(problem), problem.factors.item[:30], _correction(problem)
  )
  for row in range(30):
    others = np.delete(np.arange(30), row)
    expected = _predict(problem, others, [row])[0]
    np.testing.assert_allclose(predicted[row], expected, rtol=1e-3, atol=1e-4)
  new = np.arange(30, 40)
  np.testing.assert_allclose(
      problem.item.sparse[new] @ predictor,
      _predict(problem, np.arange(30), new),
      rtol=1e-3,
      atol=1e-4,
  )


def test_an_item_without_content_has_no_features(problem):
  content = _content(problem).tolil()
  content[[4, 9]] = 0
  content = content.tocsr()
  spectrum = woodbury.decompose(content, 30, 0)
  correction = woodbury.correction(spectrum, LAMBDA)
  kernel, features = second_kernel.fit(
      content, problem.factors.item[:30], correction, _settings(30, 1.0), 0
  )
  assert len(kernel.landmarks) == 28
  assert not features[[4, 9]].any() and features.any(axis=1).sum() == 28
  assert not kernel.features(content)[[4, 9]].any()


@pytest.mark.parametrize('num_landmarks', [30, 12])
def test_features_are_those_of_the_kernel(problem, num_landmarks):
  """Exact with all items as landmarks, close with some of them."""
  kernel, features = second_kernel.fit(
      _content(problem),
      problem.factors.item[:30],
      _correction(problem),
      _settings(num_landmarks, 0.5),
      0,
  )
  assert kernel.width <= num_landmarks
  predicted, _ = second_kernel.leave_one_out(
      _content(problem), problem.factors.item[:30], _correction(problem)
  )
  new = np.arange(30, 40)
  exact = 0.5 * _kernel(predicted, _predict(problem, np.arange(30), new))
  found = features @ kernel.features(problem.item.sparse[new]).T
  if num_landmarks == 30:
    np.testing.assert_allclose(found, exact, atol=0.02)
  assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.8


def test_the_leading_features_are_kept(problem):
  """As many as asked for, and no other ones explain more of the kernel."""
  fit = lambda width: second_kernel.fit(
      _content(problem),
      problem.factors.item[:30],
      _correction(problem),
      _settings(30, 1.0, second_width=width),
      0,
  )[1]
  whole = fit(800)
  exact = whole @ whole.T
  energy = lambda features: np.linalg.norm(exact - features @ features.T)
  few = fit(6)
  assert few.shape == (30, 6) < whole.shape
  values = np.linalg.eigvalsh(exact.astype(np.float64))[:-6]
  np.testing.assert_allclose(energy(few), np.linalg.norm(values), rtol=1e-2)


def test_the_sparse_part_is_the_ridge_on_both_kernels(problem):
  settings = config.SparseConfig(
      enabled=True,
      regularization=1.5,
      smoothing=0.0,
      landmarks=30,
      second_weight=0.5,
      factor_regularization=LAMBDA,
  )
  part = sparse_fit.fit(problem, settings, seed=0)
  assert part.second is not None
  rows, items = np.arange(24), np.arange(30, 40)
  content = problem.item.sparse
  tower = np.zeros((24, 1), np.float32)
  user = part.embed_users(rows, tower, content, 0.0)
  item = part.embed_items(items, content[items], tower[:10])
  found = np.asarray(embeddings.score(user, item))

  dense = content.toarray().astype(np.float64)
  predicted, _ = second_kernel.leave_one_out(
      _content(problem), problem.factors.item[:30], _correction(problem)
  )
  # As the features have it: the kernel is cut where it is none.
  own = part.second.of_factors(predicted).astype(np.float64)
  new = part.second.features(content[items]).astype(np.float64)
  gram = dense[:30] @ dense[:30].T + own @ own.T + 1.5 * np.eye(30)
  across = dense[:30] @ dense[items].T + own @ new.T
  history = problem.likes().toarray()[rows][:, :30]
  expected = history @ np.linalg.solve(gram, across)
  np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)


def test_it_is_saved_and_added_to_like_the_rest(problem, tmp_path):
  settings = config.SparseConfig(enabled=True, smoothing=0.0, landmarks=20)
  part = sparse_fit.fit(problem, settings, seed=0)
  sparse_file.save(part, str(tmp_path))
  again = sparse_file.load(str(tmp_path))
  content, rows = problem.item.sparse, np.arange(24)
  tower = np.zeros((40, 1), np.float32)
  score = lambda part, rows: np.asarray(
      embeddings.score(
          part.embed_users(rows, tower[: len(rows)], content, 0.0),
          part.embed_items(np.arange(40), content, tower),
      )
  )
  np.testing.assert_array_equal(score(part, rows), score(again, rows))
  # A new user with the history of another scores like one told of it.
  histories = problem.likes()[[2, 5]]
  cold = np.array([24, 25])
  told = part.with_histories(cold, histories, content, problem.user.dense[cold])
  more = part.select(np.array([-1, -1])).with_more(
      histories, histories, content
  )
  np.testing.assert_allclose(
      score(told, np.array([24, 25])),
      score(more, np.arange(2)),
      rtol=1e-4,
      atol=1e-5,
  )
  assert np.any(score(told, np.array([24, 25])))
