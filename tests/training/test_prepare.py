# SPDX-License-Identifier: Apache-2.0
"""From a data set to a problem: factors from files, leaks, targets."""

import dataclasses

import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import synthetic
from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import read_data
from dropoutnet_jax.training import resident
from tests import tiny_run


def _from_files(tmp_path, user, item, rank=4):
  cfg = tiny_run.changed(data={'validation': 'return'})
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
  assert any('cannot be audited' in note for note in problem.notes)
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
  cfg = tiny_run.changed(
      data={'validation': 'return'}, teacher={'source': 'published'}
  )
  with pytest.raises(errors.UserError, match='comes without factors'):
    prepare.prepare(cfg, None, None)


@pytest.mark.parametrize('source', ['file', 'published'])
@pytest.mark.parametrize('split', ['random', 'time', 'published-warm'])
def test_factors_from_elsewhere_must_not_be_validated(
    source, split, monkeypatch
):
  """They were fitted to the very pairs that the best step is chosen on."""
  late = lambda *_: pytest.fail('too late')
  monkeypatch.setattr(read_data, '_load_data', late)
  cfg = tiny_run.changed(data={'split': split}, teacher={'source': source})
  with pytest.raises(errors.UserError) as caught:
    prepare.prepare(cfg, None, None)
  message = str(caught.value)
  assert f"config.teacher.source is '{source}'" in message
  assert '--config.data.validation=return' in message
  assert '--config.teacher.source=als' in message


def _published_world(**held_out):
  """Published splits and factors that know one pair of each set too well.

  Users 0-5 and items 0-7; item 7 is cold.
  """
  user, item = np.divmod(np.arange(0, 42, 2, dtype=np.int32), 7)
  factors = schema.Factors(
      np.ones((6, 2), np.float32),
      np.float32([[1, 2]] * 7 + [[0, 0]]),
      np.ones(6, bool),
      np.arange(8) < 7,
  )
  entities = lambda count: schema.Entities(
      np.arange(count),
      {name: np.arange(count) % 3 for name in ('region', 'genre')},
  )
  cold = schema.EvaluationSet(
      np.int32([1, 2]), np.int32([7, 7]), np.int32([7]), False
  )
  return schema.Dataset(
      'made-up',
      entities(6),
      entities(8),
      schema.Interactions(user, item),
      {'cold_item': cold} | held_out,
      factors,
  )


def _prepare_world(monkeypatch, world, **sections):
  """The problem of a data set that is no file."""
  monkeypatch.setattr(read_data, '_load_data', lambda *_: (world, None))
  data = {'split': 'published-cold', 'validation': 'return'}
  sections['data'] = data | sections.get('data', {})
  return prepare.prepare(tiny_run.changed(**sections), None, None)


@pytest.mark.parametrize(
    'data', [{}, {'validation': 'keep_out', 'validation_share': 0.0}]
)
def test_published_factors_serve_where_nothing_is_validated(data, monkeypatch):
  world = _published_world()
  problem = _prepare_world(
      monkeypatch, world, data=data, teacher={'source': 'published', 'rank': 2}
  )
  np.testing.assert_array_equal(problem.factors.item, world.factors.item)
  assert list(problem.split.evaluation) == ['cold_item']
  assert not any('cannot be audited' in note for note in problem.notes)


def test_a_teacher_that_knows_cold_rows_is_never_used(monkeypatch):
  """Also one of our own, whatever drop_leaks says: that would be a defect."""
  train = prepare.teacher.train

  def leaky(*arguments):
    factors = train(*arguments)
    item = np.array(factors.item)
    item[7] = 1.0
    return dataclasses.replace(factors, item=item)

  monkeypatch.setattr(prepare.teacher, 'train', leaky)
  for drop in (False, True):
    with pytest.raises(errors.UserError, match=r'factors of 1 item \(7\)'):
      _prepare_world(monkeypatch, _published_world(), data={'drop_leaks': drop})


