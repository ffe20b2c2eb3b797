# SPDX-License-Identifier: Apache-2.0
"""From a problem to the tables of labelled rows and of their negatives."""

import dataclasses

import jax
import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax.data import histories
from dropoutnet_jax.data import popularity
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.training import counted

_MAX_BITS = 2**30  # of all likes as bits: 128 MiB


def add(
    tables: tables_lib.Tables, cfg: config.Config, problem: problem_lib.Problem
) -> tables_lib.Tables:
  """The tables with the labelled training rows, and what they ask for."""
  settings = cfg.objective
  if problem.split.streamed is not None:
    return _add_streamed(tables, settings, problem.split.streamed)
  num_users, num_items = len(tables.user.present), len(tables.item.present)
  pairs = training_rows(problem)
  rows = label_rows(pairs, settings.user_balance, settings.divide_by)
  if settings.pairwise_within == 'session':
    rows = dataclasses.replace(rows, session=sessions(pairs))
  if cfg.features.statistics:
    rows = dataclasses.replace(rows, counted=counted.of_pairs(cfg, pairs))
  groups = shown = sampled = None
  if settings.group_rows > 1:
    rows, groups = _grouped(rows, num_users)
  count = np.bincount(rows.item[rows.label > 0], minlength=num_items)
  # Whatever the label: every row of a batch is a negative of the others.
  drawn = np.bincount(rows.item[rows.weight > 0], minlength=num_items)
  if settings.num_impressions:
    shown = shown_in_vain(pairs, problem.split.train, num_users)
  if settings.num_sampled:
    sampled = popularity.popularity_table(count, settings.sampling_power)
  return dataclasses.replace(
      tables,
      rows=rows,
      log_frequency=popularity.log_frequency(drawn),
      groups=groups,
      shown=shown,
      popularity=sampled,
      user_bits=_user_bits(cfg, problem, num_users, num_items),
  )


def _add_streamed(
    tables: tables_lib.Tables,
    settings: config.ObjectiveConfig,
    streamed: schema.StreamedRows,
) -> tables_lib.Tables:
  """The tables before the first batch: one row stands for all.

  It has their mean label, which is all that a fresh state asks of them; a step
  would not find a batch in it.
  """
  sampled = None
  if settings.num_sampled:
    sampled = popularity.popularity_table(
        streamed.item_likes, settings.sampling_power
    )
  nothing = np.zeros(1, np.int32)
  label = np.array([streamed.share], np.float32)
  return dataclasses.replace(
      tables,
      rows=tables_lib.LabelledRows(
          nothing, nothing, label, np.ones(1, np.float32)
      ),
      log_frequency=popularity.log_frequency(streamed.item_drawn),
      popularity=sampled,
  )


def _user_bits(
    cfg: config.Config,
    problem: problem_lib.Problem,
    num_users: int,
    num_items: int,
) -> np.ndarray | None:
  """Likes as bits, for the masks of the softmax, if they are small enough.

  Small is the whole table as well as the part that a batch takes of it.
  """
  settings = cfg.objective
  if not (settings.softmax and settings.mask_known):
    return None
  if max(num_users, cfg.train.batch_size) * num_items > _MAX_BITS:
    return None
  history = histories.make_history(
      problem.split.train, num_users, num_items, 'user'
  )
  return history.bits(num_items)


def training_rows(problem: problem_lib.Problem) -> schema.Interactions:
  """All rows for the terms on labels: likes where there are no others."""
  if problem.labelled is not None:
    return problem.labelled.train
  return problem.split.train


def examples_of(streamed: schema.StreamedRows) -> schema.Interactions:
  """Rows for `label_signal.check`: the extremes of labels, on two items.

  On one where there is only one; of weight 0 where no row has more.
  """
  has_weight = streamed.item_drawn.any()
  items = streamed.item_drawn if has_weight else streamed.item_rows
  drawn = np.flatnonzero(items)[[0, -1]]
  return schema.Interactions(
      np.zeros(2, np.int32),
      drawn.astype(np.int32),
      np.full(2, float(has_weight), np.float32),
      label=np.nan_to_num(streamed.labels).astype(np.float32),
  )


def labels(rows: schema.Interactions) -> np.ndarray:
  """Their labels, 1 where there are none: [N]."""
  return np.ones(len(rows)) if rows.label is None else rows.label


def label_rows(
    pairs: schema.Interactions,
    user_balance: float,
    divide_by: str = 'weights',
) -> tables_lib.LabelledRows:
  """Training rows with their labels and weights.

  A row counts 1 / (rows of its user) ** user_balance, times its own weight;
  rows of weight 0 are none of hers. The mean is 1, unless sums are divided by
  'rows' and weights count as large as they are.
  """
  counted = None if pairs.weight is None else pairs.weight > 0
  count = np.maximum(np.bincount(pairs.user, counted)[pairs.user], 1)
  weight = count ** -float(user_balance)
  if pairs.weight is not None:
    weight = weight * pairs.weight
  total = weight.sum()
  if divide_by == 'weights' and total > 0:
    weight = weight * (len(weight) / total)
  return tables_lib.LabelledRows(
      pairs.user.astype(np.int32),
      pairs.item.astype(np.int32),
      labels(pairs).astype(np.float32),
      weight.astype(np.float32),
  )


def sessions(pairs: schema.Interactions) -> np.ndarray:
  """Number of each row's session from 0: int32 [N].

  A session is one of one user, also where two users have the same number.

  Raises:
    ValueError: if the rows have no sessions.
  """
  if pairs.session is None:
    raise ValueError('The rows have no sessions.')
  _, session = np.unique(pairs.session, return_inverse=True)
  both = pairs.user.astype(np.int64) * (session.max(initial=0) + 1) + session
  return np.unique(both, return_inverse=True)[1].astype(np.int32)


def shown_in_vain(
    rows: schema.Interactions, likes: schema.Interactions, num_users: int
) -> tables_lib.Lists:
  """Items of each user's rows of label 0, each once and none that she likes.

  Args:
    rows: labelled.
    likes: training pairs.
    num_users: lists to make.
  """
  in_vain = rows.select(labels(rows) == 0)
  pair = np.setdiff1d(  # sorted, by user
      schema.pair_numbers(in_vain), schema.pair_numbers(likes)
  )
  user, item = schema.pairs_of(pair)
  return _lists(np.bincount(user, minlength=num_users), item)


def _grouped(
    rows: tables_lib.LabelledRows, num_users: int
) -> tuple[tables_lib.LabelledRows, tables_lib.Lists]:
  """Rows in the order of their sessions, or users, and the places of each."""
  group = rows.user if rows.session is None else rows.session
  order = np.argsort(group, kind='stable')
  size = num_users if rows.session is None else group.max(initial=-1) + 1
  lists = _lists(np.bincount(group, minlength=size))
  return jax.tree.map(lambda column: column[order], rows), lists


def _lists(
    count: np.ndarray, value: np.ndarray | None = None
) -> tables_lib.Lists:
  start = np.cumsum(count) - count
  return tables_lib.Lists(start.astype(np.int32), count.astype(np.int32), value)
