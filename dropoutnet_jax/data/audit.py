# SPDX-License-Identifier: Apache-2.0
"""The leakage audit: what training must not know about the evaluation sets.

It runs before the first step, on any split, drawn or published, on any
teacher's factors and on the items that may be targets or negatives. A leak
makes results look better than they are, so it stops the run with counts and
examples by id; `data.drop_leaks` mends it instead and says what was dropped.

Training pairs are also the histories of the users, so a test pair among them
leaks twice. This module does not know how a split was drawn or a teacher
trained.
"""

from collections.abc import Iterator
import dataclasses

import numpy as np

from dropoutnet_jax import errors
from dropoutnet_jax.data import schema

_SUFFIX = '_validation'
_COLD = {'item': ('cold_item', 'cold_both'), 'user': ('cold_user', 'cold_both')}
_EXAMPLES = 3
_ADVICE = (
    'Mend the files, or set --config.data.drop_leaks=true, which drops such '
    'pairs and blanks such factors.'
)


@dataclasses.dataclass(frozen=True)
class _Leak:
  """One kind of leak in one place.

  Attributes:
    found: what was found, with counts and examples.
    where: '' for the training pairs, else the name of an evaluation set.
    rows: bool [N], the pairs whose dropping mends it.
  """

  found: str
  rows: np.ndarray
  where: str = ''

  def mended(self) -> str:
    place = self.where or 'training'
    return f'Dropped {_count(self.rows, "pair")} from {place}: {self.found}.'


def check_split(
    dataset: schema.Dataset,
    split: schema.Split,
    drop: bool = False,
) -> tuple[schema.Split, list[str]]:
  """Stops at, or drops, every leak of a split.

  Looked for: training weights that are negative or not finite; training pairs
  that occur twice; rows and candidates of cold sets in training; held-out
  pairs in training; pairs and cold rows of test sets in validation; held-out
  items missing among the candidates.

  Args:
    dataset: gives the ids for the examples.
    split: to be checked.
    drop: whether to mend instead of raising: training pairs that leak are
      dropped, of doubled ones all but the first; validation pairs that are in
      the test as well; held-out pairs whose item cannot be ranked.

  Returns:
    The split, mended if need be, and one sentence for each thing mended.

  Raises:
    UserError: a leak was found and `drop` is False, or mending leaves no
      training pair.
  """
  leaks = [
      *_training_leaks(dataset, split),
      *_held_out_leaks(dataset, split),
      *_overlaps(dataset, split),
      *_missing_candidates(dataset, split),
  ]
  if not leaks:
    return split, []
  message = _message(dataset, [leak.found for leak in leaks])
  if not drop:
    raise errors.UserError(f'{message}{_files(dataset)}{_ADVICE}')
  mended = _mend(split, leaks)
  if not len(mended.train):
    raise errors.UserError(
        message
        + 'config.data.drop_leaks would leave no training pair: mend the files.'
    )
  sentences = [leak.mended() for leak in leaks]
  gone = [name for name in split.evaluation if name not in mended.evaluation]
  if gone:
    sentences.append(f'Left without pairs and gone: {", ".join(gone)}.')
  return mended, sentences


def check_factors(
    dataset: schema.Dataset,
    split: schema.Split,
    factors: schema.Factors,
    drop: bool = False,
) -> tuple[schema.Factors, list[str]]:
  """Stops at, or blanks, factors of rows that are not in training.

  Whether the factors of training rows know a held-out pair cannot be seen.

  Args:
    dataset: gives the ids for the examples.
    split: defines the training rows.
    factors: of the teacher.
    drop: whether to blank such factors instead of raising.

  Returns:
    The factors, blanked if need be, and a sentence for each side blanked.

  Raises:
    UserError: there are such factors and `drop` is False.
  """
  found = list(_leaking_factors(dataset, split, factors))
  if not found:
    return factors, []
  if not drop:
    raise errors.UserError(_message(dataset, found) + _ADVICE)
  return _blanked(split, factors), [f'Blanked: {leak}.' for leak in found]


def _leaking_factors(
    dataset: schema.Dataset, split: schema.Split, factors: schema.Factors
) -> Iterator[str]:
  """Rows that the teacher knows and training does not."""
  for side, rows in zip(('user', 'item'), split.train_rows()):
    known = getattr(factors, f'{side}_present').copy()
    known |= np.any(getattr(factors, side) != 0, axis=1)  # NaN is not 0 either
    known[rows] = False
    if known.any():
      found = _rows(dataset, side, np.flatnonzero(known))
      yield f'teacher: factors of {found} without a training pair'


