# SPDX-License-Identifier: Apache-2.0
"""Numbers as dense columns: standardised, ranked, or as they are.

A missing number becomes 0 in training and later alike; where that could be
mistaken for a number, a presence bit beside it says so.
"""

import dataclasses

import numpy as np
import scipy.sparse

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import blocks

_CLIP = 5.0  # standardised numbers, in standard deviations
_SMALLEST_STD = 1e-30  # below it, 1 / std leaves float32
# Quantiles: training values that are kept evenly, and besides them the
# neighbours of each value that has more than a hundredth of the rows: next to
# it the rank jumps.
_EVEN_KNOTS = 800
_HEAVY_SHARE = 0.01


@dataclasses.dataclass(frozen=True, eq=False)
class NumericEncoder:
  """D numbers per row, transformed, each with a presence bit if needed.

  Attributes:
    column: its name.
    transform: 'standard', 'log1p', 'min_max', 'quantile' or 'none'.
    mean: D, over the training rows that have the number, of it or of the
      logarithm of 1 + it; empty unless standardised.
    std: its standard deviations there; 0 for a number that says nothing.
    knots: float64 [D, K], ascending training values that 'min_max' and
      'quantile' interpolate between; K is 0 for the others.
    heights: float64 [D, K], what becomes of the knots, in [0, 1].
    has_presence: D, numbers that get a column which is 1 where present, else 0.
  """

  column: str
  transform: str
  mean: tuple[float, ...]
  std: tuple[float, ...]
  knots: np.ndarray
  heights: np.ndarray
  has_presence: tuple[bool, ...]

  def encode(
      self, column: np.ndarray
  ) -> tuple[np.ndarray, scipy.sparse.csr_array]:
    """Missing numbers become 0, and so does their presence bit."""
    value = _as_table(column)
    check_width(self.column, value, len(self.has_presence))
    present = ~np.isnan(value)
    bits = present[:, np.array(self.has_presence, bool)]
    parts = [np.where(present, self._transform(value), 0.0), bits]
    dense = np.concatenate(parts, axis=1).astype(np.float32)
    return dense, blocks.no_columns(len(dense))

  def _transform(self, value: np.ndarray) -> np.ndarray:
    """Float64 [N, D] to the same; NaN stays NaN."""
    if self.transform == 'none':
      return value
    if self.transform in ('min_max', 'quantile'):
      result = np.empty_like(value)
      for number, curve in enumerate(zip(self.knots, self.heights)):
        result[:, number] = np.interp(value[:, number], *curve)
      return result
    if self.transform == 'log1p':
      value = np.log1p(value)
    std = np.array(self.std)
    scale = np.where(std > 0, 1 / np.where(std > 0, std, 1.0), 0.0)
    return np.clip((value - np.array(self.mean)) * scale, -_CLIP, _CLIP)

  def dense_names(self) -> list[str]:
    names = _number_names(self.column, len(self.has_presence))
    flags = zip(names, self.has_presence, strict=True)
    return names + [f'{name} present' for name, has in flags if has]

  def sparse_names(self) -> list[str]:
    return []


def fit_numeric(
    feature: config.Feature, column: np.ndarray, scaling: str
) -> tuple[NumericEncoder, list[str]]:
  """Fits the transform of a column of numbers.

  With scaling 'row' every number that varies gets a presence bit: a row of
  norm 1 keeps only directions, and (z, 1) has another direction for each z
  where (z) alone would keep no more than its sign.

  Args:
    feature: its settings.
    column: numbers [N] or [N, D] of the training rows, NaN where missing; for
      'log1p' all above -1.
    scaling: of the dense content, 'row' or 'column'.

  Returns:
    The encoder, and notes for the user.
  """
  value = _as_table(column)
  transform = feature.transform
  names = _number_names(feature.column, value.shape[1])
  mean, std, curves, has_presence, notes = [], [], [], [], []
  for name, number in zip(names, value.T, strict=True):
    known = number[~np.isnan(number)]
    if transform == 'log1p':
      known = np.log1p(known)
    # min < max, because the std of equal numbers can be a rounding error.
    varies = known.size > 0 and known.min() < known.max()
    varies = bool(varies and known.std() > _SMALLEST_STD)
    if not varies:
      what = 'the same in' if known.size else 'missing from'
      notes.append(f'{name!r} is {what} all training rows and says nothing.')
    mean.append(float(known.mean()) if known.size else 0.0)
    std.append(float(known.std()) if varies else 0.0)
    curves.append(_fit_curve(known, transform) if varies else _FLAT)
    some_missing = 0 < known.size < number.size
    has_presence.append(bool(some_missing or (varies and scaling == 'row')))
  is_standard = transform in ('standard', 'log1p')
  has_curves = transform in ('min_max', 'quantile')
  width = max((len(knots) for knots, _ in curves), default=0)
  encoder = NumericEncoder(
      feature.column,
      transform,
      tuple(mean) if is_standard else (),
      tuple(std) if is_standard else (),
      *_stack(curves, width if has_curves else 0),
      tuple(has_presence),
  )
  return encoder, notes


_Curve = tuple[np.ndarray, np.ndarray]
_FLAT: _Curve = (np.zeros(1), np.zeros(1))


def _fit_curve(known: np.ndarray, transform: str) -> _Curve:
  """Knots and heights of numbers [N] that vary; none for other transforms."""
  if transform == 'min_max':
    return np.array([known.min(), known.max()]), np.array([0.0, 1.0])
  if transform != 'quantile':
    return _FLAT
  values, count = np.unique(known, return_counts=True)
  # Equal values share the mean of their ranks.
  rank = (np.cumsum(count) - count + (count - 1) / 2) / (known.size - 1)
  if len(values) <= _EVEN_KNOTS:
    return values, rank
  even = np.linspace(0, known.size - 1, _EVEN_KNOTS).astype(np.int64)
  even = np.searchsorted(np.cumsum(count), even, side='right')
  heavy = np.flatnonzero(count > _HEAVY_SHARE * known.size)
  kept = np.concatenate([even, heavy - 1, heavy, heavy + 1])
  kept = np.unique(np.clip(kept, 0, len(values) - 1))
  return values[kept], rank[kept]


def _stack(curves: list[_Curve], width: int) -> tuple[np.ndarray, np.ndarray]:
  """Knots and heights [D, width]; the last knot repeated adds nothing."""
  knots = np.zeros((len(curves), width))
  heights = np.zeros((len(curves), width))
  for number, curve in enumerate(curves):
    for table, part in zip((knots, heights), curve):
      table[number, : len(part)] = part[:width]
      table[number, len(part) :] = part[-1]
  return knots, heights


def check_width(column: str, value: np.ndarray, width: int) -> None:
  """Raises UserError unless rows [N, D] are as wide as in training."""
  if value.shape[1] != width:
    raise errors.UserError(
        f'Column {column!r} has {value.shape[1]} numbers per row, but had '
        f'{width} in training. Give it the same numbers as then.'
    )


def _as_table(column: np.ndarray) -> np.ndarray:
  """Numbers [N] or [N, D] as float64 [N, D]."""
  value = np.asarray(column, np.float64)
  return value[:, None] if value.ndim == 1 else value


def _number_names(column: str, width: int) -> list[str]:
  """'age' for a single number, 'size[0]', 'size[1]' ... for several."""
  return [column] if width == 1 else [f'{column}[{n}]' for n in range(width)]
