# SPDX-License-Identifier: Apache-2.0
"""Every setting of an experiment, typed, with its unit and its default.

An experiment file returns a `Config` that names only what differs. Flags
override single fields; `Config.validate()` is called after parsing, so that
overrides are checked as well. Plain mutable dataclasses: ml_collections writes
overrides into them and does not run `__post_init__` again.
"""

import dataclasses

from dropoutnet_jax import checks
from dropoutnet_jax import config_data
from dropoutnet_jax import config_dropout
from dropoutnet_jax import config_evaluation
from dropoutnet_jax import config_features
from dropoutnet_jax import config_model
from dropoutnet_jax import config_objective
from dropoutnet_jax import config_streaming
from dropoutnet_jax import config_train
from dropoutnet_jax import errors

BASELINES = config_evaluation.BASELINES
DATASETS = config_data.DATASETS
METRIC_VARIANTS = config_evaluation.METRIC_VARIANTS
OPTIMIZERS = config_train.OPTIMIZERS
ROW_OPTIMIZERS = config_train.ROW_OPTIMIZERS
SCHEDULES = config_train.SCHEDULES
DataConfig = config_data.DataConfig
DropoutConfig = config_dropout.DropoutConfig
EvaluationConfig = config_evaluation.EvaluationConfig
Feature = config_features.Feature
FeaturesConfig = config_features.FeaturesConfig
GroupsConfig = config_model.GroupsConfig
ModelConfig = config_model.ModelConfig
ObjectiveConfig = config_objective.ObjectiveConfig
SparseConfig = config_model.SparseConfig
SyntheticConfig = config_data.SyntheticConfig
TablesConfig = config_data.TablesConfig
TeacherConfig = config_data.TeacherConfig
TrainConfig = config_train.TrainConfig

PROFILES = ('default', 'layer6', 'easyrec')


@dataclasses.dataclass
class MeshConfig:
  """Devices along the two axes; 'data' takes what 'model' leaves."""

  model: int = 1

  def validate(self) -> None:
    checks.check_at_least('mesh.model', self.model, 1)


@dataclasses.dataclass
class SweepConfig:
  """Several runs that differ in one field; no values is a single run."""

  field: str = 'dropout.item_rate'
  values: tuple[float, ...] = ()

  def validate(self) -> None:
    for value in self.values:
      ok = isinstance(value, (int, float))
      checks.check(ok, 'sweep.values', value, 'a number')


@dataclasses.dataclass
class Variant:
  """One row of a comparison: what it sets, each as 'field=value'."""

  name: str = ''
  settings: tuple[str, ...] = ()  # such as 'objective.softmax=1'


@dataclasses.dataclass
class ComparisonConfig:
  """Several variants of an experiment over seeds; none is a single run."""

  variants: list[Variant] = dataclasses.field(default_factory=list)
  seeds: tuple[int, ...] = (0,)  # values of train.seed, a run for each

  def validate(self) -> None:
    checks.check(
        bool(self.seeds), 'comparison.seeds', self.seeds, 'one seed or more'
    )
    for seed in self.seeds:
      checks.check_seed('comparison.seeds', seed)
    names = set()
    for number, variant in enumerate(self.variants):
      field, name = f'comparison.variants[{number}].name', variant.name
      ok = bool(name) and not set(name) & set('/\\') and name[0] != '.'
      checks.check(ok, field, name, 'usable as the name of a folder')
      checks.check(name not in names, field, name, 'used once')
      names.add(name)


