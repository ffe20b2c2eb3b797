# SPDX-License-Identifier: Apache-2.0
"""Negatives against jnp.roll, loops in float64, sets and exact laws."""

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
from dropoutnet_jax.data import histories
from dropoutnet_jax.data import schema
from dropoutnet_jax.model import negatives

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


def value_and_gradients(user, item, shifts, cotangent, method='auto'):
  """Score [B, M] and gradients [B, D], compiled anew in each call."""

  @jax.jit
  def run(user, item, shifts, cotangent):
    score = lambda u, i: negatives.rolled_scores(u, i, shifts, method=method)
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


@pytest.mark.parametrize('size, num', [(1, 0), (2, 1), (9, 4), (9, 8)])
def test_shifts_are_distinct_and_never_the_own_row(size, num):
  for seed in range(3):
    shifts = negatives.roll_shifts(jax.random.key(seed), size, num)
    assert shifts.dtype == jnp.int32 and shifts.shape == (num,)
    assert len(set(shifts.tolist())) == num
    assert all(1 <= shift < size for shift in shifts.tolist())


def test_all_ordered_choices_of_shifts_are_equally_likely():
  keys = jax.random.split(jax.random.key(3), 6000)
  draw = jax.vmap(lambda key: negatives.roll_shifts(key, 5, 2))
  found = collections.Counter(map(tuple, draw(keys).tolist()))
  assert set(found) == set(itertools.permutations(range(1, 5), 2))
  expected, deviation = 6000 / 12, math.sqrt(6000 * (1 / 12) * (11 / 12))
  for count in found.values():
    assert abs(count - expected) < 4 * deviation


@pytest.mark.parametrize('batch_size, num', [(1, 1), (4, 4), (4, 9), (4, -1)])
def test_a_batch_has_too_few_rows(batch_size, num):
  message = rf'in \[0, {batch_size - 1}\]: {num}$'
  with pytest.raises(ValueError, match=message):
    negatives.roll_shifts(jax.random.key(0), batch_size, num)


def test_rolled_is_roll():
  values = jnp.arange(7) * 10
  shifts = jnp.array([0, 1, 6, 3, 7, -2])
  got = negatives.rolled(values, shifts)
  for column, shift in enumerate(shifts.tolist()):
    np.testing.assert_array_equal(got[:, column], jnp.roll(values, shift))


def test_rolled_scores_by_hand():
  user = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
  item = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
  for method in METHODS:
    got = negatives.rolled_scores(user, item, jnp.array([1, 2]), method=method)
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
  monkeypatch.setattr(negatives, '_CHUNK', chunk)
  user, item, shifts, cotangent = problem(size, width, num_shifts)
  got = value_and_gradients(*as_float32(user, item, shifts, cotangent), method)
  expected = (
      slow_scores(user, item, shifts),
      *slow_gradients(user, item, shifts, cotangent),
  )
  for one, two in zip(got, expected, strict=True):
    assert one.shape == two.shape and one.dtype == jnp.float32
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('num_shifts', [1, 3, 4, 31, 32])
def test_equal_to_roll_on_both_sides_of_every_crossover(num_shifts):
  """256 rows: gathered below 4 shifts, by platform below 32, then products."""
  inputs = as_float32(*problem(256, 8, num_shifts))
  user, item, shifts, cotangent = inputs

  @jax.jit
  def by_roll(user, item):
    score = lambda shift: jnp.sum(user * jnp.roll(item, shift, 0), -1)
    return jax.vmap(score, out_axes=1)(shifts)

  value, vjp = jax.vjp(by_roll, user, item)
  for method in ('auto', *METHODS):
    got = value_and_gradients(*inputs, method)
    for one, two in zip(got, (value, *vjp(cotangent)), strict=True):
      np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('method', METHODS)
