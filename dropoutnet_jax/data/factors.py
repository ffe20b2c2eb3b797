# SPDX-License-Identifier: Apache-2.0
"""Preference factors from files: npz, npy, text or raw float32.

Knows one table at a time; whose factors they are, and which rows count as
absent, is for the caller to say.
"""

import io
import pathlib
import zipfile

import numpy as np

from dropoutnet_jax import errors
from dropoutnet_jax.data import text


def read_factors(
    path: pathlib.Path | str, rank: int | None = None, name: str = ''
) -> np.ndarray:
  """Reads a table of preference factors; the suffix says the format.

  `.npz` and `.npy` are NumPy's; `.bin` is raw little-endian float32, row after
  row, as published with DropoutNet; anything else is text, one row per line,
  numbers separated by spaces, tabs or commas.

  Args:
    path: of the file.
    rank: width that the table must have; needed for `.bin`.
    name: 'user' or 'item': the array to take from an npz that holds several.

  Returns:
    float32 [N, P].

  Raises:
    errors.UserError: for a missing or broken file, another width, no rows, a
      value that is NaN or infinite, with its row, or nothing but zeros.
  """
  path = pathlib.Path(path)
  if path.suffix in ('.npz', '.npy'):
    table = _read_numpy(path, name)
  elif path.suffix == '.bin':
    table = _read_raw(path, rank)
  else:
    table = _read_text(path)
  if rank is not None and table.shape[1] != rank:
    raise errors.UserError(
        f'{path}: rows of {table.shape[1]} numbers, expected {rank}; set the '
        "teacher's rank to the width of its factors."
    )
  if not table.size:
    raise errors.UserError(f'{path}: no rows; the table is empty.')
  _check_finite(path, table)
  if not table.any():
    raise errors.UserError(
        f'{path}: every number is 0, so there is not one factor. Fit the '
        'teacher again, or fetch the file again.'
    )
  return table


def _read_numpy(path: pathlib.Path, name: str) -> np.ndarray:
  try:
    with path.open('rb') as file:  # np.load leaves a broken file open
      loaded = np.load(file, allow_pickle=False)
      if isinstance(loaded, np.lib.npyio.NpzFile):
        loaded = loaded[_choose_array(path, loaded.files, name)]
  except FileNotFoundError:
    raise text.MissingFileError(f'{path} does not exist.') from None
  except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
    raise errors.UserError(
        f'{path} cannot be read as a NumPy file of numbers: {error}'
    ) from None
  if loaded.ndim != 2 or loaded.dtype.kind not in 'fiu':
    raise errors.UserError(
        f'{path}: the array is {loaded.dtype} {list(loaded.shape)}; expected '
        'numbers [rows, rank].'
    )
  with np.errstate(over='ignore'):  # found by the check for finite values
    return loaded.astype(np.float32)


def _choose_array(path: pathlib.Path, names: list[str], name: str) -> str:
  if name in names:
    return name
  if len(names) == 1:
    return names[0]
  raise errors.UserError(
      f'{path} holds the arrays {", ".join(names) or "(none)"}; expected one '
      f"array, or one named '{name or 'user'}'."
  )


def _read_raw(path: pathlib.Path, rank: int | None) -> np.ndarray:
  if rank is None:
    raise errors.UserError(
        f'{path} is raw float32, which does not say its width; give the rank.'
    )
  try:
    values = np.fromfile(path, '<f4')
    size = path.stat().st_size
  except FileNotFoundError:
    raise text.MissingFileError(f'{path} does not exist.') from None
  except OSError as error:
    raise errors.UserError(f'{path} cannot be read: {error}.') from None
  if size % (4 * rank):
    raise errors.UserError(
        f'{path}: {size} bytes are no multiple of {4 * rank}, a row of {rank} '
        'float32; the file is cut off or its rank is another.'
    )
  return values.reshape(-1, rank).astype(np.float32, copy=False)


def _read_text(path: pathlib.Path) -> np.ndarray:
  data = text.read_bytes(path).rstrip()
  if not data:
    raise text.no_rows(path)
  lines = data.split(b'\n')
  # By most lines, so that an odd one is the one that is blamed.
  num_commas = sum(b',' in line for line in lines) + 0.5 * (b',' in lines[0])
  separator = ',' if num_commas > len(lines) / 2 else None
  try:
    table = np.loadtxt(
        io.BytesIO(data),
        np.float32,
        comments=None,
        delimiter=separator,
        ndmin=2,
    )
  except ValueError as error:
    _check_text(path, separator)
    raise errors.UserError(f'{path} is no table of numbers: {error}') from None
  if len(table) != len(lines):  # a blank line was skipped
    _check_text(path, separator)
  return table


def _check_text(path: pathlib.Path, separator: str | None) -> None:
  """Reads a text table line by line and raises UserError at a wrong one."""
  width = 0
  for number, line in text.iterate_rows(path):
    tokens = [token.strip() for token in line.split(separator)]
    hint = text.separator_hint(line, separator or ' \t')
    for token in tokens:
      if not token:
        raise errors.UserError(
            f'{path}:{number}: a number is missing. Write it, or fetch the '
            'file again.'
        )
      text.parse_number(token, path, number, 'factor', hint)
    width = width or len(tokens)
    if len(tokens) != width:
      raise errors.UserError(
          f'{path}:{number}: {len(tokens)} numbers, but {width} in the lines '
          'above; every row needs as many.'
      )


def _check_finite(path: pathlib.Path, table: np.ndarray) -> None:
  with np.errstate(all='ignore'):  # sums show where to look, no more
    suspects = np.flatnonzero(~np.isfinite(table.sum(axis=1)))
  for row in suspects:
    bad = np.flatnonzero(~np.isfinite(table[row]))
    if bad.size:
      raise errors.UserError(
          f'{path}: row {row} (from 0) holds {table[row, bad[0]]} in column '
          f'{bad[0]}; factors must be finite. Fit the teacher again, or check '
          'the format and byte order of the file.'
      )
