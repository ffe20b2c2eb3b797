# SPDX-License-Identifier: Apache-2.0
"""What two processes do in test_two_runs, one run after the other.

  two_runs.py HOST:PORT PROCESS FOLDER

Each has two devices, and each run is the whole command `train`; at last they
embed the rows of a folder. How many rows of interactions were read at a time,
and which processes had devices in solving content ridge, is in FOLDER:
PROCESS.json.
"""

import functools
import json
import os
import pathlib
import signal
import sys
from typing import Self

from dropoutnet_jax import commands
from dropoutnet_jax import config as config_lib
from dropoutnet_jax import errors
from dropoutnet_jax import joint
from dropoutnet_jax import processes
from dropoutnet_jax import serving_commands
from dropoutnet_jax.data import row_file
from dropoutnet_jax.evaluation import content_ridge
from dropoutnet_jax.evaluation import split_ridge
from dropoutnet_jax.training import signals
from tests import streamed_tables as toy

# Runs in FOLDER. Of the first two one process does the other part.
BEGUN_BY_ONE, BEGUN_BY_TWO = 'begun_by_one', 'begun_by_two'
LABELLED = 'labelled'
NEW_ITEMS, EMBEDDED = 'new_items', 'embedded'

# Of any number of rows content ridge is by conjugate gradients.
SOLVER = functools.partial(content_ridge.Solver, max_gram=1)


def labelled_config(folder: pathlib.Path, model: int) -> config_lib.Config:
  """Labels, a teacher, a sparse part and all baselines; rows on the devices."""
  cfg = toy.make_config(
      folder,
      mesh={'model': model},
      data={'mode': 'resident', 'cold_user_share': 0.0},
      features={'preference': 'factors'},
      teacher={'rank': 4, 'num_iterations': 2},
      objective={'teacher': 1.0, 'mask_known': True},
      evaluation={
          'baselines': config_lib.EvaluationConfig().baselines,
          'ridge_tolerance': 1e-6,
      },
  )
  cfg.features.item.append(config_lib.Feature(column='tags'))
  cfg.model.sparse.enabled = True
  cfg.validate()
  return cfg


class Told(signals.StopRequest):
  """A signal comes while the first steps are under way."""

  def __enter__(self) -> Self:
    super().__enter__()
    os.kill(os.getpid(), signal.SIGTERM)
    return self


def begin(cfg: config_lib.Config, workdir: pathlib.Path, is_told: bool) -> None:
  """Trains until a signal has come, to this process or another one."""
  usual = signals.StopRequest
  if is_told:
    signals.StopRequest = Told  # type: ignore[misc]
  try:
    commands.train(cfg, str(workdir))
  except errors.Interrupted:
    return
  finally:
    signals.StopRequest = usual  # type: ignore[misc]
  raise AssertionError('no signal has stopped it')


def count_rows() -> list[int]:
  """Numbers of rows that are read from files from now on."""
  sizes, read = [], row_file.RowFile.read

  def read_and_tell(self, places):
    sizes.append(len(places))
    return read(self, places)

  row_file.RowFile.read = read_and_tell  # type: ignore[method-assign]
  return sizes


def watch_solves() -> list[list[int]]:
  """Processes of the devices that solve for content ridge from now on."""
  found, solve = [], split_ridge._conjugate_gradients

  def solve_and_tell(nonzeros, *given):
    (here,) = {x.data.shape[0] for x in nonzeros[0].addressable_shards}
    assert here == 1  # rows of one device
    devices = nonzeros[0].sharding.device_set
    found.append(sorted({device.process_index for device in devices}))
    return solve(nonzeros, *given)

  split_ridge._conjugate_gradients = solve_and_tell
  return found


def main() -> None:
  coordinator, process, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
  path = pathlib.Path(folder)
  processes.initialize(coordinator, 2, process)
  cfg = toy.make_config(path)
  sizes = count_rows()
  commands.train(cfg, str(path / BEGUN_BY_ONE))
  told = {'rows': list(sizes)}
  begin(cfg, path / BEGUN_BY_TWO, is_told=process == 1)
  content_ridge.Solver = SOLVER  # type: ignore[misc, assignment]
  told['solves'] = watch_solves()
  commands.train(labelled_config(path, model=2), str(path / LABELLED))
  assert not joint._objects  # with the ridges their parts are gone
  (path / f'{process}.json').write_text(json.dumps(told))
  serving_commands.embed(
      str(path / LABELLED), str(path / EMBEDDED), items=str(path / NEW_ITEMS)
  )


if __name__ == '__main__':
  main()
