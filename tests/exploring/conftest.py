# SPDX-License-Identifier: Apache-2.0
"""A run whose new items tell of its scores."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import runtime as runtime_lib
from tests import compilation
from tests import spared
from tests import tiny_run


@pytest.fixture(scope='session', name='validated')
def fixture_validated():
  """Configuration, problem and scorer of a run with new items to validate."""
  cfg = tiny_run.changed(
      data={'cold_item_share': 0.3}, dropout={'user_transform_rate': 0.0}
  )
  with compilation.quick_compilation(), spared.one_device():
    problem = prepare.prepare(cfg, None, None)
    runtime = runtime_lib.build(cfg, problem, num_devices=1)
    state = runtime.fresh_state()
    rng = np.random.default_rng(0)
    draw = lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32)
    state = dataclasses.replace(state, params=jax.tree.map(draw, state.params))
    return cfg, problem, runtime.scorer(state)
