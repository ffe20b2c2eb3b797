# SPDX-License-Identifier: Apache-2.0
"""MovieLens 100K (Harper & Konstan 2015): ratings of 4 and 5 are likes.

Users have an age, a gender, an occupation and a zip code, films a title, a
year and genres. Lower ratings are not interactions here, neither liked nor
disliked. There is no published cold split.
"""

import math
import pathlib
import re

import numpy as np
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax.data import integers
from dropoutnet_jax.data import likes
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import text
from dropoutnet_jax.data import words

LEAST_LIKED = 4  # lowest rating that is a like
_ENCODING = 'latin-1'
_MAX_AGE = 150
_NUM_ITEM_FIELDS = 5  # before the genres: id, title, two dates, address
_YEAR = re.compile(r'\((\d{4})\)')


def load_100k(folder: pathlib.Path) -> schema.Dataset:
  """Reads u.data, u.user, u.item, u.genre and, where there, u.info.

  Ids are those of the files, from 1.

  Args:
    folder: of the unpacked ml-100k.zip.

  Raises:
    errors.UserError: for a missing or broken file, with the line, and for
      numbers of rows other than those in u.info.
  """
  users = _read_users(folder / 'u.user')
  items = _read_items(folder / 'u.item', _read_genres(folder / 'u.genre'))
  fields = [
      integers.Field('user', 1, 2**31 - 1),
      integers.Field('item', 1, 2**31 - 1),
      integers.Field('rating', 1, 5),
      integers.Field('time', 0, 2**40),
  ]
  path = folder / 'u.data'
  ratings = integers.read_columns(path, fields, '\t')
  _check_totals(folder / 'u.info', len(users), len(items), len(ratings))
  user = _to_rows(path, ratings, 0, users.ids, 'u.user')
  item = _to_rows(path, ratings, 1, items.ids, 'u.item')
  is_like = ratings.value[:, 2] >= LEAST_LIKED
  if not is_like.any():
    raise errors.UserError(
        f'{path}: no rating of {LEAST_LIKED} or 5, no likes.'
    )
  interactions, repeats = likes.make_interactions(
      user[is_like], item[is_like], len(items), ratings.value[is_like, 3]
  )
  notes = [
      f'{np.sum(~is_like)} of {len(ratings)} ratings are below {LEAST_LIKED} '
      'and no likes.',
      *likes.describe_repeats(path.name, repeats),
      *likes.describe_gaps(interactions, len(users), len(items)),
  ]
  # Who rates a film has seen it: a low rating is a view without a reaction.
  impressions = schema.Interactions(
      user.astype(np.int32),
      item.astype(np.int32),
      time=ratings.value[:, 3],
      label=is_like.astype(np.float32),
  )
  return schema.Dataset(
      'ml-100k',
      users,
      items,
      interactions,
      notes=tuple(notes),
      impressions=impressions,
  )


def _read_users(path: pathlib.Path) -> schema.Entities:
  """Reads 'id|age|gender|occupation|zip code'; an empty field is missing."""
  records = text.read_records(path, 5, '|', _ENCODING)
  ages = [_parse_age(fields[1], path, line) for line, fields in records]
  to_category = lambda values: np.array([v or None for v in values], object)
  columns: dict[str, schema.Column] = {
      'age': np.array(ages, np.float32),
      'gender': to_category(fields[2] for _, fields in records),
      'occupation': to_category(fields[3] for _, fields in records),
      'zip_prefix': to_category(fields[4][:1] for _, fields in records),
  }
  return schema.Entities(_read_ids(path, records), columns)


def _parse_age(token: str, path: pathlib.Path, line: int) -> float:
  """Years of age, NaN where the field is empty."""
  age = text.parse_number(token, path, line, 'age', may_be_empty=True)
  if age < 0 or age > _MAX_AGE:
    raise errors.UserError(
        f'{path}:{line}: age {token} is out of range; it must be from 0 to '
        f'{_MAX_AGE}. {text.REMEDY}'
    )
  return age


