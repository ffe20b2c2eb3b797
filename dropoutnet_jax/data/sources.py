# SPDX-License-Identifier: Apache-2.0
"""From the name of a data set to the data set.

Decides where the files are (a folder of the user, or the download cache) and
which reader takes them. Splits are drawn elsewhere; here a published split is
only read, and refused where the source has none.
"""

import pathlib

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import citeulike
from dropoutnet_jax.data import download
from dropoutnet_jax.data import layer6
from dropoutnet_jax.data import movielens
from dropoutnet_jax.data import own_tables
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import synthetic
from dropoutnet_jax.data import text

_WITH_PUBLISHED_SPLIT = ('citeulike-a', 'layer6-citeulike', 'recsys2017')


def load(config: config.DataConfig, data_dir: str | None) -> schema.Dataset:
  """Reads the data set that the configuration names.

  Args:
    config: `name` chooses the reader; `split` decides whether a published
      split or all likes are returned.
    data_dir: folder with one folder per data set, named like the data set.
      Without it public data is downloaded into the user's cache. For the
      user's own tables the folder, or its URL, in which their paths start.

  Raises:
    errors.UserError: for a split that the source does not have, for missing
      files (saying what to fetch, from where, and where to put it) and for
      broken ones (with the line).
  """
  if config.split in layer6.PUBLISHED and (
      config.name not in _WITH_PUBLISHED_SPLIT
  ):
    raise errors.UserError(
        f'config.data.split is {config.split!r}, but {config.name} comes '
        f'without a published split; only {", ".join(_WITH_PUBLISHED_SPLIT)} '
        "have one. Use 'random'."
    )
  if config.name == 'synthetic':
    return synthetic.make_world(config.synthetic).dataset
  if config.name == 'tables':
    if data_dir is not None and '://' not in data_dir:
      _check_folder(pathlib.Path(data_dir))
    return own_tables.load(config.tables, data_dir)
  if data_dir is None:
    folder = download.fetch(config.name)
  else:
    folder = find_folder(config.name, pathlib.Path(data_dir))
  try:
    return _read(config.name, config.split, folder, data_dir is None)
  except text.MissingFileError as error:
    advice = download.describe(config.name, folder)
    if data_dir is None:
      advice = f'Delete {folder} and run again.'
    raise errors.UserError(f'{error} {advice}') from None


def _read(
    name: str, split: str, folder: pathlib.Path, is_cache: bool
) -> schema.Dataset:
  if name == 'citeulike-a':
    split_folder = folder
    if is_cache and split in layer6.PUBLISHED:
      split_folder = download.fetch('layer6-citeulike')
    return citeulike.load_a(folder, split, split_folder)
  if name == 'citeulike-t':
    return citeulike.load_t(folder)
  if name == 'ml-100k':
    return movielens.load_100k(folder)
  if name == 'layer6-citeulike':
    return layer6.load_citeulike(folder, split)
  return layer6.load_recsys2017(folder, split)


def _check_folder(data_dir: pathlib.Path) -> None:
  """Raises UserError unless it is a folder."""
  if not data_dir.is_dir():
    raise errors.UserError(
        f'--data_dir={data_dir} is no folder; give the folder that holds one '
        'folder per data set, or leave the flag out to download public data.'
    )


def find_folder(name: str, data_dir: pathlib.Path) -> pathlib.Path:
  """Returns the folder of a data set under data_dir.

  Raises:
    UserError: if there is none, with what to fetch, from where.
  """
  _check_folder(data_dir)
  folder = data_dir / name
  if folder.is_dir():
    return download.find_root(folder, name)
  if (data_dir / download.PACKAGES[name].marker).exists():
    raise errors.UserError(
        f'--data_dir={data_dir} looks like the folder of one data set; give '
        f'the folder above it, in which the data set is named {name}.'
    )
  raise errors.UserError(
      f'{folder} does not exist. {download.describe(name, folder)} Or leave '
      f'out --data_dir: {download.PACKAGES[name].size} are downloaded then.'
  )
