# SPDX-License-Identifier: Apache-2.0
"""Every setting of an experiment, typed, with its unit and its default.

An experiment file returns a `Config` that names only what differs. Flags
override single fields; `Config.validate()` is called after parsing, so that
overrides are checked as well. Plain mutable dataclasses: ml_collections writes
overrides into them and does not run `__post_init__` again.
"""

from collections.abc import Mapping
import dataclasses
import json
import typing
from typing import Any

from dropoutnet_jax import errors

DATASETS = (
    'synthetic',
    'citeulike-a',
    'citeulike-t',
    'ml-100k',
    'layer6-citeulike',
    'recsys2017',
)
SPLITS = ('published-cold', 'published-warm', 'random', 'time')
BASELINES = (
    'random',
    'popularity',
    'content_knn',
    'content_ridge',
    'linear_content',
    'teacher',
)


def _check(condition: bool, field: str, value: Any, rule: str) -> None:
  if not condition:
    raise errors.UserError(f'config.{field} is {value!r}; it must be {rule}.')


def _check_choice(field: str, value: Any, known: tuple[str, ...]) -> None:
  if value not in known:
    raise errors.UserError(
        f'config.{field} is {value!r}; it must be one of {", ".join(known)}.'
        + errors.did_you_mean(str(value), known)
    )


def _check_rate(field: str, value: Any) -> None:
  ok = isinstance(value, (int, float)) and 0.0 <= value <= 1.0
  _check(ok, field, value, 'a probability in [0, 1]')


def _check_at_least(field: str, value: Any, least: float) -> None:
  ok = isinstance(value, (int, float)) and least <= value < float('inf')
  _check(ok, field, value, f'at least {least}')


@dataclasses.dataclass
class SyntheticConfig:
  """A planted world (data/synthetic.py); counts of rows and pairs."""

  num_users: int = 2000
  num_items: int = 3000
  likes_per_user: float = 60.0  # mean number of pairs
  content_strength: float = 0.95  # share of taste variance content explains
  seed: int = 0

  def validate(self) -> None:
    _check_at_least('data.synthetic.num_users', self.num_users, 20)
    _check_at_least('data.synthetic.num_items', self.num_items, 20)
    _check_at_least('data.synthetic.likes_per_user', self.likes_per_user, 1)
    _check_rate('data.synthetic.content_strength', self.content_strength)


@dataclasses.dataclass
class DataConfig:
  """Which data, and what is held out of training."""

  name: str = 'synthetic'
  split: str = 'random'
  # Shares held out by random and time splits. Each is drawn twice, once for
  # test and once for validation, without overlap.
  cold_item_share: float = 0.2
  cold_user_share: float = 0.0
  warm_share: float = 0.1  # of the pairs between warm users and warm items
  # 'keep_out': validation rows stay out of training (selection, early stop).
  # 'return': they are trained on and not evaluated (the final fit).
  validation: str = 'keep_out'
  validation_share: float = 0.2  # of the training rows of published splits
  seed: int = 0  # of the split only
  drop_leaks: bool = False  # drop what the audit finds instead of stopping
  synthetic: SyntheticConfig = dataclasses.field(
      default_factory=SyntheticConfig
  )

  def validate(self) -> None:
    _check_choice('data.name', self.name, DATASETS)
    _check_choice('data.split', self.split, SPLITS)
    _check_choice('data.validation', self.validation, ('keep_out', 'return'))
    for field in ('cold_item_share', 'cold_user_share', 'warm_share'):
      value = getattr(self, field)
      _check_rate(f'data.{field}', value)
      _check(value <= 0.45, f'data.{field}', value, 'at most 0.45 (drawn twice)')
    _check_rate('data.validation_share', self.validation_share)
    self.synthetic.validate()


