# SPDX-License-Identifier: Apache-2.0
"""EASE and smoothed histories against its definition and slow references."""

import tracemalloc

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax.evaluation import ease


def _random_sparse(
    shape: tuple[int, int], density: float, seed: int = 0
) -> scipy.sparse.csr_array:
  return scipy.sparse.random_array(
      shape,
      density=density,
      format='csr',
      dtype=np.float32,
      rng=np.random.default_rng(seed),
  )


def _with_first(
    matrix: scipy.sparse.csr_array, value: float
) -> scipy.sparse.csr_array:
  """The matrix with its first entry set, so that it is not empty."""
  dense = matrix.toarray()
  dense[0, 0] = value
  return scipy.sparse.csr_array(dense)


def _random_likes(
    num_users: int, num_items: int, seed: int = 0
) -> scipy.sparse.csr_array:
  likes = _random_sparse((num_users, num_items), 0.15, seed)
  likes.data[:] = 1
  return likes


def _slow_weights(likes: np.ndarray, l2: float) -> np.ndarray:
  """Each column on its own: ridge of an item on all the other items."""
  num_items = likes.shape[1]
  weights = np.zeros((num_items, num_items))
  for item in range(num_items):
    others = np.delete(np.arange(num_items), item)
    x = likes[:, others].astype(np.float64)
    weights[others, item] = np.linalg.solve(
        x.T @ x + l2 * np.eye(len(others)), x.T @ likes[:, item]
    )
  return weights


def _make_smoother(
    side: str, likes: scipy.sparse.csr_array, l2: float
) -> ease.Smoother:
  if side == 'items':
    return ease.ItemSmoother(ease.item_weights(likes, l2))
  smoother = ease.fit(likes, l2)
  assert isinstance(smoother, ease.UserSmoother)
  return smoother


@pytest.mark.parametrize('l2', (0.5, 10.0))
@pytest.mark.parametrize('shape', ((40, 12), (12, 40), (30, 30), (3, 1)))
def test_weights_are_a_ridge_of_each_item_on_the_others(
    shape: tuple[int, int], l2: float
):
  likes = _with_first(_random_likes(*shape), 1)
  weights = ease.item_weights(likes, l2)
  assert weights.dtype == np.float32
  np.testing.assert_array_equal(np.diag(weights), 0)
  expected = _slow_weights(likes.toarray(), l2)
  np.testing.assert_allclose(weights, expected, atol=2e-5)


def test_weights_by_hand():
  # Both users like item 0, one of them item 1 too: R'R = [[2, 1], [1, 1]].
  likes = scipy.sparse.csr_array(np.array([[1, 1], [1, 0]], np.float32))
  weights = ease.item_weights(likes, 1.0)
  np.testing.assert_allclose(weights, [[0, 1 / 3], [1 / 2, 0]], rtol=1e-6)


def test_weights_solve_the_constrained_problem():
  """At the optimum the gradient is zero off the diagonal (Lagrange)."""
  likes, l2 = _random_likes(60, 25), 3.0
  weights = ease.item_weights(likes, l2).astype(np.float64)
  dense = likes.toarray().astype(np.float64)
  gradient = -dense.T @ (dense - dense @ weights) + l2 * weights
  off_diagonal = gradient - np.diag(np.diag(gradient))
  np.testing.assert_allclose(off_diagonal, 0, atol=1e-4)
  assert np.abs(np.diag(gradient)).min() > 0.01  # the constraint is active


@pytest.mark.parametrize('l2', (1.0, 100.0))
@pytest.mark.parametrize('weighted', (False, True))
def test_both_sides_give_one_smoothing(l2: float, weighted: bool):
  likes = _random_likes(20, 70)
  if weighted:
    likes.data[:] = np.random.default_rng(1).uniform(0.2, 3, likes.nnz)
  strangers = _random_likes(9, 70, seed=2)
  for histories in (likes, strangers):
    by_items, by_users = (
        _make_smoother(side, likes, l2).predict(histories)
        for side in ('items', 'users')
    )
    expected = histories.toarray() @ _slow_weights(likes.toarray(), l2)
    np.testing.assert_allclose(by_items, expected, atol=5e-5)
    np.testing.assert_allclose(by_users, expected, atol=5e-5)


def test_the_smaller_side_is_taken():
  assert isinstance(ease.fit(_random_likes(50, 20), 1.0), ease.ItemSmoother)
  by_users = ease.fit(_random_likes(20, 50), 1.0)
  assert isinstance(by_users, ease.UserSmoother)
  assert by_users.inverse.shape == (20, 20)
  assert by_users.inverse.flags.c_contiguous


@pytest.mark.parametrize('shape', ((8, 30), (30, 8)))
@pytest.mark.parametrize('strength', (0.0, 0.5, 3.0))
def test_smoothed_adds_the_prediction(shape: tuple[int, int], strength: float):
  likes, l2 = _random_likes(*shape), 2.0
  smoother = ease.fit(likes, l2)
  dense = likes.toarray()
  expected = dense + strength * dense @ _slow_weights(dense, l2)
  for histories in (likes, dense):
    before = histories.copy()
    got = ease.smoothed(histories, smoother, strength)
    got = got if isinstance(got, np.ndarray) else got.toarray()
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=5e-5)
    assert abs(histories - before).sum() == 0  # the argument is not written to


def test_without_smoother_or_strength_histories_stay():
  likes = _random_likes(8, 30)
  assert ease.smoothed(likes, None, 3.0) is likes
  assert ease.smoothed(likes, ease.fit(likes, 1.0), 0.0) is likes


