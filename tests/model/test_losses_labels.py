# SPDX-License-Identifier: Apache-2.0
"""Pointwise and pairwise losses against loops over Python floats."""

import functools
import math

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax.model import effective_rows
from dropoutnet_jax.model import losses
from dropoutnet_jax.model import row_chunks
from tests.model import slow_losses

SMALL = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)

pytestmark = pytest.mark.usefixtures('quick_compilation')


def _rows(seed, size=8, scale=1.0, labels=2):
  """Scores, labels and weights with zeros, as float32."""
  rng = np.random.default_rng(seed)
  score = rng.normal(size=size) * scale
  label = rng.integers(0, labels, size)
  weight = rng.integers(0, 3, size) * rng.uniform(0.5, 1, size)
  return tuple(np.float32(x) for x in (score, label, weight))


def _check(loss, slow, cases):
  """Value and gradient by the score, of cases of one shape."""
  loss = jax.jit(jax.value_and_grad(loss))
  for score, *rest in cases:
    value, grad = loss(score, *rest)
    assert value.dtype == grad.dtype == jnp.float32
    rest = [np.float64(x) for x in rest]
    SMALL(value, slow(np.float64(score), *rest))
    SMALL(grad, slow_losses.gradient(lambda s: slow(s, *rest), score)[0])


POINTWISE = [
    {},
    {'smoothing': 0.1},
    {'gamma': 2.0},
    {'gamma': 0.5},
    {'gamma': 2.0, 'alpha': 0.25},
    {'alpha': 0.7},
    {'smoothing': 0.2, 'gamma': 1.5, 'alpha': 0.4},
]


def _pointwise(smoothing=0.0, gamma=None, alpha=None):
  return functools.partial(
      losses.pointwise,
      label_smoothing=smoothing,
      focal_gamma=gamma,
      focal_alpha=alpha,
  )


@pytest.mark.parametrize('options', POINTWISE, ids=str)
def test_pointwise_equals_the_loop(options):
  cases = [_rows(seed, scale=10.0**seed) for seed in range(5)]
  _check(
      _pointwise(**options),
      functools.partial(slow_losses.pointwise, **options),
      cases + [(x[0], x[1], np.eye(8, dtype=np.float32)[2]) for x in cases],
  )


def test_pointwise_by_hand():
  score = jnp.array([0.0, math.log(3.0)])  # probabilities 1/2 and 3/4
  label = jnp.array([1.0, 0.0])
  got = losses.pointwise(score, label, jnp.array([1.0, 3.0]))
  np.testing.assert_allclose(
      got, (math.log(2) + 3 * math.log(4)) / 4, rtol=1e-6
  )
  got = losses.pointwise(score, label, jnp.ones(2), focal_gamma=2.0)
  expected = (0.25 * math.log(2) + 0.75**2 * math.log(4)) / 2
  np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_a_tiny_cost_is_not_lost():
  got = losses.pointwise(jnp.array([30.0]), jnp.ones(1), jnp.ones(1))
  np.testing.assert_allclose(got, math.exp(-30), rtol=1e-5)


PAIRWISE = [
    {},
    {'hard_ratio': 0.35},
    {'margin': 0.3, 'temperature': 0.25},
    {'kind': 'hinge', 'margin': 1.0},
    {'kind': 'hinge', 'margin': 0.5, 'temperature': 0.5, 'hard_ratio': 0.7},
    {'kind': 'focal', 'margin': 0.5, 'temperature': 2.0},
    {'kind': 'focal', 'label_margin': True, 'hard_ratio': 0.2},
    {'kind': 'hinge', 'label_margin': True, 'temperature': 0.5},
]


@pytest.fixture(params=[False, True], ids=['whole', 'chunked'])
def chunked(request, monkeypatch):
  """Both ways of going through the pairs, whatever their number."""
  if request.param:
    monkeypatch.setattr(row_chunks, 'MOST_PAIRS', 4)
    monkeypatch.setattr(row_chunks, 'LEAST_ROWS', 2)
  return request.param


@pytest.mark.parametrize('options', PAIRWISE, ids=str)
def test_pairwise_equals_the_loop(chunked, options):
  given = dict(options)
  if options.get('label_margin'):
    given['session'] = np.arange(8, dtype=np.int32) % 2
  _check(
      functools.partial(losses.pairwise, **given),
      functools.partial(slow_losses.pairwise, **given),
      [_rows(seed, scale=10.0**seed, labels=3) for seed in range(5)],
  )


