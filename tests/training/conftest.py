# SPDX-License-Identifier: Apache-2.0
"""One tiny problem for all tests of training, and programs compiled once."""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any

import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.data import impressions
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import runtime as runtime_lib
from tests import compilation
from tests import spared
from tests import tiny_run


@pytest.fixture(scope='package', autouse=True)
def quick_compilation() -> Iterator[None]:
  """For all tests of training."""
  with compilation.quick_compilation():
    yield


@pytest.fixture(scope='session')
def problem() -> problem_lib.Problem:
  """What every tiny run prepares."""
  with spared.one_device():
    return prepare.prepare(tiny_run.get_config(), None, None)


@pytest.fixture(scope='session')
def labelled(problem: problem_lib.Problem) -> problem_lib.Problem:
  """The same with two rows in vain for each like, in sessions."""
  likes = problem.split.train
  rng = np.random.default_rng(0)
  size = 2 * len(likes)
  train = schema.Interactions(
      np.concatenate([rng.permutation(np.repeat(likes.user, 2)), likes.user]),
      np.concatenate([rng.choice(likes.item, size), likes.item]),
      label=np.repeat(np.float32([0, 1]), [size, len(likes)]),
      session=rng.integers(0, 4, size + len(likes)),
  )
  return dataclasses.replace(problem, labelled=impressions.Labelled(train))


def reuse(
    runtime: runtime_lib.Runtime, cfg: config.Config
) -> runtime_lib.Runtime:
  """A runtime of its own settings whose programs are those of another."""
  copy = dataclasses.replace(runtime, cfg=cfg)
  for name in ('_train_steps', '_create_state'):
    vars(copy)[name] = getattr(runtime, name)
  return copy


@pytest.fixture(scope='session')
def compiled(problem: problem_lib.Problem) -> runtime_lib.Runtime:
  """The tiny experiment on one device; it compiles once."""
  return runtime_lib.build(tiny_run.get_config(), problem, num_devices=1)


@pytest.fixture
def make_runtime(
    compiled: runtime_lib.Runtime,
) -> Callable[..., runtime_lib.Runtime]:
  """Makes a runtime whose loop differs; what is compiled must not."""

  def make(**train: Any) -> runtime_lib.Runtime:
    cfg = tiny_run.changed(train={'checkpoint_every': 100} | train)
    return reuse(compiled, cfg)

  return make


@pytest.fixture(scope='session')
def launcher(tmp_path_factory: pytest.TempPathFactory) -> tiny_run.Launcher:
  """Starts real processes of run.py."""
  return tiny_run.Launcher(tmp_path_factory.mktemp('processes'))
