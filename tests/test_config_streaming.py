# SPDX-License-Identifier: Apache-2.0
"""What cannot be streamed is refused at once, all of it in one message."""

import pathlib

import pytest

from dropoutnet_jax import config
from dropoutnet_jax import errors
from tests import streamed_tables as toy

FOLDER = pathlib.Path('tables')


def test_what_streams_is_valid():
  assert toy.make_config(FOLDER).data.mode == 'streaming'


@pytest.mark.parametrize(
    'field, value, message',
    [
        ('data.mode', 'stream', 'must be one of resident, streaming. Did you'),
        ('data.split', 'time', "config.data.split 'random'"),
        ('data.warm_share', 0.1, 'config.data.warm_share 0 (only whole users'),
        ('objective.mask_known', True, 'config.objective.mask_known False (h'),
        ('objective.group_rows', 2, 'config.objective.group_rows 1.'),
        (
            'objective.divide_by',
            'rows',
            "config.objective.divide_by 'weights' (streamed ones have mean 1).",
        ),
        (
            'objective.pairwise_within',
            'session',
            "config.objective.pairwise_within 'batch' or 'user'.",
        ),
        (
            'features.preference',
            'factors',
            "config.teacher.source 'file' (ALS looks at all rows), or no need",
        ),
        (
            'features.preference',
            'history',
            "config.features.preference 'factors' or 'none' (histories of",
        ),
        ('features.statistics', (0.0,), 'config.features.statistics empty.'),
        ('model.sparse.enabled', True, 'config.model.sparse.enabled False.'),
        (
            'evaluation.baselines',
            ('content_knn', 'random', 'content_ridge'),
            'baselines without content_knn and content_ridge (they look at',
        ),
        ('evaluation.mixed', True, 'config.evaluation.mixed False (who knows'),
        (
            'train.steps_per_dispatch',
            2**20,
            'config.train.steps_per_dispatch at most 131072 (that many batches',
        ),
    ],
)
def test_what_does_not(field, value, message):
  cfg = toy.make_config(FOLDER, objective={'num_sampled': 0})
  if field == 'train.steps_per_dispatch':
    cfg.train.num_steps = 2**20
  section, _, name = field.rpartition('.')
  target = cfg
  for part in section.split('.'):
    target = getattr(target, part)
  setattr(target, name, value)
  with pytest.raises(errors.UserError) as info:
    cfg.validate()
  assert message in str(info.value)


def test_all_that_must_change_is_said_together():
  cfg = config.Config()
  cfg.data.mode = 'streaming'
  with pytest.raises(errors.UserError) as info:
    cfg.validate()
  message = str(info.value)
  assert message.startswith("config.data.mode is 'streaming', where rows of ")
  for field in ('data.name', 'objective.pairing', 'objective.mask_known'):
    assert f'config.{field} ' in message
  assert message.endswith("Or set config.data.mode to 'resident'.")
  assert '\n' not in message
