# SPDX-License-Identifier: Apache-2.0
"""Eight CPU devices and no silent broadcasting, set before any test runs."""

from collections.abc import Iterator
import gc
import os
import pathlib
import shutil

import hypothesis
import jax
import psutil
import pytest
import scipy.linalg  # noqa: F401, loads a BLAS of its own
import threadpoolctl

from tests import command_line
from tests import compilation
from tests import scheduling
from tests import spared

# Read with the first use of a device, here and in the processes that tests
# start. Eight devices on few and busy cores may be late for a collective, and
# XLA would abort the process after 40 s. Without its newest code generator it
# compiles in a third of the time, which is most of that of the tests.
os.environ['XLA_FLAGS'] = ' '.join(
    [
        os.environ.get('XLA_FLAGS', ''),
        '--xla_cpu_collective_call_terminate_timeout_seconds=600',
        '--xla_cpu_collective_timeout_seconds=600',
        '--xla_cpu_use_fusion_emitters=false',
    ]
)
gc.disable()  # until all is imported; see pytest_collection_finish
jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')
# A busy machine is no failure, and two runs of the suite try the same cases.
hypothesis.settings.register_profile(
    'project',
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile('project')


_MANY_BYTES = 3 << 29  # of one of the processes that share the files


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Long files first, for processes that share the files."""
  scheduling.sort(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(
    config: pytest.Config, log: object
) -> scheduling.Scheduling:
  """As `--dist=loadfile`, and some folders stay together."""
  return scheduling.Scheduling(config, log)


def pytest_collection_finish() -> None:
  """What is imported by now stays."""
  gc.enable()
  spared.collect_rarely()


@pytest.fixture(scope='module', autouse=True)
def bounded_memory() -> Iterator[None]:
  """Forgets compiled programs between files when they are gigabytes."""
  yield
  if psutil.Process().memory_info().rss > _MANY_BYTES:
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope='session', autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> None:
  """What one process has compiled the others read, and those that they start.

  The folder is of this run of the suite alone.
  """
  folder = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:
    folder = folder.parent
  compilation.keep_programs(folder / 'xla')


@pytest.fixture(scope='session', autouse=True)
def one_thread() -> Iterator[None]:
  """Of BLAS in each process: those of one per core would get in their way."""
  with threadpoolctl.threadpool_limits(1, 'blas'):
    yield


@pytest.fixture(scope='session', autouse=True)
def no_pictures() -> Iterator[None]:
  """In reports, but for tests that ask for `pictures`."""
  with spared.draw_nothing():
    yield


@pytest.fixture(scope='module')
def pictures() -> Iterator[None]:
  """For all tests of a file: reports have pictures."""
  with spared.draw():
    yield


@pytest.fixture(scope='module')
def one_device() -> Iterator[None]:
  """For all tests of a file: runs take one device of eight."""
  with spared.one_device():
    yield


@pytest.fixture(scope='module')
def quick_compilation() -> Iterator[None]:
  """For all tests of a file."""
  with compilation.quick_compilation():
    yield


@pytest.fixture(scope='session')
def data_dir() -> pathlib.Path:
  """The folder with real data sets; skips the test where there is none."""
  value = os.environ.get('DROPOUTNET_DATA', '')
  if not value:
    pytest.skip(
        'needs real data: set DROPOUTNET_DATA to a folder with citeulike-a, '
        'citeulike-t and ml-100k'
    )
  folder = pathlib.Path(value).absolute()
  # A wrong folder is a mistake; to skip would hide it behind a green run.
  if not folder.is_dir():
    pytest.fail(f'DROPOUTNET_DATA is {value!r}, which is not a folder')
  return folder


@pytest.fixture
def folder(tmp_path, monkeypatch) -> pathlib.Path:
  """The current folder, with tiny.py in it."""
  monkeypatch.chdir(tmp_path)
  command_line.write_experiment(tmp_path)
  return tmp_path


@pytest.fixture
def finished(folder, tmp_path_factory) -> pathlib.Path:
  """run/, a finished run of tiny.py."""
  shutil.copytree(command_line.finished_run(tmp_path_factory), folder / 'run')
  return folder / 'run'
