# SPDX-License-Identifier: Apache-2.0
"""What `run.py` can do: one function per command, paths and configs in."""

import os
from typing import Any

import jax
import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax import report
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.evaluation import sparse_part
from dropoutnet_jax.training import checkpoints
from dropoutnet_jax.training import loop
from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import results as results_lib
from dropoutnet_jax.training import run_folder
from dropoutnet_jax.training import runtime as runtime_lib
from dropoutnet_jax.training import signals
from dropoutnet_jax.training import telemetry


def train(
    cfg: config.Config,
    workdir: str,
    data_dir: str | None = None,
    profile: bool = False,
) -> dict[str, Any] | None:
  """Trains (or resumes) and evaluates a run.

  Args:
    cfg: the experiment, validated.
    workdir: the run folder.
    data_dir: folder with one folder per data set.
    profile: writes a device trace of one dispatch.

  Returns:
    What results.json holds, or None if a signal ended the training.

  Raises:
    UserError: for anything that the user can mend.
  """
  with run_folder.open_folder(workdir, cfg):
    problem = load_or_prepare(cfg, workdir, data_dir)
    runtime = _build(cfg, problem, workdir)
    with signals.StopRequest() as stop:
      outcome = loop.run(runtime, workdir, stop, profile)
    if outcome.interrupted:
      print(
          f'{outcome.reason}; saved after step {outcome.step} of '
          f'{cfg.train.num_steps}. The same command goes on from there.'
      )
      return None
    if outcome.reason:
      print(f'Stopped early: {outcome.reason}.')
    return _evaluate(runtime, workdir, outcome)


def load_or_prepare(
    cfg: config.Config, workdir: str, data_dir: str | None
) -> problem_lib.Problem:
  """The problem kept in the run folder; prepared first in a new folder."""
  if problem_lib.exists(workdir):
    return problem_lib.load(workdir)
  problem = prepare.prepare(cfg, data_dir, workdir)
  for note in problem.notes:
    print(note)
  return problem


def _build(
    cfg: config.Config, problem: problem_lib.Problem, workdir: str
) -> runtime_lib.Runtime:
  """The runtime; its sparse part is fitted once and kept in the folder."""
  if not cfg.model.sparse.enabled:
    return runtime_lib.build(cfg, problem)
  if not sparse_part.exists(workdir):
    part = sparse_part.fit(problem, cfg.model.sparse, cfg.train.seed)
    sparse_part.save(part, workdir)
  return runtime_lib.build(cfg, problem, sparse_part.load(workdir))


def evaluate(workdir: str) -> dict[str, Any]:
  """Evaluates the best checkpoint of a run folder, and nothing else.

  Raises:
    UserError: if the folder holds no run.
  """
  cfg = config_tree.from_dict(run_folder.read_config(workdir))
  problem = problem_lib.load(workdir)
  runtime = _build(cfg, problem, workdir)
  rows = telemetry.read_metrics(workdir)
  seconds = rows[-1]['seconds'] if rows else 0.0
  last = rows[-1]['step'] if rows else 0
  return _evaluate(runtime, workdir, loop.Outcome(last, seconds))


def _evaluate(
    runtime: runtime_lib.Runtime, workdir: str, outcome: loop.Outcome
) -> dict[str, Any]:
  saved = checkpoints.Checkpoints(workdir, read_only=True)
  step = saved.best_step()
  if step is None:
    raise errors.UserError(
        f'{workdir} has no whole checkpoint yet; train it first.'
    )
  state = saved.restore(step, runtime.fresh_state())
  saved.close()
  results = results_lib.evaluate(runtime, state, outcome)
  results_lib.write(workdir, results)
  if parallel.is_writer():
    report.print_results(results)
    print(f"Written to {os.path.join(workdir, 'results.json')}")
  return results


def describe(
    cfg: config.Config, workdir: str | None, data_dir: str | None
) -> dict[str, Any]:
  """What the data and the model are; trains nothing and keeps nothing.

  Args:
    cfg: the experiment, validated.
    workdir: a run folder to describe, or None to read the data anew.
    data_dir: folder with one folder per data set.
  """
  if workdir and problem_lib.exists(workdir):
    problem = problem_lib.load(workdir)
  else:
    problem = prepare.prepare(cfg, data_dir, None)
  runtime = runtime_lib.build(cfg, problem)
  facts = _facts(runtime)
  report.print_facts(facts)
  return facts


def _facts(runtime: runtime_lib.Runtime) -> dict[str, Any]:
  problem, tables = runtime.problem, runtime.tables
  users, items = len(problem.user.ids), len(problem.item.ids)
  pairs = len(problem.split.train)
  train_users, train_items = problem.split.train_rows()
  state = runtime.fresh_state()
  count = lambda tree: sum(int(x.size) for x in jax.tree.leaves(tree))
  size = lambda tree: sum(int(x.nbytes) for x in jax.tree.leaves(tree))
  splits = {
      name: protocol.describe_set(held_out)
      for name, held_out in problem.split.evaluation.items()
  }
  return {
      'data': {
          'users': users,
          'items': items,
          'training pairs': pairs,
          'density': pairs / max(users * items, 1),
          'cold users': 1 - len(train_users) / users,
          'cold items': 1 - len(train_items) / items,
      },
      'splits': splits,
      'features': {
          f'{side}: dense / sparse columns, rows without content': (
              getattr(problem, side).dense.shape[1],
              getattr(problem, side).sparse.shape[1],
              _rows_without_content(getattr(problem, side)),
          )
          for side in ('user', 'item')
      },
      'model': {
          'user tower parameters': count(state.params['user_tower']),
          'item tower parameters': count(state.params['item_tower']),
          'embedding rank': runtime.cfg.model.rank,
          'pairs per step': runtime.pairs_per_step,
      },
      'memory in bytes': {
          'tables': size(tables),
          'training state': size(state),
          'peak of this process': results_lib.peak_memory(),
      },
      'notes': list(problem.notes),
  }


def _rows_without_content(side: problem_lib.Side) -> int:
  filled = np.diff(side.sparse.indptr) > 0
  if side.dense.shape[1]:
    filled |= side.dense.any(axis=1)
  return int(len(filled) - filled.sum())
