# SPDX-License-Identifier: Apache-2.0
"""Statistics of a run: which rows of training are counted, and into what.

Labelled rows where the step trains on these, else likes: in each case what the
step can leave out.
"""

import dataclasses

import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import histories
from dropoutnet_jax.data import impressions
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import statistics
from dropoutnet_jax.data import tables as tables_lib


def check_times(
    cfg: config.Config,
    likes: schema.Interactions,
    labelled: impressions.Labelled | None,
) -> None:
  """Raises UserError for a window that rows without times do not have.

  Args:
    cfg: the experiment.
    likes: training pairs.
    labelled: rows with labels, where there are some.
  """
  windows = cfg.features.statistics
  if any(windows) and _rows(cfg, likes, labelled).time is None:
    raise errors.UserError(
        f'config.features.statistics is {windows}, but the pairs of '
        f'{cfg.data.name} have no times: only (0.0,), all of them, can be '
        'counted. Set it to that, or add a column of times.'
    )


def of_pairs(
    cfg: config.Config, rows: schema.Interactions
) -> statistics.LeftOut:
  """What a step leaves out of the counts for each of its labelled rows."""
  windows = cfg.features.statistics
  return statistics.of_pairs(rows, _bits(cfg, rows), len(windows))


def add(
    cfg: config.Config,
    tables: tables_lib.Tables,
    problem: problem_lib.Problem,
    likes: schema.Interactions,
) -> tables_lib.Tables:
  """Tables with counts, and with what a step leaves out of them.

  Labelled rows have what is left out for them already.

  Args:
    cfg: the experiment; it has statistics.
    tables: of the problem.
    problem: its data.
    likes: that histories are made of.
  """
  if tables.rows is not None:
    likes = problem.split.train
  rows, windows = _rows(cfg, likes, problem.labelled), cfg.features.statistics
  in_windows = _bits(cfg, rows)

  def with_counts(
      table: tables_lib.SideTable, row: np.ndarray
  ) -> tables_lib.SideTable:
    counts = statistics.count(
        row,
        rows,
        in_windows,
        len(table.present),
        len(windows),
        cfg.features.statistics_smoothing,
    )
    return dataclasses.replace(table, counts=counts)

  padded = None
  if tables.rows is None:
    order = np.lexsort((rows.item, rows.user))  # that of histories
    lengths = np.bincount(rows.user, minlength=len(tables.user.present))
    padded = histories.History(in_windows[order], lengths).padded()
  return dataclasses.replace(
      tables,
      user=with_counts(tables.user, rows.user),
      item=with_counts(tables.item, rows.item),
      history_windows=padded,
  )


def _bits(cfg: config.Config, rows: schema.Interactions) -> np.ndarray:
  """Windows that count each of the rows: int32 [N], see data/statistics.py."""
  return statistics.window_bits(rows.time, cfg.features.statistics, len(rows))


def _rows(
    cfg: config.Config,
    likes: schema.Interactions,
    labelled: impressions.Labelled | None,
) -> schema.Interactions:
  """What is counted: the rows that the step can leave out."""
  if cfg.objective.pairing != 'interactions' or labelled is None:
    return likes
  return labelled.train
