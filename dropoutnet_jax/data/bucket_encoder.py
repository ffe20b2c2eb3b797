# SPDX-License-Identifier: Apache-2.0
"""One-hot columns of values without a vocabulary: hashed, or small numbers."""

import dataclasses

import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import encoders
from dropoutnet_jax.data import id_maps


@dataclasses.dataclass(frozen=True)
class BucketEncoder:
  """One-hot over the buckets known from training; other rows are zero.

  Nothing is learnt about a bucket that no training row has, so it is treated as
  an unknown value.

  Attributes:
    column: its name.
    is_hashed: whether values are hashed; else they are whole numbers.
    num_buckets: of which some are known.
    known: ids of these, from 1 on, ascending; the T sparse columns.
    dense_values: positions of those that are dense columns as well.
    in_sparse: whether the feature is part of the sparse content.
  """

  column: str
  is_hashed: bool
  num_buckets: int
  known: tuple[int, ...]
  dense_values: tuple[int, ...]
  in_sparse: bool

  def encode(
      self, column: np.ndarray
  ) -> tuple[np.ndarray, scipy.sparse.csr_array]:
    """Rows of a known bucket have a single entry, 1."""
    ids = _ids(column, self.is_hashed, self.num_buckets)
    return encoders.one_hot(ids, self.known, self.dense_values, self.in_sparse)

  def dense_names(self) -> list[str]:
    return [self._name(self.known[n]) for n in self.dense_values]

  def sparse_names(self) -> list[str]:
    return [self._name(n) for n in self.known] if self.in_sparse else []

  def _name(self, number: int) -> str:
    if self.is_hashed:
      return f'{self.column} in bucket {number}'
    return f'{self.column}={number - 1}'


def fit_buckets(
    feature: config.Feature, column: np.ndarray, field: str
) -> tuple[BucketEncoder, list[str]]:
  """Collects the buckets of at least `min_rows` training rows.

  Args:
    feature: its settings, with hash_buckets or num_buckets.
    column: str or None (missing) [N] of the training rows.
    field: where the feature is in the configuration, for errors.

  Returns:
    The encoder, and notes for the user.

  Raises:
    UserError: no bucket has enough rows.
  """
  is_hashed = bool(feature.hash_buckets)
  num_buckets = feature.hash_buckets or feature.num_buckets
  ids = _ids(column, is_hashed, num_buckets)
  count = np.bincount(ids, minlength=num_buckets + 1)
  count[0] = 0  # missing or outside
  known = np.flatnonzero(count >= feature.min_rows)
  if not len(known):
    what = 'values' if is_hashed else f'whole numbers below {num_buckets:,}'
    advice = 'Lower min_rows, or leave the feature out.'
    if not is_hashed and not ids.any():
      advice = (
          'Raise num_buckets above the largest, use hash_buckets for values of '
          'any kind, or leave the feature out.'
      )
    raise errors.UserError(
        f'{field}: column {feature.column!r} has {what} in '
        f'{np.count_nonzero(ids):,} of {len(ids):,} training rows, and none of '
        f'{num_buckets:,} buckets has {feature.min_rows} or more of them. '
        + advice
    )
  notes = encoders.note_ids(feature, column)
  notes += _note_buckets(feature, column, ids)
  dense_values, more = encoders.choose_dense(feature, count[known].tolist())
  encoder = BucketEncoder(
      feature.column,
      is_hashed,
      num_buckets,
      tuple(known.tolist()),
      dense_values,
      feature.sparse,
  )
  return encoder, notes + more


def _note_buckets(
    feature: config.Feature, column: np.ndarray, ids: np.ndarray
) -> list[str]:
  """Says how many hashed values share a bucket."""
  values = {value for value in column if value is not None}
  used = len(np.unique(ids[ids > 0]))
  if feature.hash_buckets and used < len(values):
    return [
        f'{feature.column!r}: {len(values):,} values of training rows are '
        f'hashed to {used:,} of {feature.hash_buckets:,} buckets, so that some '
        'share one.'
    ]
  return []


def _ids(column: np.ndarray, is_hashed: bool, num_buckets: int) -> np.ndarray:
  function = id_maps.hashed_ids if is_hashed else id_maps.bucket_ids
  return function(column, num_buckets)
