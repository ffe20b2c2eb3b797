# SPDX-License-Identifier: Apache-2.0
"""Settings of what is learnt from: data, content features, teacher.

Part of `config.py`, which gives them their names; see there.
"""

import dataclasses

from dropoutnet_jax import checks

DATASETS = (
    'synthetic',
    'citeulike-a',
    'citeulike-t',
    'ml-100k',
    'layer6-citeulike',
    'recsys2017',
)
SPLITS = ('published-cold', 'published-warm', 'random', 'time')


@dataclasses.dataclass
class SyntheticConfig:
  """A planted world (data/synthetic.py); counts of rows and pairs."""

  num_users: int = 2000
  num_items: int = 3000
  likes_per_user: float = 100.0  # mean number of pairs
  content_strength: float = 0.99  # share of taste variance content explains
  seed: int = 0

  def validate(self) -> None:
    checks.check_at_least('data.synthetic.num_users', self.num_users, 20)
    checks.check_at_least('data.synthetic.num_items', self.num_items, 20)
    checks.check_at_least(
        'data.synthetic.likes_per_user', self.likes_per_user, 1
    )
    checks.check_rate('data.synthetic.content_strength', self.content_strength)
    checks.check_seed('data.synthetic.seed', self.seed)


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
    checks.check_choice('data.name', self.name, DATASETS)
    checks.check_choice('data.split', self.split, SPLITS)
    checks.check_choice(
        'data.validation', self.validation, ('keep_out', 'return')
    )
    for field in ('cold_item_share', 'cold_user_share', 'warm_share'):
      value = getattr(self, field)
      checks.check_rate(f'data.{field}', value)
      checks.check(
          value <= 0.45, f'data.{field}', value, 'at most 0.45 (drawn twice)'
      )
    checks.check_rate('data.validation_share', self.validation_share)
    checks.check_seed('data.seed', self.seed)
    self.synthetic.validate()


@dataclasses.dataclass
class Feature:
  """How one column becomes numbers (data/features.py).

  Kinds: 'tags' (weighted tags, counted words), 'text' (strings, read as
  counted words), 'numeric', 'category' (strings or whole numbers), 'dense'.
  What is said of tags below holds for the words of texts as well.
  """

  column: str = ''
  kind: str = 'tags'
  idf: str = 'root'  # tags: 'idf', 'root' (its square root) or 'none'
  counts: str = 'binary'  # tags: 'binary', 'log' (1 + log count) or 'raw'
  min_rows: int = 1  # tags, category: drop what occurs in fewer training rows
  rank: int = 0  # tags: truncated SVD to this many columns; 0 keeps all
  sparse: bool = True  # tags: part of the sparse content as well

  def validate(self, field: str) -> None:
    checks.check(
        bool(self.column), f'{field}.column', self.column, 'a column name'
    )
    kinds = ('tags', 'text', 'numeric', 'category', 'dense')
    checks.check_choice(f'{field}.kind', self.kind, kinds)
    checks.check_choice(f'{field}.idf', self.idf, ('idf', 'root', 'none'))
    checks.check_choice(
        f'{field}.counts', self.counts, ('binary', 'log', 'raw')
    )
    checks.check_at_least(f'{field}.min_rows', self.min_rows, 1)
    checks.check_at_least(f'{field}.rank', self.rank, 0)


@dataclasses.dataclass
class FeaturesConfig:
  """Content of the two sides; an empty list means a side without content."""

  user: list[Feature] = dataclasses.field(default_factory=list)
  item: list[Feature] = dataclasses.field(default_factory=list)
  # 'row': each row of the dense content has norm 1. 'column': standardised
  # over training rows and clipped at 5, as published.
  scaling: str = 'row'

  def validate(self) -> None:
    checks.check_choice('features.scaling', self.scaling, ('row', 'column'))
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
  cg_steps: int = 0  # conjugate gradient steps per solve; 0 solves exactly
  user_file: str = ''  # npz, text or raw float32; source 'file'
  item_file: str = ''

  def validate(self) -> None:
    checks.check_choice(
        'teacher.source', self.source, ('als', 'file', 'published')
    )
    checks.check_at_least('teacher.rank', self.rank, 1)
    checks.check_at_least('teacher.confidence', self.confidence, 1e-6)
    checks.check_at_least('teacher.num_iterations', self.num_iterations, 1)
    checks.check_at_least('teacher.cg_steps', self.cg_steps, 0)
    value = self.regularization
    ok = isinstance(value, (int, float)) and 0 < value < float('inf')
    checks.check(ok, 'teacher.regularization', value, 'positive')
