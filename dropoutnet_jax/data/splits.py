# SPDX-License-Identifier: Apache-2.0
"""Which pairs are trained on and which are held out, as a function of the seed.

Draws use `np.random.default_rng([data.seed, k])`, one k per draw, so that they
agree on every platform. `train.seed` changes the parameters and the order of
the batches, never the split.

Random and time splits always draw test and validation, and `data.validation`
only decides whether the validation pairs stay out of training ('keep_out') or
are trained on ('return'). The test sets, with their users and candidates, are
the same in both cases. The price is a few held-out pairs that are in no set
(`roles.py` says which); the notes count them.

This module reads no files and does not look for mistakes in what it is given:
`audit.py` does that.
"""

import dataclasses

import numpy as np

from dropoutnet_jax import config as config_lib
from dropoutnet_jax import errors
from dropoutnet_jax.data import roles as roles_lib
from dropoutnet_jax.data import schema

# The second word of each seed. A changed number changes every split.
_USERS, _ITEMS, _LONELY_ITEMS, _PAIRS = range(4)
_SUFFIX = '_validation'


def make_split(
    dataset: schema.Dataset, config: config_lib.DataConfig
) -> schema.Split:
  """Returns the split that `config.split` names; a pure function of both.

  'published-*': the test sets are `dataset.held_out`, untouched. With
    'keep_out' validation comes from training pairs alone and mirrors the
    quadrants that the test has: `validation_share` of the training items, of
    the training users, and of every user's pairs for 'warm'.
  'random': `cold_item_share` of the items that have pairs, `cold_user_share`
    of the users that have pairs and `warm_share` of the pairs between the
    rest, each for test and once more for validation. Items without any pair
    are as cold as the drawn ones, and the same share of them stands among the
    candidates: these are a fair sample of the catalogue, liked or not.
  'time': test is the last `warm_share` of the pairs, validation the one
    before it; pairs of the same second stay together. A row is cold in the
    period of its first pair, and only items with a pair in the period are
    candidates there (when the others appeared is unknown). Test sets leave
    out rows first seen during validation, which are cold with 'keep_out' and
    warm with 'return'. How many rows are cold follows from the data.

  In 'warm' and 'cold_user' the candidates are the training items as they are
  with 'keep_out' (of published splits: those of the test set), and in 'warm'
  the user's own training items are not ranked. With 'keep_out' a user's
  validation items are therefore among her candidates in the warm test;
  'return' takes them away.

  Args:
    dataset: a pair occurs once; `held_out` is given for published splits only.
    config: validated.

  Returns:
    The split; test sets come first, and no drawn set is empty.

  Raises:
    UserError: the data do not fit the split, or a share leaves nothing to
      train or to evaluate on.
  """
  if not len(dataset.interactions):
    raise errors.UserError(
        f'Data set {dataset.name!r} has no training pairs: nothing can be '
        'split. Check its file of interactions.'
    )
  if config.split.startswith('published'):
    return _published(dataset, config)
  if dataset.held_out:
    raise errors.UserError(
        f'config.data.split is {config.split!r}, but data set '
        f'{dataset.name!r} brings its own test sets '
        f'({", ".join(dataset.held_out)}). Set it to published-cold or '
        'published-warm, or put all pairs among the interactions.'
    )
  split = _random if config.split == 'random' else _time
  return split(dataset, config)


def _published(
    dataset: schema.Dataset, config: config_lib.DataConfig
) -> schema.Split:
  held_out = dataset.held_out
  if not held_out:
    raise errors.UserError(
        f'config.data.split is {config.split!r}, but data set '
        f'{dataset.name!r} has no published test sets. Set it to random, or '
        'to time where pairs have times.'
    )
  roles = _published_roles(dataset, config)
  evaluation = dict(held_out)
  for quadrant, test in held_out.items():
    rows = roles_lib.select_quadrant(
        dataset.interactions, roles, roles_lib.VALIDATION, quadrant
    )
    if quadrant in ('warm', 'cold_user'):  # ranked as the test is
      known = np.isin(rows.item, test.candidates)
      rows = dataclasses.replace(
          rows,
          user=rows.user[known],
          item=rows.item[known],
          candidates=test.candidates,
      )
    if len(rows):
      evaluation[f'{quadrant}_validation'] = rows
  note = f'Test sets as published with {dataset.name}.'
  return _assemble(dataset, config, roles.pair, evaluation, [note])


