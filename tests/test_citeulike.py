# SPDX-License-Identifier: Apache-2.0
"""Accuracy on the cold papers of CiteULike-a, held to what is claimed of it.

Needs the real data. One preparation serves all tests, with the settings of
`experiments/citeulike_a_cold.py`; the teacher trains for a third of its
iterations, the towers for a fifth of their steps, on 700 numbers of each paper
instead of 1,000.
"""

import pathlib

import jax.numpy as jnp
import pytest

from dropoutnet_jax import config
from dropoutnet_jax import experiment
from dropoutnet_jax.evaluation import content_ridge
from dropoutnet_jax.evaluation import ease
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.evaluation import sparse_fit
from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import runtime as runtime_lib

_EXPERIMENTS = pathlib.Path(__file__).resolve().parents[1] / 'experiments'
_STEPS = 100
_LAMBDA = 3.0  # the middle one of those that the experiment tries


def _config(name: str) -> config.Config:
  made = experiment.load(str(_EXPERIMENTS / f'{name}.py'))
  made.train.num_steps = made.train.steps_per_dispatch = _STEPS
  made.teacher.num_iterations = 3
  made.features.item[0].rank = 700
  made.validate()
  return made


@pytest.fixture(scope='module')
def problem(data_dir):
  return prepare.prepare(_config('citeulike_a_cold'), str(data_dir), None)


@pytest.fixture(scope='module')
def methods(problem):
  """The whole embedding and the towers alone, after few steps."""
  cfg = _config('citeulike_a_cold_sparse')
  part = sparse_fit.fit(problem, cfg.model.sparse, cfg.train.seed)
  runtime = runtime_lib.build(cfg, problem, part, num_devices=1)
  state, metrics = runtime.train_steps()(
      runtime.fresh_state(), runtime.tables, jnp.int32(_STEPS)
  )
  assert int(state.step) == _STEPS and jnp.isfinite(metrics['loss/total']).all()
  return runtime.scorer(state).methods()


def _metrics(problem, method) -> dict[str, float]:
  held_out = problem.split.evaluation['cold_item']
  assert len(held_out.candidates) == 3_396
  return protocol.evaluate(
      method('cold_item', held_out),
      held_out,
      problem.likes(),
      config.EvaluationConfig(),
      'a method on the cold papers',
  )


@pytest.fixture(scope='module')
def ridge(problem):
  """Content ridge of the training papers for the cold ones."""
  content = problem.item.sparse
  candidates = problem.split.evaluation['cold_item'].candidates
  train_items = problem.split.train_rows()[1]
  return content_ridge.fit(content[train_items], content[candidates], _LAMBDA)


@pytest.mark.parametrize(
    'smoothing, ndcg, recall', [(0.0, 0.340, 0.54), (3.0, 0.350, 0.58)]
)
def test_content_ridge(problem, ridge, smoothing, ndcg, recall):
  histories = problem.likes()[:, problem.split.train_rows()[1]].tocsr()
  smoother = ease.fit(histories, 100.0) if smoothing else None

  def score(rows):
    return ridge.scores(ease.smoothed(histories[rows], smoother, smoothing))

  found = _metrics(problem, lambda quadrant, held_out: score)
  assert found['ndcg@20'] >= ndcg
  assert found['recall@100'] >= recall


def test_towers_after_few_steps(problem, methods):
  found = _metrics(problem, methods['tower'])
  assert found['recall@100'] >= 0.55
  assert found['ndcg@20'] >= 0.245


def test_sparse_part_and_towers_after_few_steps(problem, methods):
  found = _metrics(problem, methods['model'])
  assert found['recall@100'] >= 0.595
  assert found['ndcg@20'] >= 0.350