@pytest.mark.parametrize('size', [1, 2, 5])
def test_few_rows_and_less_than_one_hard_pair(chunked, size):
  _check(
      functools.partial(losses.pairwise, hard_ratio=0.01),
      functools.partial(slow_losses.pairwise, hard_ratio=0.01),
      [_rows(seed, size) for seed in range(4)],
  )


def test_pairwise_by_hand():
  score = jnp.array([2.0, 1.0, 4.0])
  label = jnp.array([1.0, 0.0, 0.0])
  weight = jnp.array([5.0, 1.0, 1.0])
  hinge = functools.partial(losses.pairwise, score, label, kind='hinge')
  assert hinge(weight) == (0 + 2) / 2  # differences of 1 and -2
  assert hinge(weight, margin=2.0) == (1 + 4) / 2
  assert hinge(weight, margin=2.0, temperature=0.5) == (0 + 6) / 2
  assert hinge(weight, hard_ratio=0.5) == 2
  assert hinge(weight, label_margin=True) == (0 + 3) / 2
  assert hinge(jnp.array([5.0, 1.0, 0.0])) == 0
  assert hinge(jnp.array([0.0, 1.0, 1.0])) == 0
  assert hinge(weight, session=jnp.array([7, 8, 7])) == 2


def test_a_pair_has_the_weight_of_its_positive():
  score = jnp.array([0.0, 0.0, 1.0])
  label = jnp.array([1.0, 1.0, 0.0])
  got = losses.pairwise(
      score, label, jnp.array([1.0, 3.0, 9.0]), kind='hinge', margin=1.0
  )
  assert got == 2
  score = jnp.array([0.0, 1.0, 1.0])  # costs 1 and 0, now with 1 and 3
  got = losses.pairwise(
      score, label, jnp.array([1.0, 3.0, 9.0]), kind='hinge', margin=0.0
  )
  assert got == 1 / 4


@pytest.mark.parametrize('ratio', [0.2, 0.5, 0.8])
def test_hard_pairs_are_the_top_of_a_sorted_list(ratio):
  score, label, _ = _rows(4, 30)
  gap = score[label == 1][:, None] - score[label == 0][None, :]
  cost = np.sort(np.log1p(np.exp(-np.float64(gap))).ravel())[::-1]
  keep = ratio * len(cost)
  full = int(keep)
  expected = cost[:full].sum() + (keep - full) * cost[full]
  loss = jax.jit(functools.partial(losses.pairwise, hard_ratio=ratio))
  got = loss(score, label, jnp.ones(30))
  np.testing.assert_allclose(got, expected / keep, rtol=1e-5)


def test_pairs_at_the_bound_share_what_is_left():
  score = jnp.array([1.0, 1.0, 1.0, 2.0, 1.0])  # three pairs alike, each twice
  label = jnp.array([1.0, 1.0, 1.0, 0.0, 0.0])
  loss = lambda s: losses.pairwise(
      s, label, jnp.ones(5), kind='hinge', margin=1.0, hard_ratio=1 / 3
  )
  value, grad = jax.jit(jax.value_and_grad(loss))(score)
  np.testing.assert_allclose(value, 2.0, rtol=1e-6)
  np.testing.assert_allclose(
      grad, [-1 / 3, -1 / 3, -1 / 3, 1, 0], rtol=1e-5, atol=1e-6
  )


def test_temperature_can_be_learnt(chunked):
  score, label, weight = _rows(5, 8, labels=3)
  loss = lambda t: losses.pairwise(
      jnp.array(score), jnp.array(label), jnp.array(weight), temperature=t
  )
  slow = lambda t: slow_losses.pairwise(
      np.float64(score), label, np.float64(weight), temperature=float(t)
  )
  got = jax.jit(jax.grad(loss))(jnp.float32(0.7))
  np.testing.assert_allclose(got, slow_losses.gradient(slow, 0.7)[0], rtol=1e-5)


# Differ, so that gradients of several losses do not cancel in the sum.
FACTORS = np.float32([1.0, 2.0, 3.0, 5.0, 7.0])


