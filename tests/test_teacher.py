# SPDX-License-Identifier: Apache-2.0
"""The teacher against slow references, closed forms and another library."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import config as config_lib
from dropoutnet_jax import errors
from dropoutnet_jax import normal_equations
from dropoutnet_jax import parallel
from dropoutnet_jax import teacher
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import sources
from dropoutnet_jax.data import splits
from dropoutnet_jax.evaluation import protocol

# Most tests share these sizes, and so what is compiled for them.
USERS, ITEMS, RANK = 24, 40, 6


def _config(**fields):
  small = dict(rank=RANK, regularization=0.5, confidence=4.0, num_iterations=5)
  return config_lib.TeacherConfig(**{**small, **fields})


def _likes(lengths, num_columns, seed, weighted=True):
  """csr_array with so many likes per row; some of the weights are 0."""
  rng = np.random.default_rng(seed)
  columns = [rng.choice(num_columns, n, replace=False) for n in lengths]
  total = sum(lengths)
  weight = rng.choice([0.0, 0.1, 1.0, 7.5], total) if weighted else 1.0
  data = np.full(total, weight, np.float32)
  indptr = np.r_[0, np.cumsum(lengths)]
  flat = np.concatenate([*columns, []]).astype(np.int32)
  return scipy.sparse.csr_array(
      (data, flat, indptr), shape=(len(lengths), num_columns)
  )


def _some_likes(seed=0, weighted=True):
  """USERS x ITEMS; users 1 and 4 like nothing, the others up to 8 items."""
  lengths = np.random.default_rng(seed).integers(2, 9, USERS)
  lengths[[1, 4]] = 0
  return _likes(lengths.tolist(), ITEMS, seed, weighted)


def _train(pairs, seed=0, num_devices=1, **fields):
  mesh = parallel.make_mesh(config_lib.MeshConfig(), num_devices)
  return teacher.train(pairs, USERS, ITEMS, _config(**fields), seed, mesh)


def _interactions(likes):
  pairs = likes.tocoo()
  return schema.Interactions(
      pairs.row.astype(np.int32), pairs.col.astype(np.int32), pairs.data
  )


def _slow_solve(factors, likes, confidence, regularization):
  """Every row alone, over all columns, in float64: the formula of the paper."""
  factors = np.asarray(factors, np.float64)
  solved = np.zeros((likes.shape[0], factors.shape[1]))
  for row in range(likes.shape[0]):
    start, stop = likes.indptr[row], likes.indptr[row + 1]
    if start == stop:
      continue
    preference, count = np.zeros(likes.shape[1]), np.ones(likes.shape[1])
    preference[likes.indices[start:stop]] = 1
    count[likes.indices[start:stop]] += confidence * likes.data[start:stop]
    left = factors.T @ np.diag(count) @ factors
    left += regularization * np.eye(factors.shape[1])
    solved[row] = np.linalg.inv(left) @ factors.T @ (count * preference)
  return solved


def _fast_solve(factors, likes, confidence, regularization, num_rows=0):
  plan = normal_equations.make_plan(likes, confidence, factors.shape[1])
  fixed = normal_equations.whiten(
      jnp.asarray(factors), regularization, num_rows
  )
  return np.asarray(normal_equations.solve(fixed, plan))


def _factors(num_rows, rank, seed, scale=0.3):
  normal = np.random.default_rng(seed).normal(0, scale, (num_rows, rank))
  return normal.astype(np.float32)


@pytest.fixture
def tiny_chunks(monkeypatch):
  """Makes rows of 50 likes long ones; traces must not outlive the constant."""
  traced = (normal_equations._solve_chunk, normal_equations._solve_rows)
  for function in traced:
    function.clear_cache()
  monkeypatch.setattr(normal_equations, '_CHUNK_FLOATS', 128)
  yield
  for function in traced:
    function.clear_cache()


# Lengths around the borders: none, one, the shortest padded length (8), a power
# of two (64), three quarters of one (96). Lengths from the rank on are solved
# by the other of the two systems.
LENGTHS = [0, 1, 7, 8, 64, 0, 65, 96, 97, 128]


@pytest.mark.parametrize('rank', [1, 100])
def test_solve_matches_the_formula_row_by_row(rank):
  likes = _likes(LENGTHS, 150, seed=rank)
  factors = _factors(150, rank, seed=1)
  expected = _slow_solve(factors, likes, 10.0, 1.0)
  found = _fast_solve(factors, likes, 10.0, 1.0)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize('rank', [1, 100])
def test_conjugate_gradients_approach_the_exact_solution(rank):
  likes = _likes(LENGTHS, 150, seed=rank)
  factors = jnp.asarray(_factors(150, rank, seed=1))
  plan = normal_equations.make_plan(likes, 1.0, rank)
  fixed = normal_equations.whiten(factors, 1.0)
  exact = np.asarray(normal_equations.solve(fixed, plan))
  gaps = []
  for cg_steps in (1, 3, 40):
    found = np.asarray(normal_equations.solve(fixed, plan, cg_steps))
    np.testing.assert_array_equal(found[[0, 5]], np.zeros((2, rank)))
    gaps.append(np.linalg.norm(found - exact) / np.linalg.norm(exact))
  if rank == 1:  # there is one direction, and so one step
    assert max(gaps) < 1e-4
  else:
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[1] < 0.3 and gaps[2] < 1e-4


@pytest.mark.parametrize('cg_steps', [4, 5, 200])
def test_far_more_steps_than_needed_stay_at_the_solution(cg_steps):
  likes = _some_likes()
  likes.data += 0.1
  factors = _factors(ITEMS, RANK, seed=1)
  plan = normal_equations.make_plan(likes, 10.0, RANK)
  fixed = normal_equations.whiten(jnp.asarray(factors), 1.0)
  found = np.asarray(normal_equations.solve(fixed, plan, cg_steps))
  assert np.isfinite(found).all()
  if cg_steps > RANK:  # then conjugate gradients are exact, up to rounding
    expected = _slow_solve(factors, likes, 10.0, 1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_rows_too_long_to_gather_at_once_are_solved_exactly(tiny_chunks):
  likes = _likes([50, 3, 60], 150, seed=3)
  factors = jnp.asarray(_factors(150, 16, seed=4))
  plan = normal_equations.make_plan(likes, 10.0, 16)
  fixed = normal_equations.whiten(factors, 1.0)
  exact = np.asarray(normal_equations.solve(fixed, plan))
  found = np.asarray(normal_equations.solve(fixed, plan, cg_steps=1))
  np.testing.assert_array_equal(found[[0, 2]], exact[[0, 2]])
  assert not np.allclose(found[1], exact[1], rtol=1e-4)


def test_training_by_conjugate_gradients_minimises_the_same():
  pairs = _interactions(_some_likes())
  exact, gradients = (_train(pairs, cg_steps=steps) for steps in (0, 3))
  best, found = (_objective(x, pairs, _config()) for x in (exact, gradients))
  assert best != found and found == pytest.approx(best, rel=1e-2)


def test_chunks_and_pieces_do_not_change_the_solution(tiny_chunks):
  rank = 16
  likes = _likes([5] * 7 + [50, 0, 60, 30], 150, seed=3)
  factors = _factors(150, rank, seed=4)
  plan = normal_equations.make_plan(likes, 10.0, rank)
  assert len(plan.chunks) == 10
  longest = max(chunk.liked.shape[1] for chunk in plan.chunks)
  assert longest > 128 // rank  # so that some rows are gathered in pieces
  expected = _slow_solve(factors, likes, 10.0, 1.0)
  found = _fast_solve(factors, likes, 10.0, 1.0)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)


def test_a_row_by_hand():
  # One factor column: x = sum of c y over the likes / (sum of c y^2 + lambda),
  # where what is not liked has c = 1 in the denominator alone.
  factors = np.array([[1.0], [2.0], [3.0]], np.float32)
  likes = scipy.sparse.csr_array(np.array([[2.0, 0.0, 1.0]], np.float32))
  # confidence 10: c = 21, 1, 11.
  expected = (21 * 1 + 11 * 3) / (21 * 1 + 1 * 4 + 11 * 9 + 0.5)
  found = _fast_solve(factors, likes, 10.0, 0.5)
  np.testing.assert_allclose(found, [[expected]], rtol=1e-6)


def test_a_like_of_weight_0_is_a_preference_that_counts_1():
  stored = _some_likes()
  stored.data[:] = 0
  factors = _factors(ITEMS, RANK, seed=1)
  found = _fast_solve(factors, stored, 10.0, 1.0)
  np.testing.assert_allclose(
      found, _slow_solve(factors, stored, 10.0, 1.0), rtol=1e-5, atol=1e-6
  )
  is_zero = np.all(found == 0, axis=1)
  np.testing.assert_array_equal(np.flatnonzero(is_zero), [1, 4])


@pytest.mark.parametrize('confidence', [1e-6, 1e3, 1e5])
def test_extreme_confidence(confidence):
  likes = _likes([3, 40], 60, seed=2, weighted=False)
  factors = _factors(60, 16, seed=3)
  expected = _slow_solve(factors, likes, confidence, 1.0)
  found = _fast_solve(factors, likes, confidence, 1.0)
  np.testing.assert_allclose(found, expected, rtol=2e-2, atol=1e-3)


def test_other_rows_and_padding_rows_do_not_matter():
  likes = _some_likes()
  factors = _factors(ITEMS, RANK, seed=6)
  together = _fast_solve(factors, likes, 10.0, 1.0, num_rows=50)
  alone = [
      _fast_solve(factors, likes[[row]], 10.0, 1.0)
      for row in range(likes.shape[0])
  ]
  np.testing.assert_allclose(
      together, np.concatenate(alone), rtol=1e-5, atol=1e-6
  )


def test_plan_pads_little_and_compiles_little():
  lengths = np.random.default_rng(0).zipf(1.5, 3000).clip(0, 400).tolist()
  plan = normal_equations.make_plan(_likes(lengths, 400, seed=0), 10.0, 200)
  slots = sum(chunk.liked.size for chunk in plan.chunks)
  assert slots < 6 * sum(lengths)
  assert len({chunk.liked.shape for chunk in plan.chunks}) <= 12
  real = sum(int(np.sum(chunk.extra > 0)) for chunk in plan.chunks)
  assert real == sum(lengths)
  liked = [length > 0 for length in lengths]
  assert len(np.unique(plan.position[np.array(liked)])) == sum(liked)


@pytest.mark.parametrize('length', [8, 16, 32, 64, 96, 256])
def test_no_batch_of_lapack_calls_is_shared_out(length):
  """What XLA's CPU client shares out to its threads can wait forever."""
  plan = normal_equations.make_plan(
      _likes([length] * 700, 300, seed=0), 10.0, 200
  )
  rows = jnp.zeros((300, 200))
  text = normal_equations._solve_rows.lower(
      rows, plan.chunks[0], None
  ).as_text()
  shapes = re.findall(r'@lapack_spotrf_ffi\(.*-> \(tensor<([\dx]+)xf32>', text)
  assert shapes, 'no Cholesky found: has its name changed?'
  for shape in shapes:
    batch, num_rows, _ = map(int, shape.split('x'))
    assert batch == 1 or batch * num_rows**3 / 3 < 200_000, shape


