# SPDX-License-Identifier: Apache-2.0
"""From raw files to a problem: read, split, audit, encode, factorise.

Nothing here trains or knows a run folder beyond the two files that it keeps
there.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import tempfile
import time
from typing import Any

import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax import teacher
from dropoutnet_jax import unread
from dropoutnet_jax.data import audit
from dropoutnet_jax.data import factors as factors_lib
from dropoutnet_jax.data import impressions
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import sides
from dropoutnet_jax.data import sources
from dropoutnet_jax.data import splits
from dropoutnet_jax.data import streamed_split
from dropoutnet_jax.data import streamed_tables
from dropoutnet_jax.data import synthetic
from dropoutnet_jax.training import counted
from dropoutnet_jax.training import label_signal
from dropoutnet_jax.training import label_tables
from dropoutnet_jax.training import resident

# Sections and fields that `prepare` reads to make a problem; what it reads to
# refuse one, `check_signal` reads again.
_READ = ('data.', 'features.', 'train.seed')


def problem_settings(cfg: config.Config) -> dict[str, Any]:
  """All settings that a prepared problem depends on, by dotted name."""
  read = (*_READ, 'teacher.') if cfg.needs_teacher else _READ
  found = {
      name: value
      for name, value in config_tree.fields(cfg).items()
      if name.startswith(read)
  }
  found['needs_teacher'] = cfg.needs_teacher
  if cfg.data.mode == 'streaming':  # weights are written with the rows
    found['objective.user_balance'] = cfg.objective.user_balance
  return found


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
    cfg: config.Config,
    data_dir: str | None,
    workdir: str | None,
    train_teacher: Callable[..., schema.Factors] | None = None,
) -> problem_lib.Problem:
  """Reads, splits, audits, encodes and factorises.

  Args:
    cfg: the experiment.
    data_dir: folder with one folder per data set.
    workdir: the run folder that keeps encoders and problem; None keeps none.
    train_teacher: as `teacher.train`, the default, which it may have called
      before.

  Raises:
    UserError: for whatever is wrong with files, fields or the split.
  """
  _check_teacher(cfg)
  watch = Stopwatch()
  if cfg.data.mode == 'streaming':
    data = _read_streamed(cfg, data_dir, workdir, watch)
  else:
    data = _read_resident(cfg, data_dir, watch)
  dataset, split, labelled = data.dataset, data.split, data.labelled
  entities = {'user': dataset.users, 'item': dataset.items}
  encoders, feature_notes = sides.fit(
      cfg.features,
      entities,
      data.trained_on,
      cfg.train.seed,
  )
  encoded = {}
  for side, encoder in encoders.items():
    if workdir is not None:
      encoder.save(workdir)
    encoded[side] = encoder.transform(entities[side])
  _check_inputs(cfg, encoded)
  watch.lap('features')
  factors, blanked = _make_factors(
      cfg, dataset, split, train_teacher or teacher.train
  )
  watch.lap('teacher')
  history_notes = resident.history_notes(cfg, split.train, len(dataset.users))
  notes = (*dataset.notes, *split.notes, *data.dropped, *blanked)
  if labelled is not None and dataset.impressions is not None:
    notes += (labelled.describe(len(dataset.impressions)),)
  notes += (*feature_notes, *history_notes, *unread.notes(cfg))
  # Two features of one column say the same about it.
  notes = tuple(dict.fromkeys(notes))
  problem = problem_lib.Problem(
      encoded['user'],
      encoded['item'],
      split,
      factors,
      data.truth,
      notes,
      watch.seconds,
      labelled,
  )
  if workdir is not None:
    problem_lib.save(problem, workdir)
  return problem


@dataclasses.dataclass(frozen=True)
class _Data:
  """What is read and split, before features.

  Attributes:
    dataset: its interactions are empty where they are streamed.
    split: of it.
    labelled: rows along the split, or None.
    trained_on: by side, rows that features are fitted on.
    dropped: what the audit has mended, one sentence each.
    truth: of a synthetic world.
  """

  dataset: schema.Dataset
  split: schema.Split
  labelled: impressions.Labelled | None
  trained_on: dict[str, np.ndarray]
  dropped: list[str]
  truth: np.ndarray | None = None


def _read_resident(
    cfg: config.Config, data_dir: str | None, watch: Stopwatch
) -> _Data:
  """Reads, splits and audits with all interactions in memory."""
  dataset, truth = _load_data(cfg, data_dir)
  watch.lap('read')
  dataset, dropped = _audit_published(cfg, dataset)
  split = splits.make_split(dataset, cfg.data)
  split, more = audit.check_split(dataset, split, drop=cfg.data.drop_leaks)
  dropped += more
  dropped += audit.check_targets(
      resident.target_items(cfg, split, len(dataset.items)),
      split,
      dataset,
      allow_cold=cfg.objective.target_items == 'all',
  )
  labelled = None
  if dataset.impressions is not None:
    labelled = impressions.split(
        dataset.impressions, split, cfg.data.seed, cfg.data.split == 'time'
    )
  rows = split.train if labelled is None else labelled.train
  label_signal.check(cfg, rows, split.train, len(dataset.users))
  counted.check_times(cfg, split.train, labelled)
  watch.lap('split and audit')
  if dataset.samples is not None:
    # What is trained on must not be described by what came of it.
    trained = impressions.of_training(dataset.samples.rows, rows)
    users, items = dataset.samples.describe(trained)
    dataset = dataclasses.replace(dataset, users=users, items=items)
  # Some that never had a reaction are trained on as well.
  trained_on = {
      side: np.union1d(liked, getattr(rows, side))
      for side, liked in zip(sides.NAMES, split.train_rows())
  }
  return _Data(dataset, split, labelled, trained_on, dropped, truth)


def _read_streamed(
    cfg: config.Config,
    data_dir: str | None,
    workdir: str | None,
    watch: Stopwatch,
) -> _Data:
  """Reads and splits in passes over files; training rows go to one of them."""
  try:
    with tempfile.TemporaryFile(dir=workdir) as file:
      staged = streamed_tables.stage(cfg.data.tables, data_dir, file)
      watch.lap('read')
      divide = functools.partial(
          streamed_split.split, staged, cfg.data, cfg.objective.user_balance
      )
      if workdir is None:
        with tempfile.TemporaryFile() as output:
          found = divide(output)
      else:
        found = streamed_split.write(divide, workdir)
  except OSError as error:
    raise errors.UserError(
        f'{workdir or tempfile.gettempdir()} has no room for the rows of '
        f'interactions ({error.strerror or error}): 16 bytes each, twice while '
        'they are split. Free space, or choose another --workdir.'
    ) from error
  split, labelled = found
  split, dropped = audit.check_split(
      staged.dataset, split, drop=cfg.data.drop_leaks
  )
  streamed = split.streamed
  assert streamed is not None
  examples = label_tables.examples_of(streamed)
  label_signal.check(cfg, examples, split.train, len(staged.dataset.users))
  watch.lap('split and audit')
  trained_on = {
      'user': np.flatnonzero(streamed.user_rows),
      'item': np.flatnonzero(streamed.item_rows),
  }
  return _Data(staged.dataset, split, labelled, trained_on, dropped)


def check_signal(cfg: config.Config, problem: problem_lib.Problem) -> None:
  """Checks a problem that was prepared for other terms of the objective.

  Raises:
    UserError: for terms and options that have nothing to learn from in it.
  """
  streamed = problem.split.streamed
  rows = (
      label_tables.training_rows(problem)
      if streamed is None
      else label_tables.examples_of(streamed)
  )
  num_users = len(problem.user.ids)
  label_signal.check(cfg, rows, problem.split.train, num_users)


def _check_inputs(
    cfg: config.Config, sides: Mapping[str, problem_lib.Side]
) -> None:
  """Refuses a side whose tower would see the same of every row.

  Raises:
    UserError: if a side has neither features with values nor preference.
  """
  if cfg.features.preference != 'none' or cfg.features.statistics:
    return
  for name, side in sides.items():
    parts = (
        side.dense,
        side.tokens.weight,
        side.preference_dense,
        side.preference_tokens.weight,
    )
    if not any(np.any(part) for part in parts):
      raise errors.UserError(
          f"config.features.preference is 'none', and config.features.{name} "
          f'gives no {name} a value that a tower reads, so that all {name}s '
          'would be alike. Name a feature with dense columns or an embedding, '
          'or let the preference be factors, history or statistics.'
      )


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
    cfg: config.Config,
    dataset: schema.Dataset,
    split: schema.Split,
    train_teacher: Callable[..., schema.Factors],
) -> tuple[schema.Factors, list[str]]:
  """Teacher factors of the training rows, audited, and what to say of them."""
  settings = cfg.teacher
  if not cfg.needs_teacher:
    return _no_factors(len(dataset.users), len(dataset.items)), []
  if settings.source == 'als':
    factors = train_teacher(
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


def _no_factors(num_users: int, num_items: int) -> schema.Factors:
  """Factors of width 0, present nowhere."""
  return schema.Factors(
      np.zeros((num_users, 0), np.float32),
      np.zeros((num_items, 0), np.float32),
      np.zeros(num_users, bool),
      np.zeros(num_items, bool),
  )


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
