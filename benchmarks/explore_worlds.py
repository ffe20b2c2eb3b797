# SPDX-License-Identifier: Apache-2.0
"""Worlds to explore: a model that was trained in each, and the truth.

The planted world is smaller than that of the quickstart, and its content tells
seven tenths of the tastes: where content tells all there is nothing to explore.
"""

from collections.abc import Callable
import dataclasses

from benchmarks import jax_dropoutnet
from benchmarks import task
from dropoutnet_jax import config
from dropoutnet_jax import experiment
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.evaluation import model_scores
from dropoutnet_jax.exploring import learner
from dropoutnet_jax.exploring import planted
from dropoutnet_jax.exploring import replay
from dropoutnet_jax.exploring import simulator
from dropoutnet_jax.training import prepare
from dropoutnet_jax.training import runtime as runtime_lib

PLACES = 5
_VISITS = 20  # of each user: a hundred impressions
_BEFORE = 40  # impressions of known items of each user of the planted world


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
  """Where policies are compared.

  Attributes:
    world: the truth.
    known: what is known before the first round.
    scorer: the model, which is told.
    rounds: how a simulation goes.
    num_clicks: by which an item counts as found.
    cfg: of the model.
    problem: of the model.
  """

  world: simulator.World
  known: learner.Knowledge
  scorer: model_scores.Scorer
  rounds: simulator.Rounds
  num_clicks: int
  cfg: config.Config
  problem: problem_lib.Problem


Make = Callable[[int], Place]


def planted_place(seed: int) -> Place:
  """Six hundred users, four hundred items, a quarter of them new."""
  cfg = _load('quickstart')
  cfg.data.synthetic = config.SyntheticConfig(
      num_users=600,
      num_items=400,
      likes_per_user=30.0,
      content_strength=0.7,
      seed=seed,
  )
  cfg.data.cold_user_share, cfg.data.cold_item_share = 0.0, 0.25
  cfg.data.warm_share, cfg.data.validation = 0.0, 'return'
  cfg.data.seed = seed
  cfg.dropout.item_transform_rate = 0.2
  cfg.train.batch_size, cfg.train.num_steps = 100_000, 400
  problem, scorer = _train(cfg, seed, None)
  world = planted.make(problem)
  emb = scorer.all_embeddings()
  before = planted.impressions_before(
      world, _BEFORE, emb['user'] @ emb['item'].T, seed
  )
  known = learner.prepare(scorer, before)
  rounds = _rounds(len(world.visitors), 60)
  return Place(world, known, scorer, rounds, 10, cfg, problem)


def replay_place(seed: int, data_dir: str | None) -> Place:
  """New users of MovieLens 100K with a hundred ratings and more."""
  cfg = _load('movielens_impressions')
  cfg.data.cold_user_share, cfg.data.cold_item_share = 0.4, 0.3
  cfg.data.warm_share, cfg.data.validation = 0.0, 'return'
  cfg.data.seed = seed
  cfg.features.statistics = ()
  cfg.dropout.user_rate = 0.3
  cfg.train.num_steps, cfg.train.patience = 400, 0
  problem, scorer = _train(cfg, seed, data_dir)
  world, before = replay.make(problem, PLACES * _VISITS, seed)
  known = learner.prepare(scorer, before)
  rounds = _rounds(len(world.visitors), 20)
  return Place(world, known, scorer, rounds, 3, cfg, problem)


def _load(name: str) -> config.Config:
  return experiment.load(str(task.ROOT / 'experiments' / f'{name}.py'))


def _train(
    cfg: config.Config, seed: int, data_dir: str | None
) -> tuple[problem_lib.Problem, model_scores.Scorer]:
  """The problem, and the model after all steps."""
  cfg.train.seed = seed
  cfg.train.eval_every = cfg.train.num_steps
  cfg.validate()
  problem = prepare.prepare(cfg, data_dir, None)
  runtime = runtime_lib.build(cfg, problem, num_devices=1)
  model = jax_dropoutnet.JaxDropoutNet(runtime)
  model.train(cfg.train.num_steps)
  return problem, model.scorer()


def _rounds(num_visitors: int, size: int) -> simulator.Rounds:
  """As many as bring every visitor so often, about `size` of them in each."""
  per_order = max(num_visitors // size, 1)
  return simulator.Rounds(
      number=_VISITS * per_order,
      users=num_visitors // per_order,
      places=PLACES,
      look_every=per_order,
  )
