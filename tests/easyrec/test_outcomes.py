# SPDX-License-Identifier: Apache-2.0
"""What each feature, loss, optimiser and schedule of EasyRec becomes.

`CASES` is the table: a change of a small configuration, the settings that must
come of it, and the field whose row must have a verdict.
"""

from typing import Any, NamedTuple

import pytest

from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax import experiment
from dropoutnet_jax.easyrec import convert
from dropoutnet_jax.easyrec import experiment_file
from dropoutnet_jax.easyrec import ledger
from dropoutnet_jax.easyrec import messages
from tests.easyrec import configs

Name, feature, loss = configs.Name, configs.feature, configs.loss
_NETWORKS = 'model_config.dropoutnet.'
_SOFTMAX = {
    'num_negative_samples': 8,
    'margin': 0.2,
    'gamma': 20,
    'coefficient_of_support_vector': 1.5,
}


class Case(NamedTuple):
  """A row of the table.

  Attributes:
    name: of the test.
    changes: of the minimal configuration, by place.
    settings: fields of the experiment, or of its last item feature ('.kind').
    verdicts: by place, of the configuration's fields.
    base: profile of the experiment.
  """

  name: str
  changes: dict[str, Any]
  settings: dict[str, Any]
  verdicts: dict[str, str] = {}
  base: str = 'easyrec'


def _feature(name: str, fields: dict, settings: dict, **more: Any) -> Case:
  """A feature of items beside the colour, or in its place."""
  made = feature(fields.pop('inputs'), fields.pop('kind'), **fields)
  called = made.get('feature_name') or made['input_names']
  called = called if isinstance(called, str) else called[0]
  changes = {
      'feature_configs': [*configs.minimal()['feature_configs'][:1], made],
      'model_config.feature_groups': [
          configs.group('user_content', 'city'),
          configs.group('item_content', called),
      ],
  }
  verdicts = {
      f'feature_configs[1].{place}': verdict
      for place, verdict in more.pop('verdicts', {}).items()
  }
  return Case(name, changes, settings, verdicts, **more)


def _losses(name: str, losses: list, settings: dict, **more: Any) -> Case:
  changes = {'model_config.losses': losses} | more.pop('changes', {})
  return Case(name, changes, settings, **more)


def _rate(kind: str, fields: dict, settings: dict, **more: Any) -> Case:
  changes = {
      'train_config': {
          'num_steps': 100,
          'optimizer_config': {
              'adam_optimizer': {'learning_rate': {kind: fields}}
          },
      }
  }
  place = 'train_config.optimizer_config[0].adam_optimizer.learning_rate.'
  verdicts = {
      f'{place}{kind}.{field}': verdict
      for field, verdict in more.pop('verdicts', {}).items()
  }
  return Case(kind, changes, settings, verdicts)


def _optimizer(kind: str, fields: dict, settings: dict, **more: Any) -> Case:
  rate = {'learning_rate': {'constant_learning_rate': {'learning_rate': 0.1}}}
  changes = {'train_config': {'optimizer_config': {kind: rate | fields}}}
  return Case(kind, changes, {'train.learning_rate': 0.1} | settings, **more)


