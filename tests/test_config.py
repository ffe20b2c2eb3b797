# SPDX-License-Identifier: Apache-2.0
"""Settings: types and ranges, JSON and back, and from the command line."""

import dataclasses
import json
import re
import typing
from typing import Any

from hypothesis import given
from hypothesis import strategies
import pytest

from dropoutnet_jax import checks
from dropoutnet_jax import commands
from dropoutnet_jax import comparisons
from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax import experiment
from dropoutnet_jax import profiles
from dropoutnet_jax import sweeps
from tests import command_line

_EXPERIMENTS = sorted(
    path.stem for path in (command_line.ROOT / 'experiments').glob('*.py')
)


@pytest.fixture
def train(monkeypatch, tmp_path):
  """Catches what `train` is called with; () -> (config, workdir)."""
  calls: list[tuple[Any, ...]] = []
  monkeypatch.setattr(commands, 'train', lambda *call: calls.append(call))
  monkeypatch.setattr(sweeps, 'run', lambda *call: calls.append(call))
  monkeypatch.setattr(comparisons, 'run', lambda *call: calls.append(call))
  monkeypatch.chdir(tmp_path)

  def call(*arguments: str) -> tuple[config.Config, str]:
    ended = command_line.call(*arguments)
    assert (ended.status, ended.out, ended.err) == (0, '', '')
    cfg, workdir, *_ = calls.pop()
    return cfg, workdir

  return call


def _load(name: str) -> config.Config:
  path = command_line.ROOT / 'experiments' / f'{name}.py'
  return experiment.load(str(path))


def _leaves(node: Any, path: str = '') -> dict[str, Any]:
  """Every field that holds no section or list, by its dotted name."""
  if dataclasses.is_dataclass(node):
    parts = {
        f'.{f.name}': getattr(node, f.name) for f in dataclasses.fields(node)
    }
  elif isinstance(node, list):
    parts = {f'[{number}]': value for number, value in enumerate(node)}
  else:
    return {path.removeprefix('.'): node}
  found: dict[str, Any] = {}
  for name, value in parts.items():
    found |= _leaves(value, path + name)
  return found


def _raises(function, *arguments) -> str:
  with pytest.raises(errors.UserError) as caught:
    function(*arguments)
  return str(caught.value)


# From the command line.


def test_nothing_but_run_py(train):
  cfg, workdir = train()
  assert cfg == _load('quickstart')
  assert workdir == 'runs/quickstart'


@pytest.mark.parametrize('name', _EXPERIMENTS)
def test_every_experiment_from_the_command_line(train, name):
  path = command_line.ROOT / 'experiments' / f'{name}.py'
  cfg, workdir = train(f'--config={path}')
  assert cfg == _load(name)
  assert workdir == f'runs/{name}'


def test_fields_are_set_and_checked_after_parsing(train):
  cfg, workdir = train(
      '--config.train.batch_size=512',
      '--config.train.learning_rate=1',
      '--config.model.hidden=(64,32)',
      '--config.features.item[3].rank=20',
      '--config.data.drop_leaks',
      '--noconfig.features.user[0].sparse',
      '--config.evaluation.cutoffs=7',
      '--config.evaluation.baselines=popularity, random',
      '--config.name=mine [b]',
      '--workdir=elsewhere',
  )
  expected = _load('quickstart')
  expected.train.batch_size = 512
  expected.train.learning_rate = 1.0
  expected.model.hidden = (64, 32)
  expected.features.item[3].rank = 20
  expected.data.drop_leaks = True
  expected.features.user[0].sparse = False
  expected.evaluation.cutoffs = (7,)
  expected.evaluation.baselines = ('popularity', 'random')
  expected.name = 'mine [b]'
  assert cfg == expected
  assert workdir == 'elsewhere'


def test_a_value_may_follow_and_the_last_experiment_counts(train):
  paths = [f'{command_line.ROOT}/experiments/{n}.py' for n in _EXPERIMENTS[:2]]
  cfg, _ = train(
      '--config', paths[0], f'-config={paths[1]}', '--config.train.seed', '3'
  )
  expected = _load(_EXPERIMENTS[1])
  expected.train.seed = 3
  assert cfg == expected


