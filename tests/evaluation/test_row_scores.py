# SPDX-License-Identifier: Apache-2.0
"""Labelled rows are scored like candidates, whatever the chunks."""

import dataclasses

import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import labelled
from dropoutnet_jax.evaluation import row_scores

SETTINGS = config.EvaluationConfig(users_per_chunk=2, threshold=0.3)
TABLE = np.random.default_rng(0).normal(size=(9, 12)).astype(np.float32)


def _method(quadrant, held_out):
  assert quadrant == 'cold_item'
  return lambda rows: TABLE[rows][:, held_out.candidates]


def _rows(size=60):
  rng = np.random.default_rng(1)
  return schema.Interactions(
      rng.choice([1, 3, 4, 8], size).astype(np.int32),
      rng.choice([0, 2, 5, 11], size).astype(np.int32),
      label=(rng.random(size) < 0.4).astype(np.float32),
  )


@pytest.mark.parametrize('users_per_chunk', [1, 3, 100])
def test_each_row_has_its_own_score(users_per_chunk):
  rows = _rows()
  found = row_scores.score_rows(_method, 'cold_item', rows, users_per_chunk)
  np.testing.assert_array_equal(found, TABLE[rows.user, rows.item])


def test_logits_have_all_metrics_and_scores_those_of_order():
  rows = _rows()
  score = TABLE[rows.user, rows.item]
  to_logit = lambda score: 2 * score - 1
  full = row_scores.evaluate(_method, 'cold_item', rows, SETTINGS, to_logit)
  expected = labelled.summary(
      to_logit(score), rows.label, group=rows.user, threshold=0.3
  )
  assert full == expected
  order = row_scores.evaluate(_method, 'cold_item', rows, SETTINGS, None)
  names = ('auc', 'gauc', 'gauc_left_out', 'rows', 'positives')
  assert order == {name: full[name] for name in names}


def test_sessions_have_an_auc_of_their_own():
  rows = dataclasses.replace(_rows(), session=np.arange(len(_rows())) // 2)
  found = row_scores.evaluate(_method, 'cold_item', rows, SETTINGS, None)
  expected = labelled.summary(
      TABLE[rows.user, rows.item],
      rows.label,
      group=rows.user,
      session=rows.session,
  )
  for name in ('session_gauc', 'session_gauc_left_out'):
    assert found[name] == expected[name]