def _slow_top(history: np.ndarray, size: int) -> np.ndarray:
  result = np.zeros_like(history)
  for user, row in enumerate(history):
    for item in sorted(range(len(row)), key=lambda i: -row[i])[:size]:
      result[user, item] = max(row[item], 0)
  return result


@settings(max_examples=25, deadline=None)
@given(
    num_users=st.integers(1, 12),
    num_items=st.integers(2, 12),
    size=st.integers(1, 14),
    seed=st.integers(0, 99),
)
def test_top_weights_are_the_largest(
    num_users: int, num_items: int, size: int, seed: int
):
  likes = _random_sparse((num_users, num_items), 0.5, seed)
  likes = _with_first(likes, 0.7)
  smoother = ease.fit(likes, 1.0)
  smooth = ease.to_dense(ease.smoothed(likes, smoother, 2.0))
  got = ease.top_weights(smooth, size)
  dense = likes.toarray()
  history = dense + 2.0 * dense @ _slow_weights(dense, 1.0)
  assert got.shape == likes.shape and got.dtype == np.float32
  assert np.diff(got.indptr).max() <= size
  assert (got.data > 0).all()
  assert got.has_sorted_indices and got.has_canonical_format
  np.testing.assert_allclose(got.toarray(), _slow_top(history, size), atol=5e-5)


def test_top_weights_of_users_with_fewer_and_of_none():
  likes = np.array([[3, 1, 2, 0], [0, 0, 0, 0], [0, 5, 0, -1]], np.float32)
  got = ease.top_weights(likes, 2).toarray()
  np.testing.assert_array_equal(got, [[3, 0, 2, 0], [0, 0, 0, 0], [0, 5, 0, 0]])
  empty = ease.top_weights(likes[:0], 2)
  assert empty.shape == (0, 4) and empty.nnz == 0


@pytest.mark.parametrize('num_rows', (1, 5, 255, 256, 257, 600))
def test_dot_products_and_mirror(num_rows: int):
  rows = _random_sparse((num_rows, 40), 0.1)
  others = _random_sparse((300, 40), 0.1, seed=1)
  got = ease.dot_products(rows, others)
  assert got.flags.f_contiguous and got.dtype == np.float32
  expected = rows.toarray() @ others.toarray().T
  np.testing.assert_allclose(got, expected, atol=1e-6)

  square = np.random.default_rng(0).random((num_rows, num_rows))
  expected = np.tril(square) + np.tril(square, -1).T
  upper = np.triu(square) + np.triu(square, 1).T
  from_upper = square.copy()
  ease.mirror(square)
  np.testing.assert_array_equal(square, expected)
  ease.mirror(from_upper.T)  # of the transpose: the upper triangle rules
  np.testing.assert_array_equal(from_upper, upper)


def test_cholesky_works_in_place_and_leaves_the_upper_triangle():
  rows = _random_sparse((300, 400), 0.1)
  gram = ease.dot_products(rows, rows)
  np.fill_diagonal(gram, gram.diagonal() + 1)
  before = gram.copy()
  factor = ease.factorize(gram)
  assert np.shares_memory(factor, gram)
  np.testing.assert_array_equal(np.triu(gram, 1), np.triu(before, 1))
  lower = np.tril(factor)
  np.testing.assert_allclose(lower @ lower.T, before, atol=1e-4)


def _peak_bytes(function) -> int:
  tracemalloc.start()
  try:
    function()
    return tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()


def test_weights_take_one_square_buffer():
  likes = _random_sparse((200, 800), 0.002)
  square = 4 * 800**2
  peak = _peak_bytes(lambda: ease.item_weights(likes, 1.0))
  assert square <= peak < 1.5 * square


@pytest.mark.parametrize('shape', ((200, 10_000), (10_000, 200)))
def test_smoothing_never_makes_users_times_items(shape: tuple[int, int]):
  likes = _random_sparse(shape, 1e-3)

  def smooth():
    smoother = ease.fit(likes, 10.0)
    total = 0.0
    for chunk in ease.chunks(shape[0], 8):
      total += ease.to_dense(ease.smoothed(likes[chunk], smoother, 3.0)).sum()
    assert total > 0

  assert _peak_bytes(smooth) < 4 * shape[0] * shape[1] / 2


def test_too_large_for_a_gram_matrix():
  likes = _random_likes(30, 40)
  ease.fit(likes, 1.0, max_gram=30)
  with pytest.raises(errors.UserError) as caught:
    ease.fit(likes, 1.0, max_gram=29)
  assert '30 users and 40 items' in str(caught.value)
  assert 'at most 29' in str(caught.value)


@pytest.mark.parametrize('function', (ease.fit, ease.item_weights))
def test_bad_input_is_named(function):
  empty = scipy.sparse.csr_array((3, 4), dtype=np.float32)
  with pytest.raises(errors.UserError, match='3 users and 4 items are empty'):
    function(empty, 1.0)
  for l2 in (0.0, -1.0, float('nan'), float('inf')):
    with pytest.raises(errors.UserError, match='smoothing_l2 is .* positive'):
      function(_random_likes(30, 40), l2)


def test_a_singular_matrix_is_named():
  likes = scipy.sparse.csr_array(np.ones((3, 2), np.float32))
  with pytest.raises(errors.UserError, match='not positive definite'):
    ease.item_weights(likes, 1e-9)
