# SPDX-License-Identifier: Apache-2.0
"""What is said of a set: means as ever, and details of test sets alone."""

import dataclasses

import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.evaluation import details
from dropoutnet_jax.evaluation import protocol

SETTINGS = config.EvaluationConfig(cutoffs=(3,), bootstrap=50)


def _method(seed):
  table = np.random.default_rng(seed).random((30, 40)).astype(np.float32)
  return lambda quadrant, held_out: (
      lambda rows: table[rows][:, held_out.candidates]
  )


METHODS = {'model': _method(5), 'other': _method(6)}


def _evaluate(problem, name, settings=SETTINGS, methods=None):
  held_out = problem.split.evaluation[protocol.quadrant_of(name)]
  return details.evaluate(
      methods or METHODS, name, held_out, problem, problem.likes(), settings
  )


def test_means_intervals_and_differences_agree(problem):
  found, per_user = _evaluate(problem, 'cold_item')
  held_out = problem.split.evaluation['cold_item']
  for name, method in METHODS.items():
    expected = protocol.evaluate(
        method('cold_item', held_out),
        held_out,
        problem.likes(),
        SETTINGS,
        name,
    )
    assert found['methods'][name] == pytest.approx(expected)
    for metric, (low, high) in found['intervals'][name].items():
      assert low <= found['methods'][name][metric] <= high
      mean = per_user.values[name][metric].mean()
      assert mean == pytest.approx(expected[metric])
  assert set(found['paired']) == {'other'}
  gap = found['paired']['other']['ndcg@3']
  means = [found['methods'][m]['ndcg@3'] for m in ('model', 'other')]
  assert gap['difference'] == pytest.approx(means[0] - means[1])
  assert gap['low'] < gap['difference'] < gap['high']
  assert 0 < gap['better'] + gap['worse'] <= 1


def test_new_items_are_looked_at_among_all(problem):
  found, _ = _evaluate(problem, 'cold_item')
  assert found['mixed']['candidates'] == 40 and found['mixed']['cold'] == 10
  mixed = found['mixed']['methods']['model']
  assert mixed['recall@3'] < found['methods']['model']['recall@3']
  assert 'mixed' not in _evaluate(problem, 'warm')[0]
  assert 'mixed' in _evaluate(problem, 'cold_both')[0]


def test_validation_sets_have_means_alone(problem):
  found, per_user = _evaluate(problem, 'cold_item_validation')
  assert not {'intervals', 'paired', 'slices', 'mixed'} & found.keys()
  assert per_user.values.keys() == METHODS.keys()


def test_details_are_left_out_on_request(problem):
  settings = dataclasses.replace(
      SETTINGS, bootstrap=0, slices=False, mixed=False
  )
  found, _ = _evaluate(problem, 'cold_item', settings)
  assert not {'intervals', 'paired', 'slices', 'mixed'} & found.keys()


def test_the_digest_is_of_pairs_and_candidates(problem):
  held_out = problem.split.evaluation['cold_item']
  same = dataclasses.replace(
      held_out, user=held_out.user[::-1], item=held_out.item[::-1]
  )
  fewer = dataclasses.replace(held_out, candidates=held_out.candidates[1:])
  other = dataclasses.replace(held_out, item=np.roll(held_out.item, 1))
  first = details.digest(held_out)
  assert details.digest(same) == first
  assert len({first, details.digest(fewer), details.digest(other)}) == 3