@pytest.mark.parametrize(
    'text, words',
    [
        ('random', ('random',)),
        ('"random"', ('random',)),
        ("('random','teacher')", ('random', 'teacher')),
        ("['random']", ('random',)),
        ("'random','teacher'", ('random', 'teacher')),
        ('()', ()),
        ('', ()),
    ],
)
def test_words_with_quotes_or_without(train, text, words):
  cfg, _ = train(f'--config.evaluation.baselines={text}')
  assert cfg.evaluation.baselines == words


def test_flags_from_a_file(train, tmp_path):
  (tmp_path / 'flags').write_text(
      '--config.train.seed=4\n--noconfig.data.drop_leaks\n--workdir=there\n'
  )
  cfg, workdir = train('--flagfile=flags', '--config.train.num_steps=9')
  assert (cfg.train.seed, cfg.train.num_steps, workdir) == (4, 9, 'there')


def test_no_value_of_any_field_ends_in_a_traceback(train):
  """Values of other types for each field: taken or refused in one message."""
  del train
  odd = ('x', '1.5', '(1,"a")', '-1', '1e400', 'nan')
  for number, name in enumerate(_leaves(_load('quickstart'))):
    value = odd[number % len(odd)]
    ended = command_line.call(f'--config.{name}={value}')
    if ended.status:
      command_line.check(ended, 2, name.split('[')[0].split('.')[-1])


def test_a_profile_changes_what_neither_file_nor_flags_set(train):
  cfg, _ = train(
      '--config.train.optimizer=adam',
      '--config.profile=layer6',
      '--noconfig.dropout.drop_without_content',
  )
  expected, before = _load('quickstart'), config.Config()
  found, fields = _leaves(cfg), _leaves(expected)
  for name, value in profiles.values('layer6').items():
    changed = fields[name] == _leaves(before)[name]
    fields[name] = value if changed else fields[name]
  fields['profile'] = 'layer6'
  fields['train.optimizer'] = 'adam'
  fields['dropout.drop_without_content'] = False
  assert found == fields
  # The file of a profile as the default has it: sizes alone remain its own.
  path = f'{command_line.ROOT}/experiments/citeulike_a_cold_published.py'
  cfg, _ = train(f'--config={path}', '--config.profile=default')
  assert (cfg.profile, cfg.objective.pairing) == ('default', 'blocks')
  assert (cfg.model.hidden, cfg.train.num_steps) == ((200,), 70_000)


# Types and ranges.


def _set(cfg: config.Config, name: str, value: Any) -> None:
  *parents, last = re.findall(r'[^.\[\]]+', name)
  node: Any = cfg
  for parent in parents:
    node = node[int(parent)] if parent.isdigit() else getattr(node, parent)
  setattr(node, last, value)


@pytest.mark.parametrize('name', _leaves(_load('quickstart')))
def test_every_field_refuses_another_type(name):
  for value in (None, object(), {'a': 1}, [config.Config()], (None,)):
    cfg = _load('quickstart')
    _set(cfg, name, value)
    assert f'config.{name}' in _raises(cfg.validate)


_BOUNDS = 'two positive numbers, the smaller first'


