# SPDX-License-Identifier: Apache-2.0
"""An index as a folder: index.json, and the files that it names.

Files are written beside each other under new names, and index.json, which says
which of them count, is renamed last; so a kill at any moment leaves the old
index or the new one. Each file is held to its length and checksum before
anything reads it: a damaged one would take FAISS down.
"""

import dataclasses
import json
import os
from typing import Any
import zipfile

import numpy as np

from dropoutnet_jax import errors
from dropoutnet_jax.data import files
from dropoutnet_jax.serving.index import nearest as nearest_lib
from dropoutnet_jax.serving.index import options as options_lib
from dropoutnet_jax.serving.index import postings
from dropoutnet_jax.serving.index import recall as recall_lib
from dropoutnet_jax.serving.index import store as store_lib
from dropoutnet_jax.serving.index import vectors

FILE = 'index.json'
_FORMAT, _VERSION = 'dropoutnet_jax index', 1
_ROWS, _DENSE = 'items', 'dense'
_AGAIN = 'Build the index again.'


@dataclasses.dataclass(frozen=True, eq=False)
class Saved:
  """All that a folder holds; see `item_index.ItemIndex`."""

  kind: str
  options: options_lib.Options
  snapshot: store_lib.Snapshot
  nearest: nearest_lib.Nearest | None
  recall: recall_lib.Recall | None


def save(folder: str, saved: Saved) -> None:
  """Writes an index into a folder, which may hold another one.

  Raises:
    UserError: if the folder cannot be written.
  """
  files.make_folder(folder, 'Choose another folder for the index.')
  turn = _next_turn(folder)
  names = {_ROWS: f'items.{turn}.npz'}
  now = saved.snapshot
  arrays = {'ids': now.ids, 'alive': now.alive, 'dense': now.items.dense}
  if now.items.sparse is not None:
    arrays |= files.sparse_arrays('sparse', now.items.sparse)
  files.save_arrays(os.path.join(folder, names[_ROWS]), arrays)
  if saved.nearest is not None:
    names[_DENSE] = f'dense.{turn}.faiss'
    whole = nearest_lib.load_faiss().serialize_index(saved.nearest.dense)
    path = os.path.join(folder, names[_DENSE])
    files.write(path, lambda file: file.write(memoryview(whole)))
  tree = {
      'format': _FORMAT,
      'version': _VERSION,
      'kind': saved.kind,
      'items': now.number,
      'recall': saved.recall and dataclasses.asdict(saved.recall),
      'options': dataclasses.asdict(saved.options),
      'files': {
          name: {'name': file, **files.checksum(os.path.join(folder, file))}
          for name, file in names.items()
      },
  }
  files.write_json(os.path.join(folder, FILE), tree)
  for name in os.listdir(folder):
    if _is_ours(name) and name not in names.values():
      os.remove(os.path.join(folder, name))


def load(folder: str) -> Saved:
  """Reads what `save` wrote.

  Raises:
    UserError: if there is no index, it is of another version or damaged, or
      FAISS is needed and not installed.
  """
  path = os.path.join(folder, FILE)
  tree = _read_json(path)
  if tree.get('format') != _FORMAT:
    raise errors.UserError(f'{path} is not of an index of dropoutnet_jax.')
  if tree.get('version') != _VERSION:
    raise errors.UserError(
        f'{path} is of version {tree.get("version")!r}, and this program reads '
        f'version {_VERSION}. {_AGAIN}'
    )
  try:
    kind = tree['kind']
    options_lib.check_kind(kind)
    settings = options_lib.Options(**tree['options'])
    recall = tree['recall'] and recall_lib.Recall(**tree['recall'])
    paths = {
        name: _checked(folder, found) for name, found in tree['files'].items()
    }
    snapshot = _read_rows(paths[_ROWS])
    nearest = None
    if _DENSE in paths:
      nearest = _read_nearest(kind, settings, paths[_DENSE], snapshot)
  except (KeyError, TypeError, AttributeError, ValueError) as error:
    raise errors.UserError(
        f'{path} is damaged ({errors.cause(error)}). {_AGAIN}'
    ) from error
  return Saved(kind, settings, snapshot, nearest, recall)


def _read_json(path: str) -> dict[str, Any]:
  try:
    with open(path, encoding='utf-8') as file:
      tree = json.load(file)
  except FileNotFoundError as error:
    raise errors.UserError(
        f'{path} does not exist; is this the folder of an index?'
    ) from error
  except (OSError, ValueError) as error:
    raise errors.UserError(
        f'{path} cannot be read ({errors.cause(error)}). {_AGAIN}'
    ) from error
  if not isinstance(tree, dict):
    raise errors.UserError(f'{path} is not of an index of dropoutnet_jax.')
  return tree


def _checked(folder: str, found: dict[str, Any]) -> str:
  """The path of a file that is what index.json says."""
  name = found['name']
  path = os.path.join(folder, os.path.basename(name))
  try:
    there = files.checksum(path)
  except OSError as error:
    raise errors.UserError(
        f'{path} cannot be read ({error.strerror}), and the index needs it. '
        f'{_AGAIN}'
    ) from error
  if there != {key: found[key] for key in there}:
    raise errors.UserError(
        f'{path} is damaged: it has {there["bytes"]:,} bytes of checksum '
        f'{there["crc32"]:08x}, and {FILE} says {found["bytes"]:,} of '
        f'{found["crc32"]:08x}. {_AGAIN}'
    )
  return path


def _read_rows(path: str) -> store_lib.Snapshot:
  try:
    with open(path, 'rb') as file, np.load(file, allow_pickle=False) as arrays:
      ids, alive, dense = arrays['ids'], arrays['alive'], arrays['dense']
      sparse = None
      if 'sparse/shape' in arrays:
        sparse = files.sparse_from_arrays('sparse', arrays)
  except (OSError, zipfile.BadZipFile, EOFError) as error:
    raise errors.UserError(
        f'{path} is damaged ({errors.cause(error)}). {_AGAIN}'
    ) from error
  if ids.dtype.kind == 'U':
    ids = ids.astype(object)
  if not len(ids) == len(alive) == len(dense):
    raise ValueError('its arrays have different lengths')
  items = vectors.Vectors(np.ascontiguousarray(dense, np.float32), sparse)
  return store_lib.Snapshot(ids, items, alive, int(np.count_nonzero(alive)))


def _read_nearest(
    kind: str,
    settings: options_lib.Options,
    path: str,
    snapshot: store_lib.Snapshot,
) -> nearest_lib.Nearest:
  faiss = nearest_lib.load_faiss()
  dense = faiss.deserialize_index(np.fromfile(path, np.uint8))
  if dense.ntotal > len(snapshot):
    raise ValueError(f'{path} has {dense.ntotal} of {len(snapshot)} rows')
  sparse = snapshot.items.sparse
  lists = None
  if sparse is not None:
    lists = postings.make(sparse[: dense.ntotal])
  return nearest_lib.Nearest(kind, settings, dense, lists)


def _next_turn(folder: str) -> int:
  """A number that no file of an index in the folder has."""
  turns = [
      int(name.split('.')[1]) for name in os.listdir(folder) if _is_ours(name)
  ]
  return max(turns, default=0) + 1


def _is_ours(name: str) -> bool:
  """Whether save() gave a file its name."""
  parts = name.split('.')
  return (
      len(parts) == 3
      and (parts[0], parts[2]) in ((_ROWS, 'npz'), (_DENSE, 'faiss'))
      and parts[1].isdigit()
  )
