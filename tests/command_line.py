# SPDX-License-Identifier: Apache-2.0
"""`python run.py ...` within the process of the tests, and a tiny experiment.

To start Python and JAX takes longer than most of what is tested; here every
call gets run.py anew, with flags of its own, and nothing else.
"""

from collections.abc import Mapping
import contextlib
import importlib.util
import io
import os
import pathlib
import shutil
import sys
from typing import Any, NamedTuple
import warnings

from absl import flags
from absl import logging
import numpy as np
import pytest

from tests import compilation
from tests import spared

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Factors from files: nothing has to be compiled before the first step.
EXPERIMENT = """
from dropoutnet_jax import config


def get_config():
  feature = config.Feature
  world = config.SyntheticConfig(
      num_users=60, num_items=80, likes_per_user=12.0
  )
  return config.Config(
      name='tiny',
      data=config.DataConfig(
          warm_share=0.0,
          validation='return',
          drop_leaks=True,
          synthetic=world,
      ),
      features=config.FeaturesConfig(
          user=[feature(column='region', kind='category')],
          item=[
              feature(column='genre', kind='category'),
              feature(column='tags', rank=4),
          ],
      ),
      teacher=config.TeacherConfig(
          source='file',
          rank=4,
          user_file='factors.npz',
          item_file='factors.npz',
      ),
      model=config.ModelConfig(tower='paper', hidden=(8,), rank=4),
      train=config.TrainConfig(
          batch_size=256,
          num_steps=4,
          steps_per_dispatch=2,
          log_every=2,
          eval_every=2,
          checkpoint_every=2,
      ),
      evaluation=config.EvaluationConfig(
          cutoffs=(5,),
          baselines=('popularity',),
          warm_up_counts=(0, 2),
          bootstrap=50,
      ),
  )
"""


class Ended(NamedTuple):
  """How a command ended, and what it printed."""

  status: Any
  out: str
  err: str


def write_experiment(folder: pathlib.Path) -> None:
  """Writes tiny.py, and the factors that it reads, into a folder."""
  (folder / 'tiny.py').write_text(EXPERIMENT)
  rng = np.random.default_rng(0)
  draw = lambda rows: rng.normal(size=(rows, 4)).astype(np.float32)
  np.savez(folder / 'factors.npz', user=draw(60), item=draw(80))


def load() -> Any:
  """run.py as a module of its own."""
  spec = importlib.util.spec_from_file_location('run', ROOT / 'run.py')
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def call(
    *arguments: str, compile_cache: str = '', all_devices: bool = False
) -> Ended:
  """Runs `python run.py ARGUMENTS`; exceptions that it lets out come out.

  On one device, unless it is to take all of them, as outside of the tests.
  """
  argv = ['run.py', f'--compile_cache={compile_cache}', *arguments]
  known, argv_before = set(flags.FLAGS), sys.argv
  verbosity, bytecode = logging.get_verbosity(), sys.dont_write_bytecode
  out, err = io.StringIO(), io.StringIO()
  sys.argv, sys.dont_write_bytecode = argv, True
  status: Any = 0
  try:
    with (
        compilation.quick_compilation(),
        contextlib.nullcontext() if all_devices else spared.one_device(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
      # ml_collections loads experiments with a deprecated method.
      warnings.filterwarnings('ignore', 'the load_module', DeprecationWarning)
      module = load()
      module._main_or_exit(module._parse_or_exit(argv))
  except SystemExit as error:
    status = error.code
  finally:
    sys.argv, sys.dont_write_bytecode = argv_before, bytecode
    for name in set(flags.FLAGS) - known:
      delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()
    logging.set_verbosity(verbosity)
  return Ended(status, out.getvalue(), err.getvalue())


def check(ended: Ended, status: int, message: str) -> None:
  """Checks that a command ended with this status and one such message."""
  assert message in ended.err
  assert ended.status == status
  assert ended.err.startswith('run.py: ')
  assert ended.err.count('run.py: ') == 1
  assert 'Traceback' not in ended.err + ended.out
  assert ended.err.endswith('\n') and len(ended.err) < 1000


def write(
    folder: pathlib.Path, files: Mapping[str, str | bytes | None]
) -> None:
  """Writes content by path; None deletes a file or a folder."""
  for name, content in files.items():
    path = folder / name
    if content is None and path.is_dir():
      shutil.rmtree(path)
    elif content is None:
      path.unlink()
    else:
      path.parent.mkdir(parents=True, exist_ok=True)
      is_text = isinstance(content, str)
      path.write_bytes(content.encode() if is_text else content)


_FINISHED: list[pathlib.Path] = []


def finished_run(factory: pytest.TempPathFactory) -> pathlib.Path:
  """The run folder of tiny.py, trained to the end, once for all tests."""
  if _FINISHED:
    return _FINISHED[0]
  folder = factory.mktemp('finished')
  write_experiment(folder)
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    ended = call('--config=tiny.py', '--workdir=run')
  assert (ended.status, ended.err) == (0, ''), ended.err
  (folder / 'out.txt').write_text(ended.out)
  _FINISHED.append(folder / 'run')
  return _FINISHED[0]


def snapshot(folder: pathlib.Path) -> dict[str, bytes | None]:
  """Every file below a folder with its content, and every folder."""
  found: dict[str, bytes | None] = {}
  for path in sorted(folder.rglob('*')):
    if path.name != '.lock':  # opened for every start
      name = os.path.relpath(path, folder)
      found[name] = None if path.is_dir() else path.read_bytes()
  return found
