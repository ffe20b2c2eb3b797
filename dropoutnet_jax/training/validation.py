# SPDX-License-Identifier: Apache-2.0
"""Metrics of the model while it trains, and what the best checkpoint is."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import labelled
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.evaluation import row_scores
from dropoutnet_jax.model import objective_params
from dropoutnet_jax.training import runtime as runtime_lib
from dropoutnet_jax.training import state as state_lib

# Of labelled rows: by the order of scores, and of probabilities. Of the last
# ones less is better.
_OF_ORDER = ('auc', 'gauc', 'session_gauc')
_LOSSES = ('log_loss', 'calibration_error')


def metric_names(cfg: config.Config, problem: problem_lib.Problem) -> list[str]:
  """What `validate` will return, known before anything is trained."""
  metrics = ['mrr'] + [
      f'{metric}@{cutoff}'
      for metric in ('recall', 'ndcg', 'hit')
      for cutoff in cfg.evaluation.cutoffs
  ]
  names = []
  for name, held_out in problem.split.evaluation.items():
    quadrant = protocol.quadrant_of(name)
    if name == quadrant:
      continue
    if len(held_out):
      names += [f'{quadrant}/{metric}' for metric in metrics]
    rows = _rows(problem, name)
    if rows is None:
      continue
    # Whether labels define a metric does not depend on the scores.
    found = labelled.summary(
        np.zeros(len(rows)),
        row_scores.labels(rows),
        rows.weight,
        rows.user,
        rows.session,
    )
    known = _OF_ORDER + _LOSSES * says_probabilities(cfg)
    names += [f'{quadrant}/{m}' for m in known if found.get(m) is not None]
  return names


def validate(
    runtime: runtime_lib.Runtime, state: state_lib.TrainState
) -> dict[str, float]:
  """Metrics of the model on the validation sets: 'cold_item/ndcg@20'."""
  scorer = runtime.scorer(state)
  method = scorer.methods()['model']
  cfg, problem = runtime.cfg, runtime.problem
  likes = problem.likes()
  values: dict[str, float] = {}
  for name, held_out in problem.split.evaluation.items():
    quadrant = protocol.quadrant_of(name)
    if name == quadrant:
      continue  # test sets are not looked at while training
    found = protocol.evaluate(
        method(quadrant, held_out),
        held_out,
        likes,
        cfg.evaluation,
        f'the model on {name} after step {int(state.step)}',
    )
    values |= {f'{quadrant}/{metric}': v for metric, v in found.items()}
    rows = _rows(problem, name)
    if rows is None:
      continue
    logit = None
    if says_probabilities(cfg):
      logit = logits(cfg, scorer.variables['params'])
    of_rows = row_scores.evaluate(method, quadrant, rows, cfg.evaluation, logit)
    for metric in _OF_ORDER + _LOSSES:
      value = of_rows.get(metric)
      if value is not None:
        values[f'{quadrant}/{metric}'] = float(value)
  return values


def selection_value(
    values: Mapping[str, float], settings: config.TrainConfig
) -> float | None:
  """What the best checkpoint has most of; None without validation sets.

  Raises:
    UserError: if train.select_by names no validation metric.
  """
  if not values:
    return None
  name = settings.select_by
  if name:
    if name not in values:
      raise errors.UserError(
          f'config.train.select_by is {name!r}, which is no validation metric '
          f'here; there are {", ".join(sorted(values))}.'
          + errors.did_you_mean(name, values)
      )
    return -values[name] if name.endswith(_LOSSES) else values[name]
  ndcg = [v for name, v in values.items() if '/ndcg@' in name]
  return float(np.mean(ndcg))


def says_probabilities(cfg: config.Config) -> bool:
  """Whether the scores of the whole model are made logits by 'pointwise'."""
  return bool(cfg.objective.pointwise) and not cfg.model.sparse.enabled


def logits(
    cfg: config.Config, params: Any
) -> Callable[[np.ndarray], np.ndarray]:
  """What makes logits of the towers' scores, where 'pointwise' has trained."""
  return jax.tree.map(float, objective_params.logit(cfg, params))


def _rows(
    problem: problem_lib.Problem, name: str
) -> schema.Interactions | None:
  """Labelled rows of a set, if there are some."""
  if problem.labelled is None:
    return None
  rows = problem.labelled.evaluation.get(name)
  return rows if rows is not None and len(rows) else None
