# SPDX-License-Identifier: Apache-2.0
"""The teacher against the ALS of `implicit`: seconds and recall.

Both minimise the same objective on the warm split of citeulike-a. Each
iteration of one is followed by one of the others, so that whatever else the
machine does slows all of them. Both solve their rows exactly, our default, or
by three steps of conjugate gradients, the default of `implicit`.

  python -m benchmarks.als --data_dir=DIR
"""

import argparse
from collections.abc import Callable
import dataclasses
import functools
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import normal_equations
from dropoutnet_jax import teacher
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import sources
from dropoutnet_jax.data import splits
from dropoutnet_jax.evaluation import protocol

OURS, THEIRS = 'dropoutnet_jax', 'implicit'
EXACT, GRADIENTS = 'exact', 'CG'
_CG_STEPS = 3  # the default of `implicit`


@dataclasses.dataclass
class Contestant:
  """One ALS: does an iteration and says how long it took; has factors."""

  iterate: Callable[[], float]
  factors: Callable[[], tuple[np.ndarray, np.ndarray]]
  seconds: list[float] = dataclasses.field(default_factory=list)


def _make_ours(
    likes: scipy.sparse.csr_array,
    settings: config.TeacherConfig,
    seed: int,
    cg_steps: int,
) -> Contestant:
  """The iteration of `teacher.train`, one at a time."""
  lists = (likes, likes.T.tocsr())
  by_user, by_item = (
      normal_equations.make_plan(side, settings.confidence, settings.rank)
      for side in lists
  )
  whiten = functools.partial(
      normal_equations.whiten,
      regularization=settings.regularization,
      num_rows=max(likes.shape),
  )
  solve = functools.partial(normal_equations.solve, cg_steps=cg_steps)
  item = teacher.first_factors(np.diff(lists[1].indptr) > 0, settings, seed)
  state: dict[str, Any] = {'item': jnp.asarray(item)}

  def iterate() -> float:
    start = time.perf_counter()
    state['user'] = solve(whiten(state['item']), by_user)
    state['item'] = solve(whiten(state['user']), by_item)
    jax.block_until_ready(state['item'])
    return time.perf_counter() - start

  return Contestant(
      iterate, lambda: (np.asarray(state['user']), np.asarray(state['item']))
  )


def _make_implicit(
    likes: scipy.sparse.csr_array,
    settings: config.TeacherConfig,
    seed: int,
    cg_steps: int,
) -> Contestant:
  """`implicit` with one thread per BLAS call, as it asks for."""
  try:
    import implicit  # pylint: disable=g-import-not-at-top
    import threadpoolctl  # pylint: disable=g-import-not-at-top
  except ImportError as error:
    raise errors.UserError(
        f'This comparison needs the package {error.name}, which is not '
        "installed. Run: pip install '.[bench]'"
    ) from None
  # Its confidence of a like is what the matrix holds, without the 1 of Hu et
  # al.; alpha multiplies it.
  confidence = scipy.sparse.csr_matrix(likes)
  confidence.data = 1 + settings.confidence * confidence.data
  with threadpoolctl.threadpool_limits(1, 'blas'):
    model = implicit.als.AlternatingLeastSquares(
        factors=settings.rank,
        regularization=settings.regularization,
        alpha=1.0,
        use_cg=cg_steps > 0,
        use_gpu=False,
        iterations=1,
        random_state=seed,
    )
  model.cg_steps = cg_steps

  def iterate() -> float:
    took: list[float] = []
    keep = lambda iteration, seconds, loss: took.append(seconds)
    with threadpoolctl.threadpool_limits(1, 'blas'):
      model.fit(confidence, show_progress=False, callback=keep)
    return took[0]

  return Contestant(iterate, lambda: (model.user_factors, model.item_factors))


def _recall(
    factors: tuple[np.ndarray, np.ndarray],
    held_out: schema.EvaluationSet,
    likes: scipy.sparse.csr_array,
) -> float:
  user, item = factors[0], factors[1][held_out.candidates]
  found = protocol.evaluate(
      lambda rows: user[rows] @ item.T,
      held_out,
      likes,
      config.EvaluationConfig(cutoffs=(100,)),
      'a benchmark on warm',
  )
  return found['recall@100']


