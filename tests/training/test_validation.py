# SPDX-License-Identifier: Apache-2.0
"""What is measured while training, on labelled rows as well."""

import dataclasses

import numpy as np
import pytest

from dropoutnet_jax import config
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import labelled as labelled_metrics
from dropoutnet_jax.evaluation import row_scores
from dropoutnet_jax.training import runtime as runtime_lib
from dropoutnet_jax.training import validation
from tests import tiny_run


def _problem(labelled, one_kind=False):
  """Its validation set has labelled rows, of one kind of label or of two."""
  rng = np.random.default_rng(0)
  evaluation = {}
  for name, held_out in labelled.split.evaluation.items():
    label = np.float32(rng.random(len(held_out)) < 0.5)
    evaluation[name] = schema.Interactions(
        held_out.user,
        rng.permutation(held_out.item),
        label=np.ones_like(label) if one_kind else label,
    )
  rows = dataclasses.replace(labelled.labelled, evaluation=evaluation)
  return dataclasses.replace(labelled, labelled=rows)


@pytest.mark.parametrize('pointwise', [0.0, 1.0])
def test_labelled_rows_of_validation_are_measured(labelled, pointwise):
  cfg = tiny_run.changed(
      objective={
          'teacher': 0.0,
          'softmax': 1.0,
          'pointwise': pointwise,
          'num_negatives': 4,
          'pairing': 'interactions',
      },
      train={'batch_size': 64},
  )
  problem = _problem(labelled)
  runtime = runtime_lib.build(cfg, problem, num_devices=1)
  state = runtime.fresh_state()
  values = validation.validate(runtime, state)
  assert set(values) == set(validation.metric_names(cfg, problem))
  rows = problem.labelled.evaluation['cold_item_validation']
  scorer = runtime.scorer(state)
  score = row_scores.score_rows(
      scorer.methods()['model'], 'cold_item', rows, 64
  )
  expected = labelled_metrics.summary(score, rows.label, group=rows.user)
  for name in ('auc', 'gauc'):
    assert values[f'cold_item/{name}'] == pytest.approx(expected[name])
  assert ('cold_item/log_loss' in values) == bool(pointwise)
  if pointwise:
    logit = validation.logits(cfg, scorer.variables['params'])
    expected = labelled_metrics.log_loss(np.asarray(logit(score)), rows.label)
    assert values['cold_item/log_loss'] == pytest.approx(expected, rel=1e-5)
    # Less of it is better.
    train = config.TrainConfig(select_by='cold_item/log_loss')
    chosen = validation.selection_value(values, train)
    assert chosen == -values['cold_item/log_loss']


def test_labels_of_one_kind_have_no_auc_to_select_by(labelled):
  problem = _problem(labelled, one_kind=True)
  names = validation.metric_names(tiny_run.get_config(), problem)
  assert 'cold_item/ndcg@5' in names
  assert not [name for name in names if name.endswith('auc')]
