# SPDX-License-Identifier: Apache-2.0
"""Spaces that are right: those of the experiments, and who is in them."""

import pathlib

import pytest

from dropoutnet_jax import config_tree
from dropoutnet_jax import experiment
from dropoutnet_jax.tuning import spaces
from dropoutnet_jax.tuning import trials
from tests import command_line
from tests.tuning import test_study

_SPACES = [
    path
    for path in sorted(command_line.ROOT.glob('experiments/*.py'))
    if 'def get_space()' in path.read_text(encoding='utf-8')
]


@pytest.mark.parametrize('path', _SPACES, ids=lambda path: path.stem)
def test_spaces_of_experiments_hold_the_experiments(path: pathlib.Path):
  entries = spaces.load(str(path), '--config')
  cfg = experiment.load(str(path))
  spaces.check(trials.settings(cfg), entries)
  point = spaces.own_point(cfg, entries)
  assert point and config_tree.with_values(cfg, point) == cfg


def test_there_are_spaces():
  assert 'movielens_end_to_end' in [path.stem for path in _SPACES]


@pytest.mark.parametrize(
    'field, value, inside',
    [
        ('train.learning_rate', 1e-4, True),
        ('train.learning_rate', 0.2, False),
        ('train.optimizer', 'sgd', False),
        ('train.weight_decay', 0.5, True),  # its condition does not hold
        ('model.rank', 3, False),
        ('dropout.item_rate', 0.3, True),
        ('dropout.item_rate', 0.35, False),
    ],
)
def test_whether_an_experiment_is_in_its_space(field, value, inside):
  # Some of it a run could not have: only the space is asked.
  cfg = test_study.made(test_study.OWN | {field: value})
  assert (spaces.own_point(cfg, test_study.ENTRIES) is not None) == inside