def _blanked(split: schema.Split, factors: schema.Factors) -> schema.Factors:
  """Zeroes the factors of rows that are not in training, and marks them so."""
  user, item = split.train_rows()
  is_user = np.zeros(len(factors.user), bool)
  is_user[user] = True
  is_item = np.zeros(len(factors.item), bool)
  is_item[item] = True
  return schema.Factors(
      np.where(is_user[:, None], factors.user, np.float32(0)),
      np.where(is_item[:, None], factors.item, np.float32(0)),
      factors.user_present & is_user,
      factors.item_present & is_item,
  )


def check_targets(
    target_items: np.ndarray,
    split: schema.Split,
    dataset: schema.Dataset,
    allow_cold: bool = False,
) -> list[str]:
  """Checks that training is never told about a cold item.

  Args:
    target_items: int, any shape: item rows that occur as training targets or
      negatives; below 0 is padding.
    split: defines the training items.
    dataset: gives the ids.
    allow_cold: whether to say it in the results instead of raising, for the
      published drawing of pairs.

  Returns:
    What the results must say, one sentence each.

  Raises:
    UserError: an item that is not in training is among them and must not be.
  """
  rows = target_items[target_items >= 0]
  is_cold = np.ones(len(dataset.items), bool)
  is_cold[split.train.item] = False
  is_target = np.zeros(len(dataset.items), bool)
  is_target[rows] = True
  cold = np.flatnonzero(is_cold & is_target)
  if not cold.size:
    return []
  found = (
      f'{np.count_nonzero(is_cold[rows]):,} of {rows.size:,} training '
      f'targets and negatives belong to {_rows(dataset, "item", cold)}'
  )
  if allow_cold:
    return [
        f"Targets as published (objective.target_items='all'): {found} without "
        'a training pair; the model learns that nobody likes them.'
    ]
  raise errors.UserError(
      f'{found} that training must not know: it would learn that nobody likes '
      'them. Use --config.objective.target_items=training.'
  )


def _training_leaks(
    dataset: schema.Dataset, split: schema.Split
) -> Iterator[_Leak]:
  """Weights that mean nothing, and doubled pairs."""
  train = split.train
  if train.weight is not None:
    bad = ~(np.isfinite(train.weight) & (train.weight >= 0))
    if bad.any():
      found = _pairs(dataset, train, bad)
      value = train.weight[bad][0]
      yield _Leak(
          f'training has {found} whose weight is negative or not finite '
          f'(the first: {value:g})',
          bad,
      )
  doubled = np.ones(len(train), bool)
  doubled[np.unique(_codes(dataset, train), return_index=True)[1]] = False
  if doubled.any():
    found = _pairs(dataset, train, doubled)
    yield _Leak(f'training repeats {found} it already has', doubled)


def _held_out_leaks(
    dataset: schema.Dataset, split: schema.Split
) -> Iterator[_Leak]:
  """Cold rows and held-out pairs in training."""
  train = split.train
  code = _codes(dataset, train)
  for name, rows in split.evaluation.items():
    cold = {}
    if name.removesuffix(_SUFFIX) in _COLD['item']:
      cold['item'] = np.union1d(rows.item, rows.candidates)
    if name.removesuffix(_SUFFIX) in _COLD['user']:
      cold['user'] = np.unique(rows.user)
    for side, held_out in cold.items():
      column = getattr(train, side)
      leaked = np.isin(column, held_out)
      if leaked.any():
        found = _rows(dataset, side, column[leaked], dataset.origin)
        yield _Leak(
            f'{name}: {found} of {held_out.size:,} cold ones occur in '
            f'{_count(leaked, "training pair")}',
            leaked,
        )
    leaked = np.isin(code, _codes(dataset, rows))
    if leaked.any():
      found = _pairs(dataset, train, leaked)
      yield _Leak(
          f'{name}: {found} of {len(rows):,} held out are in training, and so '
          'in the histories',
          leaked,
      )


def _overlaps(dataset: schema.Dataset, split: schema.Split) -> Iterator[_Leak]:
  """Validation pairs and cold validation rows that are in the test as well."""
  tests = {
      name: rows
      for name, rows in split.evaluation.items()
      if not name.endswith(_SUFFIX)
  }
  codes = [_codes(dataset, rows) for rows in tests.values()]
  for name, rows in split.evaluation.items():
    if name in tests or not tests:
      continue
    shared = np.isin(_codes(dataset, rows), np.concatenate(codes))
    if shared.any():
      found = _pairs(dataset, rows, shared)
      yield _Leak(f'{name}: {found} are in the test too', shared, name)
    for side, quadrants in _COLD.items():
      held_out = [getattr(tests[q], side) for q in quadrants if q in tests]
      if name.removesuffix(_SUFFIX) not in quadrants or not held_out:
        continue
      column = getattr(rows, side)
      shared = np.isin(column, np.concatenate(held_out))
      if shared.any():
        found = _rows(dataset, side, column[shared], dataset.origin)
        yield _Leak(
            f'{name}: {found} in {_count(shared, "pair")} are cold in the '
            'test too',
            shared,
            name,
        )


