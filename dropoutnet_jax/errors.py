# SPDX-License-Identifier: Apache-2.0
"""The one exception that a user is meant to read.

`run.py` prints its message without a traceback and exits with status 2. A
message says what was found, where, and what to do about it.
"""

from collections.abc import Iterable
import difflib


class UserError(Exception):
  """Something the user can mend: a file, a field, a value, a folder."""


class BusyThreadsError(UserError):
  """One after which threads of a library go on and would complain at exit."""


class Interrupted(Exception):
  """A signal ended the training, which is saved; the user has been told."""

  def __init__(self, number: int):
    super().__init__(number)
    self.number = number  # of the signal


def cause(error: BaseException) -> str:
  """What a library says of an error, short enough for a message.

  On one line, of at most 200 characters; its kind where it says nothing.
  """
  line = ' '.join(str(error).split()) or type(error).__name__
  return line if len(line) <= 200 else f'{line[:200]} …'


def did_you_mean(name: str, known: Iterable[str]) -> str:
  """Returns ' Did you mean X?' for the nearest known name, or ''."""
  close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.65)
  return f' Did you mean {close[0]!r}?' if close else ''
