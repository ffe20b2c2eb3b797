# SPDX-License-Identifier: Apache-2.0
"""Where public data sets are, how to get them, and what to say without them.

A file is downloaded only where its checksum is known beforehand, into the
cache folder of the user. Knows addresses and folders, nothing of contents.
"""

import contextlib
import dataclasses
import logging
import os
import pathlib
import shutil
import sys
import tarfile
import tempfile
import zipfile
import zlib

import pooch

from dropoutnet_jax import errors

_CITEULIKE_A = (
    'https://raw.githubusercontent.com/js05212/citeulike-a/'
    '91b603922d7f2d3db18071d4798bf78c9c5d1680/'
)
_CITEULIKE_T = (
    'https://raw.githubusercontent.com/js05212/citeulike-t/'
    '4f103c6ea0fe407b23be230837b65517e613c34a/'
)
_LAYER6 = (
    'https://github.com/layer6ai-labs/DropoutNet-Data/raw/'
    '760c35534ccc8e292aa2958dcb4823cdcefb32b1/'
)
# Of the network, the checksum (ValueError), the disk, and the unpacking.
_FAILURES = (
    OSError,
    ValueError,
    EOFError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
_MOVIELENS = 'https://files.grouplens.org/datasets/movielens/'


@dataclasses.dataclass(frozen=True)
class Package:
  """A published data set.

  Attributes:
    files: checksum by address; an archive is the only file of its package.
    marker: a file by which the folder of the data set is recognised.
    size: of the download, for messages.
    remark: what else must be fetched by hand, a sentence.
  """

  files: dict[str, str]
  marker: str
  size: str
  remark: str = ''


PACKAGES = {
    'citeulike-a': Package(
        {
            _CITEULIKE_A
            + 'users.dat': (
                'sha256:53211d82c14ff261e595634d285ed9fb'
                'f8049cf81dcb751d924d695b9612a02c'
            ),
            _CITEULIKE_A
            + 'item-tag.dat': (
                'sha256:0f7b432796a5038ed2631c02b99d70e6'
                '36123673afc11bf9e051de5b49467890'
            ),
            _CITEULIKE_A
            + 'tags.dat': (
                'sha256:c02b3e5ee1a57f88f3a598b2040018bb'
                '198f54cd0c11116fa7a0db905b6f60e3'
            ),
        },
        'users.dat',
        '3 MB',
        'Its published splits, cold/ and warm/, are in the folder eval of '
        f'{_LAYER6}citeu.tar.gz.',
    ),
    'citeulike-t': Package(
        {
            _CITEULIKE_T
            + 'users.dat': (
                'sha256:02d5d429b2c0362e0ed79f6ef204666b'
                '4092563d21493abf4dfb521e8a7078bf'
            ),
            _CITEULIKE_T
            + 'mult.dat': (
                'sha256:5ed81e6fdbf8d475122d4a18d622202571'
                'ac80f27be017e194a1957da585283d'
            ),
            _CITEULIKE_T
            + 'vocabulary.dat': (
                'sha256:d58f0e6ce40da9e57c7ad6bbb2d0f135'
                '1730e3ecfcbbdf14eec07d493ce539e1'
            ),
        },
        'users.dat',
        '5 MB',
    ),
    'ml-100k': Package(
        {_MOVIELENS + 'ml-100k.zip': 'md5:0e33842e24a9c977be4e0107933c0723'},
        'u.data',
        '5 MB',
    ),
    'layer6-citeulike': Package(
        {
            _LAYER6
            + 'citeu.tar.gz': (
                'sha256:0e4bd70b370eaf60f8e0dfd511ddaff2'
                '2a934c6a414167e9a97e7c231b222c86'
            ),
        },
        'item_features_0based.txt',
        '41 MB',
    ),
    'recsys2017': Package(
        {
            _LAYER6
            + 'recsys2017.pub.tar.gz': (
                'sha256:0767269da5f2d25aa10614daf76e939a'
                '896739ad97b3aca9c757953f26e2f9e7'
            ),
        },
        'item_features_0based.txt',
        '1.1 GB',
    ),
}


def fetch(name: str) -> pathlib.Path:
  """Returns a folder with a public data set, downloading it if need be.

  What is there already is used without asking the network. Interrupted
  downloads and unpackings leave nothing that would be taken for whole.

  Args:
    name: one of PACKAGES.

  Raises:
    errors.UserError: if it cannot be had; the message says what to fetch by
      hand and where to put it.
  """
  package = PACKAGES[name]
  folder = pathlib.Path(pooch.os_cache('dropoutnet_jax')) / name
  unpacked = folder / 'unpacked'
  if unpacked.is_dir():
    return find_root(unpacked, name)
  # Says so before there is a connection; _Announcement does it afterwards.
  pooch.get_logger().setLevel(logging.WARNING)
  downloader = pooch.HTTPDownloader(
      progressbar=_Announcement(f'Downloading {name} ({package.size}).')
  )
  try:
    for address, checksum in package.files.items():
      file_name = address.rsplit('/', 1)[-1]
      pooch.retrieve(
          address, checksum, file_name, folder, downloader=downloader
      )
      if is_archive(address):
        _unpack(folder / file_name, unpacked)
        return find_root(unpacked, name)
  except _FAILURES as error:
    with contextlib.suppress(OSError):  # of folders that are not empty
      folder.rmdir()
      folder.parent.rmdir()
    raise errors.UserError(
        f'{name} could not be downloaded into {folder} '
        f'({type(error).__name__}: {errors.cause(error)}). '
        + describe(name, f'DATA_DIR/{name}')
        + ' Then give --data_dir=DATA_DIR.'
    ) from None
  return folder


class _Announcement:
  """Stands in for a progress bar: one line, once the first bytes are here."""

  def __init__(self, line: str):
    self._line = line
    self.total = 0  # set by the downloader

  def update(self, size: int) -> None:
    """Called for every piece of a file."""
    del size
    if self._line:
      print(self._line, file=sys.stderr, flush=True)
      self._line = ''

  def reset(self) -> None:
    """Called at the end of every file."""

  def close(self) -> None:
    """Called at the end of every file."""


def find_root(folder: pathlib.Path, name: str) -> pathlib.Path:
  """Returns where under `folder` the files of a data set begin.

  Archives have a folder or two of their own around the files; they may stay.
  Without a trace of the data set the answer is `folder` itself.
  """
  marker = PACKAGES[name].marker
  for pattern in (marker, f'*/{marker}', f'*/*/{marker}'):
    found = sorted(folder.glob(pattern))
    if found:
      return found[0].parent
  return folder


def describe(name: str, folder: pathlib.Path | str) -> str:
  """Says what to fetch, from where, and where to put it."""
  package = PACKAGES[name]
  addresses = list(package.files)
  if is_archive(addresses[0]):
    return f'Fetch {addresses[0]} and unpack it into {folder}.'
  names = [address.rsplit('/', 1)[-1] for address in addresses]
  listed = ', '.join(names[:-1]) + ' and ' + names[-1]
  base = addresses[0].removesuffix(names[0])
  advice = f'Fetch {listed} from {base} and put them into {folder}.'
  return f'{advice} {package.remark}'.rstrip()


def is_archive(address: str) -> bool:
  """Whether the file must be unpacked."""
  return address.endswith(('.zip', '.tar.gz'))


def _unpack(archive: pathlib.Path, target: pathlib.Path) -> None:
  """Unpacks beside the target and renames, so that target is always whole."""
  with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
    scratch = pathlib.Path(folder) / 'unpacked'
    if archive.suffix == '.zip':
      shutil.unpack_archive(archive, scratch)
    else:  # the filter refuses links and paths that lead out of the folder
      shutil.unpack_archive(archive, scratch, filter='data')
    os.replace(scratch, target)
  archive.unlink()
