# SPDX-License-Identifier: Apache-2.0
"""Numbers cut into intervals, which are encoded like categories.

K - 1 ascending edges cut the numbers into K intervals with the ids 1 to K; an
edge belongs to the interval above it. Id 0 is no interval: the number is
missing. Numbers and edges are compared as float32, which is how tables keep
them, so that 0.7 is not below an edge of 0.7.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import encoders

_DIGITS = (6, 9)  # of edges in names; nine tell any two float32 apart


def interval_ids(column: np.ndarray, edges: Sequence[float]) -> np.ndarray:
  """The interval of each number.

  Args:
    column: numbers [N], NaN where missing.
    edges: K - 1 ascending numbers.

  Returns:
    int64 [N], from 1 to K; 0 where missing.
  """
  value = np.asarray(column, np.float32)
  cut = np.asarray(edges, np.float32)
  ids = np.searchsorted(cut, value, side='right').astype(np.int64) + 1
  ids[np.isnan(value)] = 0
  return ids


def interval_names(column: str, edges: Sequence[float]) -> list[str]:
  """'price < 10', 'price in [10, 20)', 'price >= 20': a name for each id."""
  if not len(edges):
    return [f'{column} present']
  for digits in _DIGITS:
    shown = [f'{np.float32(edge) + 0:.{digits}g}' for edge in edges]
    if len(set(shown)) == len(shown):
      break
  between = [
      f'{column} in [{low}, {high})' for low, high in zip(shown, shown[1:])
  ]
  return [f'{column} < {shown[0]}', *between, f'{column} >= {shown[-1]}']


def fit_edges(column: np.ndarray, num_intervals: int) -> tuple[float, ...]:
  """Edges that cut numbers into intervals of about equally many rows.

  A value that fills an interval by itself gets one of its own; there are fewer
  intervals then.

  Args:
    column: numbers [N] of the training rows, NaN where missing.
    num_intervals: the largest number of intervals, K.

  Returns:
    At most K - 1 ascending values of the column, without its least.
  """
  value = np.asarray(column, np.float32)
  known = np.sort(value[~np.isnan(value)])
  if not known.size:
    return ()
  position = -(-np.arange(num_intervals) * known.size // num_intervals)
  position = np.minimum(position, known.size - 1)
  start, picked = np.unique(known[position], return_counts=True)
  heavy = start[picked > 1]
  after = np.searchsorted(known, heavy, side='right')
  edges = np.union1d(start, known[after[after < known.size]])
  return tuple(edges[edges > known[0]].tolist())


@dataclasses.dataclass(frozen=True)
class IntervalEncoder:
  """One-hot over the intervals known from training; other rows are zero.

  Attributes:
    column: its name.
    edges: K - 1, between K intervals.
    known: ids of the intervals with enough training rows, ascending; the T
      sparse columns.
    dense_values: positions of those that are dense columns as well.
    in_sparse: whether the feature is part of the sparse content.
  """

  column: str
  edges: tuple[float, ...]
  known: tuple[int, ...]
  dense_values: tuple[int, ...]
  in_sparse: bool

  @property
  def num_ids(self) -> int:
    """Ids that there are, 0 among them: K + 1."""
    return len(self.edges) + 2

  def ids(self, column: np.ndarray) -> np.ndarray:
    """The interval of each number, int64 [N] in [0, K].

    0 where the number is missing, or in an interval that too few training rows
    have for anything to be known about it.

    Raises:
      UserError: the column has several numbers per row.
    """
    ids = interval_ids(_single(column, self.column), self.edges)
    ids[~np.isin(ids, self.known)] = 0
    return ids

  def encode(
      self, column: np.ndarray
  ) -> tuple[np.ndarray, scipy.sparse.csr_array]:
    """Rows of a known interval have a single entry, 1."""
    ids = self.ids(column)
    return encoders.one_hot(ids, self.known, self.dense_values, self.in_sparse)

  def dense_names(self) -> list[str]:
    names = interval_names(self.column, self.edges)
    return [names[self.known[n] - 1] for n in self.dense_values]

  def sparse_names(self) -> list[str]:
    names = interval_names(self.column, self.edges)
    return [names[n - 1] for n in self.known] if self.in_sparse else []


def fit_intervals(
    feature: config.Feature, column: np.ndarray, field: str
) -> tuple[IntervalEncoder, list[str]]:
  """Finds the edges, and the intervals of at least `min_rows` training rows.

  Args:
    feature: its settings, with boundaries or num_intervals.
    column: numbers [N] of the training rows, NaN where missing.
    field: where the feature is in the configuration, for errors.

  Returns:
    The encoder, and notes for the user.

  Raises:
    UserError: the column has several numbers per row, two boundaries are the
      same number, or no interval has enough rows.
  """
  try:
    value = _single(column, feature.column)
  except errors.UserError as error:
    raise errors.UserError(f'{field}: {error}') from error
  _check_boundaries(feature.boundaries, field)
  edges = feature.boundaries or fit_edges(value, feature.num_intervals)
  count = np.bincount(interval_ids(value, edges), minlength=len(edges) + 2)
  num_known = count[1:].sum()
  known = np.flatnonzero(count[1:] >= feature.min_rows) + 1
  if not len(known):
    raise errors.UserError(
        f'{field}: column {feature.column!r} has numbers in {num_known:,} of '
        f'{len(value):,} training rows, in no interval {feature.min_rows} or '
        'more. Lower min_rows, or leave the feature out.'
    )
  notes = _notes(feature, len(edges) + 1, len(known))
  dense_values, more = encoders.choose_dense(feature, count[known].tolist())
  encoder = IntervalEncoder(
      feature.column,
      tuple(edges),
      tuple(known.tolist()),
      dense_values,
      feature.sparse,
  )
  return encoder, notes + more


def _check_boundaries(boundaries: Sequence[float], field: str) -> None:
  """Refuses numbers that float32 cannot hold or tell apart."""
  limit = float(np.finfo(np.float32).max)
  for edge in boundaries:
    if abs(edge) > limit:
      raise errors.UserError(
          f'{field}.boundaries has {edge}, which no number of a float32 column '
          'can reach. Leave it out.'
      )
  for low, high in zip(boundaries, boundaries[1:]):
    if np.float32(low) == np.float32(high):
      raise errors.UserError(
          f'{field}.boundaries has {low} and {high}, which are the same number '
          'as float32, the precision of tables. Leave one of them out.'
      )


def _notes(feature: config.Feature, num_made: int, num_known: int) -> list[str]:
  name, notes = repr(feature.column), []
  if num_made < feature.num_intervals:
    notes.append(
        f'{name} is cut into {num_made:,} instead of '
        f'{feature.num_intervals:,} intervals, since its values repeat.'
    )
  if num_known < num_made:
    notes.append(
        f'{name}: {num_made - num_known:,} of {num_made:,} intervals have '
        f'fewer than {feature.min_rows:,} training rows; numbers in them '
        'count as missing.'
    )
  if num_made == 1:
    notes.append(f'{name} is the same in all training rows and says nothing.')
  return notes


def _single(column: np.ndarray, name: str) -> np.ndarray:
  """Numbers [N]."""
  if column.ndim == 2 and column.shape[1] == 1:
    return column[:, 0]
  if column.ndim == 2:
    raise errors.UserError(
        f'column {name!r} has {column.shape[1]} numbers per row, but only '
        'single numbers are cut into intervals. Set a transform instead of '
        'boundaries or num_intervals, or name a column of one number.'
    )
  return column
