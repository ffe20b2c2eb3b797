# SPDX-License-Identifier: Apache-2.0
"""What is fitted once for a run, in a file of its folder."""

from collections.abc import Callable
import dataclasses
import os
from typing import Any, TypeVar

from dropoutnet_jax import errors
from dropoutnet_jax.data import files

_Kept = TypeVar('_Kept', bound=Any)  # a dataclass with a note


def write(workdir: str, name: str, found: Any) -> None:
  """Keeps a dataclass as JSON; raises UserError where that can't be."""
  files.write_json(os.path.join(workdir, name), dataclasses.asdict(found))


def obtain(
    workdir: str | None,
    name: str,
    found: _Kept | None,
    make: Callable[[], _Kept],
) -> _Kept:
  """What was found, or what is made now and kept where it can be.

  Args:
    workdir: the folder; None where there is none.
    name: of the file.
    found: what the folder has; None for nothing that can be used.
    make: makes it anew. Its note says so where the folder is only read.
  """
  if found is not None:
    return found
  made = make()
  if workdir is not None:
    try:
      write(workdir, name, made)
    except errors.UserError as error:
      return dataclasses.replace(made, note=f'{made.note} {error}'.strip())
  return made
