# SPDX-License-Identifier: Apache-2.0
"""All that is said of one evaluation set: means, and what means hide."""

from collections.abc import Mapping
import hashlib
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.evaluation import bootstrap
from dropoutnet_jax.evaluation import lists
from dropoutnet_jax.evaluation import metrics
from dropoutnet_jax.evaluation import protocol
from dropoutnet_jax.evaluation import slices

MODEL = 'model'


class PerUser(NamedTuple):
  """Values of each user of one set.

  Attributes:
    users: int32 [U], rows, ascending.
    digest: of pairs and candidates: runs with the same one compare.
    values: {method: {metric: float64 [U]}}.
  """

  users: np.ndarray
  digest: str
  values: dict[str, dict[str, np.ndarray]]


class Measured(NamedTuple):
  """What some methods do on one set, before anything is said of it.

  Attributes:
    ranks: by method.
    mixed: by method, of `lists.evaluate`; empty where nothing asks for it.
  """

  ranks: dict[str, protocol.Ranks]
  mixed: dict[str, Any]


def measure(
    methods: Mapping[str, protocol.Method],
    name: str,
    held_out: schema.EvaluationSet,
    problem: problem_lib.Problem,
    likes: scipy.sparse.csr_array,
    settings: config.EvaluationConfig,
) -> Measured:
  """All that `evaluate` needs to have scored; the arguments are the same."""
  quadrant = protocol.quadrant_of(name)
  ranks = {
      method: protocol.rank(
          make(quadrant, held_out),
          held_out,
          likes,
          settings,
          f'{method} on {name}',
      )
      for method, make in methods.items()
  }
  if not _asks_for_mixed(name, settings):
    return Measured(ranks, {})
  mixed = lists.mixed_set(problem, held_out, seed=0)
  is_new = np.isin(mixed.candidates, held_out.candidates)
  return Measured(
      ranks,
      {
          method: lists.evaluate(
              make(name, mixed),
              mixed,
              is_new,
              likes,
              settings,
              f'{method} on {name} among all items',
          )
          for method, make in methods.items()
      },
  )


def _asks_for_mixed(name: str, settings: config.EvaluationConfig) -> bool:
  return settings.mixed and name in ('cold_item', 'cold_both')


def evaluate(
    methods: Mapping[str, protocol.Method],
    name: str,
    held_out: schema.EvaluationSet,
    problem: problem_lib.Problem,
    likes: scipy.sparse.csr_array,
    settings: config.EvaluationConfig,
    measured: Measured = Measured({}, {}),
) -> tuple[dict[str, Any], PerUser]:
  """What results.json has of one set, and the values of each user.

  Args:
    methods: of the table.
    name: of the set; one of validation gets means alone.
    held_out: relevant pairs and candidates.
    problem: the data of the run.
    likes: [U, I] training pairs, for the mask.
    settings: metrics, and which details.
    measured: of further methods, which come first.

  Returns:
    Counts of the set and 'methods': means by method and metric. Of a test set
    also 'intervals' ([low, high]), 'paired' (the model less each other method;
    see `bootstrap.differences`), 'slices' and, where items are new, 'mixed':
    the same users with the training items as candidates too (`lists.evaluate`).
  """
  quadrant = protocol.quadrant_of(name)
  more = measure(methods, name, held_out, problem, likes, settings)
  ranks = measured.ranks | more.ranks
  values = {m: one.user_metrics(settings) for m, one in ranks.items()}
  found: dict[str, Any] = protocol.describe_set(held_out)
  found['methods'] = {m: metrics.summary(one) for m, one in values.items()}
  users = next(iter(ranks.values())).users
  per_user = PerUser(users, digest(held_out), values)
  if name != quadrant:
    return found, per_user
  if settings.bootstrap:
    found |= _how_sure(values, settings.bootstrap)
  if settings.slices:
    kinds = slices.kinds(problem, next(iter(ranks.values())))
    found['slices'] = slices.evaluate(ranks, kinds, settings)
  if _asks_for_mixed(name, settings):
    mixed = lists.mixed_set(problem, held_out, seed=0)
    found['mixed'] = protocol.describe_set(mixed) | {
        'cold': int(np.isin(mixed.candidates, held_out.candidates).sum()),
        'methods': measured.mixed | more.mixed,
    }
  return found, per_user


def _how_sure(
    values: Mapping[str, Mapping[str, np.ndarray]], num_draws: int
) -> dict[str, Any]:
  """'intervals' of all methods, and 'paired': the model less each other one."""
  one = values.get(MODEL, {})
  flat = {
      f'{method}/{metric}': value
      for method, metrics_of in values.items()
      for metric, value in metrics_of.items()
  }
  pairs = {
      name: (one[name.split('/')[1]], value)
      for name, value in flat.items()
      if one and not name.startswith(f'{MODEL}/')
  }
  return {
      'intervals': bootstrap.nested(bootstrap.intervals(flat, num_draws)),
      'paired': bootstrap.nested(bootstrap.differences(pairs, num_draws)),
  }


def digest(held_out: schema.EvaluationSet) -> str:
  """The same for the same pairs and candidates."""
  found = hashlib.sha256()
  order = np.argsort(schema.pair_numbers(held_out))
  for column in (
      held_out.user[order],
      held_out.item[order],
      held_out.candidates,
  ):
    found.update(np.ascontiguousarray(column, '<i8').tobytes())
  return found.hexdigest()[:16]
