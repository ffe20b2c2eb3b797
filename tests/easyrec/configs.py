# SPDX-License-Identifier: Apache-2.0
"""EasyRec configurations as trees, written as text, and rows to go with them.

Two have the blocks and fields of the published DropoutNet configurations: the
sample on advertisements, and the one of the documentation.
"""

from collections.abc import Mapping, Sequence
import copy
import json
from typing import Any

import numpy as np


class Name(str):
  """A value without quotes, such as INT32."""


def text(tree: Mapping[str, Any], indent: int = 0) -> str:
  """Protocol buffers' text format of a tree; a list is a repeated field."""
  lines, lead = [], '  ' * indent
  for key, value in tree.items():
    for one in value if isinstance(value, list) else [value]:
      if isinstance(one, Mapping):
        inside = text(one, indent + 1)
        lines.append(f'{lead}{key} {{\n{inside}{lead}}}\n')
      else:
        lines.append(f'{lead}{key}: {_value(one)}\n')
  return ''.join(lines)


def _value(value: Any) -> str:
  if isinstance(value, tuple):
    return f'[{", ".join(_value(one) for one in value)}]'
  if isinstance(value, Name):
    return value
  return json.dumps(value)


def feature(column: str, kind: str = 'IdFeature', **fields: Any) -> dict:
  """One of feature_configs."""
  return {'input_names': column, 'feature_type': Name(kind)} | fields


def group(name: str, *features: str) -> dict:
  """One of feature_groups."""
  return {
      'group_name': name,
      'feature_names': list(features),
      'wide_deep': Name('DEEP'),
  }


def loss(kind: str, **fields: Any) -> dict:
  """One of losses."""
  return {'loss_type': Name(kind), 'weight': 1.0} | fields


def field(name: str, kind: str = 'STRING') -> dict:
  """One of input_fields."""
  return {'input_name': name, 'input_type': Name(kind)}


def layers(*units: int, **fields: Any) -> dict:
  """A network."""
  return {'hidden_units': units} | fields


_BUCKETS = {
    'pid': 10,
    'adgroup_id': 1000,
    'cate_id': 100,
    'campaign_id': 1000,
    'customer': 1000,
    'brand': 1000,
    'user_id': 1000,
    'cms_segid': 100,
    'cms_group_id': 100,
    'final_gender_code': 10,
    'age_level': 10,
    'pvalue_level': 10,
    'shopping_level': 10,
    'occupation': 10,
    'new_user_class_level': 10,
}
_TAGS = ('tag_category_list', 'tag_brand_list')


def taobao() -> dict:
  """The blocks of the published sample, of smaller tables."""
  names = ['clk', 'buy', *_BUCKETS, *_TAGS, 'price']
  numbers = ('clk', 'buy', 'price')
  rate = {
      'initial_learning_rate': 0.001,
      'decay_steps': 1000,
      'decay_factor': 0.5,
      'min_learning_rate': 0.00001,
  }
  return {
      'train_input_path': 'taobao_train_data',
      'eval_input_path': 'taobao_test_data',
      'model_dir': 'experiments/dropoutnet_taobao_ckpt',
      'train_config': {
          'log_step_count_steps': 100,
          'optimizer_config': {
              'adam_optimizer': {
                  'learning_rate': {'exponential_decay_learning_rate': rate}
              },
              'use_moving_average': False,
          },
          'save_checkpoints_steps': 100,
          'sync_replicas': False,
          'num_steps': 2500,
      },
      'eval_config': {'metrics_set': {'auc': {}}},
      'data_config': {
          'input_fields': [
              field(name, 'INT32' if name in numbers else 'STRING')
              for name in names
          ],
          'label_fields': 'clk',
          'batch_size': 4096,
          'num_epochs': 10000,
          'prefetch_size': 32,
          'input_type': Name('CSVInput'),
      },
      'feature_configs': [
          *(
              feature(name, embedding_dim=16, hash_bucket_size=size)
              for name, size in _BUCKETS.items()
          ),
          *(
              feature(
                  name,
                  'TagFeature',
                  separator='|',
                  hash_bucket_size=1000,
                  embedding_dim=16,
              )
              for name in _TAGS
          ),
          feature('price', embedding_dim=16, num_buckets=50),
      ],
      'model_config': {
          'model_class': 'DropoutNet',
          'feature_groups': [
              group(
                  'user_content',
                  'user_id',
                  'cms_segid',
                  'cms_group_id',
                  'age_level',
              ),
              group(
                  'user_preference',
                  'pvalue_level',
                  'shopping_level',
                  'occupation',
                  'new_user_class_level',
                  *_TAGS,
              ),
              group(
                  'item_content',
                  'adgroup_id',
                  'cate_id',
                  'campaign_id',
                  'customer',
                  'brand',
              ),
              group('item_preference', 'price', 'pid'),
          ],
          'losses': [loss('CLASSIFICATION'), loss('PAIR_WISE_LOSS')],
          'dropoutnet': networks(64, 0.5, 0.5),
          'embedding_regularization': 5e-5,
      },
      'export_config': {},
  }