@dataclasses.dataclass
class Feature:
  """How one column becomes numbers (data/features.py).

  Kinds: 'tags' (Tags: weighted tags, words), 'numeric', 'category', 'dense'.
  """

  column: str = ''
  kind: str = 'tags'
  idf: str = 'root'  # tags: 'idf', 'root' (its square root) or 'none'
  counts: str = 'binary'  # tags: 'binary', 'log' (1 + log count) or 'raw'
  min_rows: int = 1  # tags, category: drop what occurs in fewer training rows
  rank: int = 0  # tags: truncated SVD to this many columns; 0 keeps all
  sparse: bool = True  # tags: part of the sparse content as well

  def validate(self, field: str) -> None:
    _check(bool(self.column), f'{field}.column', self.column, 'a column name')
    kinds = ('tags', 'numeric', 'category', 'dense')
    _check_choice(f'{field}.kind', self.kind, kinds)
    _check_choice(f'{field}.idf', self.idf, ('idf', 'root', 'none'))
    _check_choice(f'{field}.counts', self.counts, ('binary', 'log', 'raw'))
    _check_at_least(f'{field}.min_rows', self.min_rows, 1)
    _check_at_least(f'{field}.rank', self.rank, 0)


@dataclasses.dataclass
class FeaturesConfig:
  """Content of the two sides; an empty list means a side without content."""

  user: list[Feature] = dataclasses.field(default_factory=list)
  item: list[Feature] = dataclasses.field(default_factory=list)
  # 'row': each row of the dense content has norm 1. 'column': standardised
  # over training rows and clipped at 5, as published.
  scaling: str = 'row'

  def validate(self) -> None:
    _check_choice('features.scaling', self.scaling, ('row', 'column'))
    for side in ('user', 'item'):
      for number, feature in enumerate(getattr(self, side)):
        feature.validate(f'features.{side}[{number}]')


@dataclasses.dataclass
class TeacherConfig:
  """Preference factors: weighted ALS, or read from files."""

  source: str = 'als'  # 'als', 'file' or 'published' (from the data set)
  rank: int = 200
  regularization: float = 1.0
  confidence: float = 10.0  # a like counts 1 + confidence * weight
  num_iterations: int = 10
  user_file: str = ''  # npz, text or raw float32; source 'file'
  item_file: str = ''

  def validate(self) -> None:
    _check_choice('teacher.source', self.source, ('als', 'file', 'published'))
    _check_at_least('teacher.rank', self.rank, 1)
    _check_at_least('teacher.confidence', self.confidence, 1e-6)
    _check_at_least('teacher.num_iterations', self.num_iterations, 1)
    value = self.regularization
    ok = isinstance(value, (int, float)) and 0 < value < float('inf')
    _check(ok, 'teacher.regularization', value, 'positive')


@dataclasses.dataclass
class DropoutConfig:
  """Input dropout (Algorithm 1): what is taken from a row, and how often.

  'independent': each side is dropped or transformed with its own rates.
  'exclusive': one of six modes per pair, as in the paper; the probability of
  'as is' is what the other five leave.
  """

  kind: str = 'independent'
  user_rate: float = 0.5  # independent: preference dropped
  item_rate: float = 0.5
  user_transform_rate: float = 0.0  # independent: replaced by the history mean
  item_transform_rate: float = 0.0
  drop_user: float = 0.2  # exclusive
  drop_item: float = 0.2
  drop_both: float = 0.2
  user_transform: float = 0.0
  item_transform: float = 0.0
  ramp_steps: int = 0  # rates grow linearly from 0 over this many steps
  # A side without content is not dropped: nothing would be left to learn from.
  drop_without_content: bool = False

  def validate(self) -> None:
    kinds = ('independent', 'exclusive')
    _check_choice('dropout.kind', self.kind, kinds)
    for field in dataclasses.fields(self):
      if field.type is float or field.type == 'float':
        _check_rate(f'dropout.{field.name}', getattr(self, field.name))
    for side in ('user', 'item'):
      total = getattr(self, f'{side}_rate') + getattr(
          self, f'{side}_transform_rate'
      )
      name = f'dropout.{side}_rate + {side}_transform_rate'
      _check(total <= 1.0, name, total, 'at most 1')
    total = (
        self.drop_user
        + self.drop_item
        + self.drop_both
        + self.user_transform
        + self.item_transform
    )
    name = 'dropout: the five exclusive probabilities together'
    _check(total <= 1.0 + 1e-9, name, total, 'at most 1')
    _check_at_least('dropout.ramp_steps', self.ramp_steps, 0)