def test_repeated_zero_and_negative_shifts(method):
  """The published golden value of the softmax has shifts 3 and 3."""
  user, item, _, cotangent = problem(6, 3, 5)
  shifts = np.array([3, 3, 0, -1, 11], np.int32)
  got = value_and_gradients(*as_float32(user, item, shifts, cotangent), method)
  exact = slow_scores(user, item, [3, 3, 0, 5, 5])
  np.testing.assert_allclose(got[0], exact, rtol=1e-5, atol=1e-5)
  expected = slow_gradients(user, item, shifts, cotangent)
  for one, two in zip(got[1:], expected, strict=True):
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('method', METHODS)
def test_gradients_match_finite_differences(method):
  user, item, shifts, _ = as_float32(*problem(6, 3, 4))
  check_grads(
      jax.jit(
          lambda u, i: negatives.rolled_scores(u, i, shifts, method=method)
      ),
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
  exact = slow_scores(*(np.asarray(x, np.float64) for x in half), shifts)
  np.testing.assert_allclose(score, exact, rtol=1e-4, atol=1e-4)


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
  monkeypatch.setattr(negatives, '_CHUNK', 2**13)
  inputs = as_float32(*problem(size, width, num_shifts))
  traced = jax.make_jaxpr(value_and_gradients, static_argnums=4)
  largest = largest_array(traced(*inputs, method).jaxpr)
  # The scores themselves, against 2**18 pairs and 2**20 gathered numbers.
  assert size * num_shifts <= largest < 2 * size * num_shifts


@pytest.mark.parametrize('method', METHODS)
def test_eight_devices_score_like_one(method, monkeypatch):
  monkeypatch.setattr(negatives, '_CHUNK', 2**9)
  inputs = as_float32(*problem(64, 8, 16))
  user, item, shifts, cotangent = inputs
  expected = value_and_gradients(*inputs, method)
  rows = parallel.by_row(parallel.make_mesh(config.MeshConfig()))
  user, item, cotangent = (
      jax.device_put(x, rows) for x in (user, item, cotangent)
  )
  got = value_and_gradients(user, item, shifts, cotangent, method)
  for one, two in zip(got, expected, strict=True):
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    'user, item, shifts, method, message',
    [
        ((3, 2), (4, 2), (1,), 'auto', r'Shapes differ: \(3, 2\), \(4, 2\)'),
        ((3,), (3,), (1,), 'auto', r'Shapes differ: \(3,\), \(3,\)'),
        ((3, 2), (3, 2), (), 'auto', r'shifts \(\) must be \[M\]'),
        ((3, 2), (3, 2), (1,), 'roll', "method is 'roll'; .*'auto', 'gather'"),
    ],
)
def test_wrong_input_to_rolled_scores(user, item, shifts, method, message):
  with pytest.raises(ValueError, match=message):
    negatives.rolled_scores(
        jnp.ones(user), jnp.ones(item), jnp.ones(shifts, int), method=method
    )


def test_mixed_scores_are_the_products():
  user, item, _, _ = problem(5, 3, 1)
  got = negatives.mixed_scores(jnp.float32(user), jnp.float32(item[:4]))
  np.testing.assert_allclose(got, user @ item[:4].T, rtol=1e-5, atol=1e-6)


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


def test_histories_of_no_length_hold_nothing():
  got = negatives.not_in_history(
      jnp.array([[0, 1]]), jnp.zeros((1, 0), jnp.int32)
  )
  np.testing.assert_array_equal(got, [[True, True]])


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


@pytest.mark.parametrize('power', [0.0, 0.75, 1.0, -1.0, 50.0])
def test_popularity_table_has_exact_shares(power):
  count = np.array([0, 3, 1, 0, 8, 2, 0])
  table = negatives.popularity_table(count, power)
  powers = {i: float(c) ** power for i, c in enumerate(count) if c}
  share = np.array([x / math.fsum(powers.values()) for x in powers.values()])
  np.testing.assert_array_equal(table.item, list(powers))
  width = np.diff(np.append(table.start.astype(np.int64), 2**32))
  np.testing.assert_allclose(width / 2**32, share, rtol=0, atol=2**-31)
  np.testing.assert_allclose(
      table.log_probability[table.item], np.log(share), rtol=1e-5, atol=1e-7
  )
  assert np.isneginf(table.log_probability[count == 0]).all()
  assert table.item.dtype == np.int32 and table.start.dtype == np.uint32


def test_samples_follow_the_table():
  count = np.array([5, 0, 1, 0, 4, 0])
  table = negatives.popularity_table(count, 1.0)
  drawn = negatives.sample_items(jax.random.key(1), table, (100, 200))
  assert drawn.dtype == jnp.int32 and drawn.shape == (100, 200)
  found = np.bincount(np.ravel(drawn), minlength=6)
  assert found.sum() == 20_000 and not found[count == 0].any()
  share = count / 10
  deviation = np.sqrt(20_000 * share * (1 - share))
  assert (np.abs(found - 20_000 * share) <= 4 * deviation).all()
  again = negatives.sample_items(jax.random.key(1), table, (100, 200))
  np.testing.assert_array_equal(drawn, again)


