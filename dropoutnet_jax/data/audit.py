# SPDX-License-Identifier: Apache-2.0
"""The leakage audit: what training must not know about the evaluation sets.

It runs before the first step, on any split, drawn or published. A leak makes
results look better than they are, so it stops the run with counts and
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


@dataclasses.dataclass(frozen=True)
class _Leak:
  """One kind of leak in one place.

  Attributes:
    found: what was found, with counts and examples.
    where: '' for the training pairs, else the name of an evaluation set.
    rows: bool [N], the pairs whose dropping mends it; None for factors.
  """

  found: str
  where: str = ''
  rows: np.ndarray | None = None

  def mended(self) -> str:
    if self.rows is None:
      return f'Blanked: {self.found}.'
    place = self.where or 'training'
    return f'Dropped {_count(self.rows, "pair")} from {place}: {self.found}.'


def check_split(
    dataset: schema.Dataset,
    split: schema.Split,
    factors: schema.Factors | None = None,
    drop: bool = False,
) -> tuple[schema.Split, list[str]]:
  """Stops at, or drops, every leak of a split and of a teacher's factors.

  Looked for: training weights that are negative or not finite; training pairs
  that occur twice; rows and candidates of cold sets in training; held-out
  pairs in training; pairs and cold rows of test sets in validation; held-out
  items missing among the candidates; factors of rows that are not in training.

  Args:
    dataset: gives the ids for the examples.
    split: to be checked.
    factors: of the teacher, where there are any.
    drop: whether to mend instead of raising: training pairs that leak are
      dropped, of doubled ones all but the first; validation pairs that are in
      the test as well; held-out pairs whose item cannot be ranked. Factors
      are announced as blanked: pass them through `blank_factors`.

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
  mended = _mend(split, leaks) if leaks and drop else split
  if factors is not None:
    leaks += _factor_leaks(dataset, mended, factors)
  if leaks and not drop:
    raise errors.UserError(
        _message(dataset, leaks)
        + 'Mend the files, or set --config.data.drop_leaks=true, which drops '
        'such pairs and blanks such factors.'
    )
  if leaks and not len(mended.train):
    raise errors.UserError(
        _message(dataset, leaks)
        + 'config.data.drop_leaks would leave no training pair: mend the files.'
    )
  sentences = [leak.mended() for leak in leaks]
  gone = [name for name in split.evaluation if name not in mended.evaluation]
  if gone:
    sentences.append(f'Left without pairs and gone: {", ".join(gone)}.')
  return mended, sentences


