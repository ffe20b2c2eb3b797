# SPDX-License-Identifier: Apache-2.0
"""The weight of one of a row's tags, which another column names."""

import numpy as np

from dropoutnet_jax.data import schema


def pick_weights(tags: schema.Tags, key: np.ndarray) -> np.ndarray:
  """Looks up the tag that each row's key names.

  Tags without names are named by their column numbers. Several columns of one
  name are added up, as elsewhere.

  Args:
    tags: of N rows.
    key: object [N] of str, None where missing.

  Returns:
    float64 [N], NaN where the key is missing or the row has no such tag.
  """
  matrix = tags.matrix
  # Only the tags that occur: one new row must not cost a vocabulary.
  used, place = np.unique(matrix.indices, return_inverse=True)
  names = used if tags.names is None else tags.names[used]
  number_of: dict[str, int] = {}
  group = np.array(
      [number_of.setdefault(str(name), len(number_of)) for name in names],
      np.int64,
  )
  wanted = np.array([number_of.get(value, -1) for value in key], np.int64)
  row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
  hit = group[place] == wanted[row]
  weight = np.full(matrix.shape[0], np.nan)
  weight[row[hit]] = 0
  np.add.at(weight, row[hit], matrix.data[hit])
  return weight
