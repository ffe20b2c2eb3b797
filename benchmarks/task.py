# SPDX-License-Identifier: Apache-2.0
"""What is compared on: one experiment, its data, how it is scored.

Both sides of a comparison start here, after the same preparation (raw files,
content, teacher), and are scored by the same code.
"""

import functools
import os
import pathlib
from typing import Protocol

import jax.numpy as jnp
import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax import experiment
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.model import embeddings
from dropoutnet_jax.training import prepare

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXPERIMENT = os.path.join('experiments', 'citeulike_a_cold.py')
CUTOFF = 100


class Trained(Protocol):
  """A model that trains, on either side of a comparison."""

  pairs_per_step: int

  def train(self, num_steps: int) -> None:
    """Does num_steps optimiser steps and waits for their end."""


class Contestant(Trained, Protocol):
  """One that embeds as well."""

  def embed(self, side: str, rows: np.ndarray) -> np.ndarray:
    """Embeddings float32 [N, R] of rows [N] of 'user' or 'item'."""


def load_config() -> config.Config:
  """The experiment that is compared on."""
  return experiment.load(str(ROOT / EXPERIMENT))


@functools.lru_cache(maxsize=1)
def load_problem(data_dir: str | None) -> problem_lib.Problem:
  """Reads, encodes and factorises; once for all suites of a call.

  Args:
    data_dir: folder that holds citeulike-a; None downloads it.
  """
  print(f'Preparing {EXPERIMENT} ...', flush=True)
  problem = prepare.prepare(load_config(), data_dir, None)
  parts = ', '.join(f'{k} {v:.1f} s' for k, v in problem.seconds.items())
  print(f'Prepared: {parts}.', flush=True)
  return problem


def num_threads() -> int:
  """CPUs that this process may use; XLA and PyTorch get as many threads."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def recall(contestant: Contestant, problem: problem_lib.Problem) -> float:
  """Recall at the cut-off over the cold test items, as in results.json."""
  held_out = problem.split.evaluation['cold_item']
  found = protocol.evaluate(
      _score_fn(contestant, held_out),
      held_out,
      problem.likes(),
      config.EvaluationConfig(cutoffs=(CUTOFF,)),
      'a benchmark on cold_item',
  )
  return found[f'recall@{CUTOFF}']


def _score_fn(
    contestant: Contestant, held_out: schema.EvaluationSet
) -> protocol.ScoreFn:
  """Dot products of a contestant's embeddings."""
  users, _ = np.unique(held_out.user, return_inverse=True)
  user = jnp.asarray(contestant.embed('user', users))
  item = jnp.asarray(contestant.embed('item', held_out.candidates))
  return lambda rows: embeddings.dense_scores(
      user[np.searchsorted(users, rows)], item
  )
