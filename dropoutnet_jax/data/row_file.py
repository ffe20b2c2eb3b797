# SPDX-License-Identifier: Apache-2.0
"""Labelled rows in a file: written once in order, then read by their places.

A row is 16 bytes, so that one place in the file holds all of it, and any
process reads any part. The file may be larger than memory: it is mapped, and
what was read is given back to the system before it adds up.
"""

from collections.abc import Iterator
import mmap
import os
from typing import Any, BinaryIO

import numpy as np

from dropoutnet_jax import errors

ROW = np.dtype(
    [
        ('user', np.int32),
        ('item', np.int32),
        ('label', np.float32),
        ('weight', np.float32),
    ]
)
CHUNK = 1 << 20  # rows that a pass holds at a time: 16 MiB
# Of the file that may be mapped at a time. Linux maps up to 2 MiB about a page
# that is asked for, so that a few hundred rows bring in a whole file.
_WINDOW = 1 << 23  # rows: 128 MiB
_WHOLE = np.complex128  # of the size of a row: copied as one number


def make(
    user: np.ndarray, item: np.ndarray, label: Any, weight: Any
) -> np.ndarray:
  """Rows [N] of ROW from columns [N], or one number for all."""
  rows = np.empty(len(user), ROW)
  for name, column in zip(ROW.names or (), (user, item, label, weight)):
    rows[name] = column
  return rows


def chunks(file: BinaryIO) -> Iterator[np.ndarray]:
  """All rows of a file from its beginning, at most CHUNK at a time."""
  file.seek(0)
  while len(rows := np.fromfile(file, ROW, CHUNK)):
    yield rows


class RowFile:
  """Rows of a file by their places; any number of threads may ask at once."""

  def __init__(self, path: str, num_rows: int):
    """Maps the file.

    Args:
      path: of the file.
      num_rows: that it must hold.

    Raises:
      UserError: if it is missing or has another size.
    """
    try:
      with open(path, 'rb') as file:
        size = os.fstat(file.fileno()).st_size
        if size == num_rows * ROW.itemsize:
          self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
      raise errors.UserError(
          f'{path} cannot be read: {error.strerror}. Remove the run folder and '
          'train again.'
      ) from error
    if size != num_rows * ROW.itemsize:
      raise errors.UserError(
          f'{path} is damaged: it has {size:,} bytes, {num_rows:,} rows have '
          f'{num_rows * ROW.itemsize:,}. Remove the run folder and train again.'
      )
    self._rows = np.frombuffer(self._map, _WHOLE)

  def __len__(self) -> int:
    return len(self._rows)

  def read(self, places: np.ndarray) -> np.ndarray:
    """Rows [N] of ROW at places [N].

    Raises:
      IndexError: for a place that is none of the file.
    """
    if len(self._rows) <= _WINDOW:
      return np.take(self._rows, places).view(ROW)
    order = np.argsort(places)
    ordered = places[order]
    window = ordered // _WINDOW
    begins = np.flatnonzero(np.diff(window, prepend=-1))
    found = np.empty(len(places), _WHOLE)
    for begin, end in zip(begins, [*begins[1:], len(places)]):
      found[order[begin:end]] = np.take(self._rows, ordered[begin:end])
      self._give_back(int(window[begin]))
    return found.view(ROW)

  def _give_back(self, window: int) -> None:
    """Unmaps a window; the system keeps it cached as far as it has room."""
    if hasattr(mmap, 'MADV_DONTNEED'):  # not on Windows
      begin = window * _WINDOW * ROW.itemsize
      size = min(_WINDOW * ROW.itemsize, len(self._map) - begin)
      self._map.madvise(mmap.MADV_DONTNEED, begin, size)
