# SPDX-License-Identifier: Apache-2.0
"""One tiny problem for all tests of training, and programs compiled once."""

from collections.abc import Iterator
import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import runtime as runtime_lib
from tests import tiny_run


@pytest.fixture(scope='package', autouse=True)
def quick_compilation() -> Iterator[None]:
  """Half the compilation time; what is computed stays the same."""
  before = jax.config.read('jax_disable_most_optimizations')
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', before)


@pytest.fixture(scope='session')
def problem() -> problem_lib.Problem:
  """What every tiny run prepares."""
  return prepare.prepare(tiny_run.get_config(), None, None)


@pytest.fixture(scope='session')
def launcher(tmp_path_factory: Any) -> tiny_run.Launcher:
  return tiny_run.Launcher(tmp_path_factory.mktemp('runs'))