@pytest.mark.parametrize(
    'name, value, rule',
    [
        ('train.batch_size', True, 'a whole number'),
        ('train.batch_size', 2.0, 'a whole number'),
        ('train.num_steps', 2**31, 'below 2147483648'),
        ('train.learning_rate', True, 'a finite number'),
        ('train.learning_rate', float('inf'), 'a finite number'),
        ('train.learning_rate', 0.0, 'positive'),
        ('train.decay_rate', 0.0, 'in (0, 1]'),
        ('train.ema', 1.0, 'below 1'),
        ('train.seed', -1, 'from 0 to 2147483647'),
        ('data.seed', -1, 'from 0 to 2147483647'),
        ('data.synthetic.seed', -1, 'from 0 to 2147483647'),
        ('data.warm_share', 0.5, 'at most 0.45 (drawn twice)'),
        ('data.drop_leaks', 1, 'True or False'),
        (
            'objective.teacher',
            0.0,
            "positive; it is the only loss where pairing isn't 'interactions'",
        ),
        ('objective.teacher', -1.0, 'at least 0'),
        (
            'objective.softmax',
            1.0,
            "0 unless objective.pairing is 'interactions'",
        ),
        ('objective.log_q', 1.5, 'a probability in [0, 1]'),
        ('objective.label_smoothing', 1.0, 'in [0, 1)'),
        ('objective.hard_ratio', 0.0, 'in (0, 1]'),
        ('objective.temperature', 0.0, 'at least 0.0001'),
        ('objective.support_vector', 0.5, 'at least 1'),
        ('objective.num_negatives', -1, 'at least 0'),
        ('objective.group_rows', 0, 'at least 1'),
        ('objective.scale_bounds', (1.0,), _BOUNDS),
        ('objective.scale_bounds', (0.0, 10.0), _BOUNDS),
        ('objective.scale_bounds', (20.0, 10.0), _BOUNDS),
        (
            'objective.learn_weights',
            True,
            'False with one term: there is nothing to weigh it against',
        ),
        (
            'objective.sampling',
            'epochs',
            "'replacement' unless objective.pairing is 'interactions'",
        ),
        (
            'objective.group_rows',
            2,
            "1 unless objective.pairing is 'interactions'",
        ),
        (
            'objective.num_sampled',
            4,
            '0 where no term uses it; that is what objective.softmax and '
            'objective.in_batch_softmax do',
        ),
        (
            'objective.num_impressions',
            4,
            '0 where no term uses it; that is what objective.softmax does',
        ),
        ('dropout.user_rate', 1.2, 'a probability in [0, 1]'),
        ('dropout.user_transform_rate', 0.6, 'at most 1'),
        ('dropout.drop_both', 0.7, 'at most 1'),
        (
            'dropout.schedule',
            'linear',
            "at least 1 where dropout.schedule is 'linear'",
        ),
        ('dropout.ramp_steps', 5, "0 where dropout.schedule is 'constant'"),
        ('dropout.start_share', 1.5, 'a probability in [0, 1]'),
        ('model.hidden', 64, 'a tuple'),
        ('model.hidden', (64, 0), 'at least 1'),
        ('model.group_hidden', (0,), 'at least 1'),
        (
            'model.group_hidden',
            (8,),
            "left alone where model.tower is 'paper'; 'groups' reads it",
        ),
        (
            'model.zero_users',
            True,
            "False unless model.tower is 'modern' and model.normalize is False",
        ),
        ('features.item', (), 'a list'),
        ('features.statistics', (-1.0,), 'at least 0'),
        ('features.statistics', (7.0, 7.0), 'distinct'),
        (
            'features.statistics',
            tuple(float(n) for n in range(17)),
            'at most 16 windows',
        ),
        ('features.history_smoothing', -1.0, 'at least 0'),
        ('features.statistics_smoothing', 0.0, 'at least 0.001'),
        (
            'features.statistics_smoothing',
            5.0,
            'left alone where features.statistics is empty',
        ),
        ('train', None, 'a TrainConfig'),
        ('evaluation.cutoffs', (), 'not empty'),
        ('evaluation.ridge_lambdas', (), 'not empty'),
        ('evaluation.ridge_smoothing_l2', 0.0, 'at least 1e-06'),
        (
            'evaluation.ridge_tolerance',
            1e-7,
            '0, or at least 1e-06 and below 1',
        ),
        ('evaluation.ease_l2', 0.0, 'at least 1e-06'),
        ('model.sparse.history_weight', -0.1, 'at least 0'),
        ('model.sparse.teacher_weight', -0.1, 'at least 0'),
        ('model.sparse.predicted_weight', -0.1, 'at least 0'),
        ('model.sparse.norm_power', 1.1, 'in [0, 1]'),
        ('teacher.regularization', 0.0, 'positive'),
    ],
)
def test_ranges(name, value, rule):
  cfg = config.Config()
  cfg.validate()
  _set(cfg, name, value)
  message = _raises(cfg.validate)
  assert message.startswith(f'config.{name.split(".")[0]}')
  assert message.endswith(f'it must be {rule}.')


def test_something_must_be_held_out():
  cfg = config.Config()
  cfg.data = config.DataConfig(cold_item_share=0.0, warm_share=0.0)
  assert 'nothing could be evaluated; raise one' in _raises(cfg.validate)
  cfg.data.split = 'published-cold'  # which brings its own sets
  cfg.validate()


def test_exclusive_dropout_belongs_to_single_pairs():
  cfg = config.Config()
  cfg.dropout.kind = 'exclusive'
  assert "Use pairing='published'" in _raises(cfg.validate)
  cfg.objective.pairing = 'published'
  cfg.validate()


