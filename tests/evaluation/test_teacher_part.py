# SPDX-License-Identifier: Apache-2.0
"""The teacher beside content ridge: only where there are likes, and exactly."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.evaluation import fading
from dropoutnet_jax.evaluation import second_kernel
from dropoutnet_jax.evaluation import sparse_file
from dropoutnet_jax.evaluation import sparse_fit
from dropoutnet_jax.evaluation import warm_up
from dropoutnet_jax.evaluation import woodbury
from dropoutnet_jax.model import embeddings
from tests.evaluation import test_warm_up

WEIGHT = 0.7
SPARSE = config.SparseConfig(enabled=True, smoothing=0.0, teacher_weight=WEIGHT)
CONFIG = dataclasses.replace(
    test_warm_up.CONFIG,
    model=config.ModelConfig(tower='paper', hidden=(6,), rank=5, sparse=SPARSE),
)
TEACHER = CONFIG.teacher
USERS, ITEMS = np.arange(30), np.arange(40)


def _parts(problem):
  """With the teacher and without."""
  part = sparse_fit.fit(problem, SPARSE, seed=0)
  return part.with_teacher(CONFIG, problem), part


def _scores(part, problem, item_rows=ITEMS, likes=None, users=USERS):
  """Without towers: float32 [U, I]."""
  content = problem.item.sparse
  zero = lambda rows: np.zeros((len(rows), 1), np.float32)
  user = part.embed_users(users, zero(users), content, 1.0)
  liked = part.liked(item_rows, likes)
  item = part.embed_items(item_rows, content, zero(ITEMS), liked)
  return np.asarray(embeddings.score(user, item))


def _solved(likes, factors):
  """The half-step of Hu, Koren & Volinsky, in float64: [C, P]."""
  factors = factors.astype(np.float64)
  found = np.zeros((likes.shape[0], factors.shape[1]))
  for row, own in enumerate(likes.toarray().astype(np.float64)):
    confidence = np.where(own > 0, 1 + TEACHER.confidence * own, 1)
    matrix = factors.T @ (confidence[:, None] * factors)
    matrix += TEACHER.regularization * np.eye(len(matrix))
    found[row] = np.linalg.solve(matrix, factors.T @ (confidence * (own > 0)))
  return found


def _some_likes(rows, columns, seed=0):
  rng = np.random.default_rng(seed)
  return scipy.sparse.csr_array(
      (rng.random((rows, columns)) < 0.2).astype(np.float32)
  )


def test_known_rows_have_their_own_factors(problem):
  whole, bare = _parts(problem)
  expected = WEIGHT * problem.factors.user @ problem.factors.item.T
  gap = _scores(whole, problem) - _scores(bare, problem)
  np.testing.assert_allclose(gap, expected, rtol=1e-3, atol=1e-4)
  assert not gap[:, 30:].any() and not gap[24:].any()  # new items, new users
  assert abs(gap[:24, :30]).max() > 1


def test_items_are_folded_in_where_likes_are_told(problem):
  """Of a known item too; one of which nothing is told stays what it is."""
  whole, bare = _parts(problem)
  likes = scipy.sparse.lil_array((40, 30), dtype=np.float32)
  likes[[31, 31, 35, 2], [0, 7, 3, 4]] = 1
  likes[36, 26] = 1  # of a user without factors, whose like says nothing
  likes = likes.tocsr()
  rows = np.where(ITEMS < 30, ITEMS, -1)
  gap = _scores(whole, problem, rows, likes) - _scores(bare, problem, rows)
  factors = problem.factors.item.astype(np.float64)
  told = [2, 31, 35, 36]
  factors[told] = _solved(likes[told], problem.factors.user)
  expected = WEIGHT * problem.factors.user @ factors.T
  np.testing.assert_allclose(gap, expected, rtol=1e-3, atol=1e-4)
  assert abs(gap[:, [31, 35]]).max() > 0.1
  assert not gap[:, [30, 36]].any()


def test_users_are_folded_in(problem):
  """Told histories in place of others, and more on top of them."""
  whole, bare = _parts(problem)
  rows, content = np.array([3, 26]), problem.item.sparse
  histories = _some_likes(2, 40)
  factors = problem.factors.user.astype(np.float64)
  factors[rows] = _solved(histories, problem.factors.item)
  told = whole.with_histories(
      rows, histories, content, problem.user.dense[rows]
  )
  plain = bare.with_histories(
      rows, histories, content, problem.user.dense[rows]
  )
  gap = _scores(told, problem) - _scores(plain, problem)
  expected = WEIGHT * factors @ problem.factors.item.T
  np.testing.assert_allclose(gap, expected, rtol=1e-3, atol=1e-4)

  some = np.array([5, -1, 3])
  more = scipy.sparse.vstack([0 * histories[:1], histories], format='csr')
  more.eliminate_zeros()
  told = whole.select(some).with_more(more, more, content)
  plain = bare.select(some).with_more(more, more, content)
  users = np.arange(3)
  gap = _scores(told, problem, users=users)
  gap = gap - _scores(plain, problem, users=users)
  factors = np.vstack([problem.factors.user[5:6], factors[[3, 26]]])
  expected = WEIGHT * factors @ problem.factors.item.T
  np.testing.assert_allclose(gap, expected, rtol=1e-3, atol=1e-4)


def test_the_warm_up_curve_of_items_sees_it(problem):
  """A new item's likes count, though its towers see content alone."""
  features = config.FeaturesConfig(preference='none')
  cfg = dataclasses.replace(CONFIG, features=features)
  scorer = test_warm_up.make_scorer(problem, cfg)
  part = sparse_fit.fit(problem, SPARSE, seed=0).with_teacher(cfg, problem)
  whole = dataclasses.replace(
      scorer, sparse=part, content=problem.item.sparse, tower_weight=0.5
  )
  plan = warm_up.plan(problem, 'item', 3, seed=0)
  users, items = np.unique(plan.held_out.user), plan.held_out.candidates

  def score(count):
    methods = warm_up.make_methods(problem, whole, cfg, plan, count)
    return np.asarray(methods['model']('cold_item', plan.held_out)(users))

  folded = _solved(plan.shown(3), problem.factors.user)
  expected = WEIGHT * problem.factors.user[users] @ folded.T
  assert np.array_equal(plan.rows, items)
  np.testing.assert_allclose(
      score(3) - score(0), expected, rtol=1e-3, atol=1e-4
  )
  assert scorer.with_item_likes(plan.rows, plan.shown(3)) is scorer


