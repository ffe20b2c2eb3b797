# SPDX-License-Identifier: Apache-2.0
"""What labelled rows become on the devices: weights, sessions, lists."""

import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.data import schema
from dropoutnet_jax.training import label_tables
from dropoutnet_jax.training import resident
from tests import tiny_run


def _rows(**columns):
  """Seven rows of users 0, 1 and 3; label 0 in three of them."""
  given = {
      'user': np.int32([3, 0, 0, 1, 0, 3, 0]),
      'item': np.int32([5, 2, 4, 2, 4, 1, 2]),
      'label': np.float32([1, 0, 0, 0, 0, 0, 1]),
      'session': np.int64([8, 8, 1, 8, 8, 9, 1]),
  }
  return schema.Interactions(**(given | columns))


def test_weights_balance_users():
  rows = label_tables.label_rows(
      _rows(weight=np.float32([1, 1, 3, 2, 0, 1, 1])), user_balance=1.0
  )
  # One of the four rows of user 0 has weight 0: it is as good as removed.
  expected = np.array([1 / 2, 1 / 3, 3 / 3, 2, 0, 1 / 2, 1 / 3])
  np.testing.assert_allclose(
      rows.weight, expected * 7 / expected.sum(), rtol=1e-6
  )
  assert rows.session is None and rows.is_real is None
  np.testing.assert_array_equal(
      label_tables.label_rows(_rows(label=None), 0.0).label, np.ones(7)
  )


def test_a_session_is_of_one_user():
  """Users 0, 1 and 3 all have a session 8."""
  found = label_tables.sessions(_rows())
  assert found.dtype == np.int32
  assert found.tolist() == [3, 1, 0, 2, 1, 4, 0]
  with pytest.raises(ValueError, match='The rows have no sessions'):
    label_tables.sessions(_rows(session=None))


def test_what_was_shown_in_vain_is_no_like():
  """User 0 likes item 2, though she once passed it by; item 4 counts once."""
  likes = schema.Interactions(np.int32([0, 3]), np.int32([2, 5]))
  found = label_tables.shown_in_vain(_rows(), likes, 5)
  assert found.count.tolist() == [1, 1, 0, 1, 0]
  assert found.start.tolist() == [0, 1, 2, 2, 3]
  assert found.value.tolist() == [4, 2, 1]
  assert found.value.dtype == found.start.dtype == np.int32
  none = label_tables.shown_in_vain(_rows(label=None), likes, 5)
  assert not none.count.any() and not len(none.value)


def _tables(problem, **objective):
  cfg = tiny_run.get_config()
  cfg.objective = config.ObjectiveConfig(
      teacher=0.0, softmax=1.0, pairing='interactions', **objective
  )
  return resident.make_tables(cfg, problem)


def test_what_is_not_asked_for_is_not_made(labelled):
  tables = _tables(labelled)
  assert tables.groups is tables.shown is tables.popularity is None
  rows = tables.rows
  assert rows.session is rows.is_real is None
  np.testing.assert_array_equal(rows.item, labelled.labelled.train.item)
  assert set(rows.label.tolist()) == {0.0, 1.0}
  for item in set(rows.item.tolist()):
    assert np.exp(tables.log_frequency[item]) == pytest.approx(
        np.mean(rows.item == item), rel=1e-5
    )


@pytest.mark.parametrize('within', ['user', 'session'])
def test_rows_lie_by_group(labelled, within):
  tables = _tables(labelled, group_rows=4, pairwise_within=within)
  rows, groups = tables.rows, tables.groups
  group = getattr(rows, within)
  assert (rows.session is None) == (within == 'user')
  for number, (start, count) in enumerate(zip(groups.start, groups.count)):
    assert (group[start : start + count] == number).all()
  assert groups.count.sum() == len(group)
  train = labelled.labelled.train
  before = sorted(zip(train.user, train.item, train.label))
  assert sorted(zip(rows.user, rows.item, rows.label)) == before


def test_negatives_of_training_items(labelled):
  tables = _tables(
      labelled, num_sampled=5, sampling_power=1.0, num_impressions=3
  )
  items = labelled.split.train_rows()[1]
  np.testing.assert_array_equal(tables.popularity.item, items)
  liked = np.bincount(tables.rows.item[tables.rows.label > 0])
  np.testing.assert_allclose(
      np.exp(tables.popularity.log_probability[items]),
      liked[items] / liked.sum(),
      rtol=1e-5,
  )
  likes = labelled.likes().toarray() > 0
  for user, (start, count) in enumerate(
      zip(tables.shown.start, tables.shown.count)
  ):
    shown = tables.shown.value[start : start + count]
    assert not likes[user, shown].any() and len(set(shown)) == count
