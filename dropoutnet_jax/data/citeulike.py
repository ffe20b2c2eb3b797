# SPDX-License-Identifier: Apache-2.0
"""CiteULike as published by Wang, Chen & Li (IJCAI 2013).

Users are readers, items papers, and a like a paper in a reader's library.
citeulike-a carries tags and, since DropoutNet, two published splits;
citeulike-t carries the words of each abstract. Users have no content. Tags
were given by the readers who saved a paper, so those of a cold paper can come
from the very users to be predicted: reports on them must say so.
"""

import pathlib

import numpy as np
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax.data import integers
from dropoutnet_jax.data import layer6
from dropoutnet_jax.data import likes
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import text

# Users by the number of names (tags, words) and of items: a published data set
# is known by these two, and half of its users.dat reads as well as the whole.
_PUBLISHED_USERS = {(46_391, 16_980): 5_551, (20_000, 25_975): 7_947}


def load_a(
    folder: pathlib.Path, split: str, split_folder: pathlib.Path | None = None
) -> schema.Dataset:
  """Reads citeulike-a: tags, and words where mult.dat is there.

  Ids are rows from 0, as in the .dat files; the csv files of the published
  splits count from 1.

  Args:
    folder: holds users.dat, item-tag.dat and tags.dat.
    split: 'published-cold' or 'published-warm' for the split of the DropoutNet
      paper; any other gets all likes and no test sets.
    split_folder: holds cold/ and warm/; `folder` if None.

  Raises:
    errors.UserError: for a missing, broken or cut off file, and for a split
      with pairs that users.dat does not have.
  """
  tag_names = text.read_names(folder / 'tags.dat')
  path = folder / 'item-tag.dat'
  field = integers.Field('tag', 0, len(tag_names) - 1)
  tags = integers.read_lists(path, field)
  num_items = len(tags)
  interactions, num_users, notes = _read_library(
      folder, len(tag_names), num_items
  )
  columns: dict[str, schema.Column] = {}
  columns['tags'] = _to_tags(tags, tag_names, path, notes)
  if (folder / 'mult.dat').exists():
    columns['words'] = _read_words(folder, notes, num_items)
  held_out, origin = {}, None
  if split in layer6.PUBLISHED:
    kind = split.removeprefix('published-')
    source = (split_folder or folder) / kind
    published = layer6.read_split(source, kind, num_users, num_items)
    notes += published.notes
    notes += _compare(interactions, published, folder, source, num_items)
    interactions, held_out = published.train, published.held_out
    origin = schema.Origin(published.files, 1)
  notes += likes.describe_gaps(interactions, num_users, num_items)
  return schema.Dataset(
      'citeulike-a',
      schema.Entities(np.arange(num_users)),
      schema.Entities(np.arange(num_items), columns),
      interactions,
      held_out,
      notes=tuple(notes),
      origin=origin,
  )


def load_t(folder: pathlib.Path) -> schema.Dataset:
  """Reads citeulike-t: users.dat, mult.dat and vocabulary.dat.

  Raises:
    errors.UserError: for a missing, broken or cut off file, with the line.
  """
  notes: list[str] = []
  if not (folder / 'vocabulary.dat').exists():
    raise text.MissingFileError(f'{folder / "vocabulary.dat"} does not exist.')
  words = _read_words(folder, notes)
  num_items, num_words = words.matrix.shape
  interactions, num_users, more = _read_library(folder, num_words, num_items)
  notes += more + likes.describe_gaps(interactions, num_users, num_items)
  return schema.Dataset(
      'citeulike-t',
      schema.Entities(np.arange(num_users)),
      schema.Entities(np.arange(num_items), {'words': words}),
      interactions,
      notes=tuple(notes),
  )


