# SPDX-License-Identifier: Apache-2.0
"""Settings of preference and of learnt embeddings that contradict others."""

import pytest

from dropoutnet_jax import config
from dropoutnet_jax import errors

Feature = config.Feature
GENRE = Feature('genre', 'category')
LEARNT = Feature('genre', 'category', embedding=4)
SEEN = Feature('seen', 'numeric', 'preference')


def make(item=(GENRE,), preference='none', **sections):
  """An experiment on features of items alone."""
  cfg = config.Config()
  cfg.features = config.FeaturesConfig(item=list(item), preference=preference)
  for section, fields in sections.items():
    for name, value in fields.items():
      setattr(getattr(cfg, section), name, value)
  return cfg


@pytest.mark.parametrize(
    'cfg, message',
    [
        (
            make(preference='nothing'),
            "config.features.preference is 'nothing'; it must be one of "
            'factors, history, none.',
        ),
        (
            make(item=()),
            "config.features.preference is 'none'; it must be 'factors' or "
            "'history' where no side has a feature to learn from.",
        ),
        (
            make(item=(LEARNT, SEEN), preference='history'),
            "config.features.preference is 'history'; it must be 'factors' or "
            "'none' where no feature of group 'content' is without an "
            'embedding: a history is the mean of dense columns.',
        ),
        (
            make(dropout={'user_transform_rate': 0.1}),
            'config.dropout.user_transform_rate is 0.1; it must be 0 where '
            "features.preference is 'none': there is no history.",
        ),
        (
            make(
                dropout={'kind': 'exclusive', 'item_transform': 0.2},
                objective={'pairing': 'published'},
            ),
            'config.dropout.item_transform is 0.2; it must be 0 where',
        ),
        (
            make(model={'residual_preference': True}),
            'config.model.residual_preference is True; it must be False where '
            "features.preference is 'none': it is of histories.",
        ),
        (
            make(objective={'embedding_regularization': 0.1}),
            'config.objective.embedding_regularization is 0.1; it must be 0 '
            'where no feature has an embedding.',
        ),
        (
            make((LEARNT,), objective={'embedding_regularization': -1.0}),
            'embedding_regularization is -1.0; it must be at least 0.',
        ),
        (
            make((LEARNT,), objective={'embedding_regularization_by': 'id'}),
            "embedding_regularization_by is 'id'; it must be one of row, "
            'batch.',
        ),
    ],
)
def test_what_contradicts(cfg, message):
  with pytest.raises(errors.UserError) as caught:
    cfg.validate()
  assert message in str(caught.value)


@pytest.mark.parametrize(
    'cfg',
    [
        make(),
        make(item=(SEEN,)),
        make(item=(LEARNT,), objective={'embedding_regularization': 0.1}),
        make(item=(LEARNT,), preference='factors'),
        make(
            item=(LEARNT, GENRE),
            preference='history',
            objective={
                'teacher': 0.0,
                'softmax': 1.0,
                'pairing': 'interactions',
            },
        ),
        # Rates of the other kind of dropout are not used.
        make(dropout={'user_transform': 0.1}),
    ],
)
def test_what_does_not(cfg):
  cfg.validate()


def test_features_alone_need_no_teacher_unless_something_else_does():
  labels = {'teacher': 0.0, 'softmax': 1.0, 'pairing': 'interactions'}
  alone = make(objective=labels, evaluation={'baselines': ()})
  assert not alone.needs_teacher and not alone.dropout.uses_history
  assert make(evaluation={'baselines': ()}).needs_teacher  # as targets
  compared = make(objective=labels, evaluation={'baselines': ('teacher',)})
  assert compared.needs_teacher