def test_cold_targets_are_refused_or_told(monkeypatch):
  world = _published_world()
  problem = _prepare_world(monkeypatch, world)
  assert not any('targets' in note for note in problem.notes)
  problem = _prepare_world(
      monkeypatch, world, objective={'target_items': 'all'}
  )
  told = [note for note in problem.notes if 'Targets as published' in note]
  assert len(told) == 1
  assert '1 of 8 training targets and negatives belong to 1 item (7)' in told[0]
  every = lambda cfg, split, num_items: np.arange(num_items)
  monkeypatch.setattr(resident, 'target_items', every)
  with pytest.raises(errors.UserError, match='that training must not know'):
    _prepare_world(monkeypatch, world)


def test_targets_are_training_items_unless_as_published(problem):
  cfg = tiny_run.get_config()
  _, train_items = problem.split.train_rows()
  found = resident.target_items(cfg, problem.split, 80)
  np.testing.assert_array_equal(found, train_items)
  cfg.objective.target_items = 'all'
  np.testing.assert_array_equal(
      resident.target_items(cfg, problem.split, 80), np.arange(80)
  )


def test_padded_histories_are_made_only_where_a_step_reads_them(problem):
  off = {'user_transform_rate': 0.0, 'item_transform_rate': 0.0}
  for dropout, is_made in (
      (off, False),
      (off | {'item_transform_rate': 0.1}, True),
      (off | {'user_transform': 0.1}, False),  # exclusive only
  ):
    cfg = tiny_run.changed(dropout=dropout)
    tables = resident.make_tables(cfg, problem)
    assert (tables.user_history.size > 0) == is_made
    assert np.any(tables.user.history_total)


def test_histories_too_large_are_cut_on_both_sides_alike(monkeypatch):
  """Else a pair would be left out of a mean that it is no part of."""
  world = _published_world()
  monkeypatch.setattr(resident, '_MAX_HISTORY_ENTRIES', 6 * 2 + 5)
  problem = _prepare_world(monkeypatch, world)
  told = [note for note in problem.notes if note.startswith('Histories (means')]
  assert len(told) == 1 and '2 pairs of each user at most: 12 of 21' in told[0]
  assert len(problem.split.train) == 21  # what is trained on stays
  cfg = tiny_run.get_config()
  tables = resident.make_tables(cfg, problem)
  assert tables.user_history.shape == (6, 2)
  assert tables.user.history_count.tolist() == [2] * 6
  kept = np.zeros((6, 8), np.float32)
  np.put_along_axis(kept, tables.user_history, 1, axis=1)
  np.testing.assert_array_equal(tables.item.history_count, kept.sum(axis=0))
  np.testing.assert_allclose(
      tables.item.history_total, kept.T @ problem.factors.user, rtol=1e-5
  )
  monkeypatch.setattr(resident, '_MAX_HISTORY_ENTRIES', 6 * 4)
  problem = _prepare_world(monkeypatch, world)
  assert not any(note.startswith('Histories (means') for note in problem.notes)


def test_top_items_are_the_teachers_best_targets(problem):
  cfg = tiny_run.get_config()
  cfg.objective.pairing = 'published'
  cfg.objective.top_items = 5
  tables = resident.make_tables(cfg, problem)
  targets = resident.target_items(cfg, problem.split, 80)
  scores = problem.factors.user @ problem.factors.item[targets].T
  for user in problem.split.train_rows()[0][:10]:
    best = targets[np.argsort(-scores[user], kind='stable')[:5]]
    assert set(tables.top_items[user].tolist()) == set(best.tolist())


def test_row_scaled_content_has_entries_of_unit_size(problem):
  cfg = tiny_run.get_config()
  table = resident.make_tables(cfg, problem).item
  width = problem.item.dense.shape[1]
  np.testing.assert_allclose(
      table.content, problem.item.dense * width**0.5, rtol=1e-6
  )
  cfg.features = dataclasses.replace(cfg.features, scaling='column')
  table = resident.make_tables(cfg, problem).item
  np.testing.assert_array_equal(table.content, problem.item.dense)


@pytest.mark.parametrize('term', ['pointwise', 'pairwise'])
def test_a_loss_without_signal_is_refused(term):
  """Likes alone: nothing says what a low score should look like."""
  cfg = tiny_run.get_config()
  cfg.objective = config.ObjectiveConfig(
      teacher=0.0, pairing='interactions', **{term: 0.5}
  )
  cfg.validate()
  with pytest.raises(errors.UserError) as caught:
    prepare.prepare(cfg, None, None)
  message = str(caught.value)
  assert message.startswith(f'config.objective.{term} is 0.5, but every')
  assert 'no signal' in message and 'in_batch_softmax' in message