def _read_library(
    folder: pathlib.Path, num_names: int, num_items: int
) -> tuple[schema.Interactions, int, list[str]]:
  """Reads users.dat: the likes, the number of users, notes."""
  path = folder / 'users.dat'
  lists = integers.read_lists(path, integers.Field('item', 0, num_items - 1))
  interactions, repeats = likes.make_interactions(
      lists.rows(), lists.value, num_items
  )
  if not len(interactions):
    raise errors.UserError(f'{path}: {len(lists)} users and not one like.')
  published = _PUBLISHED_USERS.get((num_names, num_items), 0)
  if len(lists) < published:
    raise errors.UserError(
        f'{path}: {len(lists)} users, but the published data set with these '
        f'{num_items} items has {published}; the file is cut off. Fetch it '
        'again.'
    )
  return interactions, len(lists), likes.describe_repeats(path.name, repeats)


def _read_words(
    folder: pathlib.Path, notes: list[str], num_items: int | None = None
) -> schema.Tags:
  """Reads mult.dat, with names where vocabulary.dat is there."""
  names = None
  highest = integers.MAX_COLUMNS - 1
  if (folder / 'vocabulary.dat').exists():
    names = text.read_names(folder / 'vocabulary.dat')
    highest = len(names) - 1
  path = folder / 'mult.dat'
  lists = integers.read_counted_lists(path, integers.Field('word', 0, highest))
  if num_items is not None and len(lists) != num_items:
    raise errors.UserError(
        f'{path}: {len(lists)} lines, but item-tag.dat has {num_items}; line n '
        'of both must describe the same item.'
    )
  return _to_tags(lists, names, path, notes)


def _to_tags(
    lists: integers.Lists,
    names: list[str] | None,
    path: pathlib.Path,
    notes: list[str],
) -> schema.Tags:
  """Makes a sparse table; counts of a repeated word add up, tags do not."""
  width = len(names) if names else int(lists.value.max(initial=-1)) + 1
  count = np.ones(len(lists.value)) if lists.count is None else lists.count
  matrix = scipy.sparse.csr_array(
      (
          count.astype(np.float32),
          lists.value.astype(np.int32),
          lists.start.astype(np.int32),
      ),
      shape=(len(lists), width),
  )
  matrix.sum_duplicates()
  repeats = len(lists.value) - matrix.nnz
  if repeats:
    rule = 'each counts once' if lists.count is None else 'their counts add up'
    notes.append(f'{path.name} repeats {repeats} entries in a line; {rule}.')
  if lists.count is None:
    matrix.data[:] = 1.0
  empty = int(np.sum(np.diff(matrix.indptr) == 0))
  if empty:
    notes.append(f'{path.name}: {empty} of {len(lists)} items have no entry.')
  return schema.Tags(matrix, None if names is None else np.array(names))


def _compare(
    interactions: schema.Interactions,
    published: layer6.PublishedSplit,
    folder: pathlib.Path,
    source: pathlib.Path,
    num_items: int,
) -> list[str]:
  """Checks a published split against users.dat, the origin of its pairs."""
  to_pair = lambda x: x.user.astype(np.int64) * num_items + x.item
  known = to_pair(interactions)
  split = to_pair(published.likes)
  extra = split[~np.isin(split, known, assume_unique=True)]
  if extra.size:
    user, item = np.divmod(extra[0], num_items)
    raise errors.UserError(
        f'{_find_pair(source, user + 1, item + 1)}: user {user + 1} and item '
        f'{item + 1} (ids from 1) are no pair of {folder / "users.dat"}; nor '
        f'are {extra.size - 1} others. Fetch the split and users.dat of the '
        'same data set.'
    )
  missing = len(known) - len(split)
  if not missing:
    return []
  return [f'{missing} pairs of users.dat are not in {source.name}/.']


def _find_pair(source: pathlib.Path, user: int, item: int) -> str:
  """'FILE:LINE' of a pair of ids; only called to word an error."""
  anything = [integers.Field('', 0, 2**62)] * 3
  for path in (source / 'train.csv', source / 'test.csv'):
    columns = integers.read_columns(path, anything)
    found = np.flatnonzero(np.all(columns.value[:, :2] == (user, item), axis=1))
    if found.size:
      return f'{path}:{columns.line[found[0]]}'
  return str(source)