@functools.partial(jax.jit, static_argnums=3)
def _all_losses(score, label, weight, chunked):
  """Losses of rows and the gradients of a sum of them.

  Compiled once for each way of going through the pairs.
  """
  del chunked

  def total(*rows):
    values = jnp.stack(
        [
            losses.pointwise(*rows),
            losses.pointwise(*rows, focal_gamma=0.5),
            losses.pairwise(*rows),
            losses.pairwise(*rows, kind='hinge', hard_ratio=0.3),
            losses.pairwise(*rows, kind='focal', hard_ratio=0.3),
        ]
    )
    return jnp.sum(values * FACTORS), values

  (_, values), grads = jax.value_and_grad(total, (0, 1, 2), has_aux=True)(
      score, label, weight
  )
  return values, grads


def _padded(*arrays):
  """To eight rows, as float32."""
  return (np.float32(np.r_[x, np.zeros(8 - len(x))]) for x in arrays)


@pytest.mark.parametrize('fill', [1.0, 1e4, math.nan, math.inf])
def test_nothing_costs_nothing_and_has_no_gradient(chunked, fill):
  values, grads = _all_losses(
      *_padded([fill, -fill], [1, fill], [0, 0]), chunked
  )
  np.testing.assert_array_equal(values, 0)
  np.testing.assert_array_equal(grads[0], 0)


@pytest.mark.parametrize(
    'label', [[1, 1, 1], [0, 0, 0]], ids=['no negative', 'no positive']
)
def test_one_label_makes_no_pairs(chunked, label):
  rows = [*_padded([0.0, 1.0, 2.0], label, [1, 1, 1])]
  values, _ = _all_losses(*rows, chunked)
  np.testing.assert_array_equal(values[2:], 0)
  assert np.all(values[:2] > 0)
  assert effective_rows.pairwise(*map(jnp.array, rows[1:])) == 0


def test_padding_may_hold_anything(chunked):
  score, label, _ = _rows(6)
  weight = np.float32([1, 2, 0, 1, 1, 0, 0, 3])
  keep = np.flatnonzero(weight)
  spoilt = np.where(weight > 0, score, np.nan)
  values, grads = _all_losses(spoilt, label, weight, chunked)
  fewer, fewer_grads = _all_losses(
      score[keep], label[keep], weight[keep], False
  )
  SMALL(values, fewer)
  SMALL(grads[0][keep], fewer_grads[0])
  for grad in grads:
    np.testing.assert_array_equal(grad[weight == 0], 0)


def test_a_score_that_is_no_number_shows(chunked):
  rows = _padded([1.0, math.nan, 0.0], [1, 0, 0], [1, 1, 1])
  assert np.all(np.isnan(_all_losses(*rows, chunked)[0]))


def test_half_precision_comes_out_as_single():
  rows = [*_padded([0.5, -2.0, 1.0], [1, 0, 0], [1, 1, 1])]
  halves = (jnp.array(x, jnp.bfloat16) for x in rows)
  values, grads = _all_losses(*halves, False)
  single, single_grads = _all_losses(*rows, False)
  assert values.dtype == jnp.float32
  np.testing.assert_allclose(values, single, rtol=1e-6)
  assert grads[0].dtype == jnp.bfloat16
  np.testing.assert_allclose(
      grads[0].astype(jnp.float32), single_grads[0], rtol=1e-2
  )


def test_no_gradient_goes_to_weights_and_labels(chunked):
  score, label, weight = _rows(7)
  _, grads = _all_losses(score, label, weight + 1, chunked)
  for grad in grads[1:]:
    np.testing.assert_array_equal(grad, 0)


@st.composite
def _labelled(draw, size=8):
  numbers = lambda *bounds: st.lists(
      st.integers(*bounds), min_size=size, max_size=size
  )
  score = np.float32(draw(numbers(-8, 8))) / 4  # ties are common
  label = np.float32(draw(numbers(0, 2)))
  weight = np.float32(draw(numbers(0, 2)))
  return score, label, weight, np.int32(draw(numbers(-1, 1)))


def _compiled(kind, hard_ratio):
  """Value and gradient by the scores, for one setting of the chunks."""
  return jax.jit(
      jax.value_and_grad(
          lambda score, label, weight, session: losses.pairwise(
              score,
              label,
              weight,
              session=session,
              kind=kind,
              hard_ratio=hard_ratio,
              margin=0.1,
          )
      )
  )


