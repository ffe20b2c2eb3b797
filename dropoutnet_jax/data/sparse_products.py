# SPDX-License-Identifier: Apache-2.0
"""Products of large sparse matrices with dense ones, on all cores.

SciPy multiplies on one, and lets others work meanwhile. Rows are independent:
the result is SciPy's, bit for bit, however many share them.
"""

from concurrent import futures
import os

import numpy as np
import scipy.sparse

_LEAST = 2**24  # multiplications that are worth threads
_PARTS = 2  # of each thread: rows of as many entries differ in time


def cores() -> int:
  """How many this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def times(matrix: scipy.sparse.csr_array, dense: np.ndarray) -> np.ndarray:
  """csr_array [N, M] times dense [M, K]: [N, K] of their common type."""
  threads = cores()
  if threads == 1 or matrix.nnz * dense.shape[1] < _LEAST:
    return matrix @ dense
  product = np.empty(
      (matrix.shape[0], dense.shape[1]),
      np.result_type(matrix.dtype, dense.dtype),
  )
  ends = np.linspace(0, matrix.nnz, threads * _PARTS + 1)[1:-1]
  cuts = [0, *np.searchsorted(matrix.indptr, ends).tolist(), matrix.shape[0]]

  def work(begin: int, end: int) -> None:
    product[begin:end] = matrix[begin:end] @ dense

  with futures.ThreadPoolExecutor(threads) as pool:
    for _ in pool.map(work, cuts[:-1], cuts[1:]):
      pass  # raises what a thread has raised
  return product