def _published_roles(
    dataset: schema.Dataset, config: config_lib.DataConfig
) -> roles_lib.Roles:
  """Draws the validation rows and pairs; all is training with 'return'."""
  pairs = dataset.interactions
  share = config.validation_share if config.validation == 'keep_out' else 0.0
  tests = dataset.held_out.keys()
  user, item = (
      roles_lib.draw_rows(
          rows,
          len(table),
          share if tests & {f'cold_{side}', 'cold_both'} else 0.0,
          (roles_lib.VALIDATION,),
          [config.seed, word],
          f'validation_share (of the training {side}s)',
      )
      for side, rows, table, word in (
          ('user', pairs.user, dataset.users, _USERS),
          ('item', pairs.item, dataset.items, _ITEMS),
      )
  )
  roles = roles_lib.make_roles(pairs, user, item)
  if 'warm' not in tests:
    return roles
  pair = roles_lib.draw_pairs_of_each_user(
      pairs, roles.pair, share, [config.seed, _PAIRS]
  )
  return dataclasses.replace(roles, pair=pair)


def _random(
    dataset: schema.Dataset, config: config_lib.DataConfig
) -> schema.Split:
  pairs = dataset.interactions
  user, item, notes = draw_rows(dataset, config, pairs.user, pairs.item)
  roles = roles_lib.make_roles(pairs, user, item)
  pair = roles_lib.draw_pairs(
      pairs, roles.pair, config.warm_share, [config.seed, _PAIRS]
  )
  roles = dataclasses.replace(roles, pair=pair)
  sets = evaluation(pairs, roles, config)
  check_drawn(dataset, config, sets)
  return _assemble(dataset, config, roles.pair, sets, notes)


