# SPDX-License-Identifier: Apache-2.0
"""An export, read back as the run that it was made of.

The towers are those of the export: its StableHLO with its weights, compiled for
this machine. All else, encoders, histories, the sparse part, reasons, is what
the package computes from the same files for a run, so that whoever asks cannot
tell the two apart. The NumPy runtime would not do: it leaves kinds of features
to the package, and explains nothing.

`recommender.load` makes a ranker of what is read here.
"""

from collections.abc import Callable, Mapping
import dataclasses
import json
import os
from typing import Any, NamedTuple

import jax
from jax import export
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.data import features
from dropoutnet_jax.data import files
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.evaluation import sparse_file
from dropoutnet_jax.evaluation import sparse_part
from dropoutnet_jax.model import towers
from dropoutnet_jax.model import trust
from dropoutnet_jax.serving import tower_export
from dropoutnet_jax.training import resident

FORMAT = 6
MANIFEST = 'manifest.json'
STATE = 'service.sqlite'  # of a service, where it is told no other place
WEIGHTS = 'towers.safetensors'
SIDES = ('user', 'item')
ENCODERS = ('features.json', 'features_user.npz', 'features_item.npz')
_AGAIN = 'Export the run again.'


class Parts(NamedTuple):
  """What a ranker is made of, in its order."""

  cfg: config.Config
  problem: problem_lib.Problem
  scorer: model_scores.Scorer
  encoders: Mapping[str, features.Encoder]
  step: int


# Compiled (variables, side, rows [B]) -> dense embeddings [B, R].
_Embed = Callable[[Any, tables_lib.SideTable, jax.Array], jax.Array]


class _Embedder(model_scores.Embedder):
  """As that of a run, by towers that were exported."""

  has_model = False

  def __init__(self, model: towers.TwoTower, exported: dict[str, _Embed]):
    super().__init__(model)
    self._embed = exported


def is_export(folder: str) -> bool:
  """Whether a folder says that it is an export."""
  return os.path.exists(os.path.join(folder, MANIFEST))


def tower_file(side: str) -> str:
  """The file of a side's tower."""
  return f'{side}_tower.stablehlo'


def write(
    problem: problem_lib.Problem,
    part: sparse_part.SparsePart | None,
    folder: str,
) -> None:
  """Writes what serving needs beside the towers: problem and sparse part.

  Of labelled rows those of training stay, of which statistics are counts.
  """
  labelled = problem.labelled
  if labelled is not None:
    nothing = labelled.train.select(np.zeros(0, np.int64))
    labelled = dataclasses.replace(
        labelled, evaluation=dict.fromkeys(labelled.evaluation, nothing)
    )
  problem_lib.save(
      dataclasses.replace(problem, labelled=labelled, truth=None), folder
  )
  if part is not None:
    sparse_file.save(part, folder)


def checksums(folder: str) -> dict[str, dict[str, int]]:
  """Of every file of a folder but the manifest, which keeps them."""
  names = sorted(name for name in os.listdir(folder) if name != MANIFEST)
  return {name: files.checksum(os.path.join(folder, name)) for name in names}


def read(folder: str) -> Parts:
  """Reads an export.

  Raises:
    UserError: if it is of another version, or a file of it is missing or
      damaged.
  """
  manifest = _read_manifest(folder)
  try:
    cfg = config_tree.from_dict(manifest['config'])
    cfg.validate()
    needed = [*map(tower_file, SIDES), WEIGHTS, problem_lib.FILE, *ENCODERS]
    if cfg.model.sparse.enabled:
      needed.append(sparse_file.FILE)
    _check_files(folder, {name: manifest['files'][name] for name in needed})
    return _read(folder, manifest, cfg)
  except (KeyError, TypeError, AttributeError, ValueError) as error:
    raise errors.UserError(
        f'{os.path.join(folder, MANIFEST)} is damaged ({errors.cause(error)}). '
        f'{_AGAIN}'
    ) from error


def _read(folder: str, manifest: dict[str, Any], cfg: config.Config) -> Parts:
  # Whatever it was trained on, it is served on one device.
  cfg = dataclasses.replace(cfg, mesh=config.MeshConfig())
  problem = problem_lib.load(folder)
  part = None
  if cfg.model.sparse.enabled:
    part = sparse_file.load(folder).with_teacher(cfg, problem)
  mesh = parallel.make_mesh(cfg.mesh, 1)
  tables = parallel.place_tables(resident.make_tables(cfg, problem), mesh)
  weights = _read_weights(os.path.join(folder, WEIGHTS))
  variables = {
      side: {name: weights[name] for name in about['weights']}
      for side, about in manifest['sides'].items()
  }
  embedder = _Embedder(
      towers.TwoTower(cfg.model),
      {side: _tower(folder, side, cfg.model.normalize) for side in SIDES},
  )
  scorer = model_scores.Scorer(
      embedder,
      variables,
      tables,
      part,
      problem.item.sparse,
      cfg.model.sparse.tower_weight,
  )
  encoders = {side: features.load(folder, side) for side in SIDES}
  return Parts(cfg, problem, scorer, encoders, manifest['step'])


def _read_manifest(folder: str) -> dict[str, Any]:
  path = os.path.join(folder, MANIFEST)
  try:
    with open(path, encoding='utf-8') as file:
      manifest = json.load(file)
    version = manifest['format']
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.UserError(
        f'{path} is damaged ({errors.cause(error)}). {_AGAIN}'
    ) from error
  if version != FORMAT:
    raise errors.UserError(
        f'{path} is of format {version!r}, and this program reads {FORMAT}. '
        f'{_AGAIN}'
    )
  return manifest


def _check_files(folder: str, expected: Mapping[str, Any]) -> None:
  """Raises UserError unless all files are as they were written."""
  for name, wanted in expected.items():
    path = os.path.join(folder, os.path.basename(name))
    try:
      found = files.checksum(path)
    except OSError as error:
      raise errors.UserError(
          f'{path} cannot be read ({error.strerror}), and the export needs it. '
          f'{_AGAIN}'
      ) from error
    if found != wanted:
      raise errors.UserError(
          f'{path} is damaged: it has {found["bytes"]:,} bytes of checksum '
          f'{found["crc32"]:08x}, and {MANIFEST} says {wanted["bytes"]:,} of '
          f'{wanted["crc32"]:08x}. {_AGAIN}'
      )


def _read_weights(path: str) -> dict[str, jax.Array]:
  """Weights of both towers by their path, on the device."""
  try:
    found = safetensors.load_file(path)
  except SafetensorError as error:
    raise ValueError(f'{path}: {error}') from error
  return {name: jnp.asarray(value) for name, value in found.items()}


def _tower(folder: str, side: str, is_unit: bool) -> _Embed:
  """A tower of the export, as the run has its own."""
  path = os.path.join(folder, tower_file(side))
  try:
    with open(path, 'rb') as file:
      tower = export.deserialize(bytearray(file.read()))
  except (ValueError, NotImplementedError) as error:
    raise errors.UserError(
        f'{path} cannot be read by JAX {jax.__version__} '
        f'({errors.cause(error)}). {_AGAIN}'
    ) from error

  @jax.jit
  def embed(
      variables: Any, table: tables_lib.SideTable, rows: jax.Array
  ) -> jax.Array:
    in_state = lambda state: tower.call(
        variables[side], tower_export.inputs_of_rows(table, rows, state)
    )
    return trust.blended(in_state, table, rows, is_unit)

  return embed