@pytest.mark.parametrize(
    'kind, hard_ratio', [('logistic', 1.0), ('hinge', 0.4), ('focal', 0.4)]
)
def test_neither_order_nor_chunks_nor_a_shift_matter(
    kind, hard_ratio, monkeypatch
):
  loss, in_chunks = (_compiled(kind, hard_ratio) for _ in range(2))
  empty = (np.zeros(8, np.float32),) * 3 + (np.zeros(8, np.int32),)
  loss(*empty)
  monkeypatch.setattr(row_chunks, 'MOST_PAIRS', 1)
  monkeypatch.setattr(row_chunks, 'LEAST_ROWS', 3)
  in_chunks(*empty)

  @hypothesis.given(rows=_labelled(), seed=st.integers(0, 99))
  @hypothesis.settings(max_examples=30)
  def check(rows, seed):
    value, grad = loss(*rows)
    SMALL(loss(rows[0] + 16, *rows[1:])[0], value)
    order = np.random.default_rng(seed).permutation(len(grad))
    permuted = loss(*(x[order] for x in rows))
    SMALL(permuted[0], value)
    SMALL(permuted[1], grad[order])
    chunked_value, chunked_grad = in_chunks(*rows)
    SMALL(chunked_value, value)
    SMALL(chunked_grad, grad)

  check()


@hypothesis.given(rows=_labelled())
@hypothesis.settings(max_examples=40)
def test_pairs_are_counted(rows):
  _, label, weight, session = rows
  arrays = [jnp.array(x) for x in (label, weight, session)]
  expected = len(slow_losses.list_pairs(label, weight, session))
  assert effective_rows.pairwise(*arrays) == expected
  expected = len(slow_losses.list_pairs(label, weight))
  assert effective_rows.pairwise(*arrays[:2]) == expected
  assert effective_rows.pointwise(arrays[1]) == np.sum(weight > 0)


@pytest.mark.parametrize(
    'options, message',
    [
        ({'kind': 'cosine'}, "kind is 'cosine'; it must be one of"),
        (
            {'hard_ratio': 0.0},
            'hard_ratio is 0.0; it must be above 0 and at mo',
        ),
        ({'hard_ratio': 1.5}, 'hard_ratio is 1.5'),
        ({'temperature': 0.0}, 'temperature is 0.0; it must be above 0'),
        ({'temperature': math.nan}, 'temperature is nan'),
        ({'temperature': jnp.ones(3)}, r'temperature has shape \(3,\)'),
        ({'margin': math.inf}, 'margin is inf; it must be finite'),
        ({'margin': 1.0, 'label_margin': True}, 'not both'),
        (
            {'session': jnp.zeros(2, jnp.int32)},
            r'Shapes differ: .*session \(2,',
        ),
        ({'score': jnp.ones((3, 1))}, r'Shapes differ: score \(3, 1\)'),
        ({'label': jnp.ones(1)}, r'Shapes differ: label \(1,\)'),
    ],
)
def test_wrong_pairwise_options_are_refused(options, message):
  given = dict(score=jnp.ones(3), label=jnp.ones(3), weight=jnp.ones(3))
  with pytest.raises(ValueError, match=message):
    losses.pairwise(**{**given, **options})


@pytest.mark.parametrize(
    'options, message',
    [
        (
            {'label_smoothing': 1.0},
            'label_smoothing is 1.0; .* at least 0 and b',
        ),
        ({'label_smoothing': -0.1}, 'label_smoothing is -0.1'),
        ({'focal_gamma': -1.0}, 'focal_gamma is -1.0; it must be at least 0'),
        (
            {'focal_alpha': 1.0},
            'focal_alpha is 1.0; it must be above 0 and bel',
        ),
        ({'label': jnp.ones((3, 1))}, r'Shapes differ: .*label \(3, 1\)'),
    ],
)
def test_wrong_pointwise_options_are_refused(options, message):
  given = dict(score=jnp.ones(3), label=jnp.ones(3), weight=jnp.ones(3))
  with pytest.raises(ValueError, match=message):
    losses.pointwise(**{**given, **options})
