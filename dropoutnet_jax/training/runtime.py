# SPDX-License-Identifier: Apache-2.0
"""The compiled parts of a run, built from its configuration and problem."""

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import functools
import math
import os
from typing import Any

import jax
import optax

from dropoutnet_jax import config
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax import table_shards
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.data import row_file
from dropoutnet_jax.data import streamed_split
from dropoutnet_jax.data import tables as tables_lib
from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.evaluation import sparse_part
from dropoutnet_jax.model import objective_params
from dropoutnet_jax.model import towers
from dropoutnet_jax.training import checkpoints
from dropoutnet_jax.training import optimizers
from dropoutnet_jax.training import resident
from dropoutnet_jax.training import row_feed
from dropoutnet_jax.training import state as state_lib
from dropoutnet_jax.training import batch_loss
from dropoutnet_jax.training import step_batch
from dropoutnet_jax.training import steps
from dropoutnet_jax.training import touched_rows


@dataclasses.dataclass(frozen=True)
class Runtime:
  """Everything a loop or an evaluation needs, placed on the devices."""

  cfg: config.Config
  problem: problem_lib.Problem
  mesh: parallel.Mesh
  tables: tables_lib.Tables
  model: towers.TwoTower
  optimizer: optax.GradientTransformation
  embedder: model_scores.Embedder
  batch_shape: tuple[int, ...]  # (users, items) of a block, or (pairs,)
  sparse: sparse_part.SparsePart | None = None

  @property
  def pairs_per_step(self) -> int:
    """Pairs that are scored in a step."""
    return math.prod(self.batch_shape)

  def notes(self) -> list[str]:
    """What a user should know of how this run uses the devices."""
    note = unsplit_note(self.batch_shape, self.mesh)
    more = self.cfg.objective.num_sampled
    if more and not note:  # all items of a batch are embedded together
      items = self.batch_shape[0] + more
      field = 'objective.num_sampled'
      note = unsplit_note((items,), self.mesh, field)
    return [note] if note else []

  def fresh_state(self) -> state_lib.TrainState:
    """The state before the first step, on the devices."""
    return self._create_state(self.tables)

  def abstract_state(self) -> state_lib.TrainState:
    """Shapes of a state and where it lies: what to restore a saved one to."""
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=sharding
        ),
        self._shapes,
        self._shardings,
    )

  @functools.cached_property
  def _create_state(self) -> Callable[..., state_lib.TrainState]:
    """Compiled once; no device ever holds more than its part of a table."""
    return jax.jit(self._create, out_shardings=self._shardings)

  def _create(self, tables: tables_lib.Tables) -> state_lib.TrainState:
    return state_lib.create_state(
        self.model,
        self.optimizer,
        tables,
        self.cfg.train.seed,
        bool(self.cfg.train.ema),
        objective_params.create(self.cfg, tables.rows),
    )

  @functools.cached_property
  def _shapes(self) -> state_lib.TrainState:
    """Of everything in a state; nothing is computed."""
    return jax.eval_shape(self._create, self.tables)

  @functools.cached_property
  def _shardings(self) -> state_lib.TrainState:
    """Rows of tables of embeddings are split, all else is replicated."""

    def place(path: Any, leaf: Any) -> Any:
      if state_lib.table_of(path) is None:
        return parallel.replicated(self.mesh)
      return table_shards.split_rows(leaf.shape, self.mesh)

    return jax.tree_util.tree_map_with_path(place, self._shapes)

  def restore_best(self, workdir: str) -> state_lib.TrainState:
    """The best whole checkpoint of a run folder, by validation, else newest.

    Raises:
      UserError: if there is no whole checkpoint.
    """
    saved = checkpoints.Checkpoints(workdir, read_only=True)
    with contextlib.closing(saved):
      found = saved.restore_best(self.abstract_state())
    if found is None:
      raise errors.UserError(
          f'{workdir} has no whole checkpoint yet; train it first.'
      )
    return found[0]

  def set_damaged_aside(self, workdir: str) -> None:
    """Moves newest checkpoints away until one is whole; see `checkpoints`."""
    keep = self.cfg.train.keep_checkpoints
    with contextlib.closing(checkpoints.Checkpoints(workdir, keep)) as saved:
      saved.restore_newest(self.abstract_state())

  def scorer(self, state: state_lib.TrainState) -> model_scores.Scorer:
    """The model of a state; all processes must call this.

    It is of this process, unless `shares_evaluation`.
    """
    return model_scores.Scorer(
        self.embedder,
        self.own(state.eval_variables()),
        self.own(self.tables),
        self.sparse,
        self.problem.item.sparse,
        self.cfg.model.sparse.tower_weight,
    )

  @property
  def shares_evaluation(self) -> bool:
    """Whether all processes must take part where the model scores."""
    return table_shards.are_split(self.mesh) and self.mesh.is_multi_process

  def own(self, tree: Any) -> Any:
    """What this process has for itself, as `embedder` takes it.

    That is a copy on its first device; but tables that are split stay so, since
    they may be larger than it. All processes must call this.
    """
    return tree if table_shards.are_split(self.mesh) else parallel.local(tree)

  def feed(self, workdir: str, step: int) -> row_feed.Feed:
    """What the steps from this one on read.

    Args:
      workdir: the run folder, which holds rows that are streamed.
      step: the first one.

    Raises:
      UserError: if their file is missing or damaged.
    """
    streamed = self.problem.split.streamed
    if streamed is None:
      return row_feed.Resident(self.tables)
    path = os.path.join(workdir, streamed_split.FILE)
    rows = row_file.RowFile(path, streamed.num_rows)
    return row_feed.Streaming(
        self.cfg, self.tables, rows, self._places, self.mesh, step
    )

  @functools.cached_property
  def _places(self) -> row_feed.Places:
    """Compiled once, for whatever number of feeds."""
    streamed = self.problem.split.streamed
    assert streamed is not None
    return row_feed.make_places(self.cfg, streamed.num_rows)

  def loss_fn(self) -> batch_loss.LossFn:
    """Loss of the batch of a step."""
    return batch_loss.make_loss_fn(self.cfg, self.model, self.tables, self.mesh)

  def train_steps(self) -> Any:
    """The compiled steps, the same ones each time; see `steps`."""
    return self._train_steps

  @functools.cached_property
  def _train_steps(self) -> Any:
    names = batch_loss.metric_names(self.cfg)
    params = self._shapes.params
    touched = optimizers.touched_tables(
        self.cfg.train, state_lib.by_name(params)
    )
    others: set[str] = set()
    if self.mesh.size > 1:
      others = set(params.get('embeddings', {})) - set(touched)
    return steps.make_train_steps(
        self.loss_fn(),
        self.optimizer,
        self.cfg.train,
        names,
        touched_rows.make_find(self.cfg, touched, self.mesh),
        self.mesh,
        touched_rows.make_find(self.cfg, sorted(others), self.mesh, True),
    )


