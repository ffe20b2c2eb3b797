# SPDX-License-Identifier: Apache-2.0
"""Masks against sets, the hardest negatives against a sort."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax.data import histories
from dropoutnet_jax.data import schema
from dropoutnet_jax.model import negatives


def test_scores_of_shared_and_of_own_items_are_the_products():
  user = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
  item = jnp.array([[1.0, 0.0], [0.0, 1.0]])
  np.testing.assert_array_equal(negatives.mixed_scores(user, item), user)
  own = jnp.stack([item, 2 * item, -item])
  got = negatives.own_scores(user, own)
  np.testing.assert_array_equal(got, [[1, 2], [6, 8], [-5, -6]])
  assert got.dtype == jnp.float32


@pytest.mark.parametrize('seed', range(4))
def test_masks_are_those_of_sets(seed):
  rng = np.random.default_rng(seed)
  size, num_items, num_users = 9, 12, 5
  liked = rng.random((num_users, num_items)) < rng.choice([0.0, 0.3, 1.0])
  user, item = (x.astype(np.int32) for x in np.nonzero(liked))
  history = histories.make_history(
      schema.Interactions(user, item), num_users, num_items, 'user'
  ).padded()
  row_user = rng.integers(0, num_users, size)
  item_id = rng.integers(0, num_items, size).astype(np.int32)
  row_mask = rng.random(size) < 0.7
  shifts = np.array([1, 4, 8, 2], np.int32)
  sample = rng.integers(0, num_items, 6).astype(np.int32)
  sets = [set(np.flatnonzero(row)) for row in liked]

  def counts(b, candidate, use_history, use_mask):
    is_known = use_history and candidate in sets[row_user[b]]
    is_padding = use_mask and not row_mask[b]
    return candidate != item_id[b] and not is_known and not is_padding

  for use_history, use_mask in itertools.product((False, True), repeat=2):
    options = {
        'user_history': history[row_user] if use_history else None,
        'row_mask': row_mask if use_mask else None,
    }
    got = negatives.valid_negatives(item_id, shifts, **options)
    assert got.dtype == bool
    for b, (m, shift) in itertools.product(range(size), enumerate(shifts)):
      other = (b - shift) % size
      expected = counts(b, item_id[other], use_history, use_mask)
      expected &= not use_mask or row_mask[other]
      assert got[b, m] == expected
    got = negatives.valid_candidates(sample, item_id, **options)
    for b, (s, candidate) in itertools.product(range(size), enumerate(sample)):
      assert got[b, s] == counts(b, candidate, use_history, use_mask)
    each = negatives.valid_candidates(
        np.tile(sample, (size, 1)), item_id, **options
    )
    np.testing.assert_array_equal(got, each)


def test_the_same_item_counts_where_it_is_asked_for():
  item, shifts = jnp.array([5, 5, 7]), jnp.array([1, 2])
  for mask_same, expected in ((True, 0), (False, 1)):
    got = negatives.valid_negatives(item, shifts, mask_same=mask_same)
    # Row 0 gets items 7 and 5, row 1 items 5 and 7.
    np.testing.assert_array_equal(got, [[1, expected], [expected, 1], [1, 1]])
  liked = jnp.array([[5], [-1], [-1]])
  got = negatives.valid_negatives(item, shifts, liked, mask_same=False)
  np.testing.assert_array_equal(got, [[1, 0], [1, 1], [1, 1]])


def test_histories_of_no_length_hold_nothing():
  got = negatives.not_in_history(
      jnp.array([[0, 1]]), jnp.zeros((1, 0), jnp.int32)
  )
  np.testing.assert_array_equal(got, [[True, True]])


def test_bits_say_what_lists_say():
  rng = np.random.default_rng(5)
  size, num_items = 6, 70  # words of 32, the last one not full
  likes = rng.random((size, num_items)) < 0.3
  user, item = (x.astype(np.int32) for x in np.nonzero(likes))
  pairs = schema.Interactions(user, item)
  history = histories.make_history(pairs, size, num_items, 'user')
  candidate = jnp.arange(num_items, dtype=jnp.int32)[None].repeat(size, 0)
  for form in (history.padded(), history.bits(num_items)):
    got = negatives.not_in_history(candidate, jnp.asarray(form))
    np.testing.assert_array_equal(got, ~likes)


def test_hardest_by_hand():
  scores = jnp.array([[4.0, 9.0, 2.0, 7.0], [1.0, 2.0, 3.0, 4.0]])
  mask = jnp.array([[True, False, True, True], [False, True, False, False]])
  (got, chosen), vjp = jax.vjp(lambda x: negatives.hardest(x, mask, 2), scores)
  np.testing.assert_array_equal(got, [[7, 4], [2, 0]])
  np.testing.assert_array_equal(chosen, [[True, True], [True, False]])
  no_gradient = np.zeros(chosen.shape, jax.dtypes.float0)
  (gradient,) = vjp((jnp.array([[1.0, 10.0], [2.0, 20.0]]), no_gradient))
  np.testing.assert_array_equal(gradient, [[10, 0, 0, 1], [0, 2, 0, 0]])


def test_hardest_is_a_sort():
  rng = np.random.default_rng(4)
  scores, mask = rng.normal(size=(7, 11)), rng.random((7, 11)) < 0.5
  got, chosen = negatives.hardest(jnp.float32(scores), jnp.array(mask), 5)
  for b in range(7):
    valid = sorted(scores[b][mask[b]], reverse=True)[:5]
    assert chosen[b].tolist() == [m < len(valid) for m in range(5)]
    np.testing.assert_allclose(got[b], valid + [0.0] * (5 - len(valid)))


@pytest.mark.parametrize('k', [0, 4])
def test_wrong_input_to_hardest(k):
  with pytest.raises(ValueError, match=rf'k must be in \[1, 3\]: {k}'):
    negatives.hardest(jnp.ones((2, 3)), jnp.ones((2, 3), bool), k)
  with pytest.raises(ValueError, match=r'Shapes differ: \(2, 3\) and \(3,\)'):
    negatives.hardest(jnp.ones((2, 3)), jnp.ones(3, bool), 1)
