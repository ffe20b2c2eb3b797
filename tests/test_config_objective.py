# SPDX-License-Identifier: Apache-2.0
"""Settings of the losses on labelled rows: what they need of each other."""

import pytest

from dropoutnet_jax import config
from dropoutnet_jax import errors


def _raises(function) -> str:
  with pytest.raises(errors.UserError) as caught:
    function()
  return str(caught.value)


def test_losses_on_labels_need_rows_with_labels():
  cfg = config.Config()
  cfg.objective.pairing = 'interactions'
  cfg.objective.teacher = 0.0
  message = _raises(cfg.validate)
  assert message.endswith('positive, or the weight of another term must be.')
  cfg.objective.softmax = 1.0
  cfg.validate()
  assert cfg.objective.terms() == ('softmax',)
  cfg.train.batch_size = 32
  message = _raises(cfg.validate)
  assert 'config.objective.num_negatives is 32' in message
  assert 'below config.train.batch_size, 32' in message


@pytest.mark.parametrize(
    'options, message',
    [
        (
            {'softmax': 1.0, 'num_negatives': 0},
            'config.objective.num_negatives is 0; it must be positive, or '
            'num_sampled or num_impressions must be: objective.softmax compares'
            ' with them.',
        ),
        (
            {'softmax': 1.0, 'num_negatives': 4, 'num_hard': 6},
            'config.objective.num_hard is 6; it must be at most 4, which is '
            'num_negatives + num_sampled + num_impressions.',
        ),
        (
            {'in_batch_softmax': 1.0, 'num_hard': 2},
            'config.objective.num_hard is 2; it must be 0 where no term uses ',
        ),
        (
            {'softmax': 1.0, 'group_rows': 7},
            'config.objective.group_rows is 7; it must be a divisor of '
            'config.train.batch_size, 64.',
        ),
        (
            {'softmax': 1.0, 'temperature': 20.0},
            'config.objective.temperature is 20.0; it must be above 0.001 and '
            'below 10: the learnt scale starts at its inverse, within ',
        ),
        (
            {
                'pairwise': 1.0,
                'pairwise_margin': 0.5,
                'pairwise_label_margin': True,
            },
            'config.objective.pairwise_margin is 0.5; it must be 0 where '
            'objective.pairwise_label_margin is on',
        ),
        (
            {'pairwise': 1.0, 'pairwise_within': 'users'},
            "one of batch, user, session. Did you mean 'user'?",
        ),
        (
            {'softmax': 1.0, 'sampling': 'epoch'},
            "one of replacement, epochs. Did you mean 'epochs'?",
        ),
        (
            {'softmax': 1.0, 'shifts': 'repeated'},
            "config.objective.shifts is 'repeated'; it must be one of",
        ),
    ],
    ids=str,
)
def test_settings_of_labelled_rows(options, message):
  cfg = config.Config()
  cfg.model.normalize, cfg.train.batch_size = True, 64
  cfg.objective = config.ObjectiveConfig(
      teacher=0.0, pairing='interactions', **options
  )
  assert message in _raises(cfg.validate)


def test_a_scale_that_is_not_learnt_may_be_any():
  cfg = config.Config()
  cfg.objective = config.ObjectiveConfig(
      teacher=0.0, pairing='interactions', softmax=1.0, temperature=20.0
  )
  cfg.validate()
  assert not cfg.learns_scale
  cfg.model.normalize, cfg.objective.temperature = True, 0.1
  cfg.validate()
  assert cfg.learns_scale
  cfg.objective.learn_scale, cfg.objective.temperature = False, 20.0
  cfg.validate()
  assert not cfg.learns_scale


@pytest.mark.parametrize('term', ['pairwise', 'in_batch_softmax'])
def test_rows_are_compared_with_others(term):
  cfg = config.Config()
  cfg.objective = config.ObjectiveConfig(
      teacher=0.0, pairing='interactions', **{term: 1.0}
  )
  cfg.train.batch_size = 1
  message = _raises(cfg.validate)
  assert message == (
      'config.train.batch_size is 1; it must be at least 2: '
      f'objective.{term} compares its rows.'
  )
  cfg.objective.num_sampled, cfg.objective.in_batch_softmax = 4, 1.0
  if term == 'in_batch_softmax':
    cfg.validate()