def test_predicted_factors_count_by_their_direction(problem):
  """Of both kernels' ridge, beside those of likes, less with each of these."""
  settings = dataclasses.replace(
      SPARSE,
      landmarks=30,
      regularization=1.5,
      predicted_weight=0.4,
      length_power=0.3,
  )
  cfg = dataclasses.replace(
      CONFIG, model=dataclasses.replace(CONFIG.model, sparse=settings)
  )
  bare = sparse_fit.fit(problem, settings, seed=0)
  whole = bare.with_teacher(cfg, problem)
  content = problem.item.sparse
  length = bare.lengths.of(content)[:, None]
  dense = np.hstack(
      [length * content.toarray(), length * bare.second.features(content)]
  ).astype(np.float64)
  # Training items have features of what is predicted without them.
  spectrum = woodbury.decompose(content[:30], 30, 0)
  alone, _ = second_kernel.leave_one_out(
      content[:30],
      problem.factors.item[:30],
      woodbury.correction(spectrum, settings.factor_regularization),
  )
  train = dense[:30].copy()
  train[:, content.shape[1] :] = length[:30] * bare.second.of_factors(alone)
  gram = train.T @ train + 1.5 * np.eye(dense.shape[1])
  moments = train.T @ problem.factors.item[:30]
  predicted = dense @ np.linalg.solve(gram, moments)
  predicted /= np.linalg.norm(predicted, axis=1, keepdims=True)
  left = 3 / (3 + problem.like_counts()[1][:, None])
  of_items = WEIGHT * problem.factors.item + 0.4 * left * predicted
  expected = problem.factors.user @ of_items.T
  gap = _scores(whole, problem) - _scores(bare, problem)
  np.testing.assert_allclose(gap, expected, rtol=1e-2, atol=2e-3)
  assert abs(gap[:24, 30:]).max() > 0.1
  likes = scipy.sparse.lil_array((40, 30), dtype=np.float32)
  likes[31, [0, 7]] = 1
  likes = likes.tocsr()
  told, plain = _scores(whole, problem, likes=likes), _scores(bare, problem)
  factors = WEIGHT * _solved(likes[[31]], problem.factors.user)[0]
  factors += 0.4 * 3 / (3 + 2) * predicted[31]
  expected[:, 31] = problem.factors.user @ factors
  np.testing.assert_allclose(told - plain, expected, rtol=1e-2, atol=2e-3)


