# SPDX-License-Identifier: Apache-2.0
"""The sparse part in a run folder: one file, written once.

The teacher's factors are the problem's, and are not kept a second time.
"""

import dataclasses
import os

import numpy as np

from dropoutnet_jax.data import files
from dropoutnet_jax.evaluation import content_lengths
from dropoutnet_jax.evaluation import expected_histories
from dropoutnet_jax.evaluation import second_kernel
from dropoutnet_jax.evaluation import sparse_part
from dropoutnet_jax.evaluation import woodbury

FILE = 'sparse_part.npz'


def save(part: sparse_part.SparsePart, workdir: str) -> None:
  """Keeps the part in a run folder, in one file."""
  arrays = files.sparse_arrays('history', part.history)
  arrays['user_dense'] = part.user_dense
  arrays['weights'] = part.correction.weights
  arrays['divisor'] = np.asarray(part.correction.divisor)
  arrays['lengths'] = np.asarray([part.lengths.mean, part.lengths.power])
  arrays['history_weight'] = np.asarray(part.history_weight)
  arrays['norm_power'] = np.asarray(part.norm_power)
  if part.predictor is not None:
    arrays['predictor'] = part.predictor
  if part.expected is not None:
    for name, value in vars(part.expected).items():
      arrays[f'expected/{name}'] = np.asarray(value)
  if part.second is not None:
    for field in dataclasses.fields(part.second):
      arrays[f'second/{field.name}'] = getattr(part.second, field.name)
  files.save_arrays(os.path.join(workdir, FILE), arrays)


def exists(workdir: str) -> bool:
  """Whether the run folder holds a fitted part."""
  return os.path.exists(os.path.join(workdir, FILE))


def load(workdir: str) -> sparse_part.SparsePart:
  """Reads what `save` kept.

  Raises:
    UserError: if the file is missing or damaged.
  """
  arrays = files.load_arrays(os.path.join(workdir, FILE))
  second = None
  if 'second/root' in arrays:
    second = second_kernel.SecondKernel(
        *(
            arrays[f'second/{field.name}']
            for field in dataclasses.fields(second_kernel.SecondKernel)
        )
    )
  expected = None
  if 'expected/weights' in arrays:
    expected = expected_histories.ExpectedHistories(
        arrays['expected/weights'],
        arrays['expected/bias'],
        int(arrays['expected/size']),
        float(arrays['expected/smoothing']),
    )
  return sparse_part.SparsePart(
      files.sparse_from_arrays('history', arrays),
      arrays['user_dense'],
      woodbury.Correction(arrays['weights'], float(arrays['divisor'])),
      content_lengths.Lengths(*arrays['lengths'].tolist()),
      second,
      float(arrays['history_weight']),
      float(arrays['norm_power']),
      arrays.get('predictor'),
      expected,
  )
