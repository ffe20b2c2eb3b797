# SPDX-License-Identifier: Apache-2.0
"""Options of the terms on labels against loops over what may be compared."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.model import band
from dropoutnet_jax.model import batch_softmax
from dropoutnet_jax.model import label_objective
from dropoutnet_jax.model import objective_params
from dropoutnet_jax.model import rolled
from tests.model import slow_losses

pytestmark = pytest.mark.usefixtures('quick_compilation')
SIZE, RANK, SAMPLED, SHOWN, ITEMS = 8, 3, 5, 2, 6
KEY = jax.random.key(0)


def _make(seed=0, padding=0):
  """A batch with all that there can be; the last rows are padding."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  is_real = np.arange(SIZE) < SIZE - padding
  rows = tables_lib.LabelledRows(
      jnp.asarray(rng.integers(0, 3, SIZE), jnp.int32),
      jnp.asarray(rng.integers(0, ITEMS, SIZE), jnp.int32),
      jnp.asarray(rng.random(SIZE) < 0.5, jnp.float32),
      jnp.asarray(rng.integers(1, 4, SIZE) * is_real, jnp.float32),
      jnp.asarray(rng.integers(0, 2, SIZE), jnp.int32),
      jnp.asarray(is_real) if padding else None,
  )
  liked = rng.random((3, ITEMS)) < 0.3
  history = np.full((3, ITEMS), -1, np.int32)
  for user in range(3):
    own = np.flatnonzero(liked[user])
    history[user, : len(own)] = own
  sampled = jnp.asarray(rng.integers(0, ITEMS, SAMPLED), jnp.int32)
  across = np.concatenate([rows.item, sampled])
  return label_objective.Batch(
      draw(SIZE, RANK),
      draw(SIZE, RANK),
      rows,
      jnp.asarray(rng.uniform(-4, 0, SIZE), jnp.float32),
      jnp.asarray(history)[rows.user],
      jnp.asarray(liked[rows.user][:, across]),
      batch_softmax.Sampled(draw(SAMPLED, RANK), sampled, -draw(SAMPLED) ** 2),
      label_objective.Shown(
          draw(SIZE, SHOWN, RANK), jnp.asarray(rng.random((SIZE, SHOWN)) < 0.7)
      ),
  )


def _settings(*terms, **options):
  given = {'teacher': 0.0, 'pairing': 'interactions', 'num_negatives': 7}
  given |= dict.fromkeys(terms, 1.0)
  return config.ObjectiveConfig(**(given | options))


def _term(term, batch, temperature=0.5, **options):
  found = label_objective.label_terms(
      _settings(term, **options),
      objective_params.Logit(temperature),
      batch,
      KEY,
  )
  assert set(found.value) == set(found.rows) == {term}
  return float(found.value[term]), int(found.rows[term])


def _softmax(batch, **options):
  """The softmax as a loop over sets of candidates: (value, rows)."""
  s = _settings('softmax', **options)
  rows = jax.device_get(batch.rows)
  is_real = np.ones(SIZE, bool) if rows.is_real is None else rows.is_real
  num = s.num_negatives
  if s.shifts == 'consecutive' and num:
    shifts = band.first_shift(KEY, SIZE, num) + np.arange(num)
  else:
    shifts = rolled.roll_shifts(KEY, SIZE, num, s.shifts == 'with_replacement')
  score, negative = [], []
  user, item = np.float64(batch.user), np.float64(batch.item)
  for b in range(SIZE):
    known = set() if batch.history is None else set(batch.history[b].tolist())
    counts = lambda i: i not in known and (
        not s.mask_same_item or i != rows.item[b]
    )
    found = []
    for shift in shifts.tolist():
      other = (b - shift) % SIZE
      if counts(int(rows.item[other])) and is_real[other]:
        found.append(user[b] @ item[other])
    if batch.sampled is not None:
      for emb, number in zip(*batch.sampled[:2]):
        if counts(int(number)):
          found.append(user[b] @ np.float64(emb))
    if batch.shown is not None:
      for emb, real in zip(batch.shown.emb[b], batch.shown.is_real[b]):
        if real:
          found.append(user[b] @ np.float64(emb))
    if s.num_hard:
      found = sorted(found, reverse=True)[: s.num_hard]
    score.append(user[b] @ item[b])
    negative.append(found)
  weight = np.float64(rows.weight) * (rows.label > 0)
  value = slow_losses.support_vector_softmax(
      score, negative, weight, gamma=2.0, margin=s.margin, t=s.support_vector
  )
  return value, sum(w > 0 and bool(n) for w, n in zip(weight, negative))


