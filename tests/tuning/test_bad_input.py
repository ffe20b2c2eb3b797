# SPDX-License-Identifier: Apache-2.0
"""Studies that cannot be: one message, status 2, every file as it was."""

import sys
from typing import NamedTuple

import pytest

from tests import command_line

pytest.importorskip('optuna')

_CONFIG = """
from dropoutnet_jax import config
from dropoutnet_jax import space


def get_config():
  world = config.SyntheticConfig(
      num_users=60, num_items=80, likes_per_user=12.0
  )
  return config.Config(
      name='mine',
      data=config.DataConfig(warm_share=0.0, synthetic=world),
      features=config.FeaturesConfig(
          item=[config.Feature(column='genre', kind='category')],
          preference='history',
      ),
      objective=config.ObjectiveConfig(teacher=0.0, in_batch_softmax=1.0,
                                       pairing='interactions'),
      train=config.TrainConfig(batch_size=64, num_steps=4, eval_every=2),
      evaluation=config.EvaluationConfig(cutoffs=(5,), baselines=()),
  )
"""
_RATE = "space.Float('train.learning_rate', 1e-3, 1e-1, log=True)"


class Case(NamedTuple):
  """A mistake.

  Attributes:
    name: of the test.
    message: part of what must be said.
    entries: of get_space(), as code.
    flags: of the command.
    files: beside mine.py, by path.
    tail: of mine.py, instead of get_space().
  """

  name: str
  message: str
  entries: str = _RATE
  flags: str = ''
  files: dict[str, str] = {}
  tail: str | None = None


def _entry(name: str, entries: str, message: str) -> Case:
  return Case(name, f'run.py: get_space(): {message}', entries)