@pytest.mark.parametrize('draw', [0, 2**31 - 1, 2**31, 2**32 - 1])
def test_the_ends_of_every_share_are_drawn_from_it(draw, monkeypatch):
  """Halves; whole numbers above the largest int32 must not become negative."""
  bits = lambda key, shape, dtype: jnp.full(shape, draw, dtype)
  monkeypatch.setattr(jax.random, 'bits', bits)
  table = negatives.popularity_table(np.array([0, 7, 0, 7, 0]), 0.5)
  got = negatives.sample_items(jax.random.key(0), table, (2,))
  assert got.tolist() == [1 if draw < 2**31 else 3] * 2


def test_rare_items_of_a_large_catalogue_keep_their_share():
  count = np.ones(1_000_000)
  count[0] = 1e7
  table = negatives.popularity_table(count, 1.0)
  width = np.diff(np.append(table.start.astype(np.int64), 2**32))
  exact = 2**32 / (1e7 + 999_999)
  assert (np.abs(width[1:] - exact) < 1 + 1e-3).all()


def test_log_frequency_is_the_chance_to_meet_an_item():
  count = np.array([1, 3, 0, 6])
  for size in (1, 2, 50):
    got = negatives.log_frequency(count, size)
    assert got.dtype == np.float32
    for item, c in enumerate([1, 3, 1, 6]):  # none is taken for the rarest
      expected = math.log(1 - (1 - c / 10) ** size)
      assert got[item] == pytest.approx(expected, rel=1e-5, abs=1e-7)
  draws = np.random.default_rng(0).choice(4, (50_000, 3), p=count / 10)
  met = np.mean((draws == 1).any(axis=1))
  assert math.exp(negatives.log_frequency(count, 3)[1]) == pytest.approx(
      met, abs=0.01
  )


def test_log_frequency_of_extremes():
  np.testing.assert_array_equal(negatives.log_frequency([0, 5], 4), [0, 0])
  rare = negatives.log_frequency(np.array([1.0, 1e12]), 4)
  assert rare[0] == pytest.approx(math.log(4e-12), rel=1e-6)


@pytest.mark.parametrize(
    'count, message',
    [
        ([1, -2], r'count\[1\] is -2.0: not finite and >= 0'),
        ([1, 2, math.nan], r'count\[2\] is nan'),
        ([0, 0], 'No item has interactions'),
        ([], 'No item has interactions'),
    ],
)
def test_wrong_counts(count, message):
  with pytest.raises(ValueError, match=message):
    negatives.popularity_table(np.array(count), 1.0)
  with pytest.raises(ValueError, match=message):
    negatives.log_frequency(np.array(count), 4)


def test_an_empty_batch_has_no_frequencies():
  with pytest.raises(ValueError, match='batch_size must be at least 1: 0'):
    negatives.log_frequency(np.ones(3), 0)


@pytest.mark.parametrize('shape', [(0,), (3,), (4,), (3, 2)])
def test_pad_batch(shape):
  values = np.arange(1, 1 + math.prod(shape), dtype=np.int32).reshape(shape)
  padded, mask = negatives.pad_batch(values, 4)
  assert padded.shape == (4, *shape[1:]) and padded.dtype == np.int32
  assert mask.tolist() == [b < len(values) for b in range(4)]
  np.testing.assert_array_equal(padded[mask], values)
  assert not padded[~mask].any()


def test_a_batch_can_be_too_long():
  with pytest.raises(ValueError, match='5 rows are more than a batch: 4'):
    negatives.pad_batch(np.ones(5), 4)


def test_a_padded_batch_scores_like_a_short_one():
  """What the masks leave of a padded batch has no trace of the padding."""
  user, item, _, _ = problem(5, 3, 1)
  item_id = np.arange(5, dtype=np.int32)
  pad = lambda x: negatives.pad_batch(np.asarray(x), 8)[0]
  mask = negatives.pad_batch(item_id, 8)[1]
  shifts = np.arange(1, 8, dtype=np.int32)
  score = negatives.rolled_scores(
      jnp.float32(pad(user)), jnp.float32(pad(item)), shifts
  )
  valid = negatives.valid_negatives(pad(item_id), shifts, row_mask=mask)
  assert not valid[5:].any()
  for b in range(5):
    found = np.sort(score[b][valid[b]])
    others = [user[b] @ item[other] for other in range(5) if other != b]
    np.testing.assert_allclose(found, np.sort(others), rtol=1e-5, atol=1e-6)
