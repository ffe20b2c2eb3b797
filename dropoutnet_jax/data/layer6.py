# SPDX-License-Identifier: Apache-2.0
"""The files that the authors of DropoutNet published with their code.

Two packages, CiteULike and RecSys Challenge 2017 (XING), share one layout:
splits as csv, content in libsvm format, factors of a weighted matrix
factorisation as text or raw float32. Ids start at 1 and every table has a row
0 that stands for nobody; it is left out here. Whether a split leaks is for
the audit to say, how content is weighted for the features.
"""

import dataclasses
import pathlib

import numpy as np

from dropoutnet_jax import errors
from dropoutnet_jax.data import factors
from dropoutnet_jax.data import integers
from dropoutnet_jax.data import libsvm
from dropoutnet_jax.data import likes
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import text

PUBLISHED = ('published-cold', 'published-warm')
_RANK = 200  # width of the published factors
_ITEM_CONTENT = 'item_features_0based.txt'
_USER_CONTENT = 'user_features_0based.txt'
# Click, bookmark, reply, recruiter interest. An impression (0) says nothing
# about taste and a deletion (4) the opposite.
_RECSYS_LIKES = (1, 2, 3, 5)

# Lines of the published CiteULike splits, which are known by their numbers of
# users and items: half of a file reads as well as the whole.
_CITEULIKE = (5_551, 16_980)
_LINES = {
    'cold': {
        'train.csv': 164_210,
        'test_item_ids.csv': 3_396,
        'test.csv': 40_776,
    },
    'warm': {
        'train.csv': 170_988,
        'test_item_ids.csv': 16_980,
        'test.csv': 33_998,
    },
}

# The formats of the packages; factors of one's own are read the same way.
read_factors = factors.read_factors


@dataclasses.dataclass(frozen=True)
class PublishedSplit:
  """A published split.

  Attributes:
    train: training likes.
    held_out: test sets by quadrant.
    likes: every like of the files, training and tests together.
    notes: what was left out, one sentence each.
    files: of the pairs.
  """

  train: schema.Interactions
  held_out: dict[str, schema.EvaluationSet]
  likes: schema.Interactions
  notes: tuple[str, ...]
  files: tuple[str, ...]


def load_citeulike(folder: pathlib.Path, split: str) -> schema.Dataset:
  """Reads the authors' CiteULike package: word counts, factors, both splits.

  Its ids are those of the csv files, from 1; citeulike-a numbers the same
  users and papers from 0.

  Args:
    folder: holds item_features_0based.txt, trained/, cold/ and warm/.
    split: 'published-cold' or 'published-warm'; any other gets all likes, no
      test sets and no factors.

  Raises:
    errors.UserError: for a missing or broken file.
  """
  kind = 'warm' if split == 'published-warm' else 'cold'
  teacher = _read_published_factors(folder / 'trained' / kind, kind)
  num_users, num_items = len(teacher.user), len(teacher.item)
  words = schema.Tags(libsvm.read_content(folder / _ITEM_CONTENT, num_items))
  users = schema.Entities(np.arange(1, num_users + 1))
  items = schema.Entities(np.arange(1, num_items + 1), {'words': words})
  published = read_split(folder / kind, kind, num_users, num_items)
  return _to_dataset(
      'layer6-citeulike', users, items, teacher, published, split
  )


def load_recsys2017(folder: pathlib.Path, split: str) -> schema.Dataset:
  """Reads the authors' package of the RecSys Challenge 2017.

  Args:
    folder: holds user_features_0based.txt, item_features_0based.txt, trained/
      and warm/.
    split: both published splits are one here: a training set with warm, cold
      user and cold item tests; any other gets all likes, no test sets and no
      factors.

  Raises:
    errors.UserError: for a missing or broken file.
  """
  teacher = _read_published_factors(folder / 'trained' / 'warm', 'warm')
  sides = []
  for name, number in (
      (_USER_CONTENT, len(teacher.user)),
      (_ITEM_CONTENT, len(teacher.item)),
  ):
    content = schema.Tags(libsvm.read_content(folder / name, number))
    ids = np.arange(1, number + 1)
    sides.append(schema.Entities(ids, {'content': content}))
  users, items = sides
  tests = {
      quadrant: (f'test_{quadrant}.csv', f'test_{quadrant}_item_ids.csv')
      for quadrant in ('warm', 'cold_user', 'cold_item')
  }
  published = _read_split(
      folder / 'warm', tests, len(users), len(items), has_types=True
  )
  return _to_dataset('recsys2017', users, items, teacher, published, split)


