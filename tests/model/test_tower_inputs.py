# SPDX-License-Identifier: Apache-2.0
"""Preference joined of its parts: which rows have which, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.model import input_dropout
from dropoutnet_jax.model import tower_inputs
from tests import toy_tokens

ROWS = 8
# Which parts a row has: every combination of factors, features, statistics.
OWN, KNOWN, COUNTED = (
    np.array([bool(row & bit) for row in range(ROWS)]) for bit in (1, 2, 4)
)
DROPPED, TRANSFORMED, AS_IS = (
    input_dropout.DROPPED,
    input_dropout.TRANSFORMED,
    input_dropout.AS_IS,
)


def part(seed, width, present):
  """A part of preference that is zero where it is not present."""
  value = np.random.default_rng(seed).normal(size=(ROWS, width))
  value = jnp.asarray(value * present[:, None], jnp.float32)
  return input_dropout.Preference(value, jnp.asarray(present))


def features():
  known = jnp.asarray(KNOWN)
  tokens = toy_tokens.make(ROWS, toy_tokens.USER_PREFERENCE, seed=5)
  tokens = jax.tree.map(lambda x: jnp.asarray(x * KNOWN[:, None]), tokens)
  return tables_lib.PreferenceFeatures(part(6, 2, KNOWN).value, tokens, known)


def side(**changes):
  """A side whose rows are as above; only what towers read is there."""
  own = part(1, 3, OWN)
  fields = {
      'content': jnp.asarray(part(2, 4, np.ones(ROWS, bool)).value),
      'preference': own.value,
      'present': own.present,
      'features': features(),
      'tokens': jax.tree.map(
          jnp.asarray, toy_tokens.make(ROWS, toy_tokens.ITEM)
      ),
  }
  nothing = dict.fromkeys(
      (
          'factors',
          'history_total',
          'history_count',
          'preference_scaler',
          'history_scaler',
      )
  )
  return tables_lib.SideTable(**nothing | fields | changes)


def bits(preference, row):
  """All of what a tower sees of one row, as bytes."""
  leaves = jax.tree.leaves(preference)
  return b''.join(np.asarray(leaf[row]).tobytes() for leaf in leaves)


def join(states, **parts):
  """The rows' preference in states [ROWS], their history in row 3 alone."""
  own, history = part(1, 3, OWN), part(4, 3, np.arange(ROWS) == 3)
  states = jnp.asarray(states)
  return tower_inputs.join_preference(
      input_dropout.apply_states(own, history, states),
      states != DROPPED,
      **parts,
  )


def test_rows_have_their_parts_and_are_present_with_any():
  counts = part(7, 2, COUNTED)
  got = join([AS_IS] * ROWS, features=features(), statistics=counts)
  np.testing.assert_array_equal(got.value, part(1, 3, OWN).value)
  np.testing.assert_array_equal(
      got.columns, np.hstack([features().dense, counts.value])
  )
  jax.tree.map(np.testing.assert_array_equal, got.tokens, features().tokens)
  assert np.any(got.tokens.weight > 0)
  np.testing.assert_array_equal(got.present, OWN | KNOWN | COUNTED)


@pytest.mark.parametrize('with_features', [True, False])
def test_dropout_takes_all_and_leaves_one_cold_row_for_all(with_features):
  parts = {'statistics': part(7, 2, COUNTED)}
  if with_features:
    parts['features'] = features()
  dropped = join([DROPPED] * ROWS, **parts)
  as_is = join([AS_IS] * ROWS, **parts)
  cold = bits(as_is, 0)  # has nothing
  assert {bits(dropped, row) for row in range(ROWS)} == {cold}
  assert not np.any(dropped.present)
  has = OWN | COUNTED | (KNOWN & with_features)
  for row in range(ROWS):
    assert (bits(as_is, row) == cold) == (not has[row])


def test_transforms_replace_factors_and_leave_the_rest():
  parts = {'features': features(), 'statistics': part(7, 2, COUNTED)}
  got = join([TRANSFORMED] * ROWS, **parts)
  as_is = join([AS_IS] * ROWS, **parts)
  history = part(4, 3, np.arange(ROWS) == 3)
  np.testing.assert_array_equal(got.value, history.value)
  for name in ('columns', 'tokens'):
    jax.tree.map(
        np.testing.assert_array_equal,
        getattr(got, name),
        getattr(as_is, name),
    )
  np.testing.assert_array_equal(got.present, history.present | KNOWN | COUNTED)


def test_nothing_is_added_where_nothing_is():
  got = join([AS_IS] * ROWS)
  assert got.columns is None and got.tokens is None
  np.testing.assert_array_equal(got.present, OWN)


def test_rows_of_a_side():
  table, rows = side(), jnp.array([7, 2, 7, 0])
  own = input_dropout.Preference(table.preference[rows], table.present[rows])
  state = jnp.array([AS_IS, AS_IS, DROPPED, AS_IS])
  got = tower_inputs.preference(table, rows, own, own, state)
  np.testing.assert_array_equal(got.present, [True, True, False, False])
  np.testing.assert_array_equal(
      got.columns[:2], table.features.dense[np.array([7, 2])]
  )
  assert bits(got, 2) == bits(got, 3) != bits(got, 0)
  content = tower_inputs.content(table, rows)
  np.testing.assert_array_equal(content.dense, table.content[rows])
  np.testing.assert_array_equal(content.tokens.id, table.tokens.id[rows])
  assert content.tokens.features == toy_tokens.ITEM
  found = tower_inputs.all_tokens(table, rows)
  assert [one.features for one in found] == [
      toy_tokens.ITEM,
      toy_tokens.USER_PREFERENCE,
  ]
  np.testing.assert_array_equal(
      found[1].id, table.features.tokens.id[rows]  # dropped or not
  )


@pytest.mark.parametrize('more', [True, False])
def test_a_blank_row_is_a_cold_row_without_content(more):
  table = side() if more else side(features=None, tokens=None)
  preference, content = tower_inputs.blank_row(table)
  rows = jnp.array([0])  # has no preference
  own = input_dropout.Preference(table.preference[rows], table.present[rows])
  expected = tower_inputs.preference(
      table, rows, own, own, jnp.array([AS_IS])
  ), tower_inputs.content(table, rows)
  found = (preference, content)
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    assert (one.shape, one.dtype) == (other.shape, other.dtype)
  assert bits(preference, 0) == bits(expected[0], 0)
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(content))


@pytest.mark.parametrize(
    'width, tokens, expected',
    [(2, True, True), (0, True, True), (2, False, True), (0, False, False)],
)
def test_a_side_has_content_with_columns_or_tokens(width, tokens, expected):
  changes = {'content': jnp.zeros((ROWS, width))}
  if not tokens:
    changes['tokens'] = None
  assert side(**changes).has_content == expected
