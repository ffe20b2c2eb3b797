# SPDX-License-Identifier: Apache-2.0
"""From raw files to a problem: read, split, audit, encode, factorise.

Nothing here trains or knows a run folder beyond the two files that it keeps
there.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any

import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax import config_tree
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax import teacher
from dropoutnet_jax import unread
from dropoutnet_jax.data import audit
from dropoutnet_jax.data import factors as factors_lib
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import schema
from dropoutnet_jax.data import sides
from dropoutnet_jax.training import label_signal
from dropoutnet_jax.training import label_tables
from dropoutnet_jax.training import read_data
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


@dataclasses.dataclass(frozen=True, eq=False)
class Begun:
  """A problem but for the teacher's factors.

  Attributes:
    cfg: the experiment.
    data: read, split and audited.
    encoded: by side.
    notes: on the features.
    watch: of the parts.
    workdir: the run folder that keeps the problem, or None.
  """

  cfg: config.Config
  data: read_data.Data
  encoded: dict[str, problem_lib.Side]
  notes: list[str]
  watch: read_data.Stopwatch
  workdir: str | None

  @property
  def likes(self) -> tuple[schema.Interactions, int, int]:
    """What the teacher learns from: training pairs, and how large sides are."""
    dataset = self.data.dataset
    return self.data.split.train, len(dataset.users), len(dataset.items)


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
  begun = begin(cfg, data_dir, workdir)
  if not trains_teacher(cfg):
    return finish(begun)
  train = train_teacher or teacher.train
  if train_teacher is None and cfg.mesh.model > 1:
    train = functools.partial(train, mesh=parallel.make_mesh(cfg.mesh))
  return finish(begun, train(*begun.likes, cfg.teacher, cfg.train.seed))


def trains_teacher(cfg: config.Config) -> bool:
  """Whether factors are trained here, between `begin` and `finish`."""
  return cfg.needs_teacher and cfg.teacher.source == 'als'


def begin(
    cfg: config.Config, data_dir: str | None, workdir: str | None
) -> Begun:
  """The first part of `prepare`: all that comes before the teacher."""
  _check_teacher(cfg)
  watch = read_data.Stopwatch()
  if cfg.data.mode == 'streaming':
    data = read_data.read_streamed(cfg, data_dir, workdir, watch)
  else:
    data = read_data.read_resident(cfg, data_dir, watch)
  entities = {'user': data.dataset.users, 'item': data.dataset.items}
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
  return Begun(cfg, data, encoded, feature_notes, watch, workdir)


def finish(
    begun: Begun, trained: schema.Factors | None = None
) -> problem_lib.Problem:
  """The other part, with the teacher's factors where it is trained here."""
  cfg, data, encoded = begun.cfg, begun.data, begun.encoded
  dataset, split, labelled = data.dataset, data.split, data.labelled
  factors, blanked = _make_factors(cfg, dataset, split, trained)
  begun.watch.lap('teacher')
  history_notes = resident.history_notes(cfg, split.train, len(dataset.users))
  notes = (*dataset.notes, *split.notes, *data.dropped, *blanked)
  if labelled is not None and dataset.impressions is not None:
    notes += (labelled.describe(len(dataset.impressions)),)
  notes += (*begun.notes, *history_notes, *unread.notes(cfg))
  # Two features of one column say the same about it.
  notes = tuple(dict.fromkeys(notes))
  problem = problem_lib.Problem(
      encoded['user'],
      encoded['item'],
      split,
      factors,
      data.truth,
      notes,
      begun.watch.seconds,
      labelled,
  )
  if begun.workdir is not None:
    problem_lib.save(problem, begun.workdir)
  return problem


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
    trained: schema.Factors | None,
) -> tuple[schema.Factors, list[str]]:
  """Teacher factors of the training rows, audited, and what to say of them."""
  settings = cfg.teacher
  if not cfg.needs_teacher:
    return _no_factors(len(dataset.users), len(dataset.items)), []
  if trained is not None:
    return audit.check_factors(dataset, split, trained)
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
