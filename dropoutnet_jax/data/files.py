# SPDX-License-Identifier: Apache-2.0
"""Writing and reading files of a run: whole or not at all.

Everything is written beside its target and renamed, so that a full disk or a
kill leaves the old file or none. What is being written is locked, which ends
with its process: the next write of the same target removes what has no lock.
Arrays go into npz without pickle.
"""

from collections.abc import Callable, Mapping
import contextlib
import fcntl
import json
import os
import re
import shutil
from typing import Any, BinaryIO
import zipfile
import zlib

import numpy as np
import scipy.sparse

from dropoutnet_jax import errors

TEMPORARY = '.tmp'  # how names of files that are being written end
_CHUNK = 1 << 24  # bytes read at a time


def write(
    path: str,
    fill: Callable[[BinaryIO], Any],
    flag: str = '--workdir',
    hidden: bool = False,
) -> None:
  """Lets `fill` write a temporary file beside `path`, then renames it.

  Args:
    path: of the file, which may be there already.
    fill: writes all of it.
    flag: that names another place, for the message.
    hidden: lets the temporary name begin with a dot: in folders that are read
      as a table whatever they hold.

  Raises:
    UserError: if the file can't be written (folder read-only, disk full).
  """
  folder, name = os.path.split(path)
  stem = os.path.join(folder, '.' * hidden + name)
  temporary = f'{stem}.{os.getpid()}{TEMPORARY}'
  try:
    remove_left(stem)
    with open(temporary, 'wb', opener=_open_claimed) as file:
      try:
        file.truncate()
        fill(file)
        file.flush()
        os.fsync(file.fileno())
        os.replace(temporary, path)
      except BaseException:
        with contextlib.suppress(FileNotFoundError):
          os.remove(temporary)
        raise
  except OSError as error:
    raise errors.UserError(
        f'{path} cannot be written: {error.strerror or error}. Free space or '
        f'choose another {flag}.'
    ) from error


def claim(path: str, make: Callable[[], int]) -> int:
  """Makes and locks a file or folder, against `remove_left` of others.

  Args:
    path: ends in the number of this process and `TEMPORARY`.
    make: opens it, and makes it where it is not there; the descriptor.

  Returns:
    The descriptor; closing it ends the lock.
  """
  while True:
    descriptor = make()
    with contextlib.suppress(OSError):  # some file systems have no locks
      fcntl.flock(descriptor, fcntl.LOCK_EX)
    if _is_at(descriptor, path):
      return descriptor
    os.close(descriptor)  # it was removed before the lock


def _open_claimed(path: str, flags: int) -> int:
  """Opens a file to be written, which is emptied once it is locked."""
  return claim(path, lambda: os.open(path, flags & ~os.O_TRUNC, 0o666))


def remove_left(stem: str) -> None:
  """Removes what killed processes left when they wrote a file or a folder.

  What others are writing stays, as does what cannot be locked or removed.

  Args:
    stem: 'folder/lists.csv' for 'folder/lists.csv.123.tmp'.
  """
  folder, name = os.path.split(stem)
  ours = re.compile(rf'{re.escape(name)}\.\d+{re.escape(TEMPORARY)}')
  with contextlib.suppress(OSError):
    for found in filter(ours.fullmatch, os.listdir(folder or '.')):
      with contextlib.suppress(OSError):
        _remove_unlocked(os.path.join(folder, found))


def _remove_unlocked(path: str) -> None:
  """Removes a file or folder; raises OSError if another process has it."""
  is_folder = os.path.isdir(path)
  descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if _is_at(descriptor, path):
      (shutil.rmtree if is_folder else os.remove)(path)
  finally:
    os.close(descriptor)


def _is_at(descriptor: int, path: str) -> bool:
  """Whether what is open is what the path names now."""
  try:
    return os.path.samestat(os.fstat(descriptor), os.stat(path))
  except FileNotFoundError:
    return False


def make_folder(path: str, advice: str) -> None:
  """Makes a folder where there is none.

  Args:
    path: of the folder.
    advice: a sentence on what to do where it cannot be made.

  Raises:
    UserError: if it cannot be made.
  """
  try:
    os.makedirs(path, exist_ok=True)
  except OSError as error:
    raise errors.UserError(
        f'{path} cannot be written: {error.strerror}. {advice}'
    ) from error


def link(source: str, target: str) -> None:
  """A second name of a file that nobody changes in place.

  A copy, whole or not at all, where the disk has no such thing.
  """
  with contextlib.suppress(FileNotFoundError):
    os.remove(target)
  try:
    os.link(source, target)
  except OSError:
    with open(source, 'rb') as file:
      write(target, lambda copy: shutil.copyfileobj(file, copy))


def write_text(path: str, text: str) -> None:
  """Writes UTF-8 text, whole or not at all."""
  write(path, lambda file: file.write(text.encode()))


def write_json(path: str, value: Any) -> None:
  """Writes JSON; NaN and infinity, which JSON has not, are refused."""
  write_text(path, json.dumps(value, indent=1, allow_nan=False) + '\n')


def checksum(path: str) -> dict[str, int]:
  """Length and CRC-32 of a file: {'bytes': ..., 'crc32': ...}."""
  total, length = 0, 0
  with open(path, 'rb') as file:
    while part := file.read(_CHUNK):
      total, length = zlib.crc32(part, total), length + len(part)
  return {'bytes': length, 'crc32': total}


def save_arrays(path: str, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes named arrays as npz. Object arrays of strings become str arrays."""
  plain = {
      name: array.astype(str) if array.dtype == object else array
      for name, array in arrays.items()
  }
  write(path, lambda file: np.savez(file, **plain))  # type: ignore[arg-type]


class _Arrays(dict[str, np.ndarray]):
  """Arrays of a file; one that is asked for and missing is the file's fault."""

  def __init__(self, path: str, arrays: Mapping[str, np.ndarray]):
    super().__init__(arrays)
    self._path = path

  def __missing__(self, name: str) -> np.ndarray:
    raise errors.UserError(
        f'{self._path} holds no {name!r}; it is damaged, or of another version '
        'of dropoutnet_jax. Remove the run folder and train again.'
    )


def load_arrays(path: str) -> dict[str, np.ndarray]:
  """Reads what `save_arrays` wrote.

  Raises:
    UserError: if the file is missing or damaged; also later, for an array
      that it does not hold.
  """
  try:
    # Opened here: NumPy leaves a damaged file open.
    with open(path, 'rb') as file, np.load(file, allow_pickle=False) as arrays:
      return _Arrays(path, arrays)
  except FileNotFoundError as error:
    raise errors.UserError(
        f'{path} does not exist; is this a run folder?'
    ) from error
  except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
    raise errors.UserError(
        f'{path} is damaged ({error}). Remove the run folder and train again.'
    ) from error


def sparse_arrays(
    name: str, matrix: scipy.sparse.csr_array
) -> dict[str, np.ndarray]:
  """The three arrays and the shape of a csr_array, under `name/...`."""
  return {
      f'{name}/indptr': matrix.indptr,
      f'{name}/indices': matrix.indices,
      f'{name}/data': matrix.data,
      f'{name}/shape': np.asarray(matrix.shape),
  }


def sparse_from_arrays(
    name: str, arrays: Mapping[str, np.ndarray]
) -> scipy.sparse.csr_array:
  """Inverse of `sparse_arrays`."""
  return scipy.sparse.csr_array(
      (
          arrays[f'{name}/data'],
          arrays[f'{name}/indices'],
          arrays[f'{name}/indptr'],
      ),
      shape=tuple(arrays[f'{name}/shape']),
  )