CASES = [
    _losses(
        'two losses of one type',
        [
            configs.loss('CLASSIFICATION', weight=3.0),
            configs.loss('CLASSIFICATION', weight=0.5),
        ],
        {'objective.pointwise': 0.5},
    ),
    _feature(
        'id, hashed',
        {'inputs': 'color', 'kind': 'IdFeature', 'hash_bucket_size': 9}
        | {'embedding_dim': 4},
        {
            '.kind': 'category',
            '.hash_buckets': 9,
            '.embedding': 4,
            '.embedding_std': 0.005,
        },
    ),
    _feature(
        'id of the default profile',
        {'inputs': 'color', 'kind': 'IdFeature', 'hash_bucket_size': 9}
        | {'embedding_dim': 4},
        {'.embedding_std': 0.0, 'model.tower': 'groups'},
        base='default',
    ),
    _feature(
        'id, a vocabulary',
        {'inputs': 'color', 'kind': 'IdFeature', 'vocab_list': ['a', 'b']}
        | {'embedding_dim': 4},
        {'.hash_buckets': 0, '.num_buckets': 0},
        verdicts={'vocab_list': ledger.CHANGED},
    ),
    _feature(
        'id, first values',
        {'inputs': 'color', 'kind': 'IdFeature', 'num_buckets': 7}
        | {'embedding_dim': 4}
        | {'initializer': {'random_normal_initializer': {'stddev': 0.3}}},
        {'.num_buckets': 7, '.embedding_std': 0.3},
    ),
    _feature(
        'tags with weights',
        {'inputs': 'words', 'kind': 'TagFeature', 'hash_bucket_size': 9}
        | {'embedding_dim': 4, 'separator': ';', 'kv_separator': ':'},
        {
            '.kind': 'tags',
            '.pooling': 'sum',
            '.idf': 'none',
            'data.tables.tag_columns': ('words',),
            'data.tables.list_separator': ';',
            'data.tables.tag_weight_separator': ':',
        },
    ),
    _feature(
        'tags, the root of their number',
        {'inputs': 'words', 'kind': 'TagFeature', 'hash_bucket_size': 9}
        | {'embedding_dim': 4, 'combiner': 'sqrtn'},
        {'.pooling': 'mean'},
        verdicts={'combiner': ledger.REFUSED},
    ),
    _feature(
        'raw, as it comes',
        {'inputs': 'price', 'kind': 'RawFeature'},
        {'.kind': 'numeric', '.transform': 'none', '.embedding': 0},
    ),
    _feature(
        'raw, scaled and put through a function',
        {'inputs': 'price', 'kind': 'RawFeature', 'min_val': 2.0}
        | {'max_val': 10.0, 'normalizer_fn': 'tf.math.log1p'},
        {'.kind': 'expression', '.expression': 'log1p((price - 2) / 8)'},
    ),
    _feature(
        'raw, cut',
        {'inputs': 'price', 'kind': 'RawFeature', 'boundaries': (5.0, 2.0)}
        | {'embedding_dim': 4},
        {'.kind': 'numeric', '.boundaries': (2.0, 5.0), '.embedding': 4},
    ),
    _feature(
        'raw, cut into equal parts',
        {'inputs': 'price', 'kind': 'RawFeature', 'min_val': 10.0}
        | {'max_val': 20.0, 'num_buckets': 4, 'embedding_dim': 4},
        {'.boundaries': (10.0, 12.5, 15.0, 17.5), '.embedding': 4},
    ),
    _feature(
        'raw, scaled from a moment on: all digits',
        {'inputs': 'price', 'kind': 'RawFeature', 'min_val': 1577836801.0}
        | {'max_val': 1577923201.0},
        {'.expression': '(price - 1577836801) / 86400'},
    ),
    _feature(
        'raw, scaled, put through a function and cut into equal parts',
        {'inputs': 'price', 'kind': 'RawFeature', 'min_val': 10.0}
        | {'max_val': 20.0, 'num_buckets': 4, 'embedding_dim': 4}
        | {'normalizer_fn': 'tf.math.sqrt'},
        {
            '.expression': 'sqrt((price - 10) / 10)',
            '.boundaries': (0.0, 0.25, 0.5, 0.75),
        },
    ),
    _feature(
        'raw, projected',
        {'inputs': 'price', 'kind': 'RawFeature', 'embedding_dim': 4},
        {'.kind': 'numeric', '.embedding': 0},
        verdicts={'embedding_dim': ledger.CHANGED},
    ),
    _feature(
        'raw, a vector',
        {'inputs': 'words', 'kind': 'RawFeature', 'raw_input_dim': 3},
        {'.kind': 'dense', 'data.tables.vector_columns': ('words',)},
    ),
    _feature(
        'sequence with attention',
        {'inputs': 'viewed', 'kind': 'SequenceFeature', 'max_seq_len': 7}
        | {'embedding_dim': 4, 'hash_bucket_size': 9}
        | {'sequence_combiner': {'attention': {}}},
        {
            '.kind': 'sequence',
            '.pooling': 'attention',
            '.max_length': 7,
            'data.tables.sequence_columns': ('viewed',),
        },
        verdicts={'sequence_combiner.attention': ledger.CHANGED},
    ),
    _feature(
        'combination',
        {'inputs': ['color', 'words'], 'kind': 'ComboFeature'}
        | {'feature_name': 'both', 'hash_bucket_size': 9, 'embedding_dim': 4},
        {'.kind': 'cross', '.columns': ('color', 'words'), '.hash_buckets': 9},
    ),
    _feature(
        'lookup',
        {'inputs': ['color', 'words'], 'kind': 'LookupFeature'}
        | {'feature_name': 'found', 'kv_separator': ':'}
        | {'hash_bucket_size': 9, 'embedding_dim': 4},
        {'.kind': 'lookup', '.column': 'words', '.key': 'color'},
        verdicts={'hash_bucket_size': ledger.CHANGED},
    ),
    _feature(
        'expression',
        {'inputs': 'price', 'kind': 'ExprFeature', 'feature_name': 'mid'}
        | {'expression': '(price >= 2) & (price < 5) | (price == 9)'},
        {
            '.kind': 'expression',
            '.expression': 'max((price >= 2) * (price < 5), price == 9)',
        },
    ),
    Case(
        'a shared table',
        {
            'feature_configs': [
                feature(name, hash_bucket_size=9, embedding_dim=4)
                | {'embedding_name': 'names'}
                for name in ('city', 'color')
            ]
        },
        {'.embedding_table': 'names'},
    ),
    Case(
        'the new style of features',
        {
            'feature_configs': None,
            'feature_config': {
                'features': configs.minimal()['feature_configs']
            },
        },
        {'.column': 'color'},
    ),
    _losses(
        'all three losses',
        [
            loss('CLASSIFICATION', weight=0.5),
            loss('PAIR_WISE_LOSS'),
            loss('SOFTMAX_CROSS_ENTROPY_WITH_NEGATIVE_MINING', weight=2.0),
        ],
        {
            'objective.pointwise': 0.5,
            'objective.pairwise': 1.0,
            'objective.softmax': 2.0,
            'objective.temperature': 1.0,
            'objective.softmax_temperature': 0.05,
            'objective.num_negatives': 8,
            'objective.margin': 0.2,
            'objective.support_vector': 1.5,
        },
        changes={f'{_NETWORKS}softmax_loss': _SOFTMAX},
    ),
    _losses(
        'the softmax under the default profile',
        [loss('SOFTMAX_CROSS_ENTROPY_WITH_NEGATIVE_MINING')],
        {
            'objective.pointwise': 0.0,
            'objective.temperature': 0.05,
            'objective.learn_scale': True,
            'objective.mask_known': True,
        },
        changes={f'{_NETWORKS}softmax_loss': _SOFTMAX},
        base='default',
        verdicts={f'{_NETWORKS}softmax_loss.gamma': ledger.CHANGED},
    ),
    _losses(
        'a loss that EasyRec skips',
        [loss('CLASSIFICATION'), loss('PAIRWISE_HINGE_LOSS')],
        {'objective.pairwise': 0.0},
        verdicts={'model_config.losses[1].loss_type': ledger.TAKEN},
    ),
    _losses(
        'and that counts under the default profile',
        [
            loss(
                'PAIRWISE_HINGE_LOSS',
                pairwise_hinge_loss={
                    'margin': 0.5,
                    'use_label_margin': False,
                    'ohem_ratio': 0.5,
                },
            ),
            loss('BINARY_FOCAL_LOSS', binary_focal_loss={'gamma': 3.0}),
        ],
        {
            'objective.pairwise_kind': 'hinge',
            'objective.pairwise_margin': 0.5,
            'objective.hard_ratio': 0.5,
            'objective.focal_gamma': 3.0,
        },
        base='default',
        verdicts={'model_config.losses[0].loss_type': ledger.CHANGED},
    ),
    _losses(
        'losses that are not there',
        [loss('CLASSIFICATION'), loss('JRC_LOSS'), loss('F1_REWEIGHTED_LOSS')],
        {'objective.pointwise': 1.0},
        verdicts={
            'model_config.losses[1].loss_type': ledger.REFUSED,
            'model_config.losses[2].weight': ledger.REFUSED,
        },
    ),
    Case(
        'no losses', {'model_config.losses': None}, {'objective.pointwise': 1.0}
    ),
    Case(
        'networks that differ',
        {
            f'{_NETWORKS}user_content': configs.layers(0),
            f'{_NETWORKS}item_tower': configs.layers(9, 5, 4, use_bn=False),
            f'{_NETWORKS}item_content': configs.layers(8, activation='swish'),
        },
        {
            'model.rank': 4,
            'model.hidden': (8,),
            'model.groups.item_tower': (9, 5),
            'model.groups.no_batch_norm': ('item_tower',),
        },
        {f'{_NETWORKS}item_content.activation': ledger.REFUSED},
    ),
    Case(
        'dropout of neurons',
        {f'{_NETWORKS}user_tower': configs.layers(8, 4, dropout_ratio=(0.1,))},
        {'model.rank': 4},
        {f'{_NETWORKS}user_tower.dropout_ratio': ledger.REFUSED},
    ),
    Case(
        'weights and sessions of rows',
        {
            'data_config.sample_weight': 'price',
            'eval_config': {
                'metrics_set': [
                    {'session_auc': {'session_id_field': 'words'}},
                    {'recall_at_topk': {'topk': 7}},
                ]
            },
        },
        {
            'data.tables.weight': 'price',
            'data.tables.session_id': 'words',
            'evaluation.cutoffs': (7, 20, 100),
        },
    ),
    Case(
        'columns that only sound like a role',
        {'data_config.input_fields[6].input_name': 'time'},
        {'data.tables.time': '', 'data.tables.weight': 'weight'},
    ),
    Case(
        'binary separators and a header',
        {'data_config.separator': '\x01', 'data_config.with_header': True},
        {'data.tables.separator': '\x01', 'data.tables.header': ()},
    ),
    Case(
        'other sources',
        {'data_config.input_type': Name('OdpsInputV2')},
        {'data.tables.format': 'csv'},
        {'data_config.input_type': ledger.REFUSED},
    ),
    Case(
        'the best checkpoint, and an early stop',
        {
            'train_config': {'num_steps': 900, 'save_checkpoints_steps': 100},
            'export_config': {
                'exporter_type': 'best',
                'enable_early_stop': True,
                'max_check_steps': 300,
            },
        },
        {
            'train.select_by': 'warm/auc',
            'train.eval_every': 100,
            'train.patience': 3,
        },
    ),
    _rate(
        'exponential_decay_learning_rate',
        {'initial_learning_rate': 0.01, 'decay_steps': 5, 'decay_factor': 0.5}
        | {'min_learning_rate': 0.001, 'burnin_steps': 3}
        | {'burnin_learning_rate': 0.002},
        {
            'train.schedule': 'piecewise',
            'train.decay_every': 5,
            'train.end_share': 0.1,
            'train.warmup_steps': 3,
        },
        verdicts={'burnin_learning_rate': ledger.CHANGED},
    ),
    _rate(
        'manual_step_learning_rate',
        {
            'initial_learning_rate': 0.1,
            'schedule': [
                {'step': 10, 'learning_rate': 0.05},
                {'step': 20, 'learning_rate': 0.01},
            ],
        },
        {'train.boundaries': (10, 20), 'train.multiples': (0.5, 0.1)},
    ),
    _rate(
        'cosine_decay_learning_rate',
        {'learning_rate_base': 0.1, 'total_steps': 50, 'warmup_steps': 4},
        {'train.schedule': 'cosine', 'train.warmup_steps': 4},
        verdicts={'total_steps': ledger.CHANGED},
    ),
    _rate(
        'poly_decay_learning_rate',
        {'learning_rate_base': 0.1, 'total_steps': 100, 'power': 3.0}
        | {'end_learning_rate': 0.01},
        {'train.power': 3.0, 'train.end_share': 0.1},
        verdicts={'total_steps': ledger.TAKEN},
    ),
    _rate(
        'transformer_learning_rate',
        {'learning_rate_base': 0.1, 'hidden_size': 4, 'warmup_steps': 4},
        {'train.schedule': 'constant', 'train.learning_rate': 0.1},
        verdicts={'hidden_size': ledger.REFUSED},
    ),
    _optimizer('adam_optimizer', {'beta1': 0.8}, {'train.momentum': 0.8}),
    _optimizer(
        'adamw_optimizer', {'weight_decay': 0.01}, {'train.weight_decay': 0.01}
    ),
    _optimizer(
        'lazy_adam_optimizer',
        {},
        {'train.optimizer': 'adam', 'train.embedding_optimizer': 'lazy_adam'},
    ),
    Case(
        'lazy Adam with averages',
        {
            'train_config': {
                'optimizer_config': {
                    'lazy_adam_optimizer': {},
                    'use_moving_average': True,
                }
            }
        },
        {'train.embedding_optimizer': '', 'train.ema': 0.9999},
    ),
    _optimizer('momentum_optimizer', {}, {'train.optimizer': 'sgd'}),
    _optimizer(
        'rms_prop_optimizer',
        {},
        {'train.optimizer': 'rmsprop'}
        | {'train.beta2': 0.9, 'train.epsilon': 1.0},
    ),
    _optimizer(
        'adagrad_optimizer',
        {'initial_accumulator_value': 0.3},
        {'train.optimizer': 'adagrad', 'train.accumulator': 0.3},
    ),
    _optimizer(
        'ftrl_optimizer',
        {'l1_reg': 0.1},
        {'train.optimizer': 'adagrad'},
        verdicts={
            'train_config.optimizer_config[0].ftrl_optimizer.l1_reg': (
                ledger.REFUSED
            )
        },
    ),
    Case(
        'an unknown field',
        {'model_config.dropoutnet.temperature': 3.0},
        {'model.rank': 4},
    ),
]


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_outcome(case, tmp_path):
  tree = configs.minimal()
  for place, value in case.changes.items():
    tree = configs.changed(tree, place, value)
  pipeline = messages.parse(configs.text(tree), 'f')
  draft, rows = convert.convert(pipeline, 'mine', 'f', case.base)
  draft.cfg.validate()
  found = config_tree.fields(draft.cfg)
  last = len(draft.cfg.features.item) - 1
  for name, value in case.settings.items():
    name = f'features.item[{last}]{name}' if name[0] == '.' else name
    assert found[name] == value, name
  verdicts = {row.field: row.verdict for row in rows}
  assert len(verdicts) == len(rows)
  for place, verdict in case.verdicts.items():
    assert verdicts[place] == verdict, place
  if pipeline.unknown:
    assert rows[-1].field.startswith('DropoutNet.temperature (line ')
  # What is written is what was converted, and has no line that is too long.
  table = ledger.describe(rows, 'f')
  text = experiment_file.write(draft, 'f', 'mine.py', table)
  assert max(len(line) for line in text.splitlines()) <= 80
  path = tmp_path / 'mine.py'
  path.write_text(text, encoding='utf-8')
  assert experiment.load(str(path)) == draft.cfg


