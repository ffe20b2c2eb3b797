# SPDX-License-Identifier: Apache-2.0
"""What an export holds, but for its check and its manifest.

All that another program needs to embed and score: towers as StableHLO and as
weights, encoders, embeddings of the run, the sparse part, and a runtime that
reads them without JAX.
"""

from collections.abc import Iterator
import json
import os
import pathlib
import shutil
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax.data import files
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.evaluation import second_kernel
from dropoutnet_jax.model import towers
from dropoutnet_jax.serving import embedding_files
from dropoutnet_jax.serving import exported
from dropoutnet_jax.serving import numpy_encoders
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import rows as rows_lib
from dropoutnet_jax.serving import told_preference
from dropoutnet_jax.serving import tower_export
from dropoutnet_jax.serving import tower_steps
from dropoutnet_jax.training import resident
from dropoutnet_jax.training import telemetry

SIDES = exported.SIDES
_OTHER = {'user': 'item', 'item': 'user'}
_BLOCK = 16384  # rows that are embedded at a time
# Files that lie beside this one.
_RUNTIME = tuple(
    f'numpy_{name}.py'
    for name in ('runtime', 'towers', 'encoders', 'values', 'histories')
)


def check_model(model: recommender_lib.Ranker) -> None:
  """Raises UserError for a model that no export could be equal to."""
  dtype = model.cfg.model.dtype
  if dtype != 'float32':
    raise errors.UserError(
        f'This run has config.model.dtype {dtype!r}, but exports compute in '
        'float32, as NumPy does, and would not give its scores. Train it with '
        "config.model.dtype 'float32'."
    )


def write_towers(
    model: recommender_lib.Ranker, folder: str
) -> dict[str, dict[str, Any]]:
  """Writes SIDE_tower.stablehlo and towers.safetensors.

  Returns:
    By side what the manifest says of its tower: inputs, tokens and steps.
  """
  network = towers.TwoTower(model.cfg.model)
  every: dict[str, np.ndarray] = {}
  described = {}
  for side in SIDES:
    table = blank_table(model, side)
    features = tower_export.token_features(table)
    inputs = host_inputs(table)
    weights = tower_export.weights_of(model.scorer.variables, side, features)
    every |= weights
    stablehlo = tower_export.serialize(network, side, weights, inputs, features)
    path = os.path.join(folder, exported.tower_file(side))
    files.write(path, lambda file: file.write(stablehlo), '--output')
    described[side] = {
        'inputs': {
            name: {'shape': ['batch', *x.shape[1:]], 'dtype': str(x.dtype)}
            for name, x in inputs.items()
        },
        'weights': sorted(weights),
        'steps': tower_steps.of_tower(
            model.cfg.model, side, weights, inputs, features
        ),
    }
  save(os.path.join(folder, exported.WEIGHTS), every)
  return described


def host_inputs(table: tables_lib.SideTable) -> dict[str, np.ndarray]:
  """What a tower sees of all rows of a table."""
  found = tower_export.inputs_of(table)
  return {name: np.asarray(value) for name, value in found.items()}


def blank_table(
    model: recommender_lib.Ranker, side: str
) -> tables_lib.SideTable:
  """Of one row of which nothing is known."""
  nobody = rows_lib.Rows(np.array(['']), np.array([-1]))
  return model.row_tables.read(side, nobody).table


def save(path: str, arrays: dict[str, np.ndarray]) -> None:
  """Writes named arrays as safetensors."""
  whole = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
  try:
    safetensors.save_file(whole, path)
    # Else for its owner alone, unlike the other files.
    os.chmod(path, os.stat(os.path.dirname(path)).st_mode & 0o666)
  except SafetensorError as error:
    raise errors.UserError(
        f'{path} cannot be written: {errors.cause(error)}. Free space or '
        'choose another --output.'
    ) from error


def write_embeddings(
    model: recommender_lib.Ranker,
    side: str,
    folder: str,
    bar: telemetry.Bar,
    before: int,
) -> int:
  """Writes SIDEs.parquet and SIDEs.safetensors: all rows of the run.

  Args:
    model: of the run.
    side: 'user' or 'item'.
    folder: to write to.
    bar: shows how far it is.
    before: rows that were written already.

  Returns:
    Rows that are written now.
  """
  rows = model.users() if side == 'user' else model.items()
  embed = model.embed_users if side == 'user' else model.embed_items
  arrays: dict[str, np.ndarray] = {}
  sparse: list[scipy.sparse.csr_array] = []

  def blocks() -> Iterator[embedding_files.Embedded]:
    for begin in range(0, len(rows), _BLOCK):
      part = rows.select(slice(begin, begin + _BLOCK))
      block = embedding_files.on_host(part.ids, embed(part))
      if not begin:
        shape = len(rows), block.dense.shape[1]
        arrays['dense'] = np.empty(shape, np.float32)
      arrays['dense'][begin : begin + len(part)] = block.dense
      if block.sparse is not None:
        sparse.append(block.sparse)
      yield block
      done = before + begin + len(part)
      bar.show(done, lambda rate: f'{rate:,.0f} rows/s')

  embedding_files.write(
      os.path.join(folder, f'{side}s.parquet'),
      getattr(model.cfg.data.tables, f'{side}_id'),
      blocks(),
      {'side': side, 'step': model.step, 'run': model.cfg.name},
  )
  if sparse:
    whole = scipy.sparse.vstack(sparse, format='csr')
    arrays |= files.sparse_arrays('sparse', scipy.sparse.csr_array(whole))
  if rows.ids.dtype == np.int64:
    arrays['ids'] = rows.ids
  else:  # which the format has no type for
    text = json.dumps(rows.ids.tolist()).encode()
    arrays['ids_json'] = np.frombuffer(text, np.uint8)
  save(os.path.join(folder, f'{side}s.safetensors'), arrays)
  return before + len(rows)


