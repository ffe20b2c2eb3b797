# SPDX-License-Identifier: Apache-2.0
"""Both sides of a comparison on a tiny problem."""

from collections.abc import Iterator
import copy
import importlib

import jax
import pytest

from benchmarks import jax_dropoutnet
from dropoutnet_jax import parallel
from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import runtime as runtime_lib
from tests import compilation
from tests.benchmarks import tiny_task


@pytest.fixture(scope='package', autouse=True)
def quick_compilation() -> Iterator[None]:
  """For all tests of the benchmarks."""
  with compilation.quick_compilation():
    yield


@pytest.fixture(scope='module')
def problem():
  return prepare.prepare(tiny_task.get_config(), None, None)


@pytest.fixture(scope='module')
def runtime(problem):
  return runtime_lib.build(tiny_task.get_config(), problem, num_devices=1)


@pytest.fixture(scope='module')
def untrained(runtime):
  """Our side and, on the host, its state before the first step."""
  side = jax_dropoutnet.JaxDropoutNet(runtime)
  return side, jax.device_get(side._state)


@pytest.fixture
def our_side(runtime, untrained):
  """Our side before its first step; compiled once for all tests."""
  side, state = copy.copy(untrained[0]), untrained[1]
  side._state = parallel.place(state, runtime.mesh)
  return side


@pytest.fixture(scope='module')
def peer():
  """The PyTorch module; skips where PyTorch is not installed."""
  torch = pytest.importorskip('torch', reason="needs pip install '.[bench]'")
  torch.set_num_threads(1)  # of such small arrays threads make nothing faster
  return importlib.import_module('benchmarks.torch_dropoutnet')
