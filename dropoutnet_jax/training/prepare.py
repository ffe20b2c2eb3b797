# SPDX-License-Identifier: Apache-2.0
"""From raw files to a problem: read, split, audit, encode, factorise.

And from a problem to the tables that stay on the devices. Nothing here trains
or knows a run folder beyond the two files that it keeps there.
"""

import dataclasses
import time

import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import teacher
from dropoutnet_jax.data import audit
from dropoutnet_jax.data import factors as factors_lib
from dropoutnet_jax.data import features
from dropoutnet_jax.data import histories
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import sources
from dropoutnet_jax.data import splits
from dropoutnet_jax.data import synthetic
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.evaluation import top_k

# Entries of padded user histories, 4 bytes each; longer ones are cut.
_MAX_HISTORY_ENTRIES = 2**27


class Stopwatch:
  """Seconds of named parts, in order."""

  def __init__(self) -> None:
    self.seconds: dict[str, float] = {}
    self._start = time.monotonic()

  def lap(self, name: str) -> None:
    now = time.monotonic()
    self.seconds[name] = round(now - self._start, 3)
    self._start = now


def prepare(
    cfg: config.Config, data_dir: str | None, workdir: str | None
) -> problem_lib.Problem:
  """Reads, splits, audits, encodes and factorises.

  Args:
    cfg: the experiment.
    data_dir: folder with one folder per data set.
    workdir: the run folder that keeps encoders and problem; None keeps none.

  Raises:
    UserError: for whatever is wrong with files, fields or the split.
  """
  _check_teacher(cfg)
  watch = Stopwatch()
  dataset, truth = _load_data(cfg, data_dir)
  watch.lap('read')
  dataset, dropped = _audit_published(cfg, dataset)
  split = splits.make_split(dataset, cfg.data)
  split, more = audit.check_split(dataset, split, drop=cfg.data.drop_leaks)
  dropped += more
  dropped += audit.check_targets(
      target_items(cfg, split, len(dataset.items)),
      split,
      dataset,
      allow_cold=cfg.objective.target_items == 'all',
  )
  watch.lap('split and audit')
  train_users, train_items = split.train_rows()
  user, user_notes = _encode(cfg, dataset.users, train_users, 'user', workdir)
  item, item_notes = _encode(cfg, dataset.items, train_items, 'item', workdir)
  watch.lap('features')
  factors, blanked = _make_factors(cfg, dataset, split)
  watch.lap('teacher')
  history_notes = _history_notes(cfg, split.train, len(dataset.users))
  notes = (*dataset.notes, *split.notes, *dropped, *blanked)
  notes += (*user_notes, *item_notes, *history_notes)
  # Two features of one column say the same about it.
  notes = tuple(dict.fromkeys(notes))
  problem = problem_lib.Problem(
      user, item, split, factors, truth, notes, watch.seconds
  )
  if workdir is not None:
    problem_lib.save(problem, workdir)
  return problem


def _load_data(
    cfg: config.Config, data_dir: str | None
) -> tuple[schema.Dataset, np.ndarray | None]:
  """The data set and, for a synthetic world, its true scores [U, I]."""
  if cfg.data.name != 'synthetic':
    return sources.load(cfg.data, data_dir), None
  world = synthetic.make_world(cfg.data.synthetic)
  users = np.arange(len(world.dataset.users))
  items = np.arange(len(world.dataset.items))
  return world.dataset, world.true_scores(users, items)


def _audit_published(
    cfg: config.Config, dataset: schema.Dataset
) -> tuple[schema.Dataset, list[str]]:
  """Audits a published split before validation rows are drawn from it.

  Later a cold row that leaks into training could be drawn into validation and
  would no longer be seen.
  """
  if not dataset.held_out:
    return dataset, []
  split = schema.Split(dataset.interactions, dataset.held_out)
  split, dropped = audit.check_split(dataset, split, drop=cfg.data.drop_leaks)
  mended = dataclasses.replace(dataset, interactions=split.train)
  return mended, dropped


def _encode(
    cfg: config.Config,
    entities: schema.Entities,
    train_rows: np.ndarray,
    side: str,
    workdir: str | None,
) -> tuple[problem_lib.Side, list[str]]:
  """Fits the encoder on training rows, keeps it, encodes all rows."""
  encoder = features.fit(
      getattr(cfg.features, side),
      cfg.features.scaling,
      entities,
      train_rows,
      seed=cfg.train.seed,
      side=side,
  )
  if workdir is not None:
    encoder.save(workdir, side)
  content = encoder.transform(entities)
  return problem_lib.Side(entities.ids, content.dense, content.sparse), list(
      encoder.notes
  )


def _check_teacher(cfg: config.Config) -> None:
  """Refuses factors that know what the best checkpoint is chosen on."""
  source, data = cfg.teacher.source, cfg.data
  published = data.split.startswith('published')
  draws_validation = data.validation_share > 0 or not published
  if source != 'als' and data.validation == 'keep_out' and draws_validation:
    raise errors.UserError(
        f'config.teacher.source is {source!r} and config.data.validation is '
        "'keep_out': the validation pairs are drawn here, and factors from "
        'elsewhere may know them, so that every validation figure would come '
        'out too high. Set --config.data.'
        'validation=return to train on them without validation sets, or '
        '--config.teacher.source=als to fit the factors without them.'
    )