def unsplit_note(
    sizes: Sequence[int], mesh: parallel.Mesh, field: str = 'train.batch_size'
) -> str:
  """Says that a batch of such numbers of rows is not split; else ''."""
  parts = parallel.num_parts(mesh)
  left = [str(size) for size in sizes if size % parts]
  if not left:
    return ''
  return (
      f'{" and ".join(left)} rows of a batch cannot be split over {parts} '
      'devices, so that each of them computes all of them. Choose '
      f'config.{field} so that {parts} divides the rows.'
  )


def build(
    cfg: config.Config,
    problem: problem_lib.Problem,
    sparse: sparse_part.SparsePart | None = None,
    num_devices: int | None = None,
) -> Runtime:
  """Places the tables and builds model and optimiser.

  Args:
    cfg: the experiment.
    problem: its data.
    sparse: the fitted sparse part, or None for towers alone.
    num_devices: to use; None for all.
  """
  mesh = parallel.make_mesh(cfg.mesh, num_devices)
  tables = resident.make_tables(cfg, problem)
  model = towers.TwoTower(cfg.model)
  return Runtime(
      cfg=cfg,
      problem=problem,
      mesh=mesh,
      tables=parallel.place_tables(tables, mesh),
      model=model,
      optimizer=optimizers.make_optimizer(cfg.train),
      embedder=model_scores.Embedder(
          model, mesh if table_shards.are_split(mesh) else None
      ),
      batch_shape=step_batch.batch_shape(cfg, tables),
      sparse=sparse and sparse.with_teacher(cfg, problem),
  )
