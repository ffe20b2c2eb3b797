# SPDX-License-Identifier: Apache-2.0
"""The softmax over a batch against loops over Python floats."""

import functools
import math

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax.data import batches
from dropoutnet_jax.model import batch_softmax
from dropoutnet_jax.model import effective_rows
from dropoutnet_jax.model import losses
from dropoutnet_jax.model import row_chunks
from tests.model import slow_losses

SMALL = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)

pytestmark = pytest.mark.usefixtures('quick_compilation')


def _few_pairs_at_once(monkeypatch):
  monkeypatch.setattr(row_chunks, 'MOST_PAIRS', 1)
  monkeypatch.setattr(row_chunks, 'LEAST_ROWS', 3)


@pytest.fixture(params=[False, True], ids=['whole', 'chunked'])
def chunked(request, monkeypatch):
  """Both ways of going through a batch, whatever its size."""
  if request.param:
    _few_pairs_at_once(monkeypatch)
  return request.param


def _batch(seed, size=8, scale=1.0, rank=3):
  """Whole numbers in eighths, so that float32 products are exact."""
  rng = np.random.default_rng(seed)
  user, item = (
      np.float32(rng.integers(-16, 17, (size, rank)) * scale / 8)
      for _ in range(2)
  )
  weight = np.float32(rng.integers(0, 3, size))
  masks = {
      'log_q': np.float32(rng.uniform(-8, 0, size)),
      'item_id': np.int32(rng.integers(0, size, size)),
      'history_mask': rng.random((size, size)) < 0.3,
      'item_mask': rng.random(size) < 0.8,
  }
  return user, item, weight, masks


@pytest.mark.parametrize(
    'temperature, names',
    [
        (1.0, ()),
        (0.125, ('log_q',)),
        (0.5, ('item_id',)),
        (0.125, ('history_mask',)),
        (1.0, ('item_mask', 'item_id')),
        (0.5, ('log_q', 'item_id', 'history_mask', 'item_mask')),
    ],
    ids=str,
)
def test_in_batch_equals_the_loop(chunked, temperature, names):
  loss = jax.jit(
      jax.value_and_grad(
          functools.partial(losses.in_batch_softmax, temperature=temperature),
          argnums=(0, 1),
      )
  )
  for seed, scale in enumerate((0.25, 1.0, 16.0)):
    *rows, masks = _batch(seed, size=6, scale=scale, rank=2)
    masks = {name: masks[name] for name in names}
    user, item, weight = (np.float64(x) for x in rows)
    slow = lambda u, v: slow_losses.in_batch_softmax(
        u, v, weight, temperature, **masks
    )
    value, grads = loss(*rows, **masks)
    SMALL(value, slow(user, item))
    expected = slow_losses.gradient(
        slow, user, item, step=temperature * 1e-3 / scale
    )
    for grad, right in zip(grads, expected, strict=True):
      SMALL(grad, right)


@pytest.mark.parametrize('num_sampled', [0, 3])
def test_places_of_known_positives_are_as_good_as_a_mask(chunked, num_sampled):
  del chunked  # both ways
  rng = np.random.default_rng(num_sampled)
  user, item, weight, masks = _batch(num_sampled)
  sampled = batch_softmax.Sampled(
      rng.normal(size=(num_sampled, 3)).astype(np.float32),
      rng.integers(0, 8, num_sampled),
      np.zeros(num_sampled, np.float32),
  )
  across = jnp.int32(np.concatenate([masks['item_id'], sampled.item_id]))
  liked = np.full((8, 4), -1, np.int32)
  for row in range(8):
    own = np.unique(rng.integers(0, 9, row % 5))
    liked[row, : len(own)] = own
  places = batches.places(jnp.asarray(liked), across, 9)
  np.testing.assert_array_equal(
      places.likes(), (liked[:, :, None] == np.asarray(across)).any(1)
  )
  value = lambda emb, known: losses.in_batch_softmax(
      *emb,
      weight,
      temperature=0.5,
      item_id=masks['item_id'],
      history_mask=known,
      sampled=sampled if num_sampled else None,
  )
  one, two = (
      jax.value_and_grad(value)((user, item), known)
      for known in (places, places.likes())
  )
  jax.tree.map(SMALL, one, two)
  assert np.any(one[1][0])


