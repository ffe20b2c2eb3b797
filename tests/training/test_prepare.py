# SPDX-License-Identifier: Apache-2.0
"""From a data set to a problem: factors from files, leaks, targets."""

import dataclasses

import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.training import prepare
from tests import tiny_run


def _from_files(tmp_path, user, item, rank=4):
  cfg = tiny_run.get_config()
  np.savez(tmp_path / 'user.npz', user=user)
  np.savez(tmp_path / 'item.npz', item=item)
  cfg.teacher = config.TeacherConfig(
      source='file',
      rank=rank,
      user_file=str(tmp_path / 'user.npz'),
      item_file=str(tmp_path / 'item.npz'),
  )
  return cfg


def test_cold_rows_have_no_factors(problem):
  users, items = problem.split.train_rows()
  factors = problem.factors
  for values, present, rows in (
      (factors.user, factors.user_present, users),
      (factors.item, factors.item_present, items),
  ):
    np.testing.assert_array_equal(np.flatnonzero(present), rows)
    assert not np.any(values[~present])


def test_factors_of_a_file_that_know_cold_rows_are_a_leak(tmp_path):
  rng = np.random.default_rng(0)
  user = rng.normal(size=(60, 4)).astype(np.float32)
  item = rng.normal(size=(80, 4)).astype(np.float32)
  cfg = _from_files(tmp_path, user, item)
  with pytest.raises(errors.UserError, match='factors'):
    prepare.prepare(cfg, None, None)
  cfg.data.drop_leaks = True
  problem = prepare.prepare(cfg, None, None)
  users, items = problem.split.train_rows()
  np.testing.assert_array_equal(problem.factors.item[items], item[items])
  assert not np.any(np.delete(problem.factors.item, items, axis=0))
  assert not np.any(np.delete(problem.factors.user, users, axis=0))


@pytest.mark.parametrize(
    'users, items, ranks, message',
    [
        (59, 80, (4, 4), '59 rows of factors, but there are 60 users'),
        (60, 81, (4, 4), '81 rows of factors, but there are 80 items'),
        (60, 80, (4, 5), 'rows of 5 numbers, expected 4'),
    ],
)
def test_factors_that_do_not_fit(tmp_path, users, items, ranks, message):
  cfg = _from_files(
      tmp_path,
      np.ones((users, ranks[0]), np.float32),
      np.ones((items, ranks[1]), np.float32),
  )
  with pytest.raises(errors.UserError, match=message):
    prepare.prepare(cfg, None, None)


@pytest.mark.parametrize('side', ['user', 'item'])
def test_a_factor_file_must_be_named(tmp_path, side):
  cfg = _from_files(tmp_path, np.ones((60, 4)), np.ones((80, 4)))
  setattr(cfg.teacher, f'{side}_file', '')
  with pytest.raises(errors.UserError, match=f'{side}_file is empty'):
    prepare.prepare(cfg, None, None)


def test_published_factors_need_a_data_set_that_has_them():
  cfg = tiny_run.get_config()
  cfg.teacher.source = 'published'
  with pytest.raises(errors.UserError, match='comes without factors'):
    prepare.prepare(cfg, None, None)


def test_targets_are_training_items_unless_as_published(problem):
  cfg = tiny_run.get_config()
  _, train_items = problem.split.train_rows()
  np.testing.assert_array_equal(prepare.target_items(cfg, problem), train_items)
  cfg.objective.target_items = 'all'
  np.testing.assert_array_equal(
      prepare.target_items(cfg, problem), np.arange(80)
  )


def test_top_items_are_the_teachers_best_targets(problem):
  cfg = tiny_run.get_config()
  cfg.objective.pairing = 'published'
  cfg.objective.top_items = 5
  tables = prepare.make_tables(cfg, problem)
  targets = prepare.target_items(cfg, problem)
  scores = problem.factors.user @ problem.factors.item[targets].T
  for user in problem.split.train_rows()[0][:10]:
    best = targets[np.argsort(-scores[user], kind='stable')[:5]]
    assert set(tables.top_items[user].tolist()) == set(best.tolist())


def test_row_scaled_content_has_entries_of_unit_size(problem):
  cfg = tiny_run.get_config()
  table = prepare.make_tables(cfg, problem).item
  width = problem.item.dense.shape[1]
  np.testing.assert_allclose(
      table.content, problem.item.dense * width**0.5, rtol=1e-6
  )
  cfg.features = dataclasses.replace(cfg.features, scaling='column')
  table = prepare.make_tables(cfg, problem).item
  np.testing.assert_array_equal(table.content, problem.item.dense)
