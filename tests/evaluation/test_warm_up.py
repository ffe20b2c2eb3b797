# SPDX-License-Identifier: Apache-2.0
"""The warm-up curve: what is shown, what stays hidden, what the model sees."""

import dataclasses

import jax
import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import teacher
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import baselines
from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.evaluation import ridge_method
from dropoutnet_jax.evaluation import sparse_fit
from dropoutnet_jax.evaluation import warm_up
from dropoutnet_jax.model import statistics
from dropoutnet_jax.model import tower_inputs
from dropoutnet_jax.model import towers
from dropoutnet_jax.training import resident
from tests import toy_tokens

MOST = 3
CONFIG = config.Config(
    name='curve',
    teacher=config.TeacherConfig(rank=4),
    model=config.ModelConfig(tower='paper', hidden=(6,), rank=5),
    evaluation=config.EvaluationConfig(
        cutoffs=(5,), warm_up_counts=(0, 1, MOST)
    ),
)


def _pairs(interactions):
  return set(zip(interactions.user.tolist(), interactions.item.tolist()))


def make_scorer(problem, cfg):
  """Fresh towers; users have preference features, some of the new ones too."""
  tables = resident.make_tables(cfg, toy_tokens.with_tokens(problem))
  model = towers.TwoTower(cfg.model)
  row = tower_inputs.blank_row
  variables = jax.jit(model.init)(
      jax.random.key(0), *row(tables.user), *row(tables.item)
  )
  return model_scores.Scorer(model_scores.Embedder(model), variables, tables)


@pytest.fixture(name='scorer', scope='module')
def fixture_scorer(problem):
  return make_scorer(problem, CONFIG)


