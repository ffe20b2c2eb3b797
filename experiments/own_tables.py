# SPDX-License-Identifier: Apache-2.0
r"""Your own tables: clicks, users and items as three CSV files.

Every kind of feature once. The first command makes three small files to try it
with: a shop with 400 users, 500 items and 12,000 clicks, where tastes follow
the style of the items and the region of the users, and a fifth of both is new.

python -m experiments.own_tables DIR
python run.py --config=experiments/own_tables.py --data_dir=DIR
python run.py recommend --workdir=runs/own_tables --output=lists.csv
"""

import csv
import os
import sys

import numpy as np

from dropoutnet_jax import config

_REGIONS = ('north', 'east', 'south', 'west')
_STYLES = ('plain', 'classic', 'bright', 'wild')
_KINDS = ('chair', 'lamp', 'table', 'shelf', 'rug')
_COLOURS = ('red', 'green', 'blue', 'white', 'black')
_SHOPS = ('online', 'high street', 'outlet')


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
              tag_columns=('colours', 'prices'),
              tag_weight_separator=':',
              vector_columns=('photo',),
              sequence_columns=('visits',),
          ),
          cold_item_share=0.1,
          cold_user_share=0.1,
          warm_share=0.05,
      ),
      features=config.FeaturesConfig(
          user=[
              feature('region', 'category'),
              feature('age', 'numeric', boundaries=(30, 45, 60)),
              # What the user looked at on earlier days: taken away at random,
              # like all that is learnt from behaviour.
              feature(
                  'visits',
                  'sequence',
                  group='preference',
                  embedding=8,
                  embedding_table='styles',
                  pooling='attention',
              ),
          ],
          item=[
              feature(
                  'style', 'category', embedding=8, embedding_table='styles'
              ),
              feature('colours', 'tags'),
              feature('name', 'text'),
              feature('photo', 'dense'),
              feature('price', 'numeric', transform='log1p'),
              feature('kind in style', 'cross', columns=('kind', 'style')),
              feature('prices', 'lookup', key='main_shop'),
              feature(
                  'price per kg', 'expression', expression='price / weight_kg'
              ),
          ],
      ),
      teacher=config.TeacherConfig(rank=16),
      model=config.ModelConfig(hidden=(64,), rank=16),
      train=config.TrainConfig(batch_size=50_000, num_steps=300),
  )


def write_tables(folder: str, seed: int = 0) -> None:
  """Writes clicks.csv, users.csv and items.csv; the seed decides all."""
  rng = np.random.default_rng(seed)
  num_users, num_items = 400, 500
  region = rng.integers(0, len(_REGIONS), num_users)
  age = rng.integers(18, 80, num_users)
  style = rng.integers(0, len(_STYLES), num_items)
  kind = rng.integers(0, len(_KINDS), num_items)
  colour = rng.integers(0, len(_COLOURS), (2, num_items))
  price = np.round(np.exp(rng.normal(3.0, 0.7, num_items)), 2)
  weight = np.round(rng.uniform(0.5, 20.0, num_items), 1)
  # Most regions have a style of their own, and everybody a second one; the old
  # buy what costs more. A photo shows the style, not very clearly.
  second = rng.integers(0, len(_STYLES), num_users)
  score = 2.0 * (style == region[:, None])
  score += 1.5 * (style == second[:, None])
  score += np.outer((age - 48) / 18, np.log(price) - 3.0)
  score += rng.gumbel(0.0, 1.0, score.shape)
  clicked = np.argsort(-score, axis=1)[:, :30]
  photo = np.eye(len(_STYLES))[style] + rng.normal(0, 0.5, (num_items, 4))
  users = [
      {
          'user_id': f'u{n}',
          'region': _REGIONS[region[n]],
          'age': age[n],
          'visits': '|'.join(
              _STYLES[s] for s in rng.choice([region[n], second[n]], 5)
          ),
      }
      for n in range(num_users)
  ]
  items = [
      {
          'item_id': f'i{n}',
          'name': f'{_COLOURS[colour[0, n]]} {_KINDS[kind[n]]} number {n}',
          'style': _STYLES[style[n]],
          'kind': _KINDS[kind[n]],
          'colours': '|'.join(sorted({_COLOURS[c] for c in colour[:, n]})),
          'photo': '|'.join(f'{x:.3f}' for x in photo[n]),
          'price': price[n],
          'weight_kg': weight[n],
          'prices': '|'.join(
              f'{shop}:{price[n] * (1 + m / 10):.2f}'
              for m, shop in enumerate(_SHOPS)
          ),
          'main_shop': _SHOPS[n % len(_SHOPS)],
      }
      for n in range(num_items)
  ]
  clicks = [
      {
          'user_id': f'u{user}',
          'item_id': f'i{item}',
          'time': 1_700_000_000 + int(rng.integers(0, 10**6)),
      }
      for user in range(num_users)
      for item in clicked[user]
  ]
  os.makedirs(folder, exist_ok=True)
  for name, rows in (('clicks', clicks), ('users', users), ('items', items)):
    path = os.path.join(folder, f'{name}.csv')
    with open(path, 'w', newline='', encoding='utf-8') as file:
      writer = csv.DictWriter(file, list(rows[0]))
      writer.writeheader()
      writer.writerows(rows)


if __name__ == '__main__':
  if len(sys.argv) != 2:
    sys.exit('usage: python -m experiments.own_tables DIR')
  write_tables(sys.argv[1])