def draw_rows(
    dataset: schema.Dataset,
    config: config_lib.DataConfig,
    liking: np.ndarray,
    liked: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
  """Draws the users and items that random splits hold out.

  Args:
    dataset: gives the numbers of users and items, and its name.
    config: shares and seed.
    liking: int, rows of users with pairs, in any order, repeated or not.
    liked: int, rows of items with pairs, likewise.

  Returns:
    Roles of users, int8 [U], and items, int8 [I], and notes.

  Raises:
    UserError: as `roles.draw_rows`.
  """
  user, item = (
      roles_lib.draw_rows(
          rows,
          len(table),
          getattr(config, f'cold_{side}_share'),
          (roles_lib.TEST, roles_lib.VALIDATION),
          [config.seed, word],
          f'cold_{side}_share (of the {side}s with pairs)',
      )
      for side, rows, table, word in (
          ('user', liking, dataset.users, _USERS),
          ('item', liked, dataset.items, _ITEMS),
      )
  )
  lonely = np.setdiff1d(np.arange(len(dataset.items)), liked)
  order = np.random.default_rng([config.seed, _LONELY_ITEMS]).permutation(
      lonely
  )
  count = round(config.cold_item_share * lonely.size)
  item[order[:count]] = roles_lib.TEST
  item[order[count : 2 * count]] = roles_lib.VALIDATION
  notes = []
  if lonely.size:
    notes.append(
        f'{lonely.size:,} items have no pairs at all; {count:,} of them are '
        'among the candidates of each set of cold items.'
    )
  return user, item, notes


def check_drawn(
    dataset: schema.Dataset,
    config: config_lib.DataConfig,
    evaluation: dict[str, schema.EvaluationSet],
) -> None:
  """Raises UserError if a positive share of cold rows gives no test set."""
  for name in ('cold_item', 'cold_user'):
    share = getattr(config, f'{name}_share')
    if share > 0 and name not in evaluation:
      raise errors.UserError(
          f'config.data.{name}_share is {share}, but no pair of the rows drawn '
          f'from {dataset.name!r} has a partner that stays in training: there '
          f'is no {name} test set. Lower the shares, or change data.seed.'
      )


def _time(
    dataset: schema.Dataset, config: config_lib.DataConfig
) -> schema.Split:
  pairs = dataset.interactions
  pair, notes = _periods(dataset, config)
  user, item = (
      roles_lib.first_period(rows, pair, len(table))
      for rows, table in (
          (pairs.user, dataset.users),
          (pairs.item, dataset.items),
      )
  )
  sets = evaluation(pairs, roles_lib.Roles(user, item, pair), config)
  if not sets.keys() & set(schema.QUADRANTS):
    raise errors.UserError(
        f'Every test pair of {dataset.name!r} has a user or an item first '
        'seen during validation: there is no test set. Change '
        'config.data.warm_share.'
    )
  return _assemble(dataset, config, pair, sets, notes)


def _periods(
    dataset: schema.Dataset, config: config_lib.DataConfig
) -> tuple[np.ndarray, list[str]]:
  """The period of each pair, int8 [N], and a note on where they start."""
  time, share = dataset.interactions.time, config.warm_share
  if time is None:
    raise errors.UserError(
        f"config.data.split is 'time', but the pairs of {dataset.name!r} have "
        'no times. Set it to random, or add a column of times.'
    )
  count = round(share * time.size)
  if not count:
    raise errors.UserError(
        f'config.data.warm_share is {share}: the test period has none of '
        f'{time.size:,} pairs. Raise it.'
    )
  ordered = np.sort(time)
  test_start, start = ordered[[-count, max(-2 * count, -time.size)]].tolist()
  pair = roles_lib.first_role(
      (time >= test_start, roles_lib.TEST),
      (time >= start, roles_lib.VALIDATION),
  )
  for role, period in (
      (roles_lib.TRAIN, 'training'),
      (roles_lib.VALIDATION, 'validation'),
  ):
    if not (pair == role).any():
      raise errors.UserError(
          f'config.data.warm_share is {share}, which leaves no pair for '
          f'{period}: validation starts at {start} and test at {test_start} '
          f'(seconds since 1970; the first pair is at {ordered[0]}), and pairs '
          'of the same second stay together. Change it, or set '
          'config.data.split to random.'
      )
  note = f'Validation starts at {start}, test at {test_start} (seconds).'
  return pair, [note]


def evaluation(
    pairs: schema.Interactions,
    roles: roles_lib.Roles,
    config: config_lib.DataConfig,
) -> dict[str, schema.EvaluationSet]:
  """All sets that have pairs; validation only where it is kept out."""
  found = {}
  for name in set_names(config):
    quadrant = name.removesuffix(_SUFFIX)
    period = roles_lib.TEST if name == quadrant else roles_lib.VALIDATION
    rows = roles_lib.select_quadrant(pairs, roles, period, quadrant)
    if len(rows):
      found[name] = rows
  return found


def set_names(config: config_lib.DataConfig) -> list[str]:
  """Names of the sets that a drawn split may have, in their order."""
  suffixes = ['', _SUFFIX] if config.validation == 'keep_out' else ['']
  return [q + suffix for suffix in suffixes for q in schema.QUADRANTS]


def _assemble(
    dataset: schema.Dataset,
    config: config_lib.DataConfig,
    pair: np.ndarray,
    evaluation: dict[str, schema.EvaluationSet],
    notes: list[str],
) -> schema.Split:
  """Picks the training pairs by their role, int8 [N], and adds the notes."""
  trained = pair == roles_lib.TRAIN
  if config.validation == 'return':
    trained |= pair == roles_lib.VALIDATION
  train = dataset.interactions.select(trained)
  missing = len(pair) - len(train)
  for name, rows in evaluation.items():
    missing -= len(rows) if name not in dataset.held_out else 0
  users, items = (np.unique(rows).size for rows in (train.user, train.item))
  notes = describe(
      notes, config, evaluation, (len(train), users, items), missing
  )
  return schema.Split(train, evaluation, tuple(notes))


def describe(
    notes: list[str],
    config: config_lib.DataConfig,
    evaluation: dict[str, schema.EvaluationSet],
    trained: tuple[int, int, int],
    missing: int,
) -> list[str]:
  """The notes, and further ones on what is trained on and what held out.

  Args:
    notes: so far.
    config: of the split.
    evaluation: its sets.
    trained: numbers of training pairs, of their users and of their items.
    missing: held-out pairs that are in no set.
  """
  count = lambda rows: f'{np.unique(rows).size:,}'
  notes = notes + [
      'Training: {:,} pairs of {:,} users and {:,} items.'.format(*trained)
  ]
  for name, rows in evaluation.items():
    notes.append(
        f'{name}: {len(rows):,} pairs of {count(rows.user)} users; '
        f'{len(rows.candidates):,} candidates.'
    )
  if missing:
    notes.append(
        f'{missing:,} held-out pairs are in no set: their user or item was '
        'drawn for the other period or has no training pair.'
    )
  if config.validation == 'return':
    notes.append('Validation pairs are trained on and not evaluated.')
  else:
    notes.append('Validation pairs stay out of training.')
    twins = [
        f'{name}_validation'
        for name in schema.QUADRANTS
        if name in evaluation and f'{name}_validation' not in evaluation
    ]
    if twins:
      notes.append(f'No pairs for {", ".join(twins)}.')
  if config.split != 'time':
    notes.append(f'Drawn with data.seed {config.seed}.')
  return notes
