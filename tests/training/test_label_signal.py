# SPDX-License-Identifier: Apache-2.0
"""What labelled rows cannot teach is refused before the first step."""

import dataclasses

import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import sides
from dropoutnet_jax.training import label_signal
from dropoutnet_jax.training import prepare
from tests import tiny_run

NUM_USERS = 4


def _check(label, likes=None, **given):
  """Checks rows of users 0, 0, 1, 1, 2 with items 0, 1, 0, 2, 1.

  Args:
    label: of the five, or None.
    likes: their numbers; those of label above 0 if None.
    given: further columns, and settings of the objective.
  """
  columns = {
      name: np.asarray(given.pop(name))
      for name in ('item', 'weight', 'session')
      if name in given
  }
  user = np.int32([0, 0, 1, 1, 2])
  columns = {'item': np.array([0, 1, 0, 2, 1])} | columns
  if label is not None:
    columns['label'] = np.float32(label)
  rows = schema.Interactions(user, **columns)
  if likes is None:
    likes = range(5) if label is None else np.flatnonzero(label)
  cfg = config.Config(
      objective=config.ObjectiveConfig(
          **({'teacher': 0.0, 'pairing': 'interactions'} | given)
      )
  )
  cfg.validate()
  pairs = schema.Interactions(user, columns['item']).select(
      np.asarray(likes, int)
  )
  label_signal.check(cfg, rows, pairs, NUM_USERS)


SHOWN = {'softmax': 1.0, 'num_negatives': 0, 'num_impressions': 3}
GOOD = {
    'all of the same session': (
        (1, 0, 1, 0, 0),
        {'pairwise': 1.0, 'pairwise_within': 'session', 'session': [1] * 5},
    ),
    'pairs of one user': (
        (1, 0, 1, 1, 0),
        {'pairwise': 1.0, 'pairwise_within': 'user'},
    ),
    'only likes of several sizes': ((1, 2, 3, 1, 1), {'pairwise': 1.0}),
    'probabilities': ((0.5, 1, 0.2, 0, 0), {'pointwise': 1.0}),
    'shown in vain': ((1, 0, 0, 0, 0), SHOWN),
    'another item': (None, {'softmax': 1.0}),
    'one item in many rows': (
        None,
        {
            'softmax': 1.0,
            'item': [0] * 5,
            'mask_same_item': False,
            'mask_known': False,
        },
    ),
    'known items, not masked': (
        None,
        {'softmax': 1.0, 'item': [0, 1, 0, 1, 1], 'mask_known': False},
    ),
    'weights of some rows': (
        (1, 0, 1, 0, 1),
        {'pointwise': 1.0, 'weight': [0, 0, 2, 1, 0]},
    ),
}


@pytest.mark.parametrize('name', GOOD)
def test_a_signal_is_found(name):
  label, given = GOOD[name]
  _check(label, **given)


