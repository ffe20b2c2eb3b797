# SPDX-License-Identifier: Apache-2.0
"""The one exception that a user is meant to read.

`run.py` prints its message without a traceback and exits with status 2. A
message says what was found, where, and what to do about it.
"""

from collections.abc import Iterable, Sequence
import difflib
import errno
import os
from typing import TypeGuard

_MENDABLE = (
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.EISDIR,
    errno.EMFILE,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)


class UserError(Exception):
  """Something the user can mend: a file, a field, a value, a folder."""


class BusyThreadsError(UserError):
  """One after which threads of a library go on and would complain at exit."""


class Interrupted(Exception):
  """A signal ended the training, which is saved; the user has been told."""

  def __init__(self, number: int):
    super().__init__(number)
    self.number = number  # of the signal


def is_mendable(error: Exception) -> TypeGuard[OSError]:
  """Whether the system refused something that a user can change."""
  return isinstance(error, OSError) and error.errno in _MENDABLE


def is_full_disk(error: BaseException | None) -> bool:
  """Whether a full disk is behind an error; Orbax raises several kinds."""
  while error is not None:
    if os.strerror(errno.ENOSPC) in str(error):
      return True
    error = error.__cause__ or error.__context__
  return False


def cause(error: BaseException) -> str:
  """What a library says of an error, short enough for a message.

  On one line, of at most 200 characters; its kind where it says nothing.
  """
  line = ' '.join(str(error).split()) or type(error).__name__
  return line if len(line) <= 200 else f'{line[:200]} …'


def listed(parts: Sequence[str], most: int, what: str = '') -> str:
  """'a, b and 3 more fields': at most so many of the parts, and what else is.

  Args:
    parts: to list.
    most: how many are shown.
    what: they are called, for what is not shown.
  """
  more = len(parts) - most
  what = f' {what}' if what else ''
  return ', '.join(parts[:most]) + (
      f' and {more} more{what}' if more > 0 else ''
  )


def did_you_mean(name: str, known: Iterable[str]) -> str:
  """Returns ' Did you mean X?' for the nearest known name, or ''."""
  close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.65)
  return f' Did you mean {close[0]!r}?' if close else ''
