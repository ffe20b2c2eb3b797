# SPDX-License-Identifier: Apache-2.0
"""From a problem to the tables that stay on the devices."""

import dataclasses

import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax.data import features
from dropoutnet_jax.data import histories
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.evaluation import top_k
from dropoutnet_jax.training import counted
from dropoutnet_jax.training import label_tables

# Entries of padded user histories, 4 bytes each; longer ones are cut.
_MAX_HISTORY_ENTRIES = 2**27


def target_items(
    cfg: config.Config, split: schema.Split, num_items: int
) -> np.ndarray:
  """Item rows that may be targets or negatives: int32 [I'].

  Training items; or, as published, all items, the cold ones with zero factors
  among them. `audit.check_targets` checks the former and counts the latter.
  """
  if cfg.objective.target_items == 'all':
    return np.arange(num_items, dtype=np.int32)
  return split.train_rows()[1].astype(np.int32)


def make_tables(
    cfg: config.Config, problem: problem_lib.Problem
) -> tables_lib.Tables:
  """Resident tables of a problem."""
  sizes = (len(problem.user.ids), len(problem.item.ids))
  pairs = _history_pairs(cfg, problem.split.train, sizes[0])
  history = {
      side: histories.make_history(pairs, *sizes, side)
      for side in ('user', 'item')
  }
  make = {
      'factors': _side_of_factors,
      'history': _side_of_histories,
      'none': _side_of_features,
  }[cfg.features.preference]

  def make_side(side: str, train_rows: np.ndarray) -> tables_lib.SideTable:
    own = getattr(problem, side)
    return dataclasses.replace(
        make(cfg, problem, history, side),
        tokens=own.tokens if own.tokens.features else None,
        features=_preference_features(cfg, own, train_rows),
    )

  train_users, train_items = problem.split.train_rows()
  targets = target_items(cfg, problem.split, sizes[1])
  tables = tables_lib.make_tables(
      make_side('user', train_users),
      make_side('item', train_items),
      problem.split,
      targets,
      history['user'].padded()
      if cfg.uses_history
      else np.zeros((0, 0), np.int32),
      _top_items(cfg, problem, targets),
  )
  if cfg.objective.pairing == 'interactions':
    tables = label_tables.add(tables, cfg, problem)
  if cfg.features.statistics:
    tables = counted.add(cfg, tables, problem, pairs)
  return tables


_OTHER = {'user': 'item', 'item': 'user'}


def _side_of_factors(
    cfg: config.Config,
    problem: problem_lib.Problem,
    history: dict[str, histories.History],
    side: str,
) -> tables_lib.SideTable:
  """A side whose preference is the teacher's factors."""
  factors = problem.factors
  return tables_lib.make_side(
      _unit_entries(cfg, getattr(problem, side).dense),
      getattr(factors, side),
      getattr(factors, f'{side}_present'),
      getattr(factors, _OTHER[side]),
      history[side],
      cfg.model.preference_scaling,
      history_smoothing=cfg.features.history_smoothing,
  )


def _side_of_histories(
    cfg: config.Config,
    problem: problem_lib.Problem,
    history: dict[str, histories.History],
    side: str,
) -> tables_lib.SideTable:
  """A side whose preference is the mean content of its histories."""
  own, other = (getattr(problem, name).dense for name in (side, _OTHER[side]))
  count = history[side].count
  mean = history[side].total(other) / np.maximum(count, 1)[:, None]
  return tables_lib.make_side(
      _unit_entries(cfg, own),
      own,
      count > 0,
      other,
      history[side],
      cfg.model.preference_scaling,
      mean,
      cfg.features.history_smoothing,
  )


def with_content(
    cfg: config.Config,
    table: tables_lib.SideTable,
    rows: np.ndarray,
    content: features.Content,
) -> tables_lib.SideTable:
  """The table (of NumPy arrays) where rows [C] have other content.

  For rows that come after training: content is what the run's encoder made of
  them, and is scaled as the run's own.
  """
  dense, tokens = table.content.copy(), table.tokens
  dense[rows] = _unit_entries(cfg, content.dense)
  if tokens is not None:
    tokens = dataclasses.replace(
        tokens, id=tokens.id.copy(), weight=tokens.weight.copy()
    )
    tokens.id[rows] = content.tokens.id
    tokens.weight[rows] = content.tokens.weight
  return dataclasses.replace(table, content=dense, tokens=tokens)