CASES = [
    # The file.
    Case('no get_space', 'mine.py defines no function get_space()', tail=''),
    Case(
        'a space that fails',
        'ZeroDivisionError: ',
        tail='def get_space():\n  return 1 / 0\n',
    ),
    Case('an empty space', 'get_space() returns []; it must', ''),
    Case('an entry that is none', "entry 0 of get_space() is 'a'; it", "'a'"),
    Case(
        'no file', '--space=no.py: there is no such file', flags='--space=no.py'
    ),
    Case(
        'a space elsewhere without the function',
        'other.py defines no function get_space()',
        flags='--space=other.py',
        files={'other.py': 'x = 1\n'},
    ),
    # Fields.
    Case(
        'an unknown field',
        "config.train has no field 'learning_rat'. Did you mean",
        "space.Float('train.learning_rat', 0.1, 1)",
    ),
    Case('a section', 'config.train is a section', "space.Int('train', 1, 2)"),
    Case(
        'a list',
        'config.features.item is a list',
        "space.Int('features.item', 1, 2)",
    ),
    _entry(
        'the split',
        "space.Float('data.cold_item_share', 0.1, 0.3)",
        'data.cold_item_share: it cannot be tuned: other rows would be held',
    ),
    _entry(
        'the seed',
        "space.Int('train.seed', 0, 9)",
        'train.seed: it cannot be tuned: the best of several seeds is luck',
    ),
    _entry(
        'the metric',
        "space.Choice('train.select_by', ('', 'warm/auc'))",
        'train.select_by: it cannot be tuned: values of the trials would be',
    ),
    _entry(
        'what is told after training',
        "space.Float('features.history_smoothing', 1, 9)",
        'features.history_smoothing: it cannot be tuned: what it changes is',
    ),
    _entry(
        'a field twice',
        f'{_RATE}, {_RATE}',
        'train.learning_rate: the field is there twice',
    ),
    _entry(
        'a field that nothing reads',
        "space.Float('objective.margin', 0.1, 0.9)",
        'objective.margin: nothing reads it under the settings of the exper',
    ),
    # Types and ranges.
    _entry(
        'a float of whole numbers',
        "space.Float('model.rank', 4, 8)",
        'model.rank: a space.Float for a field of type int; use space.Int',
    ),
    _entry(
        'numbers of text',
        "space.Int('train.optimizer', 1, 2)",
        'train.optimizer: a space.Int for a field of type str; use',
    ),
    _entry(
        'a fraction of a whole number',
        "space.Int('model.rank', 4, 8.5)",
        'model.rank: high is 8.5; it must be a whole number',
    ),
    _entry(
        'no number',
        "space.Float('train.learning_rate', 0.1, float('nan'))",
        'train.learning_rate: high is nan; it must be a finite number',
    ),
    _entry(
        'an empty range',
        "space.Float('train.learning_rate', 0.1, 0.01)",
        'train.learning_rate: the range from 0.1 to 0.01 is empty',
    ),
    _entry(
        'a logarithm of 0',
        "space.Float('dropout.item_rate', 0.0, 0.9, log=True)",
        'dropout.item_rate: log=True with low=0.0 and step=0.0; low must be',
    ),
    _entry(
        'a step that is too wide',
        "space.Int('model.rank', 4, 8, step=5)",
        'model.rank: step is 5; it must be from 1 to the width of the range, 4',
    ),
    _entry(
        'one choice',
        "space.Choice('train.optimizer', ('adam',))",
        "train.optimizer: values is ('adam',); give two or more",
    ),
    _entry(
        'a choice twice',
        "space.Choice('train.optimizer', ('adam', 'sgd', 'adam'))",
        'train.optimizer: values is (',
    ),
    # What validate() refuses.
    _entry(
        'an end out of range',
        "space.Float('dropout.item_rate', 0.5, 1.5)",
        'dropout.item_rate cannot be 1.5: config.dropout.item_rate is 1.5; it',
    ),
    _entry(
        'an unknown choice',
        "space.Choice('train.optimizer', ('adam', 'adamm'))",
        "train.optimizer cannot be 'adamm': config.train.optimizer is 'adamm'",
    ),
    _entry(
        'a choice of another type',
        "space.Choice('model.hidden', ((8,), 8))",
        'model.hidden cannot be 8: config.model.hidden is 8; it must be a tupl',
    ),
    _entry(
        'a setting without its condition',
        "space.Float('train.weight_decay', 0.1, 0.2)",
        'train.weight_decay cannot be 0.1: config.train.weight_decay is',
    ),
    # Conditions.
    _entry(
        'a condition on nothing',
        f"{_RATE}, space.Int('model.rank', 4, 8, when=('train.optimizer', 1))",
        "model.rank: when names 'train.optimizer', which no earlier",
    ),
    _entry(
        'a condition that never holds',
        "space.Choice('train.optimizer', ('adam', 'adamw')), "
        "space.Int('model.rank', 4, 8, when=('train.optimizer', 'sgd'))",
        "model.rank: when wants train.optimizer = 'sgd'; it must be one of",
    ),
    _entry(
        'a condition without a value',
        f"{_RATE}, space.Int('model.rank', 4, 8, when='train.optimizer')",
        "model.rank: when is 'train.optimizer'; it must be (FIELD, VALUE)",
    ),
    # Flags and settings.
    Case('no trials', '--trials=0: it must be above 0', flags='--trials=0'),
    Case('time before', '--minutes=-1.0: it must be', flags='--minutes=-1'),
    Case('no number of trials', 'expected a whole number', flags='--trials=x'),
    Case(
        'a trace',
        'tune does not read that; leave out --profile',
        flags='--profile',
    ),
    Case('flags of others', 'leave out --check', flags='--check'),
    Case(
        'nothing to choose by',
        "config.data.validation is 'return': there would be nothing to choose",
        flags='--config.data.validation=return',
    ),
    Case(
        'a sweep',
        'config.sweep.values is (0.1, 0.2); it must be empty for tune',
        flags='--config.sweep.values=(0.1,0.2)',
    ),
    Case(
        'a metric that is none',
        "config.train.select_by is 'warm/ndcg@5', which is no validation",
        flags='--config.train.select_by=warm/ndcg@5',
    ),
    # Folders.
    Case(
        'a folder of something else',
        'run is no folder of a study: it has no study.json, but it holds a.txt',
        files={'run/a.txt': 'mine'},
    ),
    Case(
        'another study',
        'run holds another study; it differs in --prune (None there, True now)',
        files={'run/study.json': '{"config": {"name": "other"}}'},
    ),
    Case(
        'a damaged folder',
        'run/study.json is damaged: Expecting',
        files={'run/study.json': '{"config": '},
    ),
]


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_mistakes(case, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  tail = case.tail
  if tail is None:
    tail = f'\n\ndef get_space():\n  return [{case.entries}]\n'
  command_line.write(tmp_path, {'mine.py': _CONFIG + tail} | case.files)
  before = command_line.snapshot(tmp_path)
  ended = command_line.call(
      'tune', '--config=mine.py', '--workdir=run', *case.flags.split()
  )
  command_line.check(ended, 2, case.message)
  assert command_line.snapshot(tmp_path) == before
  assert (tmp_path / 'run').exists() == ('run' in before)


def test_names_are_used_once():
  assert len({case.name for case in CASES}) == len(CASES) >= 30


def test_without_optuna_it_says_what_to_install(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setitem(sys.modules, 'optuna', None)
  tail = f'\n\ndef get_space():\n  return [{_RATE}]\n'
  command_line.write(tmp_path, {'mine.py': _CONFIG + tail})
  ended = command_line.call('tune', '--config=mine.py', '--workdir=run')
  command_line.check(ended, 2, 'tune needs Optuna (')
  assert "pip install '.[tune]'" in ended.err
  assert not (tmp_path / 'run').exists()
