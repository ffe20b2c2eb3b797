# SPDX-License-Identifier: Apache-2.0
"""Permutations by place: each place once, and all orders alike."""

import collections
import math

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax.data import shuffle

pytestmark = pytest.mark.usefixtures('quick_compilation')
WIDTH = 64
_permuted = jax.jit(shuffle.permuted)


def _words(number, seed=0):
  return jax.random.bits(jax.random.key(seed), (number,), jnp.uint32)


@hypothesis.given(st.integers(1, WIDTH), st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=50)
def test_every_place_is_reached_once(size, word):
  place = np.arange(WIDTH) % size
  found = _permuted(place, np.int32(size), np.uint32(word))
  assert found.dtype == jnp.int32
  assert sorted(found[:size].tolist()) == list(range(size))
  # The rest are the same places again.
  np.testing.assert_array_equal(found, np.asarray(found)[place])


@pytest.mark.parametrize('size', [2**20 + 1, 2**31 - 1])
def test_large_sizes(size):
  """Ends and middle of what int32 holds; the sum of two would overflow it."""
  place = np.concatenate([np.arange(1000), size - 1 - np.arange(1000)])
  found = np.asarray(_permuted(place.astype(np.int32), np.int32(size), 7))
  assert len(set(found.tolist())) == 2000
  assert found.min() >= 0 and found.max() < size
  assert abs(found.mean() / size - 0.5) < 4 * (1 / 12 / 2000) ** 0.5


@pytest.mark.parametrize('size', [2, 3, 4])
def test_all_orders_are_equally_likely(size):
  words = _words(20_000, size)
  orders = jax.jit(
      jax.vmap(lambda word: shuffle.permuted(jnp.arange(size), size, word))
  )(words)
  found = collections.Counter(map(tuple, orders.tolist()))
  share = 1 / math.factorial(size)
  deviation = math.sqrt(20_000 * share * (1 - share))
  assert len(found) == math.factorial(size)
  for count in found.values():
    assert abs(count - 20_000 * share) < 4.5 * deviation


def test_each_element_has_a_size_and_an_order_of_its_own():
  size = np.repeat([[3], [5], [8]], 8, axis=1)
  place = np.arange(8)[None] % size
  word = np.repeat(np.uint32([[1], [2], [3]]), 8, axis=1)
  found = np.asarray(_permuted(place, size, word))
  for row, (count, number) in enumerate(zip((3, 5, 8), (1, 2, 3))):
    alone = _permuted(np.arange(8) % count, np.int32(count), np.uint32(number))
    np.testing.assert_array_equal(found[row], alone)


def test_neighbours_do_not_stay_neighbours():
  """Distances of places that were next to each other are uniform."""
  size, count = 100, 10_000
  place = np.tile(np.int32([10, 11]), (count, 1))
  word = np.repeat(np.asarray(_words(count, 9))[:, None], 2, axis=1)
  found = np.asarray(_permuted(place, np.int32(size), word))
  distance = np.bincount((found[:, 1] - found[:, 0]) % size, minlength=size)
  assert distance[0] == 0
  expected = count / (size - 1)
  assert (np.abs(distance[1:] - expected) < 5 * math.sqrt(expected)).all()