@dataclasses.dataclass
class SparseConfig:
  """The sparse part of the embeddings: content ridge, whole (decision 11)."""

  enabled: bool = False
  regularization: float = 2.0  # lambda of the ridge
  correction_rank: int = 1000  # Woodbury rank: width of its dense part
  smoothing: float = 3.0  # histories R + smoothing * R B (EASE); 0 is plain
  smoothing_l2: float = 100.0
  history_size: int = 200  # largest weights kept per smoothed history
  tower_weight: float = 1.0  # of the tower's standardised score beside it

  def validate(self) -> None:
    _check_at_least('model.sparse.regularization', self.regularization, 1e-6)
    _check_at_least('model.sparse.correction_rank', self.correction_rank, 0)
    _check_at_least('model.sparse.smoothing', self.smoothing, 0)
    _check_at_least('model.sparse.smoothing_l2', self.smoothing_l2, 1e-6)
    _check_at_least('model.sparse.history_size', self.history_size, 1)
    _check_at_least('model.sparse.tower_weight', self.tower_weight, 0)


@dataclasses.dataclass
class ModelConfig:
  """The two towers."""

  tower: str = 'modern'  # 'paper' or 'modern'
  hidden: tuple[int, ...] = (512,)  # widths of the hidden layers
  rank: int = 200  # of the dense embeddings
  activation: str = 'gelu'  # modern: 'gelu', 'relu' or 'tanh'
  layer_norm: bool = False  # modern
  # modern: adds a linear map of the content, which starts as the identity.
  residual_content: bool = False
  normalize: bool = False  # embeddings of norm 1
  preference_scaling: str = 'standard'  # 'standard' (published), 'row', 'none'
  dtype: str = 'float32'  # of the computation: 'float32' or 'bfloat16'
  sparse: SparseConfig = dataclasses.field(default_factory=SparseConfig)

  def validate(self) -> None:
    _check_choice('model.tower', self.tower, ('paper', 'modern'))
    activations = ('gelu', 'relu', 'tanh')
    _check_choice('model.activation', self.activation, activations)
    _check_choice('model.dtype', self.dtype, ('float32', 'bfloat16'))
    scalings = ('standard', 'row', 'none')
    _check_choice('model.preference_scaling', self.preference_scaling, scalings)
    _check_at_least('model.rank', self.rank, 1)
    for width in self.hidden:
      _check_at_least('model.hidden', width, 1)
    self.sparse.validate()


@dataclasses.dataclass
class ObjectiveConfig:
  """Which pairs are scored, against what, and how they are weighted."""

  teacher: float = 1.0  # weight of the regression onto teacher scores
  # 'blocks': some users times some items, every row embedded once.
  # 'published': per user the top and as many random items of the teacher.
  pairing: str = 'blocks'
  block_users: int = 0  # blocks: 0 takes about the root of the batch size
  positive_weight: float = 30.0  # blocks: weight 1 + this * max(target, 0)
  top_items: int = 2500  # published: per user, by the teacher's score
  random_items: int = 2500  # published: per user
  # 'training' keeps cold items out of the targets; 'all' is as published.
  target_items: str = 'training'

  def validate(self) -> None:
    _check_choice('objective.pairing', self.pairing, ('blocks', 'published'))
    _check_choice(
        'objective.target_items', self.target_items, ('training', 'all')
    )
    _check_at_least('objective.teacher', self.teacher, 0)
    _check_at_least('objective.positive_weight', self.positive_weight, 0)
    _check_at_least('objective.block_users', self.block_users, 0)
    _check_at_least('objective.top_items', self.top_items, 0)
    _check_at_least('objective.random_items', self.random_items, 0)
    total = self.top_items + self.random_items
    _check(total > 0, 'objective.top_items + random_items', total, 'positive')


