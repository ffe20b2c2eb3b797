# SPDX-License-Identifier: Apache-2.0
"""The split of rows that are larger than memory, in passes over their file.

The same as `splits` and `impressions` make of rows in memory, with the same
draws: whole users and items are held out, and which of them have likes decides
about all. Held-out rows are kept in memory, training rows go to a file.
"""

from collections.abc import Callable
from collections.abc import Iterator
import os
from typing import BinaryIO, NamedTuple

import numpy as np

from dropoutnet_jax import config as config_lib
from dropoutnet_jax.data import files
from dropoutnet_jax.data import impressions
from dropoutnet_jax.data import roles as roles_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import splits
from dropoutnet_jax.data import streamed_tables

FILE = 'rows.bin'  # the training rows, in the run folder
_SIDES = ('user', 'item')
_Found = tuple[schema.Split, impressions.Labelled | None]


class _Marks(NamedTuple):
  """Which users, bool [U], and which items, bool [I]."""

  user: np.ndarray
  item: np.ndarray

  def add(self, rows: np.ndarray) -> None:
    """Marks the users and items of rows."""
    self.user[rows['user']] = True
    self.item[rows['item']] = True

  def of(self, rows: np.ndarray) -> np.ndarray:
    """Rows whose user and item are both marked: bool [N]."""
    return self.user[rows['user']] & self.item[rows['item']]


def split(
    staged: streamed_tables.Staged,
    config: config_lib.DataConfig,
    user_balance: float,
    output: BinaryIO,
) -> _Found:
  """Splits staged rows and writes those to train on.

  Args:
    staged: all rows.
    config: of the data; the split is 'random', its warm_share 0.
    user_balance: as `label_tables.label_rows` weighs rows.
    output: gets training rows with weights of mean 1, in their order.

  Returns:
    The split, with counts in place of training pairs; and the labelled rows of
    its sets, None where there are only likes.

  Raises:
    UserError: as `splits.make_split`.
  """
  seen, liked = _no_marks(staged), _no_marks(staged)
  for rows in staged.chunks():
    seen.add(rows)
    liked.add(rows[rows['label'] > 0])
  user, item, notes = splits.draw_rows(
      staged.dataset, config, *map(np.flatnonzero, liked)
  )
  kept, trained = _no_marks(staged), _no_marks(staged)
  total = 0
  for rows, pair in _likes(staged, user, item):
    total += len(rows)
    kept.add(rows[pair == roles_lib.TRAIN])
    may = pair == roles_lib.TRAIN
    if config.validation == 'return':
      may |= pair == roles_lib.VALIDATION
    trained.add(rows[may])
  roles_lib.check_trained(int(kept.user.sum()), total)
  user, item = (
      roles_lib.without(role, np.flatnonzero(mark))
      for role, mark in zip((user, item), kept)
  )
  evaluation = _evaluation(staged, config, user, item)
  splits.check_drawn(staged.dataset, config, evaluation)
  roles = _roles(seen, liked, trained, evaluation, config.seed)
  training = _marks(staged, *(role.training for role in roles))
  labelled = None
  if staged.has_labels:
    labelled = impressions.Labelled(
        staged.dataset.interactions,  # none
        _held_out(staged, roles, evaluation),
    )
  streamed = _write(staged, training, user_balance, output)
  likes = int(streamed.user_likes.sum())
  users, items = (
      int(np.count_nonzero(x))
      for x in (streamed.user_likes, streamed.item_likes)
  )
  held = sum(map(len, evaluation.values()))
  notes = splits.describe(
      notes,
      config,
      evaluation,
      (likes, users, items),
      max(total - likes - held, 0),
  )
  notes.append(
      f'Streamed: {streamed.num_rows:,} rows are trained on, of '
      f'{staged.num_rows:,}. A pair that is repeated counts each time.'
  )
  nothing = staged.dataset.interactions
  return schema.Split(nothing, evaluation, tuple(notes), streamed), labelled


def write(split_into: Callable[[BinaryIO], _Found], workdir: str) -> _Found:
  """Lets a split write its training rows to the file of a run folder.

  Args:
    split_into: `split` of all but the output.
    workdir: the run folder.

  Raises:
    UserError: as `files.write` and `split`.
  """
  found: list[_Found] = []
  path = os.path.join(workdir, FILE)
  files.write(path, lambda output: found.append(split_into(output)))
  return found[0]


def _no_marks(staged: streamed_tables.Staged) -> _Marks:
  data = staged.dataset
  return _Marks(
      np.zeros(len(data.users), bool), np.zeros(len(data.items), bool)
  )


def _marks(
    staged: streamed_tables.Staged, user: np.ndarray, item: np.ndarray
) -> _Marks:
  """Marks of users and items by their rows."""
  marks = _no_marks(staged)
  marks.user[user] = True
  marks.item[item] = True
  return marks