@pytest.mark.parametrize(
    'options, left',
    [
        ({'num_negatives': 0}, ()),
        ({'num_hard': 2}, ()),
        ({'shifts': 'distinct'}, ('sampled', 'shown')),
        ({'mask_same_item': False}, ('history', 'sampled', 'shown')),
        ({'shifts': 'with_replacement'}, ('sampled', 'shown')),
        ({'margin': 0.1, 'support_vector': 1.2}, ('sampled', 'shown')),
    ],
    ids=str,
)
@pytest.mark.parametrize('padding', [0, 3])
def test_softmax_is_a_loop_over_its_candidates(options, left, padding):
  batch = _make(1, padding)._replace(**dict.fromkeys(left))
  value, rows = _term('softmax', batch, **options)
  expected, count = _softmax(batch, **options)
  assert value == pytest.approx(expected, rel=1e-5) and rows == count > 0


def test_hard_negatives_get_all_of_the_slope():
  batch = _make(2)
  slope = jax.grad(
      lambda emb: label_objective.label_terms(
          _settings('softmax', num_negatives=0, num_hard=1),
          objective_params.Logit(0.5),
          batch._replace(sampled=batch.sampled._replace(emb=emb), shown=None),
          KEY,
      ).value['softmax']
  )(batch.sampled.emb)
  moved = np.abs(slope).sum(axis=1) > 0
  # At most one item of each positive row.
  assert 0 < moved.sum() <= int(jnp.sum(batch.rows.label))


@pytest.mark.parametrize('within', ['batch', 'user', 'session'])
@pytest.mark.parametrize(
    'options',
    [{}, {'pairwise_weights': False}, {'pairwise_label_margin': True}],
    ids=str,
)
def test_pairs_within(within, options):
  batch = _make(3, padding=1)
  rows = jax.device_get(batch.rows)
  session = {'batch': None, 'user': rows.user, 'session': rows.session}[within]
  weight = np.float64(rows.weight)
  if options.get('pairwise_weights') is False:
    weight = np.float64(weight > 0)
  value, count = _term('pairwise', batch, pairwise_within=within, **options)
  score = np.sum(np.float64(batch.user) * np.float64(batch.item), axis=1)
  expected = slow_losses.pairwise(
      score,
      rows.label,
      weight,
      temperature=0.5,
      session=session,
      label_margin=options.get('pairwise_label_margin', False),
  )
  assert value == pytest.approx(expected, rel=1e-5)
  assert count == len(slow_losses.list_pairs(rows.label, weight, session)) > 0


@pytest.mark.parametrize(
    'log_q, options', [(1.0, {}), (0.5, {'mask_same_item': False}), (0.0, {})]
)
@pytest.mark.parametrize('padding', [0, 3])
def test_in_batch_softmax_with_a_sample(log_q, options, padding):
  batch = _make(4, padding)
  rows = jax.device_get(batch.rows)
  value, count = _term('in_batch_softmax', batch, log_q=log_q, **options)
  emb, number, sampled_q = batch.sampled
  expected = slow_losses.in_batch_softmax(
      np.float64(batch.user),
      np.float64(batch.item),
      np.float64(rows.weight) * (rows.label > 0),
      0.5,
      log_q * np.float64(batch.log_frequency),
      None if options else rows.item,
      np.asarray(batch.known),
      rows.weight > 0,
      (np.float64(emb), number, log_q * np.float64(sampled_q)),
  )
  assert value == pytest.approx(expected, rel=1e-5)
  assert 0 < count <= np.sum((rows.label > 0) & (rows.weight > 0))


TERMS = ('pointwise', 'pairwise', 'softmax', 'in_batch_softmax')


def test_a_learnt_scale_has_a_slope_and_the_same_values():
  batch, settings = _make(5)._replace(sampled=None, shown=None), _settings(
      *TERMS
  )
  batch = batch._replace(known=batch.known[:, :SIZE])

  def terms(scale, bias):
    logit = objective_params.Logit(1 / scale, bias)
    return label_objective.label_terms(settings, logit, batch, KEY).value

  terms_and_slopes = jax.jit(
      lambda *x: (terms(*x), jax.jacrev(terms, argnums=(0, 1))(*x))
  )
  at = lambda scale: terms_and_slopes(jnp.float32(scale), jnp.float32(0.0))
  (below, _), (values, slopes), (above, _) = at(1.9), at(2.0), at(2.1)
  for term in TERMS:
    fixed, _ = _term(term, batch)
    assert float(values[term]) == pytest.approx(fixed, rel=1e-6)
    by_scale, by_bias = slopes[term]
    expected = float(above[term] - below[term]) / 0.2
    assert float(by_scale) == pytest.approx(expected, rel=0.02)
    assert (by_bias != 0) == (term == 'pointwise')


def test_the_bias_is_of_the_pointwise_term():
  batch = _make(6)
  rows = jax.device_get(batch.rows)
  found = label_objective.label_terms(
      _settings('pointwise'),
      objective_params.Logit(0.5, jnp.float32(-math.log(3))),
      batch,
      KEY,
  )
  score = np.sum(np.float64(batch.user) * np.float64(batch.item), axis=1)
  expected = slow_losses.pointwise(
      2 * score - math.log(3), rows.label, np.float64(rows.weight)
  )
  assert float(found.value['pointwise']) == pytest.approx(expected, rel=1e-5)
