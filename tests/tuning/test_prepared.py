# SPDX-License-Identifier: Apache-2.0
"""What trials share is what they would have made for themselves."""

import dataclasses

import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import teacher
from dropoutnet_jax import unread
from dropoutnet_jax.data import audit
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import sparse_fit
from dropoutnet_jax.training import label_signal
from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import resident
from dropoutnet_jax.tuning import prepared
from tests import tiny_run


@pytest.fixture
def made(monkeypatch):
  """Names of the parts that are computed; the teacher is a stand-in."""
  seen = []

  def fake(rows, num_users, num_items, settings, seed):
    seen.append('teacher')
    draw = np.random.default_rng([len(rows), seed]).normal
    values = [
        draw(size=(count, settings.rank)).astype(np.float32)
        for count in (num_users, num_items)
    ]
    present = [
        np.isin(np.arange(n), r)
        for n, r in ((num_users, rows.user), (num_items, rows.item))
    ]
    values = [v * p[:, None] for v, p in zip(values, present)]
    return schema.Factors(*values, *present)

  monkeypatch.setattr(teacher, 'train', fake)
  for module, name in ((prepare, 'prepare'), (sparse_fit, 'fit')):
    real = getattr(module, name)

    def counted(*given, real=real, name=name, **named):
      seen.append(name)
      return real(*given, **named)

    monkeypatch.setattr(module, name, counted)
  return seen


def _fill(parts, folder, **sections):
  """What a trial with these settings gets, in a folder of its own."""
  cfg = tiny_run.get_config()
  for section, fields in sections.items():
    for name, value in fields.items():
      setattr(getattr(cfg, section), name, value)
  cfg.validate()
  folder.mkdir()
  return parts.fill(cfg, str(folder))


def test_parts_are_shared_by_trials_that_share_their_settings(made, tmp_path):
  parts = prepared.Prepared(str(tmp_path / 'cache'), None)
  numbers = iter(range(99))

  def asks(*wanted, **sections):
    made.clear()
    found = _fill(parts, tmp_path / f'{next(numbers)}', **sections)
    assert made == list(wanted), sections
    return found

  first = asks('prepare', 'teacher')
  asks(train={'learning_rate': 0.5})
  asks(dropout={'item_rate': 0.1}, model={'rank': 8})
  other = asks('prepare', 'teacher', teacher={'rank': 3})
  assert first.factors.user.shape[1] == 4 and other.factors.user.shape[1] == 3
  # Other features, the same likes: the teacher is the same.
  more = asks('prepare', features={'user': []})
  np.testing.assert_array_equal(more.factors.item, first.factors.item)
  assert more.user.dense.shape != first.user.dense.shape
  asks('prepare', 'teacher', train={'seed': 1})
  asks(teacher={'rank': 3}, train={'learning_rate': 0.5})
  # Nothing asks for factors: their settings make no difference.
  without = {
      'objective': {
          'teacher': 0.0,
          'in_batch_softmax': 1.0,
          'pairing': 'interactions',
      },
      'features': {'preference': 'history'},
  }
  asks('prepare', **without)
  asks(**without, teacher={'rank': 3})
  sparse = {'enabled': True, 'correction_rank': 4}
  sparse_of = lambda **more: {
      'features': {
          'item': [config.Feature(column='tags')],
      },
      'model': {'sparse': config.SparseConfig(**sparse, **more)},
  }
  asks('prepare', 'fit', **sparse_of())
  asks(**sparse_of(), train={'learning_rate': 0.5})
  asks('fit', **sparse_of(smoothing_l2=7.0))
  counts = {'problem': 6, 'teacher': 3, 'sparse': 2}
  assert parts.counts() == counts


