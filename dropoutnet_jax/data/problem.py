# SPDX-License-Identifier: Apache-2.0
"""All that a run knows before its first step, and its copy in the run folder.

Raw files are read once; split, encoded content and teacher factors are then
kept in the run folder, so that resuming and every later command need nothing
but that folder, and see exactly what the training saw.
"""

import dataclasses
import json
import os
from typing import Any

import numpy as np
import scipy.sparse

from dropoutnet_jax.data import files
from dropoutnet_jax.data import impressions
from dropoutnet_jax.data import schema

FILE = 'problem.npz'


@dataclasses.dataclass(frozen=True)
class Side:
  """Ids [N], content and sparse content of users or items."""

  ids: np.ndarray
  dense: np.ndarray  # float32 [N, F]
  sparse: scipy.sparse.csr_array  # float32 [N, T], rows of norm 1 or empty


@dataclasses.dataclass(frozen=True)
class Problem:
  """Data of a run: both sides, the split, the teacher's factors, remarks.

  Attributes:
    user: users.
    item: items.
    split: training pairs and evaluation sets.
    factors: teacher factors; rows without training pairs are absent.
    truth: float32 [U, I] scores of a synthetic world's oracle, or None.
    notes: what readers, split and audit have to say, one sentence each.
    seconds: how long each part of the preparation took.
    labelled: rows with labels, or None where likes are all that there is.
  """

  user: Side
  item: Side
  split: schema.Split
  factors: schema.Factors
  truth: np.ndarray | None = None
  notes: tuple[str, ...] = ()
  seconds: dict[str, float] = dataclasses.field(default_factory=dict)
  labelled: impressions.Labelled | None = None

  def likes(self) -> scipy.sparse.csr_array:
    """Training pairs as csr_array float32 [U, I]."""
    return self.split.train.matrix(len(self.user.ids), len(self.item.ids))


def save(problem: Problem, workdir: str) -> None:
  """Keeps the problem in a run folder, in one file."""
  arrays: dict[str, np.ndarray] = {
      'text': np.asarray(
          json.dumps(
              {
                  'notes': problem.notes,
                  'split_notes': problem.split.notes,
                  'seconds': problem.seconds,
                  'evaluation': {
                      name: held.exclude_train
                      for name, held in problem.split.evaluation.items()
                  },
              }
          )
      )
  }
  for name in ('user', 'item'):
    side: Side = getattr(problem, name)
    arrays[f'{name}/ids'] = side.ids
    arrays[f'{name}/dense'] = side.dense
    arrays |= files.sparse_arrays(f'{name}/sparse', side.sparse)
  for field in dataclasses.fields(schema.Factors):
    arrays[f'factors/{field.name}'] = getattr(problem.factors, field.name)
  arrays |= _pair_arrays('train', problem.split.train)
  if problem.labelled is not None:
    arrays |= _pair_arrays('labelled/train', problem.labelled.train)
    for name, rows in problem.labelled.evaluation.items():
      arrays |= _pair_arrays(f'labelled/{name}', rows)
  for name, held in problem.split.evaluation.items():
    arrays[f'evaluation/{name}/user'] = held.user
    arrays[f'evaluation/{name}/item'] = held.item
    arrays[f'evaluation/{name}/candidates'] = held.candidates
  if problem.truth is not None:
    arrays['truth'] = problem.truth
  files.save_arrays(os.path.join(workdir, FILE), arrays)


def _pair_arrays(
    prefix: str, pairs: schema.Interactions
) -> dict[str, np.ndarray]:
  """The columns of interactions that there are, by name in the file."""
  return {
      f'{prefix}/{name}': column
      for name, column in vars(pairs).items()
      if column is not None
  }


def _pairs_from(
    prefix: str, arrays: dict[str, np.ndarray]
) -> schema.Interactions:
  """What `_pair_arrays` named."""
  names = [field.name for field in dataclasses.fields(schema.Interactions)]
  found: Any = {name: arrays.get(f'{prefix}/{name}') for name in names}
  return schema.Interactions(**found)


def exists(workdir: str) -> bool:
  """Whether the run folder holds a prepared problem."""
  return os.path.exists(os.path.join(workdir, FILE))


def load(workdir: str) -> Problem:
  """Reads what `save` kept.

  Raises:
    UserError: if the file is missing or damaged.
  """
  arrays = files.load_arrays(os.path.join(workdir, FILE))
  text = json.loads(str(arrays['text']))
  side = lambda name: Side(
      arrays[f'{name}/ids'],
      arrays[f'{name}/dense'],
      files.sparse_from_arrays(f'{name}/sparse', arrays),
  )
  factors = schema.Factors(
      **{
          field.name: arrays[f'factors/{field.name}']
          for field in dataclasses.fields(schema.Factors)
      }
  )
  evaluation = {
      name: schema.EvaluationSet(
          arrays[f'evaluation/{name}/user'],
          arrays[f'evaluation/{name}/item'],
          arrays[f'evaluation/{name}/candidates'],
          exclude,
      )
      for name, exclude in text['evaluation'].items()
  }
  split = schema.Split(
      _pairs_from('train', arrays), evaluation, tuple(text['split_notes'])
  )
  labelled = None
  if 'labelled/train/user' in arrays:
    labelled = impressions.Labelled(
        _pairs_from('labelled/train', arrays),
        {name: _pairs_from(f'labelled/{name}', arrays) for name in evaluation},
    )
  return Problem(
      side('user'),
      side('item'),
      split,
      factors,
      arrays.get('truth'),
      tuple(text['notes']),
      text['seconds'],
      labelled,
  )