def _run_round(
    likes: scipy.sparse.csr_array, settings: config.TeacherConfig, seed: int
) -> dict[tuple[str, str], Contestant]:
  """Trains all from scratch, taking turns; by library and solver."""
  contestants = {}
  for solver, cg_steps in ((EXACT, 0), (GRADIENTS, _CG_STEPS)):
    contestants[THEIRS, solver] = _make_implicit(
        likes, settings, seed, cg_steps
    )
    contestants[OURS, solver] = _make_ours(likes, settings, seed, cg_steps)
  for _ in range(settings.num_iterations):
    for contestant in contestants.values():
      contestant.seconds.append(contestant.iterate())
  return contestants


def compare(
    data_dir: str | None,
    rank: int = 200,
    iterations: int = 10,
    rounds: int = 1,
) -> dict[str, Any]:
  """Times all four and measures recall@100 on citeulike-a, warm.

  Args:
    data_dir: folder with a folder citeulike-a, as `run.py` takes it.
    rank: width of the factors; regularisation and confidence are as published.
    iterations: of each training.
    rounds: trainings, each with another seed.

  Returns:
    By solver, EXACT and GRADIENTS: by library, 'seconds of the first'
    iteration, which compiles, 'seconds per iteration' (median of the others)
    and 'recall@100' (mean over rounds); and 'ratio', the seconds of `implicit`
    over ours in the same turn (median).

  Raises:
    UserError: `implicit` or the data are missing, or an argument is too small.
  """
  if iterations < 2 or rounds < 1:
    raise errors.UserError(
        f'iterations is {iterations} and rounds is {rounds}: it takes 2 '
        'iterations, of which the first compiles, and 1 round.'
    )
  settings = config.TeacherConfig(rank=rank, num_iterations=iterations)
  settings.validate()
  data = config.DataConfig(
      name='citeulike-a', split='published-warm', validation='return'
  )
  dataset = sources.load(data, data_dir)
  split = splits.make_split(dataset, data)
  likes = split.train.matrix(len(dataset.users), len(dataset.items))
  rounds_done = [_run_round(likes, settings, seed) for seed in range(rounds)]
  results: dict[str, Any] = {}
  for solver in (EXACT, GRADIENTS):
    seconds, results[solver] = {}, {}
    for name in (OURS, THEIRS):
      runs = [contestants[name, solver] for contestants in rounds_done]
      seconds[name] = np.array([run.seconds for run in runs])
      recalls = [
          _recall(run.factors(), split.evaluation['warm'], likes)
          for run in runs
      ]
      results[solver][name] = {
          'seconds of the first': float(seconds[name][0, 0]),
          'seconds per iteration': float(np.median(seconds[name][:, 1:])),
          'recall@100': float(np.mean(recalls)),
      }
    ratios = seconds[THEIRS][:, 1:] / seconds[OURS][:, 1:]
    results[solver]['ratio'] = float(np.median(ratios))
  return results


def main() -> dict[str, Any]:
  """Prints what `compare` finds."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--data_dir', required=True)
  parser.add_argument('--rank', type=int, default=200)
  parser.add_argument('--iterations', type=int, default=10)
  parser.add_argument('--rounds', type=int, default=1)
  results = compare(**vars(parser.parse_args()))
  for solver in (EXACT, GRADIENTS):
    for name in (OURS, THEIRS):
      found = results[solver][name]
      print(
          f'{solver:6} {name:14} {found["seconds per iteration"]:7.3f} s per '
          f'iteration, the first {found["seconds of the first"]:6.2f} s, '
          f'recall@100 {found["recall@100"]:.4f}'
      )
    print(f'       ours is {results[solver]["ratio"]:.2f} times as fast')
  return results


if __name__ == '__main__':
  try:
    main()
  except errors.UserError as error:
    sys.exit(f'benchmarks.als: {error}')