def test_histories_are_no_factors():
  cfg = config.Config()
  cfg.features.preference = 'history'
  message = _raises(cfg.validate)
  assert "preference is 'history'" in message
  assert 'config.objective.teacher is 1.0. Set it to 0' in message


def test_attributes_that_are_no_fields():
  cfg = config.Config()
  cfg.modle = config.ModelConfig()  # type: ignore[attr-defined]
  message = _raises(cfg.validate)
  assert message == "config has no field 'modle'. Did you mean 'model'?"
  feature = config.Feature(column='x')
  feature.ranks = 3  # type: ignore[attr-defined]
  cfg = config.Config(features=config.FeaturesConfig(item=[feature]))
  message = _raises(cfg.validate)
  assert message.startswith("config.features.item[0] has no field 'ranks'.")


@given(strategies.integers())
def test_seeds(seed):
  if 0 <= seed <= 2147483647:
    checks.check_seed('train.seed', seed)
  else:
    assert 'from 0 to' in _raises(checks.check_seed, 'train.seed', seed)


# JSON, dotted names, sweeps.


@pytest.mark.parametrize('name', _EXPERIMENTS)
def test_json_and_back(name):
  cfg = _load(name)
  tree = json.loads(config_tree.to_json(cfg))
  assert config_tree.from_dict(tree) == cfg
  assert list(tree) == [f.name for f in dataclasses.fields(cfg)]


@pytest.mark.parametrize(
    'tree, message',
    [
        ([], 'config is []; expected a section.'),
        ({}, "config lacks the field 'name'; the rest is lost, or another"),
        ({'train': 3}, 'config.train is 3; expected a section.'),
        (
            {'features': {'item': {}}},
            'config.features.item is {}; expected a l',
        ),
        (
            {'features': {'item': [1]}},
            'config.features.item is 1; expected a s',
        ),
        (
            {'model': {'hidden': 3}},
            'config.model.hidden is 3; expected a list.',
        ),
        (
            {'trian': {}},
            "config has the field 'trian', which this version does",
        ),
    ],
)
def test_trees_of_another_shape(tree, message):
  assert _raises(config_tree.from_dict, tree).startswith(message)


def test_fields_are_named_as_flags_set_them(train):
  cfg = _load('quickstart')
  assert config_tree.fields(cfg) == _leaves(cfg)


def test_annotations_of_fields():
  cfg = _load('quickstart')
  hints = {name: config_tree.check_field(cfg, name) for name in _leaves(cfg)}
  assert hints['train.seed'] is int
  assert hints['features.item[0].rank'] is int
  assert hints['dropout.user_rate'] is float
  assert hints['data.drop_leaks'] is bool
  assert typing.get_origin(hints['model.hidden']) is tuple


@pytest.mark.parametrize(
    'name, message',
    [
        ('trian.seed', "config has no field 'trian'. Did you mean 'train'?"),
        ('train.sed', "config.train has no field 'sed'. Did you mean 'seed'?"),
        ('train.seed.x', "config.train.seed has no field 'x'."),
        ('train[0]', 'config.train is no list; [0] picks nothing.'),
        ('features.item[x].rank', 'config.features.item is no list; [x] picks'),
        ('features.item[9].rank', 'config.features.item has 4 entries; [9]'),
        ('features.item', 'config.features.item is a list; set fields of its'),
        ('features.item[0]', 'config.features.item[0] is a section; set its'),
        ('train', 'config.train is a section; set its fields: config.train.b'),
        ('', "config has no field ''."),
    ],
)
def test_names_that_are_no_fields(name, message):
  cfg = _load('quickstart')
  assert _raises(config_tree.check_field, cfg, name).startswith(message)


def test_a_sweep_sets_one_field(train):
  cfg, workdir = train(
      '--config.sweep.field=dropout.user_rate', '--config.sweep.values=(0.,1.)'
  )
  assert workdir == 'runs/quickstart' and cfg.sweep.values == (0.0, 1.0)
  one = config_tree.swept(cfg, 1.0)
  assert one.dropout.user_rate == 1.0 and not one.sweep.values
  assert cfg.dropout.user_rate == 0.5
  assert '1.5; it must be' in _raises(config_tree.swept, cfg, 1.5)
  cfg.sweep.field = 'features.item[0].rank'
  assert 'cannot be swept' in _raises(config_tree.swept, cfg, 1)
  cfg.sweep.field = 'sweep.field'
  assert 'cannot sweep itself' in _raises(config_tree.swept, cfg, 1)
