# SPDX-License-Identifier: Apache-2.0
"""Random permutations that say where one place goes without making the rest.

So a step finds its part of an epoch in time that grows with the batch and not
with the data, and each row of a batch can draw from a list of its own without
repeats.
"""

import jax
import jax.numpy as jnp

# A place moves in half of the rounds: it stays where it was with probability
# 2**-24, and so do the distances of two places.
_ROUNDS = 24
_GOLDEN = 0x9E3779B9  # 2**32 over the golden ratio: spreads the rounds' words


def permuted(
    place: jax.Array, size: jax.Array | int, word: jax.Array
) -> jax.Array:
  """Where a permutation of [0, size) takes a place: int32 [...].

  "Swap or not" (Hoang, Morris & Rogaway, CRYPTO 2012): each round pairs place x
  with k - x modulo the size, for a random k, and a random bit of the pair says
  whether its two change places. It works for any size as it is, without the
  cycles in which a Feistel network walks back into a size that is no product.

  Args:
    place: integers [...], each in [0, size).
    size: positive, below 2**31; integers of place's shape, or one for all.
    word: uint32 of place's shape, or [], which chooses the permutation.
  """
  shape = jnp.shape(place)
  size, word = (
      jnp.broadcast_to(jnp.asarray(x, jnp.uint32), shape) for x in (size, word)
  )

  def swap(number: jax.Array, place: jax.Array) -> jax.Array:
    key = _mixed(word + number.astype(jnp.uint32) * jnp.uint32(_GOLDEN))
    pivot = key % size
    partner = pivot - place + jnp.where(place > pivot, size, jnp.uint32(0))
    # The larger of the two stands for the pair.
    bit = _mixed(_mixed(key) ^ jnp.maximum(place, partner)) & 1
    return jnp.where(bit == 1, partner, place)

  first = jnp.asarray(place).astype(jnp.uint32)
  last = jax.lax.fori_loop(0, _ROUNDS, swap, first)
  return last.astype(jnp.int32)


def _mixed(word: jax.Array) -> jax.Array:
  """The finaliser of MurmurHash3: every bit depends on every bit."""
  for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
    word = (word ^ (word >> shift)) * jnp.uint32(factor)
  return word ^ (word >> 16)