def test_labelled_rows_are_trained_on_and_kept(monkeypatch, tmp_path):
  world = synthetic.make_world(tiny_run.get_config().data.synthetic).dataset
  rng = np.random.default_rng(0)
  size = 3 * len(world.interactions)
  shown = schema.Interactions(
      rng.integers(0, len(world.users), size, np.int32),
      rng.integers(0, len(world.items), size, np.int32),
  )
  likes = world.interactions
  both = schema.Interactions(
      np.concatenate([shown.user, likes.user]),
      np.concatenate([shown.item, likes.item]),
      label=np.repeat(np.float32([0, 1]), [size, len(likes)]),
  )
  world = dataclasses.replace(world, impressions=both)
  monkeypatch.setattr(read_data, '_load_data', lambda *_: (world, None))
  cfg = tiny_run.get_config()
  cfg.objective = config.ObjectiveConfig(
      teacher=0.0, pointwise=1.0, pairing='interactions', user_balance=1.0
  )
  problem = prepare.prepare(cfg, None, str(tmp_path))
  rows = resident.make_tables(cfg, problem).rows
  train = problem.labelled.train
  np.testing.assert_array_equal(rows.item, train.item)
  np.testing.assert_array_equal(rows.label, train.label)
  assert rows.weight.mean() == pytest.approx(1.0)
  # With a balance of 1 every user has the same weight in all.
  total = np.bincount(rows.user, rows.weight)
  np.testing.assert_allclose(total[total > 0], total.max(), rtol=1e-5)
  again = problem_lib.load(str(tmp_path)).labelled
  np.testing.assert_array_equal(again.train.label, train.label)
  assert again.evaluation.keys() == problem.labelled.evaluation.keys()
  for name, rows in again.evaluation.items():
    kept = problem.labelled.evaluation[name]
    np.testing.assert_array_equal(rows.item, kept.item)


@pytest.mark.parametrize('side', ['user', 'item'])
def test_a_side_of_which_a_tower_sees_nothing_is_refused(side):
  cfg = tiny_run.get_config()
  setattr(cfg.features, side, [])
  cfg.features.preference = 'none'
  with pytest.raises(errors.UserError) as caught:
    prepare.prepare(cfg, None, None)
  assert f'config.features.{side} gives no {side} a value' in str(caught.value)


@pytest.mark.parametrize('split', ['random', 'time'])
def test_samples_of_training_describe_what_is_trained_on(tmp_path, split):
  """A column that holds the time of its row tells which row is meant."""
  rng = np.random.default_rng(0)
  user, item = rng.integers(0, 20, 600), rng.integers(0, 30, 600)
  time = rng.permutation(600)
  rows = np.stack([user, item, time, rng.integers(0, 2, 600), time], axis=1)
  lines = [','.join(map(str, row)) for row in rows.tolist()]
  header = 'user_id,item_id,time,label,clock'
  (tmp_path / 'samples.csv').write_text('\n'.join([header, *lines]))
  clock = [config.Feature(column='clock', kind='numeric', transform='none')]
  cfg = tiny_run.get_config()
  cfg.data = config.DataConfig(
      name='tables',
      split=split,
      tables=config.TablesConfig(
          samples='samples.csv',
          user_columns=('clock',),
          item_columns=('clock',),
      ),
  )
  cfg.features.user = cfg.features.item = clock
  problem = prepare.prepare(cfg, str(tmp_path), None)
  train, latest = problem.labelled.train, 0
  for name, row in (('user', user), ('item', item)):
    for number, dense in enumerate(getattr(problem, name).dense):
      value = dense[0] / dense[1]  # of norm 1, with a bit of presence
      mine = getattr(train, name) == number
      expected = time[row == number].max()
      if mine.any():
        latest += train.time[mine].max() < expected
        expected = train.time[mine].max()
      assert value == pytest.approx(expected)
  assert latest > 10