def blank_factors(
    split: schema.Split, factors: schema.Factors
) -> schema.Factors:
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
    target_items: np.ndarray, split: schema.Split, dataset: schema.Dataset
) -> None:
  """Checks that training is never told about a cold item.

  Args:
    target_items: int, any shape: item rows that occur as training targets or
      negatives; below 0 is padding.
    split: defines the training items.
    dataset: gives the ids.

  Raises:
    UserError: an item that is not in training is among them.
  """
  rows = target_items[target_items >= 0]
  is_cold = np.ones(len(dataset.items), bool)
  is_cold[split.train.item] = False
  is_target = np.zeros(len(dataset.items), bool)
  is_target[rows] = True
  cold = np.flatnonzero(is_cold & is_target)
  if cold.size:
    raise errors.UserError(
        f'{np.count_nonzero(is_cold[rows]):,} of {rows.size:,} training '
        f'targets and negatives belong to {_rows(dataset, "item", cold)} '
        'that training must not know: it would learn that nobody likes them. '
        'Use --config.objective.target_items=training.'
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
          rows=bad,
      )
  doubled = np.ones(len(train), bool)
  doubled[np.unique(_codes(dataset, train), return_index=True)[1]] = False
  if doubled.any():
    found = _pairs(dataset, train, doubled)
    yield _Leak(f'training repeats {found} it already has', rows=doubled)


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
        found = _rows(dataset, side, column[leaked])
        yield _Leak(
            f'{name}: {found} of {held_out.size:,} cold ones occur in '
            f'{_count(leaked, "training pair")}',
            rows=leaked,
        )
    leaked = np.isin(code, _codes(dataset, rows))
    if leaked.any():
      found = _pairs(dataset, train, leaked)
      yield _Leak(
          f'{name}: {found} of {len(rows):,} held out are in training, and so '
          'in the histories',
          rows=leaked,
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
      yield _Leak(f'{name}: {found} are in the test too', name, shared)
    for side, quadrants in _COLD.items():
      held_out = [getattr(tests[q], side) for q in quadrants if q in tests]
      if name.removesuffix(_SUFFIX) not in quadrants or not held_out:
        continue
      column = getattr(rows, side)
      shared = np.isin(column, np.concatenate(held_out))
      if shared.any():
        found = _rows(dataset, side, column[shared])
        yield _Leak(
            f'{name}: {found} in {_count(shared, "pair")} are cold in the '
            'test too',
            name,
            shared,
        )


def _missing_candidates(
    dataset: schema.Dataset, split: schema.Split
) -> Iterator[_Leak]:
  """Held-out items that no ranking can contain."""
  for name, rows in split.evaluation.items():
    missing = ~np.isin(rows.item, rows.candidates)
    if missing.any():
      found = _rows(dataset, 'item', rows.item[missing])
      yield _Leak(
          f'{name}: {found} in {_count(missing, "held-out pair")} are not '
          f'among the {len(rows.candidates):,} candidates',
          name,
          missing,
      )


def _factor_leaks(
    dataset: schema.Dataset, split: schema.Split, factors: schema.Factors
) -> Iterator[_Leak]:
  """Rows that the teacher knows and training does not."""
  for side, rows in zip(('user', 'item'), split.train_rows()):
    known = getattr(factors, f'{side}_present').copy()
    known |= np.any(getattr(factors, side) != 0, axis=1)  # NaN is not 0 either
    known[rows] = False
    if known.any():
      found = _rows(dataset, side, np.flatnonzero(known))
      yield _Leak(f'teacher: factors of {found} without a training pair')


def _mend(split: schema.Split, leaks: list[_Leak]) -> schema.Split:
  """Drops the pairs that the leaks name, and sets that become empty."""
  keep = {
      name: np.ones(len(rows), bool) for name, rows in split.evaluation.items()
  }
  keep[''] = np.ones(len(split.train), bool)
  for leak in leaks:
    if leak.rows is not None:
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


def _rows(dataset: schema.Dataset, side: str, rows: np.ndarray) -> str:
  """'2 items (7, 9)': distinct rows, counted, up to three ids."""
  rows = np.unique(rows)
  table = dataset.users if side == 'user' else dataset.items
  ids = ', '.join(map(repr, table.ids[rows[:_EXAMPLES]].tolist()))
  more = ', ...' if rows.size > _EXAMPLES else ''
  return f'{_count(np.ones(rows.size, bool), side)} ({ids}{more})'


def _pairs(
    dataset: schema.Dataset,
    pairs: schema.Interactions | schema.EvaluationSet,
    rows: np.ndarray,
) -> str:
  """'1 pair (user 3 with item 7)': counted, with up to three examples."""
  first = np.flatnonzero(rows)[:_EXAMPLES]
  users = dataset.users.ids[pairs.user[first]].tolist()
  items = dataset.items.ids[pairs.item[first]].tolist()
  examples = [f'user {u!r} with item {i!r}' for u, i in zip(users, items)]
  if np.count_nonzero(rows) > _EXAMPLES:
    examples.append('...')
  return f'{_count(rows, "pair")} ({", ".join(examples)})'


def _message(dataset: schema.Dataset, leaks: list[_Leak]) -> str:
  lines = ''.join(f'  {leak.found};\n' for leak in leaks)
  return (
      f'The split of {dataset.name!r} leaks, so results would come out wrong, '
      f'mostly too high:\n{lines}'
  )
