# SPDX-License-Identifier: Apache-2.0
"""What histories are worth: folded in, or the mean, scaled as in training."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import fold_in
from dropoutnet_jax import teacher
from dropoutnet_jax.serving import told_preference
from dropoutnet_jax.training import resident

SMOOTHING = config.FeaturesConfig().history_smoothing


def _changed(model, preference='factors', source='als'):
  """The run with another kind of preference, and its tables."""
  cfg = dataclasses.replace(
      model.cfg,
      features=dataclasses.replace(model.cfg.features, preference=preference),
      teacher=dataclasses.replace(model.cfg.teacher, source=source),
      objective=config.ObjectiveConfig(
          teacher=float(preference == 'factors'),
          in_batch_softmax=1.0,
          pairing='blocks',
      ),
  )
  return cfg, resident.make_tables(cfg, model.problem)


def _histories(model, weights=(1.0, 2.0)):
  """One of two trained items, one of a cold item alone, and an empty one."""
  trained = model.problem.split.train_rows()[1][:2]
  cold = model.problem.split.evaluation['cold_item'].candidates[0]
  matrix = np.zeros((3, len(model.problem.item.ids)), np.float32)
  matrix[0, trained] = weights
  matrix[1, cold] = 1
  return scipy.sparse.csr_array(matrix), trained


def test_the_own_teacher_folds_in(shop):
  """By the normal equations of Hu, Koren & Volinsky, in float64."""
  cfg, tables = _changed(shop.model)
  histories, trained = _histories(shop.model)
  value, present, trust = told_preference.preference(
      cfg, shop.model.problem, tables, 'user', histories, np.ones(3, bool)
  )
  np.testing.assert_array_equal(present, [True, False, False])
  assert not value[1:].any()
  factors = shop.model.problem.factors.item.astype(np.float64)
  extra = cfg.teacher.confidence * np.array([1.0, 2.0])
  own = factors[trained]
  gram = factors.T @ factors + cfg.teacher.regularization * np.eye(3)
  gram += own.T @ (extra[:, None] * own)
  folded = np.linalg.solve(gram, own.T @ (1 + extra))
  scaler = tables.user.preference_scaler
  np.testing.assert_allclose(trust, [2 / (2 + SMOOTHING), 1, 1])
  folded = (2 * folded + SMOOTHING * scaler.mean) / (2 + SMOOTHING)
  expected = np.clip((folded - scaler.mean) / scaler.scale, -5, 5)
  np.testing.assert_allclose(value[0], expected, rtol=1e-3, atol=1e-5)


def test_few_rows_are_folded_in_alike(shop):
  model, rng = shop.model, np.random.default_rng(0)
  settings = model.cfg.teacher
  for factors in (model.problem.factors.item, model.problem.factors.user):
    likes = rng.random((9, len(factors))) * (
        rng.random((9, len(factors))) < 0.3
    )
    likes[3] = 0
    likes = scipy.sparse.csr_array(likes.astype(np.float32))
    few = fold_in.make(factors, settings)(likes)
    many = teacher.fold_in(factors, likes, settings)
    np.testing.assert_allclose(few, many, rtol=1e-4, atol=1e-5)
    assert not few[3].any()


def test_factors_from_elsewhere_are_averaged(shop):
  cfg, tables = _changed(shop.model, source='published')
  histories, trained = _histories(shop.model)
  value, present, trust = told_preference.preference(
      cfg, shop.model.problem, tables, 'user', histories, np.ones(3, bool)
  )
  np.testing.assert_array_equal(present, [True, False, False])
  assert not value[1:].any()
  mean = shop.model.problem.factors.item[trained].mean(axis=0)
  scaler = tables.user.history_scaler
  np.testing.assert_allclose(trust, [2 / (2 + SMOOTHING), 1, 1])
  mean = (2 * mean + SMOOTHING * scaler.mean) / (2 + SMOOTHING)
  expected = np.clip((mean - scaler.mean) / scaler.scale, -5, 5)
  np.testing.assert_allclose(value[0], expected, rtol=1e-4)


def test_content_of_histories_is_averaged_as_in_training(shop):
  """Of cold items as well; users of the training get what they have."""
  cfg, tables = _changed(shop.model, preference='history')
  model = shop.model
  histories, _ = _histories(model)
  rows = model.problem.split.train_rows()[0][:3]
  histories = scipy.sparse.csr_array(
      scipy.sparse.vstack([histories, model.likes[rows]])
  )
  value, present, trust = told_preference.preference(
      cfg, model.problem, tables, 'user', histories, np.arange(6) < 3
  )
  np.testing.assert_array_equal(present, [True, True, False, True, True, True])
  assert trust[3:].tolist() == [1, 1, 1]
  expected = np.asarray(tables.user.preference)[rows]
  np.testing.assert_allclose(value[3:], expected, rtol=1e-4, atol=1e-5)


def test_known_users_keep_pairs_of_weight_0(shop):
  """The teacher counts them as likes, and so does what is told later."""
  model = shop.model
  row = model.problem.split.train_rows()[0][:1]
  likes = model.likes.copy()
  likes.data[slice(*likes.indptr[row[0] :][:2])] = 0
  tables = dataclasses.replace(model.row_tables, likes=likes)
  cold = model.problem.split.evaluation['cold_item'].candidates[0]
  more = np.zeros((1, likes.shape[1]), np.float32)
  more[0, cold] = 1
  user = dataclasses.replace(
      model.users().select(row), history=scipy.sparse.csr_array(more)
  )
  found = tables.read('user', user).table
  assert found.present.tolist() == [True]
  own = likes[row]
  folded = teacher.fold_in(model.problem.factors.item, own, model.cfg.teacher)
  expected = np.asarray(tables.tables.user.preference_scaler(folded))
  np.testing.assert_allclose(found.preference, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    'preference, source, moves',
    [('factors', 'als', True), ('factors', 'file', False)]
    + [('history', 'als', True)],
)
def test_known_users_move_where_the_run_can_say_how(
    shop, preference, source, moves
):
  """Factors from elsewhere say more than a mean of others."""
  cfg, tables = _changed(shop.model, preference, source)
  scorer = dataclasses.replace(shop.model.scorer, tables=tables)
  model = dataclasses.replace(shop.model, cfg=cfg, scorer=scorer)
  known = model.problem.split.train_rows()[0][0]
  cold = model.problem.split.evaluation['cold_user'].user[0]
  more = np.zeros((2, len(model.problem.item.ids)), np.float32)
  seen = set(model.likes[[known]].indices.tolist())
  new = [n for n in model.problem.split.train_rows()[1] if n not in seen][0]
  more[:, new] = 1
  users = model.users().select(np.array([known, cold]))
  users = dataclasses.replace(users, history=scipy.sparse.csr_array(more))
  before = tables.user.select(users.row)
  after = model.row_tables.read('user', users).table
  assert before.present.tolist() == [True, False]
  assert after.present.tolist() == [True, True]
  assert after.preference[1].any()
  moved = (after.preference[0] != before.preference[0]).any()
  assert moved == moves
  # What training knew already changes nothing.
  old = dataclasses.replace(
      users, history=scipy.sparse.csr_array(model.likes[users.row])
  )
  assert model.row_tables.read('user', old).more is None