def _read_genres(path: pathlib.Path) -> list[str]:
  """Reads 'name|number' with numbers from 0 upwards."""
  records = text.read_records(path, 2, '|', _ENCODING)
  names: list[str] = []
  for line, (name, number) in records:
    if text.parse_integer(number, path, line, 'genre number') != len(names):
      raise errors.UserError(
          f'{path}:{line}: genre number {number} where {len(names)} belongs; '
          'u.item lists genres in this order.'
      )
    names.append(name)
  return names


def _read_items(path: pathlib.Path, genres: list[str]) -> schema.Entities:
  """Reads 'id|title|date|video date|address' and a 0 or 1 per genre."""
  num_fields = _NUM_ITEM_FIELDS + len(genres)
  records = text.read_records(path, num_fields, '|', _ENCODING)
  flags = np.zeros((len(records), len(genres)), np.float32)
  years, titles = [], []
  for row, (line, fields) in enumerate(records):
    year, title = _split_title(fields[1])
    years.append(year)
    titles.append(title)
    for column, flag in enumerate(fields[_NUM_ITEM_FIELDS:]):
      if flag not in ('0', '1'):
        raise errors.UserError(
            f'{path}:{line}: genre {genres[column]!r} is {flag!r}; it must be '
            '0 or 1.'
        )
      flags[row, column] = float(flag)
  columns: dict[str, schema.Column] = {
      'genres': schema.Tags(scipy.sparse.csr_array(flags), np.array(genres)),
      'year': np.array(years, np.float32),
      'title_words': words.count_words(titles),
  }
  return schema.Entities(_read_ids(path, records), columns)


def _split_title(title: str) -> tuple[float, list[str]]:
  """Returns the year, NaN if there is none, and the other words, lowercased."""
  years = _YEAR.findall(title)
  year = float(years[-1]) if years else math.nan
  return year, words.split_words(_YEAR.sub(' ', title))


def _read_ids(
    path: pathlib.Path, records: list[tuple[int, list[str]]]
) -> np.ndarray:
  """The first fields as int64 [N]; refuses one that comes twice."""
  seen: dict[int, int] = {}
  for line, fields in records:
    number = text.parse_integer(fields[0], path, line, 'id')
    if number in seen:
      raise errors.UserError(
          f'{path}:{line}: id {number} is already in line {seen[number]}; '
          'delete one of the two.'
      )
    seen[number] = line
  return np.array(list(seen), np.int64)


def _to_rows(
    path: pathlib.Path,
    ratings: integers.Columns,
    column: int,
    ids: np.ndarray,
    table: str,
) -> np.ndarray:
  """Row numbers int64 [N] of the ids in a column of the ratings."""
  wanted = ratings.value[:, column]
  order = np.argsort(ids)
  place = np.searchsorted(ids, wanted, sorter=order)
  rows = order[np.minimum(place, len(ids) - 1)]
  unknown = np.flatnonzero(ids[rows] != wanted)
  if unknown.size:
    first = unknown[0]
    side = ('user', 'item')[column]
    raise errors.UserError(
        f'{path}:{ratings.line[first]}: {side} {wanted[first]} is not in '
        f'{table}; fetch both files again.'
    )
  return rows


def _check_totals(
    path: pathlib.Path, num_users: int, num_items: int, num_ratings: int
) -> None:
  """Compares with u.info ('943 users'), which a cut-off file contradicts."""
  if not path.exists():
    return
  found = {'users': num_users, 'items': num_items, 'ratings': num_ratings}
  for line, (number, name) in text.read_records(path, 2, ' ', _ENCODING):
    expected = text.parse_integer(number, path, line, 'number')
    if name in found and found[name] != expected:
      raise errors.UserError(
          f'{path}:{line}: {expected} {name}, but the other files have '
          f'{found[name]}; fetch them again.'
      )
