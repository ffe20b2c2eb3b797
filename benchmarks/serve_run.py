# SPDX-License-Identifier: Apache-2.0
"""A run of any size to serve, made without training: its towers are random.

What a service does costs the same whatever the towers learnt. Users and items
are content alone, so that two items of the same content score alike, and
whoever wants one of them must get the other.
"""

import dataclasses
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from dropoutnet_jax import config
from dropoutnet_jax.training import checkpoints
from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import run_folder
from dropoutnet_jax.training import runtime as runtime_lib

WIDTH = 32  # of the vector that is the content of a row
_KINDS = ('red', 'green', 'blue')
_PAIRS_PER_USER = 10
_COLD = 0.1  # of the items


@dataclasses.dataclass(frozen=True)
class Sizes:
  """How large a run is; rank and hidden are widths of its towers."""

  users: int = 20_000
  items: int = 100_000
  rank: int = 64
  hidden: int = 64


def content(side: str, row: int) -> dict[str, Any]:
  """The content of one row, as JSON; the tables hold the same."""
  vector = np.random.default_rng([side == 'item', row]).normal(size=WIDTH)
  return {
      'vector': [float(np.float32(x)) for x in vector],
      'kind': _KINDS[row % len(_KINDS)],
  }


def make(folder: pathlib.Path, sizes: Sizes) -> pathlib.Path:
  """Writes tables and a run folder with random towers, unless it is there."""
  finished = folder / f'run-{"-".join(map(str, dataclasses.astuple(sizes)))}'
  if finished.is_dir():
    return finished
  workdir = finished.with_suffix('.tmp')  # a half-made one is made anew
  shutil.rmtree(workdir, ignore_errors=True)
  cfg = make_config(folder, sizes)
  _write_tables(folder, sizes)
  with run_folder.open_folder(str(workdir), cfg):
    problem = prepare.prepare(cfg, None, str(workdir))
    runtime = runtime_lib.build(cfg, problem, None, num_devices=1)
    state = runtime.fresh_state()
    leaves, tree = jax.tree.flatten(state.params)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    params = jax.tree.unflatten(
        tree,
        [
            jax.random.normal(key, leaf.shape, jnp.float32)
            for key, leaf in zip(keys, leaves)
        ],
    )
    state = dataclasses.replace(state, step=jnp.int32(1), params=params)
    saved = checkpoints.Checkpoints(str(workdir))
    saved.save(state, 1)
    saved.close()
  workdir.rename(finished)
  return finished


def make_config(folder: pathlib.Path, sizes: Sizes) -> config.Config:
  """Towers of content alone, without a teacher."""
  path = lambda name: str(folder / f'{name}-{sizes.items}.parquet')
  columns = [
      config.Feature(column='vector', kind='dense'),
      config.Feature(column='kind', kind='category'),
  ]
  cfg = config.Config(
      name='serve',
      data=config.DataConfig(
          name='tables',
          cold_item_share=_COLD,
          warm_share=0.0,
          tables=config.TablesConfig(
              interactions=path('interactions'),
              users=path('users'),
              items=path('items'),
          ),
      ),
      features=config.FeaturesConfig(
          preference='none', user=columns, item=columns
      ),
      model=config.ModelConfig(hidden=(sizes.hidden,), rank=sizes.rank),
      objective=config.ObjectiveConfig(
          teacher=0.0, in_batch_softmax=1.0, pairing='interactions'
      ),
      train=config.TrainConfig(num_steps=1),
      evaluation=config.EvaluationConfig(
          baselines=(), bootstrap=0, mixed=False, slices=False
      ),
  )
  cfg.validate()
  return cfg


def _write_tables(folder: pathlib.Path, sizes: Sizes) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(0)
  size = sizes.users * _PAIRS_PER_USER
  pairs = {
      'user_id': np.arange(size) % sizes.users,
      # Every item is met by somebody where there are enough pairs.
      'item_id': rng.permutation(np.resize(np.arange(sizes.items), size)),
  }
  tables: dict[str, dict[str, Any]] = {'interactions': pairs}
  for side, number in (('user', sizes.users), ('item', sizes.items)):
    vectors = np.concatenate(
        [
            np.random.default_rng([side == 'item', row]).normal(size=WIDTH)
            for row in range(number)
        ]
    ).astype(np.float32)
    tables[f'{side}s'] = {
        f'{side}_id': np.arange(number),
        'vector': pa.FixedSizeListArray.from_arrays(pa.array(vectors), WIDTH),
        'kind': np.resize(np.array(_KINDS, object), number),
    }
  for name, columns in tables.items():
    target = folder / f'{name}-{sizes.items}.parquet'
    parquet.write_table(pa.table(columns), target)
