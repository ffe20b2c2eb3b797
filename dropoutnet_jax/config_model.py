# SPDX-License-Identifier: Apache-2.0
"""Settings of the two towers, and of the sparse part beside them.

Part of `config.py`, which gives them their names; see there.
"""

import dataclasses

from dropoutnet_jax import checks

TOWERS = ('paper', 'modern', 'groups')
ACTIVATIONS = ('gelu', 'relu', 'tanh', 'elu', 'selu', 'silu', 'sigmoid')
# Networks of the 'groups' tower, by side and by what they read.
NETWORKS = (
    'user_content',
    'user_preference',
    'user_tower',
    'item_content',
    'item_preference',
    'item_tower',
)


@dataclasses.dataclass
class SparseConfig:
  """The sparse part of the embeddings: content ridge, whole."""

  enabled: bool = False
  regularization: float = 2.0  # lambda of the ridge
  correction_rank: int = 1000  # Woodbury rank: width of its dense part
  smoothing: float = 3.0  # histories R + smoothing * R B (EASE); 0 is plain
  smoothing_l2: float = 100.0
  history_size: int = 200  # largest weights kept per smoothed history
  # Of these weights themselves beside content ridge, for items with training
  # pairs: what EASE says of them.
  history_weight: float = 0.0
  # Items with more entries than the mean, such as tags, are longer by this
  # power of their share; 0 makes all of length 1.
  length_power: float = 0.0
  tower_weight: float = 0.35  # of the towers' dot product beside it
  # Likewise of the teacher's, where there are likes: of new items and users as
  # soon as some are told (evaluation/teacher_part.py); 0 is none.
  teacher_weight: float = 0.0
  # Items as landmarks of a second kernel, the squared cosine of the teacher's
  # factors as content predicts them (evaluation/second_kernel.py); 0 is none.
  landmarks: int = 0
  second_width: int = 800  # features that are kept of it: dense columns
  second_weight: float = 0.5  # of that kernel beside the content's
  factor_regularization: float = 2.0  # lambda of the predictions
  # Of the teacher's dot product with what both kernels predict of an item's
  # factors, of norm 1; less with each like.
  predicted_weight: float = 0.0
  # Items of which content predicts large factors, as those that are like many
  # others, have smaller scores of content, by this power of the norm.
  norm_power: float = 0.0
  # Of histories that the dense content of users lets expect, with n likes
  # s / (s + n) of it (evaluation/expected_histories.py); 0 is none.
  expected_weight: float = 0.0
  expected_regularization: float = 100.0  # lambda of their ridge
  expected_power: float = 0.4  # of an item's likes, by which one counts less
  expected_smoothing: float = 5.0  # s

  @property
  def needs_teacher(self) -> bool:
    """Whether it is made of the teacher's factors, too."""
    return self.enabled and bool(self.landmarks or self.has_teacher)

  @property
  def has_teacher(self) -> bool:
    """Whether embeddings have columns of the teacher's factors."""
    has_predicted = self.landmarks and self.predicted_weight
    return self.enabled and bool(self.teacher_weight or has_predicted)

  def validate(self) -> None:
    checks.check_at_least(
        'model.sparse.regularization', self.regularization, 1e-6
    )
    checks.check_at_least(
        'model.sparse.correction_rank', self.correction_rank, 0
    )
    checks.check_at_least('model.sparse.smoothing', self.smoothing, 0)
    checks.check_at_least('model.sparse.smoothing_l2', self.smoothing_l2, 1e-6)
    checks.check_at_least('model.sparse.history_size', self.history_size, 1)
    checks.check_at_least('model.sparse.history_weight', self.history_weight, 0)
    checks.check_at_least('model.sparse.tower_weight', self.tower_weight, 0)
    checks.check_at_least('model.sparse.teacher_weight', self.teacher_weight, 0)
    checks.check_at_least('model.sparse.landmarks', self.landmarks, 0)
    for field in ('expected_weight', 'expected_power', 'expected_smoothing'):
      checks.check_at_least(f'model.sparse.{field}', getattr(self, field), 0)
    checks.check_at_least('model.sparse.second_width', self.second_width, 1)
    checks.check_at_least(
        'model.sparse.predicted_weight', self.predicted_weight, 0
    )
    for field in ('length_power', 'norm_power'):
      power = getattr(self, field)
      checks.check(0 <= power <= 1, f'model.sparse.{field}', power, 'in [0, 1]')
    for field in (
        'second_weight',
        'factor_regularization',
        'expected_regularization',
    ):
      value = getattr(self, field)
      checks.check_at_least(f'model.sparse.{field}', value, 1e-6)