def _make_factors(
    cfg: config.Config, dataset: schema.Dataset, split: schema.Split
) -> tuple[schema.Factors, list[str]]:
  """Teacher factors of the training rows, audited, and what to say of them."""
  settings = cfg.teacher
  if settings.source == 'als':
    factors = teacher.train(
        split.train,
        len(dataset.users),
        len(dataset.items),
        settings,
        cfg.train.seed,
    )
    return audit.check_factors(dataset, split, factors)
  factors = (
      _published_factors(cfg, dataset)
      if settings.source == 'published'
      else _read_factors(settings, len(dataset.users), len(dataset.items))
  )
  factors, notes = audit.check_factors(
      dataset, split, factors, drop=cfg.data.drop_leaks
  )
  if settings.source == 'file' or not dataset.held_out:
    notes.append(
        'The factors come from elsewhere: whether those of training rows know '
        'the test pairs cannot be audited.'
    )
  return factors, notes


def _published_factors(
    cfg: config.Config, dataset: schema.Dataset
) -> schema.Factors:
  if dataset.factors is None:
    raise errors.UserError(
        f"config.teacher.source is 'published', but {cfg.data.name} comes "
        "without factors. Use teacher.source='als' or 'file'."
    )
  return dataset.factors


def _read_factors(
    settings: config.TeacherConfig, num_users: int, num_items: int
) -> schema.Factors:
  """Factors of both sides from `teacher.user_file` and `item_file`."""
  sides = {}
  for name, count in (('user', num_users), ('item', num_items)):
    path = getattr(settings, f'{name}_file')
    if not path:
      raise errors.UserError(
          f"config.teacher.source is 'file', but config.teacher.{name}_file is "
          'empty; name a file of npz, text or raw float32 factors.'
      )
    values = factors_lib.read_factors(path, settings.rank, name=name)
    if len(values) != count:
      raise errors.UserError(
          f'{path} has {len(values)} rows of factors, but there are {count} '
          f'{name}s; row n must belong to {name} n.'
      )
    sides[name] = values
  user, item = sides['user'], sides['item']
  present = [np.any(values != 0, axis=1) for values in (user, item)]
  return schema.Factors(user, item, present[0], present[1])


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
  factors, scaling = problem.factors, cfg.model.preference_scaling
  sizes = (len(problem.user.ids), len(problem.item.ids))
  pairs = _history_pairs(cfg, problem.split.train, sizes[0])
  user_history = histories.make_history(pairs, *sizes, 'user')
  user = tables_lib.make_side(
      _unit_entries(cfg, problem.user.dense),
      factors.user,
      factors.user_present,
      factors.item,
      user_history,
      scaling,
  )
  item = tables_lib.make_side(
      _unit_entries(cfg, problem.item.dense),
      factors.item,
      factors.item_present,
      factors.user,
      histories.make_history(pairs, *sizes, 'item'),
      scaling,
  )
  targets = target_items(cfg, problem.split, sizes[1])
  return tables_lib.make_tables(
      user,
      item,
      problem.split,
      targets,
      user_history.padded()
      if cfg.dropout.uses_history
      else np.zeros((0, 0), np.int32),
      _top_items(cfg, problem, targets),
  )


def _history_pairs(
    cfg: config.Config, train: schema.Interactions, num_users: int
) -> schema.Interactions:
  """The training pairs that histories are made of.

  All of them, unless steps read padded histories and these would be too large:
  then the same number of pairs per user, on both sides alike.
  """
  if not cfg.dropout.uses_history:
    return train
  limit = _history_limit(num_users)
  longest = np.bincount(train.user).max(initial=0)
  return histories.latest(train, limit) if longest > limit else train


def _history_limit(num_users: int) -> int:
  """Pairs of each user at most, so that padded histories fit."""
  return max(_MAX_HISTORY_ENTRIES // num_users, 1)


def _history_notes(
    cfg: config.Config, train: schema.Interactions, num_users: int
) -> list[str]:
  """Says which histories are cut, if any."""
  kept = len(_history_pairs(cfg, train, num_users))
  if kept == len(train):
    return []
  limit = _history_limit(num_users)
  kind = 'a random' if train.time is None else 'the latest'
  return [
      f'Means over histories (dropout transforms) use {kind} {limit:,} pairs '
      f'of each user at most: {kept:,} of {len(train):,}.'
  ]


def _unit_entries(cfg: config.Config, content: np.ndarray) -> np.ndarray:
  """Content whose entries have about unit variance, like preference has.

  Rows of norm 1 over hundreds of columns have tiny entries; beside
  standardised factors the towers then learn from content only slowly (on
  citeulike-a recall@100 after 50 steps: 0.55 with this scale, 0.2 without).
  """
  if cfg.features.scaling == 'column':
    return content
  return content * np.float32(max(content.shape[1], 1) ** 0.5)


def _top_items(
    cfg: config.Config, problem: problem_lib.Problem, targets: np.ndarray
) -> np.ndarray:
  """Each user's top target items by the teacher's score, int32 [U, N]."""
  settings = cfg.objective
  if settings.pairing == 'blocks' or settings.top_items == 0:
    return np.zeros((0, 0), np.int32)
  count = min(settings.top_items, len(targets))
  _, best = top_k.top_items(
      problem.factors.user, problem.factors.item[targets], count
  )
  return targets[best]