def networks(rank: int, user_rate: float, item_rate: float) -> dict:
  """A dropoutnet block as published, of smaller networks."""
  tower = layers(2 * rank, rank, use_bn=False)
  return {
      'user_content': layers(16),
      'item_content': layers(16),
      'user_preference': layers(32),
      'item_preference': layers(32),
      'user_tower': tower,
      'item_tower': tower,
      'l2_regularization': 1e-6,
      'user_dropout_rate': user_rate,
      'item_dropout_rate': item_rate,
  }


_COUNTS = (
    'fans_num',
    'follow_num',
    'user_click_cnt_7d',
    'exposure_cnt_7d',
    'click_cnt_7d',
    'share_cnt_15d',
)


def documented() -> dict:
  """The model of the documentation, with the rest that it leaves out."""
  plain = ('gender', 'city', 'is_new', 'primary_type')
  ids = {'embedding_dim': 8, 'hash_bucket_size': 100}
  tree = minimal()
  tree['data_config']['input_fields'] = [
      field(name) for name in ('is_click', 'user_id', 'item_id', *plain)
  ] + [field(name, 'FLOAT') for name in ('grade_score', *_COUNTS)]
  tree['data_config'] |= {'label_fields': 'is_click', 'separator': '\t'}
  tree['feature_configs'] = [
      *(feature(name, **ids) for name in ('user_id', *plain)),
      *(feature(name, 'RawFeature') for name in ('grade_score', *_COUNTS)),
  ]
  tree['model_config'] |= {
      'feature_groups': [
          group('user_content', 'user_id', 'gender', 'city'),
          group('user_preference', *_COUNTS[:3]),
          group('item_content', 'is_new', 'primary_type', 'grade_score'),
          group('item_preference', *_COUNTS[3:]),
      ],
      'losses': [
          loss('CLASSIFICATION'),
          loss('PAIR_WISE_LOSS'),
      ],
      'dropoutnet': networks(32, 0, 0.5),
      'embedding_regularization': 5e-5,
  }
  return tree


def minimal() -> dict:
  """As little as trains: two ids, one feature each side."""
  return {
      'train_input_path': 'rows',
      'model_dir': 'runs',
      'data_config': {
          'input_fields': [
              field('click', 'INT32'),
              field('user_id'),
              field('item_id'),
              field('city'),
              field('color'),
              field('price', 'FLOAT'),
              field('words'),
              field('viewed'),
          ],
          'label_fields': 'click',
          'batch_size': 32,
          'input_type': Name('CSVInput'),
      },
      'feature_configs': [
          feature('city', embedding_dim=4, hash_bucket_size=10),
          feature('color', embedding_dim=4, hash_bucket_size=10),
      ],
      'model_config': {
          'model_class': 'DropoutNet',
          'feature_groups': [
              group('user_content', 'city'),
              group('item_content', 'color'),
          ],
          'losses': [loss('CLASSIFICATION')],
          'dropoutnet': {
              'user_content': layers(8),
              'item_content': layers(8),
              'user_tower': layers(8, 4),
              'item_tower': layers(8, 4),
          },
      },
  }


def changed(tree: dict, path: str, value: Any) -> dict:
  """A copy with one field set, None to remove it: 'a.b[0].c'."""
  tree = copy.deepcopy(tree)
  *parents, last = path.replace('[', '.[').split('.')
  node: Any = tree
  for part in parents:
    node = node[int(part[1:-1]) if part[0] == '[' else part]
  if value is None:
    del node[last]
  else:
    node[last] = value
  return tree


def rows(columns: Sequence[str], label: str, size: int = 400) -> list[list]:
  """Rows of a file: taste and style decide a click; a column is of one side.

  What stands for a user or an item is the same in all of its rows.
  """
  rng = np.random.default_rng(0)
  user = rng.integers(0, 30, size)
  item = rng.integers(0, 40, size)
  click = (user % 2 == item % 2) ^ (rng.random(size) < 0.1)
  found = []
  for name in columns:
    if name == label:
      values = click.astype(int)
    elif name in ('user_id', 'item_id', 'adgroup_id'):
      values = user if name == 'user_id' else 100 + item
    elif name.startswith('tag_'):
      values = [f't{u % 2}|t{2 + u % 5}' for u in user]
    else:
      of_user = name.startswith(('cms', 'user', 'fans', 'follow')) or name in (
          'age_level',
          'pvalue_level',
          'shopping_level',
          'occupation',
          'new_user_class_level',
          'final_gender_code',
          'gender',
          'city',
      )
      values = (user if of_user else item) % (2 + len(name) % 3)
    found.append(list(values))
  return [list(row) for row in zip(*found, strict=True)]


def write_rows(path: Any, tree: dict, separator: str = ',') -> None:
  """A file without a header, its columns in the order of input_fields."""
  names = [one['input_name'] for one in tree['data_config']['input_fields']]
  label = tree['data_config']['label_fields']
  lines = [
      separator.join(str(value) for value in row) for row in rows(names, label)
  ]
  path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