def read_split(
    folder: pathlib.Path, kind: str, num_users: int, num_items: int
) -> PublishedSplit:
  """Reads train.csv, test.csv and test_item_ids.csv of a CiteULike split.

  Lines are 'user,item,1' with ids from 1, row numbers plus one. A pair that a
  file repeats counts once. Test pairs on items that are no candidates are
  left out, as in the published evaluation.

  Args:
    folder: of the split.
    kind: 'cold' (new items) or 'warm' (training items are not ranked again).
    num_users: ids go up to this.
    num_items: ids go up to this.

  Raises:
    errors.UserError: for a missing or broken file, with the line; for a file
      of the published splits that is cut off.
  """
  quadrant = {'cold': 'cold_item', 'warm': 'warm'}[kind]
  tests = {quadrant: ('test.csv', 'test_item_ids.csv')}
  split = _read_split(folder, tests, num_users, num_items, has_types=False)
  if (num_users, num_items) == _CITEULIKE:
    test = split.held_out[quadrant]
    found = (len(split.train), len(test.candidates), len(test))
    _check_lines(folder, _LINES[kind], dict(zip(_LINES[kind], found)))
  return split


def _check_lines(
    folder: pathlib.Path, published: dict[str, int], found: dict[str, int]
) -> None:
  """Raises UserError for a file with fewer rows than the published one."""
  differing = [name for name in published if found[name] != published[name]]
  if 'train.csv' in differing and len(differing) > 1:
    return  # another fold of the same data
  for name in differing:
    if found[name] < published[name]:
      raise errors.UserError(
          f'{folder / name}: {found[name]} different rows, but the published '
          f'file has {published[name]}; it is cut off. Fetch it again.'
      )


def _to_dataset(
    name: str,
    users: schema.Entities,
    items: schema.Entities,
    teacher: schema.Factors,
    published: PublishedSplit,
    split: str,
) -> schema.Dataset:
  """Chooses what a split sees; drops factors that know its held-out likes."""
  is_published = split in PUBLISHED
  interactions = published.train if is_published else published.likes
  notes = [
      *published.notes,
      *likes.describe_gaps(interactions, len(users), len(items)),
      *(_describe_factors(teacher) if is_published else ()),
  ]
  if not is_published:
    notes.append(
        'The published factors are left out: they were fitted to likes that '
        'this split may hold out.'
    )
  return schema.Dataset(
      name,
      users,
      items,
      interactions,
      published.held_out if is_published else {},
      teacher if is_published else None,
      tuple(notes),
      schema.Origin(published.files) if is_published else None,
  )


def _describe_factors(teacher: schema.Factors) -> list[str]:
  """Returns a sentence for users, and one for items, without a factor."""
  return [
      f'{np.sum(~present)} of {len(present)} {side} have no published factor.'
      for side, present in (
          ('users', teacher.user_present),
          ('items', teacher.item_present),
      )
      if not present.all()
  ]


