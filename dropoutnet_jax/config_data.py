# SPDX-License-Identifier: Apache-2.0
"""Settings of what is learnt from: data and teacher.

Part of `config.py`, which gives them their names; see there.
"""

import dataclasses
import itertools

from dropoutnet_jax import checks

DATASETS = (
    'synthetic',
    'citeulike-a',
    'citeulike-t',
    'ml-100k',
    'layer6-citeulike',
    'recsys2017',
)
# Beside them 'tables': the user's own, see TablesConfig.
TABLE_FORMATS = ('parquet', 'csv', 'tsv', 'json', 'arrow')
# Fields of TablesConfig that say what lists are meant as.
LIST_COLUMNS = ('tag_columns', 'vector_columns', 'sequence_columns')
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
class TablesConfig:
  """A user's own tables (data/own_tables.py), for data.name 'tables'.

  The first four are a file, a folder, a glob or a URL that fsspec opens;
  relative paths start in --data_dir if given, else in the current folder.
  """

  interactions: str = ''  # one row per pair of ids
  users: str = ''  # one row per user: the id, other columns; may be left out
  items: str = ''  # one row per item, likewise
  samples: str = ''  # instead of all three: pairs with columns of both sides
  format: str = ''  # one of TABLE_FORMATS; '' goes by the names of the files
  # Names of columns. The last four may be missing, or '' to leave them alone;
  # under another name than the default they have to be there.
  user_id: str = 'user_id'
  item_id: str = 'item_id'
  label: str = 'label'  # above 0 for a like, 0 for one shown only; else all 1
  weight: str = 'weight'  # at least 0; else all 1
  time: str = 'time'  # seconds since 1970, or date and time
  session_id: str = 'session_id'  # what was shown together
  user_columns: tuple[str, ...] = ()  # of samples, beside the ids
  item_columns: tuple[str, ...] = ()
  # Delimited files: '' separates CSV by commas and TSV by tabs. The headers
  # name the columns of files in which no line does.
  separator: str = ''
  header: tuple[str, ...] = ()  # of interactions or samples
  users_header: tuple[str, ...] = ()
  items_header: tuple[str, ...] = ()
  # Columns of delimited files that hold lists ('a|b'); elsewhere they say how
  # lists of whole numbers are meant.
  tag_columns: tuple[str, ...] = ()
  vector_columns: tuple[str, ...] = ()
  sequence_columns: tuple[str, ...] = ()  # lists whose order is kept
  list_separator: str = '|'
  tag_weight_separator: str = ''  # ':' reads 'jazz:2' as jazz with weight 2

  def validate(self) -> None:
    """For data.name 'tables'. Whether the paths exist, reading them shows."""
    if self.samples:
      rule = 'empty where data.tables.samples holds both sides'
      empty: tuple[str, ...] = ('interactions', 'users', 'items')
    else:
      rule = 'the path of a table, or data.tables.samples be one'
      value = self.interactions
      checks.check(bool(value), 'data.tables.interactions', value, rule)
      rule = 'empty without data.tables.samples'
      empty = ('user_columns', 'item_columns')
    for name in empty:
      value = getattr(self, name)
      checks.check(not value, f'data.tables.{name}', value, rule)
    if self.format:
      checks.check_choice('data.tables.format', self.format, TABLE_FORMATS)
    value = self.separator
    ok = len(value) <= 1 and value not in ('"', '\n', '\r') and value.isascii()
    rule = "one character, such as ';', or empty; format='tsv' stands for tabs"
    checks.check(ok, 'data.tables.separator', value, rule)
    for name in ('user_id', 'item_id', 'list_separator'):
      value = getattr(self, name)
      checks.check(bool(value), f'data.tables.{name}', value, 'not empty')
    self._check_distinct()

  def _check_distinct(self) -> None:
    """No column has two meanings, and no name comes twice in a list."""
    singles = ('user_id', 'item_id', 'label', 'weight', 'time', 'session_id')
    lists = ('user_columns', 'item_columns')
    used: dict[str, str] = {}
    for field in singles + lists:
      value = getattr(self, field)
      for name in value if field in lists else (value,):
        if not name:
          continue
        rule = f'another column than data.tables.{used.get(name)}'
        checks.check(name not in used, f'data.tables.{field}', name, rule)
        used[name] = field
    for field in (
        'header',
        'users_header',
        'items_header',
        *LIST_COLUMNS,
    ):
      value = getattr(self, field)
      ok = len(set(value)) == len(value) and all(value)
      checks.check(ok, f'data.tables.{field}', value, 'distinct names')
    for field, other in itertools.combinations(LIST_COLUMNS, 2):
      value = getattr(self, field)
      for name in getattr(self, other):
        rule = f'without {name!r}, which data.tables.{other} names'
        checks.check(name not in value, f'data.tables.{field}', value, rule)


@dataclasses.dataclass
class DataConfig:
  """Which data, and what is held out of training."""

  name: str = 'synthetic'
  # 'resident' keeps all interactions on the devices; 'streaming', for those of
  # 'tables' as Parquet, reads rows as steps need them (config_streaming.py).
  mode: str = 'resident'
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
  tables: TablesConfig = dataclasses.field(default_factory=TablesConfig)

  def validate(self) -> None:
    checks.check_choice('data.name', self.name, (*DATASETS, 'tables'))
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
    if self.name == 'tables':
      self.tables.validate()
    else:
      for field in ('interactions', 'samples'):
        rule = f"'tables' where data.tables.{field} is set"
        unset = not getattr(self.tables, field)
        checks.check(unset, 'data.name', self.name, rule)


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
