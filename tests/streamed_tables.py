# SPDX-License-Identifier: Apache-2.0
"""Tiny tables in Parquet, and an experiment that streams them or does not."""

import pathlib
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from dropoutnet_jax import config
from dropoutnet_jax import config_tree

NUM_USERS, NUM_ITEMS, NUM_ROWS = 60, 80, 2000


def write(folder: pathlib.Path, weights: bool = True) -> None:
  """Interactions in four files, and items with content.

  Some users and items never had a reaction, and some have no interaction.
  """
  rng = np.random.default_rng(0)
  user = rng.integers(0, NUM_USERS, NUM_ROWS)
  item = rng.integers(0, NUM_ITEMS - 5, NUM_ROWS)
  label = (rng.random(NUM_ROWS) < 0.4).astype(np.float32)
  user[-80:] = NUM_USERS + rng.integers(0, 8, 80)
  label[-80:] = 0
  label[item < 6] = 0
  columns: dict[str, Any] = {
      'user_id': [f'u{number}' for number in user],
      'item_id': item + 5,
      'label': label,
  }
  if weights:
    columns['weight'] = rng.integers(0, 4, NUM_ROWS).astype(np.float32)
  table = pa.table(columns)
  folder.joinpath('pairs').mkdir()
  for part in range(4):
    parquet.write_table(
        table.slice(part * 500, 500),
        folder / 'pairs' / f'{part}.parquet',
        row_group_size=200,
    )
  items = {
      'item_id': np.arange(NUM_ITEMS) + 5,
      'size': rng.normal(size=NUM_ITEMS),
      'tags': [
          [f't{n}' for n in rng.integers(0, 20, 4)] for _ in range(NUM_ITEMS)
      ],
  }
  parquet.write_table(pa.table(items), folder / 'items.parquet')


def make_config(folder: pathlib.Path, **sections: Any) -> config.Config:
  """Streams the tables of a folder, unless the sections say otherwise."""
  feature = config.Feature
  cfg = config.Config(
      name='streamed',
      data=config.DataConfig(
          name='tables',
          mode='streaming',
          cold_user_share=0.1,
          warm_share=0.0,
          tables=config.TablesConfig(
              interactions=str(folder / 'pairs'),
              items=str(folder / 'items.parquet'),
          ),
      ),
      features=config.FeaturesConfig(
          preference='none',
          user=[feature(column='user_id', kind='category', embedding=4)],
          item=[feature(column='size', kind='numeric')],
      ),
      model=config.ModelConfig(hidden=(8,), rank=4),
      objective=config.ObjectiveConfig(
          teacher=0.0,
          pointwise=1.0,
          in_batch_softmax=1.0,
          num_sampled=8,
          pairing='interactions',
          mask_known=False,
      ),
      train=config.TrainConfig(
          batch_size=64,
          num_steps=10,
          steps_per_dispatch=3,
          log_every=4,
          eval_every=5,
          checkpoint_every=2,
      ),
      evaluation=config.EvaluationConfig(
          cutoffs=(5,),
          baselines=('random', 'popularity'),
          mixed=False,
          warm_up_counts=(0, 2),
      ),
  )
  for section, fields in sections.items():
    for name, value in fields.items():
      config_tree.check_field(cfg, f'{section}.{name}')
      setattr(getattr(cfg, section), name, value)
  cfg.validate()
  return cfg
