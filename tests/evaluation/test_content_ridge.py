# SPDX-License-Identifier: Apache-2.0
"""Content ridge against dense float64 formulas, and its choice of lambda."""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax.evaluation import content_ridge
from dropoutnet_jax.evaluation import ease
from dropoutnet_jax.evaluation import woodbury


def _unit_rows(
    num_rows: int, num_tags: int, density: float = 0.2, seed: int = 0
) -> scipy.sparse.csr_array:
  """Random sparse content of norm 1; every fifth row is empty."""
  content = scipy.sparse.random_array(
      (num_rows, num_tags),
      density=density,
      format='csr',
      rng=np.random.default_rng(seed),
  ).toarray()
  content[::5] = 0
  norm = np.linalg.norm(content, axis=1, keepdims=True)
  content /= np.where(norm > 0, norm, 1)
  return scipy.sparse.csr_array(content.astype(np.float32))


def _likes(
    num_users: int, num_items: int, seed: int = 0
) -> scipy.sparse.csr_array:
  rng = np.random.default_rng(seed)
  dense = rng.random((num_users, num_items)) < 0.2
  return scipy.sparse.csr_array(dense.astype(np.float32))


def _dual(
    content: scipy.sparse.csr_array,
    candidates: scipy.sparse.csr_array,
    regularization: float,
) -> np.ndarray:
  """(K + lambda I)^-1 K_new, float64 [I, J]."""
  x, new = (a.toarray().astype(np.float64) for a in (content, candidates))
  return np.linalg.solve(x @ x.T + regularization * np.eye(len(x)), x @ new.T)


def _primal(
    content: scipy.sparse.csr_array,
    candidates: scipy.sparse.csr_array,
    regularization: float,
) -> np.ndarray:
  """C (C'C + lambda I)^-1 C_new', float64 [I, J]."""
  x, new = (a.toarray().astype(np.float64) for a in (content, candidates))
  normal = x.T @ x + regularization * np.eye(x.shape[1])
  return x @ np.linalg.solve(normal, new.T)


@pytest.mark.parametrize('shape', ((40, 25), (25, 40), (300, 30), (2, 3)))
@pytest.mark.parametrize('regularization', (0.1, 1.0, 10.0))
def test_dual_primal_and_woodbury_are_one(
    shape: tuple[int, int], regularization: float
):
  num_items, num_tags = shape
  content = _unit_rows(num_items, num_tags)
  candidates = _unit_rows(17, num_tags, seed=1)
  weights = _dual(content, candidates, regularization)
  np.testing.assert_allclose(
      weights, _primal(content, candidates, regularization), atol=1e-10
  )
  histories = _likes(12, num_items)
  for max_gram, kind, atol in (
      (1000, content_ridge.DualRidge, 3e-5),
      # A difference of larger numbers, over lambda.
      (0, woodbury.WoodburyRidge, 3e-5 * max(1, 1 / regularization)),
  ):
    solver = content_ridge.Solver(max_gram=max_gram)
    ridge = content_ridge.fit(content, candidates, regularization, solver)
    assert isinstance(ridge, kind) or num_items <= 17
    for given in (histories, histories.toarray()):
      scores = ridge.scores(given)
      assert scores.dtype == np.float32
      np.testing.assert_allclose(scores, histories @ weights, atol=atol)


def test_as_many_candidates_as_rows_are_solved_per_history():
  content, candidates = _unit_rows(30, 20), _unit_rows(40, 20, seed=1)
  ridge = content_ridge.fit(content, candidates, 0.5)
  assert isinstance(ridge, content_ridge.FactorRidge)
  weights = _dual(content, candidates, 0.5)
  histories, likes = _likes(12, 30), _likes(30, 7)
  for given in (histories, histories.toarray(), histories):
    scores = ridge.scores(given)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, histories @ weights, atol=3e-5)
  for chunk in (slice(0, 40), slice(3, 9)):
    np.testing.assert_allclose(
        ridge.histories(likes, chunk), weights[:, chunk].T @ likes, atol=3e-5
    )


def test_one_item_by_hand():
  # K = 1, k = 0.6: a like is worth 0.6 / (1 + lambda).
  content = scipy.sparse.csr_array(np.array([[1, 0]], np.float32))
  candidates = scipy.sparse.csr_array(np.array([[0.6, 0.8]], np.float32))
  likes = scipy.sparse.csr_array(np.array([[2]], np.float32))
  for max_gram in (0, 1):
    solver = content_ridge.Solver(max_gram=max_gram)
    ridge = content_ridge.fit(content, candidates, 3.0, solver)
    np.testing.assert_allclose(ridge.scores(likes), [[0.3]], rtol=1e-6)


