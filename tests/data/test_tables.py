# SPDX-License-Identifier: Apache-2.0
"""Tables against loops over columns, rows and histories."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse

from dropoutnet_jax.data import histories
from dropoutnet_jax.data import scaler as scaler_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import tables

USERS, ITEMS, WIDTH = 7, 9, 3


def make_world(seed=0):
  """Likes among users 0-4 and items 0-6; user 3 likes nothing."""
  rng = np.random.default_rng(seed)
  pairs = [
      (user, item)
      for user in (0, 1, 2, 4)
      for item in range(7)
      if rng.random() < 0.5 or item == user
  ]
  user, item = np.array(pairs, np.int32).T
  train = schema.Interactions(user, item)
  factors = {
      'user': rng.normal(size=(USERS, WIDTH)).astype(np.float32),
      'item': rng.normal(size=(ITEMS, WIDTH)).astype(np.float32) * 3 + 1,
  }
  return pairs, train, factors


def slow_standard(values, fitted_on):
  """Each column standardised by the mean and deviation of some rows."""
  out = np.zeros_like(values, np.float64)
  for column in range(values.shape[1]):
    known = [float(row[column]) for row in fitted_on]
    mean = sum(known) / len(known)
    deviation = (sum((x - mean) ** 2 for x in known) / len(known)) ** 0.5
    for row in range(len(values)):
      scaled = (float(values[row, column]) - mean) / deviation
      out[row, column] = min(max(scaled, -5.0), 5.0)
  return out


def test_standard_scaler_standardises_and_clips():
  rng = np.random.default_rng(0)
  values = rng.normal(size=(50, 4)).astype(np.float32) * [1, 10, 0.1, 3] + 7
  values = values.astype(np.float32)
  scaler = scaler_lib.fit(values, 'standard')
  far = np.concatenate([values, values * 100]).astype(np.float32)
  got = np.asarray(scaler(far))
  np.testing.assert_allclose(got, slow_standard(far, values), atol=2e-4)
  assert got.max() == 5.0
  np.testing.assert_allclose(got[:50].mean(axis=0), 0, atol=1e-4)
  np.testing.assert_allclose(got[:50].std(axis=0), 1, atol=1e-3)


def test_constant_column_becomes_zero_and_not_infinite():
  values = np.full((5, 2), 3.0, np.float32)
  scaler = scaler_lib.fit(values, 'standard')
  np.testing.assert_array_equal(scaler(values), np.zeros((5, 2)))


def test_scaler_of_no_rows_changes_nothing():
  scaler = scaler_lib.fit(np.zeros((0, 2), np.float32), 'standard')
  x = np.array([[0.5, -2.0]], np.float32)
  np.testing.assert_array_equal(scaler(x), x)


def test_row_scaler_gives_norm_one_and_keeps_zero_rows():
  x = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, -2.0]], np.float32)
  scaler = scaler_lib.fit(x, 'row')
  np.testing.assert_allclose(scaler(x), [[0.6, 0.8], [0, 0], [0, -1]])


def test_scaler_none_leaves_the_values():
  x = np.array([[3.0, -40.0]], np.float32)
  np.testing.assert_array_equal(scaler_lib.fit(x, 'none')(x), x)


@pytest.mark.parametrize('side', ['user', 'item'])
@pytest.mark.parametrize('scaling', ['standard', 'row', 'none'])
def test_side_matches_loops(side, scaling):
  pairs, train, factors = make_world()
  other = 'item' if side == 'user' else 'user'
  history = histories.make_history(train, USERS, ITEMS, side)
  own = factors[side]
  present = np.arange(len(own)) < 5
  content = np.arange(len(own) * 2, dtype=np.float64).reshape(-1, 2)
  table = tables.make_side(
      content, own, present, factors[other], history, scaling
  )
  partners = [[] for _ in own]
  for user, item in pairs:
    row, partner = (user, item) if side == 'user' else (item, user)
    partners[row].append(factors[other][partner].astype(np.float64))
  total = np.array([np.sum(p, axis=0) if p else [0.0] * 3 for p in partners])
  np.testing.assert_allclose(table.history_total, total, rtol=1e-5, atol=1e-6)
  assert table.history_count.tolist() == [len(p) for p in partners]
  if scaling == 'standard':
    expected = slow_standard(own, own[present])
  elif scaling == 'row':
    expected = np.array([row / sum(row**2) ** 0.5 for row in own])
  else:
    expected = own
  np.testing.assert_allclose(
      table.preference[present], expected[present], rtol=1e-4, atol=1e-5
  )
  np.testing.assert_array_equal(table.preference[~present], 0)
  np.testing.assert_array_equal(table.present, present)
  np.testing.assert_array_equal(table.factors, own)
  np.testing.assert_array_equal(table.content, content)
  for name in ('content', 'preference', 'factors', 'history_total'):
    assert getattr(table, name).dtype == np.float32
  assert table.history_count.dtype == np.int32
  # Means of histories are scaled by what means of histories look like.
  means = np.array([np.mean(p, axis=0) for p in partners if p], np.float32)
  scaled = np.asarray(table.history_scaler(means))
  if scaling == 'standard':
    np.testing.assert_allclose(scaled, slow_standard(means, means), atol=1e-3)
  elif scaling == 'row':
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), 1, rtol=1e-5)
  else:
    np.testing.assert_array_equal(scaled, means)


def test_tables_know_who_is_trained_on():
  pairs, train, factors = make_world()
  sides = [
      tables.make_side(
          np.zeros((rows, 0)),
          factors[side],
          np.ones(rows, bool),
          factors[other],
          histories.make_history(train, USERS, ITEMS, side),
          'none',
      )
      for side, other, rows in (
          ('user', 'item', USERS),
          ('item', 'user', ITEMS),
      )
  ]
  history = histories.make_history(train, USERS, ITEMS, 'user').padded()
  made = tables.make_tables(
      *sides,
      schema.Split(train, {}),
      np.array([0, 2, 5], np.int64),
      history,
      np.zeros((0, 0), np.int64),
  )
  assert made.train_users.tolist() == [0, 1, 2, 4]
  assert made.target_items.tolist() == [0, 2, 5]
  rows = [[i for i in row if i >= 0] for row in made.user_history.tolist()]
  expected = [[i for u, i in pairs if u == row] for row in range(USERS)]
  assert rows == expected
  for name in ('train_users', 'target_items', 'user_history', 'top_items'):
    assert getattr(made, name).dtype == np.int32
  assert sides[0].content.shape == (USERS, 0)


def test_rows_of_a_table_and_new_ones():
  """What is by row is picked; a row of -1 has nothing; scalers stay."""
  rng = np.random.default_rng(0)
  draw = lambda width: rng.normal(size=(5, width)).astype(np.float32)
  present = np.array([True, False, True, True, True])
  history = histories.History(
      np.array([0, 2, 1], np.int32), np.array([1, 0, 2, 0, 0], np.int32)
  )
  table = tables.make_side(
      draw(2), draw(3), present, draw(3)[:4], history, 'row'
  )
  found = table.select(np.array([3, -1, 0, 3]))
  for name in ('content', 'preference', 'factors', 'history_total'):
    whole, part = getattr(table, name), getattr(found, name)
    assert part.dtype == whole.dtype
    np.testing.assert_array_equal(part[[0, 2, 3]], whole[[3, 0, 3]])
    assert not part[1].any()
  assert found.present.tolist() == [True, False, True, True]
  assert found.history_count.tolist() == [0, 0, 1, 0]
  assert found.preference_scaler is table.preference_scaler
  assert found.history_scaler is table.history_scaler


def test_histories_of_new_rows_are_smoothed():
  """By hand: three rows, of which training had the second."""
  scaler = scaler_lib.Scaler(np.ones(2), np.full(2, 2.0), 'standard')
  other = scaler_lib.Scaler(np.zeros(2), np.ones(2), 'none')
  table = tables.SideTable(*[None] * 6, other, scaler, history_smoothing=2.0)
  met = scipy.sparse.csr_array(
      np.array([[1, 1, 1], [1, 1, 0], [0, 0, 1]], np.float32)
  )
  # The last one has no factors.
  factors = np.array([[2.0, 4.0], [4.0, 0.0], [0.0, 0.0]], np.float32)
  is_new = np.array([True, False, True])
  value, found, trust = table.history_means(met, factors, is_new)
  assert found.tolist() == [True, True, False]
  assert trust.tolist() == [2 / (2 + 2), 1, 1]
  # (2 + 4 + 2 * 1) / 4 and (4 + 0 + 2 * 1) / 4; then less 1, by 2.
  np.testing.assert_allclose(value[0], [(2 - 1) / 2, (1.5 - 1) / 2])
  np.testing.assert_allclose(value[1], [(3 - 1) / 2, (2 - 1) / 2])
  folded = np.array([[6.0, 0.0], [6.0, 0.0], [0.0, 0.0]], np.float32)
  value, found, trust = table.folded_in(folded, met, factors, is_new)
  assert found.tolist() == [True, True, False]
  assert trust.tolist() == [2 / (2 + 2), 1, 1]
  np.testing.assert_allclose(value[:2], [[6 * 2 / 4, 0], [6, 0]], rtol=1e-6)
  # Weights, also those of 0, are the teacher's: each pair counts once.
  for weight in (0, 3):
    weighted = met.copy()
    weighted.data[:] = weight
    again, found, _ = table.folded_in(folded, weighted, factors, is_new)
    assert found.tolist() == [True, True, False]
    np.testing.assert_array_equal(again, value)
    means = table.history_means(weighted, factors, is_new)
    expected = table.history_means(met, factors, is_new)
    np.testing.assert_array_equal(means.preference, expected.preference)
  # Without smoothing, they are what they were told.
  plain = dataclasses.replace(table, history_smoothing=0.0)
  value, found, trust = plain.folded_in(folded, met, factors)
  assert found.tolist() == [True, True, False]
  assert trust.tolist() == [1, 1, 1]
  np.testing.assert_allclose(value, folded, rtol=1e-6)


@pytest.mark.parametrize('kind', ['standard', 'row', 'none'])
def test_the_usual_history_is_the_mean_of_training(kind):
  pairs, train, factors = make_world()
  table = tables.make_side(
      np.zeros((USERS, 0)),
      factors['user'],
      np.ones(USERS, bool),
      factors['item'],
      histories.make_history(train, USERS, ITEMS, 'user'),
      kind,
  )
  means = [
      np.mean([factors['item'][i] for u, i in pairs if u == user], axis=0)
      for user in (0, 1, 2, 4)
  ]
  expected = np.mean(means, axis=0)
  np.testing.assert_allclose(table.history_scaler.mean, expected, rtol=1e-5)