def _likes(
    staged: streamed_tables.Staged, user: np.ndarray, item: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Rows with a label above 0 and their roles by those of users and items."""
  for rows in staged.chunks():
    rows = rows[rows['label'] > 0]
    yield rows, roles_lib.of_pairs(user[rows['user']], item[rows['item']])


def _evaluation(
    staged: streamed_tables.Staged,
    config: config_lib.DataConfig,
    user: np.ndarray,
    item: np.ndarray,
) -> dict[str, schema.EvaluationSet]:
  """All sets that have pairs, each pair once; by roles of users and items."""
  # Numbers alone: candidates of each block would be all items again.
  parts: dict[str, list[np.ndarray]] = {}
  candidates: dict[str, np.ndarray] = {}
  for rows, pair in _likes(staged, user, item):
    found = splits.evaluation(
        schema.Interactions(rows['user'], rows['item']),
        roles_lib.Roles(user, item, pair),
        config,
    )
    for name, part in found.items():
      parts.setdefault(name, []).append(schema.pair_numbers(part))
      candidates.setdefault(name, part.candidates)
  evaluation = {}
  for name in splits.set_names(config):
    if name in parts:
      # Sorted and not hashed: numbers of pairs collide in np.unique.
      pair = np.sort(np.concatenate(parts.pop(name)))
      pair = pair[np.append(True, pair[1:] != pair[:-1])]
      evaluation[name] = schema.EvaluationSet(
          *schema.pairs_of(pair), candidates[name]
      )
  return evaluation


def _roles(
    seen: _Marks,
    liked: _Marks,
    trained: _Marks,
    evaluation: dict[str, schema.EvaluationSet],
    seed: int,
) -> list[impressions.Roles]:
  """Roles of users and of items, those without a like among them.

  One row of each user (or item) says as much about her as all do.
  """
  roles = []
  for side in _SIDES:
    row = np.flatnonzero(getattr(seen, side)).astype(np.int32)
    of_training = np.flatnonzero(getattr(trained, side)).astype(np.int32)
    label = getattr(liked, side)[row].astype(np.float32)
    roles.append(
        impressions.roles_of(
            schema.Interactions(row, row, label=label),
            schema.Split(
                schema.Interactions(of_training, of_training), evaluation
            ),
            side,
            seed,
            None,
        )
    )
  return roles


def _held_out(
    staged: streamed_tables.Staged,
    roles: list[impressions.Roles],
    evaluation: dict[str, schema.EvaluationSet],
) -> dict[str, schema.Interactions]:
  """Rows of each set, with both labels and in their order.

  Those with a reaction are of its pairs: where validation is trained on, users
  of validation count as known here, and their likes are in no set.
  """
  marks = {
      name: _marks(staged, *(x.cold.get(name, x.training) for x in roles))
      for name in evaluation
  }
  # Sorted, as sets have their pairs.
  pairs = {name: schema.pair_numbers(x) for name, x in evaluation.items()}
  parts: dict[str, list[np.ndarray]] = {name: [] for name in evaluation}
  for rows in staged.chunks():
    for name, mark in marks.items():
      mine = rows[mark.of(rows)]
      pair = schema.pair_numbers(
          schema.Interactions(mine['user'], mine['item'])
      )
      place = np.searchsorted(pairs[name], pair)
      place = np.minimum(place, len(pairs[name]) - 1)
      kept = (mine['label'] == 0) | (pairs[name][place] == pair)
      parts[name].append(mine[kept])
  taken = {}
  for name, found in parts.items():
    rows = np.concatenate(found)
    taken[name] = schema.Interactions(
        rows['user'].copy(),
        rows['item'].copy(),
        rows['weight'].copy() if staged.has_weights else None,
        label=rows['label'].copy(),
    )
  return taken


def _write(
    staged: streamed_tables.Staged,
    training: _Marks,
    user_balance: float,
    output: BinaryIO,
) -> schema.StreamedRows:
  """Writes rows between training users and items; returns what they count."""
  parts = lambda: (rows[training.of(rows)] for rows in staged.chunks())
  sizes = dict(zip(_SIDES, map(len, training)))
  count: dict[tuple[str, str], np.ndarray] = {
      (side, what): np.zeros(sizes[side], np.int64)
      for side in _SIDES
      for what in ('rows', 'likes', 'drawn')
  }
  num_rows, labels = 0, np.array([np.inf, -np.inf])
  for rows in parts():
    num_rows += len(rows)
    drawn = rows[rows['weight'] > 0]
    some = {'rows': rows, 'likes': rows[rows['label'] > 0], 'drawn': drawn}
    for side, what in count:
      count[side, what] += np.bincount(some[what][side], minlength=sizes[side])
    label = drawn['label']
    labels[0] = min(labels[0], label.min(initial=np.inf))
    labels[1] = max(labels[1], label.max(initial=-np.inf))
  scale = np.maximum(count['user', 'drawn'], 1) ** -float(user_balance)
  weigh = lambda rows: scale[rows['user']] * rows['weight']
  total = liked = 0.0
  for rows in parts():
    weight = weigh(rows)
    total += weight.sum()
    liked += (weight * rows['label']).sum()
  factor = num_rows / total if total > 0 else 1.0
  for rows in parts():
    rows['weight'] = weigh(rows) * factor
    rows.tofile(output)
  output.flush()
  return schema.StreamedRows(
      num_rows,
      count['user', 'likes'],
      count['item', 'likes'],
      count['user', 'rows'],
      count['item', 'rows'],
      count['item', 'drawn'],
      labels if total > 0 else np.full(2, np.nan),
      liked / total if total > 0 else 0.0,
  )