def test_both_ways_of_solving_agree():
  rng = np.random.default_rng(0)
  root = rng.normal(size=(16, 40, 40)).astype(np.float32)
  matrix = root @ root.swapaxes(1, 2) / 40 + np.eye(40, dtype=np.float32)
  right = rng.normal(size=(16, 40)).astype(np.float32)
  expected = np.linalg.solve(matrix.astype(np.float64), right[..., None])
  for solve in (
      normal_equations._solve_all,
      jax.vmap(normal_equations._cholesky_solve),
  ):
    found = solve(jnp.asarray(matrix), jnp.asarray(right))
    np.testing.assert_allclose(found, expected[..., 0], rtol=1e-4, atol=1e-5)


def test_fold_in_is_the_half_step():
  likes = _some_likes()
  config = _config()
  factors = _train(_interactions(likes))
  expected = _fast_solve(
      factors.item, likes, config.confidence, config.regularization
  )
  found = teacher.fold_in(factors.item, likes, config)
  assert found.dtype == np.float32 and found.shape == (USERS, RANK)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  # Any number of rows, in any order; a row without likes is absent, zero.
  part = teacher.fold_in(factors.item, likes[[3, 1]], config)
  np.testing.assert_allclose(part, expected[[3, 1]], rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(part[1], np.zeros(RANK))
  # Items are solved for last, so folding in gives the stored ones.
  items = teacher.fold_in(factors.user, likes.T.tocsr(), config)
  np.testing.assert_allclose(items, factors.item, rtol=1e-5, atol=1e-6)


def test_fold_in_keeps_users_where_training_has_converged():
  likes = _some_likes()
  factors = _train(_interactions(likes), num_iterations=150)
  again = teacher.fold_in(factors.item, likes, _config())
  np.testing.assert_allclose(again, factors.user, rtol=1e-2, atol=2e-3)


def test_fold_in_checks_the_other_side():
  with pytest.raises(ValueError, match='7 columns, but there are 8 rows'):
    teacher.fold_in(_factors(8, 2, 0), _likes([1, 2], 7, 0), _config())


def test_fold_in_of_no_rows():
  found = teacher.fold_in(_factors(8, 2, 0), _likes([], 8, 0), _config())
  assert found.shape == (0, 2)


def test_rows_without_likes_are_absent():
  likes = _some_likes()
  # Items that nobody likes, at the end and in between.
  pairs = _interactions(likes)
  pairs = pairs.select(~np.isin(pairs.item, [0, 7, ITEMS - 1]))
  factors = _train(pairs)
  for table, present, rows in (
      (factors.user, factors.user_present, pairs.user),
      (factors.item, factors.item_present, pairs.item),
  ):
    assert table.dtype == np.float32
    occurs = np.isin(np.arange(len(table)), rows)
    assert not occurs.all()
    np.testing.assert_array_equal(present, occurs)
    np.testing.assert_array_equal(np.any(table != 0, axis=1), occurs)


def test_more_factors_than_rows():
  likes = _some_likes()
  rank = USERS + ITEMS
  pairs = _interactions(likes)
  factors = _train(pairs, rank=rank, regularization=0.01, num_iterations=15)
  assert np.isfinite(factors.user).all() and np.isfinite(factors.item).all()
  # So many factors can say who likes what, almost exactly.
  scores = factors.user @ factors.item.T
  is_liked = np.zeros(scores.shape, bool)
  is_liked[pairs.user, pairs.item] = True
  assert scores[is_liked].min() > 0.8 and scores[~is_liked].max() < 0.2


def _objective(factors, pairs, config):
  """What ALS minimises: the sum over all pairs of users and items."""
  preference = np.zeros((len(factors.user), len(factors.item)))
  count = np.ones(preference.shape)
  preference[pairs.user, pairs.item] = 1
  count[pairs.user, pairs.item] += config.confidence * pairs.weight
  gap = np.sum(count * (preference - factors.user @ factors.item.T) ** 2)
  size = np.sum(factors.user**2) + np.sum(factors.item**2)
  return gap + config.regularization * size


@pytest.mark.parametrize('seed', [0, 1])
def test_objective_never_grows(seed):
  pairs = _interactions(_some_likes(seed))
  values = np.array(
      [
          _objective(_train(pairs, seed, num_iterations=n), pairs, _config())
          for n in range(1, 13)
      ]
  )
  assert np.all(np.diff(values) <= 1e-5 * values[:-1])
  assert values[-1] < 0.9 * values[0]


def _spread(mesh, likes):
  """Rows of the arrays that hold a plan's likes, as a device has them."""
  plan = normal_equations.make_plan(likes, 4.0, RANK, mesh)
  return [
      {shard.data.shape[0] for shard in chunk.liked.addressable_shards}
      for chunk in plan.chunks
  ], [len(chunk.liked) for chunk in plan.chunks]


@pytest.mark.parametrize(
    'weighted, cg_steps', [(True, 0), (False, 0), (True, 3)]
)
def test_eight_devices_share_the_rows_and_solve_like_one(weighted, cg_steps):
  likes = _some_likes(weighted=weighted)
  pairs = _interactions(likes)
  one, eight = (
      _train(pairs, num_devices=number, cg_steps=cg_steps) for number in (1, 8)
  )
  for name in ('user', 'item'):
    expected = getattr(one, name)
    assert np.abs(expected).max() > 0.1
    # Steps cut short keep what rounding does to their directions.
    atol = 1e-4 if cg_steps else 1e-5
    np.testing.assert_allclose(getattr(eight, name), expected, atol=atol)
  parts, sizes = _spread(parallel.local_mesh(), likes)
  assert [{size // 8} for size in sizes] == parts


@pytest.mark.parametrize('rank', [1, 100])
def test_all_lengths_on_eight_devices(rank):
  """Both systems; more devices than rows of a length."""
  likes, factors = _likes(LENGTHS, 150, seed=rank), _factors(150, rank, seed=1)
  mesh = parallel.local_mesh()
  plan = normal_equations.make_plan(likes, 10.0, rank, mesh)
  fixed = normal_equations.whiten(jnp.asarray(factors), 1.0, 170, mesh)
  assert fixed.rows.shape[0] >= 170 and fixed.rows.is_fully_replicated
  found = normal_equations.solve(fixed, plan)
  assert found.is_fully_replicated and len(found.sharding.device_set) == 8
  expected = _slow_solve(factors, likes, 10.0, 1.0)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)


def test_without_a_mesh_all_devices_of_the_process_take_part(monkeypatch):
  meshes = []
  make_plan = normal_equations.make_plan

  def tell(*args):
    meshes.append(args[-1])
    return make_plan(*args)

  monkeypatch.setattr(normal_equations, 'make_plan', tell)
  pairs = _interactions(_some_likes())
  teacher.train(pairs, USERS, ITEMS, _config(num_iterations=1), seed=0)
  assert [mesh.devices.size for mesh in meshes] == [8, 8]


def test_planted_tastes_are_recovered():
  # Four groups of users, each with its own ten items; one item of her group is
  # withheld from each user, and must then be the first of the 31 that she does
  # not have.
  user, item = np.arange(USERS), np.arange(ITEMS)
  withheld = user % 4 + 4 * (user // 4)
  known = user[:, None] % 4 == item % 4
  known[user, withheld] = False
  rows = [side.astype(np.int32) for side in np.nonzero(known)]
  factors = _train(schema.Interactions(*rows))
  scores = np.where(known, -np.inf, factors.user @ factors.item.T)
  np.testing.assert_array_equal(np.argmax(scores, axis=1), withheld)


def test_weights_multiply_the_confidence():
  plain = _interactions(_some_likes(weighted=False))
  heavy = dataclasses.replace(plain, weight=np.float32(4) * plain.weight)
  absent = dataclasses.replace(plain, weight=None)
  expected = _train(plain)
  for factors in (_train(heavy, confidence=1.0), _train(absent)):
    np.testing.assert_allclose(factors.user, expected.user, rtol=1e-5)
    np.testing.assert_allclose(factors.item, expected.item, rtol=1e-5)


def test_the_seed_decides_everything():
  pairs = _interactions(_some_likes())
  one, same, other = (_train(pairs, seed=seed) for seed in (1, 1, 2))
  np.testing.assert_array_equal(one.user, same.user)
  np.testing.assert_array_equal(one.item, same.item)
  assert not np.array_equal(one.item, other.item)


def test_order_of_interactions_does_not_matter():
  pairs = _interactions(_some_likes())
  shuffled = pairs.select(np.random.default_rng(0).permutation(len(pairs)))
  one, two = _train(pairs), _train(shuffled)
  np.testing.assert_array_equal(one.item, two.item)


@pytest.mark.parametrize(
    'fields, message',
    [
        (dict(rank=0), 'config.teacher.rank is 0'),
        (dict(regularization=0.0), 'config.teacher.regularization is 0.0'),
        (dict(confidence=-1.0), 'config.teacher.confidence is -1.0'),
        (dict(num_iterations=0), 'config.teacher.num_iterations is 0'),
        (dict(cg_steps=-1), 'config.teacher.cg_steps is -1'),
    ],
)
def test_bad_config(fields, message):
  pairs = _interactions(_likes([2, 3], 5, seed=0))
  with pytest.raises(errors.UserError, match=re.escape(message)):
    teacher.train(pairs, 2, 5, _config(**fields), seed=0)


@pytest.mark.parametrize('value', [-1.0, np.nan, np.inf, 3e38])
def test_bad_weights(value):
  likes = _likes([2, 3], 5, seed=0, weighted=False)
  likes.data[3] = value
  message = '1 of 5 likes have a negative or non-finite weight'
  with pytest.raises(errors.UserError, match=message):
    teacher.train(_interactions(likes), 2, 5, _config(), seed=0)
  with pytest.raises(errors.UserError, match=message):
    teacher.fold_in(_factors(5, 2, 0), likes, _config())


def test_no_interactions():
  none = schema.Interactions(np.zeros(0, np.int32), np.zeros(0, np.int32))
  with pytest.raises(errors.UserError, match='no training interactions'):
    teacher.train(none, 3, 4, _config(), seed=0)


def test_factors_that_are_not_finite_name_the_cause():
  pairs = _interactions(_some_likes())
  with pytest.raises(errors.UserError, match='regularization is 1e-30, too'):
    _train(pairs, rank=USERS + ITEMS, regularization=1e-30)


@pytest.fixture
def implicit_als():
  """The ALS class of `implicit`, which wants one thread per BLAS call."""
  als = pytest.importorskip('implicit.cpu.als')
  threadpoolctl = pytest.importorskip('threadpoolctl')
  with threadpoolctl.threadpool_limits(1, 'blas'):
    yield als.AlternatingLeastSquares


def test_the_same_iterations_as_implicit(implicit_als):
  """From the same start, exact solves lead to the same factors."""
  likes = _some_likes()
  likes.data += 0.5
  config = _config(num_iterations=4)
  present = np.isin(np.arange(ITEMS), likes.indices)
  model = implicit_als(
      factors=RANK,
      regularization=config.regularization,
      use_cg=False,
      iterations=config.num_iterations,
  )
  model.user_factors = np.zeros((USERS, RANK), np.float32)
  model.item_factors = np.array(teacher.first_factors(present, config, 3))
  # The confidence of `implicit` is what the matrix holds, with the 1 in it.
  confidence = scipy.sparse.csr_matrix(likes)
  confidence.data = 1 + config.confidence * confidence.data
  model.fit(confidence, show_progress=False)
  factors = _train(_interactions(likes), seed=3, num_iterations=4)
  for ours, theirs in (
      (factors.user, model.user_factors),
      (factors.item, model.item_factors),
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
  again = model.recalculate_user(np.arange(USERS), confidence)
  found = teacher.fold_in(model.item_factors, likes, config)
  np.testing.assert_allclose(found, again, rtol=1e-4, atol=1e-5)


def test_recall_on_citeulike(data_dir):
  """The published setting; `implicit` has 0.591 to 0.593 with three seeds."""
  data = config_lib.DataConfig(
      name='citeulike-a', split='published-warm', validation='return'
  )
  dataset = sources.load(data, str(data_dir))
  split = splits.make_split(dataset, data)
  num_users, num_items = len(dataset.users), len(dataset.items)
  factors = teacher.train(
      split.train, num_users, num_items, config_lib.TeacherConfig(), seed=0
  )
  held_out = split.evaluation['warm']
  assert len(held_out.candidates) == num_items and held_out.exclude_train
  found = protocol.evaluate(
      lambda rows: factors.user[rows] @ factors.item[held_out.candidates].T,
      held_out,
      split.train.matrix(num_users, num_items),
      config_lib.EvaluationConfig(cutoffs=(100,)),
      'the teacher on warm',
  )
  assert found['recall@100'] == pytest.approx(0.592, abs=0.005)