def write_rest(model: recommender_lib.Ranker, run: str, folder: str) -> None:
  """Writes model.safetensors, and copies encoders and runtime."""
  arrays = {}
  for side in SIDES:
    table = getattr(model.scorer.tables, side)
    for kind in ('preference', 'history'):
      scaler = getattr(table, f'{kind}_scaler')
      arrays[f'{side}/{kind}_mean'] = np.asarray(scaler.mean)
      arrays[f'{side}/{kind}_scale'] = np.asarray(scaler.scale)
    other = getattr(model.scorer.tables, _OTHER[side]).factors
    if told_preference.can_fold_in(model.cfg):
      other = getattr(model.problem.factors, _OTHER[side])
    arrays[f'{side}/met_factors'] = np.asarray(other)
  part = model.scorer.sparse
  if part is not None:
    content = model.problem.item.sparse
    arrays |= files.sparse_arrays('item_content', content)
    arrays['correction'] = part.correction.weights
    if part.second is not None:
      for name, value in vars(part.second).items():
        arrays[f'second/{name}'] = value
    if part.predictor is not None:
      arrays['predictor'] = part.predictor
    if part.expected is not None:
      # As the tower's inputs are, which the runtime has.
      width = len(part.expected.weights)
      scale = resident.entry_scale(model.cfg, width)
      arrays['expected/weights'] = part.expected.weights / scale
      arrays['expected/bias'] = part.expected.bias
    if part.teacher is not None:
      arrays['teacher/user'] = part.teacher.fold_items.factors
      arrays['teacher/item'] = part.teacher.fold_users.factors
  save(os.path.join(folder, 'model.safetensors'), arrays)
  here = pathlib.Path(__file__).parent
  for source in (
      *(pathlib.Path(run, name) for name in exported.ENCODERS),
      *(here / name for name in _RUNTIME),
  ):
    shutil.copyfile(source, os.path.join(folder, source.name))


def describe(
    model: recommender_lib.Ranker, tower: dict[str, dict[str, Any]], run: str
) -> dict[str, Any]:
  """What the manifest says of the model: all that the runtime reads of it."""
  cfg, part = model.cfg, model.scorer.sparse
  fold_in = {
      'confidence': cfg.teacher.confidence,
      'regularization': cfg.teacher.regularization,
  }
  sparse = None
  if part is not None:
    teacher = part.teacher and {
        'weight': part.teacher.weight,
        'predicted_weight': part.teacher.predicted_weight,
        'smoothing': part.teacher.smoothing,
        'fold_in': fold_in,
    }
    sparse = {
        'divisor': float(part.correction.divisor),
        'tower_weight': model.scorer.tower_weight,
        'length_mean': part.lengths.mean,
        'length_power': part.lengths.power,
        'own_columns': part.history.shape[1] if part.history_weight else 0,
        'second_width': 0 if part.second is None else part.second.width,
        'norm_power': part.norm_power if part.second is not None else 0.0,
        'smallest_norm': second_kernel.SMALLEST_NORM,
        'expected': part.expected
        and {
            'size': part.expected.size,
            'smoothing': part.expected.smoothing,
        },
        'teacher': teacher,
    }
  with open(os.path.join(run, 'features.json'), encoding='utf-8') as file:
    fitted = json.load(file)['sides']
  sides = {}
  for side in SIDES:
    table = getattr(model.scorer.tables, side)
    refused = numpy_encoders.refusals(fitted[side]['features'])
    sides[side] = {
        'id_name': getattr(cfg.data.tables, f'{side}_id'),
        'rows': len(getattr(model.problem, side).ids),
        'raw_rows': not refused,
        'raw_rows_refused': refused,
        'sparse_width': getattr(model.problem, side).sparse.shape[1],
        'scaling': table.preference_scaler.kind,
        'history_smoothing': table.history_smoothing,
        'counts': _counts(table.counts),
        **tower[side],
    }
  return {
      'preference': cfg.features.preference,
      'fold_in': fold_in if told_preference.can_fold_in(cfg) else None,
      'sparse': sparse,
      'sides': sides,
  }


def _counts(counts: Any) -> dict[str, Any] | None:
  """What statistics of a new row are made of; None without any."""
  if counts is None:
    return None
  names = ('mean', 'std', 'prior', 'rate_std', 'usual')
  return {
      **{name: np.asarray(getattr(counts, name)).tolist() for name in names},
      'smoothing': counts.smoothing,
      'has_rates': bool(counts.reacted.shape[1]),
  }