def test_many_lambdas_are_each_as_if_alone():
  """The Cholesky factor overwrites K, which is restored for the next one."""
  content, candidates = _unit_rows(300, 200, 0.05), _unit_rows(20, 200, 0.05, 1)
  histories = _likes(6, 300)
  regularizations = (0.5, 20.0, 2.0, 0.5)
  ridges = content_ridge.fit_each(content, candidates, regularizations)
  for regularization, ridge in zip(regularizations, ridges, strict=True):
    weights = _dual(content, candidates, regularization)
    np.testing.assert_allclose(
        ridge.scores(histories), histories @ weights, atol=3e-5
    )
  first, last = (ridge.scores(histories) for ridge in ridges[::3])
  np.testing.assert_array_equal(first, last)


def test_rows_of_any_norm():
  content, candidates = _unit_rows(30, 20), _unit_rows(10, 20, seed=1)
  content.data *= np.repeat(
      np.linspace(0.2, 3, 30, dtype=np.float32), np.diff(content.indptr)
  )
  histories = _likes(6, 30)
  for ridge, value in zip(
      content_ridge.fit_each(content, candidates, (1.0, 4.0)), (1.0, 4.0)
  ):
    np.testing.assert_allclose(
        ridge.scores(histories),
        histories @ _dual(content, candidates, value),
        atol=3e-5,
    )


def test_rows_without_content_have_no_part_in_it():
  content, candidates = _unit_rows(30, 20), _unit_rows(10, 20, seed=1)
  ridge = content_ridge.fit(content, candidates, 1.0)
  assert isinstance(ridge, content_ridge.DualRidge)
  assert ridge.weights.shape == (24, 8) and ridge.weights.flags.c_contiguous
  scores = ridge.scores(_likes(5, 30))
  assert scores.shape == (5, 10)
  np.testing.assert_array_equal(scores[:, ::5], 0)
  assert (scores[:, 1:5] != 0).any()


@pytest.mark.parametrize('max_gram', (0, 1000))
def test_candidates_without_content_score_nothing(max_gram: int):
  candidates = scipy.sparse.csr_array((4, 20), dtype=np.float32)
  solver = content_ridge.Solver(max_gram=max_gram)
  ridge = content_ridge.fit(_unit_rows(30, 20), candidates, 1.0, solver)
  np.testing.assert_array_equal(ridge.scores(_likes(5, 30)), np.zeros((5, 4)))
  likes = _likes(30, 6)
  got = ridge.histories(likes, slice(1, 3))
  np.testing.assert_array_equal(got, np.zeros((2, 6)))


def test_scores_of_smoothed_histories():
  content, candidates = _unit_rows(40, 25), _unit_rows(9, 25, seed=1)
  likes = _likes(30, 40)
  smoother = ease.fit(likes, 5.0)
  ridge = content_ridge.fit(content, candidates, 2.0)
  scores = ridge.scores(ease.smoothed(likes[3:8], smoother, 3.0))
  weights = ease.item_weights(likes, 5.0).astype(np.float64)
  dense = likes.toarray()[3:8]
  expected = (dense + 3 * dense @ weights) @ _dual(content, candidates, 2.0)
  np.testing.assert_allclose(scores, expected, atol=5e-5)


@pytest.mark.parametrize('max_gram', (0, 1000))
def test_new_users_are_the_transposed_problem(max_gram: int):
  content, new = _unit_rows(40, 25), _unit_rows(16, 25, seed=1)
  likes = _likes(40, 50)
  solver = content_ridge.Solver(max_gram=max_gram)
  ridge = content_ridge.fit(content, new, 2.0, solver)
  expected = _dual(content, new, 2.0).T @ likes
  for chunk in (slice(0, 16), slice(3, 9), slice(5, 6), slice(15, 16)):
    got = ridge.histories(likes, chunk)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected[chunk], atol=3e-5)
  np.testing.assert_allclose(
      ridge.scores(likes.T.tocsr()).T, expected, atol=3e-5
  )