def test_in_batch_by_hand():
  user, item = jnp.array([[1.0], [2.0]]), jnp.array([[3.0], [1.0]])
  # Logits 3 and 1 of the first row, 6 and 2 of the second, own ones 3 and 2.
  loss = functools.partial(
      losses.in_batch_softmax, user, item, jnp.ones(2), temperature=1.0
  )
  row = lambda own, other: math.log1p(math.exp(other - own))
  np.testing.assert_allclose(loss(), (row(3, 1) + row(2, 6)) / 2, rtol=1e-6)
  np.testing.assert_allclose(
      loss(temperature=2.0), (row(1.5, 0.5) + row(1, 3)) / 2, rtol=1e-6
  )
  # A common item is corrected downwards, as a positive too.
  np.testing.assert_allclose(
      loss(log_q=jnp.array([-1.0, -4.0])),
      (row(4, 5) + row(6, 7)) / 2,
      rtol=1e-6,
  )
  one = loss(history_mask=jnp.array([[True, False], [True, True]]))
  np.testing.assert_allclose(one, row(3, 1), rtol=1e-6)
  np.testing.assert_allclose(
      loss(item_mask=jnp.array([True, False])), row(2, 6), rtol=1e-6
  )
  assert loss(item_id=jnp.array([7, 7])) == 0


def test_scores_up_to_ten_thousand_are_finite(chunked):
  user, item, weight, masks = _batch(3, scale=8.0)
  user, item = user * 5, item * 5
  assert np.abs(user @ item.T).max() > 5e3
  value, grads = jax.value_and_grad(losses.in_batch_softmax, argnums=(0, 1))(
      user, item, weight, temperature=0.5, **masks
  )
  assert np.isfinite(value) and value > 0
  for grad in grads:
    assert np.all(np.isfinite(grad)) and np.any(grad != 0)


EMPTY = {
    'one row': ({}, 1, 1.0),
    'no positive': ({}, 3, 0.0),
    'one item': ({'item_id': jnp.zeros(3, jnp.int32)}, 3, 1.0),
    'all known': ({'history_mask': jnp.ones((3, 3), bool)}, 3, 1.0),
    'none offered': ({'item_mask': jnp.zeros(3, bool)}, 3, 1.0),
}


@pytest.mark.parametrize('name', EMPTY)
@pytest.mark.parametrize('fill', [1.0, 100.0])
def test_a_batch_without_negatives_costs_nothing(chunked, name, fill):
  masks, size, weight = EMPTY[name]
  weight = jnp.full(size, weight)
  value, grads = jax.value_and_grad(losses.in_batch_softmax, argnums=(0, 1))(
      jnp.full((size, 2), fill),
      jnp.full((size, 2), -fill),
      weight,
      temperature=1.0,
      **masks,
  )
  assert value == 0
  for grad in grads:
    np.testing.assert_array_equal(grad, 0)
  assert _count(weight, masks) == 0


def test_padding_is_as_good_as_removed(chunked):
  user, item, _, masks = _batch(4)
  weight = np.float32([1, 0, 2, 1, 0, 0, 1, 3])
  keep = np.flatnonzero(weight)
  del masks['item_mask']
  spoilt = {**masks, 'log_q': np.where(weight > 0, masks['log_q'], -np.inf)}
  loss = jax.value_and_grad(
      functools.partial(losses.in_batch_softmax, temperature=0.5),
      argnums=(0, 1),
  )
  bad = lambda x: np.where(weight[:, None] > 0, x, np.nan)
  value, grads = loss(bad(user), bad(item), weight, **spoilt)
  fewer, fewer_grads = loss(
      user[keep],
      item[keep],
      weight[keep],
      log_q=masks['log_q'][keep],
      item_id=masks['item_id'][keep],
      history_mask=masks['history_mask'][np.ix_(keep, keep)],
  )
  SMALL(value, fewer)
  for grad, right in zip(grads, fewer_grads, strict=True):
    SMALL(grad[keep], right)
    np.testing.assert_array_equal(grad[weight == 0], 0)


