# SPDX-License-Identifier: Apache-2.0
"""Settings that nothing reads are told, and no others."""

import dataclasses
import pathlib

import pytest

from dropoutnet_jax import config
from dropoutnet_jax import config_objective
from dropoutnet_jax import config_tree
from dropoutnet_jax import experiment
from dropoutnet_jax import profiles
from dropoutnet_jax import unread
from tests import tiny_run

EXPERIMENTS = sorted(
    (pathlib.Path(__file__).parents[1] / 'experiments').glob('*.py')
)
FIELDS = [field for reader in unread.READERS for field in reader.fields]
# What decides which others are read, or is refused where nothing reads it.
DECIDING = {
    'teacher',
    *config_objective.LABEL_TERMS,
    'pairing',
    'learn_weights',
    'sampling',
    'group_rows',
    'num_sampled',
    'num_impressions',
    'num_hard',
    'embedding_regularization',
    'kernel_regularization',
}


def _set(cfg, field, value):
  *path, name = field.split('.')
  for part in path:
    cfg = getattr(cfg, part)
  setattr(cfg, name, value)


def test_every_field_is_one_and_has_one_reader():
  assert set(FIELDS) <= set(config_tree.fields(config.Config()))
  assert len(set(FIELDS)) == len(FIELDS)


def test_every_option_of_the_objective_has_a_reader():
  named = {f.split('.')[1] for f in FIELDS if f.startswith('objective.')}
  every = {f.name for f in dataclasses.fields(config.ObjectiveConfig)}
  assert every == named | DECIDING


@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda path: path.stem)
def test_experiments_say_nothing_in_vain(path):
  assert unread.notes(experiment.load(str(path))) == []


@pytest.mark.parametrize('name', config.PROFILES)
def test_profiles_are_no_mistake(name):
  assert unread.notes(profiles.apply(config.Config(), name)) == []


@pytest.mark.parametrize(
    'field, value, settings, reader',
    [
        (
            'data.tables.time',
            'when',
            {'data.mode': 'streaming'},
            "data.mode 'resident'",
        ),
        ('objective.margin', 0.5, {}, 'objective.softmax'),
        ('objective.hard_ratio', 0.5, {}, 'objective.pairwise'),
        ('objective.log_q', 0.5, {}, 'objective.in_batch_softmax'),
        ('objective.focal_alpha', 0.5, {}, 'objective.pointwise'),
        ('objective.temperature', 0.5, {}, 'a term on labels'),
        ('objective.top_items', 5, {}, "objective.pairing 'published'"),
        ('dropout.drop_both', 0.5, {}, "dropout.kind 'exclusive'"),
        (
            'dropout.user_rate',
            0.1,
            {'dropout.kind': 'exclusive'},
            "dropout.kind 'independent'",
        ),
        ('train.power', 3.0, {}, "train.schedule 'polynomial'"),
        ('train.momentum', 0.5, {'train.optimizer': 'adagrad'}, 'an optimiser'),
        ('train.accumulator', 0.5, {}, 'adagrad'),
        (
            'train.epsilon',
            0.5,
            {'train.optimizer': 'sgd', 'train.embedding_optimizer': 'lion'},
            'adagrad, adam, adamw, lamb, lazy_adam, rmsprop or row_adagrad',
        ),
        (
            'features.history_smoothing',
            1.0,
            {'features.preference': 'none'},
            "features.preference 'factors' or 'history'",
        ),
        ('model.layer_norm', False, {}, "model.tower 'modern'"),
        ('model.sparse.smoothing', 9.0, {}, 'model.sparse.enabled'),
        (
            'teacher.cg_steps',
            3,
            {'teacher.source': 'published'},
            "teacher.source 'als'",
        ),
        ('data.synthetic.seed', 3, {'data.name': 'ml-100k'}, 'data.name'),
    ],
)
def test_a_setting_in_vain_is_told(field, value, settings, reader):
  cfg = config.Config()
  for name, other in settings.items():
    _set(cfg, name, other)
  assert not [note for note in unread.notes(cfg) if field in note]
  _set(cfg, field, value)
  (note,) = [note for note in unread.notes(cfg) if field in note]
  assert note.startswith(f'Nothing reads config.{field} = {value!r}; {reader}')


def test_what_is_read_is_not_told():
  cfg = tiny_run.get_config()
  cfg.objective = config.ObjectiveConfig(
      pairing='interactions',
      pointwise=1.0,
      softmax=1.0,
      margin=0.1,
      support_vector=1.1,
      temperature=0.5,
      label_smoothing=0.1,
  )
  assert unread.notes(cfg) == []
  cfg.objective.softmax = 0.0
  told = [note.split()[2] for note in unread.notes(cfg)]
  assert told == ['config.objective.support_vector', 'config.objective.margin']