def test_what_is_shared_is_what_a_run_of_its_own_prepares(made, tmp_path):
  parts = prepared.Prepared(str(tmp_path / 'cache'), None)
  _fill(parts, tmp_path / 'first', train={'learning_rate': 0.5})
  cfg = tiny_run.changed(train={'learning_rate': 0.1})
  own = prepare.prepare(cfg, None, None, teacher.train)
  _fill(parts, tmp_path / 'shared', train={'learning_rate': 0.1})
  shared = problem_lib.load(str(tmp_path / 'shared'))
  for side in ('user', 'item'):
    one, two = getattr(own, side), getattr(shared, side)
    np.testing.assert_array_equal(one.dense, two.dense)
    assert (one.sparse != two.sparse).nnz == 0
  np.testing.assert_array_equal(own.split.train.item, shared.split.train.item)
  np.testing.assert_array_equal(own.factors.user, shared.factors.user)
  assert set(own.split.evaluation) == {'cold_item', 'cold_item_validation'}
  assert set(shared.split.evaluation) == {'cold_item_validation'}
  held = own.split.evaluation['cold_item_validation']
  np.testing.assert_array_equal(
      shared.split.evaluation['cold_item_validation'].item, held.item
  )
  for path in (tmp_path / 'cache').rglob('problem.npz'):
    names = np.load(path).files
    assert not [n for n in names if n.startswith('evaluation/cold_item/')]
    assert 'truth' not in names


def test_a_term_without_signal_is_refused_for_shared_data_as_well(
    made, tmp_path
):
  parts = prepared.Prepared(str(tmp_path / 'cache'), None)
  cfg = tiny_run.changed(
      features={'preference': 'history'},
      objective={
          'teacher': 0.0,
          'in_batch_softmax': 1.0,
          'pairing': 'interactions',
      },
      dropout={'user_transform_rate': 0.0},
  )
  parts.problem(cfg)
  cfg.objective.pairwise = 1.0  # of likes alone there are no pairs
  with pytest.raises(errors.UserError, match='config.objective.pairwise'):
    parts.problem(cfg)
  assert made == ['prepare']


def test_a_part_that_fails_leaves_nothing(made, tmp_path, monkeypatch):
  def fails(*unused):
    raise errors.UserError('no.')

  parts = prepared.Prepared(str(tmp_path / 'cache'), None)
  with monkeypatch.context() as patch:
    patch.setattr(problem_lib, 'without_tests', fails)
    with pytest.raises(errors.UserError):
      parts.problem(tiny_run.get_config())
  assert parts.counts()['problem'] == 0
  parts.problem(tiny_run.get_config())
  assert parts.counts()['problem'] == 1


def test_the_digest_has_all_that_preparing_reads(made, monkeypatch):
  """Fields are watched while a problem is prepared."""
  read = set()

  def watched(node, path=''):
    kind = type(node)
    names = [field.name for field in dataclasses.fields(node)]

    class Watched(kind):

      def __getattribute__(self, name):
        if name in names:
          read.add(path + name)
        return super().__getattribute__(name)

    values = {
        name: watched(value, f'{path}{name}.')
        if dataclasses.is_dataclass(value)
        else value
        for name, value in vars(node).items()
    }
    found = object.__new__(Watched)
    vars(found).update(values)
    return found

  # These read to refuse or to tell, and are asked again, or not listened to.
  for module, name, value in (
      (unread, 'notes', []),
      (resident, 'history_notes', []),
      (resident, 'target_items', np.zeros(0, int)),
      (audit, 'check_targets', []),
      (label_signal, 'check', None),
  ):
    monkeypatch.setattr(module, name, lambda *a, value=value, **k: value)
  monkeypatch.setattr(config.Config, 'needs_teacher', True)
  cfg = tiny_run.get_config()
  known = prepare.problem_settings(cfg)
  sections = {field.name for field in dataclasses.fields(cfg)}
  prepare.prepare(watched(cfg), None, None, teacher.train)
  # Looked at to see whether negatives may be cold, for `check_targets`.
  asked = read - sections - {'objective.target_items'}
  assert {'data.split', 'features.scaling', 'train.seed'} <= asked
  assert not [
      name
      for name in asked
      if not any(
          f'{k}.'.startswith(f'{name}.') or k.startswith(f'{name}[')
          for k in known
      )
  ]
