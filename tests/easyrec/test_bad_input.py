# SPDX-License-Identifier: Apache-2.0
"""Configurations and flags that cannot be converted: one message, no file."""

import os
from typing import Any, NamedTuple

import pytest

from dropoutnet_jax.easyrec import formulas
from dropoutnet_jax.easyrec import messages
from tests import command_line
from tests.easyrec import configs

_MODEL = 'model_config.'
_NETWORKS = f'{_MODEL}dropoutnet.'


class Case(NamedTuple):
  """A mistake.

  Attributes:
    message: part of what must be said.
    changes: of the minimal configuration, by place.
    content: the configuration instead; None leaves the file out.
    flags: beside --easyrec and --out, or in their place.
  """

  message: str
  changes: dict[str, Any] = {}
  content: str | bytes | None = ''
  flags: tuple[str, ...] = ()


_FEATURE = 'feature_configs[1]'
CASES = [
    # Files.
    Case('--easyrec=f.config: No such file', content=None),
    Case('f.config: the file is empty', content=' \n'),
    Case('f.config: byte 0 is not UTF-8', content=b'\xff\xfe'),
    Case('f.config begins with a brace, as JSON', content='{"a": 1}'),
    Case('f.config:2: Expected', content='model_dir: "a"\nmodel_config {\n'),
    Case('f.config:1: ', content='model_dir: 3\n'),
    Case('f.config:2: a string in what', content='model_dir: "a"\nfoo: "b\n'),
    Case(
        'has no value named HUGE. Mend the configuration there',
        content='data_config {\n  input_type: HUGE\n}\n',
    ),
    Case(
        'should not have multiple "model_dir"',
        content='model_dir: "a"\nmodel_dir: "b"\n',
    ),
    Case(
        'train.learning_rate',
        {
            'train_config': {
                'optimizer_config': {
                    'adam_optimizer': {
                        'learning_rate': {
                            'manual_step_learning_rate': {
                                'initial_learning_rate': 0.0,
                                'schedule': [{'step': 5, 'learning_rate': 0.1}],
                            }
                        }
                    }
                }
            }
        },
    ),
    # Blocks.
    Case('f.config has no model_config', {'model_config': None}),
    Case('f.config has no data_config', {'data_config': None}),
    Case('has no dropoutnet block', {f'{_MODEL}dropoutnet': None}),
    Case(
        "model_class is 'DSSM'; only DropoutNet",
        {f'{_MODEL}model_class': 'DSSM', f'{_MODEL}dssm': {'l2': 0.1}},
    ),
    Case('names no file to train on', {'train_input_path': None}),
    Case('has no input_fields', {'data_config.input_fields': None}),
    Case(
        "input_fields has 'click' twice",
        {'data_config.input_fields[3].input_name': 'click'},
    ),
    Case('has no label_fields', {'data_config.label_fields': None}),
    Case(
        "label_fields names 'clic', which is no input field. Did you mean",
        {'data_config.label_fields': 'clic'},
    ),
    Case(
        "sample_weight names 'w', which is no",
        {'data_config.sample_weight': 'w'},
    ),
    # Features and groups.
    Case(
        "reads 'colour', which is none of data_config.input_fields. Did you",
        {f'{_FEATURE}.input_names': 'colour'},
    ),
    Case('has no input_names', {f'{_FEATURE}.input_names': None}),
    Case("two features are called 'city'", {f'{_FEATURE}.input_names': 'city'}),
    Case(
        "group 'item_content' names 'colour', which is no feature. Did you",
        {f'{_MODEL}feature_groups[1].feature_names': 'colour'},
    ),
    Case(
        'has neither item_content nor item_preference',
        {f'{_MODEL}feature_groups[1].group_name': 'items'},
    ),
    Case(
        "has 'user_content' twice",
        {f'{_MODEL}feature_groups[1].group_name': 'user_content'},
    ),
    Case(
        'does not say which column is the id of items',
        {'data_config.input_fields[2].input_name': 'thing'},
    ),
    # The model.
    Case(
        'user_tower ends in 4 and item_tower in 5',
        {f'{_NETWORKS}item_tower': configs.layers(8, 5)},
    ),
    Case('user_tower has no hidden_units', {f'{_NETWORKS}user_tower': {}}),
    Case(
        'has none that DropoutNet learns from',
        {f'{_MODEL}losses': [configs.loss('CIRCLE_LOSS')]},
    ),
    Case(
        'dropoutnet has no softmax_loss',
        {
            f'{_MODEL}losses': [
                configs.loss('SOFTMAX_CROSS_ENTROPY_WITH_NEGATIVE_MINING')
            ]
        },
    ),
    Case(
        'config.dropout.user_rate is 1.5',
        {f'{_NETWORKS}user_dropout_rate': 1.5},
    ),
    Case(
        "names the session 'visit', which is no input field",
        {
            'eval_config': {
                'metrics_set': {'session_auc': {'session_id_field': 'visit'}}
            }
        },
    ),
    # Flags.
    Case('--strict, and not supported are DropoutNet.width (line')._replace(
        changes={f'{_NETWORKS}width': 3}, flags=('--strict',)
    ),
    Case(
        '--base_profile=esyrec: there are easyrec and default. Did you mean',
        flags=('--base_profile=esyrec',),
    ),
    Case('--item_id=sku: f.config has no such', flags=('--item_id=sku',)),
    Case(
        "'city' would be the id of users and of items",
        flags=('--item_id=city', '--user_id=city'),
    ),
    Case('--out=mine.txt: an experiment is', flags=('--out=mine.txt',)),
    Case('there is no folder gone', flags=('--out=gone/mine.py',)),
    Case('--out=old.py is already there', flags=('--out=old.py',)),
    Case('convert does not read that; leave', flags=('--workdir=run',)),
    Case('leave out --config.train.seed', flags=('--config.train.seed=1',)),
]


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.message[:40])
def test_bad_input(case, tmp_path, monkeypatch):
  tree = configs.minimal()
  for place, value in case.changes.items():
    tree = configs.changed(tree, place, value)
  content = configs.text(tree) if case.content == '' else case.content
  files = {'old.py': 'kept'}
  if content is not None:
    files['f.config'] = content
  command_line.write(tmp_path, files)
  monkeypatch.chdir(tmp_path)
  before = command_line.snapshot(tmp_path)
  ended = command_line.call(
      'convert', '--easyrec=f.config', '--out=mine.py', *case.flags
  )
  command_line.check(ended, 2, case.message)
  assert command_line.snapshot(tmp_path) == before