def test_the_formatter_leaves_the_file_as_it_is(tmp_path):
  black = pytest.importorskip('pyink')
  mode = black.Mode(
      line_length=80,
      is_pyink=True,
      pyink_indentation=2,
      quote_style=black.QuoteStyle.MAJORITY,
  )
  for make in (configs.taobao, configs.documented, configs.minimal):
    draft, rows = convert.convert(
        messages.parse(configs.text(make()), 'f'), 'mine', 'f'
    )
    text = experiment_file.write(draft, 'f', 'mine.py', 'a table\n')
    assert black.format_str(text, mode=mode) == text


def test_ids_of_the_default_profile_are_preference():
  pipeline = messages.parse(configs.text(configs.taobao()), 'f')
  for base, group in (('easyrec', 'content'), ('default', 'preference')):
    draft, _ = convert.convert(pipeline, 'mine', 'f', base)
    for side in ('user', 'item'):
      first = getattr(draft.cfg.features, side)[0]
      assert isinstance(first, config.Feature)
      assert first.group == group
      assert 'id' in draft.feature_comments[side, 0]


def test_columns_that_are_named_are_no_guess():
  pipeline = messages.parse(configs.text(configs.taobao()), 'f')
  for ids, column in ((None, 'adgroup_id'), ('brand', 'brand')):
    draft, _ = convert.convert(
        pipeline, 'mine', 'f', ids={'user': None, 'item': ids}
    )
    assert draft.cfg.data.tables.item_id == column
    is_guess = 'data.tables.item_id' in draft.comments
    assert is_guess == (ids is None)
    assert column not in draft.cfg.data.tables.item_columns