@dataclasses.dataclass
class GroupsConfig:
  """Networks of the 'groups' tower, where they are not all alike.

  Widths of hidden layers: () takes model.group_hidden, or model.hidden for a
  tower, and (0,) has none: what comes in goes on.
  """

  user_content: tuple[int, ...] = ()
  user_preference: tuple[int, ...] = ()
  user_tower: tuple[
      int, ...
  ] = ()  # without the last layer, of width model.rank
  item_content: tuple[int, ...] = ()
  item_preference: tuple[int, ...] = ()
  item_tower: tuple[int, ...] = ()
  no_batch_norm: tuple[str, ...] = ()  # those of NETWORKS that have none

  def widths(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """Hidden layers of one of NETWORKS."""
    widths = getattr(self, name) or default
    return () if widths == (0,) else widths

  def validate(self) -> None:
    for name in NETWORKS:
      widths = getattr(self, name)
      ok = widths == (0,) or all(width >= 1 for width in widths)
      rule = 'widths of at least 1, or (0,) for no layer'
      checks.check(ok, f'model.groups.{name}', widths, rule)
    field, names = 'model.groups.no_batch_norm', self.no_batch_norm
    for name in names:
      checks.check_choice(field, name, NETWORKS)
    checks.check(len(set(names)) == len(names), field, names, 'distinct')


@dataclasses.dataclass
class ModelConfig:
  """The two towers."""

  # 'paper', 'modern' or 'groups'. Batch norm and tanh make the paper's learn
  # faster and bear higher learning rates. The modern one wants a third of the
  # rate; with layer norm and the residual path it then is close behind. That of
  # EasyRec, 'groups', has a network for content, one for preference and one
  # for both, all with batch norm.
  tower: str = 'paper'
  hidden: tuple[int, ...] = (512,)  # widths of the hidden layers
  group_hidden: tuple[int, ...] = (256,)  # groups: of those before them
  groups: GroupsConfig = dataclasses.field(default_factory=GroupsConfig)
  rank: int = 200  # of the dense embeddings
  activation: str = 'gelu'  # modern, groups: one of ACTIVATIONS
  layer_norm: bool = True  # modern
  # modern: adds a linear map of the content, which starts as the identity.
  residual_content: bool = True
  # modern: the same of the preference, for histories of content.
  residual_preference: bool = False
  # modern: users start with embeddings of 0 and no such maps, so that the first
  # model is the sparse part: content ridge.
  zero_users: bool = False
  normalize: bool = False  # embeddings of norm 1
  # Towers see learnt embeddings of features times sqrt(width), as entries of
  # about unit variance; False hands them on as they are.
  scale_embeddings: bool = True
  # 'standard' (published), 'row' (norm 1), 'unit' (entries of unit variance) or
  # 'none'.
  preference_scaling: str = 'standard'
  # Of the products in towers and block losses: 'float32' or 'bfloat16'.
  dtype: str = 'float32'
  sparse: SparseConfig = dataclasses.field(default_factory=SparseConfig)

  def validate(self) -> None:
    checks.check_choice('model.tower', self.tower, TOWERS)
    checks.check_choice('model.activation', self.activation, ACTIVATIONS)
    checks.check_choice('model.dtype', self.dtype, ('float32', 'bfloat16'))
    scalings = ('standard', 'row', 'unit', 'none')
    checks.check_choice(
        'model.preference_scaling', self.preference_scaling, scalings
    )
    checks.check_at_least('model.rank', self.rank, 1)
    for field in ('hidden', 'group_hidden'):
      for width in getattr(self, field):
        checks.check_at_least(f'model.{field}', width, 1)
    widths = self.group_hidden
    ok = self.tower == 'groups' or widths == ModelConfig.group_hidden
    rule = f"left alone where model.tower is {self.tower!r}; 'groups' reads it"
    checks.check(ok, 'model.group_hidden', widths, rule)
    self.groups.validate()
    ok = self.tower == 'groups' or self.groups == GroupsConfig()
    checks.check(ok, 'model.groups', self.groups, rule)
    ok = not self.zero_users or (self.tower == 'modern' and not self.normalize)
    rule = "False unless model.tower is 'modern' and model.normalize is False"
    checks.check(ok, 'model.zero_users', self.zero_users, rule)
    self.sparse.validate()