def _missing_candidates(
    dataset: schema.Dataset, split: schema.Split
) -> Iterator[_Leak]:
  """Held-out items that no ranking can contain."""
  for name, rows in split.evaluation.items():
    missing = ~np.isin(rows.item, rows.candidates)
    if missing.any():
      found = _rows(dataset, 'item', rows.item[missing], dataset.origin)
      yield _Leak(
          f'{name}: {found} in {_count(missing, "held-out pair")} are not '
          f'among the {len(rows.candidates):,} candidates',
          missing,
          name,
      )


def _mend(split: schema.Split, leaks: list[_Leak]) -> schema.Split:
  """Drops the pairs that the leaks name, and sets that become empty."""
  keep = {
      name: np.ones(len(rows), bool) for name, rows in split.evaluation.items()
  }
  keep[''] = np.ones(len(split.train), bool)
  for leak in leaks:
    keep[leak.where] &= ~leak.rows
  evaluation = {
      name: dataclasses.replace(
          rows, user=rows.user[keep[name]], item=rows.item[keep[name]]
      )
      for name, rows in split.evaluation.items()
      if keep[name].any()
  }
  return dataclasses.replace(
      split, train=split.train.select(keep['']), evaluation=evaluation
  )


def _codes(
    dataset: schema.Dataset, rows: schema.Interactions | schema.EvaluationSet
) -> np.ndarray:
  """int64 [N]: one number per pair, equal where the pairs are."""
  return rows.user.astype(np.int64) * len(dataset.items) + rows.item


def _count(rows: np.ndarray, noun: str) -> str:
  """'1 pair' or '1,234 pairs' for a bool [N]."""
  count = np.count_nonzero(rows)
  return f'{count:,} {noun}{"" if count == 1 else "s"}'


def _rows(
    dataset: schema.Dataset,
    side: str,
    rows: np.ndarray,
    origin: schema.Origin | None = None,
) -> str:
  """'2 items (7, 9)': distinct rows, counted, up to three ids.

  Rows of pairs, whose files number otherwise, with the origin of these:
  '2 items (7, 9, in the files 8, 10)'.
  """
  rows = np.unique(rows)
  table = dataset.users if side == 'user' else dataset.items
  more = ', ...' if rows.size > _EXAMPLES else ''
  ids = table.ids[rows[:_EXAMPLES]]
  listed = ', '.join(map(repr, ids.tolist())) + more
  if origin and origin.offset:
    there = map(repr, (ids + origin.offset).tolist())
    listed += f', in the files {", ".join(there)}{more}'
  return f'{_count(np.ones(rows.size, bool), side)} ({listed})'


def _pairs(
    dataset: schema.Dataset,
    pairs: schema.Interactions | schema.EvaluationSet,
    rows: np.ndarray,
) -> str:
  """'1 pair (user 3 with item 7)': counted, with up to three examples."""
  first = np.flatnonzero(rows)[:_EXAMPLES]
  users = dataset.users.ids[pairs.user[first]]
  items = dataset.items.ids[pairs.item[first]]
  listed = zip(users.tolist(), items.tolist())
  examples = [f'user {u!r} with item {i!r}' for u, i in listed]
  if dataset.origin and dataset.origin.offset:
    there = users + dataset.origin.offset, items + dataset.origin.offset
    for row, (u, i) in enumerate(zip(*there)):
      examples[row] += f', in the files {u} with {i}'
  if np.count_nonzero(rows) > _EXAMPLES:
    examples.append('...')
  return f'{_count(rows, "pair")} ({", ".join(examples)})'


def _files(dataset: schema.Dataset) -> str:
  """'Its pairs are in a.csv, b.csv. ', '' where that is not known."""
  if dataset.origin is None:
    return ''
  return f'Its pairs are in {", ".join(dataset.origin.files)}. '


def _message(dataset: schema.Dataset, found: list[str]) -> str:
  lines = ''.join(f'  {leak};\n' for leak in found)
  return (
      f'The split of {dataset.name!r} leaks, so results would come out wrong, '
      f'mostly too high:\n{lines}'
  )
