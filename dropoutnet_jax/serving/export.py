# SPDX-License-Identifier: Apache-2.0
"""A run as a folder for other programs: what `run.py export` does.

It is made beside its target and renamed when it has proved itself.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
from typing import Any

from dropoutnet_jax import __version__
from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax.data import files
from dropoutnet_jax.serving import export_check
from dropoutnet_jax.serving import export_folder
from dropoutnet_jax.serving import exported
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import tower_export
from dropoutnet_jax.training import run_folder
from dropoutnet_jax.training import telemetry

_VERSIONS = ('jax', 'jaxlib', 'numpy', 'scipy', 'safetensors')


@dataclasses.dataclass(frozen=True)
class Answer:
  """What was written.

  Attributes:
    step: of the checkpoint.
    num_files: of the folder.
    num_bytes: of them together.
    manifest: what manifest.json says.
  """

  step: int
  num_files: int
  num_bytes: int
  manifest: dict[str, Any]


def write(workdir: str | None, output: str | None) -> Answer:
  """Exports the best checkpoint of a run folder.

  Args:
    workdir: the run folder, of a training that is finished or not.
    output: the folder to make; an earlier export there is replaced.

  Raises:
    UserError: if the run is none or of a kind that cannot be exported, the
      folder cannot be written, or the export differs from the model; the
      target is as before then.
  """
  workdir, output = _check(workdir, output)
  model = recommender_lib.load(workdir)
  export_folder.check_model(model)
  with _beside(output) as folder:
    manifest = _fill(model, workdir, folder)
    names = os.listdir(folder)
    size = sum(os.stat(os.path.join(folder, name)).st_size for name in names)
  return Answer(model.step, len(names), size, manifest)


def _fill(
    model: recommender_lib.Ranker, workdir: str, folder: str
) -> dict[str, Any]:
  """Writes all files; returns the manifest."""
  towers = export_folder.write_towers(model, folder)
  total = len(model.problem.user.ids) + len(model.problem.item.ids)
  bar = telemetry.Bar('export', 'row', total, file=sys.stderr)
  try:
    done = 0
    for side in export_folder.SIDES:
      done = export_folder.write_embeddings(model, side, folder, bar, done)
  finally:
    bar.close()
  export_folder.write_rest(model, workdir, folder)
  exported.write(model.problem, model.scorer.sparse, folder)
  text = config_tree.to_json(run_folder.read_config(workdir))
  digest = hashlib.sha256(text.encode())
  versions = {name: importlib.metadata.version(name) for name in _VERSIONS}
  manifest = {
      'format': exported.FORMAT,
      'experiment': model.cfg.name,
      'step': model.step,
      'config_digest': digest.hexdigest()[:16],
      'versions': {'dropoutnet_jax': __version__, **versions},
      'platforms': list(tower_export.PLATFORMS),
      'rank': model.cfg.model.rank,
      **export_folder.describe(model, towers, workdir),
  }
  expected = export_check.write_rows(model, folder)
  path = os.path.join(folder, exported.MANIFEST)
  files.write_json(path, manifest)  # which both processes read
  found = export_check.errors_of(folder, expected)
  manifest['check'] = {
      'rows': expected.num_rows,
      'histories': expected.num_told,
      'errors': found,
      'largest_error': max(found.values()),
      'tolerance': export_check.TOLERANCE,
  }
  manifest['config'] = json.loads(config_tree.to_json(model.cfg))
  manifest['files'] = exported.checksums(folder)
  files.write_json(path, manifest)
  return manifest


def _check(workdir: str | None, output: str | None) -> tuple[str, str]:
  """The run folder and the target without an ending slash.

  Raises:
    UserError: for what can be told before anything is read.
  """
  if workdir is None or output is None:
    raise errors.UserError(
        'export needs a run and a folder; write python run.py export '
        '--workdir=RUN --output=FOLDER.'
    )
  if not output:
    raise errors.UserError('--output is empty; name a folder.')
  if exported.is_export(workdir):
    raise errors.UserError(
        f'--workdir={workdir} is an export already; copy that folder, or name '
        'the run that it was made from.'
    )
  folder = output.rstrip(os.sep) or os.sep
  parent = os.path.dirname(folder) or '.'
  if not os.path.isdir(parent):
    raise errors.UserError(
        f'--output={output}: there is no folder {parent}. Make it, or correct '
        'the path.'
    )
  if os.path.exists(folder) and not os.path.isdir(folder):
    raise errors.UserError(f'--output={output} is a file; name a folder.')
  has_files = os.path.isdir(folder) and bool(os.listdir(folder))
  if has_files and not exported.is_export(folder):
    raise errors.UserError(
        f'--output={output} holds something else than an export; name an empty '
        'or new folder.'
    )
  if os.path.exists(os.path.join(folder, exported.STATE)):
    raise errors.UserError(
        f'--output={output} holds {exported.STATE}, what a service was told; '
        'stop that service and move the file, or name another folder.'
    )
  return workdir, folder


@contextlib.contextmanager
def _beside(target: str) -> Iterator[str]:
  """A new folder beside the target that replaces it if all goes well.

  What killed processes left beside the target goes.

  Raises:
    UserError: if it can't be made or renamed.
  """
  ending = f'.{os.getpid()}{files.TEMPORARY}'
  folder, old = target + ending, f'{target}.old{ending}'

  def make() -> int:
    os.mkdir(folder)
    return os.open(folder, os.O_RDONLY)

  try:
    files.remove_left(target)
    descriptor = files.claim(folder, make)
    try:
      yield folder
      if os.path.isdir(target):
        os.rename(target, old)
      os.rename(folder, target)
    finally:
      os.close(descriptor)
    files.remove_left(f'{target}.old')
  except OSError as error:
    raise errors.UserError(
        f'--output={target} cannot be written: {error.strerror or error}. Free '
        'space or choose another --output.'
    ) from error
  finally:
    shutil.rmtree(folder, ignore_errors=True)
    if os.path.isdir(old) and not os.path.isdir(target):
      os.rename(old, target)
    shutil.rmtree(old, ignore_errors=True)
