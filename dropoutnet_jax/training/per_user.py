# SPDX-License-Identifier: Apache-2.0
"""Metrics of every user of a run's test sets, and a comparison of two runs."""

from collections.abc import Mapping
import os
from typing import Any

import numpy as np

from dropoutnet_jax import errors
from dropoutnet_jax.data import files
from dropoutnet_jax.evaluation import bootstrap
from dropoutnet_jax.evaluation import details

_FILE = 'per_user.npz'


def save(found: Mapping[str, details.PerUser], workdir: str) -> None:
  """Keeps the values of each set in a run folder, in one file."""
  arrays: dict[str, np.ndarray] = {}
  for name, one in found.items():
    arrays[f'{name}/users'] = one.users
    arrays[f'{name}/digest'] = np.asarray(one.digest)
    for method, values in one.values.items():
      for metric, value in values.items():
        arrays[f'{name}/{method}/{metric}'] = value.astype(np.float32)
  files.save_arrays(os.path.join(workdir, _FILE), arrays)


def load(workdir: str) -> dict[str, details.PerUser]:
  """Reads what `save` kept.

  Raises:
    UserError: if the file is missing or damaged.
  """
  path = os.path.join(workdir, _FILE)
  if not os.path.exists(path):
    raise errors.UserError(
        f'{workdir} has no {_FILE}, which evaluating a run writes. Name a run '
        f'folder, or first run: python run.py evaluate --workdir={workdir}'
    )
  found: dict[str, details.PerUser] = {}
  arrays = files.load_arrays(path)
  for name, array in arrays.items():
    head, *rest = name.split('/')
    if rest == ['users']:
      digest = str(arrays[f'{head}/digest'])
      found[head] = details.PerUser(array, digest, {})
  for name, array in arrays.items():
    parts = name.split('/')
    if len(parts) == 3:
      head, method, metric = parts
      found[head].values.setdefault(method, {})[metric] = array
  return found


def compare(
    one: Mapping[str, details.PerUser],
    other: Mapping[str, details.PerUser],
    num_draws: int,
) -> dict[str, Any]:
  """The model of one run less that of another, set by set.

  Args:
    one: of a run.
    other: of another run.
    num_draws: of the bootstrap, at least 1.

  Returns:
    {set: {'users': U, 'metrics': {metric: bootstrap.differences}}} of the test
    sets that both have with the same pairs and candidates.

  Raises:
    UserError: if they share none.
  """
  found = {}
  for name, mine in one.items():
    theirs = other.get(name)
    if name.endswith('_validation') or theirs is None:
      continue
    if mine.digest != theirs.digest:
      continue
    values, others = (part.values[details.MODEL] for part in (mine, theirs))
    pairs = {m: (values[m], others[m]) for m in values if m in others}
    found[name] = {
        'users': len(mine.users),
        'metrics': bootstrap.differences(pairs, num_draws),
    }
  if not found:
    raise errors.UserError(
        'The two runs have no test set with the same pairs and candidates in '
        'common: their data or splits differ. Compare runs of one data set '
        'with the same config.data.'
    )
  return found
