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
from dropoutnet_jax.data import tokens as tokens_lib

FILE = 'problem.npz'
_FIELDS_OF_ROWS = (
    'tokens',
    'preference_dense',
    'preference_tokens',
    'preference_known',
)


def _no_tokens() -> tokens_lib.Tokens:
  return tokens_lib.no_tokens(0)


@dataclasses.dataclass(frozen=True)
class Side:
  """What a run knows of N users or items.

  What is left out is empty: tokens without columns, no preference features.

  Attributes:
    ids: [N].
    dense: float32 [N, F], content.
    sparse: float32 [N, T], content, rows of norm 1 or empty.
    tokens: of N rows, content that embeddings are learnt for.
    preference_dense: float32 [N, G], features of the group 'preference'.
    preference_tokens: of N rows, likewise.
    preference_known: bool [N], rows with a value of any of these features.
  """

  ids: np.ndarray
  dense: np.ndarray
  sparse: scipy.sparse.csr_array
  tokens: tokens_lib.Tokens = dataclasses.field(default_factory=_no_tokens)
  preference_dense: np.ndarray = dataclasses.field(
      default_factory=lambda: np.zeros((0, 0), np.float32)
  )
  preference_tokens: tokens_lib.Tokens = dataclasses.field(
      default_factory=_no_tokens
  )
  preference_known: np.ndarray = dataclasses.field(
      default_factory=lambda: np.zeros(0, bool)
  )

  def __post_init__(self) -> None:
    """Gives what was left out its N rows; ValueError for other numbers."""
    num_rows = len(self.ids)
    for name in ('tokens', 'preference_tokens'):
      if not getattr(self, name).features:
        object.__setattr__(self, name, tokens_lib.no_tokens(num_rows))
    if not self.preference_dense.shape[1]:
      empty = np.zeros((num_rows, 0), np.float32)
      object.__setattr__(self, 'preference_dense', empty)
    if not len(self.preference_known):
      object.__setattr__(self, 'preference_known', np.zeros(num_rows, bool))
    for name in _FIELDS_OF_ROWS:
      if len(getattr(self, name)) != num_rows:
        raise ValueError(f'{name} has not one row for each of {num_rows} ids')


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
    """Training pairs as csr_array float32 [U, I]; empty where streamed."""
    return self.split.train.matrix(len(self.user.ids), len(self.item.ids))

  def like_counts(self) -> tuple[np.ndarray, np.ndarray]:
    """Training likes of each user [U] and of each item [I]: int64.

    Where rows are streamed, a pair counts as often as it is liked.
    """
    streamed, train = self.split.streamed, self.split.train
    if streamed is not None:
      return streamed.user_likes, streamed.item_likes
    return (
        np.bincount(train.user, minlength=len(self.user.ids)),
        np.bincount(train.item, minlength=len(self.item.ids)),
    )


def without_tests(problem: Problem) -> Problem:
  """The same with nothing of the test sets: what is not there tells nothing."""

  def kept(sets: dict[str, Any]) -> dict[str, Any]:
    return {n: one for n, one in sets.items() if n.endswith('_validation')}

  split = dataclasses.replace(
      problem.split, evaluation=kept(problem.split.evaluation)
  )
  labelled = problem.labelled
  if labelled is not None:
    labelled = dataclasses.replace(
        labelled, evaluation=kept(labelled.evaluation)
    )
  return dataclasses.replace(
      problem, split=split, labelled=labelled, truth=None
  )


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
    arrays |= _side_arrays(name, getattr(problem, name))
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
  if problem.split.streamed is not None:
    for name, value in vars(problem.split.streamed).items():
      arrays[f'streamed/{name}'] = np.asarray(value)
  if problem.truth is not None:
    arrays['truth'] = problem.truth
  files.save_arrays(os.path.join(workdir, FILE), arrays)


def _side_arrays(name: str, side: Side) -> dict[str, np.ndarray]:
  """All of one side, by name in the file."""
  return {
      f'{name}/ids': side.ids,
      f'{name}/dense': side.dense,
      **files.sparse_arrays(f'{name}/sparse', side.sparse),
      **_token_arrays(f'{name}/tokens', side.tokens),
      f'{name}/preference_dense': side.preference_dense,
      **_token_arrays(f'{name}/preference_tokens', side.preference_tokens),
      f'{name}/preference_known': side.preference_known,
  }


def _side_from(name: str, arrays: dict[str, np.ndarray]) -> Side:
  """What `_side_arrays` named."""
  return Side(
      arrays[f'{name}/ids'],
      arrays[f'{name}/dense'],
      files.sparse_from_arrays(f'{name}/sparse', arrays),
      _tokens_from(f'{name}/tokens', arrays),
      arrays[f'{name}/preference_dense'],
      _tokens_from(f'{name}/preference_tokens', arrays),
      arrays[f'{name}/preference_known'],
  )


def _token_arrays(
    prefix: str, tokens: tokens_lib.Tokens
) -> dict[str, np.ndarray]:
  features = [dataclasses.asdict(feature) for feature in tokens.features]
  return {
      f'{prefix}/id': tokens.id,
      f'{prefix}/weight': tokens.weight,
      f'{prefix}/features': np.asarray(json.dumps(features)),
  }


def _tokens_from(
    prefix: str, arrays: dict[str, np.ndarray]
) -> tokens_lib.Tokens:
  features = json.loads(str(arrays[f'{prefix}/features']))
  return tokens_lib.Tokens(
      arrays[f'{prefix}/id'],
      arrays[f'{prefix}/weight'],
      tuple(tokens_lib.TokenFeature(**feature) for feature in features),
  )


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


def _streamed_from(
    arrays: dict[str, np.ndarray],
) -> schema.StreamedRows | None:
  """What `save` kept of rows that are streamed."""
  if 'streamed/num_rows' not in arrays:
    return None
  fields = dataclasses.fields(schema.StreamedRows)
  found: Any = {x.name: arrays[f'streamed/{x.name}'] for x in fields}
  for name in ('num_rows', 'share'):
    found[name] = found[name].item()
  return schema.StreamedRows(**found)


def exists(workdir: str) -> bool:
  """Whether the run folder holds a prepared problem."""
  return os.path.exists(os.path.join(workdir, FILE))


def written(workdir: str) -> float:
  """When a run folder got its problem, in seconds since 1970."""
  return os.stat(os.path.join(workdir, FILE)).st_mtime


def load(workdir: str) -> Problem:
  """Reads what `save` kept.

  Raises:
    UserError: if the file is missing, damaged or of another version.
  """
  arrays = files.load_arrays(os.path.join(workdir, FILE))
  text = json.loads(str(arrays['text']))
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
      _pairs_from('train', arrays),
      evaluation,
      tuple(text['split_notes']),
      _streamed_from(arrays),
  )
  labelled = None
  if 'labelled/train/user' in arrays:
    labelled = impressions.Labelled(
        _pairs_from('labelled/train', arrays),
        {name: _pairs_from(f'labelled/{name}', arrays) for name in evaluation},
    )
  return Problem(
      _side_from('user', arrays),
      _side_from('item', arrays),
      split,
      factors,
      arrays.get('truth'),
      tuple(text['notes']),
      text['seconds'],
      labelled,
  )