def _read_split(
    folder: pathlib.Path,
    tests: dict[str, tuple[str, str]],
    num_users: int,
    num_items: int,
    has_types: bool,
) -> PublishedSplit:
  """As read_split; `tests` names the pairs and candidates of each quadrant."""
  train, notes = _read_pairs(
      folder / 'train.csv', num_users, num_items, has_types
  )
  held_out, parts = {}, [train]
  files = [str(folder / 'train.csv')]
  for quadrant, (pairs_name, candidates_name) in tests.items():
    path = folder / pairs_name
    pairs, more = _read_pairs(path, num_users, num_items, has_types)
    parts.append(pairs)
    files.append(str(path))
    notes += more
    candidates = _read_candidates(folder / candidates_name, num_items)
    is_ranked = np.isin(pairs.item, candidates)
    if not is_ranked.any():
      raise errors.UserError(
          f'{path}: none of its items is in {candidates_name}; the two files '
          'must belong to the same split.'
      )
    if not is_ranked.all():
      notes.append(
          f'{_label(path)}: {np.sum(~is_ranked)} pair(s) left out, their items '
          f'are not in {candidates_name}.'
      )
    held_out[quadrant] = schema.EvaluationSet(
        pairs.user[is_ranked],
        pairs.item[is_ranked],
        candidates,
        exclude_train=quadrant == 'warm',
    )
  everything, _ = likes.make_interactions(
      np.concatenate([part.user for part in parts]),
      np.concatenate([part.item for part in parts]),
      num_items,
      np.concatenate([part.time for part in parts]) if has_types else None,
  )
  return PublishedSplit(train, held_out, everything, tuple(notes), tuple(files))


def _read_pairs(
    path: pathlib.Path, num_users: int, num_items: int, has_types: bool
) -> tuple[schema.Interactions, list[str]]:
  """Reads 'user,item,1' or, with types, 'user,item,type,time'."""
  fields = [
      integers.Field('user', 1, num_users),
      integers.Field('item', 1, num_items),
  ]
  if has_types:
    fields.append(integers.Field('interaction type', 0, 5))
    fields.append(integers.Field('time', 0, 2**40))
  else:
    fields.append(integers.Field('value of a like', 1, 1))
  value = integers.read_columns(path, fields).value
  notes = []
  if has_types:
    is_like = np.isin(value[:, 2], _RECSYS_LIKES)
    if not is_like.all():
      notes.append(
          f'{_label(path)}: {np.sum(~is_like)} impression(s) and deletion(s) '
          'left out.'
      )
    value = value[is_like]
  time = value[:, 3] if has_types else None
  pairs, repeats = likes.make_interactions(
      value[:, 0] - 1, value[:, 1] - 1, num_items, time
  )
  return pairs, notes + likes.describe_repeats(_label(path), repeats)


def _read_candidates(path: pathlib.Path, num_items: int) -> np.ndarray:
  """Item rows int32 [I], ascending, of a file with one id per line."""
  columns = integers.read_columns(path, [integers.Field('item', 1, num_items)])
  is_candidate = np.zeros(num_items, bool)
  is_candidate[columns.value[:, 0] - 1] = True
  return np.flatnonzero(is_candidate).astype(np.int32)


def _label(path: pathlib.Path) -> str:
  """'cold/train.csv': a file in notes, the same on every machine."""
  return f'{path.parent.name}/{path.name}'


def _read_published_factors(folder: pathlib.Path, kind: str) -> schema.Factors:
  """Reads both tables without row 0; rows of zeros have no factor."""
  tables = []
  for side in ('U', 'V'):
    path = _find_factors(folder, kind, side)
    table = factors.read_factors(path, _RANK if path.suffix == '.bin' else None)
    if len(table) < 2:
      raise errors.UserError(
          f'{path}: one row; row 0 stands for nobody, so there must be more.'
      )
    tables.append(table[1:])
  user, item = tables
  if user.shape[1] != item.shape[1]:
    raise errors.UserError(
        f'{folder}: user factors have {user.shape[1]} columns, item factors '
        f'{item.shape[1]}; both must come from one factorisation.'
    )
  return schema.Factors(user, item, np.any(user, axis=1), np.any(item, axis=1))


def _find_factors(folder: pathlib.Path, kind: str, side: str) -> pathlib.Path:
  binary = folder / f'{side}.csv.bin'
  if binary.exists():
    return binary
  found = sorted(folder.glob(f'WRMF_{kind}_rank*.{side}.txt'))
  if not found:
    raise text.MissingFileError(
        f'{folder} holds neither WRMF_{kind}_rank*.{side}.txt nor '
        f'{binary.name}.'
    )
  if len(found) > 1:
    names = ', '.join(path.name for path in found)
    raise errors.UserError(f'{folder} holds {names}; leave only one of them.')
  return found[0]
