# SPDX-License-Identifier: Apache-2.0
"""What `run.py embed` is asked for, and where it goes."""

import dataclasses
import os
import re

from dropoutnet_jax import errors
from dropoutnet_jax.serving import embedding_files
from dropoutnet_jax.serving import list_files
from dropoutnet_jax.training import run_folder

SIDES = ('user', 'item')
_IN_FOLDER = '.parquet'  # unless the name of the folder says the format


@dataclasses.dataclass(frozen=True)
class Request:
  """What is asked for; the fields are the flags of that name.

  Attributes:
    output: a file, whose name says the format, or a folder that gets one:
      Parquet, unless its own name ends as that of a file, 'e.csv/'.
    side: 'user' or 'item'; None takes that of the file.
    users: file of users; None asks for all of the run.
    items: file of items, likewise.
    interactions: file of who met what, beside training; None for none.
  """

  output: str | None
  side: str | None = None
  users: str | None = None
  items: str | None = None
  interactions: str | None = None

  def check(
      self, workdir: str | None, process: tuple[int, int] = (0, 1)
  ) -> tuple[str, str, str]:
    """The run folder, the file of the embeddings, and the side.

    Args:
      workdir: the run folder, if one was given.
      process: number of this process, and how many there are.

    Raises:
      UserError: for what can be told before anything is read.
    """
    names = ('output', 'side', 'users', 'items', 'interactions')
    empty = [name for name in names if getattr(self, name) == '']
    if empty:
      raise errors.UserError(f'--{empty[0]} is empty; give it a value.')
    if workdir is None or self.output is None:
      raise errors.UserError(
          'embed needs a run and a place for its embeddings; write python '
          'run.py embed --workdir=RUN --output=FILE.parquet --side=item.'
      )
    side = self._check_side()
    path = self._path(self.output, side, process)
    inputs = [self.users, self.items, self.interactions]
    folder = os.path.dirname(path)
    # One that is not there is made for the file, in another that is.
    is_made = path != self.output and not os.path.isdir(folder)
    place = folder if is_made else path
    list_files.check_place(place, [x for x in inputs if x])
    run_folder.check_not_owned(workdir, 'output', path)
    _check_parts(path, side, process[1])
    return workdir, path, side

  def _check_side(self) -> str:
    """Whose embeddings are asked for."""
    given = [side for side in SIDES if getattr(self, f'{side}s')]
    if self.side is None and len(given) != 1:
      found = 'both files' if given else 'neither --users nor --items'
      raise errors.UserError(
          f'embed got {found}; say with --side=user or --side=item whose '
          'embeddings are asked for.'
      )
    side = given[0] if self.side is None else self.side
    if side not in SIDES:
      raise errors.UserError(
          f'--side={side}: it must be one of {", ".join(SIDES)}.'
          + errors.did_you_mean(side, SIDES)
      )
    other = 'item' if side == 'user' else 'user'
    if getattr(self, f'{other}s'):
      raise errors.UserError(
          f'--{other}s names {other}s, but --side={side} asks '
          f'for {side}s; leave out one of the two.'
      )
    return side

  def _path(self, output: str, side: str, process: tuple[int, int]) -> str:
    """The file: the output itself, or one in the folder that it is."""
    ending = embedding_files.ending_of(output)
    is_folder = output.endswith(os.sep) or os.path.isdir(output) or not ending
    if not is_folder:
      embedding_files.check_ending(output)
      if process[1] > 1:
        raise errors.UserError(
            f'--output={output}: {process[1]} processes write a file each; '
            f'name a folder, {output}{os.sep} or another.'
        )
      return output
    if ending not in embedding_files.ENDINGS:
      ending = _IN_FOLDER
    name = _part_name(side, *process, ending)
    return os.path.join(output.rstrip(os.sep) or os.sep, name)


def _part_name(side: str, number: int, count: int, ending: str) -> str:
  """Name of a file in a folder; sorted by name they are in order."""
  part = '' if count == 1 else f'-{number:05d}-of-{count:05d}'
  return f'{side}s{part}{ending}'


def _check_parts(path: str, side: str, count: int) -> None:
  """Raises UserError where rows of another start would lie beside the file."""
  folder, name = os.path.split(path)
  ending = os.path.splitext(name)[1]
  is_file = count == 1 and name != _part_name(side, 0, 1, ending)
  if is_file or not os.path.isdir(folder):
    return
  pattern = rf'{side}s(-\d+-of-\d+)?{re.escape(ending)}'
  own = {_part_name(side, number, count, ending) for number in range(count)}
  others = [
      other
      for other in sorted(os.listdir(folder))
      if re.fullmatch(pattern, other) and other not in own
  ]
  if others:
    raise errors.UserError(
        f'--output={folder} holds {others[0]}, which is of another number of '
        'processes and would be read beside what is written now. Remove it, '
        'or name another folder.'
    )
