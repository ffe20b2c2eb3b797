# SPDX-License-Identifier: Apache-2.0
"""A calibration from a run: of its validation split, kept where it can be."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from dropoutnet_jax import errors
from dropoutnet_jax.exploring import calibration_file


@pytest.fixture(name='parts')
def fixture_parts(validated):
  """Configuration, problem and scorer."""
  return validated


def test_it_is_of_the_new_items_of_the_validation_split(parts, tmp_path):
  cfg, problem, scorer = parts
  found = calibration_file.obtain(str(tmp_path), cfg, problem, scorer, 7)
  held_out = problem.split.evaluation['cold_item_validation']
  assert found.items == len(held_out.candidates) >= 20
  assert found.users == len(np.unique(held_out.user))
  assert found.passes == calibration_file.PASSES and found.step == 7
  pairs = sum(one['pairs'] for one in found.bins)
  assert pairs == found.users * found.items
  likes = sum(one['pairs'] * one['observed'] for one in found.bins)
  assert likes == pytest.approx(len(held_out))
  assert sum(one['items'] for one in found.spread_bins) == found.items
  assert np.all(np.diff(found.map['chance']) >= 0)
  kept = json.loads((tmp_path / 'exploring.json').read_text())
  assert kept == json.loads(json.dumps(dataclasses.asdict(found)))
  # Read, not made again.
  again = calibration_file.obtain(str(tmp_path), cfg, problem, scorer, 7)
  assert again == found
  assert calibration_file.read(str(tmp_path), 8) is None


def test_a_folder_that_cannot_be_written_is_no_hindrance(parts, tmp_path):
  cfg, problem, scorer = parts
  nowhere = str(tmp_path / 'no')
  found = calibration_file.obtain(nowhere, cfg, problem, scorer, 7)
  assert found.items and 'cannot be written' in found.note


def test_few_new_items_say_nothing(parts, monkeypatch):
  cfg, problem, scorer = parts
  monkeypatch.setattr(calibration_file, '_ITEMS', 5)
  found = calibration_file.make(cfg, problem, scorer, 7)
  assert found.scale == 1 and 'too few to tell' in found.note


def test_scores_that_are_not_finite_are_an_error(parts):
  cfg, problem, scorer = parts
  bad = jax.tree.map(lambda x: x * np.nan, scorer.variables)
  broken = dataclasses.replace(scorer, variables=bad)
  with pytest.raises(errors.UserError, match='held-out new items are not fin'):
    calibration_file.make(cfg, problem, broken, 7)
