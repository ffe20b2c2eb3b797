# SPDX-License-Identifier: Apache-2.0
r"""Your own tables: clicks, users and items as three CSV files.

The first command makes three small files to try it with: a shop with 400 users,
500 items and 12,000 clicks, where tastes follow the tags of the items and the
region of the users, and a fifth of both is new.

python -m experiments.own_tables DIR
python run.py --config=experiments/own_tables.py --data_dir=DIR
"""

import csv
import os
import sys

import numpy as np

from dropoutnet_jax import config

_REGIONS = ('north', 'east', 'south', 'west')
_TAGS = tuple(
    f'{style}-{kind}'
    for style in ('plain', 'classic', 'bright', 'wild')
    for kind in ('chair', 'lamp', 'table', 'shelf', 'rug')
)


def get_config() -> config.Config:
  feature = config.Feature
  return config.Config(
      name='own_tables',
      data=config.DataConfig(
          name='tables',
          tables=config.TablesConfig(
              interactions='clicks.csv',
              users='users.csv',
              items='items.csv',
              tag_columns=('tags',),
          ),
          cold_item_share=0.1,
          cold_user_share=0.1,
          warm_share=0.05,
      ),
      features=config.FeaturesConfig(
          user=[
              feature(column='region', kind='category'),
              feature(column='age', kind='numeric'),
          ],
          item=[
              feature(column='tags'),
              feature(column='name', kind='text'),
              feature(column='price', kind='numeric'),
          ],
      ),
      teacher=config.TeacherConfig(rank=16),
      model=config.ModelConfig(hidden=(64,), rank=16),
      train=config.TrainConfig(batch_size=50_000, num_steps=300),
  )


def write_tables(folder: str, seed: int = 0) -> None:
  """Writes clicks.csv, users.csv and items.csv; the seed decides all."""
  rng = np.random.default_rng(seed)
  region = rng.integers(0, len(_REGIONS), 400)
  age = rng.integers(18, 80, 400)
  first, second = rng.integers(0, len(_TAGS), (2, 500))
  price = np.round(np.exp(rng.normal(3.0, 0.7, 500)), 2)
  # Regions differ in style; within one the old buy what costs more.
  style = (np.stack([first, second]) // 5)[:, None, :]
  score = 2.0 * (style == region[None, :, None]).sum(axis=0)
  score += np.outer((age - 48) / 18, np.log(price) - 3.0)
  score += rng.gumbel(0.0, 1.0, score.shape)
  clicked = np.argsort(-score, axis=1)[:, :30]
  tables = {
      'users.csv': [('user_id', 'region', 'age')]
      + [(f'u{n}', _REGIONS[region[n]], age[n]) for n in range(400)],
      'items.csv': [('item_id', 'name', 'tags', 'price')]
      + [
          (
              f'i{n}',
              f'{_TAGS[first[n]]} number {n}',
              '|'.join(sorted({_TAGS[first[n]], _TAGS[second[n]]})),
              price[n],
          )
          for n in range(500)
      ],
      'clicks.csv': [('user_id', 'item_id', 'time')]
      + [
          (f'u{user}', f'i{item}', int(1.7e9) + int(rng.integers(0, 10**6)))
          for user in range(400)
          for item in clicked[user]
      ],
  }
  os.makedirs(folder, exist_ok=True)
  for name, rows in tables.items():
    path = os.path.join(folder, name)
    with open(path, 'w', newline='', encoding='utf-8') as file:
      csv.writer(file).writerows(rows)


if __name__ == '__main__':
  if len(sys.argv) != 2:
    sys.exit('usage: python -m experiments.own_tables DIR')
  write_tables(sys.argv[1])
