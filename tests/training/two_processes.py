# SPDX-License-Identifier: Apache-2.0
"""What two processes do in test_two_processes, one after the other.

  two_processes.py HOST:PORT PROCESS FOLDER

Each has one device. They train every objective, then the teacher; then they
save a table of which each has one half, and one half is damaged. What came out
is in FOLDER: PROCESS.npz.
"""

import os
import pathlib
import pickle
import sys

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np

from dropoutnet_jax import config as config_lib
from dropoutnet_jax import parallel
from dropoutnet_jax import processes
from dropoutnet_jax import teacher
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.training import checkpoints as checkpoints_lib
from dropoutnet_jax.training import runtime as runtime_lib
from dropoutnet_jax.training import state as state_lib
from tests.training import objectives

# Objectives and devices along 'model': rows of batches are split, or of tables.
MODEL = {'blocks': 1, 'published': 2, 'few': 1}
PROBLEM = 'problem.pickle'
TEACHER = config_lib.TeacherConfig(rank=4, num_iterations=3)
TABLE = np.arange(2048.0, dtype=np.float32).reshape(256, 8)
_Arrays = dict[str, np.ndarray]


def train(objective: str, problem: problem_lib.Problem) -> _Arrays:
  """Losses of all steps and the last state."""
  cfg = objectives.make_config(objective, MODEL[objective])
  runtime = runtime_lib.build(cfg, problem)
  state = runtime.fresh_state()
  state, losses = runtime.train_steps()(
      state, runtime.tables, jnp.int32(objectives.STEPS)
  )
  found = {f'{objective}/{name}': x for name, x in losses.items()}
  for name, x in state_lib.by_name(state).items():
    found[f'{objective}/state/{name}'] = x
  return jax.tree.map(np.asarray, parallel.local(found))


def teach(problem: problem_lib.Problem) -> _Arrays:
  """Factors, where each process has half of the fixed side."""
  sizes = len(problem.user.ids), len(problem.item.ids)
  mesh = parallel.make_mesh(config_lib.MeshConfig(model=2))
  found = teacher.train(problem.split.train, *sizes, TEACHER, 0, mesh)
  return {'teacher/user': found.user, 'teacher/item': found.item}


def damage_one_half(folder: pathlib.Path) -> _Arrays:
  """What is restored where the newest half of process 1 is cut."""
  mesh = parallel.make_mesh(config_lib.MeshConfig(model=2))
  saved = checkpoints_lib.Checkpoints(str(folder))
  for step in (1, 2):
    saved.save(parallel.place_tables({'table': step * TABLE}, mesh), step)
  saved.close()
  if parallel.is_writer():
    data = folder / 'checkpoints' / '2' / 'default' / 'ocdbt.process_1'
    for path in (data / 'd').iterdir():
      os.truncate(path, 10)
  parallel.agree()
  again = checkpoints_lib.Checkpoints(str(folder))
  template = parallel.place_tables({'table': TABLE}, mesh)
  restored, step = again.restore_newest(template) or ({}, 0)
  again.close()
  return {'step': np.array(step), 'table': parallel.local(restored['table'])}


def put_back() -> _Arrays:
  """A split table that was changed here, as warm-up curves change counts."""
  mesh = parallel.make_mesh(config_lib.MeshConfig(model=2))
  placed = parallel.place_tables(TABLE, mesh)
  again = parallel.put(parallel.local(placed) + 1, placed.sharding)
  assert again.addressable_data(0).shape == (len(TABLE) // 2, TABLE.shape[1])
  return {'put_back': parallel.local(again)}


def watch_transfers() -> list[int]:
  """Sizes of what processes gather from each other from now on."""
  sizes, gather = [], multihost_utils.process_allgather

  def gather_and_tell(tree, tiled=False):
    sizes.extend(np.size(x) for x in jax.tree.leaves(tree))
    return gather(tree, tiled)

  multihost_utils.process_allgather = gather_and_tell
  return sizes


def main() -> None:
  coordinator, process, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
  processes.initialize(coordinator, 2, process)
  sizes = watch_transfers()
  problem = pickle.loads(pathlib.Path(folder, PROBLEM).read_bytes())
  found = {}
  for objective in MODEL:
    found |= train(objective, problem)
  found |= teach(problem)
  found |= put_back()
  found |= damage_one_half(pathlib.Path(folder))
  found['gathered'] = np.array(sizes, int)
  np.savez(pathlib.Path(folder, f'{process}.npz'), **found)


if __name__ == '__main__':
  main()
