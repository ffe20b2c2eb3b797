# SPDX-License-Identifier: Apache-2.0
"""Rolled negatives against jnp.roll and loops in float64."""

import collections
import itertools
import math

import jax
from jax.extend import core
import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import parallel
from dropoutnet_jax.model import rolled

pytestmark = pytest.mark.usefixtures('quick_compilation')
METHODS = ('gather', 'matrix')


def slow_scores(user, item, shifts):
  size = len(user)
  score = np.zeros((size, len(shifts)))
  for b, (m, shift) in itertools.product(range(size), enumerate(shifts)):
    score[b, m] = math.fsum(user[b] * item[(b - shift) % size])
  return score


def slow_gradients(user, item, shifts, cotangent):
  user_grad, item_grad = np.zeros(user.shape), np.zeros(item.shape)
  size = len(user)
  for b, (m, shift) in itertools.product(range(size), enumerate(shifts)):
    user_grad[b] += cotangent[b, m] * item[(b - shift) % size]
    item_grad[(b - shift) % size] += cotangent[b, m] * user[b]
  return user_grad, item_grad


def exact_and_bounds(user, item, shifts, cotangent):
  """Score and gradients in float64, and how far float32 may be from each.

  A sum of n products in float32, in any order and with rounded factors, is
  within (n + 2) 2**-24 of the sum of their sizes, to first order: a result near
  0 may be off by many times itself, so that no share of it would do.
  """
  exact = (
      slow_scores(user, item, shifts),
      *slow_gradients(user, item, shifts, cotangent),
  )
  user, item, cotangent = map(np.abs, (user, item, cotangent))
  sizes = (
      slow_scores(user, item, shifts),
      *slow_gradients(user, item, shifts, cotangent),
  )
  # Some more for the rounding of the cotangent, and for the second order.
  unit = (max(user.shape[1], len(shifts)) + 4) * 2.0**-24
  return exact, [unit * size for size in sizes]


def assert_exact(got, user, item, shifts, cotangent):
  """Score and gradients are right to what float32 can say."""
  exact, bounds = exact_and_bounds(user, item, shifts, cotangent)
  for one, two, bound in zip(got, exact, bounds, strict=True):
    assert one.shape == two.shape and one.dtype == jnp.float32
    assert (np.abs(np.asarray(one, np.float64) - two) <= bound).all()


def value_and_gradients(user, item, shifts, cotangent, method='auto'):
  """Score [B, M] and gradients [B, D], compiled anew in each call."""

  @jax.jit
  def run(user, item, shifts, cotangent):
    score = lambda u, i: rolled.rolled_scores(u, i, shifts, method=method)
    value, vjp = jax.vjp(score, user, item)
    return value, *vjp(cotangent)

  return run(user, item, shifts, cotangent)


def problem(size, width, num_shifts, seed=0):
  """User, item, cotangent float64 and distinct shifts."""
  rng = np.random.default_rng(seed)
  user, item = rng.normal(size=(2, size, width))
  shifts = rng.permutation(size - 1)[:num_shifts].astype(np.int32) + 1
  return user, item, shifts, rng.normal(size=(size, num_shifts))


def as_float32(user, item, shifts, cotangent):
  return *map(jnp.float32, (user, item)), shifts, jnp.float32(cotangent)


@pytest.mark.parametrize('method', ['gather', 'matrix'])
@pytest.mark.parametrize('length', [1, 3, 4])
def test_parts_of_the_rows_are_those_of_all(length, method):
  """As devices have them; the parts of the items' gradient are added."""
  user, item, shifts, cotangent = as_float32(*problem(12, 3, 7))
  shifts = np.append(shifts, shifts[0])  # a shift may occur twice
  cotangent = jnp.concatenate([cotangent, cotangent[:, :1]], axis=1)
  expected = value_and_gradients(user, item, shifts, cotangent, method)

  @jax.jit
  def part(user, cotangent, first_row):
    score = lambda u, i: rolled.rolled_scores(
        u, i, jnp.asarray(shifts), first_row, method=method
    )
    value, vjp = jax.vjp(score, user, item)
    return value, *vjp(cotangent)

  parts = [
      part(user[n : n + length], cotangent[n : n + length], jnp.int32(n))
      for n in range(0, 12, length)
  ]
  value, user_grad, item_grad = zip(*parts)
  found = (np.concatenate(value), np.concatenate(user_grad), sum(item_grad))
  for one, two in zip(found, expected, strict=True):
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)
  row = jnp.arange(4, 9)
  whole = rolled.roll(item[:, 0], jnp.asarray(shifts))
  part_of = rolled.roll(item[:, 0], jnp.asarray(shifts), row)
  np.testing.assert_array_equal(part_of, whole[4:9])