BAD = {
    'no row without a reaction': (
        (1, 1, 1, 1, 1),
        {'pairwise': 0.5},
        'config.objective.pairwise is 0.5, but every training row of synthetic '
        'is a reaction',
    ),
    'likes of several sizes as probabilities': (
        (1, 0.5, 1, 0.2, 1),
        {'pointwise': 1.0},
        'config.objective.pointwise is 1.0, but every training row',
    ),
    'ratings as probabilities': (
        (5, 0, 1, 0, 2),
        {'pointwise': 1.0},
        'config.objective.pointwise is 1.0, but labels of synthetic go up to 5:'
        ' a probability is learnt from labels from 0 to 1. Set it to 0 and use '
        'objective.pairwise',
    ),
    'weights of 0 alone': (
        (1, 0, 1, 0, 1),
        {'pointwise': 1.0, 'weight': [0.0] * 5},
        'Every training row of synthetic has weight 0: no term of '
        'config.objective, the teacher among them, has anything to learn from.',
    ),
    'weights of 0 for the teacher': (
        (1, 0, 1, 0, 1),
        {'teacher': 1.0, 'weight': [0.0] * 5},
        'Every training row of synthetic has weight 0',
    ),
    'weights of 0 for all without a reaction': (
        (1, 0, 1, 0, 1),
        {'pointwise': 1.0, 'weight': [1, 0, 1, 0, 1]},
        'config.objective.pointwise is 1.0, but every training row of',
    ),
    'no sessions': (
        (1, 0, 1, 0, 1),
        {'pairwise': 1.0, 'pairwise_within': 'session'},
        "config.objective.pairwise_within is 'session', but the rows of "
        'synthetic have no sessions. Name their column in config.data.tables.'
        "session_id, or use 'user'.",
    ),
    'one label for each user': (
        (1, 1, 0, 0, 1),
        {'pairwise': 1.0, 'pairwise_within': 'user'},
        "config.objective.pairwise_within is 'user', but no user of synthetic "
        'has training rows of different labels',
    ),
    'one row for each session': (
        (1, 0, 1, 0, 1),
        {
            'pairwise': 1.0,
            'pairwise_within': 'session',
            'session': [0, 1, 0, 1, 0],
        },
        "config.objective.pairwise_within is 'session', but no session of",
    ),
    'nothing shown in vain': (
        None,
        SHOWN,
        'config.objective.num_impressions is 3, but no user of synthetic with '
        'a reaction has a training row of label 0 (shown, no reaction) of an '
        'item that she does not like.',
    ),
    'shown in vain to those who like nothing': ((1, 1, 1, 1, 0), SHOWN, 'is 3'),
    'shown in vain and liked later': (
        (1, 0, 1, 1, 0),
        SHOWN | {'likes': [0, 1, 2, 3]},
        'num_impressions is 3, but no user of synthetic with a reaction',
    ),
    'one item': (
        None,
        {'softmax': 2.0, 'item': [0] * 5},
        'config.objective.softmax is 2.0, but there is nothing to compare a '
        'reaction with: the training rows of synthetic have 1 item(s), which '
        'is that of every reaction. Train on more items.',
    ),
    'one item in the batch': (
        None,
        {'in_batch_softmax': 1.0, 'item': [0] * 5, 'num_sampled': 4},
        'config.objective.in_batch_softmax is 1.0, but there is nothing to',
    ),
    'everybody likes everything': (
        (1, 1, 1, 1, 0),
        {'softmax': 1.0, 'item': [0, 1, 0, 1, 1]},
        'have 2 item(s), and every user with a reaction likes all of them. '
        'Train on more items, or set config.objective.mask_known to False.',
    ),
}


@pytest.mark.parametrize('name', BAD)
def test_what_has_no_signal_is_refused(name):
  label, given, message = BAD[name]
  with pytest.raises(errors.UserError) as caught:
    _check(label, **given)
  assert message in str(caught.value)
  assert 'config.' in str(caught.value) and str(caught.value).endswith('.')


def test_other_pairings_have_no_labels():
  cfg = config.Config()
  none = schema.Interactions(np.zeros(0, np.int32), np.zeros(0, np.int32))
  label_signal.check(cfg, none, none, 0)


@pytest.mark.parametrize(
    'options',
    [
        {'softmax': 1.0, 'num_impressions': 2},
        {'softmax': 1.0, 'group_rows': 2, 'pairwise_within': 'session'},
    ],
    ids=str,
)
def test_likes_alone_are_refused_before_anything_is_fitted(
    options, monkeypatch
):
  monkeypatch.setattr(sides, 'fit', lambda *_: pytest.fail('too late'))
  cfg = tiny_run.get_config()
  cfg.objective = dataclasses.replace(
      config.ObjectiveConfig(teacher=0.0, pairing='interactions'), **options
  )
  cfg.validate()
  with pytest.raises(errors.UserError, match='of synthetic'):
    prepare.prepare(cfg, None, None)