@pytest.mark.parametrize('flag', ['easyrec', 'out'])
def test_both_files_are_named(flag):
  ended = command_line.call('convert', f'--{flag}=f.py')
  command_line.check(ended, 2, 'convert wants to know --')


def test_a_file_is_replaced_if_that_is_asked_for(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  text = configs.text(configs.minimal())
  command_line.write(tmp_path, {'old.py': 'kept', 'f.config': text})
  ended = command_line.call(
      'convert', '--easyrec=f.config', '--out=old.py', '--overwrite'
  )
  assert (ended.status, ended.err) == (0, '')
  assert sorted(os.listdir()) == ['f.config', 'old.py']
  assert 'def get_config()' in (tmp_path / 'old.py').read_text()


def test_only_convert_reads_its_flags(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  ended = command_line.call('describe', '--strict')
  command_line.check(ended, 2, 'describe does not read that')


def test_unknown_fields_are_set_aside_whatever_they_hold():
  text = """
foo { a: 1 b: "}" # }
}
bar: 'a' "b" # a comment
 'c' train_input_path: 'q' zip: [1, 2, {a: 1}] zap: -1.5e3 zop < a: 2 >
model_config { dssm { x: 1 } losses { loss_type: CLASSIFICATION wat: ENUM } }
"""
  found = messages.parse(text, 'f')
  assert [(one.line, one.name) for one in found.unknown] == [
      (2, 'foo'),
      (4, 'bar'),
      (5, 'zip'),
      (5, 'zap'),
      (5, 'zop'),
      (6, 'dssm'),
      (6, 'wat'),
  ]
  assert found.config.train_input_path == 'q'
  assert len(found.config.model_config.losses) == 1


@pytest.mark.parametrize(
    'text, expected',
    [
        ('a>=18', 'a >= 18'),
        ('(a>1) & (b<2) & (a<3)', '(a > 1) * (b < 2) * (a < 3)'),
        ('(a>1) | (b<2)', 'max(a > 1, b < 2)'),
        ('tf.math.log1p(a) / 10.0', 'log1p(a) / 10.0'),
        ('tf.maximum(a, b)', 'max(a, b)'),
    ],
)
def test_expressions_are_translated(text, expected):
  assert formulas.translate(text, ('a', 'b')) == expected


@pytest.mark.parametrize(
    'text', ['a >', 'os.system("x")', 'c + 1', 'tf.sin(a)', 'a if b else 1', '']
)
def test_other_expressions_are_refused(text):
  with pytest.raises(formulas.FormulaError):
    formulas.translate(text, ('a', 'b'))


@pytest.mark.parametrize(
    'low, high, function, expected',
    [
        (0.0, 0.0, 'tf.math.log1p', "log1p(col('my price'))"),
        (0.0, 10.0, '', "col('my price') / 10"),
        (2.0, 10.0, '', "(col('my price') - 2) / 8"),
        (
            0.0,
            10.0,
            'lambda x: tf.math.log(x + 1)',
            "log(col('my price') / 10 + 1)",
        ),
    ],
)
def test_normalised_numbers(low, high, function, expected):
  names = ('my price',)
  found = formulas.normalized('my price', low, high, function, names)
  assert found == expected