def test_both_new_compose_and_are_symmetric():
  """K_u (K_U + a I)^-1 R (K_I + b I)^-1 K_i, from either side."""
  likes = _likes(40, 50)
  user, new_user = _unit_rows(40, 15), _unit_rows(7, 15, seed=1)
  item, new_item = _unit_rows(50, 22, seed=2), _unit_rows(9, 22, seed=3)
  by_user = content_ridge.fit(user, new_user, 0.7)
  by_item = content_ridge.fit(item, new_item, 2.0)
  expected = _dual(user, new_user, 0.7).T @ likes @ _dual(item, new_item, 2.0)
  scores = by_item.scores(by_user.histories(likes, slice(0, 7)))
  np.testing.assert_allclose(scores, expected, atol=5e-5)
  other_way = by_user.scores(by_item.histories(likes.T.tocsr(), slice(0, 9)))
  np.testing.assert_allclose(other_way.T, expected, atol=5e-5)


def _planted_items(
    seed: int, num_users: int = 60, num_items: int = 300, num_topics: int = 12
) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array]:
  """Users like topics; an item's content is its topic among noise tags."""
  rng = np.random.default_rng(seed)
  topic = rng.integers(num_topics, size=num_items)
  taste = rng.random((num_users, num_topics)) < 0.25
  likes = taste[:, topic] & (rng.random((num_users, num_items)) < 0.7)
  noise = rng.random((num_items, 40)) < 0.1
  content = np.concatenate([np.eye(num_topics)[topic], noise], axis=1)
  content /= np.linalg.norm(content, axis=1, keepdims=True)
  return (
      scipy.sparse.csr_array(content.astype(np.float32)),
      scipy.sparse.csr_array(likes.astype(np.float32)),
  )


def _slow_ndcg(scores: np.ndarray, relevant: np.ndarray, cutoff: int) -> float:
  values = []
  for score, truth in zip(scores, relevant):
    if truth.any():
      order = np.argsort(-score)[:cutoff]
      dcg = sum(1 / np.log2(n + 2) for n, i in enumerate(order) if truth[i])
      best = sum(
          1 / np.log2(n + 2) for n in range(min(cutoff, int(truth.sum())))
      )
      values.append(dcg / best)
  return float(np.mean(values))


def _held_out(num_rows: int, share: float, seed: int):
  order = np.random.default_rng(seed).permutation(num_rows)
  num_held = round(share * num_rows)
  return np.sort(order[num_held:]), np.sort(order[:num_held])


@pytest.mark.parametrize('users_per_chunk', (25, 512))
@pytest.mark.parametrize('seed', (0, 3))
def test_item_search_is_the_slow_one(users_per_chunk: int, seed: int):
  content, likes = _planted_items(1)
  search = content_ridge.Search(
      regularizations=(1.0, 30.0),
      smoothings=(0.0, 2.0),
      smoothing_l2=20.0,
      seed=seed,
      cutoff=5,
      users_per_chunk=users_per_chunk,
  )
  choice = content_ridge.choose_for_items(content, likes, search)
  kept, held = _held_out(300, 0.2, seed)
  dense = likes.toarray()
  history = dense[:, kept]
  b = ease.item_weights(likes[:, kept], 20.0).astype(np.float64)
  assert set(choice.ndcg) == {(1, 0), (30, 0), (1, 2), (30, 2)}
  for (regularization, smoothing), ndcg in choice.ndcg.items():
    smoothed = history + smoothing * history @ b
    scores = smoothed @ _dual(content[kept], content[held], regularization)
    expected = _slow_ndcg(scores, dense[:, held], 5)
    assert ndcg == pytest.approx(expected, abs=2e-3)
  best = max(choice.ndcg, key=choice.ndcg.__getitem__)
  assert (choice.regularization, choice.smoothing) == best