def _side_of_features(
    cfg: config.Config,
    problem: problem_lib.Problem,
    history: dict[str, histories.History],
    side: str,
) -> tables_lib.SideTable:
  """A side whose preference is its features alone; factors are targets."""
  own, other = (getattr(problem, name) for name in (side, _OTHER[side]))
  return tables_lib.make_side(
      _unit_entries(cfg, own.dense),
      getattr(problem.factors, side),
      np.zeros(len(own.ids), bool),
      np.zeros((len(other.ids), 0), np.float32),
      history[side],
      cfg.model.preference_scaling,
      np.zeros((len(own.ids), 0), np.float32),
  )


def _preference_features(
    cfg: config.Config, side: problem_lib.Side, train_rows: np.ndarray
) -> tables_lib.PreferenceFeatures | None:
  """Features of the group 'preference', of training rows alone."""
  if not side.preference_dense.shape[1] and not side.preference_tokens.features:
    return None
  known = np.zeros(len(side.ids), bool)
  known[train_rows] = side.preference_known[train_rows]
  dense = _unit_entries(cfg, side.preference_dense) * known[:, None]
  tokens = side.preference_tokens
  return tables_lib.PreferenceFeatures(
      dense.astype(np.float32),
      dataclasses.replace(
          tokens,
          id=np.where(known[:, None], tokens.id, 0),
          weight=np.where(known[:, None], tokens.weight, 0),
      ),
      known,
  )


def _history_pairs(
    cfg: config.Config, train: schema.Interactions, num_users: int
) -> schema.Interactions:
  """The training pairs that histories are made of.

  All of them, unless steps read padded histories and these would be too large:
  then the same number of pairs per user, on both sides alike.
  """
  if not cfg.uses_history:
    return train
  limit = _history_limit(num_users)
  longest = np.bincount(train.user).max(initial=0)
  return histories.latest(train, limit) if longest > limit else train


def _history_limit(num_users: int) -> int:
  """Pairs of each user at most, so that padded histories fit."""
  return max(_MAX_HISTORY_ENTRIES // num_users, 1)


def history_notes(
    cfg: config.Config, train: schema.Interactions, num_users: int
) -> list[str]:
  """Says which histories are cut, if any."""
  kept = len(_history_pairs(cfg, train, num_users))
  if kept == len(train):
    return []
  limit = _history_limit(num_users)
  kind = 'a random' if train.time is None else 'the latest'
  return [
      f'Histories (means over them, known likes) use {kind} {limit:,} pairs '
      f'of each user at most: {kept:,} of {len(train):,}.'
  ]


def _unit_entries(cfg: config.Config, content: np.ndarray) -> np.ndarray:
  """Content whose entries have about unit variance."""
  scale = entry_scale(cfg, content.shape[1])
  return content if scale == 1 else content * scale


def entry_scale(cfg: config.Config, width: int) -> np.float32:
  """What content of so many columns is multiplied by for the towers.

  Its entries then have about unit variance, like preference has.

  Rows of norm 1 over hundreds of columns have tiny entries; beside
  standardised factors the towers then learn from content only slowly (on
  citeulike-a recall@100 after 50 steps: 0.55 with this scale, 0.2 without).
  """
  if cfg.features.scaling != 'row':
    return np.float32(1)
  return np.float32(max(width, 1) ** 0.5)


def _top_items(
    cfg: config.Config, problem: problem_lib.Problem, targets: np.ndarray
) -> np.ndarray:
  """Each user's top target items by the teacher's score, int32 [U, N]."""
  settings = cfg.objective
  if settings.pairing != 'published' or settings.top_items == 0:
    return np.zeros((0, 0), np.int32)
  count = min(settings.top_items, len(targets))
  _, best = top_k.top_items(
      problem.factors.user, problem.factors.item[targets], count
  )
  return targets[best]
