# SPDX-License-Identifier: Apache-2.0
"""How often each user and item was shown and reacted to, in windows of time.

Counts are of the rows of training alone, so that a cold row has none; weights
of rows are not counted. The step subtracts the pair that it trains on, in all
of its rows (model/statistics.py): a count that knew them would hand the label
to the towers.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import flax.struct
import jax.numpy as jnp
import numpy as np

from dropoutnet_jax.data import schema

_DAY = 86_400  # seconds
_SMALLEST_STD = 1e-6  # what varies less is only centred
_MOST = 2**30  # of a count


@flax.struct.dataclass
class Counts:
  """What was counted of N users or items, and how it becomes features.

  The first of the 1 + W columns is of all times, and says whether a row has
  any; the others are of the W windows.

  Attributes:
    shown: int32 [N, 1 + W], rows in which it occurs.
    reacted: float32 [N, 1 + W], sum of their labels / largest_label; [N, 0]
      where every row is a reaction.
    mean: float32 [W], of log(1 + shown) over those that have any in the window.
    std: float32 [W], there; 1 where it does not vary.
    prior: float32 [W], reactions per row of the window, over all of training.
    rate_std: float32 [W], of the logit of the smoothed rate about that of the
      prior, over those that have any in the window.
    usual: float32 [W], mean of shown over those that have any in the window.
    smoothing: rows at the prior that a rate is smoothed with, and reactions
      that the usual number counts for.
    largest_label: what labels are divided by, see the function.
  """

  shown: Any
  reacted: Any
  mean: Any
  std: Any
  prior: Any
  rate_std: Any
  usual: Any
  smoothing: float = flax.struct.field(pytree_node=False)
  largest_label: float = flax.struct.field(pytree_node=False)

  @property
  def num_windows(self) -> int:
    """W."""
    return self.shown.shape[1] - 1

  @property
  def width(self) -> int:
    """Features of a row."""
    return self.num_windows * (1 + bool(self.reacted.shape[1]))

  def select(self, rows: np.ndarray) -> 'Counts':
    """Of rows [C] as NumPy arrays; a row of -1 has none."""
    pick = lambda x: np.where(rows[:, None] >= 0, np.asarray(x)[rows], 0)
    return dataclasses.replace(
        self,
        shown=pick(self.shown).astype(np.int32),
        reacted=pick(self.reacted).astype(np.float32),
    )

  def with_reactions(self, rows: np.ndarray, number: np.ndarray) -> 'Counts':
    """The same where distinct rows [C] have so many more reactions [C], now.

    They fall into every window. Where rows without a reaction are counted too,
    the reactions come with as many of them as is usual (at the prior of the
    first window, for all times): reactions alone say nothing about a rate.

    A row without any has only just come, and what training counted was counted
    in all its time. Of such a row the usual number is expected before anything
    is known, as surely as by `smoothing` reactions, and with n it is
    (n + smoothing) / smoothing times that: the mean of a Poisson rate with a
    Gamma prior.
    """
    all_times = [0, *range(self.num_windows)]
    prior = np.asarray(self.prior)[all_times] if self.reacted.shape[1] else 1.0
    shown, reacted = np.array(self.shown), np.array(self.reacted)
    number = np.asarray(number, float)[:, None]
    expected = 1 + number / self.smoothing
    more = np.where(
        (shown[rows, :1] == 0) & (number > 0),
        np.minimum(np.asarray(self.usual)[all_times] * expected, _MOST),
        number / prior,
    )
    if reacted.shape[1]:
      reacted[rows] += more * prior
    shown[rows] += np.round(more).astype(np.int32)
    return dataclasses.replace(self, shown=shown, reacted=reacted)


@flax.struct.dataclass
class LeftOut:
  """What of the counts of B users or items must not be seen.

  Attributes:
    shown: int32 [B, 1 + W], rows of training.
    reacted: float32 [B, 1 + W], sum of their labels.
  """

  shown: Any
  reacted: Any


def window_bits(
    time: np.ndarray | None, windows: Sequence[float], num_rows: int
) -> np.ndarray:
  """Which windows each row of training falls into: int32 [num_rows].

  Bit 0 is set for every row and bit 1 + w for those of window w: those less
  than so many days before the last row, or all of them where it is 0.

  Args:
    time: int64 [num_rows], seconds; None where all windows are 0.
    windows: in days.
    num_rows: of training.
  """
  bits = np.ones(num_rows, np.int32)
  for number, days in enumerate(windows):
    inside = np.ones(num_rows, bool)
    if days:
      assert time is not None
      inside = time.max(initial=0) - time < days * _DAY
    bits |= inside.astype(np.int32) << (1 + number)
  return bits


def largest_label(rows: schema.Interactions) -> float:
  """What labels are divided by to be in [0, 1]; 0 where all rows are reactions.

  It is 1 unless there are labels above 1, such as ratings.
  """
  if rows.label is None or (rows.label == 1).all():
    return 0.0
  return max(float(rows.label.max(initial=0)), 1.0)


def of_pairs(
    rows: schema.Interactions, bits: np.ndarray, num_windows: int
) -> LeftOut:
  """What all rows of each row's pair count together: of NumPy arrays.

  Args:
    rows: N of training, in which a pair may occur repeatedly.
    bits: int32 [N], their windows (`window_bits`).
    num_windows: W.
  """
  _, place = np.unique(schema.pair_numbers(rows), return_inverse=True)
  label = np.ones(len(rows)) if rows.label is None else rows.label
  shown, reacted = (
      np.stack(
          [
              np.bincount(place, (bits >> number & 1) * each)[place]
              for number in range(1 + num_windows)
          ],
          axis=1,
      )
      for each in (1, label)
  )
  return LeftOut(shown.astype(np.int32), reacted.astype(np.float32))


def count(
    row: np.ndarray,
    rows: schema.Interactions,
    bits: np.ndarray,
    num_entities: int,
    num_windows: int,
    smoothing: float,
) -> Counts:
  """Counts of one side.

  Args:
    row: int32 [M], the user (or item) of each row of training.
    rows: of training, M of them.
    bits: int32 [M], their windows (`window_bits`).
    num_entities: N, users (or items).
    num_windows: W.
    smoothing: rows at the prior that a rate is smoothed with; positive.
  """
  unit = largest_label(rows)

  def total(weight: np.ndarray | float, times: int) -> np.ndarray:
    columns = [
        np.bincount(row, (bits >> n & 1) * weight, num_entities)
        for n in range(times)
    ]
    return np.stack(columns, axis=1) if columns else np.zeros((num_entities, 0))

  times = 1 + num_windows
  shown = total(1.0, times)
  reacted = total(0.0, 0)
  prior = rate_std = np.ones(num_windows)
  size, counted = np.log1p(shown[:, 1:]), shown[:, 1:] > 0
  mean, std = _moments(size, counted)
  usual, _ = _moments(shown[:, 1:], counted)
  if unit and rows.label is not None:
    reacted = total(rows.label.astype(np.float64) / unit, times)
    # Half a row off 0 and 1, whose logits are infinite.
    number = np.maximum(shown[:, 1:].sum(axis=0), 1)
    prior = reacted[:, 1:].sum(axis=0) / number
    prior = np.clip(prior, 0.5 / number, 1 - 0.5 / number)
    rate = smoothed_logits(reacted[:, 1:], shown[:, 1:], prior, smoothing)
    _, rate_std = _moments(np.asarray(rate), counted)
  return Counts(
      shown.astype(np.int32),
      reacted.astype(np.float32),
      mean.astype(np.float32),
      std.astype(np.float32),
      prior.astype(np.float32),
      rate_std.astype(np.float32),
      usual.astype(np.float32),
      smoothing=float(smoothing),
      largest_label=unit,
  )


def smoothed_logits(
    reacted: Any, shown: Any, prior: Any, smoothing: float
) -> Any:
  """Logit of the smoothed rate less that of the prior: float32 [B, W].

  The rate is (reacted + smoothing * prior) / (shown + smoothing): without any
  row it is the prior.

  Args:
    reacted: [B, W], at most `shown`.
    shown: [B, W].
    prior: [W] in (0, 1).
    smoothing: positive.
  """
  hits = reacted + (smoothing * prior)[None, :]
  misses = jnp.maximum(shown - reacted, 0) + (smoothing * (1 - prior))[None, :]
  return jnp.log(hits / misses) - jnp.log(prior / (1 - prior))[None, :]


def _moments(
    values: np.ndarray, where: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Mean and deviation of each column over some rows: [W] and [W]."""
  number = np.maximum(where.sum(axis=0), 1)
  mean = np.where(where, values, 0).sum(axis=0) / number
  square = np.where(where, (values - mean[None, :]) ** 2, 0).sum(axis=0)
  std = np.sqrt(square / number)
  return mean, np.where(std > _SMALLEST_STD, std, 1.0)