@dataclasses.dataclass
class Config:
  """One experiment."""

  name: str = 'experiment'
  profile: str = 'default'  # one of PROFILES, as profiles.apply sets it
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
  sweep: SweepConfig = dataclasses.field(default_factory=SweepConfig)
  comparison: ComparisonConfig = dataclasses.field(
      default_factory=ComparisonConfig
  )

  def validate(self) -> None:
    """Raises UserError naming the first field that is not as it must be."""
    checks.check_types(self)
    checks.check_choice('profile', self.profile, PROFILES)
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
        self.sweep,
        self.comparison,
    ):
      section.validate()
    data = self.data
    shares = (data.cold_item_share, data.cold_user_share, data.warm_share)
    if not data.split.startswith('published') and not any(shares):
      raise errors.UserError(
          'config.data.cold_item_share, cold_user_share and warm_share are 0, '
          'so that nothing is held out and nothing could be evaluated; raise '
          'one of them.'
      )
    self._check_sparse_part()
    self._check_pairing()
    self._check_features()
    self._check_statistics()
    config_streaming.check(self)

  @property
  def uses_history(self) -> bool:
    """Whether steps look up who liked what."""
    objective = self.objective
    on_labels = objective.pairing == 'interactions'
    known = on_labels and objective.mask_known
    counted = bool(self.features.statistics) and not on_labels
    return (
        self.dropout.uses_history
        or self.features.preference == 'history'
        or known
        or counted
    )

  @property
  def learns_scale(self) -> bool:
    """Whether scale and bias between scores and logits are learnt."""
    return self.objective.learns_scale(self.model.normalize)

  @property
  def needs_teacher(self) -> bool:
    """Whether anything asks for the teacher's factors."""
    return bool(
        self.objective.teacher
        or self.features.preference == 'factors'
        or {'teacher', 'linear_content'} & set(self.evaluation.baselines)
        or self.model.sparse.needs_teacher
    )

  def _check_sparse_part(self) -> None:
    sparse, source = self.model.sparse, self.teacher.source
    if sparse.has_teacher and source != 'als':
      raise errors.UserError(
          f'config.model.sparse.teacher_weight is {sparse.teacher_weight} and '
          f'predicted_weight {sparse.predicted_weight}, but '
          f'config.teacher.source is {source!r}: new rows are folded into '
          "factors of ALS alone. Set both to 0, or the source to 'als'."
      )

  def _check_features(self) -> None:
    """What other sections want of the features."""
    objective = self.objective
    name = 'objective.embedding_regularization'
    strength = objective.embedding_regularization
    rule = '0 where no feature has an embedding'
    checks.check(
        self.features.has_embeddings or not strength, name, strength, rule
    )
    if self.features.preference != 'none':
      return
    suffix = '' if self.dropout.kind == 'exclusive' else '_rate'
    for side in ('user', 'item'):
      name = f'{side}_transform{suffix}'
      value = getattr(self.dropout, name)
      rule = "0 where features.preference is 'none': there is no history"
      checks.check(not value, f'dropout.{name}', value, rule)
    name, value = 'model.residual_preference', self.model.residual_preference
    rule = "False where features.preference is 'none': it is of histories"
    checks.check(not value, name, value, rule)

  def _check_statistics(self) -> None:
    """What a row is compared with must have a row left out as well."""
    objective = self.objective
    if not self.features.statistics or objective.pairing != 'interactions':
      return
    for field in ('num_sampled', 'num_impressions'):
      name, value = f'objective.{field}', getattr(objective, field)
      rule = (
          '0 where features.statistics are counted: these items keep all their '
          'counts, and those that are trained on do not'
      )
      checks.check(not value, name, value, rule)
    if objective.pairwise:
      name, value = 'objective.pairwise_within', objective.pairwise_within
      rule = (
          "'batch' where features.statistics are counted: of two rows of one "
          'user, what is left out of her counts would tell the labels'
      )
      checks.check(value == 'batch', name, value, rule)
      name, size = 'objective.group_rows', objective.group_rows
      rule = '1 where features.statistics are counted, for the same reason'
      checks.check(size == 1, name, size, rule)

  def _check_pairing(self) -> None:
    pairing = self.objective.pairing
    if self.dropout.kind == 'exclusive' and pairing == 'blocks':
      raise errors.UserError(
          "config.dropout.kind is 'exclusive', which belongs to single pairs, "
          "but config.objective.pairing is 'blocks', where a row has one state "
          "for all its pairs. Use pairing='published' or kind='independent'."
      )
    if pairing == 'interactions':
      self.objective.check_steps(self.train.batch_size, self.learns_scale)
    if self.features.preference == 'history' and self.objective.teacher:
      raise errors.UserError(
          "config.features.preference is 'history', where no factors are "
          f'learnt from, but config.objective.teacher is '
          f'{self.objective.teacher}. Set it to 0, or the preference to '
          "'factors'."
      )
