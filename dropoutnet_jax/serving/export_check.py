# SPDX-License-Identifier: Apache-2.0
"""Every export proves itself: loaded in fresh processes, it gives the scores.

Up to 1,000 users and as many items are kept in check.safetensors, as the towers
see them, with histories of training for some. One process runs the StableHLO by
JAX, another the NumPy runtime; neither finds this package. What they compute is
compared with the model itself, and the largest error, as a share of the largest
score, is told; above 1e-5 it is a mistake of this program, and no export.
"""

import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import scipy.sparse

from dropoutnet_jax import errors
from dropoutnet_jax.data import files
from dropoutnet_jax.serving import embedding_files
from dropoutnet_jax.serving import export_folder
from dropoutnet_jax.serving import recommender as recommender_lib
from dropoutnet_jax.serving import rows as rows_lib

TOLERANCE = 1e-5
_ROWS = 1000  # of each side
_TOLD = 100  # of them, of whom nothing but a history is told
_LONGEST = 20  # of those histories
_Rows = dict[str, rows_lib.Rows]


def write_rows(model: recommender_lib.Ranker, folder: str) -> '_Expected':
  """Writes check.safetensors; returns what the model makes of its rows."""
  arrays, known, told, fresh = {}, {}, {}, {}
  for side in export_folder.SIDES:
    every = model.users() if side == 'user' else model.items()
    number = min(_ROWS, len(every))
    known[side] = every.select(
        np.linspace(0, len(every) - 1, number).astype(np.int64)
    )
    some, met = _histories(model, side, known[side])
    nobody = np.full(met.shape[0], -1)
    ids = np.array([f'told {n}' for n in range(len(nobody))])
    told[side] = rows_lib.Rows(ids, nobody, history=met)
    table = model.row_tables.read(side, known[side]).table
    for name, value in export_folder.host_inputs(table).items():
      arrays[f'{side}/inputs/{name}'] = value
    arrays[f'{side}/rows'] = known[side].row
    arrays |= files.sparse_arrays(f'{side}/met', met)
    # As if they were new: what training knew of them is told.
    every = dataclasses.replace(
        known[side].select(some), forgotten=np.ones(len(some), bool)
    )
    fresh[side] = dataclasses.replace(every, history=met)
    untold = model.row_tables.read(side, every)
    for name, value in export_folder.host_inputs(untold.table).items():
      arrays[f'{side}/fresh/{name}'] = value
    arrays |= files.sparse_arrays(f'{side}/content', untold.sparse)
  export_folder.save(os.path.join(folder, 'check.safetensors'), arrays)
  return _Expected(model, known, told, fresh)


def _histories(
    model: recommender_lib.Ranker, side: str, rows: rows_lib.Rows
) -> tuple[np.ndarray, scipy.sparse.csr_array]:
  """Some of the rows [C], and their first pairs: csr_array [C, M] of 1s."""
  pairs = model.row_tables.training_pairs(side, rows.row)
  some = np.flatnonzero(np.diff(pairs.indptr))[:_TOLD]
  pairs = scipy.sparse.csr_array(pairs[some])
  pairs.sort_indices()
  place = np.arange(pairs.nnz) - np.repeat(
      pairs.indptr[:-1], np.diff(pairs.indptr)
  )
  row = np.repeat(np.arange(len(some)), np.diff(pairs.indptr))
  first = place < _LONGEST
  return some, scipy.sparse.csr_array(
      (np.ones(first.sum(), np.float32), (row[first], pairs.indices[first])),
      shape=pairs.shape,
  )


class _Expected:
  """Embeddings and scores of the model itself, in float64.

  Attributes:
    num_rows: by side, of the towers.
    num_told: by side, of histories.
  """

  def __init__(
      self,
      model: recommender_lib.Ranker,
      known: _Rows,
      told: _Rows,
      fresh: _Rows,
  ):
    self.num_rows = {side: len(rows) for side, rows in known.items()}
    self.num_told = {side: len(rows) for side, rows in told.items()}
    self.tower = {
        side: model.embed_table(side, model.row_tables.read(side, rows).table)
        for side, rows in known.items()
    }
    embed = {'user': model.embed_users, 'item': model.embed_items}
    whole = {
        (name, side): embedding_files.on_host(rows.ids, embed[side](rows))
        for name, some in (
            ('known', known),
            ('told', told),
            ('fresh', fresh),
        )
        for side, rows in some.items()
    }
    score = lambda user, item: _score(whole[user, 'user'], whole[item, 'item'])
    self.scores = {
        'known': score('known', 'known'),
        'told_users': score('told', 'known'),
        'told_items': score('known', 'told'),
        'fresh_users': score('fresh', 'known'),
        'fresh_items': score('known', 'fresh'),
    }

  def tower_error(self, found: dict[str, np.ndarray]) -> float:
    """Of the dot products of both towers."""
    return _error(
        np.asarray(found['user'], np.float64) @ found['item'].T,
        self.tower['user'].astype(np.float64) @ self.tower['item'].T,
    )


def _score(
    user: embedding_files.Embedded, item: embedding_files.Embedded
) -> np.ndarray:
  scores = user.dense.astype(np.float64) @ item.dense.T
  if user.sparse is None or item.sparse is None:
    return scores
  return scores + (user.sparse.astype(np.float64) @ item.sparse.T).toarray()


def _error(found: np.ndarray, expected: np.ndarray) -> float:
  """The largest difference as a share of the largest value; inf for NaN."""
  if not expected.size:
    return 0.0
  if not np.isfinite(found).all():
    return float('inf')
  largest = float(np.abs(expected).max())
  return float(np.abs(found - expected).max()) / (largest or 1.0)


def errors_of(folder: str, expected: _Expected) -> dict[str, float]:
  """Errors of the export, by what was compared.

  Raises:
    UserError: if a process fails, or an error is above the tolerance.
  """
  here = pathlib.Path(__file__).parent
  settings = {'JAX_PLATFORMS': 'cpu'}
  stablehlo = _run(here / 'stablehlo_reload.py', folder, settings)
  runtime = _run(here / 'numpy_reload.py', folder, {})
  found = {
      'stablehlo towers': expected.tower_error(stablehlo),
      'numpy towers': expected.tower_error(runtime),
  }
  for name, scores in expected.scores.items():
    found[f'numpy scores, {name.replace("_", " ")}'] = _error(
        runtime[name], scores
    )
  bad = {name: error for name, error in found.items() if not error <= TOLERANCE}
  if bad:
    listed = ', '.join(f'{name} by {error:.1e}' for name, error in bad.items())
    raise errors.UserError(
        f'The export differs from the model: {listed} of the largest score, '
        f'where {TOLERANCE:.0e} is allowed. Nothing is written. If scores of '
        'this run are finite, this is a defect: please report it.'
    )
  return found


def _run(
    script: pathlib.Path, folder: str, more: dict[str, str]
) -> dict[str, np.ndarray]:
  """Arrays that a script writes in a fresh process, isolated from this one."""
  with tempfile.TemporaryDirectory() as place:
    output = os.path.join(place, 'found.npz')
    # Of this process's settings no path: the package is not to be found.
    ended = subprocess.run(
        [sys.executable, '-I', str(script), folder, output],
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
      line = (ended.stderr.strip().splitlines() or ['no message'])[-1]
      raise errors.UserError(
          f'The export cannot be loaded by {script.name}: {line}. Nothing is '
          'written. This is a defect, or memory is short: please report it.'
      )
    with np.load(output) as arrays:
      return dict(arrays)
