# SPDX-License-Identifier: Apache-2.0
"""Sparse content in libsvm format, as published with DropoutNet.

Lines are 'label index:value ...' with indices from 0, and row 0 stands for
nobody. scikit-learn reads a file; where it stumbles, or would skip what must
not be skipped, the file is read again line by line to name the wrong one.
"""

import io
import pathlib

import numpy as np
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax.data import integers
from dropoutnet_jax.data import text


def read_content(path: pathlib.Path, num_rows: int) -> scipy.sparse.csr_array:
  """Reads libsvm lines 'label index:value ...' with indices from 0.

  Args:
    path: of the file.
    num_rows: of the result; the file has row 0 besides.

  Returns:
    float32 csr_array [num_rows, T] without row 0; labels are ignored.

  Raises:
    errors.UserError: for a missing or broken file, with the line, and for
      another number of lines.
  """
  # Imported here because it takes seconds and only these packages need it.
  from sklearn import datasets

  data = text.read_bytes(path)
  if b'qid:' in data:  # which the library skips
    _check_content(path)
  try:
    matrix, _ = datasets.load_svmlight_file(
        io.BytesIO(data), zero_based=True, dtype=np.float32
    )
  except (ValueError, IndexError, OverflowError):
    _check_content(path)
    raise errors.UserError(
        f'{path} is not in libsvm format; fetch the file again.'
    ) from None
  # The library skips blank lines and comments, which would renumber the rows.
  num_lines = data.rstrip().count(b'\n') + 1
  if (
      num_lines != matrix.shape[0]
      or matrix.shape[1] > integers.MAX_COLUMNS
      or not np.isfinite(matrix.data).all()
  ):
    _check_content(path)
  if matrix.shape[0] != num_rows + 1:
    raise errors.UserError(
        f'{path}: {matrix.shape[0]} lines, but the factors have {num_rows + 1} '
        'rows (row 0 included); the files must be of the same package.'
    )
  matrix.eliminate_zeros()
  return scipy.sparse.csr_array(matrix[1:])


def _check_content(path: pathlib.Path) -> None:
  """Reads a libsvm file line by line and raises UserError at a wrong one."""
  for number, line in text.iterate_rows(path, "'0' for a row without content"):
    hint = text.separator_hint(line, ' \t')
    label, *pairs = line.split()
    text.parse_number(label, path, number, 'label', hint)
    previous = -1
    for pair in pairs:
      index, _, value = pair.partition(':')
      if not value:
        raise errors.UserError(
            f'{path}:{number}: found {pair[:60]!r}; expected index:value.{hint}'
            f' {text.REMEDY}'
        )
      column = text.parse_integer(index, path, number, 'index')
      if column <= previous:
        raise errors.UserError(
            f'{path}:{number}: index {column} where one above {previous} '
            f'belongs; indices of a line increase, from 0. {text.REMEDY}'
        )
      highest = integers.Field('index', 0, integers.MAX_COLUMNS - 1)
      integers.check_range(
          path, np.array([number]), np.array([column]), highest
      )
      text.parse_number(value, path, number, 'value')
      previous = column
