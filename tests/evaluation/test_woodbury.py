# SPDX-License-Identifier: Apache-2.0
"""The rank-k form of content ridge against dense float64 formulas."""

import tracemalloc

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax.evaluation import woodbury


def _unit_rows(
    num_rows: int, num_tags: int, density: float = 0.2, seed: int = 0
) -> scipy.sparse.csr_array:
  """Random sparse content; some rows may be empty."""
  content = scipy.sparse.random_array(
      (num_rows, num_tags),
      density=density,
      format='csr',
      rng=np.random.default_rng(seed),
  )
  norm = np.sqrt(content.multiply(content).sum(axis=1))
  content.data /= np.repeat(norm, np.diff(content.indptr))
  return content.astype(np.float32)


def _primal_scores(
    histories: np.ndarray,
    content: scipy.sparse.csr_array,
    candidates: scipy.sparse.csr_array,
    regularization: float,
) -> np.ndarray:
  """Ridge of the histories on content, by its normal equations [T, T]."""
  x = content.toarray().astype(np.float64)
  normal = x.T @ x + regularization * np.eye(x.shape[1])
  weights = np.linalg.solve(normal, x.T @ histories.T)
  return (candidates.toarray() @ weights).T


def _ridge(
    content: scipy.sparse.csr_array,
    candidates: scipy.sparse.csr_array,
    regularization: float,
    rank: int,
) -> woodbury.WoodburyRidge:
  spectrum = woodbury.decompose(content, rank, seed=0)
  return woodbury.WoodburyRidge(
      content, candidates, woodbury.correction(spectrum, regularization)
  )


@pytest.mark.parametrize('shape', ((40, 25), (25, 40), (30, 30), (50, 8)))
@pytest.mark.parametrize('regularization', (0.3, 2.0))
def test_full_rank_is_the_primal_ridge(
    shape: tuple[int, int], regularization: float
):
  content = _unit_rows(*shape)
  candidates = _unit_rows(15, shape[1], seed=1)
  histories = np.random.default_rng(2).random((6, shape[0]), np.float32)
  ridge = _ridge(content, candidates, regularization, rank=1000)
  assert ridge.correction.divisor == regularization
  expected = _primal_scores(histories, content, candidates, regularization)
  for given_histories in (histories, scipy.sparse.csr_array(histories)):
    scores = ridge.scores(given_histories)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=2e-5)


def test_users_side_is_the_items_side_transposed():
  content, candidates = _unit_rows(30, 20), _unit_rows(9, 20, seed=1)
  likes = scipy.sparse.random_array((30, 50), density=0.2, rng=3, format='csr')
  likes = likes.astype(np.float32)
  ridge = _ridge(content, candidates, 1.5, rank=7)
  by_item = ridge.scores(likes.T.tocsr())
  by_user = ridge.histories(likes, slice(2, 8))
  np.testing.assert_allclose(by_user, by_item.T[2:8], atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    num_rows=st.integers(1, 40),
    num_tags=st.integers(1, 40),
    rank=st.integers(1, 45),
    seed=st.integers(0, 99),
)
def test_spectrum_is_the_svd(
    num_rows: int, num_tags: int, rank: int, seed: int
):
  content = _unit_rows(num_rows, num_tags, 0.3, seed)
  dense = content.toarray()
  dense[0, 0] = 1  # never empty
  content = scipy.sparse.csr_array(dense)
  spectrum = woodbury.decompose(content, rank, seed=0)
  squared = np.linalg.svd(content.toarray(), compute_uv=False) ** 2
  num = min(rank, np.diff(content.indptr).astype(bool).sum(), num_tags)
  assert spectrum.directions.shape == (num_tags, num)
  assert spectrum.directions.dtype == np.float32
  assert np.isfinite(spectrum.directions).all()
  np.testing.assert_allclose(spectrum.squared[::-1], squared[:num], atol=2e-4)
  # Right singular vectors times s: orthogonal, of squared length s^2.
  products = spectrum.directions.T @ spectrum.directions
  np.testing.assert_allclose(products, np.diag(spectrum.squared), atol=2e-4)
  assert 0 <= spectrum.rest <= spectrum.squared.min() + 1e-6


def test_rest_is_the_energy_mean_of_what_is_left_out():
  content = _unit_rows(200, 150, 0.05)
  spectrum = woodbury.decompose(content, 30, seed=0, num_iterations=8)
  left_out = np.linalg.svd(content.toarray(), compute_uv=False)[30:] ** 2
  expected = (left_out**2).sum() / left_out.sum()
  assert spectrum.rest == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize('rank', (10, 40))
