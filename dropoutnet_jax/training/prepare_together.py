# SPDX-License-Identifier: Apache-2.0
"""Preparing where a run has several processes.

One reads, splits and encodes while the others wait; all of them train the
teacher, whose tables may be larger than what one of them can hold. The pairs
that it learns from go to the others through the run folder, for a while.
"""

import contextlib
import os

import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax import parallel
from dropoutnet_jax import teacher
from dropoutnet_jax.data import files
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.training import prepare

FILE = 'likes.npz'


def run(
    cfg: config.Config, data_dir: str | None, workdir: str
) -> problem_lib.Problem | None:
  """As `prepare.prepare`; all processes must call this.

  Returns:
    The problem on the process that writes; None on the others, which find it in
    the run folder.

  Raises:
    UserError: on all processes, for whatever is wrong.
  """
  mesh = parallel.make_mesh(cfg.mesh)
  if not prepare.trains_teacher(cfg) or not mesh.is_multi_process:
    return parallel.on_writer(lambda: prepare.prepare(cfg, data_dir, workdir))
  path = os.path.join(workdir, FILE)

  def begin() -> prepare.Begun:
    begun = prepare.begin(cfg, data_dir, workdir)
    _save(begun, path)
    return begun

  begun = parallel.on_writer(begin)
  pairs, num_users, num_items = _load(path) if begun is None else begun.likes
  trained = teacher.train(
      pairs, num_users, num_items, cfg.teacher, cfg.train.seed, mesh
  )

  def finish() -> problem_lib.Problem:
    assert begun is not None
    with contextlib.suppress(FileNotFoundError):
      os.remove(path)
    return prepare.finish(begun, trained)

  return parallel.on_writer(finish)


def _save(begun: prepare.Begun, path: str) -> None:
  pairs, *sizes = begun.likes
  arrays = {'user': pairs.user, 'item': pairs.item}
  if pairs.weight is not None:
    arrays['weight'] = pairs.weight
  for name, size in zip(('num_users', 'num_items'), sizes):
    arrays[name] = np.asarray(size)
  files.save_arrays(path, arrays)


def _load(path: str) -> tuple[schema.Interactions, int, int]:
  arrays = files.load_arrays(path)
  pairs = schema.Interactions(
      arrays['user'], arrays['item'], arrays.get('weight')
  )
  return pairs, int(arrays['num_users']), int(arrays['num_items'])