@dataclasses.dataclass
class TrainConfig:
  """Optimiser, length, and what is written how often (in steps)."""

  batch_size: int = 1_000_000  # pairs per step, over all devices together
  num_steps: int = 1000
  seed: int = 0
  optimizer: str = 'adam'  # 'adam', 'adamw' or 'sgd' (momentum 0.9)
  learning_rate: float = 1e-3  # peak, after warm-up
  schedule: str = 'cosine'  # 'constant', 'cosine', 'exponential', 'piecewise'
  warmup_steps: int = 0
  decay_every: int = 0  # exponential, piecewise: steps between decays
  decay_rate: float = 0.1
  weight_decay: float = 0.0  # adamw
  gradient_clip: float = 0.0  # global norm; 0 is off
  ema: float = 0.0  # decay of the averaged parameters; 0 is off
  steps_per_dispatch: int = 50  # optimiser steps in one call of the device
  log_every: int = 50
  eval_every: int = 0  # validation; 0 is at the end only
  checkpoint_every: int = 500
  keep_checkpoints: int = 2  # the newest; the best is kept beside them
  select_by: str = ''  # validation metric 'cold_item/ndcg@20'; '' is automatic
  patience: int = 0  # evaluations without a better one before stopping; 0: off

  def validate(self) -> None:
    _check_choice('train.optimizer', self.optimizer, ('adam', 'adamw', 'sgd'))
    schedules = ('constant', 'cosine', 'exponential', 'piecewise')
    _check_choice('train.schedule', self.schedule, schedules)
    for field in (
        'batch_size',
        'num_steps',
        'steps_per_dispatch',
        'log_every',
        'checkpoint_every',
        'keep_checkpoints',
    ):
      _check_at_least(f'train.{field}', getattr(self, field), 1)
    for field in ('eval_every', 'patience', 'warmup_steps', 'decay_every'):
      _check_at_least(f'train.{field}', getattr(self, field), 0)
    for field in ('weight_decay', 'gradient_clip'):
      _check_at_least(f'train.{field}', getattr(self, field), 0)
    _check_rate('train.ema', self.ema)
    _check(self.ema < 1, 'train.ema', self.ema, 'below 1')
    value = self.learning_rate
    ok = isinstance(value, (int, float)) and 0 < value < float('inf')
    _check(ok, 'train.learning_rate', value, 'positive')
    if self.schedule in ('exponential', 'piecewise'):
      _check_at_least('train.decay_every', self.decay_every, 1)


@dataclasses.dataclass
class EvaluationConfig:
  """Metrics and baselines of the tables."""

  cutoffs: tuple[int, ...] = (20, 100)  # K of recall, NDCG and hit rate
  baselines: tuple[str, ...] = BASELINES
  # Content ridge: tried on held-out training rows, the best is reported.
  ridge_lambdas: tuple[float, ...] = (1.0, 3.0, 10.0)
  ridge_smoothings: tuple[float, ...] = (0.0, 3.0)
  ridge_smoothing_l2: float = 100.0
  users_per_chunk: int = 512  # bounds the memory of a block of scores

  def validate(self) -> None:
    _check(bool(self.cutoffs), 'evaluation.cutoffs', self.cutoffs, 'not empty')
    for cutoff in self.cutoffs:
      _check_at_least('evaluation.cutoffs', cutoff, 1)
    for name in self.baselines:
      _check_choice('evaluation.baselines', name, BASELINES)
    for value in self.ridge_lambdas:
      _check_at_least('evaluation.ridge_lambdas', value, 1e-6)
    for value in self.ridge_smoothings:
      _check_at_least('evaluation.ridge_smoothings', value, 0)
    _check_at_least('evaluation.users_per_chunk', self.users_per_chunk, 1)