def test_a_rank_deficient_content_is_exact_from_its_rank_on(rank: int):
  base = _unit_rows(10, 300, 0.1)
  content = base[np.arange(60) % 10]  # rank 10, not min(60, 300)
  candidates = _unit_rows(20, 300, 0.1, seed=1)
  histories = np.random.default_rng(2).random((4, 60), np.float32)
  scores = _ridge(content, candidates, 2.0, rank).scores(histories)
  expected = _primal_scores(histories, content, candidates, 2.0)
  np.testing.assert_allclose(scores, expected, atol=5e-5)


def test_a_cut_spectrum_shrinks_the_rest_by_its_mean():
  """The closed form of the module's docstring, with dense V."""
  content, candidates = _unit_rows(60, 50), _unit_rows(12, 50, seed=1)
  histories = np.random.default_rng(2).random((5, 60), np.float32)
  _, s, vt = np.linalg.svd(content.toarray().astype(np.float64))
  rank, regularization, rest = 15, 2.0, 0.4
  spectrum = woodbury.Spectrum(
      (vt[:rank].T * s[:rank]).astype(np.float32),
      (s[:rank] ** 2).astype(np.float32),
      rest,
  )
  inverse = np.eye(50) / (regularization + rest)
  for value, vector in zip(s[:rank], vt[:rank]):
    change = 1 / (value**2 + regularization) - 1 / (regularization + rest)
    inverse += change * np.outer(vector, vector)
  expected = histories @ content.toarray() @ inverse @ candidates.toarray().T
  scores = woodbury.WoodburyRidge(
      content, candidates, woodbury.correction(spectrum, regularization)
  ).scores(histories)
  np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_shrinking_the_rest_is_nearer_to_exact_than_the_plain_cut():
  content, candidates = _unit_rows(300, 400, 0.02), _unit_rows(50, 400, 0.02, 1)
  histories = np.random.default_rng(2).random((8, 300), np.float32)
  exact = _primal_scores(histories, content, candidates, 1.0)
  spectrum = woodbury.decompose(content, 60, seed=0)
  gaps = []
  for rest in (spectrum.rest, 0.0):
    cut = woodbury.Spectrum(spectrum.directions, spectrum.squared, rest)
    scores = woodbury.WoodburyRidge(
        content, candidates, woodbury.correction(cut, 1.0)
    ).scores(histories)
    gaps.append(np.linalg.norm(scores - exact) / np.linalg.norm(exact))
  assert gaps[0] < 0.7 * gaps[1]


def test_dense_parts_compose_to_the_scores():
  content, candidates = _unit_rows(60, 50), _unit_rows(12, 50, seed=1)
  histories = scipy.sparse.random_array((7, 60), density=0.2, rng=4)
  histories = histories.tocsr().astype(np.float32)
  ridge = _ridge(content, candidates, 2.0, rank=20)
  weights, divisor = ridge.correction.weights, ridge.correction.divisor
  user = woodbury.user_dense(histories, content @ weights)
  item = candidates @ weights
  assert user.shape == (7, 20) and item.shape == (12, 20)
  assert user.dtype == item.dtype == np.float32
  sparse = (histories @ content @ candidates.T).toarray()
  expected = (sparse - user @ item.T) / divisor
  np.testing.assert_allclose(ridge.scores(histories), expected, atol=1e-5)


def test_the_same_seed_gives_the_same_correction():
  content = _unit_rows(60, 50)
  one, two, other = (woodbury.decompose(content, 9, s) for s in (5, 5, 6))
  np.testing.assert_array_equal(one.directions, two.directions)
  assert one.rest == two.rest
  assert (one.directions != other.directions).any()


def test_no_dense_content_and_no_square_matrix():
  content = _unit_rows(3000, 20_000, 2e-4)
  tracemalloc.start()
  try:
    woodbury.correction(woodbury.decompose(content, 10, seed=0), 2.0)
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert peak < 4 * 3000**2  # content, dense: 0.24 GB


def test_no_content_is_named():
  for num_rows in (0, 5):
    content = scipy.sparse.csr_array((num_rows, 7), dtype=np.float32)
    with pytest.raises(errors.UserError) as caught:
      woodbury.decompose(content, 3, seed=0)
    assert f'None of the {num_rows} training rows' in str(caught.value)
    assert 'config.features' in str(caught.value)
