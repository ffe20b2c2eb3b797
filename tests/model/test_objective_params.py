# SPDX-License-Identifier: Apache-2.0
"""Scale, bias and weights that are learnt: where they start, what they do."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.model import objective_params


def _config(normalize=True, **objective):
  given = {'teacher': 0.0, 'pointwise': 1.0, 'pairing': 'interactions'}
  return config.Config(
      objective=config.ObjectiveConfig(**(given | objective)),
      model=config.ModelConfig(normalize=normalize),
  )


def _rows(label=(1, 0, 0, 0), weight=(3, 1, 1, 1)):
  return tables_lib.LabelledRows(
      None, None, jnp.float32(label), jnp.float32(weight)
  )


@pytest.mark.parametrize('temperature', [0.002, 0.05, 0.1, 1.0, 9.0])
def test_logits_start_at_the_temperature_and_the_log_odds(temperature):
  cfg = _config(temperature=temperature)
  params = objective_params.create(cfg, _rows(weight=(2, 1, 1, 2)))
  logit = objective_params.logit(cfg, params)
  # A third of the weight is of reactions.
  score = jnp.array([-1.0, 0.0, 0.5])
  np.testing.assert_allclose(
      logit(score), score / temperature - math.log(2), rtol=1e-4, atol=1e-5
  )
  found = objective_params.describe(logit)
  assert list(found) == ['scale', 'bias']
  np.testing.assert_allclose(found['scale'], 1 / temperature, rtol=1e-4)
  np.testing.assert_allclose(found['bias'], -math.log(2), rtol=1e-4)


def test_odds_that_are_none_start_within_the_bounds():
  for label, sign in ((1, 1), (0, -1)):
    params = objective_params.create(_config(), _rows([label] * 4))
    bias = objective_params.logit(_config(), params).bias
    assert 10 < sign * bias < 18


@pytest.mark.parametrize(
    'normalize, options, names',
    [
        (True, {}, ['bias', 'scale']),
        (True, {'pointwise': 0.0, 'softmax': 1.0}, ['scale']),
        (True, {'pointwise': 0.0, 'teacher': 1.0}, []),
        (True, {'learn_scale': False}, []),
        (False, {}, []),
    ],
)
def test_what_is_learnt(normalize, options, names):
  cfg = _config(normalize, **options)
  params = objective_params.create(cfg, _rows())
  assert sorted(params.get('objective', {})) == names
  assert sorted(objective_params.metric_names(cfg)) == names
  if not names:
    assert not params
    logit = objective_params.logit(cfg, {})
    assert logit == (0.1, None) and logit(3.0) == 3.0 / 0.1
    assert not objective_params.describe(logit)


def test_whatever_the_parameters_logits_are_bounded():
  cfg = _config(scale_bounds=(2.0, 50.0))
  for raw, scale, bias in ((-1e4, 2.0, -20.0), (1e4, 50.0, 20.0)):
    params = {'objective': {'scale': raw, 'bias': raw}}
    found = objective_params.describe(objective_params.logit(cfg, params))
    np.testing.assert_allclose(found['scale'], scale, rtol=1e-5)
    np.testing.assert_allclose(found['bias'], bias, rtol=1e-5)


def _total(params, terms, rows):
  settings = config.ObjectiveConfig(
      pointwise=2.0, softmax=0.5, teacher=0.0, learn_weights=True
  )
  return objective_params.total(settings, terms, rows, params)


def test_weights_start_as_they_are_configured():
  cfg = _config(False, pointwise=2.0, softmax=0.5, learn_weights=True)
  params = objective_params.create(cfg, _rows())
  terms = {'pointwise': jnp.float32(3.0), 'softmax': jnp.float32(5.0)}
  loss, logged = _total(params, terms, {})
  assert loss == 2 * 3 + 0.5 * 5
  assert logged == {'weight/pointwise': 2.0, 'weight/softmax': 0.5}
  assert objective_params.metric_names(cfg) == tuple(logged)


def _variances(one, other):
  found = {'pointwise': jnp.float32(one), 'softmax': jnp.float32(other)}
  return {'objective': {'log_variance': found}}


def test_the_weight_of_a_term_goes_to_the_inverse_of_twice_its_size():
  """Where the slope by s is 0: exp(-s) = 1 / (2 L)."""
  terms = {'pointwise': jnp.float32(3.0), 'softmax': jnp.float32(0.2)}

  @jax.jit
  def descend(params):
    slope = jax.grad(lambda p: _total(p, terms, {})[0])(params)
    return jax.tree.map(lambda p, s: p - 0.3 * s, params, slope)

  params = _variances(0.0, 0.0)
  for _ in range(200):
    params = descend(params)
  loss, logged = _total(params, terms, {})
  np.testing.assert_allclose(logged['weight/pointwise'], 2 / 6, rtol=1e-4)
  np.testing.assert_allclose(logged['weight/softmax'], 0.5 / 0.4, rtol=1e-4)
  expected = sum(
      w * (0.5 + math.log(2 * x) / 2) for w, x in ((2, 3), (0.5, 0.2))
  )
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_a_term_of_nothing_has_a_bounded_weight():
  terms = {'pointwise': jnp.float32(0.0), 'softmax': jnp.float32(0.0)}
  loss, logged = _total(_variances(-1e6, 1e6), terms, {})
  np.testing.assert_allclose(logged['weight/pointwise'], 2 * 100, rtol=1e-4)
  np.testing.assert_allclose(logged['weight/softmax'], 0.5 / 100, rtol=1e-4)
  assert np.isfinite(loss)


def test_a_term_without_rows_has_no_say():
  terms = {'pointwise': jnp.float32(0.0), 'softmax': jnp.float32(1.0)}
  rows = {'pointwise': jnp.float32(0), 'softmax': jnp.float32(3)}
  slope = jax.grad(lambda p: _total(p, terms, rows)[0])(_variances(0.1, 0.2))
  found = slope['objective']['log_variance']
  assert found['pointwise'] == 0 and found['softmax'] != 0
