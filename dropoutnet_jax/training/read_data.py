# SPDX-License-Identifier: Apache-2.0
"""Raw files as a data set that is split and audited: what `prepare` reads."""

import dataclasses
import functools
import tempfile
import time

import numpy as np

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax.data import audit
from dropoutnet_jax.data import impressions
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


class Stopwatch:
  """Seconds of named parts, in order."""

  def __init__(self) -> None:
    self.seconds: dict[str, float] = {}
    self._start = time.monotonic()

  def lap(self, name: str) -> None:
    now = time.monotonic()
    self.seconds[name] = round(now - self._start, 3)
    self._start = now


@dataclasses.dataclass(frozen=True)
class Data:
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


def read_resident(
    cfg: config.Config, data_dir: str | None, watch: Stopwatch
) -> Data:
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
  return Data(dataset, split, labelled, trained_on, dropped, truth)


def read_streamed(
    cfg: config.Config,
    data_dir: str | None,
    workdir: str | None,
    watch: Stopwatch,
) -> Data:
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
  return Data(staged.dataset, split, labelled, trained_on, dropped)


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
