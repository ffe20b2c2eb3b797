# SPDX-License-Identifier: Apache-2.0
"""`results.json`: the model and every baseline on every split."""

from collections.abc import Callable, Iterator
import importlib.metadata
import json
import os
import platform
import resource
import sys
import time
from typing import Any, NamedTuple

from dropoutnet_jax import __version__
from dropoutnet_jax import config
from dropoutnet_jax import parallel
from dropoutnet_jax.data import files
from dropoutnet_jax.data import problem as problem_lib
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


class _OfModel(NamedTuple):
  """What the model does, before it is compared with anything.

  Attributes:
    sets: by name of the set.
    labelled: by name of the set and method.
    warm_up: by side.
    ranks: effective ranks of the embeddings by side.
    seconds: that it took.
  """

  sets: dict[str, details.Measured]
  labelled: dict[str, dict[str, Any]]
  warm_up: dict[str, warm_up.OfModel | None]
  ranks: dict[str, float]
  seconds: float


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
    computes, with the others where the tables lie on all, and has the second.
  """
  scorer = runtime.scorer(state)
  step = int(state.step)
  together = _measure(runtime, scorer) if runtime.shares_evaluation else None

  def conclude() -> tuple[dict[str, Any], dict[str, details.PerUser]]:
    measured = together or _measure(runtime, scorer)
    return _evaluate(runtime, measured, step, outcome)

  found = parallel.on_writer(conclude)
  text = parallel.from_writer(None if found is None else json.dumps(found[0]))
  return json.loads(text), {} if found is None else found[1]


def _sets(
    problem: problem_lib.Problem,
) -> Iterator[tuple[str, schema.EvaluationSet, schema.Interactions | None]]:
  """Name, pairs and labelled rows of the sets that are evaluated."""
  for name, held_out in problem.split.evaluation.items():
    if len(held_out):
      rows = None
      if problem.labelled is not None:
        rows = problem.labelled.evaluation.get(name)
      yield name, held_out, rows if rows is not None and len(rows) else None


def _measure(
    runtime: runtime_lib.Runtime, scorer: model_scores.Scorer
) -> _OfModel:
  """All that needs the model's scores."""
  begin = time.monotonic()
  cfg, problem = runtime.cfg, runtime.problem
  methods, likes = scorer.methods(), problem.likes()
  params = scorer.variables['params']
  sets, labelled = {}, {}
  for name, held_out, rows in _sets(problem):
    sets[name] = details.measure(
        methods, name, held_out, problem, likes, cfg.evaluation
    )
    if rows is not None:
      labelled[name] = _label_metrics(cfg, methods, name, rows, params)
  ranks = {
      side: round(lists.effective_rank(scorer.blocks_of_embeddings(side)), 2)
      for side in ('user', 'item')
  }
  curves = warm_up.measure(problem, scorer, cfg)
  return _OfModel(sets, labelled, curves, ranks, time.monotonic() - begin)


def _evaluate(
    runtime: runtime_lib.Runtime,
    measured: _OfModel,
    step: int,
    outcome: loop.Outcome,
) -> tuple[dict[str, Any], dict[str, details.PerUser]]:
  """`evaluate` on one process, without any collective operation."""
  begin = time.monotonic()
  cfg, problem = runtime.cfg, runtime.problem
  methods, likes = make_baselines(runtime), problem.likes()
  splits: dict[str, Any] = {}
  per_user: dict[str, details.PerUser] = {}
  for name, held_out, rows in _sets(problem):
    splits[name], per_user[name] = details.evaluate(
        methods,
        name,
        held_out,
        problem,
        likes,
        cfg.evaluation,
        measured.sets[name],
    )
    if rows is not None:
      of_others = _label_metrics(cfg, methods, name, rows)
      splits[name]['labelled'] = measured.labelled[name] | of_others
  chosen = {
      label: method.chosen()
      for label, method in methods.items()
      if isinstance(method, (ridge_method.ContentRidge, baselines.ContentKnn))
  }
  curves = warm_up.evaluate(measured.warm_up, cfg, methods)
  seconds = measured.seconds + time.monotonic() - begin
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
      'evaluate_seconds': round(seconds, 3),
      'peak_memory_bytes': peak_memory(),
      'peak_device_memory_bytes': parallel.device_memory(),
      'devices': parallel.describe_devices(),
      'versions': versions(),
      'rules': protocol.RULES,
      'notes': [*problem.notes, *runtime.notes()],
      'chosen': chosen,
      'splits': splits,
      'warm_up': curves,
      'embedding_rank': measured.ranks,
  }
  return results, per_user


def _label_metrics(
    cfg: config.Config,
    methods: dict[str, protocol.Method],
    name: str,
    rows: schema.Interactions,
    params: Any = None,
) -> dict[str, Any]:
  """AUC and the like of every method on the labelled rows of one set.

  Only what 'pointwise' has trained says probabilities: the towers, which have
  `params`.
  """
  trained = 'tower' if 'tower' in methods else 'model'
  logit = None
  if cfg.objective.pointwise and params is not None:
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
