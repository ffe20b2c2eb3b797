# SPDX-License-Identifier: Apache-2.0
"""Threads that share a search, each with products of its own.

A BLAS that splits each small product over all cores has them wait for one
another after every block, and on a busy machine for whoever else runs there: by
ten times and more. So each thread has blocks of its own, and BLAS one thread
while any search is on.
"""

from collections.abc import Callable, Iterator, Sequence
import concurrent.futures
import contextlib
import functools
import threading
from typing import Any

import threadpoolctl

from dropoutnet_jax.data import sparse_products

_lock = threading.Lock()
_active: dict[str, Any] = {'searches': 0, 'limit': None}


def count() -> int:
  """Threads that share searches: one for each core of this process."""
  return sparse_products.cores()


@functools.cache
def _pool() -> concurrent.futures.ThreadPoolExecutor:
  return concurrent.futures.ThreadPoolExecutor(count(), 'index-search')


@functools.cache
def _controller() -> threadpoolctl.ThreadpoolController:
  return threadpoolctl.ThreadpoolController()


@contextlib.contextmanager
def _one_thread_of_blas() -> Iterator[None]:
  """The first search that enters sets the limit, the last one lifts it."""
  with _lock:
    if not _active['searches']:
      _active['limit'] = _controller().limit(limits=1, user_api='blas')
    _active['searches'] += 1
  try:
    yield
  finally:
    with _lock:
      _active['searches'] -= 1
      if not _active['searches']:
        _active['limit'].restore_original_limits()


def number(most: int) -> int:
  """Threads that share work of at most so many parts."""
  return max(min(count(), most), 1)


def share(work: Callable[[int], Any], threads: int) -> list[Any]:
  """What work(0), work(1), ... return, in threads."""
  with _one_thread_of_blas():
    rest = [_pool().submit(work, part) for part in range(1, threads)]
    # The caller works too: a full pool delays it, and never stops it.
    first = work(0)
    return [first, *(future.result() for future in rest)]


def each(work: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
  """What work(part) returns for each part, in their order; in threads."""
  threads = number(len(parts))
  shares = share(lambda n: [work(one) for one in parts[n::threads]], threads)
  found: list[Any] = [None] * len(parts)
  for n, some in enumerate(shares):
    found[n::threads] = some
  return found