@pytest.mark.parametrize('side', ['user', 'item'])
def test_pairs_are_shown_or_hidden(problem, side):
  plan = warm_up.plan(problem, side, MOST, seed=0)
  held_out = problem.split.evaluation[f'cold_{side}']
  shown, hidden = _pairs(plan.showable), _pairs(plan.held_out)
  assert not shown & hidden
  assert shown | hidden == _pairs(held_out)
  own = lambda pairs: getattr(pairs, side)
  count = np.bincount(own(held_out))
  expected = np.minimum(count // 2, MOST)
  np.testing.assert_array_equal(
      np.bincount(own(plan.showable), minlength=len(count)), expected
  )
  assert expected.max() == MOST and (expected < MOST).any()
  np.testing.assert_array_equal(plan.held_out.candidates, held_out.candidates)


@pytest.mark.parametrize('side', ['user', 'item'])
def test_what_is_shown_grows(problem, side):
  plan = warm_up.plan(problem, side, MOST, seed=0)
  before = plan.shown(0)
  assert before.nnz == 0 and before.shape[0] == len(plan.rows)
  for count in range(1, MOST + 1):
    now = plan.shown(count)
    assert now.sum(axis=1).max() == count
    assert (now - before).min() >= 0 and now.nnz > before.nnz
    before = now
  assert before.nnz == len(plan.showable)


def test_shown_pairs_are_no_candidates(problem):
  plan = warm_up.plan(problem, 'item', MOST, seed=0)
  users = np.unique(plan.showable.user)
  allowed = protocol.allowed_candidates(
      plan.likes, users, plan.held_out.candidates
  )
  row = np.searchsorted(users, plan.showable.user)
  column = np.searchsorted(plan.held_out.candidates, plan.showable.item)
  assert not allowed[row, column].any()
  assert allowed.sum() == allowed.size - len(plan.showable)


def test_the_draw_is_the_seeds(problem):
  one, same, other = (
      warm_up.plan(problem, 'item', MOST, seed).showable for seed in (1, 1, 2)
  )
  assert _pairs(one) == _pairs(same) != _pairs(other)


@pytest.mark.parametrize('side', ['user', 'item'])
def test_some_users_stand_for_all(problem, side):
  """The same pairs are shown; those to be found are of fewer users."""
  whole = warm_up.plan(problem, side, MOST, seed=0)
  few = warm_up.plan(problem, side, MOST, seed=0, max_users=3)
  assert len(np.unique(few.held_out.user)) == 3
  assert _pairs(few.showable) == _pairs(whole.showable)
  np.testing.assert_array_equal(few.rows, whole.rows)
  of_few = np.isin(whole.held_out.user, few.held_out.user)
  pairs = lambda held, mask: set(zip(held.user[mask], held.item[mask]))
  everything = np.ones(len(few.held_out.user), bool)
  assert pairs(few.held_out, everything) == pairs(whole.held_out, of_few)
  same = warm_up.plan(problem, side, MOST, seed=0, max_users=30)
  np.testing.assert_array_equal(same.held_out.user, whole.held_out.user)


def test_no_curve_without_held_out_pairs(problem, scorer):
  none = np.zeros(0, np.int32)
  empty = schema.EvaluationSet(none, none, np.arange(30, dtype=np.int32))
  evaluation = {'cold_item': empty}
  bare = dataclasses.replace(
      problem, split=dataclasses.replace(problem.split, evaluation=evaluation)
  )
  found = warm_up.evaluate(warm_up.measure(bare, scorer, CONFIG), CONFIG, {})
  assert found == {'item': {}, 'user': {}}


@pytest.mark.parametrize('side', ['user', 'item'])
def test_models_see_the_shown_pairs(problem, scorer, side):
  """As if the tables had been made with these preferences."""
  plan = warm_up.plan(problem, side, MOST, seed=0)
  other = 'item' if side == 'user' else 'user'
  shown = plan.shown(MOST)
  others = getattr(problem.factors, other)
  table = getattr(scorer.tables, side)
  # As by five usual rows more.
  count = shown.sum(axis=1)[:, None]
  total = shown.toarray() @ others + 5 * table.history_scaler.mean
  mean = total / (count + 5)
  folded = teacher.fold_in(others, shown, CONFIG.teacher)
  smoothed = (count * folded + 5 * table.preference_scaler.mean) / (count + 5)
  found = warm_up.make_methods(problem, scorer, CONFIG, plan, MOST)
  assert sorted(found) == ['model', 'model, folded in', 'teacher']
  for name, value in (
      ('model', table.history_scaler(mean)),
      ('model, folded in', table.preference_scaler(smoothed)),
  ):
    preference, present = table.preference.copy(), table.present.copy()
    knows = shown.sum(axis=1) > 0
    preference[plan.rows] = np.asarray(value) * knows[:, None]
    present[plan.rows] = knows
    changed = dataclasses.replace(
        scorer.tables,
        **{side: table.replace(preference=preference, present=present)},
    )
    expected = dataclasses.replace(scorer, tables=changed).methods()['model']
    users = np.unique(plan.held_out.user)
    np.testing.assert_allclose(
        found[name](f'cold_{side}', plan.held_out)(users),
        expected(f'cold_{side}', plan.held_out)(users),
        rtol=1e-5,
        atol=1e-6,
    )
  user, item = problem.factors.user.copy(), problem.factors.item.copy()
  (user if side == 'user' else item)[plan.rows] = folded
  users = np.unique(plan.held_out.user)
  np.testing.assert_allclose(
      found['teacher'](f'cold_{side}', plan.held_out)(users),
      user[users] @ item[plan.held_out.candidates].T,
      rtol=1e-4,
      atol=1e-5,
  )


@pytest.mark.parametrize('side', ['user', 'item'])
def test_statistics_count_the_shown_pairs(problem, scorer, side):
  """A row to which k pairs are shown counts as one with k of training."""
  features = config.FeaturesConfig(statistics=(0.0,))
  cfg = dataclasses.replace(CONFIG, features=features)
  counted = dataclasses.replace(
      scorer, tables=resident.make_tables(cfg, problem)
  )
  plan = warm_up.plan(problem, side, MOST, seed=0)
  number = plan.shown(MOST).sum(axis=1).astype(int)
  assert sorted(set(number.tolist()))[-1] == MOST
  found = warm_up.make_methods(problem, counted, cfg, plan, MOST)
  for name in ('model', 'model, folded in'):
    table = getattr(found[name].__self__.tables, side)
    usual = float(table.counts.usual[0]) * (1 + number / 20)
    usual = np.round(np.where(number > 0, usual, 0)).astype(int)
    np.testing.assert_array_equal(table.counts.shown[plan.rows, 0], usual)
    told = statistics.whole(table, plan.rows)
    np.testing.assert_array_equal(told.present, number > 0)
  before = getattr(counted.tables, side).counts.shown[:, 0]
  for warm in np.flatnonzero(np.isin(before, usual)):
    if before[warm]:
      same = plan.rows[usual == before[warm]][:1]
      one, other = (
          statistics.whole(table, rows).value for rows in (same, warm[None])
      )
      np.testing.assert_array_equal(one, other)
  same = scorer.with_reactions(side, plan.rows, number).tables
  assert getattr(same, side) is getattr(scorer.tables, side)


def test_nothing_shown_is_the_cold_model(problem, scorer):
  curves = warm_up.evaluate(
      warm_up.measure(problem, scorer, CONFIG), CONFIG, {}
  )
  assert list(curves['item']) == list(curves['user']) == ['0', '1', str(MOST)]
  for side, curve in curves.items():
    plan = warm_up.plan(problem, side, MOST, CONFIG.train.seed)
    cold = protocol.evaluate(
        scorer.methods()['model'](f'cold_{side}', plan.held_out),
        plan.held_out,
        plan.likes,
        CONFIG.evaluation,
        'the cold model',
    )
    methods = curve['0']['methods']
    assert methods['model'] == methods['model, folded in'] == cold
    assert curve[str(MOST)]['methods']['model'] != cold
    assert len({point['pairs'] for point in curve.values()}) == 1
    shown = plan.shown(MOST).sum(axis=1)
    point = curve[str(MOST)]
    assert point['rows_with_fewer'] == sum(shown < MOST) > 0
    assert point['shown_mean'] == pytest.approx(shown.mean(), abs=1e-3)


def test_points_are_compared_with_the_one_before(problem, scorer):
  curve = warm_up.evaluate(
      warm_up.measure(problem, scorer, CONFIG), CONFIG, {}
  )['user']
  assert 'more' not in curve['0']
  for before, point in zip(list(curve.values()), list(curve.values())[1:]):
    for name in ('model', 'model, folded in'):
      more = point['more'][name]['ndcg@5']
      gap = point['methods'][name]['ndcg@5'] - before['methods'][name]['ndcg@5']
      assert more['difference'] == pytest.approx(gap, abs=1e-9)
      assert more['low'] <= more['difference'] <= more['high']
    assert 'teacher' in point['more']
  settings = dataclasses.replace(CONFIG.evaluation, bootstrap=0)
  without = dataclasses.replace(CONFIG, evaluation=settings)
  curve = warm_up.evaluate(
      warm_up.measure(problem, scorer, without), without, {}
  )['user']
  assert not any('more' in point for point in curve.values())


def test_features_alone_learn_nothing_from_what_is_shown(problem):
  features = config.FeaturesConfig(preference='none')
  cfg = dataclasses.replace(CONFIG, features=features)
  scorer = make_scorer(problem, cfg)
  plan = warm_up.plan(problem, 'user', MOST, seed=0)
  found = warm_up.make_methods(problem, scorer, cfg, plan, MOST)
  assert sorted(found) == ['model', 'teacher']
  users = np.unique(plan.held_out.user)
  score = lambda method: method('cold_user', plan.held_out)(users)
  cold = score(scorer.methods()['model'])
  np.testing.assert_array_equal(score(found['model']), cold)


def test_sparse_part_of_users_with_other_histories(problem, scorer):
  settings = config.SparseConfig(enabled=True, history_size=20)
  part = sparse_fit.fit(problem, settings, seed=0)
  whole = dataclasses.replace(
      scorer, sparse=part, content=problem.item.sparse, tower_weight=0.5
  )
  plan = warm_up.plan(problem, 'user', MOST, seed=0)
  shown = plan.shown(MOST)
  users, items = np.unique(plan.held_out.user), plan.held_out.candidates
  told = whole.with_histories(plan.rows, shown, problem.user.dense[plan.rows])
  method = lambda scorer: scorer.score_whole('cold_user', plan.held_out)(users)
  # The closed form over the shown items, beside the unchanged towers.
  content = problem.item.sparse
  weights = part.correction.weights
  profile = (shown @ content).toarray()
  expected = profile @ content[items].toarray().T
  expected -= (profile @ weights) @ (content[items] @ weights).T
  expected /= part.correction.divisor
  assert np.abs(expected).max() > 0.1
  rows = np.searchsorted(plan.rows, users)
  np.testing.assert_allclose(
      np.asarray(method(told)) - np.asarray(method(whole)),
      expected[rows],
      rtol=1e-3,
      atol=1e-4,
  )
  warm = np.setdiff1d(np.arange(len(problem.user.ids)), plan.rows)
  assert (abs(told.sparse.history - part.history)[warm]).sum() == 0
  assert (
      scorer.with_histories(plan.rows, shown, problem.user.dense[plan.rows])
      is scorer
  )


def _settings():
  return config.EvaluationConfig(ridge_lambdas=(1.0,), ridge_smoothings=(0.0,))


def _table(method, held_out, rows):
  return np.asarray(method('cold_user', held_out)(rows))


@pytest.mark.parametrize(
    'make', [baselines.ContentKnn, ridge_method.ContentRidge]
)
def test_a_baseline_told_of_a_history_scores_as_for_a_known_user(problem, make):
  """New users 24 and 25 get the histories of users 3 and 7, 26 gets none."""
  method = make(problem, _settings())
  held_out = problem.split.evaluation['cold_user']
  rows, like = np.array([24, 25, 26]), np.array([3, 7])
  empty = scipy.sparse.csr_array((1, 40), dtype=np.float32)
  shown = scipy.sparse.vstack([problem.likes()[like], empty], format='csr')
  told = _table(method.told(rows, shown), held_out, rows)
  plain = _table(method, held_out, rows)
  known = np.asarray(method('warm', held_out)(like))
  np.testing.assert_allclose(told[:2], known, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(told[2], plain[2], rtol=1e-5)
  assert not np.allclose(told[:2], plain[:2])


def test_baselines_that_can_be_told_are_in_the_curve_of_users(problem, scorer):
  methods = {
      'content_knn': baselines.ContentKnn(problem, _settings()),
      'popularity': baselines.make_popularity(problem),
  }
  curves = warm_up.evaluate(
      warm_up.measure(problem, scorer, CONFIG), CONFIG, methods
  )
  for point in curves['user'].values():
    assert 'content_knn' in point['methods']
    assert 'popularity' not in point['methods']
  for point in curves['item'].values():
    assert 'content_knn' not in point['methods']