def test_a_temperature_can_be_learnt(chunked):
  *rows, masks = _batch(5, scale=0.5)
  got = jax.grad(
      lambda t: losses.in_batch_softmax(*rows, temperature=t, **masks)
  )(jnp.float32(0.7))
  rows = [np.float64(x) for x in rows]
  slow = lambda t: slow_losses.in_batch_softmax(*rows, float(t), **masks)
  SMALL(got, slow_losses.gradient(slow, 0.7)[0])


def test_half_precision(chunked):
  """Whole eighths up to 2 are exact in bfloat16; sums are float32."""
  user, item, weight, masks = _batch(6)
  half = lambda x: jnp.array(x, jnp.bfloat16)
  loss = functools.partial(losses.in_batch_softmax, temperature=0.5, **masks)
  expected = loss(user, item, weight)
  SMALL(loss(half(user), half(item), half(weight)), expected)
  SMALL(loss(user, item, weight, dtype=jnp.dtype('bfloat16')), expected)
  value, grad = jax.value_and_grad(loss)(half(user), half(item), weight)
  assert value.dtype == jnp.float32 and grad.dtype == jnp.bfloat16


def _compiled():
  loss = lambda user, item, weight, **masks: losses.in_batch_softmax(
      user, item, weight, temperature=0.5, **masks
  )
  return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))


def test_neither_order_nor_chunks_matter(monkeypatch):
  loss, in_chunks = _compiled(), _compiled()
  *rows, masks = _batch(0)
  loss(*rows, **masks)
  _few_pairs_at_once(monkeypatch)
  in_chunks(*rows, **masks)

  @hypothesis.given(seed=st.integers(0, 10**6))
  @hypothesis.settings(max_examples=30)
  def check(seed):
    *rows, masks = _batch(seed)
    value, grads = loss(*rows, **masks)
    order = np.random.default_rng(seed).permutation(8)
    known = masks['history_mask'][np.ix_(order, order)]
    moved = {name: mask[order] for name, mask in masks.items()}
    moved['history_mask'] = known
    permuted, permuted_grads = loss(*(x[order] for x in rows), **moved)
    chunked, chunked_grads = in_chunks(*rows, **masks)
    SMALL([permuted, chunked], [value, value])
    for grad, by_order, by_chunk in zip(
        grads, permuted_grads, chunked_grads, strict=True
    ):
      SMALL(by_order, grad[order])
      SMALL(by_chunk, grad)
    assert _count(rows[2], masks) == _slow_count(rows[2], masks)

  check()


def _count(weight, masks):
  names = ('log_q', 'item_id', 'history_mask', 'item_mask')
  given = [masks.get(name) for name in names]
  rows, _ = batch_softmax.prepare(jnp.asarray(weight), *given)
  return effective_rows.in_batch_softmax(rows)


def _slow_count(weight, masks):
  """Rows that have another item among those offered that is not known."""
  count = 0
  for b in np.flatnonzero(weight > 0):
    others = set(np.flatnonzero(masks['item_mask']))
    others -= set(np.flatnonzero(masks['history_mask'][b]))
    others -= set(np.flatnonzero(masks['item_id'] == masks['item_id'][b]))
    count += bool(others)
  return count


@pytest.mark.parametrize(
    'options, message',
    [
        ({'temperature': 0.0}, 'temperature is 0.0; it must be above 0'),
        ({'item_emb': jnp.ones((3, 1))}, r'Shapes differ: .*item_emb \(3, 1\)'),
        ({'weight': jnp.ones(1)}, r'user_emb \(3, 2\) and weight \(1,\) must'),
        ({'log_q': jnp.ones((3, 1))}, r'Shapes differ: .*log_q \(3, 1\)'),
        ({'item_id': jnp.ones(2, int)}, r'Shapes differ: .*item_id \(2,\)'),
        ({'item_mask': jnp.ones(2, bool)}, r'item_mask \(2,\)'),
        ({'history_mask': jnp.ones((3, 1), bool)}, r'history_mask is \(3, 1\)'),
    ],
)
def test_wrong_in_batch_options_are_refused(options, message):
  given = dict(
      user_emb=jnp.ones((3, 2)),
      item_emb=jnp.ones((3, 2)),
      weight=jnp.ones(3),
      temperature=1.0,
  )
  with pytest.raises(ValueError, match=message):
    losses.in_batch_softmax(**{**given, **options})
