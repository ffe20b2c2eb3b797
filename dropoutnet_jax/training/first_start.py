# SPDX-License-Identifier: Apache-2.0
"""A first start that fails leaves its run folder as it found it.

Until there is a checkpoint, a run folder holds nothing but the outcome of
preparing, and a start fails because of a setting or a file. Nobody wants to
keep a folder for that; so what the failed start wrote goes away.
"""

from collections.abc import Iterator
import contextlib
import os
import pathlib

from dropoutnet_jax import config
from dropoutnet_jax import parallel
from dropoutnet_jax.training import run_folder
from dropoutnet_jax.training import warm_start


@contextlib.contextmanager
def open_folder(workdir: str, cfg: config.Config) -> Iterator[None]:
  """Opens a run folder as `run_folder.open_folder`, for one `with` block.

  An error or an interrupt in a block that has made no checkpoint, and found
  none, removes what was written, and folders that were not there before.

  Raises:
    UserError: as `run_folder.open_folder`, or if there is nothing at
      train.warm_start that a first start could begin from.
  """
  path = pathlib.Path(workdir)
  saved = path / 'checkpoints'
  missing = [folder for folder in (path, *path.parents) if not folder.exists()]
  try:
    with run_folder.open_folder(workdir, cfg):
      try:
        if cfg.train.warm_start:  # before anything is prepared
          origin = cfg.train.warm_start
          parallel.on_writer(
              lambda: None if _has_files(saved) else warm_start.check(origin)
          )
        yield
      except BaseException:
        if parallel.is_writer() and not _has_files(saved):
          with contextlib.suppress(OSError):
            saved.rmdir()
          run_folder.remove_prepared(workdir)
        raise
  except BaseException:
    if parallel.is_writer() and missing:
      _remove_folders(path, missing)
    raise


def _has_files(folder: pathlib.Path) -> bool:
  return folder.exists() and any(folder.iterdir())


def _remove_folders(workdir: pathlib.Path, missing: list[pathlib.Path]) -> None:
  """Removes new folders, deepest first, as far as they are empty."""
  with contextlib.suppress(OSError):
    if os.listdir(workdir) == ['.lock']:
      (workdir / '.lock').unlink()
    for folder in missing:
      folder.rmdir()