@pytest.mark.parametrize('size, num', [(1, 0), (2, 1), (9, 4), (9, 8)])
def test_shifts_are_distinct_and_never_the_own_row(size, num):
  for seed in range(3):
    shifts = rolled.roll_shifts(jax.random.key(seed), size, num)
    assert shifts.dtype == jnp.int32 and shifts.shape == (num,)
    assert len(set(shifts.tolist())) == num
    assert all(1 <= shift < size for shift in shifts.tolist())


def test_all_ordered_choices_of_shifts_are_equally_likely():
  keys = jax.random.split(jax.random.key(3), 6000)
  draw = jax.vmap(lambda key: rolled.roll_shifts(key, 5, 2))
  found = collections.Counter(map(tuple, draw(keys).tolist()))
  assert set(found) == set(itertools.permutations(range(1, 5), 2))
  expected, deviation = 6000 / 12, math.sqrt(6000 * (1 / 12) * (11 / 12))
  for count in found.values():
    assert abs(count - expected) < 4 * deviation


def test_shifts_with_replacement_are_the_published_ones():
  draw = jax.vmap(lambda key: rolled.roll_shifts(key, 4, 3, True))
  found = draw(jax.random.split(jax.random.key(0), 4000))
  count = np.bincount(np.ravel(found), minlength=4)
  deviation = math.sqrt(12_000 * (1 / 3) * (2 / 3))
  assert count[0] == 0 and (np.abs(count[1:] - 4000) < 4 * deviation).all()
  repeats = [len(set(row)) < 3 for row in found.tolist()]
  assert np.mean(repeats) == pytest.approx(1 - 6 / 27, abs=0.03)


@pytest.mark.parametrize('batch_size, num', [(1, 1), (4, 4), (4, 9), (4, -1)])
def test_a_batch_has_too_few_rows(batch_size, num):
  message = rf'in \[0, {batch_size - 1}\]: {num}$'
  with pytest.raises(ValueError, match=message):
    rolled.roll_shifts(jax.random.key(0), batch_size, num)


def test_rolled_is_roll():
  values = jnp.arange(7) * 10
  shifts = jnp.array([0, 1, 6, 3, 7, -2])
  got = rolled.roll(values, shifts)
  for column, shift in enumerate(shifts.tolist()):
    np.testing.assert_array_equal(got[:, column], jnp.roll(values, shift))


def test_rolled_scores_by_hand():
  user = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
  item = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
  for method in METHODS:
    got = rolled.rolled_scores(user, item, jnp.array([1, 2]), method=method)
    # Row 0 gets items 2 and 1, row 1 items 0 and 2, row 2 items 1 and 0.
    np.testing.assert_array_equal(got, [[5, 3], [2, 6], [7, 3]])


@pytest.mark.parametrize('chunk', [1, 48, 2**20])
@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize(
    'size, width, num_shifts',
    [(1, 3, 0), (2, 1, 1), (12, 5, 1), (13, 4, 12)],
)
def test_value_and_gradient_are_those_of_loops(
    size, width, num_shifts, method, chunk, monkeypatch
):
  monkeypatch.setattr(rolled, '_CHUNK', chunk)
  inputs = problem(size, width, num_shifts)
  assert_exact(value_and_gradients(*as_float32(*inputs), method), *inputs)


@pytest.mark.parametrize('num_shifts', [1, 3, 4, 31, 32])
def test_equal_to_roll_on_both_sides_of_every_crossover(num_shifts):
  """256 rows: gathered below 4 shifts, by platform below 32, then products."""
  exact = problem(256, 8, num_shifts)
  inputs = as_float32(*exact)
  user, item, shifts, cotangent = inputs

  @jax.jit
  def by_roll(user, item):
    score = lambda shift: jnp.sum(user * jnp.roll(item, shift, 0), -1)
    return jax.vmap(score, out_axes=1)(shifts)

  value, vjp = jax.vjp(by_roll, user, item)
  assert_exact((value, *vjp(cotangent)), *exact)
  for method in ('auto', *METHODS):
    assert_exact(value_and_gradients(*inputs, method), *exact)


