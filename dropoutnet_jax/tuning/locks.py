# SPDX-License-Identifier: Apache-2.0
"""Locks of files that the system releases with the process that held them.

Also where that process was killed, at once: nobody waits for a sign of life.
"""

from collections.abc import Iterator
import contextlib
import fcntl
import os
from typing import TextIO


def take(path: str) -> TextIO | None:
  """The open file that holds the lock, or None where another process does."""
  lock = _open(path)
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    lock.close()
    return None
  return lock


@contextlib.contextmanager
def wait_for(path: str) -> Iterator[None]:
  """Holds the lock for one `with` block, once it is free."""
  with _open(path) as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield


def _open(path: str) -> TextIO:
  os.makedirs(os.path.dirname(path), exist_ok=True)
  return open(path, 'a', encoding='utf-8')