@dataclasses.dataclass
class MeshConfig:
  """Devices along the two axes; 'data' takes what 'model' leaves."""

  model: int = 1

  def validate(self) -> None:
    _check_at_least('mesh.model', self.model, 1)


@dataclasses.dataclass
class Config:
  """One experiment."""

  name: str = 'experiment'
  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  features: FeaturesConfig = dataclasses.field(default_factory=FeaturesConfig)
  teacher: TeacherConfig = dataclasses.field(default_factory=TeacherConfig)
  dropout: DropoutConfig = dataclasses.field(default_factory=DropoutConfig)
  model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
  objective: ObjectiveConfig = dataclasses.field(
      default_factory=ObjectiveConfig
  )
  train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
  evaluation: EvaluationConfig = dataclasses.field(
      default_factory=EvaluationConfig
  )
  mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)

  def validate(self) -> None:
    """Raises UserError naming the first field that is out of range."""
    for section in (
        self.data,
        self.features,
        self.teacher,
        self.dropout,
        self.model,
        self.objective,
        self.train,
        self.evaluation,
        self.mesh,
    ):
      section.validate()
    if self.dropout.kind == 'exclusive' and self.objective.pairing == 'blocks':
      raise errors.UserError(
          "config.dropout.kind is 'exclusive', which belongs to single pairs, "
          "but config.objective.pairing is 'blocks', where a row has one state "
          "for all its pairs. Use pairing='published' or kind='independent'."
      )


def to_json(config: Config) -> str:
  """The whole configuration as JSON, fields in their order of declaration."""
  return json.dumps(dataclasses.asdict(config), indent=2) + '\n'


def from_dict(tree: Mapping[str, Any]) -> Config:
  """Inverse of `to_json`, from parsed JSON.

  Raises:
    UserError: for fields that this version does not know, naming them.
  """
  return _from_dict(Config, tree, 'config')


def _from_dict(kind: Any, tree: Mapping[str, Any], path: str) -> Any:
  hints = typing.get_type_hints(kind)
  unknown = sorted(set(tree) - set(hints))
  if unknown:
    raise errors.UserError(
        f'{path} has the field {unknown[0]!r}, which this version does not '
        'know; it was written by another version of dropoutnet_jax.'
        + errors.did_you_mean(unknown[0], hints)
    )
  values = {}
  for name, value in tree.items():
    hint = hints[name]
    if dataclasses.is_dataclass(hint):
      value = _from_dict(hint, value, f'{path}.{name}')
    elif hint == list[Feature]:
      value = [_from_dict(Feature, v, f'{path}.{name}') for v in value]
    elif typing.get_origin(hint) is tuple:
      value = tuple(value)
    values[name] = value
  return kind(**values)


def check_field(config: Any, name: str) -> None:
  """Checks that a dotted name such as 'train.seed' is a field to override.

  Raises:
    UserError: naming the first part that does not exist and the nearest one.
  """
  node, path = config, 'config'
  for part in name.replace('[', '.[').split('.'):
    if part.startswith('['):
      index = part[1:-1]
      if not isinstance(node, list) or not index.isdigit():
        raise errors.UserError(f'{path} is no list; {part} picks nothing.')
      if int(index) >= len(node):
        raise errors.UserError(
            f'{path} has {len(node)} entries; {part} does not exist.'
        )
      node, path = node[int(index)], path + part
      continue
    known = (
        [field.name for field in dataclasses.fields(node)]
        if dataclasses.is_dataclass(node)
        else []
    )
    if part not in known:
      listed = f' It has {", ".join(known)}.' if known else ''
      raise errors.UserError(
          f'{path} has no field {part!r}.{errors.did_you_mean(part, known)}'
          + listed
      )
    node, path = getattr(node, part), f'{path}.{part}'
