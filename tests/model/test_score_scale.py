# SPDX-License-Identifier: Apache-2.0
"""Learnt scale and bias stay within bounds and start where asked."""

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax.model import score_scale


def test_scale_by_hand():
  scale = lambda raw: score_scale.bounded_scale(jnp.float32(raw), 1.0, 100.0)
  np.testing.assert_allclose(scale(0.0), 10.0, rtol=1e-6)  # geometric mean
  np.testing.assert_allclose(scale(1e4), 100.0, rtol=1e-6)
  np.testing.assert_allclose(scale(-1e4), 1.0, rtol=1e-6)
  third = np.log(0.25 / 0.75)  # sigmoid is 1/4
  np.testing.assert_allclose(scale(third), 100**0.25, rtol=1e-5)


@hypothesis.given(
    low=st.floats(1e-3, 10),
    ratio=st.floats(1.01, 1e4),
    raw=st.floats(-1e4, 1e4),
)
@hypothesis.settings(max_examples=50)
def test_scale_never_leaves_its_bounds(low, ratio, raw):
  high = low * ratio
  scale, slope = jax.value_and_grad(score_scale.bounded_scale)(raw, low, high)
  assert np.float32(low) <= scale <= np.float32(high)
  assert np.isfinite(slope) and slope >= 0


@pytest.mark.parametrize('scale', [0.6, 1.0, 5.0, 20.0, 99.0])
def test_raw_scale_is_the_inverse(scale):
  raw = score_scale.raw_scale(scale, 0.5, 100.0)
  got = score_scale.bounded_scale(raw, 0.5, 100.0)
  np.testing.assert_allclose(got, scale, rtol=1e-5)


def test_bias_is_the_parameter_near_zero_and_bounded():
  bias = lambda raw: score_scale.bounded_bias(raw, 10.0)
  np.testing.assert_allclose(bias(0.1), 0.1, rtol=1e-3)
  assert bias(0.0) == 0 and bias(1e4) == 10 and bias(-1e4) == -10
  assert jax.grad(bias)(0.0) == 1


@pytest.mark.parametrize(
    'call, message',
    [
        (lambda: score_scale.bounded_scale(0.0, 0.0, 1.0), 'low is 0.0; it mu'),
        (lambda: score_scale.bounded_scale(0.0, 2.0, 2.0), 'high is 2.0; .*ab'),
        (
            lambda: score_scale.raw_scale(5.0, 1.0, 5.0),
            'scale is 5.0; .* above',
        ),
        (lambda: score_scale.raw_scale(2.0, 3.0, 1.0), 'high is 1.0'),
        (lambda: score_scale.bounded_bias(0.0, 0.0), 'bound is 0.0'),
    ],
)
def test_wrong_bounds_are_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()