def test_shares_of_predictions_that_likes_leave():
  number = np.array([0, 1, 3, 9])
  np.testing.assert_allclose(fading.left(number, 3), [1, 0.75, 0.5, 0.25])
  np.testing.assert_array_equal(fading.left(number, 0), [1, 0, 0, 0])


def test_large_predictions_make_scores_of_content_smaller(problem):
  """All that content says, and nothing of what likes say."""
  plain = dataclasses.replace(
      SPARSE, landmarks=20, history_weight=0.5, teacher_weight=0.0
  )
  settings = dataclasses.replace(plain, norm_power=0.6)
  content = problem.item.sparse
  before, part = (
      sparse_fit.fit(problem, one, seed=0) for one in (plain, settings)
  )
  own = np.zeros((30, 40), np.float32)
  own[:, :30] = 0.5 * problem.likes().toarray()[:, :30]
  predicted = content @ part.second.predictor
  norm = np.linalg.norm(predicted, axis=1) / part.second.usual
  expected = (_scores(before, problem) - own) * norm**-0.6 + own
  np.testing.assert_allclose(
      _scores(part, problem), expected, rtol=1e-3, atol=1e-4
  )
  assert norm.min() < 0.9 < 1.1 < norm.max()
  empty = scipy.sparse.csr_array((2, content.shape[1]), dtype=np.float32)
  np.testing.assert_array_equal(part.item_scale(empty), [1, 1])
  rare = content[[3]] * 1e-9
  np.testing.assert_allclose(part.item_scale(rare), 0.1**-0.6, rtol=1e-5)


def test_both_are_kept_in_the_file(problem, tmp_path):
  settings = dataclasses.replace(
      SPARSE, landmarks=20, predicted_weight=0.4, norm_power=0.6
  )
  part = sparse_fit.fit(problem, settings, seed=0)
  sparse_file.save(part, str(tmp_path))
  again = sparse_file.load(str(tmp_path))
  cfg = dataclasses.replace(
      CONFIG, model=dataclasses.replace(CONFIG.model, sparse=settings)
  )
  found, expected = (
      _scores(one.with_teacher(cfg, problem), problem) for one in (again, part)
  )
  np.testing.assert_array_equal(found, expected)


def test_without_a_weight_there_is_none(problem):
  sparse = dataclasses.replace(SPARSE, teacher_weight=0.0)
  cfg = dataclasses.replace(
      CONFIG, model=dataclasses.replace(CONFIG.model, sparse=sparse)
  )
  part = sparse_fit.fit(problem, sparse, seed=0)
  assert part.with_teacher(cfg, problem).teacher is None
  assert not sparse.needs_teacher and SPARSE.needs_teacher


def test_factors_from_elsewhere_are_refused():
  cfg = dataclasses.replace(
      CONFIG, teacher=dataclasses.replace(TEACHER, source='published')
  )
  with pytest.raises(
      errors.UserError,
      match='teacher_weight is 0.7 and predicted_weight 0.0, but',
  ):
    cfg.validate()
