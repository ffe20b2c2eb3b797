# SPDX-License-Identifier: Apache-2.0
"""Writing and reading files of a run: whole or not at all.

Everything is written beside its target and renamed, so that a full disk or a
kill leaves the old file or none. Arrays go into npz without pickle.
"""

from collections.abc import Callable, Mapping
import contextlib
import json
import os
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
  name = f'{"." * hidden}{name}.{os.getpid()}{TEMPORARY}'
  temporary = os.path.join(folder, name)
  try:
    with open(temporary, 'wb') as file:
      fill(file)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except OSError as error:
    raise errors.UserError(
        f'{path} cannot be written: {error.strerror or error}. Free space or '
        f'choose another {flag}.'
    ) from error
  finally:
    if os.path.exists(temporary):
      os.remove(temporary)


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
