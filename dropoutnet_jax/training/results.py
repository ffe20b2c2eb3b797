# SPDX-License-Identifier: Apache-2.0
"""`results.json`: the model and every baseline on every split."""

from collections.abc import Callable
import importlib.metadata
import json
import os
import platform
import resource
import sys
import time
from typing import Any

from dropoutnet_jax import __version__
from dropoutnet_jax import config
from dropoutnet_jax import parallel
from dropoutnet_jax.data import files
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import baselines
from dropoutnet_jax.evaluation import details
from dropoutnet_jax.evaluation import lists
from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.evaluation import ridge_method
from dropoutnet_jax.evaluation import row_scores
from dropoutnet_jax.evaluation import warm_up
from dropoutnet_jax.training import loop
from dropoutnet_jax.training import runtime as runtime_lib
from dropoutnet_jax.training import state as state_lib
from dropoutnet_jax.training import validation

_PACKAGES = (
    'flax',
    'jax',
    'jaxlib',
    'numpy',
    'optax',
    'orbax-checkpoint',
    'scikit-learn',
    'scipy',
)


def make_baselines(
    runtime: runtime_lib.Runtime,
) -> dict[str, protocol.Method]:
  """The configured baselines by name, and the oracle of a planted world."""
  problem, settings = runtime.problem, runtime.cfg.evaluation
  make: dict[str, Callable[[], protocol.Method]] = {
      'random': lambda: baselines.make_random(runtime.cfg.train.seed),
      'popularity': lambda: baselines.make_popularity(problem),
      'content_knn': lambda: baselines.ContentKnn(problem, settings),
      'content_ridge': lambda: ridge_method.ContentRidge(problem, settings),
      'linear_content': lambda: baselines.make_linear_content(problem),
      'teacher': lambda: baselines.make_teacher(problem),
      'ideal_popularity': lambda: baselines.ideal_popularity,
      'ease': lambda: baselines.Ease(problem, settings.ease_l2),
  }
  methods = {name: make[name]() for name in settings.baselines}
  if problem.truth is not None:
    methods['oracle'] = baselines.make_oracle(problem.truth)
  return methods


def evaluate(
    runtime: runtime_lib.Runtime,
    state: state_lib.TrainState,
    outcome: loop.Outcome,
) -> tuple[dict[str, Any], dict[str, details.PerUser]]:
  """All of results.json for a state, and the values of every user by set.

  Args:
    runtime: of the run.
    state: the parameters to evaluate; its step is in the results.
    outcome: of the training, for its time and its reason to end.

  Returns:
    The first the same on all processes, which must all call this; one of them
    computes, and has the second.
  """
  scorer = runtime.scorer(state)
  step = int(state.step)
  found = parallel.on_writer(lambda: _evaluate(runtime, scorer, step, outcome))
  text = parallel.from_writer(None if found is None else json.dumps(found[0]))
  return json.loads(text), {} if found is None else found[1]


def _evaluate(
    runtime: runtime_lib.Runtime,
    scorer: model_scores.Scorer,
    step: int,
    outcome: loop.Outcome,
) -> tuple[dict[str, Any], dict[str, details.PerUser]]:
  """`evaluate` on one process, without any collective operation."""
  begin = time.monotonic()
  cfg, problem = runtime.cfg, runtime.problem
  methods = scorer.methods() | make_baselines(runtime)
  likes = problem.likes()
  splits: dict[str, Any] = {}
  per_user: dict[str, details.PerUser] = {}
  for name, held_out in problem.split.evaluation.items():
    if len(held_out):
      splits[name], per_user[name] = details.evaluate(
          methods, name, held_out, problem, likes, cfg.evaluation
      )
  if problem.labelled is not None:
    for name, rows in problem.labelled.evaluation.items():
      if name in splits and len(rows):
        splits[name]['labelled'] = _label_metrics(
            cfg, methods, name, rows, scorer.variables['params']
        )
  chosen = {
      label: method.chosen()
      for label, method in methods.items()
      if isinstance(method, (ridge_method.ContentRidge, baselines.ContentKnn))
  }
  curves = warm_up.evaluate(problem, scorer, cfg, methods)
  trained = outcome.step * runtime.pairs_per_step
  results = {
      'experiment': cfg.name,
      'seed': cfg.train.seed,
      'step': step,
      'last_step': outcome.step,
      'stopped_early': outcome.reason,
      'train_seconds': round(outcome.seconds, 3),
      'examples_per_second': round(trained / max(outcome.seconds, 1e-9), 1),
      'prepare_seconds': problem.seconds,
      'evaluate_seconds': round(time.monotonic() - begin, 3),
      'peak_memory_bytes': peak_memory(),
      'peak_device_memory_bytes': parallel.device_memory(),
      'devices': parallel.describe_devices(),
      'versions': versions(),
      'rules': protocol.RULES,
      'notes': [*problem.notes, *runtime.notes()],
      'chosen': chosen,
      'splits': splits,
      'warm_up': curves,
      'embedding_rank': {
          side: round(lists.effective_rank(emb), 2)
          for side, emb in scorer.all_embeddings().items()
      },
  }
  return results, per_user


def _label_metrics(
    cfg: config.Config,
    methods: dict[str, protocol.Method],
    name: str,
    rows: schema.Interactions,
    params: Any,
) -> dict[str, Any]:
  """AUC and the like of every method on the labelled rows of one set.

  Only what 'pointwise' has trained says probabilities: the towers.
  """
  trained = 'tower' if 'tower' in methods else 'model'
  logit = None
  if cfg.objective.pointwise:
    logit = validation.logits(cfg, params)
  return {
      label: row_scores.evaluate(
          method,
          protocol.quadrant_of(name),
          rows,
          cfg.evaluation,
          logit if label == trained else None,
      )
      for label, method in methods.items()
  }


def write(workdir: str, results: dict[str, Any]) -> None:
  """Writes results.json, whole or not at all; for the writing process."""
  files.write_json(os.path.join(workdir, 'results.json'), results)


def peak_memory() -> int:
  """Peak resident bytes of this process."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak if sys.platform == 'darwin' else peak * 1024


def versions() -> dict[str, str]:
  """Versions of Python and of the packages that numbers depend on."""
  found = {
      'python': platform.python_version(),
      # Also where it runs from a checkout and is not installed.
      'dropoutnet_jax': __version__,
  }
  for name in _PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = 'not installed'
  return found