@pytest.mark.parametrize('method', METHODS)
def test_repeated_zero_and_negative_shifts(method):
  """The published golden value of the softmax has shifts 3 and 3."""
  user, item, _, cotangent = problem(6, 3, 5)
  shifts = np.array([3, 3, 0, -1, 11], np.int32)
  got = value_and_gradients(*as_float32(user, item, shifts, cotangent), method)
  # -1 and 11 are 5 in a batch of 6.
  assert_exact(got, user, item, [3, 3, 0, 5, 5], cotangent)


@pytest.mark.parametrize('method', METHODS)
def test_gradients_match_finite_differences(method):
  user, item, shifts, _ = as_float32(*problem(6, 3, 4))
  check_grads(
      jax.jit(lambda u, i: rolled.rolled_scores(u, i, shifts, method=method)),
      (user, item),
      order=1,
      modes=['rev'],
      eps=0.5,  # scores are bilinear: a step of any length is exact
      rtol=1e-4,
  )


@pytest.mark.parametrize('method', METHODS)
def test_finite_for_large_scores(method):
  user, item, shifts, cotangent = as_float32(*problem(8, 4, 3))
  got = value_and_gradients(user * 1e4, item * 1e4, shifts, cotangent, method)
  assert all(np.isfinite(x).all() for x in got)


@pytest.mark.parametrize('method', METHODS)
def test_half_precision_embeddings_have_float32_scores(method):
  user, item, shifts, cotangent = as_float32(*problem(8, 16, 3))
  half = [x.astype(jnp.bfloat16) for x in (user, item)]
  score, *gradients = value_and_gradients(*half, shifts, cotangent, method)
  assert score.dtype == jnp.float32
  assert [x.dtype for x in gradients] == [jnp.bfloat16] * 2
  half = [np.asarray(x, np.float64) for x in half]
  exact, bounds = exact_and_bounds(*half, shifts, np.asarray(cotangent))
  assert (np.abs(np.asarray(score, np.float64) - exact[0]) <= bounds[0]).all()


def largest_array(jaxpr):
  """Numbers in the largest array that a program makes, loops included."""
  found = 0
  for equation in jaxpr.eqns:
    sizes = [math.prod(out.aval.shape) for out in equation.outvars]
    inner = core.jaxprs_in_params(equation.params)
    found = max(found, *sizes, *(largest_array(part) for part in inner), 0)
  return found


@pytest.mark.parametrize('method', METHODS)
def test_no_array_of_all_pairs_or_all_negatives_exists(method, monkeypatch):
  size, width, num_shifts = 512, 32, 64
  monkeypatch.setattr(rolled, '_CHUNK', 2**13)
  inputs = as_float32(*problem(size, width, num_shifts))
  traced = jax.make_jaxpr(value_and_gradients, static_argnums=4)
  largest = largest_array(traced(*inputs, method).jaxpr)
  # The scores themselves, against 2**18 pairs and 2**20 gathered numbers.
  assert size * num_shifts <= largest < 2 * size * num_shifts


@pytest.mark.parametrize('method', METHODS)
def test_eight_devices_are_as_exact_as_one(method, monkeypatch):
  monkeypatch.setattr(rolled, '_CHUNK', 2**9)
  exact = problem(64, 8, 16)
  user, item, shifts, cotangent = as_float32(*exact)
  rows = parallel.by_row(parallel.make_mesh(config.MeshConfig()))
  user, item, cotangent = (
      jax.device_put(x, rows) for x in (user, item, cotangent)
  )
  got = value_and_gradients(user, item, shifts, cotangent, method)
  assert_exact(got, *exact)


@pytest.mark.parametrize(
    'user, item, shifts, method, message',
    [
        ((4, 2), (3, 2), (1,), 'auto', r'Shapes differ: \(4, 2\), \(3, 2\)'),
        ((3,), (3,), (1,), 'auto', r'Shapes differ: \(3,\), \(3,\)'),
        ((3, 2), (3, 2), (), 'auto', r'shifts \(\) must be \[M\]'),
        ((3, 2), (3, 2), (1,), 'roll', "method is 'roll'; .*'auto', 'gather'"),
    ],
)
def test_wrong_input_to_rolled_scores(user, item, shifts, method, message):
  with pytest.raises(ValueError, match=message):
    rolled.rolled_scores(
        jnp.ones(user), jnp.ones(item), jnp.ones(shifts, int), method=method
    )
