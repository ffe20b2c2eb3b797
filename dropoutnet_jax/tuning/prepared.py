# SPDX-License-Identifier: Apache-2.0
"""What trials share: prepared data, teacher, sparse part; each made once.

Each is kept under a digest of all that it is computed from, no less and no
more, so that a trial which changes any of that gets its own and every other
one shares. Nothing of the test sets is kept: a trial cannot look at them.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from typing import Any

import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax import teacher
from dropoutnet_jax.data import files
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import sparse_file
from dropoutnet_jax.evaluation import sparse_fit
from dropoutnet_jax.training import prepare
from dropoutnet_jax.tuning import locks


class Prepared:
  """The cache of a study.

  Attributes:
    data_dir: folder with one folder per data set.
  """

  def __init__(self, folder: str, data_dir: str | None):
    """`folder` is of the cache alone, and need not be there."""
    self._folder = folder
    self.data_dir = data_dir

  def fill(self, cfg: config.Config, workdir: str) -> problem_lib.Problem:
    """Puts all that is prepared into a run folder; returns the problem.

    Args:
      cfg: of the trial.
      workdir: an existing folder. Its files are links to those of the cache,
        which are never changed in place.

    Raises:
      UserError: as `prepare.prepare`, and as `sparse_fit.fit`.
    """
    source = self._problem(cfg)
    problem = problem_lib.load(source)
    prepare.check_signal(cfg, problem)
    names = sorted(os.listdir(source))
    names.remove(problem_lib.FILE)
    for name in (*names, problem_lib.FILE):  # the last one says: prepared
      files.link(os.path.join(source, name), os.path.join(workdir, name))
    if cfg.model.sparse.enabled:
      part = self._sparse_part(cfg, problem, os.path.basename(source))
      for name in os.listdir(part):
        files.link(os.path.join(part, name), os.path.join(workdir, name))
    return problem

  def counts(self) -> dict[str, int]:
    """How many of each kind are kept."""
    names = os.listdir(self._folder) if os.path.isdir(self._folder) else []
    whole = [name for name in names if '.' not in name]
    kinds = ('problem', 'teacher', 'sparse')
    return {
        kind: sum(name.startswith(f'{kind}-') for name in whole)
        for kind in kinds
    }

  def problem(self, cfg: config.Config) -> problem_lib.Problem:
    """As `fill`, and no folder is filled."""
    problem = problem_lib.load(self._problem(cfg))
    prepare.check_signal(cfg, problem)
    return problem

  def _problem(self, cfg: config.Config) -> str:
    def make(folder: str) -> None:
      found = prepare.prepare(cfg, self.data_dir, folder, self._teacher)
      problem_lib.save(problem_lib.without_tests(found), folder)

    return self._once(f'problem-{_digest(prepare.problem_settings(cfg))}', make)

  def _sparse_part(
      self, cfg: config.Config, problem: problem_lib.Problem, of: str
  ) -> str:
    settings, seed = cfg.model.sparse, cfg.train.seed

    def make(folder: str) -> None:
      sparse_file.save(sparse_fit.fit(problem, settings, seed), folder)

    read = dataclasses.asdict(settings)
    for name in ('tower_weight', 'teacher_weight'):  # of what is beside it
      del read[name]
    key = _digest([of, read, seed])
    return self._once(f'sparse-{key}', make)

  def _teacher(
      self,
      interactions: schema.Interactions,
      num_users: int,
      num_items: int,
      settings: config.TeacherConfig,
      seed: int,
  ) -> schema.Factors:
    """As `teacher.train`: a function of nothing but these."""
    given = (interactions, num_users, num_items, settings, seed)

    def make(folder: str) -> None:
      factors = teacher.train(*given)
      files.save_arrays(os.path.join(folder, 'factors.npz'), vars(factors))

    numbers = (num_users, num_items, dataclasses.asdict(settings), seed)
    key = _digest(numbers, vars(interactions))
    folder = self._once(f'teacher-{key}', make)
    arrays = files.load_arrays(os.path.join(folder, 'factors.npz'))
    names = [field.name for field in dataclasses.fields(schema.Factors)]
    return schema.Factors(**{name: arrays[name] for name in names})

  def _once(self, name: str, make: Any) -> str:
    """The folder of a part; made by the first process that asks for it."""
    folder = os.path.join(self._folder, name)
    with locks.wait_for(f'{folder}.lock'):
      if not os.path.isdir(folder):
        temporary = folder + files.TEMPORARY
        shutil.rmtree(temporary, ignore_errors=True)  # of one that was killed
        os.makedirs(temporary)
        try:
          make(temporary)
          os.rename(temporary, folder)
        finally:
          shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _digest(
    values: Any, arrays: dict[str, np.ndarray | None] | None = None
) -> str:
  """Of JSON, and of arrays by name; None is an array that is not there."""
  found = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
  for name, array in (arrays or {}).items():
    if array is not None:
      found.update(f'{name} {array.dtype} {array.shape}'.encode())
      found.update(np.ascontiguousarray(array).tobytes())
  return found.hexdigest()[:16]