@pytest.mark.parametrize('seed', (0, 1, 2))
def test_lambda_follows_the_noise_of_the_content(seed: int):
  """Many noise tags ask for shrinkage; content that is the truth does not.

  A small lambda divides by the variance of each direction, noise included.
  """
  rng = np.random.default_rng(seed)
  factors = rng.normal(size=(200, 6))
  users = rng.normal(size=(80, 6))
  likes = scipy.sparse.csr_array((users @ factors.T > 2.5).astype(np.float32))
  search = content_ridge.Search(regularizations=(1e-2, 30.0), smoothings=(0.0,))

  def choose(noise: float) -> float:
    extra = noise * rng.normal(size=(200, 150))
    # Factors of unequal variance: shrinkage would lose the weak ones.
    rows = np.concatenate([factors * [1, 1, 0.1, 0.1, 0.1, 0.1], extra], axis=1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    content = scipy.sparse.csr_array(rows.astype(np.float32))
    choice = content_ridge.choose_for_items(content, likes, search)
    return choice.regularization

  assert choose(noise=0.0) == 1e-2
  assert choose(noise=0.3) == 30.0


def test_smoothing_is_chosen_where_liked_items_lack_content():
  content, likes = _planted_items(0, num_users=200)
  dense = content.toarray()
  dense[np.random.default_rng(0).random(300) < 0.85] = 0
  content = scipy.sparse.csr_array(dense)
  sparse_likes = likes.toarray()
  sparse_likes[np.random.default_rng(1).random(likes.shape) < 0.7] = 0
  likes = scipy.sparse.csr_array(sparse_likes)
  search = content_ridge.Search(smoothing_l2=10.0)
  assert content_ridge.choose_for_items(content, likes, search).smoothing == 3


@pytest.mark.parametrize('seed', (0, 1))
def test_user_search_is_the_slow_one(seed: int):
  by_item, likes = _planted_items(2)
  content, likes = by_item, likes.T.tocsr()  # 300 users, 60 items
  search = content_ridge.Search(
      regularizations=(1.0, 30.0), seed=seed, cutoff=5, users_per_chunk=25
  )
  choice = content_ridge.choose_for_users(content, likes, search)
  kept, held = _held_out(300, 0.2, seed)
  dense = likes.toarray()
  assert set(choice.ndcg) == {(1.0, 0.0), (30.0, 0.0)}
  for (regularization, _), ndcg in choice.ndcg.items():
    weights = _dual(content[kept], content[held], regularization)
    expected = _slow_ndcg(weights.T @ dense[kept], dense[held], 5)
    assert ndcg == pytest.approx(expected, abs=2e-3)
  assert choice.smoothing == 0


def test_search_beyond_the_gram_limit_takes_the_rank_k_form():
  content, likes = _planted_items(1)
  search = content_ridge.Search()
  exact = content_ridge.choose_for_items(content, likes, search)
  solver = content_ridge.Solver(max_gram=50)
  choice = content_ridge.choose_for_items(content, likes, search, solver)
  assert set(choice.ndcg) == {(1, 0), (3, 0), (10, 0)}  # nothing is smoothed
  for pair, ndcg in choice.ndcg.items():
    assert ndcg == pytest.approx(exact.ndcg[pair], abs=2e-3)


@pytest.mark.parametrize(
    'num_candidates, num_lambdas, most', ((50, 3, 1.9), (1000, 1, 1.5))
)
def test_memory_is_one_square_buffer_and_never_dense_content(
    num_candidates: int, num_lambdas: int, most: float
):
  content = _unit_rows(1000, 3000, 2e-3)
  content.resize((1000, 20_000))  # dense: 80 MB
  candidates = content[:num_candidates]
  square = 4 * 800**2  # rows with content
  tracemalloc.start()
  try:
    content_ridge.fit_each(content, candidates, (2.0,) * num_lambdas)
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert square <= peak < most * square


def test_no_content_is_named():
  likes = _likes(5, 8)
  for num_rows in (0, 8):
    content = scipy.sparse.csr_array((num_rows, 3), dtype=np.float32)
    with pytest.raises(errors.UserError, match=f'None of the {num_rows} train'):
      content_ridge.fit(content, _unit_rows(4, 3), 1.0)
  with pytest.raises(errors.UserError, match='sparse content'):
    content_ridge.choose_for_items(content, likes)


def test_different_widths_are_named():
  with pytest.raises(errors.UserError, match='have 20 content.*candidates 21'):
    content_ridge.fit(_unit_rows(30, 20), _unit_rows(10, 21), 1.0)


@pytest.mark.parametrize('value', (0.0, -1.0, float('nan'), float('inf')))
def test_bad_lambda_is_named(value: float):
  content = _unit_rows(30, 20)
  with pytest.raises(errors.UserError, match='ridge_lambdas'):
    content_ridge.fit_each(content, content, (1.0, value))


def test_nothing_held_out_is_named():
  content, likes = _unit_rows(40, 20), _likes(40, 6)
  nothing = content_ridge.Search(share=0.0)
  empty = scipy.sparse.csr_array((40, 6), dtype=np.float32)
  search = content_ridge.Search(smoothings=(0.0,))
  for call in (
      lambda: content_ridge.choose_for_items(content, likes.T.tocsr(), nothing),
      lambda: content_ridge.choose_for_users(content, likes, nothing),
      lambda: content_ridge.choose_for_items(content, empty.T.tocsr(), search),
      lambda: content_ridge.choose_for_users(content, empty, search),
  ):
    with pytest.raises(errors.UserError, match='No like falls on the held-out'):
      call()
